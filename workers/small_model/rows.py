"""The lines of a receipt as rows: label, amounts that end the line, and what the label names.

Engines move things: an amount may stand on the line below or above its label, or all labels above all amounts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import takewhile

from workers.receipt import OcrLine, OcrResult
from workers.small_model.labels import Kind, Label, kind_of, label_of
from workers.small_model.money import Amount, Style, amounts, leading, style_of, tax_mark, trailing, with_cents, without_point

_WHOLE = re.compile(r"(?:\s{2,}|\s[x×]\s.*\s|[:=]\s?)(?P<number>-?[1-9]\d{0,3})$")
_NUMBERS_ONLY = re.compile(r"[\W\d_]*(?:[A-Za-z]{1,3}[\W\d_]*)?")
_CLOCK = re.compile(
    r"(?i)\b(?:time|hora|heure|uhr|uhrzeit|zeit|ora|masa|jam|tid|klo|saat|godz)\b\W*\S{4,5}$|"
    r"[\dOl]{1,2}[./-]\s?(?:[\dOl]{1,2}|[a-z]{3})[./-]\s?[\dOl]{2,4}\s+[\dOl]{1,2}[.][\dOl]{2}$"
)
_SEN_HEAD = re.compile(r"(?i)\b(?:rm|\$|rs|price|amount)\b.*\b(?:sen|cts?|ps|paise)\b")  # a cash bill with a column for the cents
_SEN = re.compile(r"(?P<whole>\b\d{1,5})\s{1,3}(?P<cents>\d{2})$")
_UNSEEN = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")  # marks of direction, soft hyphens
MOST_LINES, LONGEST_LINE = 2_000, 240  # what is read of a page that somebody made up
UNCERTAIN = 0.7  # a line read with less confidence is named as a problem
_LAST_NUMBER = re.compile(r"\s*(?:\S{1,4}\s{1,2}\d{2}|\S{3,7})[ .:*_|-]*$")
_THOUSANDS = re.compile(r"(?:\s{2,}|[\s:]\s?\W?[A-Z$€£]{1,3}\s?)(?P<thousands>\d{1,3})$")
_MARK = re.compile(r"(?:\s{1,2}[A-Z]{1,2}\b)?[ .*]*")
_MAIN = frozenset({"total", "tender", "change"})
SURE = 0.9  # of a label's letters in known words: a letter of a tax class may stand beside them
TALL = 1.25  # print this much taller than most stands out


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        text: As it was read, with two spaces where cells stand apart.
        label: The text before the amounts.
        amounts: The amounts that end the line.
        name: What the label names in the reckoning, if anything.
        line: Its index in the OCR result.
        confidence: The engine's.
        tall: Its height over the usual one.
        left: Where it starts, in usual heights.
        restored: The row as it is if the decimal point of its last number was lost; only of rows without amounts.
    """

    text: str
    label: str
    amounts: tuple[Amount, ...]
    name: Label | None
    line: int = 0
    confidence: float = 1.0
    tall: float = 1.0
    left: float = 0.0
    restored: Row | None = None

    @property
    def kind(self) -> Kind | None:
        """What a surely named line with amounts is."""
        sure = self.name and self.amounts and (self.name.certainty >= SURE or self.name.kind in ("tender", "change"))
        return self.name.kind if self.name and sure else None

    @property
    def amount(self) -> Decimal:
        """The last amount; only of rows that have one."""
        return self.amounts[-1].value

    @property
    def bare(self) -> bool:
        """Whether the row is nothing but amounts."""
        return bool(self.amounts) and _NUMBERS_ONLY.fullmatch(self.label) is not None

    @property
    def mark(self) -> str | None:
        """The tax mark behind the last amount."""
        return tax_mark(self.text, self.amounts[-1]) if self.amounts else None

    @property
    def lost_point(self) -> Decimal | None:
        """What a line without an amount says if the decimal point of its number was lost."""
        return self.restored.amount if self.restored else None


def read_rows(ocr: OcrResult) -> list[Row]:
    """The rows from top to bottom, labels and amounts that belong together joined."""
    told = (list(ocr.lines) or [OcrLine(text=t, confidence=1.0, box=(0, 0, 0, 0)) for t in ocr.text.splitlines()])[:MOST_LINES]
    texts = with_cents([plain(line.text) for line in told])
    if any(_SEN_HEAD.search(text) for text in texts):
        texts = [_SEN.sub(r"\g<whole>.\g<cents>", text) for text in texts]
    style = style_of(texts)
    usual = _usual_height(told)
    rows = [
        _placed(row_of(part, style), n, line, usual=usual, style=style)
        for n, (text, line) in enumerate(zip(texts, told, strict=True))
        for part in _parts(text, style)
    ]
    return _with_whole(_joined(rows, style), style)


def _placed(row: Row, n: int, line: OcrLine, *, usual: float, style: Style) -> Row:
    height = line.box[3] - line.box[1]
    row = replace(
        row, line=n, confidence=line.confidence, tall=height / usual if usual else 1.0, left=line.box[0] / usual if usual else 0.0
    )
    if row.amounts or style.mark is None or (lost := without_point(row.text)) is None:
        return row
    head = _LAST_NUMBER.sub("", row.text)
    again = row_of(f"{head}  {lost:.2f}", Style("."))
    if not again.amounts:
        return row  # `12/03/2019 1422`: a time
    return replace(row, restored=replace(again, line=n, confidence=row.confidence, tall=row.tall, left=row.left))


def _parts(text: str, style: Style) -> list[str]:
    """The line, or the two that were read as one: each with a name and an amount of its own."""
    found = amounts(text, style)
    if len(found) == 2 and re.search(r"[^\W\d_]{3}", text[: found[0].start]):
        end = found[0].end + len(_MARK.match(text[found[0].end :])[0])  # type: ignore[index]  # it matches nothing too
        between = text[end : found[1].start].strip(" :.")
        if re.match(r"[^\W\d_]{3}", between) and (kind_of(between) or len(re.findall(r"[^\W\d_]", between)) > 7):
            return [text[:end].strip(), text[end:].strip()]
    return [text] if text else []


def _usual_height(lines: Sequence[OcrLine]) -> float:
    heights = sorted(line.box[3] - line.box[1] for line in lines)
    return float(heights[len(heights) // 2]) if heights else 0.0


def plain(text: str) -> str:
    """Full-width signs as plain ones, and two spaces where cells stand apart; of a line that no paper holds, both ends."""
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE // 2]}  {text[-LONGEST_LINE // 2 :]}"
    return re.sub(r"\s{2,}|\t", "  ", _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).strip())


def row_of(text: str, style: Style) -> Row:
    """One line of text as a row."""
    label, found = trailing(text, style)
    if found and _CLOCK.search(text) and found[-1].value < 24:
        return Row(text, text, (), None)  # `Time: 14.50`
    if not found:
        turned, first = leading(text, style)
        if first and (name := label_of(turned)) and name.certainty == 1 and name.kind != "info":
            return Row(text, turned, tuple(first), name)
    return _with_thousands(text, label, found) or Row(text, label, tuple(found), label_of(label))


def _with_thousands(text: str, label: str, found: Sequence[Amount]) -> Row | None:
    """`TOTAL  R2 830.90`: a blank between the thousands, believed only behind what names a part of the reckoning."""
    head = _THOUSANDS.search(label)
    if head is None or len(found) != 1 or not re.match(r"\d{3}[.,]\d{2}", text[found[0].start :].lstrip()):
        return None
    name = label_of(label[: head.start()])
    if name is None or name.certainty < 1 or name.kind == "info":
        return None
    amount = Amount(int(head["thousands"]) * 1000 + found[0].value, found[0].start - len(head["thousands"]) - 1, found[0].end)
    return Row(text, label[: head.start()].rstrip(" .:-_*=|"), (amount,), name)


def _joined(rows: Sequence[Row], style: Style) -> list[Row]:
    """Labels without amounts take the bare amounts beside them: those that follow, or, where that leaves fewer labels of the
    reckoning alone, those that precede."""
    after, before = _paired(rows, style), _paired(list(reversed(rows)), style)[::-1]
    return _names_below(before, style) if _alone(before) < _alone(after) else after


def _alone(rows: Sequence[Row]) -> int:
    return sum(not r.amounts and _wants_amount(r) and r.name is not None and r.name.kind in _MAIN for r in rows)


def _names_below(rows: Sequence[Row], style: Style) -> list[Row]:
    """Where amounts stand above their labels, those of items stand above their names."""
    out: list[Row] = []
    for row in rows:
        if out and out[-1].bare and len(out[-1].amounts) == 1 and not row.amounts and re.search(r"[^\W\d_]{3}", row.text):
            out[-1] = _join(row, out[-1], style)
        else:
            out.append(row)
    return out


def _paired(rows: Sequence[Row], style: Style) -> list[Row]:
    out: list[Row] = []
    n = 0
    while n < len(rows):
        labels = list(takewhile(lambda r: not r.amounts and _wants_amount(r), rows[n:]))
        bare = list(takewhile(lambda r: r.bare and len(r.amounts) == 1, rows[n + len(labels) :]))
        if labels and len(labels) <= len(bare):
            out.extend(_join(label, amount, style) for label, amount in zip(labels, bare, strict=False))
            n += 2 * len(labels)
        else:
            out.append(rows[n])
            n += 1
    return out


def _wants_amount(row: Row) -> bool:
    return row.name is not None and row.name.kind != "info" and row.name.certainty >= 0.9 and row.lost_point is None


def _join(label: Row, amount: Row, style: Style) -> Row:
    text = f"{label.text}  {amount.text}"
    name, found = trailing(text, style)
    return replace(label, text=text, label=name, amounts=tuple(found), confidence=min(label.confidence, amount.confidence))


def _with_whole(rows: list[Row], style: Style) -> list[Row]:
    """Where no amount has decimals, a bare whole number in the last cell is an amount too: from the first amount on, or, where
    none has a sign or thousands apart, where a total is such a number."""
    if style.mark is not None:
        return rows
    first = next((n for n, r in enumerate(rows) if r.amounts), None)
    if first is None or sum(len(r.amounts) for r in rows) < 2:
        totals = [n for n, r in enumerate(rows) if r.name and r.name.kind in ("total", "subtotal") and _WHOLE.search(r.text)]
        first = next((n for n, r in enumerate(rows) if _WHOLE.search(r.text) and r.name is None), None) if totals else None
    return rows if first is None else rows[:first] + [_whole(r) for r in rows[first:]]


def _whole(row: Row) -> Row:
    match = None if row.amounts else _WHOLE.search(row.text)
    if match is None:
        return row
    label = row.text[: match.start("number")].rstrip(" .:-_*=")
    amount = Amount(Decimal(match["number"]), match.start("number"), match.end())
    return replace(row, label=label, amounts=(amount,), name=label_of(label))


def uncertain(rows: Sequence[Row]) -> list[str]:
    """A problem for each row with amounts that was read with little confidence."""
    return [
        f"`{r.text}` was read with little confidence ({r.confidence:.2f})" for r in rows if r.amounts and r.confidence < UNCERTAIN
    ]
