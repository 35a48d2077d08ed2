"""The request of one call: values written into path, query, headers, cookies and body as the document says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from orchestrator.errors import ToolError
from orchestrator.models.file import FileRef, digest_of
from orchestrator.tool_discovery.openapi import FORMS, Body, Operation, Place

_RESERVED = ":/?[]@!$'()*,;"  # what a value with `allowReserved` may hold as it is; `#`, `&`, `=` and `+` mean something else
_CHUNK = 64 << 10
_DELIMITERS = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}


@dataclass(frozen=True, slots=True)
class Attached:
    """A file of the tenant that goes along: what is known of it, and a copy on this machine."""

    info: FileRef
    path: Path


@dataclass
class Outgoing:
    """What is sent. `make_body` makes the body anew for each attempt; files that it opens are closed with `close`."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    make_body: Any = None
    _open: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Closes the files."""
        self._open.close()


def file_references(operation: Operation, arguments: Mapping[str, Any]) -> list[str]:
    """The references to files among the arguments."""
    names = operation.body.files if operation.body is not None else ()
    given = (arguments.get(name) for name in names)
    return [ref for value in given for ref in (value if isinstance(value, list) else [value]) if isinstance(ref, str)]


def outgoing(operation: Operation, arguments: Mapping[str, Any], files: Mapping[str, Attached]) -> Outgoing:
    """The request for these arguments; `files` holds those that they refer to.

    Raises:
        ToolError: `bad_input`: a value cannot stand where it has to.
    """
    path, query, cookies = operation.url.partition("?")[0], [q for q in [operation.url.partition("?")[2]] if q], []
    made = Outgoing(operation.method, "", {"Accept": "application/json, */*;q=0.5"})
    for place in operation.places:
        value = arguments.get(place.property)
        if value is None:
            continue
        if place.as_json:
            value = _json(value)
        if place.where == "path":
            path = path.replace(f"{{{place.name}}}", _in_path(place, value))
        elif place.where == "query":
            query += _in_query(place, value)
        elif place.where == "header":
            made.headers[place.name] = _in_header(place, value)
        else:
            cookies += _in_query(place, value)
    if cookies:
        made.headers["Cookie"] = "; ".join(cookies)
    made.url = path + (f"?{'&'.join(query)}" if query else "")
    if operation.body is not None:
        _give_body(made, operation.body, arguments, files)
    return made


def _in_path(place: Place, value: Any) -> str:
    start = {"label": ".", "matrix": ";"}.get(place.style, "")
    parts = _parts(value, explode=place.explode)
    between = "." if place.explode and start else ","
    text = _matrix(place, value, parts) if place.style == "matrix" else between.join(parts)
    if not text or (not start and text in (".", "..")):
        raise _unfit(place, "is empty, or would lead to another path")
    return start + text


def _matrix(place: Place, value: Any, parts: list[str]) -> str:
    name = quote(place.name, safe="")
    if place.explode and isinstance(value, Mapping):
        return ";".join(parts)
    if place.explode and isinstance(value, list):
        return ";".join(f"{name}={part}" for part in parts)
    return f"{name}={','.join(parts)}"


def _in_query(place: Place, value: Any) -> list[str]:
    name, safe = quote(place.name, safe="[]"), _RESERVED if place.reserved else ""
    if place.style == "deepObject" and isinstance(value, Mapping):
        return [f"{key}={quote(text, safe=safe)}" for key, text in _deep(place.name, value)]
    parts = _parts(value, explode=place.explode, safe=safe)
    if place.explode and isinstance(value, Mapping):
        return parts
    if place.explode:
        return [f"{name}={part}" for part in parts]
    return [f"{name}={_DELIMITERS.get(place.style, ',').join(parts)}"] if parts else []


def _in_header(place: Place, value: Any) -> str:
    text = ",".join(_raw_parts(value, explode=place.explode))
    if not text.isascii() or not text.isprintable():
        raise _unfit(place, "holds what a header cannot")
    return text


def _parts(value: Any, *, explode: bool, safe: str = "") -> list[str]:
    """The parts of a value, encoded: the items of a list, `name=value` or name and value of an object."""
    if isinstance(value, Mapping):
        pairs = [(quote(k, safe=safe), quote(_text(v), safe=safe)) for k, v in value.items() if v is not None]
        return [f"{k}={v}" for k, v in pairs] if explode else [part for pair in pairs for part in pair]
    return [quote(part, safe=safe) for part in _raw_parts(value, explode=explode)]


def _raw_parts(value: Any, *, explode: bool) -> list[str]:
    if isinstance(value, Mapping):
        pairs = [(k, _text(v)) for k, v in value.items() if v is not None]
        return [f"{k}={v}" for k, v in pairs] if explode else [part for pair in pairs for part in pair]
    return [_text(v) for v in value] if isinstance(value, list) else [_text(value)]


def _deep(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """`name[a][b]=c` for each value within an object."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _deep(f"{name}[{quote(key, safe='')}]", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _deep(name, inner)
    elif value is not None:
        yield name, _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _unfit(place: Place, why: str) -> ToolError:
    return ToolError(f"`{place.property}` {why}", code="bad_input", path=place.property)


def _give_body(made: Outgoing, body: Body, arguments: Mapping[str, Any], files: Mapping[str, Attached]) -> None:
    """Adds the body, and the header that says what it is; nothing where it may be left out and is."""
    value = arguments.get(body.whole) if body.whole is not None else {n: arguments[n] for n in body.properties if n in arguments}
    if (value is None and body.whole not in arguments) or (value == {} and body.whole is None and not body.required):
        return
    if body.media_type == FORMS[0]:
        parts = value if isinstance(value, Mapping) else {}
        made.make_body = lambda: {"files": list(_form_parts(made, body, parts, files))}
    elif isinstance(value, str) and value in files:
        _give_file(made, body.media_type, files[value])
    else:
        text = _written(body, value)
        named = body.media_type.startswith("text/")
        made.headers["Content-Type"] = f"{body.media_type}; charset=utf-8" if named else body.media_type
        made.make_body = lambda: {"content": text.encode()}


def _written(body: Body, value: Any) -> str:
    if body.media_type == FORMS[1]:
        return urlencode(list(_form_pairs(body, value if isinstance(value, Mapping) else {})))
    return value if isinstance(value, str) and "json" not in body.media_type else _json(value)


def _form_pairs(body: Body, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if body.encodings.get(name, {}).get("style") == "deepObject":
            yield from _deep(name, inner)
        elif isinstance(inner, list):
            yield from ((name, _text(item)) for item in inner)
        elif inner is not None:
            yield name, _text(inner)


def _form_parts(
    made: Outgoing, body: Body, value: Mapping[str, Any], files: Mapping[str, Attached]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The parts of a form as `httpx` takes them; a list is as many parts."""
    for name, inner in value.items():
        said = body.encodings.get(name, {}).get("contentType")
        for item in inner if isinstance(inner, list) else [inner]:
            if item is None:
                continue
            if name in body.files and item in files:
                attached = files[item]
                opened = made._open.enter_context(attached.path.open("rb"))
                yield name, (attached.info.name or name, opened, attached.info.media_type)
            else:
                kind = said if isinstance(said, str) and "," not in said else None if isinstance(item, str) else "application/json"
                yield name, (None, _text(item).encode(), *((kind,) if kind and not isinstance(item, int | float) else ()))


def _give_file(made: Outgoing, media_type: str, attached: Attached) -> None:
    made.headers["Content-Type"] = attached.info.media_type if "*" in media_type else media_type
    made.headers["Content-Length"] = str(attached.info.size)
    made.make_body = lambda: {"content": _chunks(attached.path)}


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


def checked_references(references: list[str]) -> list[str]:
    """The references, each known to be one.

    Raises:
        ToolError: `bad_input`.
    """
    for ref in references:
        if digest_of(ref) is None:
            raise ToolError(
                f"`{ref[:80]}` is no reference to a file", code="bad_input", next="Upload it and pass `blob:sha256:...`."
            )
    return references
