"""The picture of a run: bars of throughput, the curve over workers, and how long single calls took."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

__all__ = ["draw"]

#: Contenders of the bars, in this order, with their names.
NAMES = {
    "bare": "bare loop",
    "bulk": "Labelmill, bulk",
    "recommended": "Labelmill, bulk, recommended precision",
    "single": "Labelmill, one call an image",
    "plain": "plain Celery",
    "textbook": "the textbook's way",
}
#: Of the histogram.
BINS, TICKS_MS = 50, (2, 5, 10, 20, 50, 100, 200, 500, 1000)
COLOURS = {
    "bare": "#9aa0a6",
    "bulk": "#1a73e8",
    "recommended": "#174ea6",
    "single": "#7baaf7",
    "plain": "#f9ab00",
    "textbook": "#d93025",
}


def draw(rounds: Mapping[str, Any], path: Path) -> None:
    """Draw what there is of ``rounds`` (as in ``results.json``) into a PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    parts = [part for part in ("photo", "tiny", "scaling", "latency") if part in rounds]
    if not parts:
        return
    figure, axes = pyplot.subplots(1, len(parts), figsize=(5 * len(parts), 4), squeeze=False, layout="constrained")
    for axis, part in zip(axes[0], parts, strict=True):
        {"photo": _bars, "tiny": _bars, "scaling": _curve, "latency": _histogram}[part](axis, rounds[part], part)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(axis: Any, rates: Mapping[str, Sequence[float]], part: str) -> None:
    names = [name for name in NAMES if name in rates]
    middles = [statistics.median(rates[name]) for name in names]
    bars = axis.barh([NAMES[name] for name in names], middles, color=[COLOURS[name] for name in names])
    axis.bar_label(bars, labels=[f"{middle:,.0f}" for middle in middles], padding=3)
    axis.margins(x=0.25)
    axis.locator_params(axis="x", nbins=5)
    axis.invert_yaxis()
    axis.set_title(f"{part}: images/s, medians of {len(rates[names[0]])}")


def _curve(axis: Any, rates: Mapping[Any, Sequence[float]], part: str) -> None:
    workers = sorted(int(many) for many in rates)
    middles = [statistics.median(rates[many]) for many in workers]
    axis.plot(workers, [middles[0] * many / workers[0] for many in workers], "--", color="#9aa0a6", label="linear")
    axis.plot(workers, middles, "o-", color="#1a73e8", label="Labelmill")
    axis.set(title="workers that only sleep", xlabel="workers", ylabel="images/s", ylim=(0, None))
    axis.legend()


def _histogram(axis: Any, seconds: Mapping[str, Sequence[Sequence[float]]], part: str) -> None:
    """Both axes are logarithmic: a single call at the end of the tail is seen, and so are two milliseconds more."""
    taken = {name: [value * 1e3 for value in chain.from_iterable(found)] for name, found in seconds.items()}
    least, most = (chosen(chosen(found) for found in taken.values()) for chosen in (min, max))
    bins = [*(least * (most / least) ** (step / BINS) for step in range(BINS)), most]
    for name, found in taken.items():
        p99 = statistics.quantiles(found, n=100)[98]
        _, _, bars = axis.hist(found, bins=bins, alpha=0.6, label=f"{name}: p99 {p99:.0f} ms")
        axis.axvline(p99, linestyle=":", color=bars[0].get_facecolor(), alpha=1)
    axis.set(title="one call", xlabel="ms", ylabel="calls", xscale="log", yscale="log")
    ticks = [tick for tick in TICKS_MS if least <= tick <= most]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.legend()
