"""What a person gives the search lab: queries with the names of the right tools, and a catalog; in the forms that people have.

Every error names the line and the next move: a lab that is fed wrongly measures nothing.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import RequestError
from orchestrator.models.tool import ToolCatalog, ToolDefinition

QUERY_KEYS = ("query", "request", "question", "text")
TOOL_KEYS = ("tools", "tool", "used", "labels", "label", "wanted", "names")
SCHEMA_KEYS = ("inputSchema", "input_schema", "json_schema", "parameters")
MOST_PROBLEMS = 20
SEPARATORS = ",;\t"  # of the values of a CSV
TOO_MUCH = "\0"  # what a row has beside the columns
_BETWEEN = re.compile(r"[;,|\s]+")
FORMS = (
    'Write one object a line: {"query": "read a receipt", "tools": ["receipt_ocr"]}, or CSV with the columns `query` and `tools`.'
)


@dataclass(frozen=True, slots=True)
class Case:
    """A query and the tools that are right for it; `line` of its file, from 1."""

    line: int
    query: str
    tools: tuple[str, ...]


def read_cases(text: str, *, name: str) -> list[Case]:
    """The cases of a file: JSON lines, a JSON list or mapping, or CSV with a heading; which one, its text says.

    Raises:
        RequestError: `bad_queries`, with a problem for every line that cannot be read.
    """
    problems: list[dict[str, Any]] = []
    found: list[Case] = []
    for line, row in _rows(text.lstrip("\ufeff"), name):
        case, wrong = _case(line, row)
        if case is not None:
            found.append(case)
        else:
            problems.append({"path": f"line {line}", "message": wrong})
    if problems:
        raise _bad(f"{len(problems)} lines of `{name}` cannot be read", name, problems)
    if not found:
        raise _bad(f"`{name}` holds no queries", name)
    return found


def read_catalog(text: str, *, name: str) -> ToolCatalog:
    """A catalog of a file: tools of ours, of MCP's `tools/list`, or as OpenAI or Anthropic take them; a JSON list, or JSON lines.

    Raises:
        RequestError: `bad_catalog`, with a problem for every tool that cannot be read.
    """
    catalog, problems = ToolCatalog(source=name), []
    for line, row in _tool_rows(text.lstrip("\ufeff"), name):
        try:
            catalog.add_tool(_tool(row))
        except (ValidationError, ValueError, TypeError) as error:
            problems.append({"path": f"tool {line}", "message": _why(error)})
    if problems:
        raise _bad_catalog(f"{len(problems)} tools of `{name}` cannot be read", name, problems)
    if not catalog.tools:
        raise _bad_catalog(f"`{name}` holds no tools", name)
    return catalog


def _rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    start = text.lstrip()[:1]
    if start == "[" or (start == "{" and _is_whole(text)):
        yield from _of_document(json_value(text, name), text)
    elif start == "{":
        yield from _of_lines(text, name)
    else:
        yield from _of_csv(text, name)


def _is_whole(text: str) -> bool:
    """Whether it is one JSON value, not one a line."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and not any(k in value for k in QUERY_KEYS)


def _of_document(value: Any, text: str) -> Iterator[tuple[int, Any]]:
    if isinstance(value, dict) and isinstance(value.get("queries"), list):
        value = value["queries"]
    rows = value if isinstance(value, list) else [{"query": query, "tools": tools} for query, tools in value.items()]
    at = 0
    for row in rows:  # the place of a row's query in the text is good enough to find it by
        said = json.dumps(row.get("query"), ensure_ascii=False) if isinstance(row, dict) else ""
        at = max(at, text.find(said, at))
        yield text.count("\n", 0, at) + 1, row


def _of_lines(text: str, name: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, json_value(line, name, line=number)


def _of_csv(text: str, name: str) -> Iterator[tuple[int, Any]]:
    between = next((b for b in SEPARATORS if _is_heading(_columns(text, b))), SEPARATORS[0])
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=between, restkey=TOO_MUCH)
    columns = [c.strip().lower() for c in reader.fieldnames or ()]
    if not _is_heading(columns):
        raise _bad(f"`{name}` has no heading with the columns `query` and `tools`", name, line=1)
    reader.fieldnames = columns
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise _bad(f"`{name}` is no CSV: {error}", name, line=reader.line_num) from None


def _columns(text: str, between: str) -> list[str]:
    """The heading of a CSV; spreadsheets of many countries write semicolons."""
    heading = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=between)
    try:
        return [c.strip().lower() for c in next(heading, [])]
    except csv.Error:
        return []


def _is_heading(columns: Sequence[str]) -> bool:
    return not set(columns).isdisjoint(QUERY_KEYS) and not set(columns).isdisjoint(TOOL_KEYS)


def _case(line: int, row: Any) -> tuple[Case | None, str]:
    if not isinstance(row, Mapping):
        return None, "is no object with a query and its tools"
    if TOO_MUCH in row:
        return None, "has more values than the heading has columns: put a text that holds the separator in double quotes"
    query = next((row[k] for k in QUERY_KEYS if row.get(k)), None)
    given = next((row[k] for k in TOOL_KEYS if row.get(k)), None)
    if not isinstance(query, str) or not query.strip():
        return None, "has no `query`"
    tools = _names(given)
    if not tools:
        return None, "has no `tools`: name the right ones, or take the line out"
    return Case(line, query.strip(), tools), ""


def _names(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = _names_of_text(given)
    if not isinstance(given, Sequence) or not all(isinstance(n, str) for n in given):
        return ()
    return tuple(dict.fromkeys(n.strip() for n in given if n.strip()))


def _names_of_text(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return ()
    return _BETWEEN.split(text)


def _tool_rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    if text.lstrip()[:1] == "[" or _is_whole_catalog(text):
        value = json_value(text, name, code="bad_catalog")
        rows = value["tools"] if isinstance(value, dict) else value
        yield from enumerate(rows, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, json_value(line, name, line=number, code="bad_catalog")


def _is_whole_catalog(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("tools"), list)


def _tool(row: Any) -> ToolDefinition:
    """A tool of any of the forms; what only other systems say of it is left out."""
    if not isinstance(row, dict):
        raise TypeError("it is no object")
    if isinstance(row.get("function"), dict):  # OpenAI's chat format
        row = row["function"]
    if isinstance(row.get("parameters"), list):
        return ToolDefinition.model_validate(row)
    schema = next((row[k] for k in SCHEMA_KEYS if isinstance(row.get(k), dict)), None)
    kept = {k: v for k, v in row.items() if k in ToolDefinition.model_fields and k != "parameters" and v is not None}
    return ToolDefinition.model_validate(kept | ({"json_schema": schema} if schema is not None else {}))


def json_value(text: str, name: str, *, line: int = 0, code: str = "bad_queries") -> Any:
    """What a text says as JSON.

    Raises:
        RequestError: it is none; where it breaks.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        at = line or getattr(error, "lineno", 1)
        message = f"`{name}` is no JSON: {getattr(error, 'msg', error)} at line {at}, column {getattr(error, 'colno', 1)}"
        raise (_bad(message, name, line=at) if code == "bad_queries" else _bad_catalog(message, name)) from None


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
    return str(error)


def _bad(message: str, name: str, problems: Sequence[dict[str, Any]] = (), *, line: int = 0) -> RequestError:
    error = RequestError(message, path=f"{name}:{line}" if line else name, next=FORMS, problems=problems[:MOST_PROBLEMS])
    error.code = "bad_queries"
    return error


def _bad_catalog(message: str, name: str, problems: Sequence[dict[str, Any]] = ()) -> RequestError:
    move = "A catalog is what `toolweaver tools list --json` or an MCP server's `tools/list` gives, or a tool a line as JSON."
    error = RequestError(message, path=name, next=move, problems=problems[:MOST_PROBLEMS])
    error.code = "bad_catalog"
    return error
