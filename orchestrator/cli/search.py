"""The commands about search over tools: find, explain, measure on one's own queries, tell what was used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from orchestrator.cli.output import DONE, AsJson, plain, print_json, print_line, print_table, register, say
from orchestrator.cli.server_entries import visible
from orchestrator.client.client import Client
from orchestrator.errors import BackendError, RequestError, from_problem
from orchestrator.models.lab import LabReport, ordinal
from orchestrator.models.search import MOST_HITS, Filters, SearchAnswer, SearchHit, SearchRequest

LAB = "orchestrator.tool_search.lab"
Query = Annotated[str, typer.Argument(help="What is to be done, in words.")]
Many = Annotated[int, typer.Option("-k", min=1, max=MOST_HITS, help="How many tools at most.")]
Tag = Annotated[list[str] | None, typer.Option(help="Only tools with this tag; may be repeated.")]
Server = Annotated[list[str] | None, typer.Option(help="Only tools of this server; may be repeated.")]

app = typer.Typer(help="Search over the tools: find, explain, measure, teach.", no_args_is_help=True)


@register(app, "find", examples='toolweaver search find "read a receipt" -k 5')
def find(query: Query, k: Many = 10, tag: Tag = None, server: Server = None, as_json: AsJson = False) -> int:
    """Find the tools that fit a query best."""
    filters = Filters(tags=tuple(tag or ()), servers=tuple(server or ()))
    with Client() as client:
        found = client.search_tools(_request(query, k=k, filters=filters))
    if as_json:
        print_json(found)
        return DONE
    print_table(("tool", "score", "tokens", "why"), ((h.name, f"{h.score:.2f}", h.tokens, visible(h.reason)) for h in found.hits))
    _beside(found)
    return DONE


@register(
    app,
    "explain",
    examples='toolweaver search explain "read a receipt" · toolweaver search explain "read a receipt" --tool git.log',
)
def explain(
    query: Query,
    k: Many = 10,
    tool: Annotated[str | None, typer.Option(help="Why not this one.")] = None,
    as_json: AsJson = False,
) -> int:
    """Explain a search: what words, meaning and confirmed use say of each tool, and its place in each."""
    with Client() as client:
        found = client.search_tools(_request(query, k=MOST_HITS, explain=True, detail="names"))
        asked = _why_not(client, query, tool, found) if tool is not None else None
    shown = [_explained(h, found) for h in found.hits[:k]]
    if as_json:
        print_json({"query": query, "hits": shown, "tool": asked, **_context(found)})
        return DONE
    print_table(("", "tool", "score", "words", "meaning", "learned", "why"), (_row(n, e) for n, e in enumerate(shown, 1)))
    if asked is not None:
        print_line(f"\n{asked['name']}: {visible(asked['said'])}")
    _beside(found)
    return DONE


@register(
    app,
    "lab",
    examples="toolweaver search lab --queries queries.csv · toolweaver search lab --queries queries.jsonl --catalog tools.json",
)
def lab(
    queries: Annotated[Path, typer.Option(help="Queries and the names of their right tools: CSV, JSON or JSON lines.")],
    catalog: Annotated[Path | None, typer.Option(help="A file of tools; default: those of the running platform.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many tools a planner is given.")] = 10,
    misses: Annotated[int, typer.Option(min=0, help="How many misses to print.")] = 20,
    model: Annotated[str | None, typer.Option(help="Another embedding model (extra `sentence-transformers`).")] = None,
    as_json: AsJson = False,
) -> int:
    """Measure search on your own queries: what is found, what is missed and why, and whether another weight would help."""
    words = ["--queries", str(queries), "-k", str(k), "--misses", str(misses), *(("--model", model) if model else ())]
    report = _lab([*words, "--catalog", str(catalog)], None) if catalog else _lab([*words, "--catalog", "-"], _tools())
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    return DONE


@register(
    app,
    "feedback",
    examples='toolweaver search feedback "read a receipt" --used receipt_ocr · toolweaver search feedback --undo ID',
)
def feedback(
    query: Annotated[str | None, typer.Argument(help="The request that was made.")] = None,
    used: Annotated[list[str] | None, typer.Option(help="A tool that was used for it; may be repeated.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="It was the wrong one.")] = False,
    undo: Annotated[str | None, typer.Option(metavar="ID", help="Take back what was told under this id.")] = None,
    as_json: AsJson = False,
) -> int:
    """Tell which tools served a request, so that similar ones find them; or take it back; or, with nothing, list what was told."""
    with Client() as client:
        told: Any
        if undo is not None:
            _alone(query, used)
            told = client.untell_use(undo)
            said = "taken back"
        elif query is None and not used:
            told, said = client.told_uses(), ""
        elif query is None or not used:
            raise RequestError("a query and its tools belong together", next='`toolweaver search feedback "QUERY" --used TOOL`.')
        else:
            told, said = client.tell_use(query, used, ok=not wrong), "noted"
    if as_json:
        print_json(told)
    elif said:
        print_line(told.id)
        say(f'{said}: "{visible(told.query)}" {"->" if told.ok else "not"} {", ".join(told.used)}')
    else:
        rows = ((e.id, visible(e.query), ("" if e.ok else "not ") + ", ".join(e.used)) for e in told.entries)
        print_table(("id", "request", "tools"), rows)
    return DONE


def _request(query: str, **more: Any) -> SearchRequest:
    try:
        return SearchRequest(queries=(query,), **more)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(p) for p in first["loc"])
        raise RequestError(first["msg"], path=path, next="`toolweaver search find --help` says what fits.") from None


def _alone(query: str | None, used: Sequence[str] | None) -> None:
    if query is not None or used:
        raise RequestError("`--undo` stands alone", path="--undo", next="`toolweaver search feedback --undo ID`.")


def _beside(found: SearchAnswer) -> None:
    saved = 100 * (1 - found.tokens / found.tokens_all) if found.tokens_all else 0.0
    say(f"{found.size:,} tools -> {len(found.hits)} ({found.tokens:,} of {found.tokens_all:,} tokens, {saved:.1f} % saved)")
    for line in (*found.notes, *(f"degraded: {d}" for d in found.degraded)):
        say(line)
    if found.backlog:
        say(f"{found.backlog:,} tools are found by words only yet: the encoder is at them")


def _context(found: SearchAnswer) -> dict[str, Any]:
    return found.model_dump(mode="json", exclude={"hits", "cached", "replica"})


def _explained(hit: SearchHit, found: SearchAnswer) -> dict[str, Any]:
    parts = hit.parts
    return {
        "name": hit.name,
        "score": hit.score,
        "rank": 1 + next(n for n, h in enumerate(found.hits) if h.name == hit.name),
        "lexical": parts.lexical if parts else None,
        "rank_by_words": _place(found, hit, lambda h: h.parts.lexical if h.parts and h.parts.lexical > 0 else None),
        "cosine": parts.cosine if parts else None,
        "rank_by_meaning": _place(found, hit, lambda h: h.parts.cosine if h.parts else None),
        "learned": parts.learned if parts else 0.0,
        "terms": list(parts.terms) if parts else [],
        "reason": hit.reason,
    }


def _place(found: SearchAnswer, hit: SearchHit, value: Callable[[SearchHit], float | None]) -> int | None:
    """The place by one half, among the tools that either half brought up."""
    mine = value(hit)
    if mine is None:
        return None
    return 1 + sum(other > mine for h in found.hits if (other := value(h)) is not None)


def _row(number: int, e: dict[str, Any]) -> tuple[object, ...]:
    words = "-" if e["rank_by_words"] is None else f"{e['lexical']:.2f} ({ordinal(e['rank_by_words'])})"
    meaning = "-" if e["rank_by_meaning"] is None else f"{e['cosine']:.2f} ({ordinal(e['rank_by_meaning'])})"
    learned = f"{e['learned']:+.2f}" if e["learned"] else ""
    return number, e["name"], f"{e['score']:.2f}", words, meaning, learned, visible(e["reason"])


def _why_not(client: Client, query: str, name: str, found: SearchAnswer) -> dict[str, Any]:
    """What is to be told of one tool: its place and both halves, or what hides it."""
    tool = client.tool(name)  # raises NotFound with the nearest name
    ranked = {h.name: h for h in found.hits}
    if tool.name in ranked:
        told = _explained(ranked[tool.name], found)
        first = found.hits[0].name
        over = f", below `{first}`" if told["rank"] > 1 else ""
        return {**told, "said": f"{ordinal(told['rank'])} of {found.size:,}{over}; {_halves(told)}"}
    only = Filters(names=(tool.name,), deprecated=True)
    always = (tool.name,)  # also when it has nothing in common with the query
    alone = client.search_tools(_request(query, k=1, explain=True, detail="names", filters=only, priority=always))
    if not alone.hits:
        return {"name": tool.name, "said": "your permissions hide it, or the index does not know it yet"}
    told = {**_explained(alone.hits[0], alone), "rank": None, "rank_by_words": None, "rank_by_meaning": None}
    if tool.deprecated is not None:
        why = tool.deprecated.strip() or "not to be used any more"
        return {**told, "said": f"deprecated, so it is not offered: {why}"}
    return {**told, "said": f"beyond the first {len(found.hits):,} that either half brought up; {_halves(told)}"}


def _halves(told: dict[str, Any]) -> str:
    words = f"shares {', '.join(told['terms'])}" if told["terms"] else "shares no word with the query"
    if told["rank_by_words"] is not None:
        words += f" ({ordinal(told['rank_by_words'])} by words)"
    if told["cosine"] is None:
        return f"{words}; no vector"
    place = f" ({ordinal(told['rank_by_meaning'])})" if told["rank_by_meaning"] is not None else ""
    return f"{words}; meaning {told['cosine']:.2f}{place}"


def _tools() -> str:
    with Client() as client:
        return json.dumps(plain(client.tools()))


def _lab(words: list[str], stdin: str | None) -> LabReport:
    """Runs the lab as a process: this one has none of its packages.

    Raises:
        ToolWeaverError: what the lab says is wrong.
    """
    command = [sys.executable, "-m", LAB, *words]
    ended = subprocess.run(command, input=stdin if stdin is not None else "", stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        told = json.loads(ended.stdout)
    except ValueError:
        raise BackendError(f"the lab ended with exit code {ended.returncode}; what it said stands above") from None
    if ended.returncode:
        raise from_problem(told)
    return LabReport.model_validate(told)


def _print_report(report: LabReport) -> None:
    print_line(f"{report.used} of {report.queries} queries judged on {report.tools:,} tools, first {report.k}")
    ks = sorted(report.ways[0].recall)
    heads = ("ranked by", f"NDCG@{report.k}", "MRR", *(f"recall@{k}" for k in ks))
    print_table(heads, ((w.name, *(f"{v:.3f}" for v in (w.ndcg, w.mrr, *(w.recall[k] for k in ks)))) for w in report.ways))
    t = report.tokens
    print_line(f"\ntokens: {t.all:,} of all tools, {t.chosen:,.0f} of the first {report.k}: {100 * t.saved:.1f} % saved")
    _print_fit(report)
    _print_misses(report)
    for line in report.degraded:
        say(f"degraded: {line}")


def _print_fit(report: LabReport) -> None:
    fit = report.fit
    print_line(f"weight of the words: {fit.weight:g} (now {fit.default:g}); {fit.said}")
    if fit.low or fit.high:
        print_line(
            f"  NDCG@{report.k} {fit.difference:+.3f} on {fit.reported_on} queries beside the {fit.fitted_on} it was fitted on"
            f" (95 % {fit.low:+.3f} to {fit.high:+.3f})"
        )
    if fit.setting:
        print_line(f"  set {fit.setting}")


def _print_misses(report: LabReport) -> None:
    if not report.missed:
        print_line("nothing was missed")
        return
    print_line(f"\n{report.missed} of {report.asked} right tools missed" + (":" if report.misses else ""))
    for miss in report.misses:
        print_line(visible(f"  line {miss.line}: {miss.tool}: {miss.reason}"))
        print_line(visible(f'    "{miss.query[:100]}"{"  " + miss.next if miss.next else ""}'))
    if report.missed > len(report.misses):
        say(f"{report.missed - len(report.misses)} more: --misses {report.missed}")
