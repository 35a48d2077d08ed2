"""Functions become tools here: a decorator, the registry that it fills, and the loading of tools of yours."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.broker.queues import POOLS
from orchestrator.catalog.define import RegisteredTool, ServedTool, Signature, path_text, read_signature
from orchestrator.errors import Conflict, NotFound, RequestError
from orchestrator.models.plan import Effect
from orchestrator.models.program import CallerType
from orchestrator.models.tool import ToolDefinition, ToolExample, ToolType

__all__ = [
    "RegisteredTool",
    "ServedTool",
    "ToolRegistry",
    "load_entry_points",
    "load_tools",
    "register_function",
    "registry",
    "tool",
]

F = TypeVar("F", bound=Callable[..., Any])
ENTRY_POINTS = "toolweaver.tools"


class ToolRegistry:
    """The tools of this process, by name."""

    def __init__(self) -> None:
        self._tools: dict[str, ServedTool] = {}

    def add(self, tool: ServedTool) -> None:
        """Adds a tool; the same function again (a reloaded module) takes its own place.

        Raises:
            Conflict: another function already has this name.
        """
        name = tool.definition.name
        known = self._tools.get(name)
        if known is not None and known.origin != tool.origin:
            raise Conflict(
                f"two functions want to be the tool `{name}`: `{known.origin}` and `{tool.origin}`",
                next="Give one of them another name: `@register_function('other_name')`.",
            )
        self._tools[name] = tool

    def remove(self, name: str) -> None:
        """Takes a tool out, if it is there."""
        self._tools.pop(name, None)

    def get(self, name: str) -> ServedTool | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._tools)

    def definitions(self) -> list[ToolDefinition]:
        """All definitions, in the order of registration."""
        return [t.definition for t in self._tools.values()]


registry = ToolRegistry()


def register_function(
    name: str | None = None,
    *,
    domain: str = "general",
    pool: str | None = None,
    effect: Effect = "once",
    timeout_s: float = 300.0,
    max_concurrency: int | None = None,
    concurrency_key: str | None = None,
    max_per_key: int = 1,
    description: str | None = None,
    examples: Sequence[ToolExample | Mapping[str, Any]] = (),
    input_examples: Sequence[Mapping[str, Any]] = (),
    type: ToolType = "function",
    requires: Sequence[str] = (),
    allowed_callers: Sequence[CallerType] = ("direct", "code_execution"),
    defer_loading: bool = False,
    strict: bool = False,
    tags: Sequence[str] = (),
    aliases: Sequence[str] = (),
    deprecated: str | None = None,
    tenants: Sequence[str] | None = None,
    registry: ToolRegistry = registry,
) -> Callable[[F], F]:
    """A decorator that makes a function a tool and returns it unchanged.

    The input is checked against the parameters' type hints, the result against the return annotation; descriptions
    come from the docstring. A parameter annotated `ToolContext` gets the call's context. An `async def` tool runs on
    the one loop of its worker, beside hundreds of others; a `def` tool in a process of its own.

    Args:
        name: What plans call it; default: the function's name.
        pool: The worker pool, and queue, that runs it; default: `async` for an `async def`, else `function`.
        effect: What a repeat would do: `none`, `idempotent`, or `once` (never repeated silently).
        timeout_s: Seconds after which a call of it fails.
        max_concurrency: How many calls of it run at once on the whole platform; the others wait.
        concurrency_key: Name of a parameter: at most `max_per_key` calls with one value of it run at once.
        requires: The actions that it needs, such as `filesystem:write`; a tenant without their permission may not use it.
        allowed_callers: Who may call it: steps of plans (`direct`), programs (`code_execution`), or both.
        examples: Uses of it, shown to models; default: the docstring's doctests that are calls with literal arguments.
        input_examples: The same as the tool-use APIs write it: inputs alone.
        defer_loading: Whether models see it only when a search found it.
        strict: Whether vendors that can do so hold the model to the schema.
        aliases: Other names that plans may use, such as former ones.
        deprecated: Why it is not to be used any more, and what to use instead; default: what `@deprecated` or the docstring says.
        tenants: Who sees it; None: everybody.

    Raises:
        TypeError: the signature has no JSON form, a `def` function is to run on a loop, or it does not take one of the
            `input_examples`.
        Conflict: another function has this name.
    """

    def register(function: F) -> F:
        is_async = inspect.iscoroutinefunction(function)
        queue = pool or ("async" if is_async else "function")
        if not is_async and queue in POOLS and POOLS[queue].kind == "async":
            raise TypeError(
                f"tool `{function.__name__}` is a `def` function, which would hold up all other calls of pool `{queue}`; "
                "write `async def`, or leave `pool` out"
            )
        signature = read_signature(function)
        shown = [*examples, *_with_scenario(function.__name__, signature, input_examples)] or signature.examples
        definition = ToolDefinition(
            name=name or function.__name__,
            type=type,
            description=description if description is not None else signature.description,
            parameters=signature.parameters,
            examples=tuple(ToolExample.model_validate(e) for e in shown),
            domain=domain,
            pool=queue,
            effect=effect,
            timeout_s=timeout_s,
            max_concurrency=max_concurrency,
            concurrency_key=concurrency_key,
            max_per_key=max_per_key,
            requires=tuple(requires),
            allowed_callers=tuple(allowed_callers),
            output_schema=signature.output_schema,
            definitions=signature.definitions,
            defer_loading=defer_loading,
            strict=strict,
            tags=tuple(tags),
            aliases=tuple(aliases),
            deprecated=deprecated if deprecated is not None else signature.deprecated,
            tenants=tuple(tenants) if tenants is not None else None,
        )
        registry.add(
            RegisteredTool(
                definition=definition,
                function=function,
                is_async=is_async,
                context_parameter=signature.context_parameter,
                arguments=signature.arguments,
                returns=signature.returns,
            )
        )
        return function

    if callable(name):
        raise TypeError("write `@register_function()` with parentheses")
    return register


def _with_scenario(name: str, signature: Signature, inputs: Sequence[Mapping[str, Any]]) -> Iterator[ToolExample]:
    for at, given in enumerate(inputs):
        try:
            signature.arguments.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = f"input_examples[{at}].{path_text(first['loc'])}"
            raise TypeError(f"tool `{name}` does not take its own example: `{where}`: {first['msg']}") from None
        yield ToolExample(scenario="An example", input=dict(given))


tool = register_function  # the name that pools use: `@tool(pool="ocr", effect="none")`


def load_tools(spec: str) -> None:
    """Imports a module (`pkg.mod`) or a file (`path/to/tools.py`), so that its tools are registered; twice is once.

    Raises:
        NotFound: there is no such module or file.
        RequestError: it exists and fails when imported; the cause is chained.
    """
    if spec.endswith(".py") or "/" in spec:
        _load_file(Path(spec).expanduser().resolve())
        return
    try:
        importlib.import_module(spec)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name is not None and (spec + ".").startswith(error.name + ".")
        kind = NotFound if missing else RequestError
        raise kind(
            f"tools `{spec}` cannot be imported: {error}", path="tools", next="Name an importable module or a .py file."
        ) from error


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise NotFound(
            f"there is no file of tools at `{path}`", path="tools", next="Check the path given as `--tools` or TOOLWEAVER_TOOLS."
        )
    name = f"toolweaver_tools_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RequestError(f"`{path}` is no Python file", path="tools", next="Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: its own types are looked up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ImportError | SyntaxError):
            raise RequestError(f"tools `{path}` cannot be imported: {error}", path="tools", next="Mend the file.") from error
        raise


def load_entry_points() -> list[str]:
    """Imports what installed packages offer as `toolweaver.tools`, and returns the entry points' names.

    Raises:
        RequestError: one of them cannot be imported.
    """
    loaded = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            where = point.dist.name if point.dist else "an installed package"
            raise RequestError(
                f"the tools `{point.name}` of `{where}` cannot be imported: {error}", next="Mend or uninstall it."
            ) from error
        loaded.append(point.name)
    return loaded
