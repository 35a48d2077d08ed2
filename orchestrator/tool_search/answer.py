"""From an index and a request to the answer: names that were given first, priority tools always in, the rest by rank.

Several queries share one answer by quota: each gives its best tool that is not there yet, then each its next. With a budget of
tokens, a tool that does not fit any more is passed over for smaller ones behind it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from orchestrator.models.search import QUERY_CHARS, ScoreParts, SearchAnswer, SearchHit, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.feedback import Learned
from orchestrator.tool_search.fusion import DEFAULT, Weights, probability, reason
from orchestrator.tool_search.index import Found, Index, Query
from orchestrator.tool_search.postings import Mask
from orchestrator.tool_search.routing import saved_line, saved_share

log = logging.getLogger(__name__)

NAMED = 0.95  # the least chance of a tool that a query names
MOST_WORDS = 64  # of a query, that may be names of tools
DESCRIPTION_CHARS = 1_000
SCHEMA_BYTES = 16 << 20  # of all definitions in an answer: one may have a megabyte
TOKENS_EACH = 20  # the least that a schema takes: bounds how many hits a budget may need
_WORD = re.compile(r"[A-Za-z][\w.:/-]*")
_NAME_LIKE = re.compile(r"[_.:/\d-]|[a-z][A-Z]")  # a plain word is a word, unless it is the whole query or stands in backticks
_QUOTED = re.compile(r"`([^`\n]{1,128})`")


@dataclass(slots=True)
class _Chosen:
    """A tool that is in the answer."""

    at: int
    queries: list[int] = field(default_factory=list)
    exact: bool = False
    priority: bool = False
    score: float = 0.0
    rank_score: float = 0.0
    why: str = ""
    parts: ScoreParts | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request's queries is really looked for, and what had to be left aside."""

    queries: tuple[str, ...]
    notes: tuple[str, ...]


def asked(request: SearchRequest) -> Asked:
    """The queries, bounded; the encoder and the words are given the same."""
    notes = []
    for number, query in enumerate(request.queries):
        if len(query) > QUERY_CHARS:
            notes.append(f"queries[{number}] has {len(query)} characters; the first {QUERY_CHARS} were read")
        elif not query.strip():
            notes.append(f"queries[{number}] is empty")
    return Asked(tuple(q[:QUERY_CHARS].strip() for q in request.queries), tuple(notes))


def answer(
    index: Index,
    request: SearchRequest,
    vectors: Sequence[NDArray[np.float32] | None] = (),
    *,
    learned: Learned | None = None,
    weights: Weights = DEFAULT,
    degraded: Sequence[str] = (),
) -> SearchAnswer:
    """The tools that fit the request's queries best; `vectors` are those of `asked(request).queries`."""
    mask = index.mask(request.filters)
    size, tokens_all = index.totals(request.filters)
    said = asked(request)
    padded = [*vectors, *([None] * (len(said.queries) - len(vectors)))]
    queries = [Query(q, tuple(terms(q)), v if q else None) for q, v in zip(said.queries, padded, strict=True)]
    search = _Search(index, request, mask=mask, learned=learned, weights=weights)
    chosen = search.chosen(queries)
    hits = _hits(index, chosen, request)
    tokens = sum(h.tokens for h in hits)
    unread = [h.name for h in hits if request.detail == "schema" and h.tool is None]
    notes = (*said.notes, *search.notes, *_without(unread))
    log.info(saved_line(size, len(hits), saved=saved_share(tokens_all, tokens)), extra={"action": "search"})
    return SearchAnswer(
        hits=hits, catalog_hash=index.catalog_hash, generation=index.generation, size=size, backlog=index.backlog_in(mask),
        degraded=tuple(degraded), notes=notes, tokens=tokens, tokens_all=tokens_all,
    )  # fmt: skip


def names_in(query: str) -> list[str]:
    """What of a query may be the name of a tool, in lower case."""
    whole = [query.strip("`'\" ")]
    words = (w.rstrip(".:/-") for w in _WORD.findall(query)[:MOST_WORDS])
    found = [*whole, *_QUOTED.findall(query), *(w for w in words if _NAME_LIKE.search(w))]
    return list(dict.fromkeys(name.lower() for name in found if 0 < len(name) <= 128))


class _Search:
    """One request over one view."""

    def __init__(
        self, index: Index, request: SearchRequest, *, mask: Mask | None, learned: Learned | None, weights: Weights
    ) -> None:
        self._index, self._request, self._mask = index, request, mask
        self._learned, self._weights = learned, weights
        self.notes: list[str] = []

    def chosen(self, queries: Sequence[Query]) -> list[_Chosen]:
        first = self._named(queries) | self._priority()
        found = [self._find(q, self._wanted(len(first)), self._mask) for q in queries]
        picked = self._pick(list(first), found)
        for number, query in enumerate(queries):
            self._score(number, query, picked, found[number])
        for at, one in first.items():
            picked[at].exact, picked[at].priority = one.exact, one.priority
            if one.exact:
                picked[at].queries = sorted({*picked[at].queries, *one.queries})
        ranked = [self._told(c) for c in picked.values()]
        return [c for c in ranked if c.exact or c.priority or c.score >= self._request.min_score]

    def _named(self, queries: Sequence[Query]) -> dict[int, _Chosen]:
        found: dict[int, _Chosen] = {}
        for number, query in enumerate(queries):
            for name in names_in(query.text):
                for at in self._index.exact(name):
                    if self._passes(at) and len(found) < self._request.most:
                        found.setdefault(at, _Chosen(at, exact=True)).queries.append(number)
        return found

    def _priority(self) -> dict[int, _Chosen]:
        places = (self._index.find(name) for name in dict.fromkeys(self._request.priority))
        return {at: _Chosen(at, priority=True) for at in places if at is not None and self._passes(at)}

    def _passes(self, at: int) -> bool:
        return self._mask is None or bool(self._mask[at])

    def _wanted(self, first: int) -> int:
        """How many of each query can be needed at most."""
        most = self._request.most + first
        budget = self._request.token_budget
        return most if budget is None else min(most, budget // TOKENS_EACH + first + 1)

    def _find(self, query: Query, k: int, mask: Mask | None) -> Found | None:
        if not query.text:
            return None
        return self._index.search(query, k, mask=mask, weights=self._weights, learned=self._learned)

    def _pick(self, first: Sequence[int], found: Sequence[Found | None]) -> dict[int, _Chosen]:
        """Those that must be in, and then the best of each query in turn, as far as k and the budget go."""
        picked = {at: _Chosen(at) for at in first}
        budget, most = self._request.token_budget, max(self._request.most, len(first))
        spent = sum(self._index.tokens(at) for at in first)
        if budget is not None and spent > budget:
            self.notes.append(f"the tools that are named or have priority take {spent} of {budget} tokens by themselves")
        for at in _in_turn([[] if f is None else f.ids.tolist() for f in found]):
            if len(picked) >= most:
                break
            cost = self._index.tokens(at)
            if at not in picked and (budget is None or spent + cost <= budget):
                picked[at] = _Chosen(at)
                spent += cost
        return picked

    def _score(self, number: int, query: Query, picked: dict[int, _Chosen], found: Found | None) -> None:
        """Gives each tool that was picked its best score over the queries; also those that a query alone would not have found."""
        if found is None:
            return
        terms = self._index.numbers(query.terms)
        self._take(number, terms, picked, found)
        missing = [at for at, c in picked.items() if number not in c.queries and (c.exact or c.priority or not c.queries)]
        seen = frozenset(found.ids.tolist())
        others = [at for at in missing if at not in seen]
        if others:
            alone = np.zeros(len(self._index.base) + len(self._index.delta), bool)
            alone[others] = True
            again = self._find(query, len(others), alone)
            if again is not None:
                self._take(number, terms, picked, again, top=float(found.scores[0]) if len(found) else -np.inf)

    def _take(
        self, number: int, terms: Mapping[str, int], picked: dict[int, _Chosen], found: Found, *, top: float | None = None
    ) -> None:
        chances = self._chances(found, top)
        for place, at in enumerate(found.ids.tolist()):
            one = picked.get(at)
            if one is None:
                continue
            if top is None:
                one.queries.append(number)
            if one.parts is None or chances[place] > one.score:
                self._fill(one, terms, found, place=place, chance=float(chances[place]))

    def _chances(self, found: Found, top: float | None) -> NDArray[np.float64]:
        """The chance of each; of a mix that is scaled to 0..1 for each query that mix, which says nothing of chances."""
        if self._weights.rescale:
            return np.clip(found.scores, 0.0, 1.0)
        return probability(found.scores, meaning=found.cosine is not None, top=None if top == -np.inf else top)

    def _fill(self, one: _Chosen, terms: Mapping[str, int], found: Found, *, place: int, chance: float) -> None:
        cosine = None if found.cosine is None else float(found.cosine[place])
        cosine = None if cosine is None or np.isnan(cosine) else cosine
        matched = self._index.matched(terms, one.at)
        one.score, one.rank_score = chance, float(found.scores[place])
        one.why = reason(matched, cosine)
        if found.evidence is not None and (used := found.evidence.reason(self._index.name(one.at))):
            one.why = f"{one.why}; {used}"
        one.parts = ScoreParts(
            lexical=round(float(found.lexical[place]), 4), cosine=None if cosine is None else round(cosine, 4),
            learned=round(float(found.learned[place]), 4), terms=matched,
        )  # fmt: skip

    def _told(self, one: _Chosen) -> _Chosen:
        if one.exact:
            one.score = max(one.score, NAMED)
            one.why = f"its name was given; {one.why}" if one.why else "its name was given"
        if one.priority:
            one.why = f"always shown; {one.why}" if one.why else "always shown"
        return one


def _in_turn(ranked: Sequence[Sequence[int]]) -> Iterator[int]:
    """The first of each, then the second of each, and so on."""
    for place in range(max(map(len, ranked), default=0)):
        yield from (ids[place] for ids in ranked if place < len(ids))


def _without(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"without the definitions of {', '.join(f'`{n}`' for n in names[:3])}{more}: a newer program made them, or all together "
        f"are more than {SCHEMA_BYTES >> 20} MiB"
    ]


def _hits(index: Index, chosen: Sequence[_Chosen], request: SearchRequest) -> tuple[SearchHit, ...]:
    rows = [index.row(c.at) if request.detail != "names" else None for c in chosen]
    room = np.cumsum([len(row or b"") for row in rows]) <= SCHEMA_BYTES
    return tuple(_hit(index, c, request, row, room=bool(r)) for c, row, r in zip(chosen, rows, room, strict=True))


def _hit(index: Index, one: _Chosen, request: SearchRequest, row: bytes | None, *, room: bool) -> SearchHit:
    return SearchHit(
        name=index.name(one.at),
        score=round(min(1.0, max(0.0, one.score)), 4),
        rank_score=round(one.rank_score, 6),
        reason=one.why,
        tokens=index.tokens(one.at),
        version=index.version(one.at),
        description=_description(row) if row is not None and request.detail == "summary" else None,
        tool=_definition(row) if row is not None and room and request.detail == "schema" else None,
        queries=tuple(one.queries),
        priority=one.priority,
        exact=one.exact,
        parts=one.parts if request.explain else None,
    )


def _definition(row: bytes) -> ToolDefinition | None:
    """None: this program cannot read it; it hides no other."""
    try:
        return ToolDefinition.model_validate_json(row)
    except ValidationError:
        return None


def _description(row: bytes) -> str:
    said = str(json.loads(row).get("description", ""))
    return said if len(said) <= DESCRIPTION_CHARS else said[: DESCRIPTION_CHARS - 1] + "…"
