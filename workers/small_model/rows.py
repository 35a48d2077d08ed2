"""The lines of a receipt as rows: label, amounts that end the line, and what the label names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from workers.receipt import OcrResult
from workers.small_model.labels import Kind, kind_of
from workers.small_model.money import Amount, trailing

_WHOLE = re.compile(r"\s{2,}(?P<number>-?[1-9]\d{0,2})$")
UNCERTAIN = 0.7  # a line read with less confidence is named as a problem


@dataclass(frozen=True)
class Row:
    """One line."""

    text: str
    label: str
    amounts: tuple[Amount, ...]
    kind: Kind | None
    confidence: float = 1.0

    @property
    def amount(self) -> Decimal:
        """The last amount; only of rows that have one."""
        return self.amounts[-1].value


def read_rows(ocr: OcrResult) -> list[Row]:
    """The rows from top to bottom; a label whose amount stands alone on the next line is joined with it."""
    told = [(line.text, line.confidence) for line in ocr.lines] or [(line, 1.0) for line in ocr.text.splitlines()]
    rows: list[Row] = []
    for text, confidence in told:
        row = _row(_plain(text), confidence)
        if not row.text:
            continue
        if rows and not rows[-1].amounts and not row.label and len(row.amounts) == 1 and kind_of(rows[-1].text):
            row = _row(f"{rows.pop().text}  {row.text}", confidence)
        rows.append(row)
    return _with_whole(rows)


def _with_whole(rows: list[Row]) -> list[Row]:
    """Where no amount has decimals, a bare whole number in the last cell is an amount too, from the first amount on."""
    values = [a.value for r in rows for a in r.amounts]
    if len(values) < 2 or any("." in str(v) for v in values):
        return rows
    first = next(n for n, r in enumerate(rows) if r.amounts)
    return rows[:first] + [_whole(r) for r in rows[first:]]


def _whole(row: Row) -> Row:
    match = None if row.amounts else _WHOLE.search(row.text)
    if match is None:
        return row
    label = row.text[: match.start()].rstrip(" .:-_*")
    amount = Amount(Decimal(match["number"]), match.start("number"), match.end())
    return Row(row.text, label, (amount,), kind_of(label), row.confidence)


def _plain(text: str) -> str:
    """Full-width signs as plain ones, and two spaces where cells stand apart."""
    return re.sub(r"\s{2,}|\t", "  ", unicodedata.normalize("NFKC", text).strip())


def _row(text: str, confidence: float) -> Row:
    label, found = trailing(text)
    return Row(text, label, tuple(found), kind_of(label) if found else None, confidence)


def uncertain(rows: Sequence[Row]) -> list[str]:
    """A problem for each row with amounts that was read with little confidence."""
    return [
        f"`{r.text}` was read with little confidence ({r.confidence:.2f})" for r in rows if r.amounts and r.confidence < UNCERTAIN
    ]
