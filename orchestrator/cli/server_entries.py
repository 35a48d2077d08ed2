"""Entries of the servers file: read from options or from another client's file, and shown without secrets."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.cli.inputs import read_text
from orchestrator.errors import RequestError
from orchestrator.tool_discovery.servers import OpenApiConfig, ServerConfig

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"(?i)pass(word|wd)?|token|secret|api[-_]?key|credential|auth|cookie|private[-_]?key|session|(^|[-_])key$"
)
_SECRET_VALUE = re.compile(
    r"(?i)^(bearer|basic|token)\s+\S|^(sk|pk|rk)[-_]\w{8}|^gh[a-z]_\w{8}|^github_pat_|^glpat-|^xox[a-z]-|^AKIA\w{8}|^eyJ\w{10}|-----BEGIN"
)
_REFERENCE = re.compile(r"\$\{[^}]+\}")
_FLAG = re.compile(r"(--?[A-Za-z][\w-]*)(?:=(.*))?\Z", re.DOTALL)
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:token|key|secret|auth|password)[^=&]*=)[^&#]+", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class Literal:
    """A secret that stands in the file as it is: where, and what would be better."""

    where: str
    better: str

    def __str__(self) -> str:
        return f"{self.where} looks like a secret and is written down as it is; {self.better} keeps it out of the file"


def entry_of(
    *,
    command: Sequence[str],
    url: str | None,
    env: Sequence[str],
    headers: Sequence[str],
    tenants: Sequence[str],
    timeout_s: float | None,
) -> dict[str, Any]:
    """The entry of an MCP server.

    Raises:
        RequestError: what was given does not go together.
    """
    if bool(command) == bool(url):
        raise RequestError(
            "a server is either a command or an address",
            path="--url" if url else "COMMAND",
            next="Write `toolweaver mcp add NAME -- COMMAND ARGS...`, or `--url URL`, or `--openapi DOCUMENT`.",
        )
    if url and env:
        raise RequestError("a server with an address is not started here", path="--env", next="Use `--header NAME=VALUE`.")
    if command and headers:
        raise RequestError("a command takes no headers", path="--header", next="Use `--env NAME=VALUE`.")
    there: dict[str, Any] = {"url": url} if url else {"command": command[0], "args": list(command[1:])}
    return there | _given(env=_pairs(env, "--env"), headers=_pairs(headers, "--header"), tenants=list(tenants), timeout_s=timeout_s)


def document_entry(
    document: str,
    *,
    base_url: str | None,
    headers: Sequence[str],
    tenants: Sequence[str],
    timeout_s: float | None,
    private: bool,
) -> dict[str, Any]:
    """The entry of an OpenAPI document; a path becomes an absolute one, since the file may lie elsewhere.

    Raises:
        RequestError: there is no such file.
    """
    if not re.match(r"https?://", document):
        path = Path(document).expanduser().absolute()
        if not path.is_file():
            raise RequestError(f"`{path}` is no file", path="--openapi", next="Give the document's path, or its address.")
        document = str(path)
    more = _given(base_url=base_url, headers=_pairs(headers, "--header"), tenants=list(tenants), timeout_s=timeout_s)
    return {"document": document} | more | ({"private": True} if private else {})


def check_entry(name: str, entry: Mapping[str, Any], kind: type[ServerConfig] | type[OpenApiConfig]) -> None:
    """Makes sure that an entry can be read back.

    Raises:
        RequestError: it cannot; all problems are in `.problems`.
    """
    try:
        kind.model_validate({"name": name, **entry})
    except ValidationError as error:
        problems = [_problem(e) for e in error.errors(include_url=False, include_input=False)]
        raise RequestError(f"`{name}` cannot be added", problems=problems, next="docs/mcp.md lists what an entry takes.") from None


def read_foreign(path: Path) -> dict[str, Any]:
    """The MCP servers that another client's file names, as they stand there.

    Raises:
        RequestError: it is no JSON, or names none.
    """
    text = read_text(path)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise RequestError(f"`{path}` is no JSON: {error}", path="FILE", next="Take comments and trailing commas out.") from None
    inner = data.get("mcp") if isinstance(data, dict) else None
    for place in (data, inner):
        for key in ("mcpServers", "servers", "context_servers"):
            if isinstance(place, dict) and isinstance(place.get(key), dict):
                return dict(place[key])
    raise RequestError(
        f"`{path}` names no MCP servers",
        path="FILE",
        next='They are under "mcpServers" (or "servers") in the files of other clients.',
    )


def literals(entry: Mapping[str, Any]) -> Iterator[Literal]:
    """The secrets that an entry holds itself, as far as they can be told."""
    for option, key in (("--env", "env"), ("--header", "headers")):
        for name, value in _texts(entry.get(key)):
            if is_secret(name, value):
                yield Literal(f"`{name}`", f"`{option} '{name}={_referring(name, value)}'`")
    for flag in _secrets_in(_words(entry.get("args"))).values():
        better = f"`{flag} '${{{_variable(flag)}}}'`" if flag else "`'${NAME}'`"
        yield Literal(f"the value of `{flag}`" if flag else "an argument", better)
    for key in ("url", "base_url", "document"):
        address = entry.get(key)
        if isinstance(address, str) and _without_secrets(address) != address:
            yield Literal(f"a part of `{key}`", "`${NAME}` in its place")


def shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry for a person's eyes: references as they stand, secrets hidden."""
    made = dict(entry)
    if isinstance(made.get("env"), Mapping):
        made["env"] = {k: HIDDEN if is_secret(k, v) else v for k, v in _texts(made["env"])}
    if isinstance(made.get("headers"), Mapping):  # most headers of a server are there to say who one is
        made["headers"] = {k: v if _REFERENCE.search(v) and not is_secret(k, v) else HIDDEN for k, v in _texts(made["headers"])}
    if made.get("args"):
        made["args"] = _hidden_words(_words(made["args"]))
    for key in ("url", "base_url", "document"):
        if isinstance(made.get(key), str):
            made[key] = _without_secrets(made[key])
    return made


def is_secret(name: str, value: str) -> bool:
    """Whether a value seems to be a secret itself; a reference to one is none."""
    rest = _REFERENCE.sub("", value).strip()
    if not rest or rest.lower() in ("bearer", "basic", "token") or len(rest) < 4:
        return False
    return bool(_SECRET_VALUE.search(rest) or (_SECRET_NAME.search(name) and not _REFERENCE.search(value)))


def visible(text: str) -> str:
    """Text of somebody else's with everything shown that would be invisible, or would steer a terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSEEN else f"<U+{ord(c):04X}>" for c in text)


_UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` or `NAME: VALUE`; a NAME alone stands for the variable of that name."""
    found = {}
    for pair in pairs:
        match = re.match(r"([A-Za-z_][\w.-]*)(?:=|:\s)?(.*)\Z", pair, re.DOTALL)
        if match is None or (match[2] and not re.match(r"[\w.-]+(=|:\s)", pair)):
            raise RequestError(f"`{pair.partition('=')[0]}` is no name", path=option, next=f"Write `{option} NAME=VALUE`.")
        alone = pair == match[1]
        found[match[1]] = f"${{{match[1]}}}" if alone else match[2]
    return found


def _problem(error: Mapping[str, Any]) -> dict[str, str]:
    place = ".".join(str(p) for p in error["loc"]) or "$"
    if place == "name":
        return {"path": "NAME", "message": "it is no name of a server", "next": "A letter, then letters, digits, `_`, `.` and `-`."}
    if place == "url":
        return {"path": place, "message": "it is no address", "next": "Write `http://...` or `https://...`."}
    return {"path": place, "message": str(error["msg"]).removeprefix("Value error, ")}


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    return ((str(k), str(v)) for k, v in value.items()) if isinstance(value, Mapping) else iter(())


def _referring(name: str, value: str) -> str:
    scheme = re.match(r"(?i)(bearer|basic|token)\s+", value)
    return f"{scheme[0] if scheme else ''}${{{_variable(name)}}}"


def _variable(name: str) -> str:
    return re.sub(r"\W", "_", name.lstrip("-")).upper()


def _words(args: Any) -> list[str]:
    return [str(a) for a in args] if isinstance(args, Sequence) and not isinstance(args, str) else []


def _secrets_in(words: Sequence[str]) -> dict[int, str]:
    """Where in a command's words a secret stands, and the flag that it belongs to."""
    found: dict[int, str] = {}
    before = ""
    for at, word in enumerate(words):
        match = _FLAG.match(word)
        flag, value = (match[1], match[2]) if match else (before, word)
        if value is not None and is_secret(flag.lstrip("-"), value):
            found[at] = flag
        before = match[1] if match and match[2] is None else ""
    return found


def _hidden_words(words: Sequence[str]) -> list[str]:
    secret = _secrets_in(words)
    hidden = [f"{word.partition('=')[0]}={HIDDEN}" if _FLAG.match(word) else HIDDEN for word in words]
    return [hidden[at] if at in secret else _without_secrets(word) for at, word in enumerate(words)]


def _without_secrets(address: str) -> str:
    hidden = _QUERY_SECRET.sub(lambda m: m[0] if _REFERENCE.search(m[0]) else m[1] + HIDDEN, address)
    return _USER_INFO.sub(lambda m: m[0] if _REFERENCE.search(m[0]) else HIDDEN, hidden)
