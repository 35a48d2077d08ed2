"""What `feedback` wins: half of a set's queries are told with what was used for them, the other half is asked.

    python -m bench.tool_search_feedback [--quick] [--json]

Goals: NDCG@10 of the other half >= 1.10 of untrained on MetaTool and BFCL, and on no set worse by more than .015, also with
feedback that is wrong (10 and 30 % of the uses name some other tool), and by words alone. `best possible` is what the ranking
would be if every tool that was ever told stood first wherever it is wanted: telling of tools can win no more. `new tools`: only
queries of tools that the feedback does not know are asked, which is the hardest case; nothing there may be buried.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import Report
from orchestrator.providers.minilm import MiniLM
from orchestrator.tool_search.analysis import terms
from orchestrator.tool_search.columns import text_digest
from orchestrator.tool_search.document import document_of_row
from orchestrator.tool_search.feedback import Learned, Lessons, Use
from orchestrator.tool_search.feedback_fit import OfIndex, fitted
from orchestrator.tool_search.index import Index, Query
from orchestrator.tool_search.metrics import ndcg

DATA = Path(__file__).parent.parent / "tests/data/toolsearch"
SETS = {"metatool": 1.10, "bfcl": 1.10, "sealtools": None}
WORSE = 0.015
ASKED = 400  # of a half
SPLITS = 3


@dataclass(frozen=True)
class Case:
    """A set in an index, and its queries."""

    name: str
    index: Index
    queries: list[Query]
    wanted: list[tuple[str, ...]]
    ids: list[str]


def read(name: str, model: MiniLM) -> Case:
    """A set, encoded."""
    tools = [json.loads(line) for line in (DATA / name / "tools.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in (DATA / name / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    documents = [document_of_row(_row(t)) for t in tools]
    named = {t["id"]: t["name"] for t in tools}
    vectors = model.embed([d.text for d in documents])
    made = model.embed([r["query"] for r in rows])
    index = Index.of(documents, {text_digest(d.text): v for d, v in zip(documents, vectors, strict=True)})
    return Case(
        name,
        index,
        [Query(r["query"], tuple(terms(r["query"])), v) for r, v in zip(rows, made, strict=True)],
        [tuple(named[label] for label in r["labels"] if label in named) for r in rows],
        [r["id"] for r in rows],
    )


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one split instead of three")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--sets", default=",".join(SETS), help="which of them")
    options = parser.parse_args()
    report = Report("feedback")
    measure(report, splits=1 if options.quick else SPLITS, sets=options.sets.split(","))
    report.print(options.json)


def measure(report: Report, *, splits: int = SPLITS, sets: Sequence[str] = tuple(SETS)) -> None:
    """All figures of these sets."""
    model = MiniLM()
    for name in sets:
        _measure(report, read(name, model), splits)


def _measure(report: Report, case: Case, splits: int) -> None:
    halves = [_half(case, seed) for seed in range(splits)]
    worlds = {"": halves, "10 % wrong": halves, "30 % wrong": halves, "words alone": halves, "new tools": [_by_tool(case)]}
    for world, cuts in worlds.items():
        rows = [_compare(case, told, asked, world, seed) for seed, (told, asked) in enumerate(cuts)]
        before, after, best = (np.array(column) for column in zip(*rows, strict=True))
        of = f"{case.name} {world}".strip()
        goal = SETS[case.name] if not world else None
        done = len(report.figures)
        report.add(f"{of}: untrained", float(before.mean()), "NDCG@10")
        report.add(f"{of}: trained", float(after.mean()), "NDCG@10")
        report.add(f"{of}: trained / untrained, mean", float((after / before).mean()), "", goal, least=True)
        report.add(f"{of}: trained - untrained, worst", float((after - before).min()), "NDCG@10", -WORSE, least=True)
        if not world:
            report.add(f"{of}: best possible / untrained", float((best / before).mean()), "")
        print("\n".join(f.line() for f in report.figures[done:]), file=sys.stderr, flush=True)


def _compare(case: Case, told: list[int], asked: list[int], world: str, seed: int) -> tuple[float, float, float]:
    """NDCG@10 untrained, trained and at best."""
    wrong = {"10 % wrong": 0.1, "30 % wrong": 0.3}.get(world, 0.0)
    alone = world == "words alone"
    learned = learn(case, told, wrong=wrong, seed=seed)
    asked = asked[:ASKED]
    known = {name for at in told for name in case.wanted[at]}
    before = [_ranked(case, at, None, alone) for at in asked]
    after = [_ranked(case, at, learned, alone) for at in asked]
    best = [sorted(r, key=lambda n: n not in known or n not in case.wanted[at]) for at, r in zip(asked, before, strict=True)]
    best = [[*(n for n in case.wanted[at] if n in known and n not in r), *r] for at, r in zip(asked, best, strict=True)]
    return tuple(
        float(np.mean([ndcg(r, case.wanted[at]) for at, r in zip(asked, way, strict=True)])) for way in (before, after, best)
    )  # type: ignore[return-value]


def learn(case: Case, told: Sequence[int], *, wrong: float = 0.0, seed: int = 0) -> Learned:
    """What these queries teach, a share of them wrongly; fitted."""
    chance = np.random.default_rng(seed)
    names = sorted({name for at in told for name in case.wanted[at]})
    uses, vectors = [], {}
    for at in told:
        used = (str(chance.choice(names)),) if chance.random() < wrong else case.wanted[at]
        uses.append(Use(case.ids[at], 0.0, None, case.queries[at].text, used))
        vectors[case.queries[at].text] = _vector(case.queries[at])
    learned = Lessons.of(uses, vectors).seen_by(None)
    assert learned is not None
    return fitted(learned, OfIndex(case.index))


def _ranked(case: Case, at: int, learned: Learned | None, alone: bool) -> list[str]:
    query = case.queries[at]
    asked = Query(query.text, query.terms, None) if alone else query
    return [case.index.name(n) for n in case.index.search(asked, 10, learned=learned).ids.tolist()]


def _half(case: Case, seed: int) -> tuple[list[int], list[int]]:
    """Split 0 by the hash of the id, the others by chance."""
    first = [hashlib.sha256(i.encode()).digest()[0] & 1 for i in case.ids]
    if seed:
        first = (np.random.default_rng(seed).permutation(len(case.ids)) % 2).tolist()
    return [n for n, f in enumerate(first) if f], [n for n, f in enumerate(first) if not f]


def _by_tool(case: Case) -> tuple[list[int], list[int]]:
    """Queries of half of the tools, and those that want none of these."""
    told = [n for n, w in enumerate(case.wanted) if w and hashlib.sha256(w[0].encode()).digest()[0] & 1]
    known = {name for n in told for name in case.wanted[n]}
    return told, [n for n, w in enumerate(case.wanted) if w and known.isdisjoint(w)]


def _vector(query: Query) -> NDArray[np.float32]:
    assert query.vector is not None
    return query.vector


def _row(tool: dict[str, Any]) -> bytes:
    """As `ToolDefinition.to_row`, which would not bear some of the names."""
    parameters = [{"name": name, "description": described or ""} for name, described in tool["params"]]
    row = {"name": tool["name"], "description": tool["description"] or "", "parameters": parameters}
    return json.dumps(row | ({"domain": tool["category"]} if tool["category"] else {})).encode()


if __name__ == "__main__":
    main()
