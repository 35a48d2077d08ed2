"""What a line of the reckoning is called: subtotal, tax, total, charge, payment, or none of these.

A label counts when all its words belong to the reckoning's vocabulary, so that `Total Cereal` and `Tax guide 2026` stay items.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from importlib.resources import files
from typing import Literal, cast

Kind = Literal["subtotal", "tax", "total", "net", "charge", "discount", "payment", "info"]

_VOCABULARY: dict[str, list[str]] = json.loads(files("workers.small_model").joinpath("labels.json").read_text(encoding="utf-8"))
_FILLER = frozenset(_VOCABULARY.pop("filler"))  # words that say nothing alone
_KIND_OF = {word: cast(Kind, kind) for kind, words in _VOCABULARY.items() for word in words}
_WORDS = sorted({*_KIND_OF, *_FILLER}, key=len, reverse=True)
_RANK: tuple[Kind, ...] = ("payment", "charge", "tax", "subtotal", "discount", "net", "total", "info")
_EXCLUSIVE = frozenset({"excl", "exclude", "exclusive", "excluding", "before", "exkl", "without", "hors", "zzgl", "ht"})
_INCLUSIVE = frozenset(
    {
        "incl",
        "include",
        "inclusive",
        "including",
        "included",
        "inkl",
        "inklusive",
        "enthalten",
        "inbegriffen",
        "compris",
        "ttc",
        "with",
    }
)


def kind_of(label: str) -> Kind | None:
    """What the label names, or None when it is no line of the reckoning."""
    words = _words(label)
    if not words:
        return None
    known = [part for w in words for part in (_split(w) or (w,))]
    strange = [w for w in known if w not in _KIND_OF and w not in _FILLER]
    kinds = {_KIND_OF[w] for w in known if w in _KIND_OF}
    first = _KIND_OF.get(known[0])
    if strange and not (first == "payment" and len(strange) <= 1):
        return None
    return _decide(known, kinds)


def _decide(words: list[str], kinds: set[Kind]) -> Kind | None:
    has = set(words)
    if "sub" in has and "total" in has:
        return "subtotal"
    if "total" in kinds or "total" in has:
        if kinds & {"info"} and not kinds & {"tax"}:
            return "info"
        if "discount" in kinds:
            return "info"
        if has & _EXCLUSIVE:
            return "subtotal"
        if "charge" in kinds and has & {"rounding", "rounded", "round", "roundoff", "adjustment", "rundung"}:
            return "charge" if has & {"adjustment", "adj"} else "total"
        if kinds >= {"tax"} and not has & _INCLUSIVE:
            return "tax"
        if "payment" in kinds and not has & {"balance"}:
            return "payment"
        return "total"
    if "net" in kinds and has & {"payer", "pay", "zahlen"}:
        return "total"
    if (
        "tax" in kinds
        and "info" in kinds
        and has & {"invoice", "no", "number", "id", "reg", "registration", "receipt", "code", "summary"}
    ):
        return "info"
    return next((k for k in _RANK if k in kinds), None)


def tax_included(label: str) -> bool:
    """Whether a tax line says that the tax is part of the amounts above it."""
    return bool({part for w in _words(label) for part in (_split(w) or (w,))} & _INCLUSIVE)


def _words(label: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", label).casefold().replace("sub-total", "subtotal").replace("sous-total", "soustotal")
    return re.findall(r"[^\W\d_]+\d?", re.sub(r"\d+(?:[.,]\d+)?\s?%", " ", plain))


@lru_cache(maxsize=4096)
def _split(word: str) -> tuple[str, ...] | None:
    """A word, or the words of the vocabulary that it was glued of: readers drop spaces (`GRANDTOTAL`)."""
    if word in _KIND_OF or word in _FILLER:
        return (word,)
    for known in _WORDS:
        if len(known) > 1 and word.startswith(known) and (rest := _split(word[len(known) :])):
            return (known, *rest)
    return None
