"""Tools that a definition describes, not a Python signature: those of servers, and functions that take the whole payload."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.files import FileSource
from orchestrator.catalog.judge import Judge
from orchestrator.catalog.patterns import risky_pattern
from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.register import registry as default_registry
from orchestrator.errors import ToolError
from orchestrator.models.tool import MAX_TOOL_NAME, ToolDefinition

__all__ = ["Handler", "SchemaTool", "imported_name", "register_worker", "risky_pattern"]

Handler = Callable[[dict[str, Any], ToolContext], Awaitable[Any]]
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
_KEPT = frozenset("_.:/-")
_DIGITS = 8


def imported_name(server: str, native: str) -> str:
    """The catalog's name of a server's tool: `server.native`, odd characters as `_`; what is too long ends in a hash."""
    full = f"{server}.{native}"
    name = "".join(c if c in _KEPT or c.isalpha() or c.isdecimal() else "_" for c in full)
    if not (name[0].isascii() and name[0].isalpha()):
        name = f"s{name}"
    if len(name) <= MAX_TOOL_NAME:
        return name
    return f"{name[: MAX_TOOL_NAME - _DIGITS - 1]}_{hashlib.sha256(full.encode('utf-8', 'surrogatepass')).hexdigest()[:_DIGITS]}"


class SchemaTool:
    """A served tool whose input and output are checked against the schemas of its definition, in bounded time.

    What a check cannot decide (a pattern of an unknown dialect, a value too large and intricate) is left to the tool.
    """

    is_async = True
    lazy_parameters: frozenset[str] = frozenset()

    def __init__(self, definition: ToolDefinition, handler: Handler, *, origin: str) -> None:
        self.definition = definition
        self.origin = origin
        self._handler = handler
        self._input = Judge(definition.input_schema)
        self._output = None if definition.output_schema is None else Judge(definition.output_schema)

    def validate_input(self, value: Mapping[str, Any], *, files: FileSource | None = None) -> dict[str, Any]:  # noqa: ARG002
        """The arguments, as they came.

        Raises:
            ToolError: `bad_input`, with every bad field in `problems`.
        """
        arguments = dict(value)
        problems = self._input.problems(arguments)
        if problems:
            raise self._refused("bad_input", problems)
        return arguments

    def call(self, arguments: dict[str, Any], context: ToolContext) -> Awaitable[Any]:
        """The coroutine that gives the result."""
        return self._handler(arguments, context)

    def validate_output(self, value: Any) -> Any:
        """The result as a JSON value; checked where the definition says what it is.

        Raises:
            ToolError: `bad_output`.
        """
        try:
            found = to_jsonable_python(value)
            json.dumps(found, allow_nan=False)  # NaN and infinity pass pydantic and are no JSON
        except (PydanticSerializationError, ValueError) as error:
            raise ToolError(f"`{self.definition.name}` returned what is no JSON value: {error}.", code="bad_output") from None
        problems = self._output.problems(found) if self._output is not None else []
        if problems:
            raise self._refused("bad_output", problems)
        return found

    def _refused(self, code: str, problems: list[dict[str, Any]]) -> ToolError:
        name = self.definition.name
        told = "; ".join(f"`{p['path']}` {p['message']}" if p["path"] else p["message"] for p in problems)
        verb, move = (
            ("got an input that it cannot take", f"See `toolweaver tools show {name}` for what it takes.")
            if code == "bad_input"
            else ("returned what its output schema does not allow", "Whoever offers the tool mends it or its schema.")
        )
        end = "" if told.endswith("?") else "."
        return ToolError(f"`{name}` {verb}: {told}{end}", code=code, path=problems[0]["path"] or None, next=move, problems=problems)


def register_worker(definition: ToolDefinition, *, registry: ToolRegistry = default_registry) -> Callable[[F], F]:
    """A decorator that makes an `async def` of the whole payload the tool of a definition, and returns it unchanged.

    The function takes the payload as a dict, and the call's `ToolContext` as a second parameter if it has one.

    Raises:
        TypeError: it is no `async def`, or takes something else.
        Conflict: another function has this name.
    """

    def register(function: F) -> F:
        name = getattr(function, "__qualname__", repr(function))
        if not _is_coroutine_function(function):
            raise TypeError(f"worker `{name}` of tool `{definition.name}` must be an `async def`")
        takes = len(inspect.signature(function).parameters)
        if takes not in (1, 2):
            raise TypeError(f"worker `{name}` takes {takes} parameters; it gets the payload, and the context if it wants it")
        handler = cast(Handler, function) if takes == 2 else _of_payload(function)
        registry.add(SchemaTool(definition, handler, origin=f"{function.__module__}.{name}"))
        return function

    return register


def _is_coroutine_function(function: Any) -> bool:  # mypy would narrow what the function of `inspect` looked at
    return inspect.iscoroutinefunction(function)


def _of_payload(function: Callable[..., Awaitable[Any]]) -> Handler:
    def handler(arguments: dict[str, Any], _context: ToolContext) -> Awaitable[Any]:
        return function(arguments)

    return handler
