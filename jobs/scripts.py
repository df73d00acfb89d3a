"""Lua scripts: how they are called, and what the errors of the ledger's mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError, ResponseError

from jobs.errors import BrokerUnavailableError, JobError

__all__ = ["MissingBlobError", "Scripts", "TakenError", "lua_script"]


class MissingBlobError(JobError):
    """The bytes of an item were not sent, or went with the last chunk that needed them: send them again."""

    code = "missing_blob"


class TakenError(JobError):
    """What this producer knows of the job is not so any more: look again at what it has, and send the rest.

    Another one sends it now, or Redis came back without the last chunks that it had accepted.
    """


#: What Redis says when its memory or its disk is full, or too few replicas are there; nothing was done then, and it
#: may pass.
_REFUSAL = re.compile(r"OOM command not allowed.*|MISCONF .*|NOREPLICAS .*")
#: How the scripts begin an error that the caller must know: its first word, and the class it becomes.
_ERRORS: dict[str, type[JobError]] = {
    "NOJOB": JobError,
    "CLOSED": JobError,
    "TAKEN": TakenError,
    "GAP": TakenError,
    "NOENTRY": JobError,
    "NOBLOB": MissingBlobError,
}


def lua_script(text: str) -> Script:
    """A script that is told with each call which client it is for.

    Made once: after an image has driven all else from a core's caches, hashing it anew takes 60 microseconds.
    """
    return Script(None, text.encode())  # type: ignore[arg-type]


class Scripts:
    """Those of one Redis, whose keys begin with ``prefix``. Each is sent once, and then called by its digest."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis = client
        self._prefix = prefix
        self._registered: dict[str, Any] = {}
        self._loaded: dict[str, str] = {}

    def run(self, name: str, *args: Any) -> Any:
        """The answer of a script. Raises the classes above, or :class:`~jobs.errors.BrokerUnavailableError`."""
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._redis.register_script(_source(name))
        try:
            return script(keys=[self._prefix], args=args)
        except ResponseError as exc:
            kind, _, text = str(exc).partition(" ")
            if kind in _ERRORS:
                raise _ERRORS[kind](f"{text}: {args[0]}") from None
            refusal = _REFUSAL.search(str(exc))
            if refusal:
                raise BrokerUnavailableError(f"Redis refuses to write ({refusal[0]})") from exc
            raise

    def run_all(self, name: str, calls: Iterable[Sequence[Any]]) -> list[Any]:
        """The answers of a script to several calls in one round trip, each an exception where :meth:`run` says more."""
        pipeline = self._redis.pipeline(transaction=False)
        for args in calls:
            pipeline.execute_command(*self.command(name, *args))  # type: ignore[no-untyped-call]
        answers = pipeline.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self.reload()
        return answers

    def command(self, name: str, *args: Any) -> tuple[Any, ...]:
        """A call of a script as Redis is sent it, which has that script unless it came back without: :meth:`reload`."""
        if name not in self._loaded:
            self._loaded[name] = self._redis.script_load(_source(name))
        return ("EVALSHA", self._loaded[name], 1, self._prefix, *args)

    def reload(self) -> None:
        """Give Redis every script again before its next :meth:`command`."""
        self._loaded.clear()


@cache
def _source(name: str) -> str:
    folder = Path(__file__).with_name("lua")  # importlib.resources is imported in parts, when it is used
    return (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()
