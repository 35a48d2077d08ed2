"""Text becomes the words that a lexical search compares: identifiers taken apart, endings cut, empty words left out.

One way for tools and queries: `getHealthWorkforce`, `get_health_workforce` and "health workforces" share their terms. Endings
are cut by Porter's algorithm (1980, of Snowball); scripts without spaces (Chinese, Japanese, Thai ...) become pairs of
characters, as Lucene's CJK analysis does. What a word becomes is kept, so that a million tools cost a look-up a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

import Stemmer

MAX_CHARACTERS = 20_000
"""Of a longer query no more is read, half of it at each end: 100 KB cost as much as this."""
MAX_TERMS = 400
MAX_WORD = 64
MAX_KNOWN = 200_000

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(  # Thai, Lao, Myanmar, Khmer, kana, Han, compatibility ideographs
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+"
)
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|[A-Z]|\d+")
Text = TypeVar("Text", str, list[str])
_STEMMER = Stemmer.Stemmer("porter", 0)

_EMPTY = """
    a about above after again against all also am an and any are aren as at be because been before being below between both
    but by can cannot could couldn d did didn do does doesn doing don down during each few for from further had hadn has hasn have
    haven having he her here hers herself him himself his how i if in into is isn it its itself just ll m me more most my myself
    no nor not now of off on once only or other our ours ourselves out over own re s same shall she should shouldn so some such t
    than that the their theirs them themselves then there these they this those through to too under until up us ve very was wasn
    we were weren what when where which while who whom why will with won would wouldn you your yours yourself yourselves
    please want need help like tell know let hello hi hey thank thanks
    """  # English, and what requests say and tools are not about
EMPTY_WORDS = frozenset(_EMPTY.split())


def terms(text: str) -> list[str]:
    """The distinct terms of a query, in their order: a word that a request repeats is not asked for twice.

    Empty words ("the", "please") are left out unless there is nothing else. Of a long text the beginning and the end count.
    """
    read = _ends(text, MAX_CHARACTERS)
    return _ends(list(dict.fromkeys(counted(read))), MAX_TERMS)


def counted(text: str) -> list[str]:
    """The terms of a text as often as they stand there; empty words only when there is nothing else."""
    return full_terms(text) or [t for word in _words(text) for t in _stems(_parts(word[:MAX_WORD]))]


def full_terms(text: str) -> list[str]:
    """The terms of a text as often as they stand there, without empty words."""
    return list(chain.from_iterable(map(_KNOWN.__getitem__, _words(text))))


def _words(text: str) -> list[str]:
    """The words; accents that stand as characters of their own (NFD, as macOS writes) are no end of one."""
    return _WORD.findall(text if text.isascii() else unicodedata.normalize("NFC", text))


class _Known(dict[str, tuple[str, ...]]):
    """The terms of each word that was met, without empty words: a million tools share most of theirs."""

    def __missing__(self, word: str) -> tuple[str, ...]:
        found = _stems(p for p in _parts(word[:MAX_WORD]) if p not in EMPTY_WORDS)
        if len(word) <= MAX_WORD:
            if len(self) >= MAX_KNOWN:
                self.clear()
            self[word] = found
        return found


_KNOWN = _Known()


def _stems(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(_STEMMER.stemWord(p) for p in parts if p)


def _ends(text: Text, most: int) -> Text:
    return text if len(text) <= most else text[: most // 2] + text[-(most // 2) :]


def _parts(word: str) -> list[str]:
    """A word's parts in lower case: `parseHTTPResponse2` -> parse, http, response, 2."""
    if word.isascii():
        return [p.lower() for p in _PART.findall(word)]
    word = unicodedata.normalize("NFKC", word)
    found: list[str] = []
    at = 0
    for run in _UNSPACED.finditer(word):
        found += _spaced(word[at : run.start()])
        found += _pairs(run.group())
        at = run.end()
    return found + _spaced(word[at:])


def _spaced(word: str) -> list[str]:
    return [p.casefold() for p in _PART.findall(_plain(word))]


def _plain(word: str) -> str:
    """Without accents: é is found by e."""
    bare = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", bare)


def _pairs(run: str) -> list[str]:
    return [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
