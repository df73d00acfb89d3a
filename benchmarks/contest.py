"""Contenders in rounds: each runs once a round, so that what the machine does meanwhile hits all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Contest", "Goal"]


@dataclass(frozen=True)
class Goal:
    """One line of the table. ``goal`` is a least value, or a greatest one where ``at_most``."""

    name: str
    value: float
    goal: float
    unit: str = ""
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is reached."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal


@dataclass
class Contest:
    """Images/s of each contender, round by round."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    def run(self, contenders: Mapping[str, Callable[[], float]], rounds: int) -> None:
        """Every contender once a round, each round beginning with another one; each returns its images/s.

        May be called again, for more rounds with other processes of the same contenders.
        """
        names = list(contenders)
        before = len(self.rates.get(names[0], ()))
        for number in range(before, before + rounds):
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                self.rates.setdefault(name, []).append(contenders[name]())

    def ratio(self, name: str, *to: str) -> float:
        """The median of the ratios within a round, to the fastest of the others."""
        rounds = zip(self.rates[name], *(self.rates[other] for other in to), strict=True)
        return statistics.median(rate / max(others) for rate, *others in rounds)
