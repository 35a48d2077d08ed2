"""The courtesy check of a program before it runs: fast, friendly refusals. The container is the wall, not this.

What is certain is refused with its place and the next move; whatever is in doubt runs.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from orchestrator.catalog.render.names import PRELOADED, NamedTool, name_tools
from orchestrator.errors import ProgramError, SecurityError
from orchestrator.models.tool import ToolDefinition
from orchestrator.programmatic_executor.dangers import MODULES, dotted, find_dangers
from orchestrator.programmatic_executor.scan import Chain, Facts, Place, scan
from orchestrator.programmatic_executor.source import Source, read

MAX_PROBLEMS = 20
_NEWER = frozenset({"ExceptionGroup", "BaseExceptionGroup", "EncodingWarning", "PythonFinalizationError", "aiter", "anext"})
_BUILTINS = frozenset(dir(builtins)) | _NEWER
_COROUTINE = frozenset({"send", "throw", "close"})
_DYNAMIC = frozenset({"globals", "locals", "vars", "exec", "eval", "__builtins__", "global_enum"})
_HIDDEN = frozenset({"modules", "f_globals", "global_enum", "_convert_"})
_DYNAMIC_MODULES = ("builtins", "__main__", "sys.modules", "gettext")
_SHORT = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "dt": "datetime"}
_HOMES = {
    **dict.fromkeys(("defaultdict", "Counter", "deque", "namedtuple", "OrderedDict", "ChainMap"), "collections"),
    **dict.fromkeys(("dataclass", "field", "asdict", "astuple"), "dataclasses"),
    **dict.fromkeys(("Any", "Optional", "Callable", "NamedTuple", "TypedDict", "Protocol", "TypeVar", "Generic"), "typing"),
    **dict.fromkeys(("timedelta", "timezone", "date"), "datetime"),
    **dict.fromkeys(("reduce", "partial", "lru_cache", "wraps", "cached_property", "total_ordering"), "functools"),
    **dict.fromkeys(("groupby", "chain", "islice", "product", "combinations", "permutations", "accumulate"), "itertools"),
    **dict.fromkeys(("mean", "median", "stdev"), "statistics"),
    **dict.fromkeys(("sqrt", "ceil", "floor"), "math"),
    **dict.fromkeys(("Enum", "IntEnum", "StrEnum", "auto"), "enum"),
    **dict.fromkeys(("ABC", "abstractmethod"), "abc"),
    **dict.fromkeys(("contextmanager", "suppress"), "contextlib"),
    **dict.fromkeys(("itemgetter", "attrgetter"), "operator"),
    **dict.fromkeys(("Path", "PurePath", "PurePosixPath"), "pathlib"),
    "Decimal": "decimal",
    "Fraction": "fractions",
    "gather": "asyncio",
    "StringIO": "io",
}
"""Names that programs often use and forget to import."""


def check_program(code: str, *, tools: Mapping[str, ToolDefinition]) -> None:
    """Refuses a program that certainly cannot or may not run; `tools` are those granted to it, by name.

    Raises:
        SecurityError: it uses what programs may not; the message is `Dangerous import detected: os` or alike.
        ProgramError: Python cannot read it, or it uses a tool or a name that there is not.
        LimitExceeded: it is too long.
        Both of the first have `problems`, first the one that the message is of, the rest in the order of the program:
        `line` and `column` from 1, `source` with a caret, `code`, `message` and `next` each.
    """
    tree, source = read(code)
    check = _Check(source, scan(tree), name_tools(tools.values()), last=_last_value(tree))
    check.run()
    check.raise_any()


class _Check:
    """One judgement of a program that Python can read."""

    def __init__(self, source: Source, facts: Facts, tools: Iterable[NamedTool], *, last: ast.expr | None = None) -> None:
        self.source, self.facts = source, facts
        self.tools = {t.name: t for t in tools}
        self.domains: dict[str, dict[str, NamedTool]] = {}
        self.stems: dict[str, NamedTool] = {}
        self.problems: dict[tuple[int, int, str], dict[str, Any]] = {}
        self.last = last
        for tool in self.tools.values():
            domain = self.domains.setdefault(tool.domain, {})
            domain |= {tool.name: tool, **({tool.alias: tool} if tool.alias else {})}
            self.stems[f"{tool.module}.{tool.stem}"] = tool

    def run(self) -> None:
        find_dangers(self.facts, self.report)
        for node, place in self.facts.imports:
            if not place.dead and not self.catches(place, "ImportError", "ModuleNotFoundError"):
                self.judge_import(node)
        for chain in self.facts.chains:
            if not chain.place.dead:
                self.judge_chain(chain)
        for expr, place in self.facts.loops:
            self.judge_loop(expr, place)
        if not self.is_dynamic():
            self.judge_names()

    def raise_any(self) -> None:
        if not self.problems:
            return
        found = [self.problems[key] for key in sorted(self.problems)]
        dangers = [p for p in found if p["code"].startswith("dangerous_")]
        first, kind = (dangers[0], SecurityError) if dangers else (found[0], ProgramError)
        ordered = [first, *(p for p in found if p is not first)]
        raise kind(first["message"], path=first["path"], next=first["next"], problems=ordered[:MAX_PROBLEMS])

    def report(self, node: ast.AST, code: str, message: str, next: str) -> None:
        spot = self.source.spot(node)
        if len(self.problems) < 10 * MAX_PROBLEMS:
            self.problems.setdefault((spot.line, spot.column, code), self.source.problem(spot, code, message, next))

    def catches(self, place: Place, *names: str) -> bool:
        """Whether the program may catch such an error: around the place, or anywhere around the function that it is in."""
        caught = place.caught | self.facts.caught if place.scope.in_function else place.caught
        return "*" in caught or not caught.isdisjoint(names)

    def line(self, node: ast.AST) -> int:
        return self.source.spot(node).line

    # imports of tools

    def judge_import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tools":
                    self.judge_module(node, alias.name)
        elif node.module and not node.level and node.module.split(".")[0] == "tools" and self.judge_module(node, node.module):
            for alias in node.names:
                if alias.name != "*" and not self.is_there(f"{node.module}.{alias.name}"):
                    self.missing(alias, alias.name, within=node.module)

    def judge_module(self, node: ast.AST, path: str) -> bool:
        if path == "tools" or path in self.stems or path.removeprefix("tools.") in self.domains:
            return True
        domain = path.split(".")[1]
        if domain in self.domains:
            self.missing(node, path.split(".")[2], within=f"tools.{domain}")
        else:
            near = _nearest(domain, self.domains)
            move = f"Did you mean tools.{near}?" if near else self.offer(sorted(f"tools.{d}" for d in self.domains))
            self.report(node, "no_such_tool", f"There is no module {_clip(path)} at line {self.line(node)}.", move)
        return False

    def is_there(self, path: str) -> bool:
        """Whether a path beneath `tools` leads to a domain or a tool."""
        parts = path.split(".")[1:]
        if len(parts) == 1:
            return parts[0] in self.domains or parts[0] in self.tools
        if len(parts) == 2:
            return parts[1] in self.domains.get(parts[0], {}) or path in self.stems
        return path.rpartition(".")[0] in self.stems and parts[-1] == self.stems[path.rpartition(".")[0]].name

    def missing(self, node: ast.AST, name: str, *, within: str = "") -> None:
        """A tool that there is not."""
        elsewhere = self.tools.get(name)
        near = _nearest(name, self.domains.get(within.removeprefix("tools."), {})) or _nearest(name, self.tools)
        move = f"Did you mean {near}?" if near else self.offer(sorted(self.tools))
        if elsewhere:
            move = f"Write `from {elsewhere.module} import {name}`."
        where = f" in {within}" if elsewhere else ""
        self.report(node, "no_such_tool", f"There is no tool or name {_clip(name)}{where} at line {self.line(node)}.", move)

    def offer(self, names: list[str]) -> str:
        if not names:
            return "This program has no tools."
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"There are {', '.join(names[:8])}{more}."

    # calls of tools

    def path_of(self, name: str) -> str | None:
        return f"{self.tools[name].module}.{name}" if name in self.tools else None

    def tool_at(self, path: str) -> NamedTool | None:
        parts = path.split(".")
        if parts[0] != "tools" or not self.is_there(path):
            return None
        if len(parts) == 2:
            return None if parts[1] in self.domains else self.tools.get(parts[1])
        return self.domains.get(parts[1], {}).get(parts[2])

    def judge_chain(self, chain: Chain) -> None:
        self.judge_input(chain)
        for n, path in enumerate(dotted(chain, self.path_of)):
            tool = self.tool_at(path)
            call = chain.steps[n] if n < len(chain.steps) else None
            if tool and isinstance(call, ast.Call):
                self.judge_arguments(tool, call, chain.place)
                self.judge_await(tool, chain, n)
                return
            domain = path.split(".")[1] if path.count(".") == 2 and path.startswith("tools.") else ""
            if n and domain in self.domains and not self.is_there(path) and not self.catches(chain.place, "AttributeError"):
                step = chain.steps[n - 1]
                if isinstance(step, ast.Attribute) and not step.attr.startswith("__"):
                    self.missing(_end_of(step), step.attr, within=f"tools.{domain}")
                return

    def judge_arguments(self, tool: NamedTool, call: ast.Call, place: Place) -> None:
        open_ended = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
        if open_ended or self.catches(place, "TypeError", "ToolError"):
            return
        names = [name for name, _ in tool.parameters]
        by_place, by_name = names[: len(call.args)], {k.arg: k for k in call.keywords if k.arg}
        if len(call.args) > len(names):
            self.bad_arguments(call, f"{tool.name} takes {len(names)} arguments at most, not {len(call.args)}", _signature(tool))
        for name, keyword in by_name.items():
            if name not in names:
                near = _nearest(name, names)
                move = f"Did you mean {near}?" if near else _signature(tool)
                self.bad_arguments(keyword, f"{tool.name} has no parameter {_clip(name)}", move)
        lacking = [n for n, p in tool.parameters if p.required and n not in by_place and n not in by_name]
        if lacking and by_name.keys() <= set(names):  # a misspelt one is one mistake, not two
            self.bad_arguments(call, f"{tool.name} needs {', '.join(lacking)}", _signature(tool))

    def bad_arguments(self, node: ast.AST, message: str, move: str) -> None:
        self.report(node, "bad_arguments", f"{message} at line {self.line(node)}.", move)

    def judge_await(self, tool: NamedTool, chain: Chain, at: int) -> None:
        after = chain.steps[at + 1] if at + 1 < len(chain.steps) else None
        used = isinstance(after, ast.Subscript)
        if isinstance(after, ast.Attribute):
            used = after.attr not in _COROUTINE and not after.attr.startswith(("cr_", "__"))
        dropped = after is None and chain.place.dropped and chain.steps[at] is not self.last
        if dropped or (used and not self.catches(chain.place, "TypeError", "AttributeError")):
            self.not_awaited(tool, chain.root)

    def judge_loop(self, expr: ast.expr, place: Place) -> None:
        if place.dead or not isinstance(expr, ast.Call) or self.catches(place, "TypeError"):
            return
        steps: list[ast.Attribute | ast.Subscript | ast.Call] = [expr]
        while isinstance(steps[0], ast.Call | ast.Attribute):
            inner = steps[0].func if isinstance(steps[0], ast.Call) else steps[0].value
            if not isinstance(inner, ast.Attribute):
                paths = dotted(Chain(inner, tuple(steps), place), self.path_of)
                tool = self.tool_at(paths[-1]) if paths and len(paths) == len(steps) else None
                if tool:
                    self.not_awaited(tool, expr)
                return
            steps.insert(0, inner)

    def not_awaited(self, tool: NamedTool, node: ast.AST) -> None:
        message = f"Tool {tool.name} is async: write `await {tool.name}(...)`"
        self.report(node, "not_awaited", f"{message} at line {self.line(node)}.", "Without await nothing is called.")

    def judge_input(self, chain: Chain) -> None:
        root = chain.root
        if not (isinstance(root, ast.Name) and root.id == "input" and isinstance(chain.steps[0], ast.Call)):
            return
        if chain.place.scope.find("input") is None and not self.catches(chain.place, "TypeError", "EOFError"):
            message = f"`input` is the value given to the program, not a function, at line {self.line(root)}."
            self.report(root, "no_keyboard", message, "Use `input` itself, or give the value as `input_data`.")

    # names

    def is_dynamic(self) -> bool:
        """Whether names may come from where this check cannot see."""
        read_names = any(n.id in _DYNAMIC for n, _ in self.facts.names)
        imported = (o for origins in self.facts.module.bound.values() for o in origins)
        modules = any(o.startswith(_DYNAMIC_MODULES) for o in imported)
        hidden = any(not _HIDDEN.isdisjoint(c.words) for c in self.facts.chains)
        return self.facts.starred or read_names or modules or hidden

    def judge_names(self) -> None:
        seen: set[str] = set()
        for name, place in sorted(self.facts.names, key=lambda n: (n[0].lineno, n[0].col_offset)):
            if name.id not in seen and len(seen) < MAX_PROBLEMS and self.is_undefined(name.id, place):
                seen.add(name.id)
                self.undefined(name, place)

    def is_undefined(self, name: str, place: Place) -> bool:
        known = name in _BUILTINS or name in PRELOADED or name in self.tools
        special = name.startswith("__") and name.endswith("__")
        return not (known or special or place.dead or "NameError" in self.facts.caught or place.scope.find(name))

    def undefined(self, node: ast.Name, place: Place) -> None:
        name = node.id
        near_tool = _nearest(name, self.tools, cutoff=0.75)
        if self.catches(place) and not near_tool:
            return  # the program may mean to fail here
        move = near_tool and f"Did you mean {near_tool}?"
        move = (
            move
            or _import_of(name)
            or self.near_name(name, place)
            or f"Define or import it first. {self.offer(sorted(self.tools))}"
        )
        self.report(node, "undefined", f"There is no tool or name {_clip(name)} at line {self.line(node)}.", move)

    def near_name(self, name: str, place: Place) -> str | None:
        names: set[str] = {*_BUILTINS, *PRELOADED, *self.tools}
        for scope in place.scope.chain():
            names |= {n for n in scope.bound if not n.endswith(".")}
        near = _nearest(name, names, cutoff=0.7)
        return f"Did you mean {near}?" if near else None


def _last_value(tree: ast.Module) -> ast.expr | None:
    """The program's last expression, also one beneath `if __name__ == "__main__":`; it is awaited where it needs to be."""
    body = tree.body
    while body and isinstance(body[-1], ast.If):
        body = body[-1].body
    return body[-1].value if body and isinstance(body[-1], ast.Expr) else None


def _end_of(step: ast.Attribute) -> ast.AST:
    """Where the attribute's own name stands."""
    size = len(step.attr.encode())
    return ast.Name(step.attr, lineno=step.end_lineno or step.lineno, col_offset=(step.end_col_offset or size) - size)


def _signature(tool: NamedTool) -> str:
    parts = [name if p.required else f"{name}=..." for name, p in tool.parameters]
    return f"Its parameters are {tool.name}({_clip(', '.join(parts), 200)})."


def _import_of(name: str) -> str | None:
    if name in MODULES:
        return MODULES[name]
    if name in _SHORT:
        return f"Add `import {_SHORT[name]} as {name}`."
    if name in _HOMES:
        return f"Add `from {_HOMES[name]} import {name}`."
    return f"Add `import {name}`." if name in sys.stdlib_module_names and not name.startswith("_") else None


def _nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The most similar name; none for a name that is too long to be a slip, or among too many."""
    known = list(names)
    if len(name) > 100 or len(known) > 5000:
        return None
    same = next((n for n in known if n.lower() == name.lower()), None)
    return same or next(iter(get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def _clip(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
