"""What is wrong with a tool that somebody else described: orders hidden in its words, harm in its schemas.

A filter, not a wall. It finds the published ways of poisoning a tool and their like: invisible characters, encoded texts,
comments, tags of authority, orders to ignore, to conceal, to fetch and hand over secrets, to divert other tools, in the
commonest languages. Of attacks in words of their own, written without a look at it, it finds about half
(tests/unit/vet_corpus.py). It does not find: an order that reads like plain documentation ("pass the user's notes as
`context`"), a tool that merely praises itself over others, one that does another thing than it says, orders in what a tool
*returns*, rarer languages, new words for old tricks. So nothing may rest on it: what a tool may do is decided by permissions,
a changed description is a matter of `report_of`, and a person approves what this holds back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_discovery.vet_orders import orders_in
from orchestrator.tool_discovery.vet_schema import pattern_notes, schema_problems
from orchestrator.tool_discovery.vet_text import decoded, hidden_characters, plain, tags_said, words_of

Severity = Literal["refuse", "quarantine", "note"]
MOST_TEXT = 128 << 10
_MOST_FINDINGS = 10
_MOST_EXCERPT = 160
_PADDING = 250


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a tool. `refuse`: it is no usable tool; `quarantine`: a person has to look at it first."""

    kind: str
    message: str
    severity: Severity
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass(frozen=True, slots=True)
class _Text:
    where: str
    text: str
    kind: Literal["prose", "parameter", "name"] = "prose"


def vet(tool: ToolDefinition) -> list[Finding]:
    """What is wrong with the tool, worst first, ten findings at most; empty for a tool that may be used. Linear in its size."""
    sides = [("input", tool.input_schema), ("output", tool.output_schema)]
    schemas = [(side, schema) for side, schema in sides if schema]
    found = [f for side, schema in schemas for f in _of_schema(side, schema)]
    if not any(f.severity == "refuse" for f in found):
        found += islice(_of_words(tool, schemas), _MOST_FINDINGS)
    order = ("refuse", "quarantine", "note")
    return sorted(dict.fromkeys(found), key=lambda f: order.index(f.severity))[:_MOST_FINDINGS]


def _of_schema(side: str, schema: Mapping[str, Any]) -> Iterator[Finding]:
    problems = list(islice(schema_problems(schema), 3))
    yield from (Finding("schema", problem, "refuse", f"{side} schema") for problem in problems)
    if not problems:
        for pattern in islice(pattern_notes(schema), 3):
            yield Finding("pattern", f"the pattern `{_short(pattern)}` is left to the server", "note", f"{side} schema")


def _of_words(tool: ToolDefinition, schemas: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Finding]:
    left = MOST_TEXT
    for text in _texts(tool, schemas):
        if len(text.text) > left:
            message = f"more than {MOST_TEXT >> 10} KiB of text, too much to be looked at"
            yield Finding("size", message, "quarantine", text.where)
            return
        left -= len(text.text)
        yield from _of_text(text)


def _of_text(text: _Text) -> Iterator[Finding]:
    hidden = hidden_characters(text.text)
    if hidden is not None:
        said = tags_said(text.text)
        message = f"{hidden}{f', which spell `{_short(said)}`' if said else ''}"
        yield Finding("hidden_characters", message, "quarantine", text.where)
    if _pushed_away(text.text):
        yield Finding("hidden_text", "text pushed out of sight by blank space", "quarantine", text.where)
    seen = plain(words_of(text.text) if text.kind == "name" else text.text)
    for order in orders_in(seen, parameter=text.kind != "prose"):
        message = f"an order to the model, {order.wants}: `{_short(order.excerpt)}`"
        yield Finding("hidden_instructions", message, "quarantine", text.where)
    for inner in decoded(text.text):
        for order in orders_in(plain(inner), parameter=True):
            yield Finding("hidden_instructions", f"an encoded order, {order.wants}: `{_short(inner)}`", "quarantine", text.where)


def _pushed_away(text: str) -> bool:
    """Whether so much blank space stands before a text that people do not see it."""
    if " " * _PADDING not in text and "\n" * 20 not in text.replace("\r", "").replace(" ", "").replace("\t", ""):
        return False
    blank = max((len(run) for run in _blanks(text)), default=0)
    return blank >= _PADDING or text.strip().count("\n" * 20) > 0


def _blanks(text: str) -> Iterator[str]:
    start = None
    for at, char in enumerate(text.strip()):
        if char.isspace():
            start = at if start is None else start
        elif start is not None:
            yield text[start:at]
            start = None


def _texts(tool: ToolDefinition, schemas: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[_Text]:
    """Every text of the tool that a model may get to read."""
    yield _Text("name", tool.native_name or tool.name, "name")
    yield _Text("description", tool.description)
    yield from (_Text("alias", name, "name") for name in tool.aliases)
    yield from (_Text("tag", tag) for tag in tool.tags)
    if tool.deprecated:
        yield _Text("deprecated", tool.deprecated)
    for number, example in enumerate(tool.examples, 1):
        yield from _of_value(f"example {number}", example.model_dump())
    for side, schema in schemas:
        yield from _of_value(side, schema, "parameter")


def _of_value(where: str, value: Any, kind: Literal["prose", "parameter"] = "prose") -> Iterator[_Text]:
    """The names and texts within a schema or an example, in their order."""
    todo: list[tuple[str, Any]] = [(where, value)]
    while todo:
        path, node = todo.pop()
        if isinstance(node, str):
            yield _Text(path, node, kind)
        elif isinstance(node, Mapping):
            yield from (_Text(_under(path, name), name, "name" if len(name) < 200 else kind) for name in node)
            todo += [(_under(path, name), inner) for name, inner in reversed(list(node.items()))]
        elif isinstance(node, list | tuple):
            todo += [(path, inner) for inner in reversed(node)]


def _under(path: str, name: str) -> str:
    return f"{path}.{name[:60]}" if len(path) < 200 else path


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text).strip()
    return text if len(text) <= _MOST_EXCERPT else f"{text[: _MOST_EXCERPT - 3]}..."
