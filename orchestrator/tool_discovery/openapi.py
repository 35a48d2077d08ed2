"""The operations of an OpenAPI document as tools, each with the plan of its request. One bad operation never breaks the rest.

Schemas are checked by `jsonschema`, the objects around them by the small models below; `openapi-pydantic` refuses schemas
that are valid (`true`, an unknown type), the validators of whole documents bring a web framework or six packages with them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.catalog.imported import imported_name
from orchestrator.errors import ToolWeaverError
from orchestrator.models.catalog import Quarantined, Refusal
from orchestrator.models.plan import Effect
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from orchestrator.tool_discovery.diff import said_version
from orchestrator.tool_discovery.mcp import CUT_DESCRIPTION, MAX_DESCRIPTION, ServerReport
from orchestrator.tool_discovery.openapi_read import Document, read_document
from orchestrator.tool_discovery.openapi_schema import Schemas, Unusable, followed, is_file, with_file
from orchestrator.tool_discovery.servers import OpenApiConfig, resolve_secrets
from orchestrator.tool_discovery.vet import vet

POOL = "http"
MOST_OPERATIONS = 2_000
METHODS: dict[str, Effect] = {
    "get": "none", "head": "none", "options": "none", "put": "idempotent", "delete": "idempotent", "post": "once", "patch": "once",
}  # fmt: skip
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
Where = Literal["path", "query", "header", "cookie"]
_STYLES: dict[Where, tuple[str, ...]] = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
_OURS = frozenset(
    {"accept", "content-type", "authorization", "idempotency-key", "host", "content-length", "transfer-encoding", "cookie"}
)
_PLAIN_OBJECT = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description", "examples", "default", "$comment"}
)


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class _Parameter(_Read):
    name: str = Field(min_length=1, max_length=200)
    where: Where = Field(alias="in")
    required: bool = False
    description: str = ""
    deprecated: bool = False
    style: str | None = None
    explode: bool | None = None
    reserved: bool = Field(default=False, alias="allowReserved")
    of: Any = Field(default=None, alias="schema")
    content: dict[str, Any] | None = None
    example: Any = None


class _Operation(_Read):
    id: str | None = Field(default=None, alias="operationId", max_length=512)
    summary: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    deprecated: bool = False
    parameters: tuple[Any, ...] = ()
    body: Any = Field(default=None, alias="requestBody")
    responses: dict[str, Any] = {}
    servers: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a property of the input goes in the request, and how its value is written there."""

    property: str
    name: str
    where: Where
    style: str
    explode: bool
    as_json: bool = False
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What becomes the body: one property whole, or, when `whole` is None, those in `properties` together as an object.

    `files` are the properties (or the whole) that name files; `encodings` what the document says of the parts of a form.
    """

    media_type: str
    whole: str | None
    properties: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()
    required: bool = False
    encodings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """A tool, and how it is called: `method`, `url` with places for its path's values, and what goes where."""

    tool: ToolDefinition
    method: str
    url: str
    places: tuple[Place, ...] = ()
    body: Body | None = None


@dataclass(frozen=True)
class Offer:
    """What a document offers: the operations that may be called, and the report of all. `url` is whom its headers are for."""

    report: ServerReport
    operations: tuple[Operation, ...] = ()
    url: str = ""


async def discover_document(document: OpenApiConfig, *, settings: Settings) -> ServerReport:
    """Reads the document and judges its operations; without ever raising for it."""
    started = time.monotonic()
    try:
        report = offer_of(await read_document(document, settings=settings), document).report
    except ToolWeaverError as error:
        report = ServerReport(document.name, error=str(error))
    return replace(report, seconds=time.monotonic() - started)


def offer_of(document: Document, config: OpenApiConfig) -> Offer:
    """What becomes of the operations of a document. Its whole is refused only when nobody knows where the API is."""
    data = document.data
    report = ServerReport(config.name, protocol=f"OpenAPI {data['openapi']}", version=_version(data))
    try:
        url = _address(data.get("servers"), document, config)
    except Unusable as error:
        return Offer(replace(report, error=f"{error}; set `base_url` in its entry"))
    judge = _Judge(document, config, url)
    for method, path, shared, raw in _listed(data):
        judge.take(method, path, shared, raw)
    notes = tuple(judge.notes)
    if judge.seen > MOST_OPERATIONS:
        notes += (f"it has {judge.seen:,} operations; the first {MOST_OPERATIONS:,} are tools",)
    tools = tuple(o.tool for o in judge.operations)
    report = replace(
        report, tools=tools, quarantined=tuple(judge.quarantined), refused=tuple(judge.refused), held=tuple(judge.held), notes=notes
    )
    return Offer(report, tuple(judge.operations), url)


class _Judge:
    """Sorts the operations of one document."""

    def __init__(self, document: Document, config: OpenApiConfig, url: str) -> None:
        self._document, self._config, self._url = document, config, url
        self._names: set[str] = set()
        self._ids: set[str] = set()
        self.seen = 0
        self.operations: list[Operation] = []
        self.held: list[ToolDefinition] = []
        self.quarantined: list[Quarantined] = []
        self.refused: list[Refusal] = []
        self.notes: list[str] = []

    def take(self, method: str, path: str, shared: Mapping[str, Any], raw: Any) -> None:
        self.seen += 1
        if self.seen > MOST_OPERATIONS:
            return
        native = f"{method.upper()} {path}"
        try:
            native = self._native(raw, native)
            self._place(_Reader(self._document, self._config, self._url, native).operation(method, path, shared, raw))
        except (Unusable, ValidationError, RecursionError) as error:
            self.refused.append(Refusal(native_name=native[:128], reason=_reason(error)))

    def _native(self, raw: Any, otherwise: str) -> str:
        """The operation's own id; method and path when it has none, or another has it already."""
        said = raw.get("operationId") if isinstance(raw, Mapping) else None
        if not isinstance(said, str) or not said.strip() or not said.isprintable():
            return otherwise
        if said in self._ids:
            self.notes.append(f"two operations are called `{said[:100]}`; one of them is `{otherwise[:200]}` here")
            return otherwise
        self._ids.add(said)
        return said

    def _place(self, operation: Operation) -> None:
        tool = operation.tool
        if tool.name in self._names:
            raise Unusable(f"its name becomes `{tool.name}` here, like that of another operation")
        findings = vet(tool)
        if wrong := [str(f) for f in findings if f.severity == "refuse"]:
            raise Unusable("; ".join(wrong))
        self._names.add(tool.name)
        self.notes += [f"`{tool.name}`: {f}" for f in findings if f.severity == "note"]
        reasons = tuple(str(f) for f in findings if f.severity == "quarantine")
        if reasons and self._config.approved.get(str(tool.native_name)) != (version := said_version(tool)):
            self.held.append(tool)
            self.quarantined.append(Quarantined(name=tool.name, version=version, reasons=reasons))
        else:
            self.operations.append(operation)


class _Reader:
    """Makes one operation. `native` is its name in the document."""

    def __init__(self, document: Document, config: OpenApiConfig, url: str, native: str) -> None:
        self._found_at, self._document, self._config, self._url, self._native = document, document.data, config, url, native
        self._old = str(self._document["openapi"]).startswith("3.0")
        self._sent = Schemas(self._document, old=self._old, sending=True)
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []
        self._places: list[Place] = []
        self._keys = _keys(self._document)

    def operation(self, method: str, path: str, shared: Mapping[str, Any], raw: Any) -> Operation:
        """The tool and its request.

        Raises:
            Unusable, ValidationError: it is no operation that can be called.
        """
        read = _Operation.model_validate(raw)
        for parameter in _merged(self._document, shared.get("parameters"), read.parameters):
            self._parameter(parameter)
        self._all_places_filled(path)
        url = self._address_of(read, shared)
        body = self._body(read.body) if read.body is not None else None
        tool = self._tool(read, method, shared, url)
        return Operation(
            tool, method.upper(), url.rstrip("/") + path if "?" not in url else _before_query(url, path), tuple(self._places), body
        )

    def _tool(self, read: _Operation, method: str, shared: Mapping[str, Any], url: str) -> ToolDefinition:
        config, scheme = self._config, "https" if url.startswith("https:") else "http"
        schema = {"type": "object", "properties": self._properties, "required": self._required, "additionalProperties": False}
        definitions = self._sent.definitions()
        return ToolDefinition(
            name=imported_name(config.name, self._native if self._native == read.id else _named(self._native)),
            description=_described(read, shared),
            domain=config.name,
            pool=POOL,
            server=config.name,
            native_name=self._native,
            json_schema=schema | ({"$defs": definitions} if definitions else {}),
            output_schema=self._answers(read.responses),
            tags=tuple(dict.fromkeys(t[:100] for t in read.tags)),
            effect=config.effects.get(self._native) or METHODS[method],
            timeout_s=config.timeout_s,
            tenants=config.tenants,
            requires=tuple(dict.fromkeys((*config.requires, f"network:{scheme}"))),
            deprecated="the API calls it deprecated" if read.deprecated else None,
        )

    def _address_of(self, read: _Operation, shared: Mapping[str, Any]) -> str:
        """Where this operation is; headers with secrets go to one origin alone."""
        own = read.servers or shared.get("servers")
        if not own or self._config.base_url is not None:
            return self._url
        url = _address(own, self._found_at, self._config)
        if self._config.headers and _origin(url) != _origin(self._url):
            raise Unusable(
                f"it is at `{_origin(url)}`, and the headers are for `{_origin(self._url)}`; make it an entry of its own"
            )
        return url

    def _parameter(self, parameter: _Parameter) -> None:
        if self._is_given(parameter):
            return
        style = parameter.style or ("form" if parameter.where in ("query", "cookie") else "simple")
        schema, as_json = parameter.of, False
        if parameter.content:
            media, said = _preferred(parameter.content)
            schema, as_json = said.get("schema"), _is_json(media)
        elif style not in _STYLES[parameter.where]:
            raise Unusable(f"parameter `{parameter.name}` is written in the style `{style}`, which a {parameter.where} has not")
        name = self._free(parameter.name, parameter.where)
        explode = parameter.explode if parameter.explode is not None else style == "form"
        self._places.append(Place(name, parameter.name, parameter.where, style, explode, as_json, parameter.reserved))
        self._add(name, self._told(parameter, schema), required=parameter.required or parameter.where == "path")

    def _is_given(self, parameter: _Parameter) -> bool:
        """Whether the platform fills it: what belongs to the request itself, and what the entry's headers say."""
        if (parameter.where, parameter.name.lower()) in self._keys:
            return True
        if parameter.where != "header":
            return False
        return parameter.name.lower() in _OURS or parameter.name.lower() in {h.lower() for h in self._config.headers}

    def _told(self, parameter: _Parameter, schema: Any) -> Any:
        made = self._sent.converted(schema) if schema is not None else {}
        said: dict[str, Any] = {"description": parameter.description} if parameter.description else {}
        if parameter.example is not None:
            said["examples"] = [parameter.example]
        if parameter.deprecated:
            said["deprecated"] = True
        return {**made, **said} if isinstance(made, Mapping) else (said or made)

    def _all_places_filled(self, path: str) -> None:
        wanted, given = set(re.findall(r"\{([^{}]+)\}", path)), {p.name for p in self._places if p.where == "path"}
        if missing := wanted - given:
            raise Unusable(f"its path needs `{'`, `'.join(sorted(missing))}`, which no parameter gives")
        if extra := given - wanted:
            raise Unusable(f"its path has no place for `{'`, `'.join(sorted(extra))}`")

    def _body(self, raw: Any) -> Body | None:
        body = followed(self._document, raw)
        content = body.get("content") if isinstance(body, Mapping) else None
        if not isinstance(content, Mapping) or not content:
            raise Unusable("its body has no `content`")
        media, said = _preferred(content)
        required, schema = body.get("required") is True, said.get("schema", {})
        if not _is_json(media) and media not in FORMS:
            return self._opaque(media, body, required=required)
        whole = self._unfolded(schema)
        if whole is not None and self._fits(whole, required=required):
            return self._merge(media, whole, said, required=required)
        name = self._free("body", "body")
        self._add(name, _with_description(self._sent.converted(schema), body), required=required)
        return Body(media, name, required=required, encodings=_encodings(said))

    def _opaque(self, media: str, body: Mapping[str, Any], *, required: bool) -> Body:
        """A body that is a text, or a file."""
        name, text = self._free("body", "body"), media.startswith("text/") or media.endswith(("+xml", "/xml"))
        told = _with_description({}, body)
        self._add(name, {**told, "type": "string"} if text else with_file(told), required=required)
        return Body(media, name, files=frozenset() if text else frozenset({name}), required=required)

    def _unfolded(self, schema: Any) -> dict[str, Any] | None:
        """The schema of an object whose properties may stand among the parameters."""
        made = self._sent.converted(followed(self._document, schema))
        if not isinstance(made, dict) or not isinstance(made.get("properties"), Mapping) or not set(made) <= _PLAIN_OBJECT:
            return None
        open_ended = made.get("additionalProperties", False) is not False
        return None if made.get("type", "object") != "object" or open_ended else made

    def _fits(self, whole: Mapping[str, Any], *, required: bool) -> bool:
        """Whether no name is taken, and leaving all of it out still means to send no body."""
        clash = set(whole["properties"]) & set(self._properties)
        return not clash and bool(whole["properties"]) and (required or not whole.get("required"))

    def _merge(self, media: str, whole: Mapping[str, Any], said: Mapping[str, Any], *, required: bool) -> Body:
        wanted, properties = whole.get("required", ()), whole["properties"]
        files = {n: s for n, schema in properties.items() if media == FORMS[0] and (s := _of_file(schema)) is not None}
        for name, schema in properties.items():
            self._add(name, files.get(name, schema), required=name in wanted)
        return Body(media, None, tuple(properties), frozenset(files), required, _encodings(said))

    def _free(self, name: str, where: str) -> str:
        """A name for a property that no other has: the second of a name says where it goes."""
        for candidate in (name, f"{name}_{where}" if where != "body" else "request_body", f"{name}_{where}_2"):
            if candidate not in self._properties:
                return candidate
        raise Unusable(f"it has more than one parameter `{name}`")

    def _add(self, name: str, schema: Any, *, required: bool) -> None:
        self._properties[name] = schema
        if required:
            self._required.append(name)

    def _answers(self, responses: Mapping[str, Any]) -> dict[str, Any] | None:
        """The schema of an answer that succeeds; None when some of those are no JSON, or nothing is said of them."""
        received = Schemas(self._document, old=self._old, sending=False)
        good = [
            followed(self._document, r) for status, r in responses.items() if re.fullmatch(r"2(\d\d|XX)", status, re.IGNORECASE)
        ]
        found = [received.converted(_json_schema(r)) for r in good]
        if not found or not all(isinstance(s, Mapping) for s in found):
            return None
        distinct = list({json.dumps(s, sort_keys=True): s for s in found}.values())
        whole: dict[str, Any] = dict(distinct[0]) if len(distinct) == 1 else {"anyOf": distinct}
        if definitions := received.definitions():
            whole["$defs"] = {**whole.get("$defs", {}), **definitions}
        return whole or None


def _listed(data: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
    """Every operation: its method, path, what its path says for all methods, and itself."""
    paths = data.get("paths")
    for path, raw in paths.items() if isinstance(paths, Mapping) else ():
        try:
            item = followed(data, raw)
        except Unusable:
            item = raw
        if isinstance(item, Mapping) and path.startswith("/"):
            yield from ((method, path, item, item[method]) for method in METHODS if method in item)


def _merged(data: Mapping[str, Any], shared: Any, own: tuple[Any, ...]) -> list[_Parameter]:
    """The parameters of a path and of one operation of it, which wins."""
    both = [*(shared if isinstance(shared, list) else ()), *own]
    read = [_Parameter.model_validate(followed(data, p)) for p in both]
    last = {(p.name.lower() if p.where == "header" else p.name, p.where): p for p in read}
    order: list[Where] = ["path", "query", "header", "cookie"]
    return sorted(last.values(), key=lambda p: order.index(p.where))


def _keys(data: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Where the document wants keys: they are no parameters, so that no plan holds one."""
    components = data.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, Mapping) else None
    found = schemes.values() if isinstance(schemes, Mapping) else ()
    return frozenset(
        (str(s.get("in")), str(s.get("name")).lower()) for s in found if isinstance(s, Mapping) and s.get("type") == "apiKey"
    )


def _address(servers: Any, document: Document, config: OpenApiConfig) -> str:
    """Where the API is: as the entry says, else as the document does.

    Raises:
        Unusable: neither says it.
    """
    if config.base_url is not None:
        return _checked(resolve_secrets(config.base_url))
    first = servers[0] if isinstance(servers, list | tuple) and servers else {"url": "/"}
    url = first.get("url") if isinstance(first, Mapping) else None
    if not isinstance(url, str):
        raise Unusable("its server has no `url`")
    said = first.get("variables")
    for name, variable in said.items() if isinstance(said, Mapping) else ():
        url = url.replace(f"{{{name}}}", str(variable.get("default", "")) if isinstance(variable, Mapping) else "")
    if document.address is not None:
        url = str(httpx.URL(document.address).join(url))
    return _checked(url)


def _checked(url: str) -> str:
    try:
        read = httpx.URL(url)
    except httpx.InvalidURL:
        read = httpx.URL("")
    if read.scheme not in ("http", "https") or not read.host or "{" in url:
        raise Unusable("it does not say where the API is")
    return str(read)


def _before_query(url: str, path: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rstrip('/')}{path}?{query}"


def _origin(url: str) -> str:
    read = httpx.URL(url)
    return f"{read.scheme}://{read.netloc.decode('ascii')}"


def _preferred(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The media type to send: JSON, else a form, else whatever comes first."""
    plain = {media.partition(";")[0].strip().lower(): said for media, said in content.items()}
    ranked = sorted(plain, key=lambda m: (m != "application/json", not _is_json(m), m not in FORMS))
    first = "application/json" if ranked[0] == "*/*" else ranked[0]
    said = plain[ranked[0]]
    return first, said if isinstance(said, Mapping) else {}


def _is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json") or media == "*/*"


def _json_schema(response: Any) -> Any:
    content = response.get("content") if isinstance(response, Mapping) else None
    if not isinstance(content, Mapping) or not content or not all(_is_json(m.partition(";")[0].strip().lower()) for m in content):
        return None
    said = next(iter(content.values()))
    return said.get("schema") if isinstance(said, Mapping) else None


def _of_file(schema: Any) -> dict[str, Any] | None:
    """The schema of a file, of several, or of one that may be left out, as a tool takes them; None for what is none."""
    if not isinstance(schema, Mapping):
        return None
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list) and any(_of_file(one) for one in schema[key]):
            return {**schema, key: [_of_file(one) or one for one in schema[key]]}
    if schema.get("type") == "array" and (items := _of_file(schema.get("items"))) is not None:
        return {**schema, "items": items}
    return with_file(schema) if is_file(schema) else None


def _encodings(said: Mapping[str, Any]) -> Mapping[str, Any]:
    encodings = said.get("encoding")
    return {n: e for n, e in encodings.items() if isinstance(e, Mapping)} if isinstance(encodings, Mapping) else {}


def _with_description(schema: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(schema) if isinstance(schema, Mapping) else {}
    if isinstance(body.get("description"), str) and "description" not in made:
        made["description"] = body["description"]
    return made


def _described(read: _Operation, shared: Mapping[str, Any]) -> str:
    said = [s for s in (shared.get("summary"), shared.get("description")) if isinstance(s, str)]
    own = [read.summary.strip(), read.description.strip()]
    text = "\n\n".join(dict.fromkeys(s for s in (own if any(own) else said) if s))
    return text if len(text) <= MAX_DESCRIPTION else text[:CUT_DESCRIPTION].rstrip() + " (cut)"


def _named(native: str) -> str:
    """A name from method and path: `GET /pets/{id}` is `get_pets_id`."""
    return re.sub(r"\W+", "_", native.lower(), flags=re.ASCII).strip("_")


def _version(data: Mapping[str, Any]) -> str | None:
    info = data.get("info")
    version = info.get("version") if isinstance(info, Mapping) else None
    return str(version)[:100] if version is not None else None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        told = (f"`{'.'.join(str(p) for p in e['loc'])}`: {e['msg']}" for e in error.errors(include_url=False)[:3])
        return "; ".join(told)[:500]
    return (str(error) or type(error).__name__)[:500]
