"""The commands about plans: check a file, with a caret at every problem; show and list the bundled ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.cli.inputs import read_object, read_text
from orchestrator.cli.output import BAD_REQUEST, DONE, AsJson, print_json, print_line, print_table, register, say
from orchestrator.client.client import Client
from orchestrator.errors import BackendError, PlanError
from orchestrator.models.plan import Plan
from orchestrator.models.platform import running_platform
from orchestrator.models.tool import ToolCatalog
from orchestrator.planner.check import check_plan
from orchestrator.planner.locate import read_text as parse_text
from orchestrator.planner.locate import render_problem
from orchestrator.planner.named import load_named, named_plans
from orchestrator.settings import load_settings

app = typer.Typer(help="Plans: check one before it runs, look at the bundled ones.", no_args_is_help=True)


@register(app, "check", examples="toolweaver plan check plan.json · toolweaver plan check - < plan.json")
def check(
    file: Annotated[Path, typer.Argument(help="A plan as JSON; - for stdin.")],
    inputs: Annotated[str | None, typer.Option(help="The inputs to check it with, as a JSON object or @file.")] = None,
    as_json: AsJson = False,
) -> int:
    """Check a plan: every problem at once, each with its place. Nothing runs."""
    text = read_text(file)
    given = read_object(inputs, option="--inputs") if inputs is not None else None
    try:
        checked = check_plan(parse_text(text), catalog(), inputs=given)
    except PlanError as error:
        _report(error, text, file, as_json=as_json)
        return BAD_REQUEST
    steps = checked.plan.steps
    if as_json:
        shown = checked.plan.model_dump(mode="json", exclude_defaults=True)
        print_json({"ok": True, "plan": shown, "warnings": list(checked.warnings)})
    else:
        for warning in checked.warnings:
            print_line(render_problem(text, str(file), warning))
        print_line(f"{file}: a good plan of {len(steps)} step{'s' if len(steps) != 1 else ''}")
    return DONE


@register(app, "show")
def show(name: Annotated[str, typer.Argument(help="The name of a bundled plan.")], as_json: AsJson = False) -> int:
    """Show a bundled plan; with --json, as a file to start from."""
    data = load_named(name)
    if as_json:
        print_json(data)
        return DONE
    plan = Plan.model_validate(data)
    print_line(f"{name}: {plan.description}")
    print_line(
        f"inputs: {', '.join(plan.inputs) or 'none'}; on_error: {plan.on_error}; output: {plan.output or 'the last steps'}\n"
    )
    print_table(("step", "tool", "once per item of", "input"), ((s.id, s.tool, s.map, json.dumps(s.input)) for s in plan.steps))
    return DONE


@register(app, "list")
def list_plans(as_json: AsJson = False) -> int:
    """List the bundled plans."""
    plans = {name: load_named(name) for name in named_plans()}
    if as_json:
        print_json([{"name": name, **plan} for name, plan in plans.items()])
    else:
        print_table(("plan", "inputs", "what it does"), (_row(name, Plan.model_validate(plan)) for name, plan in plans.items()))
    return DONE


def catalog() -> ToolCatalog:
    """The tools of the platform in use; the bundled ones when none runs."""
    settings = load_settings()
    if settings.url is None and running_platform(settings.home) is None:
        say("no platform runs: checked with the bundled tools")
        return bundled_catalog()
    try:
        with Client(settings=settings) as client:
            return ToolCatalog(source=client.url, tools=client.tools())
    except BackendError as error:
        say(f"{error.message}: checked with the bundled tools")
        return bundled_catalog()


def _report(error: PlanError, text: str, file: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": False, "problems": error.problems})
        return
    for problem in error.problems:
        print_line(render_problem(text, str(file), problem))
    count = len(error.problems)
    say(f"{count} problem{'s' if count != 1 else ''}; nothing of this plan would run")


def _row(name: str, plan: Plan) -> tuple[str, str, str]:
    return name, ", ".join(plan.inputs), plan.description
