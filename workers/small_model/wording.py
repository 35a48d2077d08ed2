"""What a receipt's line names: without pack sizes, article numbers and accents, with its abbreviations written out."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection
from importlib.resources import files

_ABBREVIATIONS: dict[str, str] = json.loads(files("workers.small_model").joinpath("abbreviations.json").read_text(encoding="utf-8"))
_UNIT = "kg|g|gr|mg|ml|cl|dl|l|ltr|lt|oz|lb|lbs|pk|pc|pcs|st|stk|er|ct|m|cm|mm|tb|s|in|ply|x"
_SIZE = re.compile(rf"\b\d+(?:[.,]\d+)?\s*(?:x\s*\d+(?:[.,]\d+)?)?\s*(?:{_UNIT})?\b")
_NOT_WORDS = re.compile(r"[^\w%&+'-]+")
_DIGITS = re.compile(r"[\d_]+")
_GRADE = re.compile(r"[a-z]{1,5}\d{1,3}")  # `e10`, `sp98`, `a4`, `b12`: there the number is a part of the name
_LONGEST = 120  # characters of a description that are read
_VOWELS = frozenset("aeiouy")


def words_of(description: str, known: Collection[str] = ()) -> str:
    """The words of a description, lower case, one blank between them; `known` words help to write out abbreviations.

    Empty where there is no word of two letters: an article number, a single sign.
    """
    text = _NOT_WORDS.sub(" ", _SIZE.sub(" ", _plain(description[:_LONGEST])))
    words = [
        _written_out(kept, known) for word in text.split() if (kept := word if _GRADE.fullmatch(word) else _DIGITS.sub("", word))
    ]
    return " ".join(words) if any(_GRADE.fullmatch(w) or sum(map(str.isalpha, w)) > 1 for w in words) else ""


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in folded if not unicodedata.combining(c))


def _written_out(word: str, known: Collection[str]) -> str:
    if word in known:
        return word
    return _ABBREVIATIONS.get(word) or (_of_consonants(word, known) if len(word) > 3 and not _VOWELS & set(word) else word)


def _of_consonants(word: str, known: Collection[str]) -> str:
    """The shortest known word that begins, goes on and ends with these consonants."""
    if not word.isalpha():
        return word
    fits = re.compile(f"{word[0]}.*?" + ".*?".join(map(re.escape, word[1:]))).fullmatch
    candidates = [k for k in known if k[0] == word[0] and len(word) < len(k) <= 2 * len(word) + 1 and fits(k)]
    return min(candidates, key=lambda k: (len(k), k), default=word)
