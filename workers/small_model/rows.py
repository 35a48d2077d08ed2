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
        row = _row(" ".join(p if p else " " for p in re.split(r"\s", unicodedata.normalize("NFKC", text).strip())), confidence)
        if not row.text:
            continue
        if rows and not rows[-1].amounts and not row.label and len(row.amounts) == 1 and kind_of(rows[-1].text):
            row = _row(f"{rows.pop().text}  {row.text}", confidence)
        rows.append(row)
    return rows


def _row(text: str, confidence: float) -> Row:
    label, found = trailing(text)
    return Row(text, label, tuple(found), kind_of(label) if found else None, confidence)


def uncertain(rows: Sequence[Row]) -> list[str]:
    """A problem for each row with amounts that was read with little confidence."""
    return [
        f"`{r.text}` was read with little confidence ({r.confidence:.2f})" for r in rows if r.amounts and r.confidence < UNCERTAIN
    ]
