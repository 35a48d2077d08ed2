"""What the engine misread, put right where the sums prove it: one wrong digit or a lost point in one item's amount."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from decimal import Decimal

from workers.receipt import CENT
from workers.small_model.items import Line
from workers.small_model.labels import label_of
from workers.small_model.total import misread


def without_stray(lines: Sequence[Line], sums: Sequence[Decimal]) -> list[Line]:
    """The lines without the first or the last, where the others come to one of the sums exactly: it was a number of the head
    or of the foot, and no item."""
    have = sum((line.amount for line in lines if line.amount is not None), Decimal(0))
    for at in (0, -1):
        if len(lines) > 1 and lines[at].amount and any(have - lines[at].amount == s for s in sums) and have not in sums:  # type: ignore[operator]
            return list(lines[1:] if at == 0 else lines[:-1])
    return list(lines)


def without_groups(lines: Sequence[Line], printed: Collection[Decimal]) -> list[Line]:
    """The lines without sums of those above that end them, `Food 39.70` and `Drinks 9.60` after the dishes and the drinks:
    only where what the others come to is printed again, or the sum is called a total, and what all come to is not printed."""
    amounts = [line.amount or Decimal(0) for line in lines]
    for last in (1, 2, 3, 4):
        dishes, groups = sum(amounts[:-last], Decimal(0)), amounts[-last:]
        if len(lines) >= last + 2 and dishes == sum(groups) and all(a > 0 for a in groups) and 2 * dishes not in printed:
            return list(lines[:-last] if dishes in printed or _called_total(lines[-1]) else lines)
    return list(lines)


def _called_total(line: Line) -> bool:
    label = label_of(line.description)
    return label is not None and label.kind in ("total", "subtotal")


def repaired(lines: Sequence[Line], sums: Sequence[Decimal]) -> tuple[list[Line], int | None]:
    """The lines so that they come to one of the sums, and which one was changed; unchanged when they do already, or when
    there is no single way to get there."""
    have = sum((line.amount for line in lines if line.amount is not None), Decimal(0))
    if not lines or any(abs(have - s) <= CENT for s in sums):
        return list(lines), None
    ways = [(n, new) for s in sums for n, line in enumerate(lines) if (new := _other(line, s - have)) is not None]
    proved = [(n, new) for n, new in ways if new.proved]
    chosen = proved if len(proved) == 1 else ways if len(ways) == 1 else []
    if not chosen:
        return list(lines), None
    at, line = chosen[0]
    return [*lines[:at], line, *lines[at + 1 :]], at


def _other(line: Line, missing: Decimal) -> Line | None:
    """The line with the amount that makes up for what is missing, if the printed one can be a misreading of it."""
    if line.amount is None or line.proved:
        return None
    amount = line.amount + missing
    return replace(line, amount=amount) if amount > 0 and misread(line.amount, amount) else None
