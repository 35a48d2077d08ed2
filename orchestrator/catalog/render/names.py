"""What a tool is called inside a program: names that Python takes, unique, and back to the tool without loss."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from orchestrator.models.tool import ToolDefinition, ToolParameter

PRELOADED = frozenset(
    {"asyncio", "json", "math", "re", "datetime", "input", "input_data", "output", "call_tool", "ToolError"},
)
"""What every program sees without an import."""

_STUB_WORDS = frozenset({"Any", "Literal", "TYPE_CHECKING", "annotations", "tools"})
_TAKEN = frozenset(dir(builtins)) | PRELOADED | _STUB_WORDS | frozenset(keyword.kwlist)
_TAKEN_PARAMETERS = frozenset({"call_tool", "Any", "Literal", *keyword.kwlist})
_TAKEN_DOMAINS = frozenset({"TYPE_CHECKING", *keyword.kwlist})
_MAX_DOMAIN = 60
_MAX_FILE_BYTES = 150


@dataclass(frozen=True, slots=True)
class NamedTool:
    """A tool and its names: `name` is its function, `alias` what its own package offers besides.

    The alias of a server's tool is its name there (`from tools.filesystem import read_file`, whose function is
    `filesystem_read_file`), of another tool its own name where that hides a builtin of Python.
    """

    tool: ToolDefinition
    name: str
    domain: str
    stem: str
    alias: str | None
    parameters: tuple[tuple[str, ToolParameter], ...]  # the required ones first

    @property
    def module(self) -> str:
        """The module that programs import it from."""
        return f"tools.{self.domain}"


def name_tools(tools: Iterable[ToolDefinition]) -> tuple[NamedTool, ...]:
    """Every tool with its names, sorted by the tool's own name; the same tools always get the same names.

    A tool whose name Python takes keeps it; the others follow, so that `web_search` never loses its name to `web.search`.
    """
    known = sorted(tools, key=lambda t: (identifier(t.name) != t.name, t.name))
    names = _unique({t.name: identifier(t.name, taken=_TAKEN) for t in known})
    domains = _unique(_wanted_domains(known), fold=True)
    stems = _unique({t.name: _short(names[t.name]) for t in known}, fold=True)
    aliases = _aliases(known, names, {*names.values(), *stems.values()})
    return tuple(
        NamedTool(t, names[t.name], domains[t.domain], stems[t.name], aliases.get(t.name), name_parameters(t))
        for t in sorted(known, key=lambda t: t.name)
    )


def name_parameters(tool: ToolDefinition) -> tuple[tuple[str, ToolParameter], ...]:
    """The tool's parameters under names that Python takes, the required ones first."""
    exact_first = sorted(tool.parameters, key=lambda p: identifier(p.name) != p.name)
    names = _unique({p.name: identifier(p.name, taken=_TAKEN_PARAMETERS) for p in exact_first})
    return tuple((names[p.name], p) for p in sorted(tool.parameters, key=lambda p: not p.required))


def identifier(text: str, *, taken: Collection[str] = keyword.kwlist) -> str:
    """The nearest name that Python takes and that is not `taken`: `web.search` -> `web_search`, `class` -> `class_`."""
    name = re.sub(r"\W", "_", unicodedata.normalize("NFKC", text))
    if not f"_{name}".isidentifier():
        name = re.sub(r"[^0-9A-Za-z_]", "_", name)
    name = re.sub(r"^__+", "_", name)  # two underscores mean something else to Python
    if not name.isidentifier():
        name = f"_{name}"
    while name in taken:
        name += "_"
    return name


def _wanted_domains(tools: Iterable[ToolDefinition]) -> dict[str, str]:
    domains = sorted({t.domain for t in tools}, key=lambda d: (identifier(d) != d, d != d.lower(), d))
    return {d: identifier(d[:_MAX_DOMAIN].lstrip("_") or "general", taken=_TAKEN_DOMAINS) for d in domains}


def _unique(wanted: dict[str, str], *, fold: bool = False) -> dict[str, str]:
    """The wanted names, later ones numbered where an earlier one has theirs. `fold`: names of files, where case may not count."""
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    found: dict[str, str] = {}
    for key, name in wanted.items():
        free = name
        while (free.casefold() if fold else free) in taken:
            numbers[name] += 1
            free = f"{name.removesuffix('_')}_{numbers[name] + 1}"
        taken.add(free.casefold() if fold else free)
        found[key] = free
    return found


def _short(name: str) -> str:
    raw = name.encode()
    return name if len(raw) <= _MAX_FILE_BYTES else f"tool_{sha256(raw).hexdigest()[:16]}"


def _aliases(tools: Sequence[ToolDefinition], names: dict[str, str], taken: Collection[str]) -> dict[str, str]:
    """The short name of each tool that has one: legal, and no other tool's within its domain."""
    short = {t.name: alias for t in tools if (alias := _own_name(t, names[t.name])) and alias not in taken}
    users = Counter((t.domain, short[t.name]) for t in tools if t.name in short)
    return {t.name: short[t.name] for t in tools if t.name in short and users[t.domain, short[t.name]] == 1}


def _own_name(tool: ToolDefinition, name: str) -> str | None:
    own = identifier(tool.native_name) if tool.native_name else tool.name
    hidden = own != name and own.isidentifier() and not keyword.iskeyword(own)
    return own if hidden and own not in _STUB_WORDS and len(own.encode()) <= _MAX_FILE_BYTES else None
