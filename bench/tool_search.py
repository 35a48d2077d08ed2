"""How good tool search is, and what it costs: `python bench/tool_search.py PART [...]`; without a part, the quality.

    python bench/tool_search.py quality              # the default against the usual ways, on three public sets
    python bench/tool_search.py quality --set NAME=FOLDER   # on other sets of the same layout (tests/data/toolsearch/README.md)
    python bench/tool_search.py feedback|scale|http|tokens|churn ...   # each its own module; --help lists its flags

The quality is of the product's default, untrained, through its index. Beside it: rank-bm25 as it comes (BM25Okapi over the
lower-case words of "name: description"), MiniLM's cosine on that text, and the classic hybrid, 0.3 of the one and 0.7 of the
other, each scaled to 0..1 over the catalog for every query. All of them in one run, with the same vectors of queries and tools.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # so that it runs as a file, too

from rank_bm25 import BM25Okapi  # noqa: E402

from bench.common import Report  # noqa: E402
from orchestrator.models.tool import MAX_TOOL_NAME, ToolDefinition, ToolParameter  # noqa: E402
from orchestrator.tool_search.analysis import terms  # noqa: E402
from orchestrator.tool_search.columns import text_digest  # noqa: E402
from orchestrator.tool_search.document import document_of  # noqa: E402
from orchestrator.tool_search.index import Index, Query  # noqa: E402
from orchestrator.tool_search.metrics import mrr, ndcg, recall  # noqa: E402

PARTS = {part: f"bench.tool_search_{part}" for part in ("feedback", "scale", "http", "tokens", "churn")}
SETS = ("metatool", "sealtools", "bfcl")
DATA = ROOT / "tests/data/toolsearch"
DEPTH = 10
BETTER = 1.04  # times the hybrid's NDCG@10, on the mean
METRICS: dict[str, Callable[[Sequence[str], set[str]], float]] = {
    "NDCG@10": ndcg,
    "recall@5": lambda ranked, wanted: recall(ranked, wanted, 5),
    "recall@10": recall,
    "MRR": mrr,
}
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """A catalog and queries that are known to need certain tools of it."""

    name: str
    tools: list[dict[str, Any]]
    queries: list[dict[str, Any]]

    @classmethod
    def read(cls, name: str, folder: Path, most: int | None) -> Labelled:
        queries = _lines(folder / "queries.jsonl")
        step = 1 if most is None else max(1, len(queries) // most)
        return cls(name, _lines(folder / "tools.jsonl"), queries[::step][:most])

    @property
    def texts(self) -> list[str]:
        """What the usual ways look at."""
        return [f"{t['name']}: {t['description']}" for t in self.tools]


def main() -> None:
    """Prints the figures."""
    if len(sys.argv) > 1 and sys.argv[1] in PARTS:
        part = PARTS[sys.argv.pop(1)]
        runpy.run_module(part, run_name="__main__", alter_sys=True)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("quality", *PARTS), default="quality")
    parser.add_argument("--set", action="append", metavar="NAME=FOLDER", help="another set instead of the three; repeatable")
    parser.add_argument("--quick", action="store_true", help="300 queries of each set")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    options = parser.parse_args()
    folders = dict(pair.split("=", 1) for pair in options.set or [f"{name}={DATA / name}" for name in SETS])
    sets = [Labelled.read(name, Path(folder), 300 if options.quick else None) for name, folder in folders.items()]
    quality(sets).print(options.json)


def quality(sets: Sequence[Labelled]) -> Report:
    """All figures of all ways on all sets, and the verdicts."""
    report = Report("search")
    found = {s.name: measured(s) for s in sets}
    for metric in METRICS:
        for way in next(iter(found.values())):
            values = [found[s.name][way][metric] for s in sets]
            for s, value in zip(sets, values, strict=True):
                report.add(f"{metric} {way}, {s.name}", value, "")
            report.add(f"{metric} {way}, mean", float(np.mean(values)), "")
    _verdicts(report, found)
    return report


def _verdicts(report: Report, found: dict[str, dict[str, dict[str, float]]]) -> None:
    ours, theirs = ([f[way]["NDCG@10"] for f in found.values()] for way in ("default", "hybrid"))
    report.add("NDCG@10 mean, default : hybrid", float(np.mean(ours) / np.mean(theirs)), "x", BETTER, least=True)
    for name, mine, other in zip(found, ours, theirs, strict=True):
        report.add(f"NDCG@10 {name}, default : hybrid", mine / other, "x", 1.0, least=True)


def measured(labelled: Labelled) -> dict[str, dict[str, float]]:
    """Every metric of every way, as means over the queries."""
    print(f"{labelled.name}: {len(labelled.tools)} tools, {len(labelled.queries)} queries", file=sys.stderr, flush=True)
    ranked, wanted = ranked_by_all(labelled), [set(q["labels"]) for q in labelled.queries]
    return {
        way: {name: float(np.mean([metric(r, w) for r, w in zip(lists, wanted, strict=True)])) for name, metric in METRICS.items()}
        for way, lists in ranked.items()
    }


def ranked_by_all(labelled: Labelled) -> dict[str, list[list[str]]]:
    """For each way the ids of its best tools for every query."""
    from orchestrator.providers.minilm import MiniLM

    model = MiniLM()
    vectors = model.embed([q["query"] for q in labelled.queries])
    cosines = vectors @ model.embed(labelled.texts).T
    words = okapi(labelled)
    scores = {"rank-bm25": words, "MiniLM": cosines, "hybrid": 0.3 * _scaled(words) + 0.7 * _scaled(cosines)}
    ids = [t["id"] for t in labelled.tools]
    ranked = {way: [[ids[at] for at in np.argsort(-row, kind="stable")[:DEPTH]] for row in s] for way, s in scores.items()}
    return {**ranked, "default": ranked_by_default(labelled, vectors, model.embed)}


def ranked_by_default(labelled: Labelled, vectors: Vectors, embed: Callable[[Sequence[str]], Vectors]) -> list[list[str]]:
    """As the product ranks them, through its index."""
    tools = [definition(t) for t in labelled.tools]
    ids = {tool.name: row["id"] for tool, row in zip(tools, labelled.tools, strict=True)}
    documents = [document_of(tool) for tool in tools]
    of_text = {text_digest(d.text): v for d, v in zip(documents, embed([d.text for d in documents]), strict=True)}
    index = Index.of(documents, of_text)
    ranked = []
    for query, vector in zip(labelled.queries, vectors, strict=True):
        found = index.search(Query(query["query"], tuple(terms(query["query"])), vector), DEPTH)
        ranked.append([ids[index.name(at)] for at in found.ids.tolist()])
    return ranked


def definition(row: dict[str, Any]) -> ToolDefinition:
    """A tool of a set as the platform knows tools."""
    name = re.sub(r"[^\w.:/-]", "_", row["name"])
    name = name if re.match(r"[A-Za-z]", name) else f"t_{name}"
    parameters = {p: ToolParameter(name=p, description=str(said or "")) for p, said in row["params"] if p}
    return ToolDefinition(
        name=name[:MAX_TOOL_NAME],
        description=row["description"] or "",
        parameters=tuple(parameters.values()),
        domain=row["category"] or "general",
    )


def okapi(labelled: Labelled) -> NDArray[np.float64]:
    """rank-bm25 as it comes: a row for each query."""
    engine = BM25Okapi([text.lower().split() for text in labelled.texts])
    return np.array([engine.get_scores(q["query"].lower().split()) for q in labelled.queries])


def _scaled(scores: NDArray[Any]) -> NDArray[Any]:
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    return np.asarray((scores - low) / np.where(high > low, high - low, 1.0))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
