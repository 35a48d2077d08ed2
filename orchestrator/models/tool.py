"""A tool, described once: for planners, programs, search and callers alike."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from orchestrator.models.access import Action
from orchestrator.models.plan import Effect

MAX_EXAMPLES = 5
CODE_POOL = "code"
ParameterType = Literal["string", "number", "integer", "boolean", "array", "object", "null", "any"]
ToolType = Literal["mcp", "function", "code_exec"]
TOOL_NAME = r"^[A-Za-z][\w.:/-]*$"
MAX_TOOL_NAME = 128
_TYPES = frozenset(get_args(ParameterType))
_SAID_ELSEWHERE = ("description", "enum", "default")


class ToolParameter(BaseModel):
    """One parameter of a tool. `json_schema`, when given, says more than `type` and `enum` do (nested types, bounds)."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    type: ParameterType = "string"
    description: str = ""
    required: bool = False
    enum: tuple[Any, ...] | None = None
    default: Any = None
    json_schema: dict[str, Any] | None = None

    def to_schema(self) -> dict[str, Any]:
        """The parameter as a JSON Schema (2020-12)."""
        schema: dict[str, Any] = dict(self.json_schema) if self.json_schema else ({} if self.type == "any" else {"type": self.type})
        if self.description:
            schema["description"] = self.description
        if self.enum is not None:
            schema["enum"] = list(self.enum)
        if self.default is not None:
            schema["default"] = self.default
        return schema


class ToolExample(BaseModel):
    """One use of a tool, shown to the model: minimal, partial or full."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    scenario: str
    input: dict[str, Any]
    output: Any = None
    notes: str = ""


class ToolDefinition(BaseModel):
    """What there is to know about a tool: enough to plan with it, check a call of it, and route that call.

    `pool` names the worker pool (and queue) that runs it; `effect` says what a repeat would do: `none` (reads),
    `idempotent` (repeats are harmless), `once` (never repeated silently; the default).

    A tool is described by `parameters`, or by `json_schema`, the whole schema of its input as a server gave it (any dialect
    that the schema's `$schema` names, 2020-12 otherwise); `parameters` is a view of that then.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: str = Field(pattern=TOOL_NAME, max_length=MAX_TOOL_NAME)
    type: ToolType = "function"
    description: str = ""
    parameters: tuple[ToolParameter, ...] = ()
    examples: tuple[ToolExample, ...] = ()
    domain: str = "general"
    defer_loading: bool = False
    allowed_callers: tuple[str, ...] = ("direct", "code_execution")
    strict: bool = False
    pool: str = "function"
    effect: Effect = "once"
    timeout_s: float = Field(default=300.0, gt=0)
    max_concurrency: int | None = Field(default=None, ge=1, description="calls of it that run at once, of all jobs")
    concurrency_key: str | None = Field(default=None, description="name of a parameter: `max_per_key` counts calls of one value")
    max_per_key: int = Field(default=1, ge=1, description="calls with the same key that run at once")
    output_schema: dict[str, Any] | None = None
    requires: tuple[Action, ...] = Field(default=(), max_length=32, description="actions that it needs, such as `network:https`")
    definitions: dict[str, Any] | None = Field(default=None, description="`$defs` that the parameters' schemas refer to")
    json_schema: dict[str, Any] | None = Field(default=None, description="the whole schema of the input, as it was imported")
    server: str | None = Field(default=None, description="the MCP server or API that offers it; None: a function")
    native_name: str | None = Field(default=None, description="its name there, where that is another one")
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = Field(default=(), description="other names that plans may use, such as former ones")
    deprecated: str | None = Field(default=None, description="why it is not to be used any more, and what to use instead")
    tenants: tuple[str, ...] | None = Field(default=None, description="who sees it; None: everybody")

    @model_validator(mode="before")
    @classmethod
    def _view_of_schema(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("json_schema") is not None:  # whatever else `parameters` says
            return {**data, "parameters": parameters_of(data["json_schema"])}
        return data

    @field_validator("examples")
    @classmethod
    def _few_examples(cls, examples: tuple[ToolExample, ...]) -> tuple[ToolExample, ...]:
        if len(examples) > MAX_EXAMPLES:
            raise ValueError(
                f"a tool has at most {MAX_EXAMPLES} examples, this one has {len(examples)}; keep the most different ones"
            )
        return examples

    @model_validator(mode="after")
    def _distinct_parameters(self) -> ToolDefinition:
        names = Counter(p.name for p in self.parameters)
        if twice := [n for n, times in names.items() if times > 1]:
            raise ValueError(f"tool `{self.name}` has two parameters named {', '.join(sorted(twice))}")
        if self.concurrency_key is not None and self.concurrency_key not in names:
            raise ValueError(f"tool `{self.name}` has no parameter `{self.concurrency_key}` to take as `concurrency_key`")
        return self

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the tool's input object: the imported one, untouched, or 2020-12 made of the parameters."""
        if self.json_schema is not None:
            return self.json_schema
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {p.name: p.to_schema() for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
            "additionalProperties": False,
        }
        return schema | ({"$defs": self.definitions} if self.definitions else {})

    @property
    def callable_by_code(self) -> bool:
        """Whether programs may call it. What runs in their own pool is refused: it would fill with programs that wait for it."""
        return "code_execution" in self.allowed_callers and self.type != "code_exec" and self.pool != CODE_POOL

    @property
    def content_hash(self) -> str:
        """SHA-256 (first 16 hex digits) of the definition, whatever the order of its keys: its version, which a plan pins."""
        return hashlib.sha256(_json(self._row(), sort_keys=True).encode()).hexdigest()[:16]

    def to_row(self) -> str:
        """The definition as compact JSON, keys as they came, without defaults and what `json_schema` says already."""
        return _json(self._row(), sort_keys=False)

    def _row(self) -> dict[str, Any]:
        derived = {"parameters"} if self.json_schema is not None else None
        return self.model_dump(mode="json", exclude_defaults=True, exclude=derived)

    def visible_to(self, tenant: str) -> bool:
        """Whether a tenant sees it at all."""
        return self.tenants is None or tenant in self.tenants

    def to_llm_format(self, include_examples: bool = True, max_examples: int = MAX_EXAMPLES) -> dict[str, Any]:
        """The neutral function format `{name, description, parameters}`; examples are folded into the description."""
        description = self.description
        if include_examples and self.examples:
            description += "\n\nExamples:" + "".join(_example_text(n, e) for n, e in enumerate(self.examples[:max_examples], 1))
        return {"name": self.name, "description": description, "parameters": self.input_schema}


def parameters_of(schema: Mapping[str, Any]) -> tuple[ToolParameter, ...]:
    """The properties of an object's schema as parameters; what a parameter cannot say stays in its `json_schema`."""
    properties = schema.get("properties")
    required = schema.get("required")
    needed = frozenset(n for n in required if isinstance(n, str)) if isinstance(required, list) else frozenset()
    if not isinstance(properties, Mapping):
        return ()
    return tuple(_parameter(name, s if isinstance(s, Mapping) else {}, name in needed) for name, s in properties.items() if name)


def _parameter(name: str, schema: Mapping[str, Any], required: bool) -> ToolParameter:
    kind, enum, described = schema.get("type"), schema.get("enum"), schema.get("description")
    rest = {k: v for k, v in schema.items() if k not in _SAID_ELSEWHERE}
    return ToolParameter(
        name=name,
        type=kind if isinstance(kind, str) and kind in _TYPES else "any",  # type: ignore[arg-type]
        description=described if isinstance(described, str) else "",
        required=required,
        enum=tuple(enum) if isinstance(enum, list) else None,
        default=schema.get("default"),
        json_schema=rest if set(rest) - {"type"} else None,
    )


def _json(value: Any, *, sort_keys: bool) -> str:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False)


def _example_text(number: int, example: ToolExample) -> str:
    lines = [f"\n{number}. {example.scenario}", f"   Input: {json.dumps(example.input, ensure_ascii=False)}"]
    if example.output is not None:
        lines.append(f"   Output: {json.dumps(example.output, ensure_ascii=False)}")
    if example.notes:
        lines.append(f"   Notes: {example.notes}")
    return "\n".join(lines)


class _Places:
    """Where the tools of a catalog stand in its list, by name; made anew when the list is another one, or longer or shorter."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.of: list[ToolDefinition] | None = None
        self.by_name: dict[str, int] = {}
        self.duplicates = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Places)  # catalogs are equal when their tools are

    def find(self, name: str, tools: list[ToolDefinition]) -> int | None:
        """The place of a name, if it is there."""
        if self.of is not tools or len(self.by_name) + self.duplicates != len(tools):
            self._look(tools)
        at = self.by_name.get(name)
        if at is not None and tools[at].name != name:  # somebody put another tool there
            self._look(tools)
            at = self.by_name.get(name)
        return at

    def _look(self, tools: list[ToolDefinition]) -> None:
        self.of, self.by_name = tools, {t.name: len(tools) - 1 - n for n, t in enumerate(reversed(tools))}
        self.duplicates = len(tools) - len(self.by_name)


@dataclass(frozen=True, slots=True)
class Lookup:
    """The tools of a catalog as they were when it was made, by name and by alias: for many names at once."""

    names: Mapping[str, ToolDefinition]
    aliases: Mapping[str, Sequence[ToolDefinition]]

    def resolve(self, name: str) -> ToolDefinition | None:
        """As `ToolCatalog.resolve`."""
        claimants = () if name in self.names else self.aliases.get(name, ())
        return claimants[0] if len(claimants) == 1 else self.names.get(name)


class ToolCatalog(BaseModel):
    """The tools that a planner may use, by name, in the order in which they were added."""

    model_config = ConfigDict(defer_build=True, extra="forbid")

    source: str = "default"
    version: str = "1.0"
    tools: list[ToolDefinition] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)

    _places: _Places = PrivateAttr(default_factory=lambda: _Places())

    def add_tool(self, tool: ToolDefinition) -> None:
        """Adds a tool; one of the same name is replaced in place."""
        at = self._places.find(tool.name, self.tools)
        if at is not None:
            self.tools[at] = tool
        else:
            self._places.by_name[tool.name] = len(self.tools)
            self.tools.append(tool)

    def get_tool(self, name: str) -> ToolDefinition | None:
        """The tool of that name, or None."""
        at = self._places.find(name, self.tools)
        return self.tools[at] if at is not None else next((t for t in self.tools if t.name == name), None)

    def resolve(self, name: str) -> ToolDefinition | None:
        """The tool of that name, else the only one that has it as an alias; None: there is none, or several claim it."""
        found = self.get_tool(name)
        if found is not None:
            return found
        claimants = self.claimants(name)
        return claimants[0] if len(claimants) == 1 else None

    def claimants(self, alias: str) -> list[ToolDefinition]:
        """The tools that have an alias."""
        return [t for t in self.tools if t.aliases and alias in t.aliases]

    def lookup(self) -> Lookup:
        """Finds tools without a look at all of them for each name that is none."""
        aliases: dict[str, list[ToolDefinition]] = {}
        for tool in self.tools:
            for alias in dict.fromkeys(tool.aliases):
                aliases.setdefault(alias, []).append(tool)
        return Lookup({t.name: t for t in reversed(self.tools)}, aliases)

    def seen_by(self, tenant: str) -> ToolCatalog:
        """What a tenant sees of it: itself when nothing is hidden."""
        seen = [t for t in self.tools if t.visible_to(tenant)]
        return (
            self
            if len(seen) == len(self.tools)
            else type(self).model_construct(source=self.source, version=self.version, tools=seen, metadata=self.metadata)
        )

    def to_llm_format(self, include_examples: bool = True, available_tools: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Every tool in the neutral function format; `available_tools` keeps only the named ones. Deprecated ones must be named."""
        shown = (t for t in self.tools if (t.deprecated is None if available_tools is None else t.name in available_tools))
        return [t.to_llm_format(include_examples) for t in shown]
