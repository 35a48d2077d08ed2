"""The item lines of a receipt: `2 x Tea  7.80`, `Tea  2  3.90  7.80`, or a name with its reckoning on the next line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from workers.receipt import CENT, Item, cents
from workers.small_model.money import amounts
from workers.small_model.rows import Row

_COUNT = r"(?P<q>\d{1,4}(?:[.,]\d{1,3})?)"
_MEASURE = r"(?:\s?(?:kg|g|lbs?|oz|l|ml|ea|each|pcs?|st|stk|un|units?)\b\.?)?"
_TIMES = re.compile(rf"(?:^|(?<=\s)){_COUNT}{_MEASURE}\s*[x×X@*]\s*(?P<u>\S.*?)\s*(?:/\s?\w+)?\s*=?\s*$", re.IGNORECASE)
_LEADING = re.compile(r"^(?P<q>\d{1,3})(?:\s?[x×X]\s+|\s{2,})(?=\D)")
_FOLLOWING = re.compile(r"\s[x×X]\s?(?P<q>\d{1,3})$")
_COLUMN = re.compile(r"(?:^|\s)(?P<q>\d{1,4})$")
_FRONT = re.compile(r"^(?P<q>\d{1,4})\s+(?=\D)")
_ARTICLE_NUMBER = re.compile(r"^\d{5,}\s+(?=\S)")
_HEAD_WORDS = re.compile(
    r"(?i)\b(?:description|item|qty|quantity|price|amount|total|menge|preis|betrag|artikel|prix|qté|u/p|unit)\b"
)
_QUANTITY_HEAD = re.compile(r"\b(?:qty|quantity|menge|anz|anzahl|qté|cant|pcs)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """An item as far as its line tells it, exact."""

    description: str
    amount: Decimal | None = None
    quantity: Decimal | None = None
    unit_price: Decimal | None = None

    def item(self) -> Item:
        """The item as it goes over the wire."""
        return Item(
            description=self.description,
            quantity=self.quantity,
            unit_price=None if self.unit_price is None else cents(self.unit_price),
            amount=None if self.amount is None else cents(self.amount),
        )


@dataclass
class _Reader:
    heads: bool
    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    name: str | None = None  # a line without amounts: the name of what follows, perhaps
    ahead: Line | None = None  # a reckoning that precedes its item

    def take(self, row: Row) -> None:
        if reckoning := _reckoning(row.text):
            self._take_reckoning(reckoning)
        elif not row.amounts:
            self._take_name(row)
        elif row.kind == "info":
            self.name = None
        else:
            self._take_line(_line(row, heads=self.heads))
            self.name = None

    def _take_name(self, row: Row) -> None:
        """A line without amounts: the name of an item that has only an article number so far, or of the next item."""
        above = self.lines[-1] if self.lines and self.name is None else None
        if _is_heads(row):
            self.name = None
        elif above and above.description.isdigit():
            self.lines[-1] = replace(above, description=_clean(row.text))
        else:
            self.name = row.text

    def _take_reckoning(self, reckoning: Line) -> None:
        """A line that is nothing but `3 @ 4.50`: it belongs to the item above, or to the one below."""
        above = self.lines[-1] if self.lines and self.name is None else None
        if above and above.quantity is None and above.amount is not None and _fits(reckoning, above.amount):
            self.lines[-1] = replace(above, quantity=reckoning.quantity, unit_price=reckoning.unit_price)
        else:
            self.ahead = reckoning

    def _take_line(self, line: Line) -> None:
        if self.ahead and line.amount is not None and _fits(self.ahead, line.amount):
            line = replace(line, quantity=self.ahead.quantity, unit_price=self.ahead.unit_price)
        elif self.ahead:
            self.problems.append(f"`{self.ahead.quantity} x {self.ahead.unit_price}` belongs to no item")
        self.ahead = None
        if (not line.description or line.description.isdigit()) and self.name:
            line = replace(line, description=_clean(self.name))
        if not line.description:
            self.problems.append(f"an item of {line.amount} has no description")
        if line.quantity is not None and line.unit_price is not None and not _fits(line, line.amount or Decimal(0)):
            self.problems.append(f"`{line.description}`: {line.quantity} x {line.unit_price} is not the printed {line.amount}")
        self.lines.append(line)


def read_items(rows: Iterable[Row], *, heads: Iterable[Row] = ()) -> tuple[list[Line], list[str]]:
    """The items that the rows tell, and what is wrong with them; `heads` are the rows above, perhaps with column heads."""
    rows = list(rows)
    reader = _Reader(heads=any(_QUANTITY_HEAD.search(r.text) for r in heads) or _counts_in_front(rows))
    for row in rows:
        reader.take(row)
    if reader.ahead:
        reader.problems.append(f"`{reader.ahead.quantity} x {reader.ahead.unit_price}` belongs to no item")
    return reader.lines, reader.problems


def _counts_in_front(rows: Sequence[Row]) -> bool:
    """Whether most lines with an amount begin with a number: then it is a column of quantities, and no `7 Up`."""
    priced = [r for r in rows if r.amounts and not _TIMES.match(r.text)]
    counted = [r for r in priced if _FRONT.match(r.label)]
    return len(counted) >= 2 and len(counted) * 3 >= len(priced) * 2


def _is_heads(row: Row) -> bool:
    return len(_HEAD_WORDS.findall(row.text)) >= 2


def _reckoning(text: str) -> Line | None:
    """`3 @ 4.50` when the text is nothing else."""
    match = _TIMES.match(text)
    return _times(match) if match else None


def _times(match: re.Match[str]) -> Line | None:
    price = amounts(match["u"])
    if len(price) != 1 or price[0].start or match["u"][price[0].end :]:
        return None
    return Line("", quantity=Decimal(match["q"].replace(",", ".")), unit_price=price[0].value)


def _fits(line: Line, amount: Decimal) -> bool:
    if line.quantity is None or line.unit_price is None:
        return False
    return abs(line.quantity * line.unit_price - amount) <= CENT


def _line(row: Row, *, heads: bool) -> Line:
    """One line with an amount at its end: explicit reckoning, columns, or a quantity before the name."""
    amount = row.amount
    before = row.text[: row.amounts[-1].start].rstrip()
    if (match := _TIMES.search(before)) and (times := _times(match)):
        return replace(times, description=_clean(before[: match.start()]), amount=amount)
    if len(row.amounts) > 1 and (line := _columns(before, row.amounts[-2].start, amount, price=row.amounts[-2].value)):
        return line
    for pattern in (_LEADING, _FOLLOWING, *((_FRONT, _COLUMN) if heads else ())):
        if match := pattern.search(before):
            rest = before[: match.start()] + before[match.end() :]
            return Line(_clean(rest), amount=amount, quantity=Decimal(match["q"]))
    return Line(_clean(before), amount=amount)


def _columns(before: str, at: int, amount: Decimal, *, price: Decimal) -> Line | None:
    """Name, quantity, price in either order: believed only when they multiply to the amount."""
    name, after = before[:at].rstrip(), before[at:]
    for text, pattern in ((name, _COLUMN), (name, _FRONT), (after, _COLUMN)):
        if match := pattern.search(text):
            line = Line("", amount=amount, quantity=Decimal(match["q"]), unit_price=price)
            if _fits(line, amount):
                rest = name if text is after else name[: match.start()] + name[match.end() :]
                return replace(line, description=_clean(rest))
    return None


def _clean(text: str) -> str:
    return _ARTICLE_NUMBER.sub("", " ".join(text.split())).strip(" .:-_*|")
