"""Search over a catalog in this process: a few calls for scripts and notebooks, the formula of the index service.

The service is for many tools, many planners and what confirmed use teaches; this is for a catalog that somebody holds in hand.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ModelError, RequestError
from orchestrator.models.catalog import CatalogHash
from orchestrator.models.search import QUERY_CHARS
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.providers.embedder import Embedder
from orchestrator.providers.warm import MINILM, named_embedder
from orchestrator.settings import load_settings
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.cache import LRU, DistributedCache, VectorFile
from orchestrator.tool_search.document import Document, document_of
from orchestrator.tool_search.embedding import embedded, vector_file
from orchestrator.tool_search.exact import Exact, Halves, order
from orchestrator.tool_search.fusion import DEFAULT, Weights, probability, reason
from orchestrator.tool_search.routing import THRESHOLD, saved_line, saved_share

log = logging.getLogger(__name__)

Lexical = Literal["bm25f", "rank-bm25"]
Result = tuple[ToolDefinition, float]
MIN_SCORE = 0.3
TTL_S = 3_600.0
CATALOGS, RESULTS, QUERIES, KEPT = 8, 10_000, 1_000, 1_000  # in this process
HIGH, GOOD = 0.8, 0.5
LABELS = ((HIGH, "\N{FIRE}", "High relevance"), (GOOD, "\N{CHECK MARK}", "Good match"), (-1.0, "~", "Partial match"))


class Prepared:
    """A catalog, ready to be searched; deprecated tools are not in it."""

    def __init__(self, tools: Sequence[ToolDefinition], documents: Sequence[Document], vectors: NDArray[np.float32] | None) -> None:
        self.tools, self.documents, self.vectors = tools, documents, vectors
        self.exact = Exact(documents, vectors)
        self.hash = str(CatalogHash.of((d.name, d.version) for d in documents))

    @cached_property
    def names(self) -> dict[str, list[int]]:
        """The rows of each name in lower case, aliases included."""
        found: dict[str, list[int]] = {}
        for row, document in enumerate(self.documents):
            for name in document.names:
                found.setdefault(name, []).append(row)
        return found

    @cached_property
    def okapi(self) -> Any:
        """The references' words: BM25Okapi over the text, cut at spaces.

        Raises:
            RequestError: the extra `search-compare` is not installed.
        """
        return _okapi()([d.text.lower().split() for d in self.documents])


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    hits: tuple[tuple[int, float], ...]


class ToolSearchEngine:
    """Finds tools in a catalog by words and meaning: `ToolSearchEngine().search("read a receipt", catalog)`.

    Args:
        bm25_weight: weight of the words. With it or `embedding_weight` both halves are scaled to 0..1 over the catalog for each
            query and added, as in the classic hybrid (0.3 and 0.7); the one that is not given makes them 1 together. With
            neither, the product's own mix, which finds more (docs/tool-search.md).
        embedding_weight: weight of the meaning.
        embedding_model: `all-MiniLM-L6-v2` is in the core install; any other name or folder needs the extra
            `sentence-transformers`. A model that cannot be loaded fails nothing: words alone are compared, `degraded` says so.
        cache_dir: folder for the vectors of tools; default: `search_cache` in the home folder.
        lexical: `bm25f` (fields, stemming), or `rank-bm25` for comparison, by the extra `search-compare`.
        search_threshold: catalogs of so many tools or fewer are not searched: all their tools come back, with score 1.0.
        cache: where results are kept for other processes too, for an hour; default: in this process.

    Threads may share it.
    """

    def __init__(
        self,
        bm25_weight: float | None = None,
        embedding_weight: float | None = None,
        embedding_model: str = MINILM,
        cache_dir: str | Path | None = None,
        *,
        lexical: Lexical = "bm25f",
        search_threshold: int = THRESHOLD,
        cache: DistributedCache | None = None,
    ) -> None:
        self.weights = _weights(bm25_weight, embedding_weight)
        self._calibrated = not self.weights.rescale
        self._model_name, self._lexical, self._threshold = embedding_model, lexical, search_threshold
        self._folder = Path(cache_dir).expanduser() if cache_dir is not None else None
        self._lock = threading.RLock()
        self._prepared: OrderedDict[tuple[int, ...], Prepared] = OrderedDict()
        self._known: dict[int, tuple[ToolDefinition, Document]] = {}  # holds the tools, so that their identities stay theirs
        self._results: LRU[_Kept] = LRU(RESULTS)
        self._queries: LRU[NDArray[np.float32]] = LRU(QUERIES)
        self._shared = cache
        self._degraded: str | None = None

    @property
    def degraded(self) -> tuple[str, ...]:
        """What was missing in searches so far, and how to get it; empty: nothing."""
        return (self._degraded,) if self._degraded else ()

    def search(self, query: str, catalog: ToolCatalog, top_k: int = 10, min_score: float = MIN_SCORE) -> list[Result]:
        """The best tools for a query and their scores, best first; a tool whose name is the query is first.

        A score is the chance that the tool is the one that is meant, 0 to 1 (with weights of one's own: the mix, 0 to 1).
        `min_score` is a share of the best score: what is less likely than that beside the best tool is left out, so the best
        one never is. An empty query finds nothing.
        """
        tools = [t for t in catalog.tools if t.deprecated is None]
        if len(tools) <= self._threshold:
            return [(t, 1.0) for t in tools]
        found = self.rank(query, tools, top_k, min_score)
        costs = dict(zip((t.name for t in tools), self.tokens(tools), strict=True))
        saved = saved_share(sum(costs.values()), sum(costs[t.name] for t, _ in found))
        log.info(saved_line(len(tools), len(found), saved=saved), extra={"action": "tools_found"})
        return found

    def rank(self, query: str, tools: Sequence[ToolDefinition], top_k: int = 10, min_score: float = 0.0) -> list[Result]:
        """As `search`, of these tools, however few they are."""
        asked = query.strip()[:QUERY_CHARS]
        if not asked or top_k < 1 or not tools:
            return []
        prepared = self._prepare(tools)
        return [(prepared.tools[row], score) for row, score in self._kept(prepared, asked, top_k, min_score)]

    def tokens(self, tools: Sequence[ToolDefinition]) -> list[int]:
        """The tokens of each tool's schema, estimated; kept for tools of the same catalog."""
        return [d.tokens for d in self._documents(tools)]

    def explain_results(self, results: Sequence[Result], query: str) -> str:
        """The results for a person: one line a tool with its score and how good that is, and below it why."""
        lines = [f'Query: "{query}"']
        for tool, score in results:
            mark, said = next((m, s) for least, m, s in LABELS if score >= least)
            lines.append(f"{mark} {tool.name} ({score:.2f}) - {said}")
            if why := self._why(tool, query):
                lines.append(f"    {why}")
        return "\n".join(lines)

    def clear_cache(self) -> None:
        """Forgets catalogs, results and the vectors of the cache folder."""
        with self._lock:
            self._prepared.clear()
            self._known.clear()
            self._results.clear()
            self._queries.clear()
            if self._shared is not None:
                self._shared.invalidate(f"engine:{self._mark}:*")
            if (kept := self._vectors) is not None:
                kept.clear()

    def _kept(self, prepared: Prepared, query: str, top_k: int, min_score: float) -> tuple[tuple[int, float], ...]:
        asked = hashlib.sha256(f"{top_k} {min_score} {prepared.vectors is None} {query}".encode("utf-8", "replace")).hexdigest()[
            :32
        ]
        key = f"engine:{self._mark}:{prepared.hash}:{asked}"
        known = self._results.get(key)
        if known is not None and time.monotonic() - known.at < TTL_S:
            return known.hits
        hits = self._from_others(key, prepared) or self._find(prepared, query, top_k, min_score)
        self._results.set(key, _Kept(time.monotonic(), hits))
        if self._shared is not None:
            self._shared.set(key, [[prepared.documents[row].name, score] for row, score in hits], ttl=int(TTL_S))
        return hits

    def _from_others(self, key: str, prepared: Prepared) -> tuple[tuple[int, float], ...]:
        found = self._shared.get(key) if self._shared is not None else None
        if not isinstance(found, list):
            return ()
        rows = {d.name: row for row, d in enumerate(prepared.documents)}
        return tuple((rows[name], float(score)) for name, score in found if name in rows)

    def _find(self, prepared: Prepared, query: str, top_k: int, min_score: float) -> tuple[tuple[int, float], ...]:
        halves = self._halves(prepared, query)
        ranked, scores = halves.fused(self.weights), self._scores(halves)
        named = prepared.names.get(query.lower(), [])
        ranked[named] += ranked.max() - ranked.min() + 1.0
        scores[named] = 1.0
        best = order(ranked, top_k)
        least = min_score * scores[best].max()
        return tuple((int(row), float(scores[row])) for row in best if scores[row] >= least)

    def _scores(self, halves: Halves) -> NDArray[np.float64]:
        if not self._calibrated:
            return halves.fused(self.weights)
        return np.array(probability(halves.words, halves.meaning, best=float(halves.words.max(initial=0.0)), ideal=halves.ideal))

    def _halves(self, prepared: Prepared, query: str) -> Halves:
        vector = None if prepared.vectors is None else self._query_vector(query)
        halves = prepared.exact.halves(query, vector)
        if self._lexical == "bm25f":
            return halves
        return Halves(np.maximum(prepared.okapi.get_scores(query.lower().split()), 0.0), halves.meaning, halves.ideal)

    def _query_vector(self, query: str) -> NDArray[np.float32] | None:
        known = self._queries.get(query)
        if known is None and (model := self._model) is not None:
            known = model.embed([query])[0]
            self._queries.set(query, known)
        return known

    def _why(self, tool: ToolDefinition, query: str) -> str:
        document = document_of(tool)
        shared = [t for t in dict.fromkeys(terms(query[:QUERY_CHARS])) if t in document.terms]
        vector = self._query_vector(query[:QUERY_CHARS]) if query.strip() else None
        model = self._model
        cosine = (
            None if vector is None or model is None else float(embedded(model, [document.text], kept=self._vectors)[0] @ vector)
        )
        return reason(shared, cosine, exact=query.strip().lower() in document.names)

    def _prepare(self, tools: Sequence[ToolDefinition]) -> Prepared:
        """The catalog of exactly these objects: a tool never changes, so their identities are those of its content."""
        key = tuple(map(id, tools))
        with self._lock:
            found = self._prepared.get(key)
            if found is None:
                found = self._prepared[key] = self._make(tools)
                while len(self._prepared) > CATALOGS:
                    self._prepared.popitem(last=False)
            self._prepared.move_to_end(key)
            return found

    def _make(self, tools: Sequence[ToolDefinition]) -> Prepared:
        documents = self._documents(tools)
        model = self._model
        vectors = None if model is None else embedded(model, [d.text for d in documents], kept=self._vectors, progress=_tell)
        return Prepared(list(tools), documents, vectors)

    def _documents(self, tools: Sequence[ToolDefinition]) -> list[Document]:
        """Of each tool, made once: what is not asked for any more is forgotten when it has become the larger part."""
        with self._lock:
            known = self._known
            found = [known.get(id(t)) or known.setdefault(id(t), (t, document_of(t))) for t in tools]
            if len(known) > 2 * max(len(tools), KEPT):
                self._known = {id(t): (t, d) for t, d in found}
            return [document for _, document in found]

    @cached_property
    def _model(self) -> Embedder | None:
        try:
            return named_embedder(self._model_name)
        except ModelError as error:
            self._degraded = f"meaning: {error.message}, so only words are compared. {error.next or ''}".strip()
            log.warning(self._degraded, extra={"action": "encoder_absent"})
            return None

    @cached_property
    def _vectors(self) -> VectorFile | None:
        folder = self._folder or load_settings().home.expanduser() / "search_cache"
        return None if self._model is None else vector_file(folder, self._model)

    @cached_property
    def _mark(self) -> str:
        """What results depend on beside catalog and query."""
        said = f"{self.weights} {self._model.name if self._model else None} {self._lexical}"
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def search_tools(query: str, catalog: ToolCatalog, top_k: int = 10, min_score: float = 0.0) -> list[ToolDefinition]:
    """The best tools for a query, best first; all of them when they are 20 or fewer."""
    return [tool for tool, _ in shared_engine().search(query, catalog, top_k=top_k, min_score=min_score)]


@lru_cache(maxsize=1)
def shared_engine() -> ToolSearchEngine:
    """The engine of this process, with the defaults."""
    return ToolSearchEngine()


def _weights(words: float | None, meaning: float | None) -> Weights:
    if words is None and meaning is None:
        return DEFAULT
    words = 1.0 - meaning if words is None and meaning is not None else words or 0.0
    meaning = 1.0 - words if meaning is None else meaning
    if min(words, meaning) < 0 or words + meaning <= 0:
        raise RequestError(
            f"bm25_weight={words:g} and embedding_weight={meaning:g} mix nothing",
            path="bm25_weight",
            next="Give two numbers of 0 or more, such as 0.3 and 0.7, or neither.",
        )
    return Weights.hybrid(words / (words + meaning), meaning / (words + meaning))


def _okapi() -> Any:
    try:
        return import_module("rank_bm25").BM25Okapi
    except ImportError:
        raise RequestError(
            "the package `rank-bm25` is not installed", path="lexical", next="pip install 'toolweaver[search-compare]'"
        ) from None


def _tell(done: int, of: int) -> None:
    log.info("%s of %s tools have a vector", done, of, extra={"action": "tools_embedded"})
