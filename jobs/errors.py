"""Every error that Labelmill raises, in one tree.

    LabelmillError                    code, exit_code, message; the docstring is the default message
    ├── SenderError                   the one who asked can mend it; the text is shown outward
    │   ├── UsageError                the command line or a setting
    │   ├── SourceError               nothing to read where images were expected
    │   ├── JobError                  no such job, or not in a state for this
    │   ├── ModelNotServedError       no worker serves the model
    │   └── ItemError                 one image; never fails its neighbours; stored as {code, message}
    │       ├── NotFoundError, ForbiddenError, TooLargeError, UnsupportedFormatError,
    │       └── CorruptImageError, FetchTimeoutError (transient), FetchFailedError (transient), ...
    └── ServiceError                  ours or the operator's to mend; outward only the code is shown
        ├── BrokerUnavailableError    Redis or the broker does not answer
        ├── ModelFileError            the model cannot be served (SETUP_FAILED)
        │   ├── GoldenSampleError, ModelMissingError, ModelCorruptError, ModelCardError,
        │   ├── FixedBatchError, ModelUnsupportedError, WeightsError (UnsafePickleError)
        │   └── ExportError           TraceError, ScriptError
        └── ModelRunError             the model raised on good input

Codes are stable words and part of the interface: scripts and results carry them. Retry policy reads
``transient``, never the text.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BrokerUnavailableError",
    "CorruptImageError",
    "CrashedWorkerError",
    "ExportError",
    "FetchFailedError",
    "FetchTimeoutError",
    "FixedBatchError",
    "ForbiddenError",
    "GoldenSampleError",
    "InvalidItemError",
    "ItemError",
    "JobError",
    "LabelmillError",
    "ModelCardError",
    "ModelCorruptError",
    "ModelFileError",
    "ModelMissingError",
    "ModelNotServedError",
    "ModelRunError",
    "ModelUnsupportedError",
    "NotFoundError",
    "ScriptError",
    "SenderError",
    "ServiceError",
    "SourceError",
    "TimeLimitError",
    "TooLargeError",
    "TraceError",
    "UnsafePickleError",
    "UnsupportedFormatError",
    "UsageError",
    "WeightsError",
    "check_code",
    "item_error",
]


class LabelmillError(Exception):
    """Something went wrong in Labelmill."""

    code: ClassVar[str] = "internal_error"
    #: What a command line ends with. 0 is success and 1 an unforeseen error; 2 is argparse's own.
    exit_code: ClassVar[int] = 1
    #: True where the same call may succeed later.
    transient: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").partition("\n")[0]
        super().__init__(self.message)

    def as_dict(self) -> dict[str, str]:
        """The form in which a failure is stored and shown: ``{"code": ..., "message": ...}``."""
        return {"code": self.code, "message": self.message}


# -- what the sender can mend ---------------------------------------------------------------------


class SenderError(LabelmillError):
    """The request cannot be carried out as it stands."""

    code = "bad_request"
    exit_code = 2


class UsageError(SenderError):
    """The command line or a setting is wrong."""

    code = "usage"
    exit_code = 2


class SourceError(SenderError):
    """There is nothing to read where images were expected."""

    code = "source_error"
    exit_code = 3


class ModelNotServedError(SenderError):
    """No worker serves this model."""

    code = "model_not_served"
    exit_code = 6


class JobError(SenderError):
    """There is no such job, or it is not in a state for this."""

    code = "job_error"
    exit_code = 7


class ItemError(SenderError):
    """This image could not be classified."""

    code = "item_error"


class InvalidItemError(ItemError):
    """The item is not of a form that can be read."""

    code = "invalid_item"


class NotFoundError(ItemError):
    """There is no such file or object."""

    code = "not_found"


class ForbiddenError(ItemError):
    """The operator does not allow this reference."""

    code = "forbidden"


class TooLargeError(ItemError):
    """The image is larger than the limit."""

    code = "too_large"


class UnsupportedFormatError(ItemError):
    """The file is no image of a supported format."""

    code = "unsupported_format"


class CorruptImageError(ItemError):
    """The image is damaged and cannot be decoded."""

    code = "corrupt_image"


class FetchTimeoutError(ItemError):
    """The image could not be fetched in time."""

    code = "fetch_timeout"
    transient = True


class FetchFailedError(ItemError):
    """The image could not be fetched."""

    code = "fetch_failed"
    transient = True


def item_error(code: str) -> ItemError:
    """The error of an item by its code, with its default message."""
    return _item_errors().get(code, ItemError)()


def check_code(code: str) -> None:
    """Raises :class:`UsageError` where no error has this code; names those that images mostly fail with."""
    if code not in _codes(LabelmillError):
        usual = sorted({*_item_errors(), ModelRunError.code, CrashedWorkerError.code, TimeLimitError.code})
        raise UsageError(f"no image failed with {code[:80]!a}; codes are {', '.join(usual)}")


def _codes(kind: type[LabelmillError]) -> set[str]:
    return {kind.code}.union(*map(_codes, kind.__subclasses__()))


def _item_errors() -> dict[str, type[ItemError]]:
    # not what others derive for a use of their own: the code is the sender's choice
    return {kind.code: kind for kind in ItemError.__subclasses__() if kind.__module__ == __name__}


# -- what we or the operator must mend ------------------------------------------------------------


class ServiceError(LabelmillError):
    """The service cannot do its work."""

    code = "service_error"
    exit_code = 70


class BrokerUnavailableError(ServiceError):
    """Redis does not answer."""

    code = "broker_unavailable"
    exit_code = 5
    transient = True


class ModelFileError(ServiceError):
    """The model file cannot be served."""

    code = "model_file"
    exit_code = 10


class GoldenSampleError(ModelFileError):
    """The model answers its golden sample differently on this machine."""

    code = "golden_sample"
    exit_code = 11


class ModelMissingError(ModelFileError):
    """There is no such model file."""

    code = "model_missing"
    exit_code = 12


class ModelCorruptError(ModelFileError):
    """The model file is damaged, truncated, or no model."""

    code = "model_corrupt"
    exit_code = 13


class ModelCardError(ModelFileError):
    """The model card is missing, unreadable, or does not match the model."""

    code = "model_card"
    exit_code = 14


class FixedBatchError(ModelFileError):
    """The model takes batches of one fixed size only."""

    code = "fixed_batch"
    exit_code = 15


class ModelUnsupportedError(ModelFileError):
    """The runtime does not know an operator, the opset or the IR version of the model."""

    code = "model_unsupported"
    exit_code = 16


class WeightsError(ModelFileError):
    """The weights do not fit the module, or are not there."""

    code = "weights"
    exit_code = 17


class UnsafePickleError(WeightsError):
    """The weights are a pickle that could run code."""

    code = "unsafe_pickle"
    exit_code = 18


class ExportError(ModelFileError):
    """The module could not be exported, or answers differently once exported."""

    code = "export"
    exit_code = 19


class TraceError(ExportError):
    """The trace does not compute what the module computes."""

    code = "trace"
    exit_code = 20


class ScriptError(ExportError):
    """The module cannot be scripted."""

    code = "script"
    exit_code = 21


class ModelRunError(ServiceError):
    """The model failed on this image."""

    code = "model_error"


class CrashedWorkerError(ServiceError):
    """This image ended its worker each time it was tried."""

    code = "crashed_worker"


class TimeLimitError(ServiceError):
    """This image took longer than the time limit each time it was tried."""

    code = "time_limit"
