"""What the faults came to: a row each, printed at the end, and written to the file that CHAOS_REPORT names."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE = "CHAOS_REPORT"


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


@dataclass(frozen=True, slots=True)
class Kill:
    """One kind of process around the pool of programs. What its death left went in time, and all jobs ended well."""

    victim: str
    strikes: int
    containers: int  # that had to go
    removal_s: float | None  # the slowest of them, from the strike on
    job_s: float | None  # the longest that a job took to its end, from a strike that it met


ROWS: list[Row] = []
KILLS: list[Kill] = []


def add(row: Row | Kill) -> None:
    """Keeps a row for the end, and writes it at once."""
    if isinstance(row, Row):
        ROWS.append(row)
    else:
        KILLS.append(row)
    if place := os.environ.get(FILE):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def table(rows: Sequence[Row] | Sequence[Kill]) -> list[str]:
    """The rows as lines of text."""
    columns = tuple(f.name for f in fields(rows[0]))
    cells = [columns, *(tuple(_cell(asdict(row)[c]) for c in columns) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return ["  ".join(_fit(i, cell, widths[i]) for i, cell in enumerate(line)) for line in cells]


def _fit(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
