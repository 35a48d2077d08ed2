"""What an executor's owner allows its programs to import and to use: looked for in their text, and told with place and next move.

A courtesy, like the check of programs: who wants to get around it can. The container is the wall.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SecurityError
from orchestrator.programmatic_executor.dangers import dotted
from orchestrator.programmatic_executor.scan import Facts, Place, scan
from orchestrator.programmatic_executor.source import Source, read

MOST = 20  # problems told at once


@dataclass(frozen=True)
class Rules:
    """Modules that may be imported (None: all) and functions that may not be used, such as `open` or `os.system`."""

    imports: frozenset[str] | None = None
    blocked: frozenset[str] = frozenset()

    @classmethod
    def of(cls, imports: Collection[str] | None, blocked: Collection[str] | None) -> Rules:
        """The rules that these names make."""
        return cls(None if imports is None else frozenset(imports), frozenset(blocked or ()))

    def check(self, code: str) -> None:
        """Refuses a program that breaks them.

        Raises:
            SecurityError: it does; `problems` says where.
            ProgramError: Python cannot read it.
            LimitExceeded: it is too long.
        """
        if self.imports is None and not self.blocked:
            return
        tree, source = read(code)
        found = sorted(self._problems(scan(tree), source), key=lambda p: (p["line"], p["column"]))
        if found:
            first = found[0]
            raise SecurityError(first["message"], path=first["path"], next=first["next"], problems=found[:MOST])

    def _problems(self, facts: Facts, source: Source) -> Iterator[dict[str, Any]]:
        for node, _ in facts.imports:
            for path in _imported(node):
                if not self._may_import(path):
                    yield source.problem(source.spot(node), "import_not_allowed", f"Import not allowed: {path}", self._offer())
                elif path in self.blocked:
                    yield self._blocked(source, node, path)
        for used, path in _used(facts):
            if path in self.blocked:
                yield self._blocked(source, used, path)

    def _may_import(self, path: str) -> bool:
        if self.imports is None or path.split(".")[0] == "__future__":
            return True
        return any(path == name or path.startswith(f"{name}.") for name in self.imports)

    def _offer(self) -> str:
        names = ", ".join(sorted(self.imports or ())) or "nothing"
        return f"This executor allows {names} (`allowed_imports`)."

    def _blocked(self, source: Source, node: ast.AST, path: str) -> dict[str, Any]:
        move = "This executor does without it (`blocked_functions`)."
        return source.problem(source.spot(node), "function_not_allowed", f"Function not allowed: {path}", move)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _used(facts: Facts) -> Iterator[tuple[ast.AST, str]]:
    """Each name that is read and each attribute of a module, as the path that it is known by."""
    for name, place in facts.names:
        yield from ((name, path) for path in _origins(name.id, place))
    for chain in facts.chains:
        paths = dotted(chain, lambda name: name)[1:]
        yield from zip(chain.steps, (path.removeprefix("builtins.") for path in paths), strict=False)


def _origins(name: str, place: Place) -> Iterator[str]:
    """Where a name comes from; its own name where the program does not define it."""
    origins = place.scope.find(name)
    yield from (origin.removeprefix("builtins.") for origin in origins or {name} if origin != "own")
