"""What the faults came to: a row each, printed at the end, and written to the file that CHAOS_REPORT names."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "CHAOS_REPORT"
COLUMNS = ("fault", "broker", "jobs", "strikes", "repeats", "refused", "recovered", "unknown", "next_s", "seconds")


@dataclass(frozen=True, slots=True)
class Row:
    """One fault over one broker. All of its jobs ended well, else the test failed before."""

    fault: str
    broker: str
    jobs: int
    strikes: int  # what was hit: processes, messages, connections
    repeats: int  # bodies that began again
    refused: int  # outcomes that came too late
    recovered: int  # repairs by the reconciler
    unknown: int  # `once` calls that a person settled
    next_s: float | None  # longest time from a strike to the next body of a call that it hit
    seconds: float


ROWS: list[Row] = []


def add(row: Row) -> None:
    """Keeps a row for the end, and writes it at once."""
    ROWS.append(row)
    if place := os.environ.get(FILE):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines of text."""
    cells = [COLUMNS, *(tuple(_cell(asdict(row)[c]) for c in COLUMNS) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return ["  ".join(_fit(i, cell, widths[i]) for i, cell in enumerate(line)) for line in cells]


def _fit(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
