"""The commands about plans: check a file, with a caret at every problem; show and list the bundled ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

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
from orchestrator.planner.fixes import repair
from orchestrator.planner.locate import read_text as parse_text
from orchestrator.planner.locate import render_problem
from orchestrator.planner.named import load_named, named_plans
from orchestrator.planner.templates import all_templates
from orchestrator.settings import load_settings

app = typer.Typer(help="Plans: check one before it runs, look at the bundled ones.", no_args_is_help=True)


@register(app, "check", examples="toolweaver plan check plan.json · toolweaver plan check plan.json --fix fixed.json")
def check(
    file: Annotated[Path, typer.Argument(help="A plan as JSON; - for stdin.")],
    inputs: Annotated[str | None, typer.Option(help="The inputs to check it with, as a JSON object or @file.")] = None,
    fix: Annotated[Path | None, typer.Option(help="Write the plan with its certain fixes made here; - for stdout.")] = None,
    as_json: AsJson = False,
) -> int:
    """Check a plan: every problem at once, each with its place, an example, and a fix where one is certain. Nothing runs."""
    text = read_text(file)
    given = read_object(inputs, option="--inputs") if inputs is not None else None
    tools = catalog()
    try:
        plan = parse_text(text)
        if fix is not None and isinstance(plan, dict):
            return _write_fixed(plan, partial(check_plan, catalog=tools, inputs=given), to=fix)
        checked = check_plan(plan, tools, inputs=given)
        _ask_platform(plan, given)
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


def _write_fixed(plan: dict[str, Any], check: Callable[[dict[str, Any]], object], *, to: Path) -> int:
    try:
        fixed = json.dumps(repair(plan, check), indent=2, ensure_ascii=False)
    except PlanError as error:
        for problem in error.problems:
            say(f"{problem['path']}: {problem['message']} {problem.get('next', '')}".rstrip())
        say("these have no certain fix; nothing was written")
        return BAD_REQUEST
    if str(to) == "-":
        print_line(fixed)
    else:
        to.write_text(fixed + "\n", encoding="utf-8")
        say(f"{to}: the plan with its fixes")
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


@register(app, "templates", examples="toolweaver plan templates")
def templates(as_json: AsJson = False) -> int:
    """List the plan templates: requests that are planned without a model. Yours lie in `templates` in the home folder."""
    shelf = all_templates(load_settings().home)
    for name, why in shelf.unreadable.items():
        say(f"{name}: not used: {why}")
    rows = [read.template for read in shelf.templates]
    if as_json:
        print_json([t.model_dump(mode="json", include={"name", "description", "examples", "sentences", "inputs"}) for t in rows])
    else:
        print_table(("template", "what it does", "for instance"), ((t.name, t.description, "; ".join(t.examples)) for t in rows))
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


def _ask_platform(plan: dict[str, Any], inputs: dict[str, Any] | None) -> None:
    """Asks the platform, when one is in use, whether the caller may use these tools too: only it knows."""
    settings = load_settings()
    if settings.url is None and running_platform(settings.home) is None:
        return
    try:
        with Client(settings=settings) as client:
            client.check(plan, inputs=inputs)
    except BackendError as error:
        say(f"{error.message}: permissions were not looked at")


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
