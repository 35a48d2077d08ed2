"""Sentences that a plan template answers: a small notation for them, and the proof that a request is one of them.

`[x]` may be left out, `(a|b)` is one of both, `<name>` a phrase with a name, `{name}` a value of a parameter. A request fits when
it is such a sentence from its first word to its last: one word that is not foreseen, and it does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

LONGEST = 400  # characters of a request that may fit
_DEEPEST = 12
_TOKEN = re.compile(r"\s*(?:(?P<sign>[\[\]()|])|<(?P<phrase>[a-z_]+)>|\{(?P<param>[a-z_]+)\}|(?P<word>[^\s\[\]()|<>{}]+))")
_AT_ENDS = ".,;:!?…"

Values = Mapping[str, Mapping[str, Sequence[str]]]


class BadSentence(ValueError):
    """A sentence of a template cannot be read."""


def words_of(text: str) -> str:
    """A request as it is compared: its words in small letters, each with one blank behind it, without marks at their ends."""
    plain = text.casefold().replace("\u2019", "'").replace("\N{HYPHEN}", "-")
    words = (word.strip(_AT_ENDS) for word in plain.split())
    return "".join(f"{word} " for word in words if word)


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, ready to be compared."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]  # parameter by group, `p0` first
    wordings: Mapping[str, Mapping[str, str]]  # by parameter: the value of a wording

    def fit(self, text: str) -> dict[str, str] | None:
        """The values of its parameters where the request is this sentence; None: it is not."""
        if len(text) > LONGEST:
            return None
        found = self.pattern.fullmatch(words_of(text))
        if found is None:
            return None
        values: dict[str, str] = {}
        for n, name in enumerate(self.names):
            said = found[f"p{n}"]
            if said is not None and values.setdefault(name, self.wordings[name][said]) != self.wordings[name][said]:
                return None
        return values


def read_sentence(text: str, *, phrases: Mapping[str, str], values: Values) -> Sentence:
    """A sentence in the notation, with the phrases and parameters that it names.

    Raises:
        BadSentence: it cannot be read.
    """
    wordings = {name: _wordings(name, of) for name, of in values.items()}
    reader = _Reader(phrases, wordings)
    pattern = reader.read(text, 0)
    return Sentence(re.compile(pattern), tuple(reader.names), wordings)


def _wordings(parameter: str, values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    made: dict[str, str] = {}
    for value, said in values.items():
        for wording in (value, *said):
            if made.setdefault(words_of(wording), value) != value:
                raise BadSentence(f"`{wording}` means two values of `{parameter}`")
    return made


class _Reader:
    """From the notation to a regular expression over words; no repetition, so that it always ends soon."""

    def __init__(self, phrases: Mapping[str, str], wordings: Mapping[str, Mapping[str, str]]) -> None:
        self.phrases, self.wordings = phrases, wordings
        self.names: list[str] = []

    def read(self, text: str, depth: int) -> str:
        if depth > _DEEPEST:
            raise BadSentence(f"phrases name each other more than {_DEEPEST} deep")
        tokens = _tokens(text)
        made, at = self._choice(tokens, 0, depth)
        if at < len(tokens):
            raise BadSentence(f"`{tokens[at][1]}` closes nothing in `{text}`")
        return made

    def _choice(self, tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[str, int]:
        parts, at = self._row(tokens, at, depth)
        options = [parts]
        while at < len(tokens) and tokens[at] == ("sign", "|"):
            parts, at = self._row(tokens, at + 1, depth)
            options.append(parts)
        return f"(?:{'|'.join(options)})", at

    def _row(self, tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[str, int]:
        made: list[str] = []
        while at < len(tokens) and tokens[at] not in (("sign", "|"), ("sign", ")"), ("sign", "]")):
            kind, text = tokens[at]
            if kind == "sign":
                inner, at = self._choice(tokens, at + 1, depth)
                closing = {"(": ")", "[": "]"}[text]
                if at >= len(tokens) or tokens[at] != ("sign", closing):
                    raise BadSentence(f"`{text}` is not closed")
                made.append(inner + ("?" if text == "[" else ""))
            else:
                made.append(self._named(kind, text, depth))
            at += 1
        return "".join(made), at

    def _named(self, kind: str, text: str, depth: int) -> str:
        if kind == "word":
            return re.escape(text.casefold()) + " "
        if kind == "phrase":
            if text not in self.phrases:
                raise BadSentence(f"there is no phrase `<{text}>`")
            return self.read(self.phrases[text], depth + 1)
        if text not in self.wordings:
            raise BadSentence(f"there is no parameter `{{{text}}}`")
        self.names.append(text)
        said = sorted(self.wordings[text], key=lambda w: (-len(w), w))
        return f"(?P<p{len(self.names) - 1}>{'|'.join(map(re.escape, said))})"


@lru_cache(maxsize=512)
def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at, text = 0, text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise BadSentence(f"`{text[at : at + 20]}` cannot be read")
        kind = str(token.lastgroup)
        found.append((kind, token[kind]))
        at = token.end()
    return found
