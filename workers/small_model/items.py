"""The item lines of a receipt: `2 x Tea  7.80`, `Tea  2  3.90  7.80`, or a name with its reckoning on the next line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise
from statistics import median

from workers.receipt import CENT, Item, cents
from workers.small_model.money import amounts, mended
from workers.small_model.rows import Row

_COUNT = r"(?P<q>\d{1,4}(?:[.,]\d{1,3})?)"
_UNITS = "kg|g|lbs?|oz|l|ml|gal|ea|each|pcs?|pc|st|stk|stck|un|units?|unit|nos?|szt|ks|adet|ad|kpl|x"
_MEASURE = rf"(?:\s?(?:[a-z]{{2,8}}(?=\.?\s*(?:@|[x×*]\s))|{_UNITS})\b\.?)?"
_TIMES = re.compile(
    rf"(?:^|(?<=\s))(?:qty\W*)?{_COUNT}{_MEASURE}(?:\s*net)?\s*(?:[x×X@*]|à|a(?=\s))\s*(?P<u>\S.*?)\s*(?:/\s?\w+|(?<![a-z])(?:each|ea))?\s*=?\s*$",
    re.IGNORECASE,
)
_TIMES_BACK = re.compile(rf"(?:^|(?<=\s))(?P<u>\S*\d[.,]\d{{2}}\S*)\s*[x×X@*]\s*{_COUNT}{_MEASURE}\s*=?\s*$", re.IGNORECASE)
_TIMES_AHEAD = re.compile(rf"^{_COUNT}\s*[x×X@*]\s*(?P<u>\S*\d[.,]\d{{2}})\s+(?=.*[^\W\d_]{{3}})")
_LEADING = re.compile(r"^(?P<q>\d{1,3})(?:\s?[x×X]\s+|\s{2,})(?=\D)")
_WEIGHT = re.compile(r"^(?P<q>\d{1,3}[.,]\d{3})\s?(?:kg|l|lb)\s+(?=\D)", re.IGNORECASE)
_FOLLOWING = re.compile(r"\s[x×X]\s?(?P<q>\d{1,3})$")
_COLUMN = re.compile(r"(?:^|\s)(?P<q>\d{1,4}(?:[.,]\d{1,3})?)(?:\s?(?i:ea|pcs?|pc|nos?|unit|kg|stk|st|un))?$")
_FRONT = re.compile(r"^(?P<q>\d{1,4})\s+(?=\D)")
_ARTICLE_NUMBER = re.compile(
    r"^(?:0\d{1,2}|\d{1,4}[./-]\d{1,2}[./-]\d{2,4}|[#*]?(?=\w*\d\w*\d\w*\d)[\dOolI]{5,}[A-Z]?|[A-Z]{0,4}\d{4,}[-/]?\w*|[A-Z]{1,4}\d{3,}|\d{1,3}[.)])\s+(?=.*[^\W\d_]{2})|(?<=\w{4})\s+\d{8,}$|"
    r"\s+%?\d{1,2}\s?%?$(?<=%)|\s%\d{1,2}$|\s+<\w>?$|^[>*^#%]+\s*(?=\w)|\s+\^$"
)
_NAMELESS = re.compile(
    r"^\W*(?:\d+(?:[.,]\d+)?\s*)?(?:pk|stk?|pcs?|kg|x|ea|each|qty|kpl|szt|ks|ad|adet|unid|und|un|u|no|nos|set|pkt)?\.?\W*$",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^\W{2,}|\W{3,}$")
_FINE = re.compile(r"\D{0,4}?(\d+[.,]\d{3,4})\W*")  # a price of more than two decimals
_PRICED = re.compile(r"\d\s?(?:kg|g|l)?\s?[x×@*]\s?\S?\d|/\s?(?:kg|lb|l)\b", re.IGNORECASE)
_CODE = re.compile(r"\b[A-Z]{1,4}-?\d{2,}\w*\b")
_GRADE = re.compile(r"\b(?:RON|ULP|SP|E|UNL\w*|SUPER)\s?\d{1,2}\b", re.IGNORECASE)  # of fuel
_FUEL = re.compile(r"(?:fuel|petrol|gas)(?: sales?| total)?", re.IGNORECASE)
_PUMP = re.compile(r"^(?:pump|pompe|s[aä]ule|zapfs[aä]ule|product|grade|nozzle)\W*(?:no\.?\s*)?\d{0,2}\W+(?=\w{2})", re.IGNORECASE)
_DATED = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2}:\d{2}")
_DEAL = re.compile(r"^\W*\d+\s+for\b", re.IGNORECASE)
_ONLY_NUMBERS = re.compile(r"[\W\d_]*(?:[A-Z]{0,3}\d{3,}\w*[\W\d_]*)*(?:[A-Za-z]{1,2}[\W\d_]*)?")
_HEAD_WORDS = re.compile(
    r"(?i)\b(?:description|desc|item|items|qty|quantity|price|amount|amt|total|menge|preis|betrag|artikel|bezeichnung|prix|qt[eé]|"
    r"u/p|unit|unitario|cant|cantidad|descripci[oó]n|importe|precio|descrizione|prezzo|disc|rm|tax|nama|harga|kuantiti|ean|code)\b"
)
_QUANTITY_HEAD = re.compile(
    r"\b(?:qty|quantity|menge|anz|anzahl|qt[eé]|cant|cantidad|pcs|kuantiti|aantal|antal|ilo[sś][cć]|adet|qta)\b", re.IGNORECASE
)
_VOID = re.compile(r"(?i)\b(?:void(?:ed)?|cancel(?:led)?|storno|annul\w*|refund\w*|batal)\b")
WRAPPED, WORDS = 0.3, 5  # of the priced lines so many are followed by at most so many words more: then names are wrapped
MOST = 0.6  # of the priced lines so many settle a habit of the receipt


@dataclass(frozen=True)
class Line:
    """An item as far as its line tells it, exact; `line` and `confidence` are those of the row that prints the amount."""

    description: str
    amount: Decimal | None = None
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    tax_class: str | None = None
    line: int | None = None
    confidence: float = 1.0

    @property
    def proved(self) -> bool:
        """Whether quantity times unit price is the amount."""
        return self.amount is not None and _fits(self, self.amount)

    def item(self) -> Item:
        """The item as it goes over the wire."""
        return Item(
            description=self.description,
            quantity=self.quantity,
            unit_price=None if self.unit_price is None else cents(self.unit_price),
            amount=None if self.amount is None else cents(self.amount),
            tax_class=self.tax_class,
            confidence=round(self.confidence, 3),
            line=self.line,
        )


@dataclass
class _Reader:
    heads: bool
    names_first: bool  # most priced lines name nothing
    names_below: bool  # and their names stand below them
    left: float
    width: int  # letters of the longest name
    wraps: str  # where long names go on: `below` their price, `above` it, or nowhere
    named: frozenset[int]  # lines of names that a price without a name follows
    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    names: list[Row] = field(default_factory=list)  # lines without amounts: the name of what follows, perhaps
    ahead: Line | None = None  # a reckoning that precedes its item

    def take(self, row: Row) -> None:
        if (reckoning := _reckoning(row.text)) and len(row.amounts) <= 1:
            self._take_reckoning(reckoning)
        elif row.restored and row.name is None and _line(row.restored, heads=self.heads).proved:
            self.take(row.restored)
        elif not row.amounts:
            self._take_name(row)
        elif row.kind != "info" and not _DEAL.match(row.text):
            self._take_line(_line(row, heads=self.heads), row)
            self.names = []

    def _take_name(self, row: Row) -> None:
        """A line without amounts: the name of an item that has only an article number so far, more of the name above, or
        the name of the next item."""
        above = self.lines[-1] if self.lines and not self.names else None
        if _is_heads(row):
            self.names = []
        elif above and self.names_below and nameless(above.description):
            self.lines[-1] = replace(above, description=_clean(row.text))
        elif above and row.line not in self.named and not self.names_first and self._continues(above, row):
            self.lines[-1] = replace(above, description=_clean(f"{above.description} {row.text}"))
        elif re.search(r"[^\W\d_]{2}", row.text) and not (_HEADING.search(row.text) or _DATED.search(row.text)):
            self.names.append(row)

    def _continues(self, above: Line, row: Row) -> bool:
        """Whether a name goes on below its price: it filled its column, or the line is set in and in small letters."""
        full = len(above.description) >= max(14, 0.9 * self.width) and above.line == row.line - 1
        words = re.search(r"[^\W\d_]{3}", row.text) and not _HEADING.search(row.text) and not _PRICED.search(row.text)
        if self.wraps == "below" and words and above.line == row.line - 1 and len(row.text.split()) <= WORDS:
            return True
        return bool(full and words) or (row.left - self.left > 0.8 and row.text[:1].islower())

    def _take_reckoning(self, reckoning: Line) -> None:
        """A line that is nothing but `3 @ 4.50`: it belongs to the item above, or to the one below."""
        above = self.lines[-1] if self.lines and not self.names else None
        if above and above.quantity is None and above.amount is not None and _fits(reckoning, above.amount):
            self.lines[-1] = replace(above, quantity=reckoning.quantity, unit_price=reckoning.unit_price)
        else:
            self.ahead = reckoning

    def _take_line(self, line: Line, row: Row) -> None:
        if self.ahead and line.amount is not None and _fits(self.ahead, line.amount):
            line = replace(line, quantity=self.ahead.quantity, unit_price=self.ahead.unit_price)
        elif self.ahead:
            self.problems.append(f"`{self.ahead.quantity} x {self.ahead.unit_price}` belongs to no item")
        self.ahead = None
        if (nameless(line.description) or _FUEL.fullmatch(line.description)) and self.names:
            line = replace(line, description=self._name())
        elif self.names and not self.names_first and self._wraps(self.names[-1], row):
            line = replace(line, description=_clean(f"{self.names[-1].text} {line.description}"))
        if not line.description:
            self.problems.append(f"an item of {line.amount} has no description")
        if line.quantity is not None and line.unit_price is not None and not _fits(line, line.amount or Decimal(0)):
            self.problems.append(f"`{line.description}`: {line.quantity} x {line.unit_price} is not the printed {line.amount}")
        self.lines.append(line)

    def _name(self) -> str:
        """The lines above that have no amount; above the first item only the nearest, since a head stands there too."""
        rows = self.names[-3:] if self.lines else self.names[-1:]
        return _clean(" ".join(_clean(r.text) for r in rows))

    def _wraps(self, name: Row, row: Row) -> bool:
        """Whether a name goes on in the priced line: that one is set in, or goes on in small letters."""
        habit = self.wraps == "above" or row.left - name.left > 0.8 or row.text[:1].islower()
        return name.line == row.line - 1 and habit and not _ends(name.text)


def named_nothing(row: Row) -> bool:
    """Whether the row has an amount but names no item."""
    return nameless(_line(row, heads=True).description)


def nameless(text: str) -> bool:
    """Whether a label names nothing: empty, numbers, an article's code, or a count with its unit."""
    rest = text if _GRADE.search(text) else _CODE.sub(" ", text)
    return _NAMELESS.match(rest) is not None or not re.search(r"[^\W\d_]{2}", rest)


def _ends(text: str) -> bool:
    return text.rstrip().endswith((":", ".", "!", "*", "=", "-"))


def read_items(rows: Iterable[Row], *, heads: Iterable[Row] = ()) -> tuple[list[Line], list[str]]:
    """The items that the rows tell, and what is wrong with them; `heads` are the rows above, perhaps with column heads."""
    rows = list(rows)
    priced = [r for r in rows if r.amounts]
    reader = _Reader(
        heads=any(_QUANTITY_HEAD.search(r.text) for r in heads) or _counts_in_front(priced),
        names_first=sum(named_nothing(r) for r in priced) > MOST * len(priced),
        names_below=_names_below(rows, priced),
        wraps=_habit(rows, priced),
        named=_named(rows),
        width=max((len(_line(r, heads=True).description) for r in priced), default=0),
        left=median([r.left for r in priced]) if priced else 0.0,
    )
    for row in rows:
        reader.take(row)
    if reader.ahead:
        reader.problems.append(f"`{reader.ahead.quantity} x {reader.ahead.unit_price}` belongs to no item")
    return _without_voids(reader.lines), reader.problems


def _habit(rows: Sequence[Row], priced: Sequence[Row]) -> str:
    """Where names of more than one line go on: below the price if one does below the last, else above where the prices have
    but few words of their own."""
    if not priced:
        return ""
    named = _named(rows)
    loose = [r for r in rows if not r.amounts and r.line > priced[0].line and r.line not in named and _is_words(r)]
    if any(r.line == priced[-1].line + 1 for r in loose):
        return "below" if len(loose) >= max(2, WRAPPED * len(priced)) else ""
    by_line = {r.line: len(_line(r, heads=True).description) for r in priced}
    around = [(by_line[r.line - 1], len(r.text), by_line[r.line + 1]) for r in loose if {r.line - 1, r.line + 1} <= by_line.keys()]
    if len(around) < 2:
        return ""
    below, above = sum(a - x for a, x, _ in around), sum(x - b for _, x, b in around)  # the first part is the longer one
    if above > max(below, 0):
        return "above"
    return "below" if below > 0 and len(loose) >= WRAPPED * len(priced) else ""


def _is_words(row: Row) -> bool:
    text = row.text
    return bool(re.search(r"[^\W\d_]{3}", text)) and not (_HEADING.search(text) or _PRICED.search(text) or _DATED.search(text))


def _named(rows: Sequence[Row]) -> frozenset[int]:
    """The lines without amounts right above a price that names nothing: they are its name, and no more of the name before."""
    return frozenset(a.line for a, b in pairwise(rows) if not a.amounts and b.amounts and named_nothing(b))


def _names_below(rows: Sequence[Row], priced: Sequence[Row]) -> bool:
    """Whether the names stand below the prices: the first price has no name above it, or the last has one below it."""
    if not priced or not named_nothing(priced[0]):
        return False
    after = [r for r in rows if r.line > priced[-1].line and re.search(r"[^\W\d_]{3}", r.text) and not r.amounts]
    return bool(after) and not _HEADING.search(after[0].text)


def _without_voids(lines: Sequence[Line]) -> list[Line]:
    """The lines without those that were voided: an item and the line that takes it back."""
    kept: list[Line] = []
    for line in lines:
        undone = next((k for k in reversed(kept) if line.amount is not None and k.amount == -line.amount), None)
        if undone and line.amount is not None and line.amount < 0 and (_VOID.search(line.description) or _same(undone, line)):
            kept.remove(undone)
        else:
            kept.append(line)
    return kept


def _same(a: Line, b: Line) -> bool:
    return bool(a.description) and a.description.casefold() == b.description.casefold()


def _counts_in_front(priced: Sequence[Row]) -> bool:
    """Whether most lines with an amount begin with a number: then it is a column of quantities, and no `7 Up`."""
    named = [r for r in priced if not _TIMES.match(r.text)]
    counted = [r for r in named if _FRONT.match(r.label)]
    return len(counted) >= 2 and len(counted) * 3 >= len(named) * 2


def _is_heads(row: Row) -> bool:
    return len(_HEAD_WORDS.findall(row.text)) >= 2


def _reckoning(text: str) -> Line | None:
    """`3 @ 4.50` or `4.50 x 3` when the text is nothing else."""
    match = _TIMES.match(text) or _TIMES_BACK.match(text)
    return _times(match) if match else None


def _times(match: re.Match[str]) -> Line | None:
    if exact := _FINE.fullmatch(match["u"]):
        price_ = Decimal(exact[1].replace(",", "."))
        return Line("", quantity=Decimal(match["q"].replace(",", ".")), unit_price=price_)
    price = amounts(match["u"])
    if len(price) != 1 or price[0].start or match["u"][price[0].end :].strip(" *TAFXB"):
        return None
    return Line("", quantity=Decimal(match["q"].replace(",", ".")), unit_price=price[0].value)


def _fits(line: Line, amount: Decimal) -> bool:
    if line.quantity is None or line.unit_price is None:
        return False
    return abs(line.quantity * line.unit_price - abs(amount)) <= CENT


def _line(row: Row, *, heads: bool) -> Line:
    """One line with an amount at its end: explicit reckoning, columns, or a quantity before the name."""
    told = _amounts(row, heads=heads)
    sign = -1 if row.kind == "discount" else 1
    amount = sign * abs(told.amount) if sign < 0 and told.amount is not None else told.amount
    return replace(told, amount=amount, tax_class=row.mark, line=row.line, confidence=row.confidence)


def _amounts(row: Row, *, heads: bool) -> Line:
    amount = row.amount
    before = row.text[: row.amounts[-1].start].rstrip()
    ahead = _TIMES_AHEAD.match(mended(before))
    if ahead and (times := _times(ahead)) and _fits(times, amount):
        return replace(times, description=_clean(before[ahead.end() :]), amount=amount)
    for pattern in (_TIMES, _TIMES_BACK):
        if (match := pattern.search(mended(before))) and (times := _times(match)):
            return replace(times, description=_clean(before[: match.start()]), amount=amount)
    if len(row.amounts) > 1 and (line := _in_columns(row)):
        return line
    name = row.label if len(row.amounts) > 1 else before
    for pattern in (_LEADING, _WEIGHT, _FOLLOWING, *((_FRONT, _COLUMN) if heads else ())):
        if match := pattern.search(name):
            rest = name[: match.start()] + name[match.end() :]
            return Line(_clean(rest), amount=amount, quantity=Decimal(match["q"].replace(",", ".")))
    return Line(_clean(name), amount=amount)


def _in_columns(row: Row) -> Line | None:
    """Name, quantity and price in either order, perhaps with a discount or a tax of their own: believed only when a price
    and a count multiply to an amount."""
    for at, price in enumerate(row.amounts[:-1]):
        name = row.text[: price.start].rstrip()
        after = row.text[price.end : row.amounts[at + 1].start]
        for text, pattern in ((name, _COLUMN), (name, _FRONT), (after.strip(), _COLUMN)):
            match = pattern.search(text)
            for amount in reversed(row.amounts[at + 1 :]) if match else ():
                line = Line("", amount=amount.value, quantity=Decimal(match["q"].replace(",", ".")), unit_price=price.value)  # type: ignore[index]
                if _fits(line, amount.value):
                    rest = name[: match.start()] + name[match.end() :] if text is name and match else name
                    return replace(line, description=_clean(rest))
    return None


def _clean(text: str) -> str:
    """The name without article numbers, stray signs and doubled spaces."""
    name = " ".join(text.split()).strip(" .:-_*|=")
    while (shorter := _ARTICLE_NUMBER.sub("", _PUMP.sub("", name))) != name:
        name = shorter
    return name.strip(" .:-_*|=#>'\"")
