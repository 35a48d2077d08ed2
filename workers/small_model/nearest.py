"""The category of the nearest examples, in two views at once: by meaning (MiniLM) and by spelling (pieces of words).

Meaning knows that `rigatoni` is food though no example says so; spelling knows `SCHOKOL` and words of other languages.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.providers import warm
from workers.small_model.prototypes import Prototypes
from workers.small_model.vectors import example_vectors

NEIGHBOURS, SHARPNESS = 10, 5.0  # how many examples vote, and how much more the nearer ones count
TOGETHER = 512  # texts; each takes 4 bytes for each example
A_WORD = 0.3  # what a certain word, or the last of several, adds to the share of the votes
_PIECES = range(2, 6)  # letters of a piece of a word
_Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hint:
    """What certain words in a description say: all the same, or the last of them."""

    category: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Likeness:
    """What the neighbours of a description say."""

    category: str
    share: float  # of their votes, 0 to 1
    near: float  # the nearest of that category: the sum of both cosines, up to 2
    word: int  # 1: certain words say the same, 0: there are none or several, -1: the last one says another


class Spelling:
    """Texts as their pieces of words, rare pieces weighing more; a cosine against all of them at once."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [_pieces(t) for t in texts]
        rows: dict[str, list[int]] = defaultdict(list)
        for row, count in enumerate(counts):
            for piece in count:
                rows[piece].append(row)
        self._rarity = {p: math.log(len(texts) / len(r)) + 0.5 for p, r in rows.items()}
        norms = [self._norm(c) for c in counts]
        self._rows = {p: np.array(r) for p, r in rows.items()}
        self._weights: dict[str, _Weights] = {
            p: np.array([math.sqrt(counts[r][p]) * self._rarity[p] / norms[r] for r in rs], np.float32) for p, rs in rows.items()
        }
        self._count = len(texts)

    def _norm(self, count: dict[str, int]) -> float:
        return math.sqrt(sum(n * self._rarity[p] ** 2 for p, n in count.items() if p in self._rarity)) or 1.0

    def _heads(self, text: str) -> dict[str, int]:
        """The last word of each compound, the longest that is known: a `herrenhose` is a `hose`."""
        heads: dict[str, int] = {}
        for word in text.split():
            if _whole(word) not in self._rows:
                known = (h for at in range(1, len(word) - 3) if (h := _whole(word[at:])) in self._rows)
                heads |= dict.fromkeys(islice(known, 1), 1)
        return heads

    def cosines(self, text: str) -> _Weights:
        """How like the text each of the texts is written, 0 to 1."""
        count = _pieces(text) | self._heads(text)
        norm = self._norm(count)
        made = np.zeros(self._count, np.float32)
        for piece, n in count.items():
            if piece in self._rows:
                made[self._rows[piece]] += math.sqrt(n) * self._rarity[piece] / norm * self._weights[piece]
        return made


class Nearest:
    """The examples of some prototypes, ready to be compared with."""

    def __init__(self, prototypes: Prototypes, *, cache: Path | None = None) -> None:
        self.prototypes = prototypes
        texts = [text for text, _ in prototypes.examples]
        self._of = np.array([prototypes.names.index(name) for _, name in prototypes.examples])
        self._vectors = example_vectors(texts, warm.embedder(), cache=cache)
        self._spelling = Spelling(texts)

    def likenesses(self, texts: Sequence[str], hints: Sequence[Hint | None]) -> list[Likeness]:
        """What the examples say of each text, given what words in it say."""
        made: list[Likeness] = []
        for start in range(0, len(texts), TOGETHER):
            some = texts[start : start + TOGETHER]
            meant = warm.embedder().embed(some) @ self._vectors.T
            made += [self._likeness(m + self._spelling.cosines(t), h) for m, t, h in zip(meant, some, hints[start:], strict=False)]
        return made

    def without_words_of(self, text: str) -> Likeness:
        """What those examples say that share no beginning of a word with the text: as if nobody had thought of it."""
        starts = _starts(text)
        other = np.array([not starts & _starts(t) for t, _ in self.prototypes.examples])
        meant = (warm.embedder().embed([text]) @ self._vectors.T)[0]
        return self._likeness(np.where(other, meant + self._spelling.cosines(text), -1.0), None)

    def _likeness(self, near: _Weights, hint: Hint | None) -> Likeness:
        names = self.prototypes.names
        top = np.argpartition(-near, min(NEIGHBOURS, len(near) - 1))[:NEIGHBOURS]
        votes = np.bincount(self._of[top], np.exp(SHARPNESS * near[top]), len(names))
        shares = votes / votes.sum()
        if hint is not None:
            shares[names.index(hint.category)] += A_WORD
        best = int(shares.argmax())
        of_best = near[self._of == best]
        word = 0 if hint is None else -1 if names[best] != hint.category else int(hint.alone)
        return Likeness(names[best], float(min(shares[best], 1.0)), float(of_best.max(initial=0.0)), word)


def confidence(like: Likeness) -> float:
    """The chance that the category is right, fitted on `tests/receipts/categories_dev.json` by `bench/categories.py --fit`.

    Never more than nearness alone gives: among few categories far examples win many votes.
    """
    fitted = _calibration()
    votes = fitted["bias"] + fitted["share"] * like.share + fitted["near"] * like.near + fitted["word"] * like.word
    alone = fitted["alone_bias"] + fitted["alone_near"] * like.near
    return 1 / (1 + math.exp(-min(votes, alone)))


@lru_cache(maxsize=4)
def nearest(prototypes: Prototypes, cache: Path | None = None) -> Nearest:
    """The one of this process for these prototypes.

    Raises:
        ModelError: the embedder's package is missing.
    """
    return Nearest(prototypes, cache=cache)


@lru_cache(maxsize=1)
def _calibration() -> dict[str, float]:
    made: dict[str, float] = json.loads(files("workers.small_model").joinpath("calibration.json").read_text(encoding="utf-8"))
    return made


def _starts(text: str) -> frozenset[str]:
    return frozenset(word[:4] for word in text.split() if len(word) > 3)


def _pieces(text: str) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for piece in _pieces_of(text):
        counts[piece] += 1
    return counts


def _whole(word: str) -> str:
    return f"# {word} "


def _pieces_of(text: str) -> Iterator[str]:
    for word in text.split():
        framed = f" {word} "
        yield _whole(word)
        for length in _PIECES:
            yield from (framed[at : at + length] for at in range(len(framed) - length + 1))
