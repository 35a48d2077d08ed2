"""What confirmed use teaches: past requests near this one speak for the tools that served them, and silence says little.

Four kinds of evidence, added as the log-odds of a choice among the candidates (a conditional logit, McFadden 1974): how near the
nearest past request of the tool is, how near the mean of them is (shrunk by n / (n + 5)), which words they had (learned aliases),
and that there are any. Beside it a linear map turns the query towards the tools that like queries needed (a ridge regression),
which helps tools that nobody used yet as well. What each is worth is fitted to the catalog's own uses (`feedback_fit`); until
then round numbers hold. A query is only ever taught by its tenant's uses and by those of no tenant, and no reason quotes one.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from orchestrator.tool_search.analysis import terms as terms_of
from orchestrator.tool_search.fusion import DEFAULT, Weights

Vector = NDArray[np.float32]
Places = NDArray[np.int64]

MOST_SHARED, MOST_OWN = 10_000, 10_000
"""Uses that one tenant learns from, the latest: of no tenant, and its own. So 20,000 at most for a query."""
MOST_OF_A_TOOL = 256  # the latest uses of a tool: more teach nothing new, and one tool must not push out the others
MOST_USED = 64
MOST_ADDED = 50  # tools that evidence names for one query, whether search found them or not
MOST_VIEWS = 32  # tenants with uses of their own that are kept ready
NEAR = 0.4  # cosine below which two requests have nothing in common (MiniLM: unrelated requests stand at 0 to 0.3)
SHRINK = 5.0  # uses after which a tool's mean is half believed
FEW_USES = 2.0  # as many uses without a word are assumed for every tool, so that one use does not make a word certain
SMALL = 1_000  # requests that are compared one by one; of more, those in the nearest groups
PROBED = 6  # groups
TINY = 1e-9
SCALE = 20.0  # log-odds of 1 of cosine


@dataclass(frozen=True, slots=True)
class Use:
    """A confirmed use: for this query these tools were used, and it went well or not. Of no tenant: everybody learns from it."""

    id: str
    ts: float  # seconds since 1970
    tenant: str | None
    query: str
    used: tuple[str, ...]
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Worth:
    """What evidence is worth, in log-odds of being the tool that was meant.

    The defaults hold until there are uses to fit to: the meaning's and the words' are the usual mix on a scale where a cosine that
    is 0.05 better wins by e to 1; the same request again is worth (1 - `NEAR`) x 10 = 6, 0.3 of a cosine.
    """

    cosine: float = SCALE * DEFAULT.cosine
    aimed: float = 0.0  # cosine with the query as the map turns it
    words: float = SCALE * DEFAULT.lexical
    nearest: float = 10.0
    mean: float = 0.0
    alias: float = 4.0
    known: float = 0.0  # that the tool was ever used
    denied: float = -10.0  # nearest request for which it was used and did not do; never fitted: such uses are rare


BY_WORDS_ALONE = Worth(cosine=0.0, nearest=0.0, alias=8.0, denied=0.0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What past uses say about one query. Search with `vector`, mix with `weights(...)`, look at `names` too, and `adjust`."""

    names: tuple[str, ...]
    vector: Vector | None
    """Of length 1, in place of the query's own: turned towards what like queries needed."""
    _lexical: float | None
    _scale: float
    _worth: Worth
    _past: Past
    _seen: _Seen

    def weights(self, usual: Weights) -> Weights:
        """The mix that this catalog's uses ask for; one that rescales (`Weights.hybrid`) stays as it was chosen."""
        if usual.rescale or self._lexical is None:
            return usual
        return replace(usual, lexical=self._lexical, cosine=1.0)

    def adjust(self, names: Sequence[str], scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """The fused scores of these candidates with what is known of them; of others nothing is known, and theirs stay."""
        return np.asarray(scores, np.float64) + self.of(names)

    def of(self, names: Sequence[str]) -> Vector:
        """What is added to the fused score of each of these candidates, below 0 where past uses speak against it."""
        at = self._past.places(names)
        found = np.zeros(len(names), np.float32)
        known = np.flatnonzero(at >= 0)
        if len(known):
            found[known] = self._past.features(self._seen, at[known]) @ _weights(self._worth) / self._scale
        return found

    def reason(self, name: str) -> str:
        """A few words for the hit, "" when nothing speaks for the tool; never anybody's request."""
        at = self._past.places([name])
        if at[0] < 0 or self.of([name])[0] <= 0:
            return ""
        times = self._past.times_near(self._seen, int(at[0]))
        return f"used before for similar requests ({times})" if times else "used before for requests in such words"


FEATURES = ("nearest", "mean", "alias", "known", "denied")


def _weights(worth: Worth) -> NDArray[np.float64]:
    return np.array([getattr(worth, name) for name in FEATURES])


class Learned:
    """What one tenant's and the shared uses teach; immutable, and the same wherever the same uses are known."""

    def __init__(self, past: Past, worth: Worth = Worth(), alone: Worth = BY_WORDS_ALONE, turn: Vector | None = None) -> None:
        self.past, self.worth, self.alone, self.turn = past, worth, alone, turn

    def evidence(self, vector: Vector | None, terms: Sequence[str]) -> Evidence:
        """What speaks for and against tools, for a query of this vector (None: no encoder) and these terms."""
        worth = self.alone if vector is None else self.worth
        aimed, scale, lexical = self._aimed(vector, worth)
        seen = self.past.seen(vector, terms)
        return Evidence(self._named(seen, worth), aimed, lexical, scale, worth, self.past, seen)

    def _aimed(self, vector: Vector | None, worth: Worth) -> tuple[Vector | None, float, float | None]:
        """One vector whose cosine is both parts of the meaning, its length, and the words' weight beside it."""
        if vector is None:
            return None, max(worth.words, 1.0) / DEFAULT.lexical, None
        both = worth.cosine * vector
        if self.turn is not None and worth.aimed:
            both = both + worth.aimed * turned(vector[None], self.turn)[0]
        length = float(np.linalg.norm(both))
        scale = max(length, 1.0)
        return np.asarray(both / max(length, TINY), np.float32), scale, worth.words / scale

    def _named(self, seen: _Seen, worth: Worth) -> tuple[str, ...]:
        strength = worth.nearest * seen.nearest + worth.alias * seen.alias
        found = np.flatnonzero(strength > 0)
        if len(found) > MOST_ADDED:
            found = found[np.argpartition(-strength[found], MOST_ADDED)[:MOST_ADDED]]
        return tuple(self.past.tools[at] for at in found[np.lexsort((found, -strength[found]))].tolist())


def turned(vectors: Vector, turn: Vector) -> Vector:
    """Queries as the map turns them, of length 1."""
    moved = vectors + vectors @ turn
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), TINY), np.float32)


class Lessons:
    """Uses of all tenants. `seen_by` gives what one of them learns from; threads may share it."""

    def __init__(self, uses: Mapping[str | None, Sequence[Use]], vectors: Mapping[str, Vector]) -> None:
        self._uses, self._vectors = uses, vectors
        self._views: OrderedDict[str | None, Learned | None] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, uses: Sequence[Use], vectors: Mapping[str, Vector]) -> Lessons:
        """From live uses in the order of the log, and the vectors of their queries by text, as far as there are any yet."""
        by_tenant: dict[str | None, list[Use]] = {}
        for use in uses:
            by_tenant.setdefault(use.tenant, []).append(use)
        return cls(by_tenant, vectors)

    @property
    def tenants(self) -> tuple[str | None, ...]:
        """Those that have uses of their own; None: there are shared ones."""
        return tuple(self._uses)

    def seen_by(self, tenant: str | None) -> Learned | None:
        """None: nothing to learn from. The latest given to `keep` for that tenant, until there are too many."""
        key = tenant if tenant in self._uses else None
        with self._lock:
            if key not in self._views:
                self._put(key, self._made(key))
            self._views.move_to_end(key)
            return self._views[key]

    def keep(self, tenant: str | None, learned: Learned) -> None:
        """Remembers what was fitted to a tenant's view."""
        with self._lock:
            self._put(tenant if tenant in self._uses else None, learned)

    def _put(self, key: str | None, learned: Learned | None) -> None:
        self._views[key] = learned
        while len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)

    def _made(self, tenant: str | None) -> Learned | None:
        shared = list(self._uses.get(None, ()))[-MOST_SHARED:]
        own = list(self._uses.get(tenant, ()))[-MOST_OWN:] if tenant is not None else []
        return Learned(Past.of([*shared, *own], self._vectors).ready()) if shared or own else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What past uses have in common with one query: for each tool that they name."""

    vector: Vector | None
    nearest: Vector  # how far its nearest request is above NEAR
    denied: Vector
    alias: Vector
    rows: Places  # requests above NEAR


@dataclass(frozen=True, slots=True)
class Without:
    """Leaves a request out, as if it had never been made, and with `cold` all uses of these tools."""

    row: int
    tools: frozenset[int]
    cold: bool = False


@dataclass(frozen=True)
class Past:
    """Requests (rows) and the tools that were used for them. A request that was made twice with one tool counts once, as last."""

    tools: tuple[str, ...]
    queries: tuple[str, ...]
    good: tuple[tuple[int, ...], ...]  # tools of a row
    bad: tuple[tuple[int, ...], ...]
    words: tuple[tuple[str, ...], ...]  # of a row, each once
    vectors: Vector  # of a row, 0 where there is none yet
    dimensions: int
    has: NDArray[np.bool_]
    _at: Mapping[str, int] = field(repr=False)

    @classmethod
    def of(cls, uses: Sequence[Use], vectors: Mapping[str, Vector]) -> Past:
        pairs = _pairs(uses)
        tools = tuple(sorted({tool for _, tool in pairs}))
        at = {tool: n for n, tool in enumerate(tools)}
        queries = tuple(dict.fromkeys(query for query, _ in pairs))
        good: dict[str, list[int]] = {q: [] for q in queries}
        bad: dict[str, list[int]] = {q: [] for q in queries}
        for (query, tool), ok in pairs.items():
            (good if ok else bad)[query].append(at[tool])
        width = max((len(vectors[q]) for q in queries if q in vectors), default=0)
        rows = np.zeros((len(queries), width), np.float32)
        for n, query in enumerate(queries):
            if query in vectors:
                rows[n] = vectors[query]
        return cls(
            tools=tools,
            queries=queries,
            good=tuple(tuple(good[q]) for q in queries),
            bad=tuple(tuple(bad[q]) for q in queries),
            words=tuple(tuple(dict.fromkeys(terms_of(q))) for q in queries),
            vectors=rows,
            dimensions=width,
            has=np.array([q in vectors for q in queries], bool),
            _at=at,
        )

    def places(self, names: Iterable[str]) -> Places:
        """The tools of these names, -1 where none was ever used."""
        return np.array([self._at.get(name, -1) for name in names], np.int64)

    # what is kept ready

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        """Good uses of each tool."""
        return np.bincount([t for row in self.good for t in row], minlength=len(self.tools)).astype(np.float64)

    @cached_property
    def sums(self) -> Vector:
        """The sum of the vectors of each tool's requests."""
        made = np.zeros((len(self.tools), self.dimensions), np.float32)
        np.add.at(made, self._good_tools, self.vectors[self._good_rows])
        return made

    @cached_property
    def _lengths(self) -> Vector:
        return np.asarray(np.linalg.norm(self.sums, axis=1), np.float32)

    def ready(self) -> Past:
        """Makes what is kept ready, so that no query has to wait for it."""
        _ = self.counts, self._lengths, self._starts, self.idf, self.postings, self.groups
        return self

    @cached_property
    def _rows_of(self) -> Mapping[int, list[int]]:
        found: dict[int, list[int]] = {}
        for row, tools in enumerate(self.good):
            for tool in tools:
                found.setdefault(tool, []).append(row)
        return found

    def rows_of(self, tool: int) -> list[int]:
        """The requests that it was used for."""
        return self._rows_of.get(tool, [])

    @cached_property
    def _good_rows(self) -> Places:
        return np.repeat(np.arange(len(self.good)), [len(row) for row in self.good])

    @cached_property
    def _good_tools(self) -> Places:
        return np.array([t for row in self.good for t in row], np.int64)

    @cached_property
    def _starts(self) -> tuple[Places, Places, Places, Places]:
        """Where the tools of a row begin, and they: good, and bad."""
        flat = [np.array([t for row in side for t in row], np.int64) for side in (self.good, self.bad)]
        starts = [np.concatenate([[0], np.cumsum([len(row) for row in side])]).astype(np.int64) for side in (self.good, self.bad)]
        return starts[0], flat[0], starts[1], flat[1]

    @cached_property
    def idf(self) -> dict[str, float]:
        """What a word of the past requests is worth."""
        found = Counter(w for row in self.words for w in row)
        return {w: float(np.log1p((len(self.words) - n + 0.5) / (n + 0.5))) for w, n in found.items()}

    @cached_property
    def postings(self) -> dict[str, tuple[Places, NDArray[np.float64]]]:
        """By word, the tools that were used for requests with it, and for how many more than they failed."""
        found: dict[str, dict[int, float]] = {}
        for good, bad, words in zip(self.good, self.bad, self.words, strict=True):
            for word in words:
                of = found.setdefault(word, {})
                for sign, tools in ((1.0, good), (-1.0, bad)):
                    for tool in tools:
                        of[tool] = of.get(tool, 0.0) + sign
        return {w: (np.fromiter(of, np.int64, len(of)), np.fromiter(of.values(), np.float64, len(of))) for w, of in found.items()}

    @cached_property
    def groups(self) -> _Groups:
        return _Groups.of(self.vectors, np.flatnonzero(self.has))

    # one query

    def seen(self, vector: Vector | None, terms: Sequence[str], without: Without | None = None) -> _Seen:
        """What past uses have in common with a query."""
        rows, near = self.groups.near(vector) if vector is not None and self.dimensions else (np.zeros(0, np.int64), np.zeros(0))
        if without is not None:
            other = rows != without.row
            rows, near = rows[other], near[other]
        starts, good, bad_starts, bad = self._starts
        return _Seen(
            vector=vector,
            nearest=self._best(rows, near, starts, good),
            denied=self._best(rows, near, bad_starts, bad),
            alias=self._alias(terms, without),
            rows=rows,
        )

    def _best(self, rows: Places, near: NDArray[np.floating], starts: Places, tools: Places) -> Vector:
        """For each tool, the nearest of these rows that it belongs to."""
        found = np.zeros(len(self.tools), np.float32)
        many = starts[rows + 1] - starts[rows]
        if many.sum():
            within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
            np.maximum.at(found, tools[np.repeat(starts[rows], many) + within], np.repeat(near, many))
        return found

    def _alias(self, terms: Sequence[str], without: Without | None) -> Vector:
        """The share of the query's words, by worth, that the tool's past requests had: of all of them 1, of few less."""
        found, total = np.zeros(len(self.tools)), 0.0
        unheard = float(np.log1p(2 * len(self.words) + 1))
        own = frozenset(self.words[without.row]) if without is not None else frozenset()
        for word in dict.fromkeys(terms):
            worth = self.idf.get(word, unheard)
            total += worth
            if (of := self.postings.get(word)) is not None:
                found[of[0]] += worth * of[1]
                if without is not None and word in own:
                    found[list(without.tools)] -= worth
        uses = self.counts.copy()
        if without is not None:
            uses[list(without.tools)] -= 1
        return np.asarray(found / (uses + FEW_USES) / max(total, TINY), np.float32)

    def features(self, seen: _Seen, at: Places, without: Without | None = None) -> NDArray[np.float64]:
        """A row of `FEATURES` for each of these tools."""
        counts = self.counts[at]
        own = np.array([int(t) in without.tools for t in at]) if without is not None else np.zeros(len(at), bool)
        sums = self.sums[at]
        if without is not None:
            counts = counts - own
            sums = sums - own[:, None] * self.vectors[without.row]
        lengths = self._lengths[at] if without is None else np.linalg.norm(sums, axis=1)
        mean = self._means(seen.vector, sums, lengths, counts)
        made = np.column_stack([seen.nearest[at], mean, seen.alias[at], counts > 0, seen.denied[at]]).astype(np.float64)
        if without is not None and without.cold:
            made[own] = 0.0
        return made

    def _means(
        self, vector: Vector | None, sums: Vector, lengths: NDArray[np.floating], counts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if vector is None or not self.dimensions:
            return np.zeros(len(counts))
        return np.asarray(np.where(counts > 0, sums @ vector / np.maximum(lengths, 1e-6), 0.0) * counts / (counts + SHRINK))

    def times_near(self, seen: _Seen, tool: int) -> int:
        """How many near requests it was used for."""
        return sum(tool in self.good[row] for row in seen.rows.tolist())


@dataclass(frozen=True, slots=True)
class _Groups:
    """Requests by likeness: of many, only those in the groups nearest to the query are compared (an inverted file)."""

    centres: Vector | None
    starts: Places
    rows: Places
    vectors: Vector  # in the order of the groups

    @classmethod
    def of(cls, vectors: Vector, rows: Places) -> _Groups:
        if len(rows) <= SMALL:
            return cls(None, np.array([0, len(rows)]), rows, vectors[rows])
        centres = _centres(vectors[rows], round(len(rows) ** 0.5))
        group = np.argmax(vectors[rows] @ centres.T, axis=1)
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(centres) + 1))
        return cls(centres, starts, rows[order], np.ascontiguousarray(vectors[rows[order]]))

    def near(self, vector: Vector) -> tuple[Places, NDArray[np.floating]]:
        """The requests above `NEAR`, and by how much."""
        if self.centres is None:
            slices = [slice(0, len(self.rows))]
        else:
            likeness = self.centres @ vector
            probed = np.argpartition(-likeness, PROBED)[:PROBED] if len(likeness) > PROBED else np.arange(len(likeness))
            slices = [slice(int(self.starts[g]), int(self.starts[g + 1])) for g in np.sort(probed)]
        near = [self.vectors[s] @ vector - NEAR for s in slices]
        kept = [np.flatnonzero(n > 0) for n in near]
        rows = [self.rows[s][k] for s, k in zip(slices, kept, strict=True)]
        return np.concatenate(rows), np.concatenate([n[k] for n, k in zip(near, kept, strict=True)])


def _centres(vectors: Vector, many: int, rounds: int = 4) -> Vector:
    """Means of groups (spherical k-means on a sample), the same for the same requests."""
    sample = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), 32 * many)).astype(np.int64)]
    centres = sample[np.linspace(0, len(sample) - 1, many).astype(np.int64)]
    for _ in range(rounds):
        group = np.argmax(sample @ centres.T, axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, group, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-6), centres).astype(np.float32)
    return centres


def _pairs(uses: Sequence[Use]) -> dict[tuple[str, str], bool]:
    """What was said last of each query and tool, in that order; of a tool, the latest `MOST_OF_A_TOOL`."""
    said: dict[tuple[str, str], bool] = {}
    for use in uses:
        for tool in use.used[:MOST_USED]:
            said.pop((use.query, tool), None)
            said[use.query, tool] = use.ok
    seen: Counter[str] = Counter()
    kept: list[tuple[tuple[str, str], bool]] = []
    for pair, ok in reversed(said.items()):
        seen[pair[1]] += 1
        if seen[pair[1]] <= MOST_OF_A_TOOL:
            kept.append((pair, ok))
    return dict(reversed(kept))
