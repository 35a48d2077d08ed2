"""What was to be paid in the end: every amount that may be it is weighed by all that speaks for it, labels and sums alike.

The weights are ours: set by hand on texts of many countries and on renderings, then the confidence was fitted to how
often the best amount was right there (`bench/receipts.py` prints how it does).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import product
from math import exp
from typing import Literal

from rapidfuzz.distance import Levenshtein

from workers.receipt import CENT
from workers.small_model.rows import TALL, Row

LOOSE = 2 * CENT  # sums of rounded amounts are off by so much
COINS = Decimal("0.05")  # the largest rounding to coins that is not printed
_PAID = re.compile(r"(?i)pa[il]d|zahlt|betaa?l[dt]|pag(?:ado|ato)|payment|purchase|sale")
MOST = 8  # parts of a kind that are added up with the others; no receipt prints more
UNLABELLED = 0.3  # the confidence in an amount that nothing calls a total
_ZERO = Decimal(0)
_ALIKE = tuple(frozenset(g) for g in ("0689", "147", "27", "3589", "49", "568", "356"))  # digits that engines confuse
_MIDDLE, _SLOPE, _MARGIN = 3.0, 1.1, 0.9  # of the confidence: where it is even, and how it grows


@dataclass
class Facts:
    """The amounts of the reckoning by their parts, and the sum of the items."""

    rows: Sequence[Row]
    items: Decimal
    item_count: int
    subtotals: list[Row] = field(default_factory=list)
    totals: list[Row] = field(default_factory=list)
    tenders: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    roundings: list[Row] = field(default_factory=list)
    charged: Decimal = _ZERO
    extra: Decimal = _ZERO  # between subtotal and total, under names that are not known
    discounted: Decimal = _ZERO
    taxes: list[Decimal] = field(default_factory=list)
    nets: list[Decimal] = field(default_factory=list)

    @cached_property
    def additions(self) -> dict[Decimal, int]:
        """What the printed parts come to, each with how many parts it took: more parts that agree prove more."""
        return _additions(self)

    @cached_property
    def paid(self) -> set[Decimal]:
        """What every payment comes to less every change."""
        return {t.amount - abs(c.amount) for t in self.tenders for c in self.changes if c.amount}

    @cached_property
    def steps(self) -> set[Decimal]:
        """What rounding may have added: many receipts print no sign."""
        return {step for r in self.roundings[:MOST] if r.amount for step in (r.amount, -r.amount)}

    @cached_property
    def printed(self) -> set[Decimal]:
        """Every amount on the page."""
        return {a.value for r in self.rows for a in r.amounts}

    @cached_property
    def parts(self) -> list[Decimal]:
        """All amounts that are no payment."""
        return [a.value for r in self.rows if r.kind not in ("tender", "change", "info", "balance") for a in r.amounts]


@dataclass(frozen=True)
class Total:
    """The total, its row if it is printed, and how far it is to be believed."""

    value: Decimal
    row: Row | None
    how: Literal["printed", "repaired", "reckoned"]
    confidence: float
    score: float
    runner_up: float


@dataclass
class _Candidate:
    value: Decimal
    row: Row | None = None
    how: Literal["printed", "repaired", "reckoned"] = "reckoned"
    label: float = 0.0
    clues: float = 0.0
    paid: bool = False

    @property
    def score(self) -> float:
        unread = 0.8 if self.paid else 1.5  # an amount that is printed nowhere needs more to speak for it
        return self.label + self.clues - (unread if self.how == "reckoned" else 0.5 if self.how == "repaired" else 0.0)


def find_total(facts: Facts) -> Total | None:
    """The amount that most speaks for, or None when nothing is called a total and nothing adds up to one."""
    candidates = list(_candidates(facts).values())
    for candidate in candidates:
        candidate.paid = _paid(candidate.value, facts) >= 2
        candidate.clues += _paid(candidate.value, facts) + _added(candidate.value, facts) + _seen(candidate, facts)
    ranked = sorted(candidates, key=lambda c: (c.score, c.row.line if c.row else -1), reverse=True)
    if not ranked or ranked[0].score < 1.5:
        return _largest(facts)
    best = ranked[0]
    other = next((c.score for c in ranked[1:] if c.value != best.value), 0.0)
    return Total(best.value, best.row, best.how, _confidence(best, other), best.score, other)


def _largest(facts: Facts) -> Total | None:
    """Where nothing is called a total: the largest amount, which is uncertain however it is printed."""
    printed = [(a.value, r) for r in facts.rows for a in r.amounts if a.value > 0 and r.kind not in ("change", "info")]
    printed += [(r.lost_point, r) for r in facts.rows if r.lost_point and not re.search(r"[^\W\d_]{3}", r.text)]
    if not printed:
        return None
    value, row = max(printed, key=lambda p: p[0])
    return Total(value, row, "printed", UNLABELLED, 0.0, 0.0)


def _confidence(best: _Candidate, other: float) -> float:
    margin = min(best.score - other, 3.0)
    chance = 1 / (1 + exp(-_SLOPE * (best.score - _MIDDLE) - _MARGIN * (margin - 1.0)))
    reading = min(1.0, best.row.confidence + 0.3) if best.row and best.clues < 1.5 else 1.0
    part = 0.6 if best.row and best.row.name and best.row.name.kind == "subtotal" and best.clues < 2.5 else 1.0
    return round(min(0.99, chance * reading * part), 3)


def _candidates(facts: Facts) -> dict[Decimal, _Candidate]:
    found: dict[Decimal, _Candidate] = {}
    for row in facts.totals:
        _from_label(found, row, row.name.strength * row.name.certainty if row.name else 0.0)
        if row.kind == "total" and row.amount == facts.items == 0 and facts.item_count:
            _better(found, _ZERO, row, "printed", 2.0)  # nothing was to be paid
    for row in facts.subtotals:
        _from_label(found, row, 0.9 if facts.totals else 1.5)
    for row in facts.tenders if not facts.changes else ():
        if row.label and _PAID.search(row.label):
            _from_label(found, row, 1.2)
    for value in _sums(facts):
        _from_sum(found, value, facts)
    return found


def _from_label(found: dict[Decimal, _Candidate], row: Row, weight: float) -> None:
    """The last amount of a labelled row counts in full, another one less; one whose point was lost must be proved."""
    for place, amount in enumerate(reversed(row.amounts)):
        if amount.value > 0 or (amount.value < 0 and row.kind == "total"):  # a refund
            _better(found, amount.value, row, "printed", weight if place == 0 else 0.4 * weight)
    if not row.amounts and row.lost_point:
        _better(found, row.lost_point, row, "repaired", 0.7 * weight)


def _better(found: dict[Decimal, _Candidate], value: Decimal, row: Row, how: Literal["printed", "repaired"], weight: float) -> None:
    known = found.setdefault(value, _Candidate(value))
    if known.how == "printed":
        known.clues += 0.3  # printed as a total once more
    if weight > known.label or known.row is None:
        known.row, known.how, known.label = row, how, max(weight, known.label)


def _from_sum(found: dict[Decimal, _Candidate], value: Decimal, facts: Facts) -> None:
    """An amount that others add up to: printed somewhere, or what a printed total was misread from."""
    if value <= 0 or any(abs(value - known) <= CENT for known in found):
        return
    printed = next((r for r in facts.rows if any(a.value == value for a in r.amounts)), None)
    if printed is not None:
        found[value] = _Candidate(value, printed, "printed")
    elif row := next((r for r in facts.totals if r.amounts and misread(r.amount, value)), None):
        found[value] = _Candidate(value, row, "repaired", 0.8 * (row.name.strength if row.name else 0.0))
    else:
        found[value] = _Candidate(value)


def misread(read: Decimal, true: Decimal) -> bool:
    """Whether an engine may have read one amount as the other: a digit wrong, lost or doubled, or the point lost."""
    a, b = str(int(abs(read) * 100)), str(int(abs(true) * 100))
    if len(a) == len(b):
        wrong = [{x, y} for x, y in zip(a, b, strict=True) if x != y]
        return len(wrong) == 1 and any(wrong[0] <= group for group in _ALIKE)
    return a == b + "00" or Levenshtein.distance(a, b) == 1


def _sums(facts: Facts) -> set[Decimal]:
    paid = {t.amount - abs(c.amount) for t in facts.tenders for c in facts.changes if t.amount > abs(c.amount) >= 0}
    rounded = {r.amount + step for r in facts.totals if r.amounts for step in facts.steps}
    return paid | {t.amount for t in facts.tenders} | set(facts.additions) | {v for v in rounded if v % COINS == 0}


def _additions(facts: Facts) -> dict[Decimal, int]:
    bases = [(value, 1) for value in {r.amount for r in facts.subtotals[:MOST]} | set(facts.nets[:MOST])]
    if facts.item_count:
        bases.append((facts.items, min(facts.item_count, 3)))
    sums: dict[Decimal, int] = {}
    for (base, weight), charge, discount, tax, rounding in product(
        bases,
        {_ZERO, facts.charged, facts.charged + facts.extra},
        {_ZERO, facts.discounted},
        {_ZERO, *facts.taxes[:MOST]},
        {_ZERO, *facts.steps},
    ):
        value = base + charge + discount + tax + rounding
        parts = weight + sum(1 for part in (charge, discount, tax, rounding) if part)
        sums[value] = max(parts, sums.get(value, 0))
    return sums


def _paid(value: Decimal, facts: Facts) -> float:
    """What the payment says: cash less change, or a card's amount."""
    if value in facts.paid:
        return 2.5
    if any(c.amount and value + abs(c.amount) in facts.printed for c in facts.changes):
        return 2.0  # what was given is printed, under a name that is not known
    if _deposited(value, facts):
        return 1.5
    if any(abs(t.amount - value) < CENT for t in facts.tenders):
        return 0.4 if any(c.amount for c in facts.changes) else 1.4
    return -0.6 if facts.tenders and all(t.amount < value for t in facts.tenders) and len(facts.tenders) == 1 else 0.0


def _deposited(value: Decimal, facts: Facts) -> bool:
    """Whether a part was paid and the rest, which is called a total too, is still due."""
    rests = {r.amount for r in facts.totals if r.amounts and _ZERO < r.amount < value}
    return any(value - t.amount in rests for t in facts.tenders if _ZERO < t.amount < value)


def _added(value: Decimal, facts: Facts) -> float:
    """What the parts say: nothing for a subtotal that is the total, much for several parts that come to it."""
    parts = max((n for total, n in facts.additions.items() if abs(total - value) <= LOOSE), default=0)
    rounded = 0.0
    if any(r.amount for r in facts.roundings):
        olds = [a.value for r in (*facts.totals, *facts.subtotals) for a in r.amounts[-1:]]
        if any(value == old + step for old in olds for step in facts.steps) and value % COINS == 0:
            rounded = 1.2
    return {0: 0.0, 1: 0.4, 2: 1.2, 3: 1.8}.get(parts, 2.1) + rounded


def _seen(candidate: _Candidate, facts: Facts) -> float:
    """Where and how it is printed: tall, last of the totals before the payment, larger than all parts."""
    told = 0.0
    if candidate.row and candidate.row.tall >= TALL and candidate.label:
        told += 0.4
    paid_at = min((r.line for r in facts.tenders), default=None)
    last = [r for r in facts.totals if r.amounts and (paid_at is None or r.line < paid_at)]
    if last and last[-1].amount == candidate.value:
        told += 0.5
    if facts.parts and candidate.value >= max(facts.parts):
        told += 0.6
    elif sum(p > candidate.value for p in facts.parts) > 2:
        told -= 0.4
    return told
