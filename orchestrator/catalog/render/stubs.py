"""Tools as Python modules that a program imports: a typed async function each, made from the catalog.

Descriptions, names and defaults come from strangers. Every word of them is written as a literal, so that importing a stub
defines one function and does nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any

from orchestrator.catalog.render.hints import hint, literal
from orchestrator.catalog.render.names import NamedTool, identifier, name_tools
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolExample, ToolParameter

HEADER = "# AUTO-GENERATED - DO NOT EDIT"
_MAX_TEXT = 2000
_MAX_VALUE = 300
_MAX_FIELDS = 12
_WORD = re.compile(r"\w+")
_TYPE_WORDS = "from typing import Any, Literal"

BRIDGE = f"""{HEADER}
{_TYPE_WORDS}

class ToolError(Exception):
    code: str

async def call_tool(server: str, tool_name: str, parameters: dict[str, Any] | None = ..., timeout: float | None = ...) -> Any: ...
"""
"""What type checkers see of the module that the sandbox gives to stubs."""


class StubGenerator:
    """The stubs of a catalog's tools; those that programs may not call have none."""

    def __init__(self, catalog: ToolCatalog | Iterable[ToolDefinition]) -> None:
        tools = catalog.tools if isinstance(catalog, ToolCatalog) else catalog
        self.tools = name_tools(t for t in tools if t.callable_by_code)

    def names(self) -> dict[str, str]:
        """The module of each function by its name, `{"get_expenses": "tools.finance"}`."""
        return {t.name: t.module for t in self.tools}

    def mentioned(self, program: str) -> StubGenerator:
        """The stubs of those tools that a program's words may mean, under the same names as here."""
        words = set(_WORD.findall(program))
        found = copy(self)
        found.tools = tuple(t for t in self.tools if {t.name, t.alias} & words or words.issuperset(_WORD.findall(t.tool.name)))
        return found

    def modules(self) -> dict[str, str]:
        """The source of each module by its path: `tools/__init__.py`, `tools/finance/get_expenses.py`."""
        domains: dict[str, list[NamedTool]] = {}
        for tool in self.tools:
            domains.setdefault(tool.domain, []).append(tool)
        sources = {"tools/__init__.py": _root(domains)}
        for domain, tools in sorted(domains.items()):
            sources[f"tools/{domain}/__init__.py"] = _package(domain, tools)
            sources |= {f"tools/{domain}/{t.stem}.py": stub(t) for t in tools}
        return sources

    def write(self, folder: str | Path = "stubs") -> Path:
        """Writes `tools/...` beneath the folder, with what a type checker needs. Stubs of tools that are gone are removed.

        Returns:
            the folder, to be put on the path of an editor or a type checker.
        """
        base = Path(folder)
        files = {**self.modules(), "tools/py.typed": "", "toolweaver_bridge.pyi": BRIDGE}
        for old in base.glob("tools/**/*.py"):
            if old.relative_to(base).as_posix() not in files and old.read_text("utf-8").startswith(HEADER):
                old.unlink()
        for name, source in files.items():
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, "utf-8")
        return base


def stub(named: NamedTool) -> str:
    """The module of one tool."""
    tool = named.tool
    given = [name for name, _ in named.parameters]
    parts = [_parameter(name, p, tool) for name, p in named.parameters]
    returns = hint(tool.output_schema, _definitions(tool)) if tool.output_schema else "Any"
    lines = [
        HEADER,
        "from __future__ import annotations",
        "",
        _TYPE_WORDS,
        "",
        "from toolweaver_bridge import call_tool",
        "",
        "",
        f"async def {named.name}({', '.join(parts)}) -> {returns}:",
        _docstring(_text(named)),
        *_body(named, returns, local=identifier("parameters", taken=given), result=identifier("result", taken=given)),
    ]
    return "\n".join(lines) + "\n"


def _body(named: NamedTool, returns: str, *, local: str, result: str) -> list[str]:
    required = {p.name: name for name, p in named.parameters if p.required}
    items = ", ".join(f"{literal(key)}: {name}" for key, name in required.items())
    hides_types = not {"dict", "str", "list", "int", "float", "bool"}.isdisjoint(name for name, _ in named.parameters)
    lines = [f"    {local}{'' if hides_types else ': dict[str, Any]'} = {{{items}}}"]
    for name, p in named.parameters:
        if not p.required:  # left out when not given: the tool's own default holds
            lines += [f"    if {name} {_is_given(p)}:", f"        {local}[{literal(p.name)}] = {name}"]
    call = f"await call_tool(server={literal(named.tool.domain)}, tool_name={literal(named.tool.name)}, parameters={local})"
    if returns == "Any":
        return [*lines, f"    return {call}"]
    return [*lines, f"    {result}{'' if hides_types else f': {returns}'} = {call}", f"    return {result}"]


def _is_given(p: ToolParameter) -> str:
    return "is not None" if _default(p) is None else f"!= {literal(p.default)}"


def _parameter(name: str, p: ToolParameter, tool: ToolDefinition) -> str:
    kind = hint(p.to_schema(), _definitions(tool))
    if p.required:
        return f"{name}: {kind}"
    default = _default(p)
    if default is None:
        kind = kind if kind == "Any" or kind.endswith("None") else f"{kind} | None"
    elif not _fits(default, kind):
        kind = "Any"
    return f"{name}: {kind} = {literal(default)}"


def _default(p: ToolParameter) -> Any:
    """The default that the signature shows: a short scalar, else None."""
    value = p.default
    if isinstance(value, str):
        return value if len(value) <= _MAX_VALUE else None
    plain = isinstance(value, bool | int | float) and math.isfinite(value) and abs(value) < 1 << 63
    return value if plain else None


def _fits(default: Any, kind: str) -> bool:
    if kind.startswith("Literal["):
        return literal(default) in kind
    return type(default).__name__ in kind or (isinstance(default, int) and "float" in kind)


def _definitions(tool: ToolDefinition) -> dict[str, Any]:
    own = (tool.output_schema or {}).get("$defs")
    return {**(own if isinstance(own, dict) else {}), **(tool.definitions or {})}


def _text(named: NamedTool) -> str:
    """Description, arguments and examples, for a reader."""
    parts = [_clip(named.tool.description) or f"The tool {named.tool.name}."]
    if named.parameters:
        parts.append("Args:\n" + "\n".join(f"    {_argument(name, p)}" for name, p in named.parameters))
    if returned := _fields(named.tool):
        parts.append("Returns:\n" + "\n".join(f"    {line}" for line in returned))
    if named.tool.examples:
        parts.append("Examples:\n" + "\n".join(_example(named, e) for e in named.tool.examples))
    return "\n\n".join(parts)


def _fields(tool: ToolDefinition) -> list[str]:
    """The fields of a result that is an object, since its type says no more than `dict`."""
    schema = tool.output_schema or {}
    fields = schema.get("properties")
    if not isinstance(fields, dict):
        return []
    definitions = _definitions(tool)
    shown = [(name, s) for name, s in fields.items() if isinstance(s, dict)]
    lines = [
        " ".join(
            f"{literal(str(name))}: {hint(s, definitions)}. {_clip(str(s.get('description') or ''), _MAX_VALUE)}".split()
        ).rstrip(". ")
        for name, s in shown[:_MAX_FIELDS]
    ]
    return lines + (["..."] if len(shown) > _MAX_FIELDS else [])


def _argument(name: str, p: ToolParameter) -> str:
    default = "" if p.required or p.default is None else f" Default {_shown(p.default)}."
    return f"{name}: {' '.join(_clip(p.description).split())}{default}".replace(":  ", ": ").rstrip(": ")


def _example(named: NamedTool, example: ToolExample) -> str:
    names = {p.name: name for name, p in named.parameters}
    given = ", ".join(f"{names.get(key, key)}={_shown(value)}" for key, value in example.input.items())
    lines = [f"    # {_clip(example.scenario, _MAX_VALUE)}", f"    >>> await {named.name}({_clip(given)})"]
    if example.output is not None:
        lines.append(f"    {_shown(example.output)}")
    return "\n".join(lines)


def _docstring(text: str) -> str:
    """The text as a docstring that ends where we end it, whatever it holds."""
    shown = "".join(c if c.isprintable() or c == "\n" else " " for c in "\n".join(text.splitlines()))
    safe = shown.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if "\n" in safe:
        safe += "\n"
    elif safe.endswith('"'):
        safe = f'{safe[:-1]}\\"'
    return "\n".join(f"    {line}".rstrip() for line in f'"""{safe}"""'.split("\n"))


def _shown(value: Any) -> str:
    try:
        return _clip(literal(value), _MAX_VALUE)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists without end
        return "..."


def _clip(text: str, most: int = _MAX_TEXT) -> str:
    return text.strip() if len(text) <= most else f"{text[:most].strip()}..."


def _package(domain: str, tools: list[NamedTool]) -> str:
    """A domain's package. It imports its modules at once: a module imported later would hide the function of the same name."""
    seen = [(t.stem, t.name, shown) for t in tools for shown in (t.name, t.alias) if shown]
    lines = [
        HEADER,
        *(f"from tools.{domain}.{stem} import {name} as {shown}" for stem, name, shown in seen),
        "",
        f"__all__ = [{', '.join(literal(shown) for _, _, shown in seen)}]",
    ]
    return "\n".join(lines) + "\n"


def _root(domains: dict[str, list[NamedTool]]) -> str:
    """The package `tools`: its domains and every function, each loaded when it is first used."""
    functions = [t for tools in domains.values() for t in tools if t.name not in domains]  # a domain's name is its package
    places = {d: (f"tools.{d}", "") for d in sorted(domains)} | {t.name: (t.module, t.name) for t in functions}
    lines = [
        HEADER,
        "from importlib import import_module as _import",
        "from typing import TYPE_CHECKING",
        "",
        "if TYPE_CHECKING:" if places else "",
        *(f"    from tools import {d} as {d}" for d in sorted(domains)),
        *(f"    from {t.module} import {t.name} as {t.name}" for t in functions),
        "",
        f"__all__ = [{', '.join(literal(name) for name in places)}]",
        "_PLACES = {",
        *(f"    {literal(name)}: ({literal(module)}, {literal(function)})," for name, (module, function) in places.items()),
        "}",
        "",
        "if not TYPE_CHECKING:",
        "",
        "    def __getattr__(name):",
        "        if name not in _PLACES:",
        '            raise AttributeError(f"module {__name__!r} has no tool {name!r}")',
        "        module, function = _PLACES[name]",
        "        found = _import(module)",
        "        globals()[name] = found = getattr(found, function) if function else found",
        "        return found",
    ]
    return "\n".join(lines) + "\n"
