"""Prompt caches over traces of 20 turns: what hits and what misses cost, by the vendors' rules. `pip install bpe-openai` first.

A simulation: the caches are those of `bench/prompt_cache_rules.py`. The requests are real: the planner makes them (`LargePlanner`
over 100, or 200, of the 527 MCP tools of `tests/data/livemcp`), each vendor's SDK sends them to a local server that speaks its wire
format, and what arrives is judged, token by token of `o200k_base`, which `bpe-openai` ships. Turns are 60 s apart.

Traces: `shared`, requests of 20 people, all 100 tools shown; `repairs`, the same where every fifth answer is a plan that has to be
mended; `conversation`, 200 tools of which each request finds some, in one conversation; `strangers`, the same without one (no goal:
different tools are different prompts). Beside each stands a naive rendering of the same requests in the same run: the time at the
top, the tools by their relevance, no marks (and without the repairs).

Could hit: the tokens of lines that an earlier request of the trace had too, wherever they stood, while the vendor would still keep
them. The hit rate is the tokens that hit of those. Lost is what the misses cost at list prices, with what is written once more,
for 1,000 turns; a prompt that is shorter than the vendor keeps can hit nothing, and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.common import Report, options
from bench.prompt_cache_rules import RULES, Cache, Piece, Rule, prompt
from bench.tool_search_tokens import ENCODING, query_of, tools
from orchestrator.catalog.render.compact import compact
from orchestrator.errors import PlanError
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.planner.asked import PlanRequest
from orchestrator.planner.large import LargePlanner
from orchestrator.planner.prompt import SCHEMA, fenced, instructions, question
from orchestrator.providers.model import Block, Model, ModelRequest, TokenCounts
from orchestrator.providers.prices import cost_usd, price_source
from orchestrator.providers.warm import large_model
from orchestrator.settings import Settings, load_settings
from orchestrator.tool_search.engine import ToolSearchEngine
from tests.wire import WireServer, wire_server

TURNS, APART_S = 20, 60.0
GOAL = 90.0
SMALL, LARGE = 100, 200
SHOWN = 10  # tools that a naive rendering of the large catalog shows
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CANNOT = {"cannot": "this is a simulation"}
BROKEN = {"steps": [{"id": "a", "tool": "no_such_tool", "input": {}}]}


@dataclass(frozen=True)
class Trace:
    """A row of requests over one catalog."""

    name: str
    tools: Sequence[ToolDefinition]
    texts: Sequence[str]
    search: bool = False
    conversation: bool = False
    broken_every: int = 0
    goal: float | None = GOAL


@dataclass
class Sums:
    """Of one trace at one vendor; tokens."""

    total: int = 0
    could: int = 0
    hit: int = 0
    lost: float | None = 0.0  # dollars; None: no price is known

    @property
    def rate(self) -> float:
        return 100 * self.hit / self.could if self.could else 0.0


@dataclass
class Script:
    """What the server answers: a plan that has to be mended on the turns that say so, else that there is none."""

    broken: bool = False

    def __call__(self, _number: int, _body: dict[str, Any]) -> dict[str, Any]:
        answer, self.broken = (BROKEN if self.broken else CANNOT), False
        return answer


def encoder() -> Callable[[str], list[int]]:
    try:
        import bpe_openai
    except ImportError:
        raise SystemExit("tokens are counted with `bpe-openai`: `pip install bpe-openai`") from None
    encoding = bpe_openai.get_encoding(ENCODING)
    return lambda text: list(encoding.encode(text))


def traces(every: Sequence[ToolDefinition], turns: int) -> list[Trace]:
    """The traces, the same at every vendor."""
    draw = random.Random(8)
    small, large = draw.sample(list(every), SMALL), draw.sample(list(every), LARGE)
    few = [f"{query_of(draw.choice(small))}, then tell me what came out" for _ in range(turns)]
    many = [f"{query_of(draw.choice(large))}, then tell me what came out" for _ in range(turns)]
    return [
        Trace("shared", small, few),
        Trace("repairs", small, few, broken_every=5),
        Trace("conversation", large, many, search=True, conversation=True),
        Trace("strangers", large, many, search=True, goal=None),
    ]


@contextmanager
def served(rule: Rule, script: Script) -> Iterator[tuple[WireServer, Settings]]:
    """A server of the rule's vendor, and settings for it."""
    with wire_server(rule.provider, script) as server:  # type: ignore[arg-type]
        given = {**server.settings(), "planner_model": rule.model, "planner_retries": 0, "planner_window": 1_000_000}
        yield server, load_settings(_env_file=None, **given)


async def planned(trace: Trace, rule: Rule) -> list[tuple[float, list[Piece]]]:
    """The prompts that arrive, with their seconds, when the planner makes them."""
    script = Script()
    with served(rule, script) as (server, settings):
        model = large_model(settings)
        conversation = f"{rule.name}-{id(server)}" if trace.conversation else None  # a process remembers what one was shown
        catalog = ToolCatalog(tools=list(trace.tools))
        planner = LargePlanner(
            tool_catalog=catalog,
            use_tool_search=trace.search,
            search_threshold=SMALL if trace.search else None,
            settings=settings,
            model=model,
        )
        asked = _Asked(server)
        for turn, text in enumerate(trace.texts):
            script.broken = bool(trace.broken_every) and turn % trace.broken_every == trace.broken_every - 1
            with suppress(PlanError):  # the model cannot, as it was told
                await planner.make_plan(PlanRequest(text, conversation=conversation))
            asked.take(turn)
        await model.close()
    return asked.prompts


async def naive(trace: Trace, rule: Rule, engine: ToolSearchEngine) -> list[tuple[float, list[Piece]]]:
    """The same requests as they are often rendered."""
    script = Script()
    with served(rule, script) as (server, settings):
        model = large_model(settings)
        asked = _Asked(server)
        for turn, text in enumerate(trace.texts):
            ranked = [t for t, _ in engine.rank(text, list(trace.tools), SHOWN if trace.search else len(trace.tools))]
            await _ask(model, text, ranked, NOON + timedelta(seconds=turn * APART_S))
            asked.take(turn)
        await model.close()
    return asked.prompts


async def _ask(model: Model, text: str, ranked: Sequence[ToolDefinition], now: datetime) -> None:
    words = f"It is {now:%Y-%m-%d %H:%M:%S}.\n{instructions(programs=False)}\n\n{fenced('tools', map(compact, ranked))}"
    turns = (question(PlanRequest(text)),)
    await model.ask(ModelRequest(system=(Block(words),), turns=turns, purpose="plan", schema=SCHEMA, schema_name="plan"))


@dataclass
class _Asked:
    """What arrived at a server, with the simulated second of each."""

    server: WireServer
    prompts: list[tuple[float, list[Piece]]] = field(default_factory=list)

    def take(self, turn: int) -> None:
        new = self.server.seen[len(self.prompts) :]
        self.prompts += [(turn * APART_S + at, prompt(body)) for at, body in enumerate(new)]


def judged(prompts: Sequence[tuple[float, Sequence[Piece]]], rule: Rule, encode: Callable[[str], list[int]]) -> Sums:
    """The sums of a trace; each of its requests finds what those before it left."""
    cache, sums = Cache(rule, encode), Sums()
    seen: dict[str, float] = {}
    for now, pieces in prompts:
        verdict = cache.ask(pieces, now)
        lines = [line for p in pieces for line in p.text.splitlines(keepends=True)]
        known = sum(len(encode(line)) for line in lines if seen.get(line, -1.0) >= now)
        could = max(min(known, verdict.total), verdict.hit) if known >= rule.minimum else verdict.hit
        seen |= dict.fromkeys(lines, now + rule.ttl_s)
        sums.total, sums.could, sums.hit = sums.total + verdict.total, sums.could + could, sums.hit + verdict.hit
        lost = lost_usd(rule, could - verdict.hit, verdict.written)
        sums.lost = None if lost is None or sums.lost is None else sums.lost + lost
    return sums


def lost_usd(rule: Rule, missed: int, written: int) -> float | None:
    """What the misses of one request cost more than hits would have; those that are written once more cost that too."""
    paid = cost_usd(rule.provider, rule.model, TokenCounts(missed, 0, 0, min(written, missed)))
    hit = cost_usd(rule.provider, rule.model, TokenCounts(missed, 0, missed))
    return None if paid is None or hit is None else paid - hit


async def measure(report: Report, every: Sequence[ToolDefinition], turns: int, encode: Callable[[str], list[int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = ToolSearchEngine(cache_dir=folder)
        for trace in traces(every, turns):
            for rule in RULES:
                ours = judged(await planned(trace, rule), rule, encode)
                theirs = judged(await naive(trace, rule, engine), rule, encode)
                _add(report, trace, rule, ours, theirs)


def _add(report: Report, trace: Trace, rule: Rule, ours: Sums, theirs: Sums) -> None:
    name = f"{trace.name}_{rule.name}"
    report.add(f"{name}_hit", ours.rate, "%", trace.goal if ours.could else None, least=True)
    report.add(f"{name}_naive_hit", theirs.rate, "%")
    report.add(f"{name}_cached_of_all", 100 * ours.hit / max(ours.total, 1), "%")
    for label, sums in (("", ours), ("naive_", theirs)):
        if sums.lost is not None:
            report.add(f"{name}_{label}lost", 1000 * sums.lost / len(trace.texts), "$/1000")


def main() -> None:
    chosen = options(__doc__ or "")
    logging.disable(logging.WARNING)
    report = Report("cache")
    asyncio.run(measure(report, tools(), 8 if chosen.quick else TURNS, encoder()))
    if not chosen.json:
        print(f"simulated caches, real requests; prices: {price_source()}; rules:")
        print("\n".join(f"  {r.name}: {r.source} (read {r.date})" for r in RULES))
    report.print(chosen.json)


if __name__ == "__main__":
    main()
