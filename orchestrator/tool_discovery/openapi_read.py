"""Reads an OpenAPI document, YAML or JSON, from a file or an address: plain data, and no more of it than can be looked at."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from orchestrator.errors import RequestError, ToolError
from orchestrator.settings import Settings
from orchestrator.tool_discovery.servers import OpenApiConfig, resolve_secrets
from orchestrator.tool_discovery.site import Site, origin_of, read_within

MAX_DOCUMENT = 16 << 20
_MOST_PARTS = 2_000_000
_MOST_DEPTH = 150


@dataclass(frozen=True)
class Document:
    """A document that was read. `address` is where it was, if that was an address; `digest` tells whether it changed."""

    data: Mapping[str, Any]
    digest: str
    address: str | None = None


def is_address(document: str) -> bool:
    """Whether a document is named by its address, not by a path."""
    return document.startswith(("http://", "https://"))


async def read_document(config: OpenApiConfig, *, settings: Settings) -> Document:
    """The document of an entry.

    Raises:
        RequestError: it cannot be read, or is no OpenAPI document of 3.0 or 3.1.
    """
    raw = await _fetched(config, settings) if is_address(config.document) else await asyncio.to_thread(_file, Path(config.document))
    data = await asyncio.to_thread(parsed, raw, config.document)
    return Document(data, hashlib.sha256(raw).hexdigest(), config.document if is_address(config.document) else None)


def parsed(raw: bytes, where: str) -> Mapping[str, Any]:
    """The document that some bytes are.

    Raises:
        RequestError: they are none of 3.0 or 3.1.
    """
    try:
        text = raw.decode("utf-8-sig")
        data = _plain(_loaded(text), _Count())
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise RequestError(f"`{_shown(where)}` cannot be read: {str(error)[:300]}", next="It has to be YAML or JSON.") from None
    version = data.get("openapi") if isinstance(data, Mapping) else None
    if isinstance(version, str) and re.match(r"3\.[01](\.|$)", version):
        assert isinstance(data, Mapping)
        return data
    said = (
        f"OpenAPI {version}" if version else "Swagger 2.0" if isinstance(data, Mapping) and "swagger" in data else "something else"
    )
    raise RequestError(f"`{_shown(where)}` is {said}, not OpenAPI 3.0 or 3.1", next="Convert it first.")


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_DOCUMENT:
            raise RequestError(f"`{path}` is larger than {MAX_DOCUMENT >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"`{path}` cannot be read: {error.strerror}") from None


async def _fetched(config: OpenApiConfig, settings: Settings) -> bytes:
    where = _shown(config.document)
    site = Site(config.document, lambda: _headers_for(config), private=config.private, trusted=settings.fetch_hosts)
    try:
        async with asyncio.timeout(settings.server_connect_s), site.answer("GET", config.document) as response:
            if not response.is_success:
                raise RequestError(f"`{where}` answered {response.status_code}", next="Save it as a file, and name that.")
            raw = await read_within(response, MAX_DOCUMENT)
    except TimeoutError:
        raise RequestError(f"`{where}` did not answer within {settings.server_connect_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise RequestError(f"`{where}` cannot be reached: {str(error) or type(error).__name__}") from None
    except ToolError as error:
        raise RequestError(f"`{where}` cannot be fetched: {error.message}", next=error.next) from None
    finally:
        await site.close()
    if raw is None:
        raise RequestError(f"`{where}` is larger than {MAX_DOCUMENT >> 20} MiB")
    return raw


def _headers_for(config: OpenApiConfig) -> dict[str, str]:
    """The headers, if the document lies where they are meant for: with the API that the operator named."""
    if config.base_url is None or origin_of(httpx.URL(config.document)) != origin_of(httpx.URL(resolve_secrets(config.base_url))):
        return {}
    return {name: resolve_secrets(value) for name, value in config.headers.items()}


def _shown(where: str) -> str:
    """An address without its query, which may hold a key."""
    return where.partition("?")[0] if is_address(where) else where


class _Yaml(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as OpenAPI means it (the JSON schema of 1.2): `on` is a text, `2020-01-01` too, and `1:30` no number."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own way)
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in ("timestamp", "bool", "int")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)


def _loaded(text: str) -> Any:
    return json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, Loader=_Yaml)


class _Count:
    """How many parts were seen: a YAML document of a few lines can unfold without end."""

    def __init__(self) -> None:
        self.parts = 0

    def one_more(self) -> None:
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS:,} parts")


def _plain(node: Any, count: _Count, depth: int = 0) -> Any:
    """The data as JSON has it: the names of fields are texts (`200:` in YAML is a number)."""
    count.one_more()
    if depth > _MOST_DEPTH:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
    if isinstance(node, dict):
        return {str(k): _plain(v, count, depth + 1) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v, count, depth + 1) for v in node]
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError("it holds a number that JSON has not")
    return node if node is None or isinstance(node, str | int | float | bool) else str(node)
