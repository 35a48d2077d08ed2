"""The search lab: how good search is on one's own catalog and queries, what it misses and why, and whether another weight helps.

`python -m orchestrator.tool_search.lab` writes one JSON object to standard output: the `LabReport`, or the problem (RFC 9457).
Progress goes to standard error. Exit codes: 0, 2 for a bad request, 3 where something is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import BackendError, ModelError, NotFound, RequestError, ToolWeaverError, to_problem
from orchestrator.models.catalog import CatalogHash
from orchestrator.models.lab import LabReport, Miss, Quality, Tokens, ordinal
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.providers.embedder import Embedder
from orchestrator.providers.warm import MINILM, named_embedder
from orchestrator.settings import load_settings
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.document import Document, document_of
from orchestrator.tool_search.embedding import embedded, vectors_in
from orchestrator.tool_search.exact import Exact, Halves, order, place
from orchestrator.tool_search.fusion import DEFAULT, Weights
from orchestrator.tool_search.lab_fit import WEIGHTS, fit
from orchestrator.tool_search.lab_input import Case, read_cases, read_catalog
from orchestrator.tool_search.metrics import mrr, ndcg, recall
from orchestrator.tool_search.routing import saved_share
from orchestrator.tool_search.weights import weights_of

DONE, BAD_REQUEST, UNREACHABLE = 0, 2, 3
RECALLS = (1, 5, 10)
Code = Literal["absent", "deprecated", "no_words", "words", "meaning", "both", "crowded"]
FAR = 50  # places behind the first k at which a half is said to have pulled a tool down


@dataclass(frozen=True, slots=True)
class Asked:
    """A case that can be judged: the rows of its right tools, and what both halves say."""

    case: Case
    rows: tuple[int, ...]
    halves: Halves


class Lab:
    """One catalog and its queries, scored once; everything in the report is read off that."""

    def __init__(
        self,
        catalog: ToolCatalog,
        cases: Sequence[Case],
        *,
        embedder: Embedder | None,
        folder: Path | None = None,
        k: int = 10,
        weights: Weights = DEFAULT,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.k = k
        self._default = weights
        self._hidden = {t.name: t.deprecated for t in catalog.tools if t.deprecated is not None}
        self._documents = [document_of(t) for t in catalog.tools if t.deprecated is None]
        self._rows = {d.name: row for row, d in enumerate(self._documents)}
        self._alias = _aliases(catalog.tools, self._rows)
        self._cases = cases
        vectors = queries = None
        if embedder is not None:
            kept = None if folder is None else vectors_in(folder, embedder)
            told = partial(_tell, progress, "tools")
            vectors = embedded(embedder, [d.text for d in self._documents], kept=kept, progress=told)
            queries = embedded(embedder, [c.query for c in cases], progress=partial(_tell, progress, "queries"))
        exact = Exact(self._documents, vectors)
        self._asked = [
            Asked(case, rows, exact.halves(case.query, None if queries is None else queries[at]))
            for at, case in enumerate(cases)
            if (rows := tuple(self._rows[n] for n in map(self._named, case.tools) if n in self._rows))
        ]
        self._with_meaning = vectors is not None

    def report(self, *, misses: int = 50) -> LabReport:
        """Everything; at most so many misses, those of the first queries."""
        began = time.perf_counter()
        if not self._asked:
            raise self._nothing()
        found = list(self._misses())
        return LabReport(
            tools=len(self._documents),
            queries=len(self._cases),
            used=len(self._asked),
            k=self.k,
            catalog_hash=self._catalog_hash(),
            ways=tuple(self._quality(name, weights) for name, weights in self._ways().items()),
            misses=tuple(found[:misses]),
            missed=len(found),
            asked=sum(len(c.tools) for c in self._cases),
            tokens=self._tokens(),
            fit=fit(self._by_weight(), [a.case.query for a in self._asked], default=self._default.lexical),
            degraded=() if self._with_meaning else ("meaning: the embedding model is absent, so only words were compared",),
            seconds=round(time.perf_counter() - began, 3),
        )

    def _named(self, name: str) -> str:
        return self._alias.get(name, name)

    def _ways(self) -> dict[str, Weights]:
        words = {"words alone": Weights(lexical=1.0, cosine=0.0)}
        if not self._with_meaning:
            return words
        meaning = {"meaning alone": Weights(lexical=0.0)}
        return {"as it is set": self._default, **words, **meaning, "0.3 words + 0.7 meaning, min-max": Weights.hybrid(0.3, 0.7)}

    def _quality(self, name: str, weights: Weights) -> Quality:
        ranked = [(self._names(a, weights), self._wanted(a)) for a in self._asked]
        return Quality(
            name=name,
            ndcg=fmean(ndcg(r, w, self.k) for r, w in ranked),
            mrr=fmean(mrr(r, w) for r, w in ranked),
            recall={k: fmean(recall(r, w, k) for r, w in ranked) for k in sorted({*RECALLS, self.k})},
        )

    def _names(self, asked: Asked, weights: Weights, k: int = 100) -> list[str]:
        return [self._documents[row].name for row in order(asked.halves.fused(weights), max(k, self.k))]

    def _wanted(self, asked: Asked) -> frozenset[str]:
        return frozenset(self._documents[row].name for row in asked.rows)

    def _by_weight(self) -> Mapping[float, NDArray[np.float64]]:
        weights = sorted({*WEIGHTS, self._default.lexical}) if self._with_meaning else [self._default.lexical]
        return {
            w: np.array([ndcg(self._names(a, Weights(lexical=w), self.k), self._wanted(a), self.k) for a in self._asked])
            for w in weights
        }

    def _tokens(self) -> Tokens:
        costs = np.array([d.tokens for d in self._documents])
        chosen = fmean(float(costs[order(a.halves.fused(self._default), self.k)].sum()) for a in self._asked)
        return Tokens(all=int(costs.sum()), chosen=chosen, saved=saved_share(int(costs.sum()), round(chosen)))

    def _misses(self) -> list[Miss]:
        judged = {id(a.case): a for a in self._asked}
        found: list[Miss] = []
        for case in self._cases:
            asked = judged.get(id(case))
            scores = None if asked is None else asked.halves.fused(self._default)
            for name in map(self._named, case.tools):
                if (row := self._rows.get(name)) is None:
                    found.append(self._absent(case, name))
                elif asked is not None and scores is not None and (at := place(scores, row)) > self.k:
                    found.append(self._low(asked, row, at, int(order(scores, 1)[0])))
        return found

    def _absent(self, case: Case, name: str) -> Miss:
        miss = partial(Miss, line=case.line, query=case.query, tool=name)
        if name in self._hidden:
            why = self._hidden[name] or "not to be used any more"
            return miss(code="deprecated", reason=f"deprecated, so never offered: {why}", next="Name what replaces it.")
        near = get_close_matches(name, self._rows, n=1)
        move = f"Did you mean `{near[0]}`?" if near else "Add the tool, or mend the name in the queries."
        return miss(code="absent", reason="not in the catalog", next=move)

    def _low(self, asked: Asked, row: int, at: int, first: int) -> Miss:
        halves = asked.halves
        by_words = place(halves.words, row) if halves.words[row] > 0 else None
        by_meaning = None if halves.meaning is None else place(halves.meaning, row)
        code, why, move = self._why(by_words, by_meaning, self._documents[row])
        shared = self._shared(asked.case.query, first)
        over = f"`{self._documents[first].name}`" + (f" (shares {', '.join(shared)})" if shared else "")
        return Miss(
            line=asked.case.line,
            query=asked.case.query,
            tool=self._documents[row].name,
            place=at,
            by_words=by_words,
            by_meaning=by_meaning,
            instead=self._documents[first].name,
            code=code,
            reason=f"{ordinal(at)}, below {over}: {why}",
            next=move,
        )

    def _shared(self, query: str, row: int) -> list[str]:
        return [t for t in dict.fromkeys(terms(query)) if t in self._documents[row].terms][:4]

    def _why(self, by_words: int | None, by_meaning: int | None, document: Document) -> tuple[Code, str, str]:
        """Which half let it down: the code, what to tell, and what would help."""
        words = "no word in common" if by_words is None else f"{ordinal(by_words)} by words"
        told = words if by_meaning is None else f"{words}, {ordinal(by_meaning)} by meaning"
        if not document.text.partition(": ")[2].strip():
            return "no_words", f"{told}; it has no description", "Describe it: what it does, on what, for whom."
        if by_words is None:
            return (
                "no_words",
                told,
                "Say in its description what people call this, or confirm its use: `toolweaver search feedback`.",
            )
        far_by_meaning = by_meaning is not None and by_meaning > self.k + FAR
        if by_words > self.k + FAR and far_by_meaning:
            return "both", told, "Its description says little of this request: add what people ask of it."
        if far_by_meaning:
            return "meaning", told, "Begin its description with what it does: the model of meanings reads the beginning best."
        if by_words > self.k + FAR:
            return "words", told, "Use in its description the words that people use."
        return "crowded", f"{told}; many tools are alike", "Say in both descriptions what tells them apart, or raise `k`."

    def _catalog_hash(self) -> str:
        return str(CatalogHash.of((d.name, d.version) for d in self._documents))

    def _nothing(self) -> RequestError:
        wanted = sorted({n for c in self._cases for n in c.tools})
        error = NotFound(
            f"none of the {len(wanted)} right tools is in the catalog, such as `{wanted[0]}`",
            path="queries",
            next=f"The catalog has tools such as `{self._documents[0].name}`." if self._documents else "The catalog has no tools.",
        )
        error.code = "no_right_tools"
        return error


def _aliases(tools: Sequence[ToolDefinition], rows: Mapping[str, int]) -> dict[str, str]:
    """Other names that lead to one tool only."""
    claims: dict[str, set[str]] = {}
    for tool in tools:
        for alias in (*tool.aliases, *((tool.native_name,) if tool.native_name else ())):
            claims.setdefault(alias, set()).add(tool.name)
    return {alias: next(iter(of)) for alias, of in claims.items() if len(of) == 1 and alias not in rows}


def _tell(progress: Callable[[str], None], what: str, done: int, of: int) -> None:
    if done == of or done % 512 == 0:
        progress(f"meaning of {what}: {done:,} of {of:,}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the lab; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        report = run(options)
    except ToolWeaverError as error:
        _write(to_problem(error))
        return UNREACHABLE if isinstance(error, BackendError) else BAD_REQUEST
    _write(report.model_dump(mode="json"))
    return DONE


def run(options: argparse.Namespace) -> LabReport:
    """The report that the options ask for.

    Raises:
        RequestError: the queries or the catalog cannot be read, or have nothing in common.
    """
    settings = load_settings()
    cases = read_cases(_text(options.queries), name=options.queries)
    catalog = read_catalog(_text(options.catalog), name="the platform's catalog" if options.catalog == "-" else options.catalog)
    embedder = None if options.words else _embedder(options.model)
    folder = None if options.no_cache else settings.home.expanduser() / "index"
    lab = Lab(catalog, cases, embedder=embedder, folder=folder, k=options.k, weights=weights_of(settings), progress=_say)
    return lab.report(misses=options.misses)


def _embedder(model: str) -> Embedder | None:
    try:
        return named_embedder(model)
    except ModelError as error:
        if model != MINILM:
            raise
        _say(f"{error.message}: only words are compared. {error.next or ''}")
        return None


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NotFound(f"`{path}` cannot be read: {error.strerror}", path=path, next="Check the path.") from None
    except UnicodeDecodeError:
        raise RequestError(f"`{path}` is no text in UTF-8", path=path, next="Save it as UTF-8.") from None


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.tool_search.lab", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queries", required=True, help="file of queries and their right tools")
    parser.add_argument("--catalog", default="-", help="file of tools; default: standard input")
    parser.add_argument("-k", type=int, default=10, help="how many tools a planner is given")
    parser.add_argument("--misses", type=int, default=50, help="how many misses are told at most")
    parser.add_argument("--model", default=MINILM, help="embedding model")
    parser.add_argument("--words", action="store_true", help="without the model of meanings")
    parser.add_argument("--no-cache", action="store_true", help="keep no vectors in the home folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
