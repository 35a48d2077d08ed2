"""What the benchmarks share: figures with goals, one line each, and interleaved rounds."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass
class Figure:
    """One figure; `goal` is an upper bound, or with `least` a lower one; None when the figure only informs."""

    name: str
    figure: str
    value: float
    unit: str
    goal: float | None = None
    least: bool = False

    def line(self) -> str:
        verdict = "-" if self.goal is None else f"{'>=' if self.least else '<='}{self.goal:g}  {'met' if self.met else 'missed'}"
        return f"{self.name:<10} {self.figure:<44} {self.value:>10.3f} {self.unit:<8} {verdict}"

    @property
    def met(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.least else self.value <= self.goal


@dataclass
class Report:
    """Figures in the order in which they were found."""

    name: str
    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: str, value: float, unit: str, goal: float | None = None, *, least: bool = False) -> None:
        self.figures.append(Figure(self.name, figure, value, unit, goal, least))

    def print(self, as_json: bool) -> None:
        if as_json:
            json.dump([asdict(f) for f in self.figures], sys.stdout, indent=1)
            print()
        else:
            print("\n".join(f.line() for f in self.figures), flush=True)


def options(description: str, *, on: Sequence[str] = ()) -> argparse.Namespace:
    """The flags of every benchmark; `on` are the places that this one can be told to run on alone."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under 50 s; the same figures and goals")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (at least 5 for a figure to quote)")
    if on:
        parser.add_argument("--on", choices=on, help="only there; default: everywhere, one after the other")
    return parser.parse_args()


def interleaved(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every case once per round, in turn, so that a noisy minute hits all of them."""
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for at in range(rounds):
        for name, case in cases.items():
            seen[name].append(case())
        print(f"round {at + 1}/{rounds}", file=sys.stderr, flush=True)
    return seen


def medians(seen: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seen.items()}


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios round by round: what a noisy minute does to both cancels out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
