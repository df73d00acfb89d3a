"""INT8 for ONNX: static QDQ, per channel, calibrated on pictures and refined, sensitive layers left as they are.

Half of the pictures give the ranges and refine weights and biases. The other half choose how ranges are cut, whether
weights take 7 or 8 bits (on CPUs without VNNI sums of 8-bit products saturate), and which groups of layers stay in
float32. The measure of a choice is the Kullback-Leibler divergence of its scores from the float model's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from jobs.errors import ExportError, UsageError
from jobs.wording import counted
from worker.export.blocks import take_blocks
from worker.export.calibrate import METHODS, Histogram, observe
from worker.export.equalise import equalise
from worker.export.files import written_whole
from worker.export.pictures import Pictures
from worker.export.pixels import NORMALISED, PixelRange, even_out, take_pixels
from worker.export.qdq import has_subgraphs, name_nodes, shield, unlist_constants, widen_normalisation
from worker.export.refine import refine
from worker.models import golden, loader
from worker.models.card import CARD_KEY, ModelCard
from worker.models.onnx import load_onnx
from worker.models.reader import file_format
from worker.models.runtime import Images, Runtime, Scores
from worker.models.tensors import to_input

__all__ = ["AGREEMENT", "Choice", "agreement", "quantize", "read_source"]

#: Operators that are quantised; what lies between them (a Clip, an Add, a pool) follows.
OPERATORS = ("Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Relu")
#: Operators with weights, which can be left in float32.
LAYERS = ("Conv", "Gemm", "MatMul")
#: Operators of a file that is quantised already.
_QUANTISING = ("QuantizeLinear", "DynamicQuantizeLinear")
#: Agreement of top-1 with the float model from which on a file may be used, and no further layer stays in float32.
AGREEMENT = 0.95
#: What the float model's best two scores must differ by for a picture to count there: in a near-tie either label is
#: right.
CLEAR = 0.05
#: Pictures on which the layers are refined; more change little.
REFINING = 32
#: Number of groups of layers that are tried one by one.
GROUPS = 10
#: A further group stays in float32 only where that takes this share off the divergence: it costs speed twice, for its
#: own arithmetic and for the ways there and back.
WORTH_IT = 0.5
#: 8-bit weights, which another CPU may compute differently, only where they take this share off the divergence.
WORTH_8_BITS = 0.2
#: What a score may change by where a float model is taken for the same when its channels are normalised alike.
HARMLESS = 0.01
#: Tolerance of the golden sample: a step more or less in a sum moves an INT8 score by some percent.
RTOL, ATOL = 0.05, 1e-3


@dataclass(frozen=True)
class Choice:
    """One way to quantise, and how it did on the pictures that were held out.

    ``kept`` are the names of the layers left in float32; ``divergence`` is in nats; ``agreement`` 0..1, of top-1, on
    the pictures on which the float model is not undecided, and ``overall`` on all.
    """

    method: str
    weight_bits: int
    kept: tuple[str, ...] = ()
    divergence: float = float("inf")
    agreement: float = 0.0
    overall: float = 0.0

    def __str__(self) -> str:
        kept = f", {counted(len(self.kept), 'layer')} left in float32" if self.kept else ""
        return f"ranges by {self.method}, weights of {self.weight_bits} bits{kept}"


@dataclass(frozen=True)
class _Bench:
    """What every attempt needs."""

    folder: Path
    prepared: Path
    card: ModelCard
    histograms: dict[str, Histogram]
    seen: list[NDArray[Any]]
    held_out: Images
    expected: Scores
    pixels: PixelRange | None = None


def read_source(source: Path) -> Runtime:
    """The model that :func:`quantize` would begin with.

    Raises :class:`~jobs.errors.UsageError` where it is no float ONNX file, and :class:`~jobs.errors.ModelFileError`
    where it cannot be served itself.
    """
    if file_format(source) != "onnx":
        raise UsageError(f"{source} is no ONNX file; export the model with --format onnx first")
    runtime = load_onnx(source, loader.read_card(source), loader.digest(source))
    golden.verify(runtime)
    if any(node.op_type in _QUANTISING for node in onnx.load_model(str(source)).graph.node):
        raise UsageError(f"{source} is quantised already")
    return runtime


def quantize(source: Path, target: Path, pictures: Pictures) -> Choice:
    """Write the INT8 form of ``source`` to ``target``, with a card and a golden sample of its own.

    Raises what :func:`read_source` raises.
    """
    runtime = read_source(source)
    # The target comes first: that it cannot be written should not be found out after minutes of work.
    with written_whole(target) as partial, tempfile.TemporaryDirectory(prefix="labelmill-quantize-") as name:
        bench = _set_up(source, Path(name), runtime.card, pictures)
        choice, model = _search(bench)
        origin = f"{runtime.card.source}; int8 of {runtime.digest}, {choice}".lstrip("; ")
        _finish(model, replace(runtime.card, name=target.stem, source=origin), partial)
    return choice


def _set_up(source: Path, folder: Path, card: ModelCard, pictures: Pictures) -> _Bench:
    """Fold what can be folded, and observe the ranges on every second picture."""
    prepared = folder / "prepared.onnx"
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    except Exception as exc:
        raise ExportError(f"{source} cannot be prepared for INT8: {exc}") from exc
    model = onnx.load_model(str(prepared))
    seen = pictures.images[::2]
    held_out = pictures.images[1::2] if len(pictures.images) > 1 else seen
    batches = [to_input(seen[start : start + 4], card) for start in range(0, len(seen), 4)]
    unlist_constants(model)
    name_nodes(model)
    expected = _scores(source, card, held_out)
    refining = batches[:: max(1, 4 * len(batches) // REFINING)]  # of the whole folder, which may be in order of labels
    bench = _Bench(folder, prepared, card, {}, refining, held_out, expected)
    model, pixels = _evened_out(bench, model)
    if not has_subgraphs(model):
        equalise(model, batches)
    onnx.save_model(model, str(prepared))
    return replace(bench, histograms=observe(model, batches), pixels=pixels)


def _evened_out(bench: _Bench, model: onnx.ModelProto) -> tuple[onnx.ModelProto, PixelRange | None]:
    """The model, all channels of the pictures normalised alike where that does no harm; else as fast as it can be."""
    even = onnx.ModelProto()
    even.CopyFrom(model)
    pixels = None if has_subgraphs(model) else even_out(even)
    if pixels:
        path = bench.folder / "even.onnx"
        onnx.save_model(even, str(path))
        if np.abs(_scores(path, bench.card, bench.held_out) - bench.expected).max() <= HARMLESS:
            return even, pixels
    widen_normalisation(model, bench.card.preprocessing.size[1])
    return model, None


def _search(bench: _Bench) -> tuple[Choice, onnx.ModelProto]:
    tried = [_judged(bench, choice, _attempt(bench, choice)) for choice in starmap(Choice, product(METHODS, (7, 8)))]
    best = min(tried, key=lambda choice: choice.divergence * (1 if choice.weight_bits == 7 else 1 / (1 - WORTH_8_BITS)))
    best, model = _refined(bench, best)
    if best.agreement >= AGREEMENT:
        return best, model
    kept = [replace(best, kept=group) for group in _groups(bench.prepared)]
    alone = [_judged(bench, choice, _attempt(bench, choice)) for choice in kept]
    for single in sorted(alone, key=lambda choice: choice.divergence)[: len(alone) // 2]:
        wider, candidate = _refined(bench, replace(best, kept=(*best.kept, *single.kept)))
        if wider.divergence > best.divergence * (1 - WORTH_IT):
            break
        best, model = wider, candidate
        if best.agreement >= AGREEMENT:
            break
    return best, model


def _groups(path: Path) -> list[tuple[str, ...]]:
    layers = [node.name for node in onnx.load_model(str(path)).graph.node if node.op_type in LAYERS]
    return [tuple(part) for part in np.array_split(layers, min(GROUPS, len(layers))) if len(part)]


def _judged(bench: _Bench, choice: Choice, model: onnx.ModelProto) -> Choice:
    path = bench.folder / "judged.onnx"
    onnx.save_model(model, str(path))
    scores = _scores(path, bench.card, bench.held_out)
    clear, overall = agreement(bench.expected, scores)
    return replace(choice, divergence=_divergence(bench.expected, scores), agreement=clear, overall=overall)


def _refined(bench: _Bench, choice: Choice) -> tuple[Choice, onnx.ModelProto]:
    """The choice and its model, refined where that is possible and for the better."""
    plain = _attempt(bench, choice)
    judged = _judged(bench, choice, plain)
    if has_subgraphs(plain):
        return judged, plain
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    refine(model, onnx.load_model(str(bench.prepared)), bench.seen, bits=choice.weight_bits)
    better = _judged(bench, choice, model)
    return (better, model) if better.divergence < judged.divergence else (judged, plain)


def _attempt(bench: _Bench, choice: Choice) -> onnx.ModelProto:
    ranges, target = bench.folder / "ranges.json", bench.folder / "attempt.onnx"
    ranges.unlink(missing_ok=True)
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, dict(_ranges(bench, choice.method))), ranges)
    quantize_static(
        str(bench.prepared),
        str(target),
        None,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(OPERATORS),
        per_channel=True,
        reduce_range=choice.weight_bits == 7,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=list(choice.kept),
        calibration_cache_path=ranges,
    )
    model = onnx.load_model(str(target))
    shield(model, choice.kept)
    if bench.pixels:
        take_pixels(model)
    return model


def _ranges(bench: _Bench, method: str) -> Iterator[tuple[str, TensorData]]:
    for name, histogram in bench.histograms.items():
        own = bench.pixels if name == NORMALISED else None
        low, high = own or histogram.limits(method)
        yield name, TensorData(lowest=np.float32(low), highest=np.float32(high))


def _finish(model: onnx.ModelProto, card: ModelCard, target: Path) -> None:
    """Give the file its card, with a golden sample of what it says itself, and see that it can be served."""
    height, width = card.preprocessing.size
    images = golden.golden_images(height, width)
    if not has_subgraphs(model):
        take_blocks(model, width)
    _write(model, replace(card, golden=None), target)
    scores = load_onnx(target, card, "").predict(images)
    _write(model, replace(card, golden=golden.make(scores, rtol=RTOL, atol=ATOL)), target)
    golden.verify(loader.load(target))


def _write(model: onnx.ModelProto, card: ModelCard, target: Path) -> None:
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.to_json()
    onnx.save_model(model, str(target))


def _scores(path: Path, card: ModelCard, images: Images) -> Scores:
    runtime = load_onnx(path, card, "")
    return np.concatenate([runtime.predict(images[start : start + 8]) for start in range(0, len(images), 8)])


def agreement(expected: Scores, scores: Scores) -> tuple[float, float]:
    """Shares of pictures with the same top-1: of those where ``expected`` is clear (1 where none is), and of all."""
    same = scores.argmax(axis=1) == expected.argmax(axis=1)
    best = np.sort(expected, axis=1)[:, -2:]
    clear = best[:, -1] - best[:, 0] >= CLEAR if best.shape[1] > 1 else np.ones(len(same), bool)
    return float(same[clear].mean()) if clear.any() else 1.0, float(same.mean())


def _divergence(expected: Scores, scores: Scores) -> float:
    """Mean Kullback-Leibler divergence of the rows, in nats; of each label by itself where rows do not add up to 1."""
    tiny = np.float32(1e-9)
    lost = expected * np.log((expected + tiny) / (scores + tiny))
    if not np.allclose(expected.sum(axis=1), 1, atol=1e-3):
        lost += (1 - expected) * np.log((1 - expected + tiny) / (1 - scores + tiny))
    return float(lost.sum(axis=1).mean())
