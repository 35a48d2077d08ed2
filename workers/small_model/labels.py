"""What a line of the reckoning is called: subtotal, tax, total, rounding, payment, change, or none of these.

A label counts when its words belong to the reckoning's vocabulary, so that `Total Cereal` and `Tax guide 2026` stay items.
Words are compared without accents, and a core word with one letter misread still counts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import extractOne

Kind = Literal[
    "subtotal", "tax", "total", "net", "charge", "rounding", "discount", "tender", "change", "balance", "info"
]  # fmt: skip

_VOCABULARY: dict[str, list[str]] = json.loads(files("workers.small_model").joinpath("labels.json").read_text(encoding="utf-8"))
_CORE = _VOCABULARY.pop("core")  # words that still count with a letter misread
_SENSE_OF: dict[str, frozenset[str]] = {
    word: frozenset(sense for sense, words in _VOCABULARY.items() if word in words)
    for word in {w for words in _VOCABULARY.values() for w in words}
}
_GLUED = sorted((w for w in _SENSE_OF if len(w) > 2 or w in ("rm", "of", "in", "zu")), key=len, reverse=True)
_GLUED_SET = frozenset(_GLUED)
_LETTERS = str.maketrans("01358", "olesb")  # digits that engines take for letters
_UNACCENTED = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "æ": "ae", "ı": "i", "đ": "d"})
_LOOSEST = 0.6  # of a label's letters so many must be in known words
RATED = 0.8
_LONGEST = 48  # letters of words that are taken apart
_PAPERS = frozenset({"invoice", "invois", "receipt", "order", "ticket", "bon"})
_COUNTED = re.compile(r"\(?\b\d+\s*(?:items?|articles?|art\w{0,6}|pcs|pos\w*|stk?|st|pezzi|szt|ks|adet|units?)\b\.?\)?")


@dataclass(frozen=True)
class Label:
    """What a label names.

    Attributes:
        kind: The line's part in the reckoning.
        strength: Of a total, how final it is: 1 `amount`, 2 `total`, 3 `grand total`, `amount due`; else 1.
        certainty: The share of its words that are known.
        included: Whether it says that tax is in it.
        all_taxes: Whether a tax is the sum of taxes (`total tax`).
        taxed: Whether a total names a tax (`total incl. GST`).
    """

    kind: Kind
    strength: float = 1.0
    certainty: float = 1.0
    included: bool = False
    all_taxes: bool = False
    taxed: bool = False


def label_of(text: str) -> Label | None:
    """What the label names, or None when it is no line of the reckoning."""
    words = label_words(text)
    senses = [_senses(w) for w in words]
    known = [s for s in senses if s]
    if not known:
        return None
    certainty = sum(len(w) for w, s in zip(words, senses, strict=True) if s) / sum(map(len, words))
    present = frozenset().union(*known)
    if "tax" in present and "%" in text:  # `Meals tax 8.5%`: a rate makes it one, whatever is taxed
        certainty = max(certainty, RATED)
    first = senses[0] or frozenset()
    ends = first | (senses[-1] or frozenset())
    if certainty < _LOOSEST and not (first & {"tender", "change"} and len(words) - len(known) <= 1) and "total" not in ends:
        return None
    return _named(present, frozenset(w for word in words for w in _parts(word)), certainty)


def kind_of(text: str) -> Kind | None:
    """The kind of the label, when all its words are known (a means of payment may have a name beside it)."""
    label = label_of(text)
    return label.kind if label and (label.certainty == 1 or label.kind in ("tender", "change")) else None


def tax_included(text: str) -> bool:
    """Whether a label says that tax is part of the amounts above it."""
    return any("inclusive" in _senses(w) for w in label_words(text))


def _named(present: frozenset[str], words: frozenset[str], certainty: float) -> Label | None:
    included = "inclusive" in present
    totals = "total" in present
    if "subtotal" in present or ("sub" in words and totals):
        return Label("subtotal", 1.0, certainty, included)
    if "change" in present and not present & {"tax", "rounding", "charge"}:
        return Label("change", 1.0, certainty)
    if "rounding" in present:
        return _rounding(present, words, certainty)
    if totals or "final" in present:
        return _total(present, words, certainty)
    if "tax" in present:
        return None if present & {"amount"} and "info" in present else _tax(present, words, certainty)
    if "tender" in present and "info" in present and not words & _PAPERS:
        return Label("info", 1.0, certainty)
    if "gross" in present:
        return Label("subtotal", 1.0, certainty, included=True)
    if "net" in present and "amount" in present and words & {"net", "nett"}:
        return Label("total", 2.2, certainty)  # what is left to pay, after discounts; of taxes it is said otherwise
    for kind in ("net", "saving", "discount", "charge", "tender", "balance"):
        if kind in present:
            return _plain(kind, present, certainty)
    if "amount" in present and ("info" not in present or words & _PAPERS):
        return Label("total", 1.5 if words & _PAPERS else 1.0, certainty, included)
    return Label("info", 1.0, certainty) if "info" in present and "filler" not in present else None


def _plain(kind: str, present: frozenset[str], certainty: float) -> Label:
    if kind == "saving" or (kind in ("discount", "charge") and "info" in present and "amount" not in present):
        return Label("info", 1.0, certainty)
    return Label(kind, 1.0, certainty)  # type: ignore[arg-type]  # the tuple above holds kinds only


def _rounding(present: frozenset[str], words: frozenset[str], certainty: float) -> Label:
    """`Rounding adj` is what rounding adds; `total rounded` and `total after rounding` are the rounded total."""
    adds = words & {"adj", "adjustment", "mechanism", "off", "amt"} or not present & {"total"}
    if adds and not words & {"after", "rounded"}:
        return Label("rounding", 1.0, certainty)
    if "before" in words:
        return Label("total", 1.5, certainty)
    return Label("total", 2.5, certainty) if "total" in present or "final" in present else Label("rounding", 1.0, certainty)


def _total(present: frozenset[str], words: frozenset[str], certainty: float) -> Label:
    included = "inclusive" in present or "gross" in present
    if "count" in present and not present & {"tax", "final"}:
        return Label("info", 1.0, certainty)
    if present & {"saving", "discount"} and "final" not in present and not words & {"after", "less"}:
        return Label("info", 1.0, certainty)
    if "exclusive" in present and not included:
        return Label("subtotal", 1.0, certainty)
    if "tax" in present and not included and not words & {"after"}:
        return _tax(present, words, certainty)
    if "charge" in present and "final" not in present and not included and "tax" not in present:
        return Label("charge", 1.0, certainty)
    if "tender" in present and "final" not in present:
        given = words & {"tender", "tendered", "paid", "payment", "payments", "received", "gegeben", "pago", "entregue"}
        return Label("tender", 1.0, certainty) if given else Label("total", 1.8, certainty)
    if words & {"netto", "neto", "matrah", "base", "taxable"} and not words & {"bezahlen", "zahlen", "pagar", "payer"}:
        return Label("net", 1.0, certainty)
    strength = 3.0 if "final" in present else 2.5 if included or "net" in present else 2.0
    return Label("total", strength, certainty, included, taxed="tax" in present)


def _tax(present: frozenset[str], words: frozenset[str], certainty: float) -> Label:
    if "info" in present and words & {
        "invoice", "no", "number", "id", "reg", "registration", "receipt", "code", "summary", "invois", "nr", "tin", "ref",
    }:  # fmt: skip
        return Label("info", 1.0, certainty)
    return Label("tax", 1.0, certainty, "inclusive" in present, "total" in present)


def plain_letters(text: str) -> str:
    """The text in small letters without accents."""
    folded = unicodedata.normalize("NFKD", text.casefold().translate(_UNACCENTED))
    return "".join(c for c in folded if not unicodedata.combining(c))


def label_words(label: str) -> list[str]:
    """The words of a label in small letters without accents, rates and amounts left out."""
    plain = re.sub(
        r"\bsub[\s.-]+tota[li]|\bsous[\s-]+total|\bs[/.]\s?total|\bzw[.\s-]+summe|\bara\s+toplam|\bmerchandise\s+total|\bjum(?:lah)?\s+kecil",
        "subtotal",
        plain_letters(label),
    )
    plain = _COUNTED.sub(" ", re.sub(r"\bw\s?/\s?o\b", "without", plain))
    plain = re.sub(r"[@(]?\s?\d+(?:[.,]\d+)?\s?%\)?|\b(?:[a-z]\s?=\s?)?\d+[.,]\d+\b", " ", plain)  # rates and amounts
    plain = re.sub(r"(?<=[a-z])0|0(?=[a-z])", "o", plain)
    return re.findall(r"[^\W\d_]+\d?(?:[135][^\W\d_]+)*", plain)


@lru_cache(maxsize=8192)
def _senses(word: str) -> frozenset[str]:
    return frozenset().union(*(_SENSE_OF[p] for p in _parts(word)))


@lru_cache(maxsize=8192)
def _parts(word: str) -> tuple[str, ...]:
    """The known words in a word: itself, those it is glued of (`grandtotal`), or the core word that it is misread from."""
    if word in _SENSE_OF:
        return (word,)
    if glued := _unglued(word):
        return glued
    for spelt in (word.translate(_LETTERS), word.replace("l", "i"), word.replace("i", "l")):
        if spelt != word and (found := (spelt,) if spelt in _SENSE_OF else _unglued(spelt)):
            return found
    return _near(word.translate(_LETTERS))


def _near(word: str) -> tuple[str, ...]:
    if len(word) < 5:
        return ()
    found = extractOne(word, _CORE, scorer=Levenshtein.distance, score_cutoff=1 if len(word) < 9 else 2)
    return (found[0],) if found and abs(len(found[0]) - len(word)) <= 1 else ()


def _unglued(word: str) -> tuple[str, ...]:
    if word in _GLUED_SET:
        return (word,)
    for known in _GLUED if len(word) <= _LONGEST else ():
        if word.startswith(known) and (rest := _unglued(word[len(known) :])):
            return (known, *rest)
    return ()
