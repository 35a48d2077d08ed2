"""What a person sees of a request in words: its plan before it runs, who made it, and what it cost."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from orchestrator.cli.output import DONE, JOB_FAILED, print_json, print_line, print_table, say, stderr
from orchestrator.client.handle import PLANNED, JobHandle, has_plan
from orchestrator.models.job import JobView, Planning
from orchestrator.models.plan import Plan, parse_reference
from orchestrator.models.usage import Usage

_WIDEST = 80  # characters of a step's input


def await_plan(job: JobHandle) -> Plan:
    """The plan of a request, once it is there; meanwhile says what it waits for.

    Raises:
        JobFailed: no plan came.
    """
    try:
        while not has_plan(view := job.view()):
            for event in job.events(view.cursor):
                if event.type == "job.waiting":
                    say(f"waiting: {event.data.get('reason')}")
                if event.type == PLANNED or event.final:
                    break
    except KeyboardInterrupt:
        say(f"detached; {job.id} goes on. Come back with `toolweaver status {job.id} --follow`.")
        raise
    return job.plan()


def confirmed(job: JobHandle, *, inputs: dict[str, Any], as_json: bool) -> int | None:
    """Shows the plan of a request and asks whether it shall run: None when it does, else the exit code.

    Without a terminal nobody is asked; the plan is printed with the command that confirms it.
    """
    plan = await_plan(job)
    if as_json:
        shown = plan.model_dump(mode="json", exclude_defaults=True)
        print_json({"id": job.id, "plan": shown, "next": f"toolweaver confirm {job.id}"})
        return DONE
    show_plan(plan, job.view(), inputs=inputs)
    if not _on_terminal():
        say(f"next     toolweaver confirm {job.id} --wait, or toolweaver cancel {job.id}")
        return DONE
    try:
        agreed = typer.confirm("Run this plan?", default=False, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        say(f"{job.id} waits on: toolweaver confirm {job.id}, or toolweaver cancel {job.id}")
        raise KeyboardInterrupt from None
    if agreed:
        job.confirm()
        return None
    job.cancel()
    say(f"{job.id} cancelled; nothing ran")
    return JOB_FAILED


def show_plan(plan: Plan, view: JobView, *, inputs: dict[str, Any]) -> None:
    """A plan for a person: its steps with their tools, inputs and how many calls they will make, and who made it."""
    given = {**plan.inputs, **inputs}
    print_line(f"{view.id} plan of {_count(len(plan.steps), 'step')}" + (f": {plan.description}" if plan.description else ""))
    print_table(
        ("step", "tool", "calls", "when", "input"),
        ((s.id, s.tool, calls(s.map, given), s.when.ref if s.when else "", _short(s.input)) for s in plan.steps),
    )
    if plan.output:
        print_line(f"output   {plan.output}")
    for line in told_lines(view):
        print_line(line)


def calls(over: str | None, inputs: dict[str, Any]) -> str:
    """How many calls a step will make, as far as that is known: of a map over a list in the inputs it is."""
    reference = parse_reference(over)
    if reference is None:
        return "1"
    value: Any = inputs.get(reference.name) if reference.kind == "input" else None
    for part in reference.path:
        value = value.get(part) if isinstance(value, dict) else None
    return str(len(value)) if isinstance(value, list) else f"one per item of {over}"


def told_lines(view: JobView) -> list[str]:
    """Of a request: what was asked, why nothing moves, who planned it, what it cost."""
    lines = [f"request  {' '.join(view.request.split())}"] if view.request else []
    lines += waiting_lines(view)
    if view.planned:
        lines.append(f"planned  {planned_words(view.planned)}")
    if view.usage and view.usage.calls:
        lines.append(f"usage    {usage_words(view.usage)}")
    return lines


def waiting_lines(view: JobView) -> list[str]:
    """Why nothing moves, with the command that a plan waits for."""
    if not view.waiting:
        return []
    return [f"waiting  {view.waiting}" + (f": `toolweaver confirm {view.id}`" if view.status == "waiting" else "")]


def planned_words(made: Planning) -> str:
    """How a plan was made."""
    parts = [f"by {made.model or 'a model'}" if made.source == "model" else f"by the template {made.template}"]
    if made.number > 1:
        parts.append(f"plan {made.number}, after steps of the one before failed")
    if made.repairs:
        parts.append(f"mended {_count(made.repairs, 'time')}")
    if made.of:
        parts.append(f"{made.shown} of {_count(made.of, 'tool')} shown")
    return "; ".join([*parts, *(f"without {what}" for what in made.degraded), *made.notes])


def usage_words(usage: Usage) -> str:
    """What calls of models came to: `2 calls, 3,210 tokens in (1,024 cached), 412 out, $0.0123`."""
    failed = f" ({usage.failed} failed)" if usage.failed else ""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    cost = "" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}"
    unpriced = f", {_count(usage.unpriced_calls, 'call')} without a known price" if usage.unpriced_calls else ""
    tokens = f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"
    return f"{_count(usage.calls, 'call')}{failed}, {tokens}{cost}{unpriced}"


def _on_terminal() -> bool:
    return sys.stdin.isatty() and stderr().is_terminal


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
