"""Tokens of all tools against those that a search chooses, at 30, 58, 200 and 527 real MCP tools. `pip install bpe-openai` first.

Every catalog is drawn at random from the 527 tools of `tests/data/livemcp` (200 catalogs of each size; of 527 there is one),
rendered as a request to Anthropic holds them, and counted as JSON text by `o200k_base`, a real tokenizer that `bpe-openai` ships
(that of GPT-4o). Beside it stands the estimate that the product itself uses (`tool_search/tokens.py`, WordPiece).

Chosen are the ten, or five, best for a query that a user of the catalog may have: the description of one of its tools, cut to its
first sentence. Onto every choice come OVERHEAD tokens: what a search costs when it is a tool of the model's own, definition, call
and answer. Where the platform searches before it asks the model, as `select_tools` does, they are not spent; both are printed.
Saved is 1 - chosen / all of a catalog; the median over catalogs, and the 5th percentile: a choice of large tools saves less.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.common import Report, options
from orchestrator.catalog.render.vendors import render
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.tool_search.engine import ToolSearchEngine
from orchestrator.tool_search.tokens import count_tokens

SIZES = (30, 58, 200, 527)
CATALOGS, QUICK = 200, 20
CHOSEN = (10, 5)
OVERHEAD = 250  # a tool `search_tools` with two parameters, its call and the list of names that it gives
ENCODING = "o200k_base"
LIVEMCP = Path(__file__).parents[1] / "tests" / "data" / "livemcp" / "tools.jsonl"


def tools() -> list[ToolDefinition]:
    """The 527 tools, under names of ours."""
    rows = [json.loads(line) for line in LIVEMCP.read_text(encoding="utf-8").splitlines()]
    return list({t.name: t for t in map(_tool, rows)}.values())


def _tool(row: dict[str, object]) -> ToolDefinition:
    name = "".join(c if c.isalnum() or c in "_.-" else "_" for c in f"{row['server']}.{row['name']}")
    schema = row.get("schema")
    return ToolDefinition(
        name=(name if name[0].isascii() and name[0].isalpha() else f"s{name}")[:128],
        description=str(row["description"]),
        json_schema=schema if isinstance(schema, dict) else {"type": "object"},
        server=str(row["server"]),
        native_name=str(row["name"]),
    )


def rendered(every: Sequence[ToolDefinition]) -> dict[str, str]:
    """Each tool's text in a request to Anthropic."""
    made = render(ToolCatalog(tools=list(every)), "anthropic")
    return {made.names.to_catalog(t["name"]): json.dumps(t, ensure_ascii=False) for t in made.tools}


def encoder() -> Callable[[str], int]:
    try:
        import bpe_openai
    except ImportError:
        raise SystemExit("tokens are counted with `bpe-openai`: `pip install bpe-openai`") from None
    encoding = bpe_openai.get_encoding(ENCODING)
    return lambda text: len(encoding.encode(text))


def query_of(tool: ToolDefinition) -> str:
    """The first sentence of a description; a name where there is none."""
    return tool.description.strip().partition("\n")[0].partition(". ")[0][:200] or tool.name


def measure(report: Report, size: int, every: Sequence[ToolDefinition], costs: dict[str, dict[str, int]], count: int) -> None:
    draw = random.Random(size)
    with tempfile.TemporaryDirectory() as folder:
        engine = ToolSearchEngine(cache_dir=folder)
        engine.rank("warm", every)  # every vector is made once
        saved: dict[tuple[str, int, int], list[float]] = {}
        for _ in range(count):
            drawn = draw.sample(list(every), size) if size < len(every) else list(every)
            found = engine.rank(query_of(draw.choice(drawn)), drawn, max(CHOSEN))
            for unit, cost in costs.items():
                total = sum(cost[t.name] for t in drawn)
                saved.setdefault((unit, 0, 0), []).append(total)
                for k in CHOSEN:
                    chosen = sum(cost[t.name] for t, _ in found[:k])
                    for overhead in (0, OVERHEAD):
                        saved.setdefault((unit, k, overhead), []).append(100 * (1 - (chosen + overhead) / total))
    for (unit, k, overhead), values in saved.items():
        name = f"{size}_tools_{unit}_" + (f"saved_top{k}" + ("_with_search" if overhead else "") if k else "all")
        report.add(name, statistics.median(values), "%" if k else "tokens")
        if k and unit == ENCODING:
            report.add(f"{name}_p5", sorted(values)[len(values) // 20], "%")


def main() -> None:
    chosen = options(__doc__ or "")
    logging.disable(logging.INFO)
    every = tools()
    texts = rendered(every)
    every = [t for t in every if t.name in texts]
    counts = {ENCODING: encoder(), "wordpiece": count_tokens}
    costs = {unit: {name: of(text) for name, text in texts.items()} for unit, of in counts.items()}
    report = Report("tokens")
    for unit, cost in costs.items():
        report.add(f"{unit}_mean_per_tool", statistics.fmean(cost.values()), "tokens")
        report.add(f"{unit}_median_per_tool", statistics.median(cost.values()), "tokens")
    for size in SIZES:
        size = min(size, len(every))
        measure(report, size, every, costs, QUICK if chosen.quick else CATALOGS)
    report.print(chosen.json)


if __name__ == "__main__":
    main()
