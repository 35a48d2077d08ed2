"""A tool as search sees it: weighted words, a text for its vector, what filters look at, and what it costs in a prompt."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.analysis import MAX_KNOWN, MAX_WORD, counted, full_terms
from orchestrator.tool_search.tokens import count_tokens

RECIPE = "3"
"""The version of what is made of a tool; a snapshot of another one is made anew."""

NAME, DESCRIPTION, LABEL, PARAMETER = 3.0, 1.0, 1.0, 0.5
MAX_TEXT = 2_000  # characters for the vector: its model reads 256 tokens
MAX_DESCRIPTION = 20_000
MOST_TIMES = 3  # that a word of a description counts: who repeats a popular query a thousand times gains nothing, only length
MAX_PARAMETERS = 100
MAX_PARAMETER_TEXT = 200
GENERAL = "general"
MAX_SHOWN = 50_000  # characters whose tokens are counted; what stands behind is counted at their rate

_ALNUM = re.compile(r"[A-Za-z0-9]+")
_PIECE = re.compile(r"[^\W_]+|[^\w\s]|_")


class Group(NamedTuple):
    """What filters look at: many tools share one."""

    tenants: tuple[str, ...] | None
    requires: tuple[str, ...]
    tags: tuple[str, ...]
    server: str | None
    pool: str
    deprecated: bool


@dataclass(frozen=True, slots=True)
class Document:
    """A tool as search sees it.

    `terms`: weighted counts over the fields; `length`: of all its words, weighted; `text`: what the vector is of.
    """

    name: str
    version: str
    terms: dict[str, float]
    length: float
    text: str
    names: tuple[str, ...]
    group: Group
    tokens: int
    row: bytes


def document_of(tool: ToolDefinition) -> Document:
    """The document of a tool."""
    return document_of_row(tool.to_row().encode())


def document_of_row(row: bytes) -> Document:
    """The document of `ToolDefinition.to_row()`, without making the tool: a million are read so."""
    tool: dict[str, Any] = json.loads(row)
    name: str = tool["name"]
    described = str(tool.get("description", ""))[:MAX_DESCRIPTION]
    weighted, length = _weighted(tool, name, described)
    return Document(
        name=name,
        version=_version(tool),
        terms=weighted,
        length=length,
        text=f"{name}: {described}"[:MAX_TEXT],
        names=_names(tool, name),
        group=_group(tool),
        tokens=_tokens(_shown(tool)),
        row=row,
    )


def _weighted(tool: Mapping[str, Any], name: str, described: str) -> tuple[dict[str, float], float]:
    """The weight of each term, and the length: that of all words, also of those that are repeated in vain."""
    found: dict[str, float] = {}
    length = _add(found, counted(name), NAME)
    length += _add(found, full_terms(described), DESCRIPTION, most=MOST_TIMES)
    length += _add(found, [t for label in _labels(tool) for t in full_terms(label)], LABEL, most=MOST_TIMES)
    length += _add(found, full_terms(" ".join(_parameters(tool))), PARAMETER)
    return found, length


def _add(found: dict[str, float], words: Sequence[str], weight: float, *, most: int = MAX_DESCRIPTION) -> float:
    for word, times in Counter(words).items():
        found[word] = found.get(word, 0.0) + weight * min(times, most)
    return weight * len(words)


def _labels(tool: Mapping[str, Any]) -> Iterable[str]:
    if (domain := tool.get("domain", GENERAL)) != GENERAL:
        yield domain
    if server := tool.get("server"):
        yield server
    if (native := tool.get("native_name")) and native not in tool["name"]:
        yield native
    yield from tool.get("tags", ())
    yield from tool.get("aliases", ())


def _parameters(tool: Mapping[str, Any]) -> Iterable[str]:
    """Name and the beginning of the description of each parameter."""
    schema = tool.get("json_schema")
    if schema is not None:
        properties = schema.get("properties")
        pairs = list(properties.items())[:MAX_PARAMETERS] if isinstance(properties, dict) else []
        return [_said(name, part.get("description") if isinstance(part, dict) else "") for name, part in pairs]
    return [_said(p["name"], p.get("description")) for p in tool.get("parameters", ())[:MAX_PARAMETERS]]


def _said(name: str, description: Any) -> str:
    return f"{name} {description[:MAX_PARAMETER_TEXT]}" if isinstance(description, str) else name


def _names(tool: Mapping[str, Any], name: str) -> tuple[str, ...]:
    known = (name, tool.get("native_name"), *tool.get("aliases", ()))
    return tuple(dict.fromkeys(n.lower() for n in known if n))


def _group(tool: Mapping[str, Any]) -> Group:
    tenants = tool.get("tenants")
    return Group(
        tenants=None if tenants is None else tuple(tenants),
        requires=_needed(tool),
        tags=tuple(tool.get("tags", ())),
        server=tool.get("server"),
        pool=tool.get("pool", "function"),
        deprecated=tool.get("deprecated") is not None,
    )


def _needed(tool: Mapping[str, Any]) -> tuple[str, ...]:
    """As `policy.permissions.needed`."""
    declared = tuple(tool.get("requires", ()))
    runs_code = tool.get("type") == "code_exec" and not any(a.startswith("code_exec:") for a in declared)
    return (*declared, "code_exec:python") if runs_code else declared


def _version(tool: Mapping[str, Any]) -> str:
    """As `ToolDefinition.content_hash`."""
    canonical = json.dumps(tool, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _shown(tool: Mapping[str, Any]) -> str:
    """The tool as a model sees it, but for examples: as `ToolDefinition.to_llm_format`."""
    schema = tool.get("json_schema")
    if schema is None:
        schema = _schema(tool.get("parameters", ()))
    described = {"name": tool["name"], "description": tool.get("description", ""), "parameters": schema}
    return json.dumps(described, separators=(",", ":"), ensure_ascii=False)


def _schema(parameters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    parts = {p["name"]: _part(p) for p in parameters}
    required = [p["name"] for p in parameters if p.get("required")]
    return {"type": "object", "properties": parts, "required": required, "additionalProperties": False}


def _part(parameter: Mapping[str, Any]) -> dict[str, Any]:
    typed = parameter.get("json_schema") or {"type": parameter.get("type", "string")}
    return {**typed, **{k: parameter[k] for k in ("description", "enum", "default") if k in parameter}}


def _tokens(text: str) -> int:
    """As `count_tokens`, word by word: WordPiece never looks over the border of a word, so what a word takes is kept."""
    read = text[:MAX_SHOWN]
    words = (_ALNUM if read.isascii() else _PIECE).findall(read)
    counted = sum(map(_WORD_TOKENS.__getitem__, words))
    if read.isascii():  # each other character is a token by itself, but for spaces
        counted += len(read) - sum(map(len, words)) - read.count(" ")
    return counted if len(text) <= MAX_SHOWN else round(counted * len(text) / MAX_SHOWN)


class _WordTokens(dict[str, int]):
    """The tokens of each word that was met."""

    def __missing__(self, word: str) -> int:
        found = count_tokens(word)
        if len(word) <= MAX_WORD:
            if len(self) >= MAX_KNOWN:
                self.clear()
            self[word] = found
        return found


_WORD_TOKENS = _WordTokens()
