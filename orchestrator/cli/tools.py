"""The commands about tools: which there are, what one takes, one call of it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.follow import ending, watch_or_detach
from orchestrator.cli.inputs import read_object, read_pairs
from orchestrator.cli.output import DONE, AsJson, json_text, print_json, print_line, print_table, register, say
from orchestrator.cli.server_entries import visible
from orchestrator.client.client import Client
from orchestrator.client.outcome import outcome
from orchestrator.models.tool import ToolDefinition, ToolParameter

Name = Annotated[str, typer.Argument(help="The tool's name.")]

app = typer.Typer(help="The tools that plans may use.", no_args_is_help=True)


@register(app, "list")
def list_tools(as_json: AsJson = False) -> int:
    """List the tools, those of pools included that are not up now."""
    with Client() as client:
        found = client.tools()
    if as_json:
        print_json(found)
    else:
        print_table(("tool", "pool", "effect", "what it does"), ((t.name, t.pool, t.effect, _summary(t)) for t in found))
    return DONE


@register(app, "show")
def show(name: Name, as_json: AsJson = False) -> int:
    """Show what a tool takes and gives."""
    with Client() as client:
        tool = client.tool(name)
    if as_json:
        print_json(tool)
    else:
        _show(tool)
    return DONE


@register(app, "run", examples='toolweaver tools run compute_tax --input \'{"amount": 100, "tax_rate": 0.08}\'')
def run(
    name: Name,
    input: Annotated[str | None, typer.Option("--input", "-i", help="Its input as a JSON object, @file, or - for stdin.")] = None,
    argument: Annotated[
        list[str] | None, typer.Option("--arg", "-a", metavar="NAME=VALUE", help="One argument; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Run one tool and print its result."""
    given = {**read_object(input, option="--input"), **read_pairs(argument or (), option="--arg")}
    with Client() as client:
        job = client.submit_tool(name, given)
        status = watch_or_detach(job)
        details = job.details()
    if as_json:
        print_json(details)
        return ending(status)
    print_json(outcome(details))
    return DONE


def first_line(text: str) -> str:
    """The first line of a description; whoever wrote it steers no terminal."""
    return visible(text.strip().partition("\n")[0])


def _summary(tool: ToolDefinition) -> str:
    return ("deprecated: " if tool.deprecated is not None else "") + first_line(tool.description)


def _show(tool: ToolDefinition) -> None:
    print_line(f"{tool.name} ({tool.type}; pool {tool.pool}; effect {tool.effect}; at most {tool.timeout_s:g} s)")
    if tool.deprecated is not None:
        print_line(visible(f"deprecated: {tool.deprecated.strip() or 'not to be used any more'}"))
    if tool.aliases:
        print_line(visible(f"also called {', '.join(tool.aliases)}"))
    print_line(visible(tool.description.strip()) + "\n")
    print_table(("parameter", "type", "", "what it is"), (_row(p) for p in tool.parameters))
    for example in tool.examples:
        print_line(visible(f"\n{example.scenario}"))
        print_line(f"  toolweaver tools run {tool.name} --input '{json_text(example.input)}'")
    if not tool.parameters:
        say("it takes no input")


def _row(parameter: ToolParameter) -> tuple[str, str, str, str]:
    need = "required" if parameter.required else ("" if parameter.default is None else f"default {json_text(parameter.default)}")
    return visible(parameter.name), parameter.type, need, first_line(parameter.description)
