"""What a fault is: its dose, how it strikes, what it must show, and how that is told."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Dose", "Fault", "Figures", "Measured", "Promise"]

#: Names and counts; those of several rounds are added.
Figures = Counter[str]
#: Names and numbers of what is done.
Dose = Mapping[str, int]


@dataclass
class Measured:
    """What came out of one round or of several."""

    figures: Figures = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)
    most_deliveries: int = 0
    seconds: float = 0.0

    def add(self, other: Measured) -> None:
        """Another round."""
        self.figures.update(other.figures)
        self.recoveries_s += other.recoveries_s
        self.most_deliveries = max(self.most_deliveries, other.most_deliveries)
        self.seconds += other.seconds

    @property
    def median_s(self) -> float:
        """Median of the recoveries, in seconds; infinite where there was none."""
        return statistics.median(self.recoveries_s) if self.recoveries_s else float("inf")

    def recovery(self) -> str:
        """The recoveries, for people."""
        if not self.recoveries_s:
            return "nothing to recover"
        slowest = max(self.recoveries_s)
        return f"recovery {self.median_s:.1f} s (median of {len(self.recoveries_s)}, slowest {slowest:.1f} s)"


@dataclass(frozen=True)
class Promise:
    """Something that must be so.

    ``is_timing``: it depends on the machine, too. ``is_dose``: it only says that the dose was given.
    """

    text: str
    holds: Callable[[Measured, Dose], bool]
    is_timing: bool = False
    is_dose: bool = False


@dataclass(frozen=True, eq=False)
class Fault:
    """One row. ``short`` is the dose of ``make test``; ``tell`` says in words what was measured.

    One that is not ``judged`` is there to compare with; only that its dose was given is looked at.
    """

    name: str
    title: str
    dose: Dose
    short: Dose
    strike: Callable[[Dose, random.Random], Measured]
    tell: Callable[[Measured], str]
    promises: tuple[Promise, ...]
    judged: bool = True

    def broken(self, measured: Measured, dose: Dose, *, timing: bool = True) -> list[str]:
        """The promises that do not hold."""
        judged = [promise for promise in self.promises if timing or not promise.is_timing]
        return [promise.text for promise in judged if not promise.holds(measured, dose)]


def none(figure: str, text: str) -> Promise:
    """A promise that something was never counted."""
    return Promise(text, lambda measured, dose: measured.figures[figure] == 0)


def given(name: str) -> Promise:
    """A promise that the dose was given in full."""
    return Promise(f"all {name}", lambda measured, dose: measured.figures[name] >= dose[name], is_dose=True)


#: What holds under every fault.
NONE_LOST = (
    none("lost", "0 lost"),
    none("wrong", "every image ends as it must"),
    none("unbalanced", "every audit agrees"),
)
NONE_TWICE = none("twice", "0 recorded twice")
