"""Steps as they will run: tools looked up, `function_call` turned into a call of the function it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema.exceptions import SchemaError

from orchestrator.models.plan import Step
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.planner.arguments import Checked, prepare
from orchestrator.planner.fixes import rename, replace
from orchestrator.planner.problems import Fix, Problems, clip, join, listed, sentence, shown
from orchestrator.planner.read import Draft
from orchestrator.planner.schemas import value_words

Allowed = Callable[[ToolDefinition], str | None]  # why a caller may not use a tool; None: it may
_ASK = "Name a tool that is allowed, or ask an admin for this one."
_MOST_LOOKED, _FEW = 50_000, 20
FUNCTION_CALL, CODE_EXEC = "function_call", "code_exec"


@dataclass(slots=True)
class Item:
    """A step under judgement: normalised, with its tool and with where a person wrote its arguments."""

    draft: Draft
    step: Step
    arguments_at: str
    made: Checked | None = None
    judged: bool = True  # the arguments can be judged: tool known, input well-formed
    places: dict[str, str] = field(default_factory=dict)  # step that is named -> where

    @property
    def place(self) -> str:
        """Where the step stands in the plan."""
        return self.draft.place


class Toolbox:
    """The tools of a catalog, each made ready once; what is no problem but worth saying goes to `warnings`."""

    def __init__(self, catalog: ToolCatalog, problems: Problems, *, warnings: Problems, allowed: Allowed | None = None) -> None:
        self.lookup = catalog.lookup()
        self.tools = self.lookup.names
        self.made: dict[str, Checked | None] = {}
        self.problems, self.warnings = problems, warnings
        self._looked = 0
        self.allowed: Allowed = allowed or _everything

    def normalise(self, draft: Draft) -> Item:
        """The step with its tool and with its arguments where they belong; what is wrong with them is noted."""
        item = Item(draft, draft.step, f"{draft.place}.input", judged="input" not in draft.broken)
        tool_at, name = f"{draft.place}.tool", draft.step.tool
        if "tool" in draft.broken:
            item.judged = False
        elif name == FUNCTION_CALL and FUNCTION_CALL not in self.tools:
            self._unwrap_function(item)
        elif name == CODE_EXEC and CODE_EXEC not in self.tools:
            message = "No pool of this platform runs code."
            self.problems.add(tool_at, "no_code_pool", message, "Name a tool instead; `toolweaver tools list` shows them.")
            item.judged = False
        else:
            item.made = self._tool(name, place=tool_at, given=draft.step.input)
            if item.made is not None and item.made.tool.name != name:  # an alias
                item.step = item.step.model_copy(update={"tool": item.made.tool.name})
        item.judged = item.judged and item.made is not None
        return item

    def _unwrap_function(self, item: Item) -> None:
        """`function_call {name, args}` is a call of the function of that name."""
        call, place = item.step.input, item.arguments_at
        name, arguments = call.get("name"), call.get("args", {})
        for key in call.keys() - {"name", "args"}:
            move = self.problems.suggest(key, ("name", "args"), otherwise="Put the function's arguments into `args`.")
            better = self.problems.meant(key, [k for k in ("name", "args") if k not in call])
            fix = rename(join(place, key), better) if better else None
            self.problems.add(join(place, key), "unknown_argument", f"`function_call` takes no `{key}`.", move, fix=fix)
        if not isinstance(arguments, dict):
            self._wrong_args(arguments, place=join(place, "args"))
            arguments, item.judged = {}, False
        if name is None:
            message = "`function_call` needs `name`, which is missing."
            self.problems.add(join(place, "name"), "missing_argument", message, "Add `name`: the name of a function.")
        elif not isinstance(name, str) or not name:
            message = f"`name` is {value_words(name)}, but must be the name of a function."
            self.problems.add(join(place, "name"), "wrong_type", message, "Write its name as text.")
        else:
            item.made = self._tool(name, place=join(place, "name"), given=arguments)
            real = item.made.tool.name if item.made is not None else name
            item.step = item.step.model_copy(update={"tool": real, "input": arguments})
            item.arguments_at = join(place, "args")

    def _wrong_args(self, arguments: object, *, place: str) -> None:
        message = f"`args` is {value_words(arguments)}, but must be an object."
        self.problems.add(place, "wrong_type", message, "Write the arguments by name; a reference stands for one of them.")

    def _tool(self, name: str, *, place: str, given: Mapping[str, Any]) -> Checked | None:
        tool = self.tools.get(name) or self._by_alias(name, place=place, given=given)
        if tool is None:
            return None
        if "direct" not in tool.allowed_callers:
            message = f"Tool `{name}` may be called by {listed(tool.allowed_callers)} only, not by a step of a plan."
            example = f"`{place}` is `{name}`, whose `allowed_callers` are {shown(list(tool.allowed_callers))}"
            move = "Name another tool, or add `direct` to its `allowed_callers`."
            self.problems.add(place, "caller_refused", message, move, example=example)
        if (refusal := self.allowed(tool)) is not None:
            example = f"`{place}` is `{name}`, which this caller may not use"
            self.problems.add(place, "permission_denied", sentence(refusal), _ASK, example=example)
        if tool.deprecated is not None:
            message, move = f"Tool `{tool.name}` is not to be used any more.", tool.deprecated or "Name another tool."
            self.warnings.add(place, "deprecated_tool", message, move)
        if tool.name not in self.made:
            self.made[tool.name] = self._prepare(tool)
        if self.made[tool.name] is None:
            message = f"Tool `{name}` describes its arguments by a schema that cannot be read."
            self.problems.add(place, "bad_tool_schema", message, "Mend the tool's definition and announce it again.")
        return self.made[tool.name]

    def _by_alias(self, name: str, *, place: str, given: Mapping[str, Any]) -> ToolDefinition | None:
        claimants = self.lookup.aliases.get(name, ())
        if len(claimants) == 1:
            return claimants[0]
        if claimants:
            message = f"{clip(name)} is another name of several tools."
            move = f"Name the one that is meant: {listed((t.name for t in claimants), last='or')}."
            example = f"{clip(name)} may mean {listed((t.name for t in claimants), last='or')}"
            self.problems.add(place, "ambiguous_tool", message, move, example=example)
        else:
            own = name.rpartition(".")[2]
            near = own if own in self.tools else self.problems.nearest(name, self.tools)
            move = f"Did you mean `{near}`?" if near else self._taking(given)
            fix = self._tool_fix(name, given, place)
            self.problems.add(place, "unknown_tool", f"There is no tool {clip(name)}.", move, fix=fix)
        return None

    def _tool_fix(self, name: str, given: Mapping[str, Any], place: str) -> Fix | None:
        """The tool that must have been meant: spelt alike, and it takes just these arguments. None that does something for good."""
        tool = self.tools.get(name.rpartition(".")[2]) or self.tools.get(self.problems.meant(name, self.tools) or "")
        if tool is None or tool.effect == "once" or self.allowed(tool) is not None:
            return None
        return replace(place, tool.name) if _takes(tool, given) else None

    def _usable(self, tool: ToolDefinition) -> bool:
        return tool.deprecated is None and "direct" in tool.allowed_callers and self.allowed(tool) is None

    def _taking(self, given: Mapping[str, Any]) -> str:
        """A next move where no name is near: the tools that take just these arguments, while looking for them is cheap."""
        fitting: list[str] = []
        if given and self.problems.open and self._looked < _MOST_LOOKED:
            self._looked += len(self.tools)
            fitting = [t.name for t in self.tools.values() if _takes(t, given) and self._usable(t)]
        took = f" These take such arguments: {listed(fitting, most=5)}." if 0 < len(fitting) <= _FEW else ""
        return f"`toolweaver tools list` shows those that there are.{took}"

    @staticmethod
    def _prepare(tool: ToolDefinition) -> Checked | None:
        try:
            return prepare(tool)
        except SchemaError:
            return None


def _takes(tool: ToolDefinition, given: Mapping[str, Any]) -> bool:
    """Whether a tool takes all arguments of these names and needs no others."""
    needed = tool.input_schema.get("required", ())
    return given.keys() <= {p.name for p in tool.parameters} and given.keys() >= set(needed)


def _everything(_: ToolDefinition) -> str | None:
    return None
