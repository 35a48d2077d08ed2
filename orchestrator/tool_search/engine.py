"""Search over a catalog in this process: a few calls for scripts and notebooks, the formula of the index service.

The service is for many tools, many planners and what confirmed use teaches; this is for a catalog that somebody holds in hand.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ModelError, RequestError
from orchestrator.models.search import MOST_HITS, QUERY_CHARS, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.providers.embedder import Embedder
from orchestrator.providers.warm import MINILM, named_embedder
from orchestrator.settings import load_settings
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.answer import answer, asked
from orchestrator.tool_search.cache import LRU, DistributedCache, VectorFile
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import Document, document_of
from orchestrator.tool_search.embedding import embedded, vectors_in
from orchestrator.tool_search.exact import Exact, order
from orchestrator.tool_search.fusion import Weights, reason
from orchestrator.tool_search.index import DIMENSIONS, Index
from orchestrator.tool_search.routing import THRESHOLD
from orchestrator.tool_search.weights import weights_of

log = logging.getLogger(__name__)

Lexical = Literal["bm25f", "rank-bm25"]
Result = tuple[ToolDefinition, float]
MIN_SCORE = 0.3
TTL_S = 3_600.0
CATALOGS, RESULTS, QUERIES, KEPT = 8, 10_000, 1_000, 1_000  # in this process
HIGH, GOOD = 0.8, 0.5
LABELS = ((HIGH, "\N{FIRE}", "High relevance"), (GOOD, "\N{CHECK MARK}", "Good match"), (-1.0, "~", "Partial match"))
UNRANKED = ("~", "Not ranked: the tools are so few that all are shown")


@dataclass(frozen=True)
class Prepared:
    """A catalog, ready to be searched."""

    tools: Mapping[str, ToolDefinition]
    documents: Sequence[Document]
    index: Index
    with_meaning: bool

    @cached_property
    def exact(self) -> Exact:
        """For the classic hybrid, which scales over all tools."""
        rows = [row for d in self.documents if (row := self.index.find(d.name)) is not None]
        return Exact(self.documents, np.asarray(self.index.base.matrix[rows], np.float32) if self.with_meaning else None)

    @cached_property
    def okapi(self) -> Any:
        """The references' words: BM25Okapi over the text, cut at spaces.

        Raises:
            RequestError: the extra `search-compare` is not installed.
        """
        return _okapi()([d.text.lower().split() for d in self.documents])


class _Hit(NamedTuple):
    name: str
    score: float
    evidence: float


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    hits: tuple[_Hit, ...]


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
        lexical: `bm25f` (fields, stemming), or `rank-bm25` for comparison, by the extra `search-compare`; its default weights
            are 0.3 and 0.7.
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
        self.weights = _weights(bm25_weight, embedding_weight, lexical)
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
        `min_score` is a share of the best tool's evidence, which tools are ordered by (words and meaning, docs/tool-search.md):
        what has less is left out, so the best one never is. An empty query finds nothing.
        """
        tools = [t for t in catalog.tools if t.deprecated is None]
        if len(tools) <= self._threshold:
            return [(t, 1.0) for t in tools]
        return self.rank(query, tools, top_k, min_score)

    def rank(self, query: str, tools: Sequence[ToolDefinition], top_k: int = 10, min_score: float = 0.0) -> list[Result]:
        """As `search`, of these tools, however few they are."""
        asked = query.strip()[:QUERY_CHARS]
        if not asked or top_k < 1 or not tools:
            return []
        prepared = self._prepare(tools)
        found = self._kept(prepared, asked, min(top_k, MOST_HITS))
        least = min_score * max((hit.evidence for hit in found), default=0.0)
        return [(prepared.tools[hit.name], hit.score) for hit in found if hit.evidence >= least]

    def answer(self, request: SearchRequest, tools: Sequence[ToolDefinition]) -> SearchAnswer:
        """What the index service answers, of these tools: whoever holds them may use them, so no tenant is hidden from another."""
        prepared = self._prepare(tools)
        vectors = [self._query_vector(q) if prepared.with_meaning and q else None for q in asked(request).queries]
        return answer(prepared.index, request, vectors, weights=self.weights, degraded=self.degraded)

    def tokens(self, tools: Sequence[ToolDefinition]) -> list[int]:
        """The tokens of each tool's schema, estimated; kept for tools of the same catalog."""
        return [d.tokens for d in self._documents(tools)]

    def explain_results(self, results: Sequence[Result], query: str) -> str:
        """The results for a person: one line a tool with its score and how good that is, and below it why."""
        lines = [f'Query: "{query}"']
        unranked = len(results) > 1 and all(score == 1.0 for _, score in results)
        for tool, score in results:
            mark, said = UNRANKED if unranked else next((m, s) for least, m, s in LABELS if score >= least)
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

    def _kept(self, prepared: Prepared, query: str, top_k: int) -> tuple[_Hit, ...]:
        asked_for = hashlib.sha256(f"{top_k} {prepared.with_meaning} {query}".encode("utf-8", "replace")).hexdigest()[:32]
        key = f"engine:{self._mark}:{prepared.index.catalog_hash}:{asked_for}"
        known = self._results.get(key)
        if known is not None and time.monotonic() - known.at < TTL_S:
            return known.hits
        hits = self._from_others(key, prepared) or self._find(prepared, query, top_k)
        self._results.set(key, _Kept(time.monotonic(), hits))
        if self._shared is not None:
            self._shared.set(key, [list(hit) for hit in hits], ttl=int(TTL_S))
        return hits

    def _from_others(self, key: str, prepared: Prepared) -> tuple[_Hit, ...]:
        found = self._shared.get(key) if self._shared is not None else None
        try:
            hits = tuple(_Hit(str(name), float(score), float(evidence)) for name, score, evidence in found or ())
        except (TypeError, ValueError):  # another version's
            return ()
        return hits if all(hit.name in prepared.tools for hit in hits) else ()

    def _find(self, prepared: Prepared, query: str, top_k: int) -> tuple[_Hit, ...]:
        if not self.weights.rescale:
            found = self.answer(SearchRequest(queries=(query,), k=top_k, detail="names"), list(prepared.tools.values()))
            best = max((hit.rank_score for hit in found.hits), default=0.0)
            return tuple(_Hit(hit.name, hit.score, best if hit.exact else hit.rank_score) for hit in found.hits)
        ranked = self._compared(prepared, query)
        return tuple(_Hit(prepared.documents[row].name, float(ranked[row]), float(ranked[row])) for row in order(ranked, top_k))

    def _compared(self, prepared: Prepared, query: str) -> NDArray[np.float64]:
        """The classic hybrid, for every tool; a name that is given counts as any word."""
        vector = self._query_vector(query) if prepared.with_meaning else None
        halves = prepared.exact.halves(query, vector)
        if self._lexical == "rank-bm25":
            halves = replace(halves, words=np.maximum(prepared.okapi.get_scores(query.lower().split()), 0.0))
        return halves.fused(self.weights)

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
            if (found := self._prepared.get(key)) is None:
                found = self._prepared[key] = self._make(tools)
                while len(self._prepared) > CATALOGS:
                    self._prepared.popitem(last=False)
            self._prepared.move_to_end(key)
            return found

    def _make(self, tools: Sequence[ToolDefinition]) -> Prepared:
        documents, model = self._documents(tools), self._model
        texts = list(dict.fromkeys(d.text for d in documents))
        rows = () if model is None else tuple(embedded(model, texts, kept=self._vectors, progress=_tell))
        vectors = {text_digest(text): row for text, row in zip(texts, rows, strict=False)}
        dimensions = DIMENSIONS if model is None else model.dimensions
        index = Index.of((_for_all(d) for d in documents), vectors, dimensions=dimensions)
        return Prepared({t.name: t for t in tools}, documents, index, model is not None)

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
        return None if self._model is None else vectors_in(folder, self._model)

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


def _weights(words: float | None, meaning: float | None, lexical: Lexical) -> Weights:
    if words is None and meaning is None:
        return weights_of(load_settings()) if lexical == "bm25f" else Weights.hybrid()
    words = 1.0 - meaning if words is None and meaning is not None else words or 0.0
    meaning = 1.0 - words if meaning is None else meaning
    if min(words, meaning) < 0 or words + meaning <= 0:
        raise RequestError(
            f"bm25_weight={words:g} and embedding_weight={meaning:g} mix nothing",
            path="bm25_weight",
            next="Give two numbers of 0 or more, such as 0.3 and 0.7, or neither.",
        )
    return Weights.hybrid(words / (words + meaning), meaning / (words + meaning))


def _for_all(document: Document) -> Document:
    return replace(document, group=document.group._replace(tenants=None))


def _okapi() -> Any:
    try:
        return import_module("rank_bm25").BM25Okapi
    except ImportError:
        raise RequestError(
            "the package `rank-bm25` is not installed", path="lexical", next="pip install 'toolweaver[search-compare]'"
        ) from None


def _tell(done: int, of: int) -> None:
    log.info("%s of %s tools have a vector", done, of, extra={"action": "tools_embedded"})
