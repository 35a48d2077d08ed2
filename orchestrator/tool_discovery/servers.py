"""The servers file: which MCP servers and OpenAPI documents there are, how to reach them, and what is held of their tools."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from orchestrator.errors import RequestError
from orchestrator.models.access import Action
from orchestrator.models.catalog import ServerKind
from orchestrator.models.plan import Effect
from orchestrator.settings import Settings

ServerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z@][\w .:/@-]{0,63}$")]

SPELLINGS = {"serverUrl": "url", "httpUrl": "url", "transport": "type", "transportType": "type"}
"""What other clients call a field of ours."""

FOREIGN = frozenset(
    [
        "alwaysAllow",
        "autoApprove",
        "comment",
        "description",
        "dev",
        "gallery",
        "icon",
        "note",
        "provider",
        "tags",
        "timeout",
        "trust",
    ]
)
"""Keys of other clients that say nothing to us: one file may serve several."""

_REFERENCE = re.compile(r"\$\{(?:(env|file):)?([^}:]+(?::(?!-)[^}:]*)*)(?::-([^}]*))?\}")
M = TypeVar("M", bound=BaseModel)
_VARIABLE = re.compile(r"[A-Za-z_]\w*")


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Problem(_Said):
    """What is wrong with one entry of the file; the other entries count all the same."""

    path: str
    message: str
    next: str | None = None

    def __str__(self) -> str:
        where = "" if self.message.startswith(self.path) else f"{self.path}: "
        return f"{where}{self.message} {self.next or ''}".rstrip()


_REACHED_BY = ("command", "args", "env", "cwd", "url", "type", "headers", "connect_timeout_s")


class ServerConfig(_Said):
    """One MCP server: a command that talks over stdin and stdout, or the URL of one that listens.

    `effects` says of single tools (by their native names) what a repeat of them would do; `trust_hints: false` counts each
    other tool as `once`, whatever the server claims. `approved` holds tools that somebody let pass, by native name and version;
    `pin` holds back every change of a tool until that is done.
    """

    name: ServerName
    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    url: str | None = Field(default=None, pattern=r"^(https?://|.*\$\{)")
    type: Literal["stdio", "http", "streamable-http"] | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    disabled: bool = False
    timeout_s: float = Field(default=60.0, gt=0, le=86_400, description="how long a call of its tools may take")
    connect_timeout_s: float | None = Field(default=None, gt=0, le=600, description="default: the setting `server_connect_s`")
    tenants: tuple[str, ...] | None = None
    requires: tuple[Action, ...] = ()
    max_concurrency: int | None = Field(default=None, ge=1)
    pin: bool = False
    effects: dict[str, Effect] = Field(default_factory=dict)
    trust_hints: bool = True
    approved: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _usual_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = {SPELLINGS.get(k, k): v for k, v in data.items() if k not in FOREIGN}
        if "enabled" in known:
            known["disabled"] = known.get("disabled") or not known.pop("enabled")
        if known.get("type") == "streamableHttp":
            known["type"] = "streamable-http"
        return known

    @model_validator(mode="after")
    def _one_way(self) -> ServerConfig:
        if bool(self.command) == bool(self.url):
            raise ValueError("a server has either a `command` or a `url`")
        if (self.type == "stdio") != bool(self.command) and self.type is not None:
            raise ValueError(f"type `{self.type}` does not go with `{'command' if self.command else 'url'}`")
        return self

    @property
    def kind(self) -> ServerKind:
        """How it is reached."""
        return "stdio" if self.command else "http"

    @property
    def reach(self) -> str:
        """A hash of the fields that a session is made of; what else changes needs no new one."""
        return hashlib.sha256(self.model_dump_json(include=set(_REACHED_BY)).encode()).hexdigest()[:16]


class ToolsetTool(_Said):
    """What a toolset says of its tools; what is None is left as the server has it."""

    defer_loading: bool | None = None
    enabled: bool | None = None
    aliases: tuple[str, ...] | None = None
    deprecated: str | None = None
    effect: Effect | None = None
    timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    allowed_callers: tuple[str, ...] | None = None


class Toolset(_Said):
    """What is said of all tools of a server (`default_config`) and of single ones (`configs`, by native name), which win."""

    type: Literal["mcp_toolset"] = "mcp_toolset"
    mcp_server_name: str
    default_config: ToolsetTool = ToolsetTool()
    configs: dict[str, ToolsetTool] = Field(default_factory=dict)

    def of(self, native: str) -> ToolsetTool:
        """What holds for one tool."""
        own = self.configs.get(native)
        if own is None:
            return self.default_config
        return self.default_config.model_copy(update={k: v for k, v in own if v is not None})


class OpenApiConfig(_Said):
    """An OpenAPI document whose operations become tools; `document` is a path (an absolute one here) or a URL."""

    name: ServerName
    document: str
    base_url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    disabled: bool = False
    tenants: tuple[str, ...] | None = None
    requires: tuple[Action, ...] = ()
    timeout_s: float = Field(default=60.0, gt=0, le=86_400)
    effects: dict[str, Effect] = Field(default_factory=dict)
    approved: dict[str, str] = Field(default_factory=dict)
    private: bool = Field(default=False, description="its host may have a private address")


class ServersFile(_Said):
    """What the file says. An entry that cannot be read is one of `problems`; the others are here."""

    path: Path
    servers: dict[str, ServerConfig] = Field(default_factory=dict)
    toolsets: dict[str, Toolset] = Field(default_factory=dict)
    openapi: dict[str, OpenApiConfig] = Field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def enabled(self) -> dict[str, ServerConfig]:
        """The servers that are not switched off."""
        return {n: s for n, s in self.servers.items() if not s.disabled}

    def documents(self) -> dict[str, OpenApiConfig]:
        """The OpenAPI documents that are not switched off."""
        return {n: d for n, d in self.openapi.items() if not d.disabled}


def load_servers(path: Path) -> ServersFile:
    """What the servers file says; one that is not there is empty, one that is no JSON has one problem and nothing else."""
    try:
        data = _read(path)
    except RequestError as e:
        return ServersFile(path=path, problems=(Problem(path=str(path), message=e.message, next=e.next),))
    reader = _Reader(path)
    servers = reader.entries(data, "servers" if "mcpServers" not in data and "servers" in data else "mcpServers", ServerConfig)
    openapi = reader.entries(data, "openapi", OpenApiConfig)
    toolsets = reader.toolsets(data.get("toolsets", []), frozenset(servers))
    reader.clashes([*servers, *openapi])
    kept = {n: d.model_copy(update={"document": _located(d.document, path.parent)}) for n, d in openapi.items()}
    return ServersFile(path=path, servers=servers, toolsets=toolsets, openapi=kept, problems=tuple(reader.problems))


def change_servers(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the file's JSON object in place: one writer at a time, all or nothing, with what else it says left as it is.

    Raises RequestError when it is no JSON; nothing is written then, nor when `change` raises.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path):
        data = _read(path)
        change(data)
        write_private(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replaces a file at once; only its owner may read it."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def resolve_secrets(text: str, *, found: set[str] | None = None) -> str:
    """The text with `${NAME}`, `${env:NAME}`, `${NAME:-default}` and `${file:/path}` replaced by what they name.

    The environment is that of this process; `found` collects the values, for whoever must keep them out of messages.
    Raises RequestError naming the variable or file that is not there.
    """

    def value(match: re.Match[str]) -> str:
        kind, name, default = match[1], match[2], match[3]
        text = _file_secret(name) if kind == "file" else _variable(name, default)
        if found is not None and text:
            found.add(text)
        return text

    return _REFERENCE.sub(value, text)


def used_pools(settings: Settings) -> frozenset[str]:
    """The pools that the servers file needs: `mcp` for servers, `http` for OpenAPI documents."""
    known = load_servers(settings.servers_path)
    wanted = {"mcp": known.enabled(), "http": known.documents()}
    return frozenset(pool for pool, entries in wanted.items() if entries)


class _Reader:
    """Reads the entries one by one and notes what is wrong with each."""

    def __init__(self, path: Path) -> None:
        self._file = path.name
        self.problems: list[Problem] = []

    def problem(self, where: str, message: str, next: str | None = None) -> None:
        self.problems.append(Problem(path=f"{self._file}: {where}", message=message, next=next))

    def entries(self, data: Mapping[str, Any], key: str, model: type[M]) -> dict[str, M]:
        raw = {} if data.get(key) is None else data[key]
        if not isinstance(raw, dict):
            self.problem(key, f"is {type(raw).__name__}, not an object of entries by name")
            return {}
        read = {name: self._entry(f"{key}.{name}", {"name": name, **_dict(entry)}, model) for name, entry in raw.items()}
        return {name: entry for name, entry in read.items() if entry is not None}

    def toolsets(self, raw: Any, servers: frozenset[str]) -> dict[str, Toolset]:
        if not isinstance(raw, list):
            self.problem("toolsets", f"is {type(raw).__name__}, not a list")
            return {}
        kept: dict[str, Toolset] = {}
        for at, entry in enumerate(raw):
            where = f"toolsets[{at}]"
            toolset = self._entry(where, entry, Toolset)
            if toolset is None:
                continue
            name = toolset.mcp_server_name
            if name not in servers:
                self.problem(where, f"there is no server `{name}`", _did_you_mean(name, servers))
            elif name in kept:
                self.problem(where, f"server `{name}` has a toolset already; this one does not count")
            kept.setdefault(name, toolset)
        return kept

    def clashes(self, names: list[str]) -> None:
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(re.sub(r"[^\w.:/-]", "_", name), name)
            if other != name or names.count(name) > 1:
                self.problem(name, f"its tools would be named like those of `{other}`", "Give one of them another name.")

    def _entry(self, where: str, raw: Any, model: type[M]) -> M | None:
        try:
            return model.model_validate(raw)
        except ValidationError as e:
            for error in e.errors(include_url=False, include_input=False, include_context=False):
                self.problem(_place(where, error["loc"]), _message(error), _hint(error, model))
            return None


def _message(error: Mapping[str, Any]) -> str:
    ours = {"extra_forbidden": "is no key that is known", "missing": "is missing"}
    return ours.get(error["type"], str(error["msg"]).removeprefix("Value error, "))


def _hint(error: Mapping[str, Any], model: type[BaseModel]) -> str | None:
    return _did_you_mean(str(error["loc"][-1]), model.model_fields) if error["type"] == "extra_forbidden" else None


def _did_you_mean(name: str, known: Any) -> str | None:
    near = get_close_matches(name, list(known), 1)
    return f"Did you mean `{near[0]}`?" if near else None


def _place(where: str, loc: tuple[Any, ...]) -> str:
    return ".".join([where, *map(str, loc)])


def _dict(entry: Any) -> dict[str, Any]:
    return entry if isinstance(entry, dict) else {"entry": entry}


def _located(document: str, folder: Path) -> str:
    return document if re.match(r"https?://", document) else str(folder / Path(document).expanduser())


def _read(path: Path) -> dict[str, Any]:
    move = "Mend it, or move it away."
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig") or "{}")
    except FileNotFoundError:
        return {}
    except OSError as e:
        move = "Make it a file that you may read, or name another one in TOOLWEAVER_SERVERS_FILE."
        raise RequestError(f"{path} cannot be read: {e.strerror}", next=move) from None
    except ValueError as e:
        raise RequestError(f"{path} is no JSON: {e}", next=move) from None
    if not isinstance(data, dict):
        raise RequestError(f"{path} holds {type(data).__name__}, not an object", next=move)
    return data


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _variable(name: str, default: str | None) -> str:
    if not _VARIABLE.fullmatch(name):
        raise RequestError(f"`${{{name}}}` is no reference that is known", next="Write ${NAME}, ${NAME:-default} or ${file:/path}.")
    value = os.environ.get(name)
    if not value and default is not None:
        return default
    if value is None:
        raise RequestError(f"environment variable {name} is not set", next=f"Set {name} where the servers are connected.")
    return value


def _file_secret(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        said = e.strerror if isinstance(e, OSError) else "no text"
        raise RequestError(f"secret file {path} cannot be read: {said}") from None
