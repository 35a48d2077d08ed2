"""The commands about MCP servers and OpenAPI documents: add, try, look, approve, remove. The servers file is what they change."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import server_look, server_states
from orchestrator.cli.output import DONE, JOB_FAILED, UNREACHABLE, AsJson, print_json, print_table, register, say, stderr, stdout
from orchestrator.cli.server_entries import check_entry, document_entry, entry_of, literals, read_foreign, shown, visible
from orchestrator.errors import Conflict, NotFound, RequestError, ToolWeaverError
from orchestrator.models.catalog import ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import load_settings
from orchestrator.tool_discovery.servers import OpenApiConfig, ServerConfig, ServersFile, change_servers, load_servers

Name = Annotated[str, typer.Argument(help="What its tools are named after: `NAME.tool`.")]
Known = Annotated[str, typer.Argument(metavar="NAME", help="A server or document of the file.")]
SECTIONS = {"mcp": "mcpServers", "openapi": "openapi"}

app = typer.Typer(help="MCP servers and OpenAPI documents, whose tools plans may use.", no_args_is_help=True)


@register(
    app,
    "add",
    examples="toolweaver mcp add time -- python -m mcp_server_time · "
    "toolweaver mcp add web --url https://tools.example.org/mcp --header 'Authorization=Bearer ${WEB_TOKEN}' · "
    "toolweaver mcp add shop --openapi shop.yaml",
)
def add(
    name: Name,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND ARGS...]", help="The program that is started and spoken to.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The address of a server that runs elsewhere (streamable HTTP).")] = None,
    openapi: Annotated[str | None, typer.Option(metavar="DOCUMENT", help="An OpenAPI document: a path or an address.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where that API is; default: what the document says.")] = None,
    private: Annotated[bool, typer.Option("--private", help="That API may have an address that is not public.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="A variable for the program; NAME alone passes on the one that is set."),
    ] = None,
    header: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header of every request.")] = None,
    defer: Annotated[bool, typer.Option("--defer", help="Leave its tools out of a model's first prompt.")] = False,
    tenant: Annotated[list[str] | None, typer.Option(help="Who sees its tools; may be repeated; default: everybody.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds that a call may take.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what has that name.")] = False,
    as_json: AsJson = False,
) -> int:
    """Add an MCP server (a command or an address) or an OpenAPI document. Write secrets as ${NAME}."""
    given: dict[str, Any] = {"headers": header or (), "tenants": tenant or (), "timeout_s": timeout}
    if openapi is None:
        _only_documents(base_url=base_url, private=private)
        section, entry = "mcp", entry_of(command=command or (), url=url, env=env or (), **given)
        check_entry(name, entry, ServerConfig)
    else:
        _no_server(command=command, url=url, env=env, defer=defer)
        section, entry = "openapi", document_entry(openapi, base_url=base_url, private=private, **given)
        check_entry(name, entry, OpenApiConfig)
    settings, began = load_settings(), time.time()
    changed = _put({name: entry}, settings.servers_path, section=section, defer=defer, force=force)[name] != "the same"
    say(f"{name} is {'written to' if changed else 'in'} {settings.servers_path}{'' if changed else ' already'}")
    _warn(entry)
    state = server_states.follow_change(settings, name, section=section, since=began if changed else 0.0)
    if as_json:
        print_json({"name": name, "file": str(settings.servers_path), "changed": changed, "entry": shown(entry), "state": state})
    return DONE


@register(
    app, "import", examples="toolweaver mcp import ~/.config/some-client/mcp.json · toolweaver mcp import mcp.json --only git"
)
def import_(
    file: Annotated[Path, typer.Argument(help="The file of another client, or - for stdin.")],
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this server; may be repeated.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what has the same name.")] = False,
    as_json: AsJson = False,
) -> int:
    """Take over the MCP servers that another client's file names; what cannot be read is left out and said."""
    settings, found = load_settings(), read_foreign(file)
    _check_named(only or (), found)
    good, bad = _sorted_out({n: e for n, e in found.items() if not only or n in only})
    done = _put(good, settings.servers_path, section="mcp", force=force, refuse=False) if good else {}
    if as_json:
        print_json({"file": str(settings.servers_path), "servers": done | bad})
    else:
        print_table(("server", "is"), (done | bad).items())
    for name in good:
        _warn(good[name], name=name)
    kept = [n for n, what in done.items() if what.startswith("kept")]
    if kept and not force:
        say(f"`--force` replaces {', '.join(kept)}")
    return JOB_FAILED if bad or kept else DONE


@register(app, "list")
def list_(as_json: AsJson = False) -> int:
    """List the servers and documents of the file, and how the running platform finds them."""
    settings = load_settings()
    file = _readable(load_servers(settings.servers_path))
    states = server_states.states(settings)
    rows = [_listed(file, name, (states or {}).get(name)) for name in dict.fromkeys((*_names(file), *(states or {})))]
    if as_json:
        print_json({"file": str(file.path), "problems": list(file.problems), "platform": states is not None, "servers": rows})
    else:
        print_table(
            ("server", "kind", "state", "tools", "held back", "protocol", "seen", "what"),
            ((r["name"], r["kind"], r["state"], *_figures(r["seen"]), r["note"]) for r in rows),
        )
    for problem in file.problems:
        say(f"{problem}")
    if not rows and not as_json:
        say(f"{file.path} names no server; `toolweaver mcp add NAME -- COMMAND` adds one")
    return DONE


@register(app, "test", examples="toolweaver mcp test time")
def try_(name: Known, as_json: AsJson = False) -> int:
    """Connect to a server here, list its tools and vet them. Exit code 1 when something was kept out, 3 when it is unreachable."""
    settings = load_settings()
    file = _readable(load_servers(settings.servers_path))
    _find(file, name)
    say(f"connecting to {name} ...")
    seen = server_look.look(file, name, settings=settings)
    if as_json:
        print_json(seen.to_json())
    elif seen.error is None:
        print_table(("tool", "effect", "", "what it does"), (*map(_row, seen.tools), *map(_held_row, seen.held)))
    if seen.error is not None:
        say(f"not reached: {visible(seen.error)}")
        return UNREACHABLE
    say(seen.headline())
    for line in seen.kept_out():
        say(f"  {visible(line)}")
    return JOB_FAILED if seen.held or seen.refused else DONE


@register(app, "show", examples="toolweaver mcp show time · toolweaver mcp show time get_current_time")
def show(
    name: Known,
    tool: Annotated[str | None, typer.Argument(help="One of its tools, by the name it has there.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show a server's entry and tools, or one tool as a model would read it, with everything invisible made visible."""
    settings = load_settings()
    file = _readable(load_servers(settings.servers_path))
    section = _find(file, name)
    if tool is not None:
        return _show_tool(server_look.one(file, name, tool, settings=settings), as_json=as_json)
    state = (server_states.states(settings) or {}).get(name)
    tools = server_states.known_tools(settings, name)
    entry = shown(_entry(file, name))
    if as_json:
        print_json({"name": name, "kind": section, "entry": entry, "state": state, "tools": tools})
        return DONE
    print_json(entry)
    say(server_states.in_words(state) if state else f"no platform says how it is; `toolweaver mcp test {name}` tries it")
    if tools:
        print_table(("tool", "effect", "", "what it does"), map(_row, tools))
    for held in state.quarantined if state else ():
        say(f"  quarantined: {visible(held.name)}: {visible('; '.join(held.reasons))}")
    return DONE


@register(app, "approve", examples="toolweaver mcp approve notes add_note")
def approve(
    name: Known,
    tools: Annotated[list[str] | None, typer.Argument(metavar="[TOOL...]", help="Tools, by the names they have there.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are quarantined now.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Let quarantined tools in, each in the version that is shown; a later change is held back again."""
    if bool(tools) == all_:
        raise RequestError("name the tools, or all of them", path="TOOL", next="`toolweaver mcp approve NAME TOOL...`, or --all.")
    settings, began = load_settings(), time.time()
    file = _readable(load_servers(settings.servers_path))
    section = _find(file, name)
    held = server_look.held(file, name, tools or (), settings=settings)
    if not held:
        say(f"nothing of {name} is quarantined")
        return DONE
    for one in held:
        server_look.explain(one, stderr())
    if not yes and not typer.confirm(f"Serve {'these' if len(held) > 1 else 'this'} {len(held)} of {name}?", err=True):
        say("nothing was approved")
        return DONE
    change_servers(settings.servers_path, lambda data: _pin(data, section, name, {h.native: h.version for h in held}))
    state = server_states.follow_change(settings, name, section=section, since=began)
    if as_json:
        print_json({"name": name, "approved": {h.native: h.version for h in held}, "state": state})
    else:
        say(f"approved: {', '.join(f'{h.native} ({h.version})' for h in held)}")
    return DONE


@register(app, "remove", examples="toolweaver mcp remove time")
def remove(name: Known, as_json: AsJson = False) -> int:
    """Take a server or document out of the file; a running platform withdraws its tools within a second."""
    path = load_settings().servers_path
    file = _readable(load_servers(path))
    removed: list[str] = []
    change_servers(path, lambda data: removed.extend(_drop(data, name)))
    if not removed:
        raise _unknown(file, name)
    if as_json:
        print_json({"name": name, "removed": True, "file": str(path)})
    else:
        say(f"{name} is removed from {path}")
    return DONE


def _only_documents(*, base_url: str | None, private: bool) -> None:
    for option, given in (("--base-url", base_url), ("--private", private)):
        if given:
            raise RequestError("this is for OpenAPI documents", path=option, next="Give the document with --openapi DOCUMENT.")


def _no_server(**given: Any) -> None:
    for name, value in given.items():
        if value:
            option = "COMMAND" if name == "command" else f"--{name}"
            raise RequestError(
                "this does not go with --openapi", path=option, next="Leave it out, or add a server of another name."
            )


def _section(data: Mapping[str, Any], section: str) -> str:
    """The key of the file under which entries stand; some clients say `servers`."""
    if section == "mcp" and "mcpServers" not in data and "servers" in data:
        return "servers"
    return SECTIONS[section]


def _put(
    entries: Mapping[str, Mapping[str, Any]],
    path: Path,
    *,
    section: str,
    defer: bool = False,
    force: bool = False,
    refuse: bool = True,
) -> dict[str, str]:
    """Writes entries into the file; what became of each, in words.

    Raises:
        Conflict: something else has the name, and `refuse` says that nothing is to be written then.
    """
    done: dict[str, str] = {}

    def change(data: dict[str, Any]) -> None:
        for name, entry in entries.items():
            there = {s: data.get(_section(data, s), {}).get(name) for s in SECTIONS}
            same = there[section] == entry and (not defer or _deferred(data, name))
            if not same and any(t is not None for t in there.values()) and not force:
                if refuse:
                    raise Conflict(
                        f"there is another `{name}` in {path}", path="NAME", next=f"`toolweaver mcp remove {name}`, or --force."
                    )
                done[name] = "kept as it was: there is another one"
                continue
            done[name] = "the same" if same else "added" if there[section] is None else "replaced"
            if not same:
                _drop(data, name)
                data.setdefault(_section(data, section), {})[name] = dict(entry)
            if defer and not same:
                toolset = {"type": "mcp_toolset", "mcp_server_name": name, "default_config": {"defer_loading": True}}
                data.setdefault("toolsets", []).append(toolset)

    change_servers(path, change)
    return done


def _deferred(data: Mapping[str, Any], name: str) -> bool:
    sets = [t for t in data.get("toolsets", ()) if isinstance(t, dict) and t.get("mcp_server_name") == name]
    return any(t.get("default_config", {}).get("defer_loading") for t in sets)


def _drop(data: dict[str, Any], name: str) -> list[str]:
    """Takes a name out of every section; the sections it was in."""
    found = [key for key in ("mcpServers", "servers", "openapi") if isinstance(data.get(key), dict) and name in data[key]]
    for key in found:
        del data[key][name]
    if isinstance(data.get("toolsets"), list):
        data["toolsets"] = [t for t in data["toolsets"] if not (isinstance(t, dict) and t.get("mcp_server_name") == name)]
    return found


def _pin(data: dict[str, Any], section: str, name: str, versions: Mapping[str, str]) -> None:
    entry = data[_section(data, section)][name]
    entry["approved"] = {**entry.get("approved", {}), **versions}


def _sorted_out(entries: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The entries that can be read, and why each other one cannot."""
    good: dict[str, dict[str, Any]] = {}
    bad: dict[str, str] = {}
    for name, entry in entries.items():
        try:
            check_entry(name, entry if isinstance(entry, dict) else {"entry": entry}, ServerConfig)
            good[name] = entry
        except ToolWeaverError as error:
            bad[name] = "left out: " + "; ".join(f"{p['path']}: {p['message']}" for p in error.problems)
    return good, bad


def _check_named(names: Sequence[str], found: Mapping[str, Any]) -> None:
    for name in names:
        if name not in found:
            raise NotFound(f"the file names no server `{name}`", path="--only", next=f"It names {', '.join(found) or 'none'}.")


def _warn(entry: Mapping[str, Any], *, name: str = "") -> None:
    """What is worth a word about an entry that was written: secrets in it, a program that is not here."""
    for literal in literals(entry):
        say(f"warning: {f'{name}: ' if name else ''}{literal}")
    command = entry.get("command")
    if isinstance(command, str) and "${" not in command and shutil.which(command) is None:
        say(f"warning: {f'{name}: ' if name else ''}`{command}` is not on the PATH here")


def _readable(file: ServersFile) -> ServersFile:
    """The file, unless it is none.

    Raises:
        RequestError: it cannot be read at all.
    """
    for problem in file.problems:
        if problem.path == str(file.path):
            raise RequestError(problem.message, next=problem.next)
    return file


def _names(file: ServersFile) -> list[str]:
    return [*file.servers, *file.openapi]


def _find(file: ServersFile, name: str) -> str:
    """The section in which a name stands.

    Raises:
        NotFound: in none; what is wrong with an entry that cannot be read is said.
    """
    if name in file.servers:
        return "mcp"
    if name in file.openapi:
        return "openapi"
    raise _unknown(file, name)


def _unknown(file: ServersFile, name: str) -> ToolWeaverError:
    about = [p for p in file.problems if f".{name}" in p.path]
    if about:
        problems = [{"path": p.path, "message": p.message, "next": p.next} for p in about]
        return RequestError(f"the entry of `{name}` in {file.path} cannot be read", problems=problems, next="Mend it there.")
    near = get_close_matches(name, _names(file), n=1)
    move = f"Did you mean `{near[0]}`?" if near else "`toolweaver mcp list` shows those that there are."
    return NotFound(f"there is no server `{name}` in {file.path}", path="NAME", next=move)


def _entry(file: ServersFile, name: str) -> dict[str, Any]:
    config: ServerConfig | OpenApiConfig = file.servers.get(name) or file.openapi[name]
    return config.model_dump(mode="json", exclude_defaults=True, exclude={"name"})


def _listed(file: ServersFile, name: str, state: ServerState | None) -> dict[str, Any]:
    """A server as the list shows it: what the file says, and what the platform saw."""
    config = file.servers.get(name) or file.openapi.get(name)
    if config is None:
        return {
            "name": name,
            "kind": state.kind if state else "",
            "state": "not in the file",
            "seen": state,
            "note": "of another file",
        }
    kind = config.kind if isinstance(config, ServerConfig) else "openapi"
    standing = "disabled" if config.disabled else state.state if state else "not seen"
    note = state.error if state and state.error else _what(shown(_entry(file, name)))
    return {"name": name, "kind": kind, "state": standing, "seen": state, "note": visible(note)}


def _what(entry: Mapping[str, Any]) -> str:
    return str(entry.get("url") or entry.get("document") or " ".join((entry["command"], *entry.get("args", ()))))


def _figures(state: ServerState | None) -> tuple[str, ...]:
    if state is None:
        return ("", "", "", "")
    held = len(state.quarantined) + len(state.refused)
    return str(state.tools), str(held or ""), state.protocol or "", f"{server_states.age(state.at)} ago"


def _row(tool: ToolDefinition) -> tuple[str, str, str, str]:
    return visible(tool.native_name or tool.name), tool.effect, "deferred" if tool.defer_loading else "", _first(tool.description)


def _held_row(held: server_look.Held) -> tuple[str, str, str, str]:
    return visible(held.native), held.tool.effect, "quarantined", _first(held.tool.description)


def _first(text: str) -> str:
    return visible(text.strip().partition("\n")[0])[:160]


def _show_tool(found: server_look.Held, *, as_json: bool) -> int:
    if as_json:
        print_json({"tool": found.tool, "version": found.version, "quarantined": list(found.reasons)})
        return DONE
    server_look.explain(found, stdout())
    return DONE
