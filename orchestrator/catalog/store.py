"""The tools that there are, in Redis: whoever serves tools publishes them under its name, and everybody sees them at once."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis
from pydantic import BaseModel, ValidationError

from orchestrator.errors import Conflict
from orchestrator.models.catalog import CatalogHash, Diff, ServerState
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.state.keys import (
    CATALOG,
    CATALOG_CHANGED,
    CATALOG_FORMER,
    CATALOG_GONE,
    CATALOG_HASHES,
    CATALOG_OWNERS,
    CATALOG_VERSION,
    CATALOG_VERSIONS,
    SERVERS,
    catalog_source,
)
from orchestrator.state.scripts import Scripts

M = TypeVar("M", bound=BaseModel)
log = logging.getLogger(__name__)

POOL_SOURCE = "pool:"
_MOST_CHANGES = 1_000  # tools that are read one by one; of more, all are read
PAGE = 500  # rows that a follower reads at once
_MOST_FOLLOWED = 50_000  # names that one look gives a follower; of more, it reads everything
_KEYS = (
    CATALOG_VERSION, CATALOG, CATALOG_HASHES, CATALOG_OWNERS, CATALOG_CHANGED, CATALOG_GONE, CATALOG_FORMER, CATALOG_VERSIONS,
)  # fmt: skip


class NameTaken(Conflict):
    """Another source owns a tool of this name. `diff` is what became of the others: they were published."""

    code = "name_taken"

    def __init__(self, message: str | None = None, *, diff: Diff | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.diff = diff or Diff()


@dataclass(frozen=True, slots=True)
class Row:
    """A tool as it lies in the store: its content hash, and its definition as JSON; no `raw`: it was withdrawn."""

    name: str
    version: str = ""
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes a follower's catalog that of `version`, once all pages are applied, in order.

    When they are `exact`, they are that version and no other. Else they may hold some of what changed while they were read,
    which comes again with the next look, so that a follower is right at last.
    """

    version: bytes | None
    pages: Iterable[Sequence[Row]]
    exact: bool = True


class CatalogStore:
    """What every process sees of the tools. What was read is kept, and only what changed since is read again.

    A source is who offers tools: `pool:function`, `mcp:time`, `openapi:petstore`. Threads may share a store.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._scripts = Scripts(client, Path(__file__).parent / "lua")
        self._lock = threading.Lock()
        self._version: bytes | None = None
        self._known: dict[str, ToolDefinition] = {}
        self._sorted: tuple[ToolDefinition, ...] = ()
        self._hash: tuple[bytes | None, str] | None = None

    def publish(self, source: str, tools: Iterable[ToolDefinition], *, replace: bool = True) -> Diff:
        """Makes the tools of a source exactly these, all at once; with `replace` off, those that it does not name stay.

        Raises:
            NameTaken: another source owns a name; the rest was published, as its `diff` says.
        """
        rows = [part for t in {t.name: t for t in tools}.values() for part in (t.name, t.content_hash, t.to_row())]
        family = POOL_SOURCE if source.startswith(POOL_SOURCE) else ""
        added, changed, removed, taken = self._scripts.call(
            "publish", [*_KEYS, catalog_source(source)], [source, family, int(replace), _epoch(), *rows]
        )
        diff = Diff(added=_texts(added), changed=_texts(changed), removed=_texts(removed))
        if taken:
            raise _taken(source, _texts(taken), diff)
        return diff

    def announce(self, tools: Iterable[ToolDefinition]) -> None:
        """Adds tools of pools; one of the same name is replaced.

        Raises:
            NameTaken: a server's tool has one of the names.
        """
        by_pool: dict[str, list[ToolDefinition]] = {}
        for tool in tools:
            by_pool.setdefault(tool.pool, []).append(tool)
        for pool, own in by_pool.items():
            self.publish(f"{POOL_SOURCE}{pool}", own, replace=False)

    def withdraw(self, names: Iterable[str], *, source: str | None = None) -> tuple[str, ...]:
        """Takes tools out that nobody will run again; of a `source`, only those that are still its own. Gives what was there."""
        return _texts(self._scripts.call("withdraw", _KEYS, [source or "", _epoch(), *names]))

    def version(self) -> bytes | None:
        """Changes with every tool that does."""
        raw: bytes | None = self._redis.get(CATALOG_VERSION)
        return raw

    def all(self, base: ToolCatalog | None = None) -> ToolCatalog:
        """The announced tools over those of `base` (the bundled ones), by name; the catalog is the caller's own."""
        known, announced = self._fresh()
        kept = [t for t in base.tools if t.name not in known] if base else []
        return ToolCatalog.model_construct(source="announced", version="1.0", tools=[*kept, *announced], metadata={})

    def get(self, name: str, *, version: str | None = None) -> ToolDefinition | None:
        """The announced tool of that name, or None; or one of its last versions by content hash, also of one withdrawn."""
        if version is None:
            return _read(ToolDefinition, name, self._redis.hget(CATALOG, name))
        pipe = self._redis.pipeline()
        pipe.hget(CATALOG_HASHES, name)
        pipe.hget(CATALOG, name)
        pipe.hget(CATALOG_FORMER, f"{name}@{version}")
        present, row, former = pipe.execute()
        return _read(ToolDefinition, name, row if present == version.encode() else former)

    def former(self, name: str) -> ToolDefinition | None:
        """The version of a tool that was announced before the present one, or last where it was withdrawn; None: none is kept."""
        raw = self._redis.hget(CATALOG_VERSIONS, name)
        latest = raw.decode().split()[0] if raw else None
        return self.get(name, version=latest) if latest else None

    def withdrawn(self, names: Sequence[str]) -> dict[str, ToolDefinition]:
        """The last version of each tool that was announced once, and is not now."""
        raw = self._redis.hmget(CATALOG_VERSIONS, names) if names else []
        latest = [f"{name}@{kept.decode().split()[0]}" for name, kept in zip(names, raw, strict=True) if kept]
        rows = self._redis.hmget(CATALOG_FORMER, latest) if latest else []
        there = _tools({key.rpartition("@")[0].encode(): row for key, row in zip(latest, rows, strict=True) if row})
        present = self._redis.hmget(CATALOG_HASHES, list(there)) if there else []
        return {name: tool for (name, tool), h in zip(there.items(), present, strict=True) if h is None}

    def catalog_hash(self) -> str:
        """`CatalogHash` of all announced tools and their versions (64 hex digits): equal where the tools are."""
        if self._hash is not None and self._hash[0] == self.version():
            return self._hash[1]
        pipe = self._redis.pipeline()
        pipe.get(CATALOG_VERSION)
        pipe.hgetall(CATALOG_HASHES)
        version, hashes = pipe.execute()
        found = str(CatalogHash.of((name.decode(), h.decode()) for name, h in hashes.items()))
        self._hash = (version, found)
        return found

    def changes(self, since: bytes | None, *, page: int = PAGE) -> Changes | None:
        """What changed after `since`, in pages of raw rows; None: whoever knows only that version reads `everything`."""
        keys = [CATALOG_VERSION, CATALOG, CATALOG_CHANGED, CATALOG_GONE, CATALOG_HASHES]
        answer = self._scripts.call("page", keys, [since or "", page, _MOST_FOLLOWED])
        if len(answer) < 2:
            return None
        if len(answer) == 2:
            flat = answer[1]
            return Changes(answer[0], [[_row(*three) for three in zip(flat[::3], flat[1::3], flat[2::3], strict=True)]])
        names = answer[2]
        return Changes(answer[0], (self._rows(names[n : n + page]) for n in range(0, len(names), page)), exact=False)

    def everything(self, *, page: int = PAGE) -> Changes:
        """All tools, in pages of raw rows, without holding the store up however many there are."""
        return Changes(self.version(), self._scanned(page), exact=False)

    def _scanned(self, page: int) -> Iterator[Sequence[Row]]:
        cursor = -1
        while cursor:
            cursor, found = self._redis.hscan(CATALOG_HASHES, max(cursor, 0), count=page)
            if found:
                yield self._rows(list(found))

    def _rows(self, names: Sequence[bytes]) -> Sequence[Row]:
        pipe = self._redis.pipeline(transaction=True)
        pipe.hmget(CATALOG_HASHES, names)
        pipe.hmget(CATALOG, names)
        hashes, rows = pipe.execute()
        return [_row(*three) for three in zip(names, hashes, rows, strict=True)]

    def owners(self) -> dict[str, str]:
        """The source that published each tool, by name."""
        return {k.decode(): v.decode() for k, v in self._redis.hgetall(CATALOG_OWNERS).items()}

    def server_states(self) -> dict[str, ServerState]:
        """How the servers of tools are, by name."""
        rows = ((k.decode(), raw) for k, raw in sorted(self._redis.hgetall(SERVERS).items()))
        return {name: found for name, raw in rows if (found := _read(ServerState, name, raw)) is not None}

    def put_server_state(self, state: ServerState) -> None:
        """Says how a server is."""
        self._redis.hset(SERVERS, state.name, state.model_dump_json(exclude_defaults=True))

    def drop_server_state(self, name: str) -> None:
        """Forgets a server; its tools are withdrawn by `publish(source, [])`."""
        self._redis.hdel(SERVERS, name)

    def _fresh(self) -> tuple[Mapping[str, ToolDefinition], tuple[ToolDefinition, ...]]:
        with self._lock:
            if (self._version is None or self.version() != self._version) and not self._read_changes():
                self._read_all()
            return self._known, self._sorted

    def _read_changes(self) -> bool:
        """Whether what was known could be brought up to date by what changed since."""
        answer = self._scripts.call(
            "changes", [CATALOG_VERSION, CATALOG, CATALOG_CHANGED, CATALOG_GONE], [self._version or "", _MOST_CHANGES]
        )
        if len(answer) < 2:
            return False
        version, flat = answer
        known = dict(self._known)  # others may look through the former one
        for raw_name, row in zip(flat[::2], flat[1::2], strict=True):
            known.pop(raw_name.decode(), None)
            if row is not None:
                known |= _tools({raw_name: row})
        self._take(version, known)
        return True

    def _read_all(self) -> None:
        pipe = self._redis.pipeline()
        pipe.get(CATALOG_VERSION)
        pipe.hgetall(CATALOG)
        version, rows = pipe.execute()
        self._take(version, _tools(rows))

    def _take(self, version: bytes | None, known: dict[str, ToolDefinition]) -> None:
        self._known, self._sorted = known, tuple(known[name] for name in sorted(known))
        self._version = version


def _tools(rows: Mapping[bytes, bytes]) -> dict[str, ToolDefinition]:
    found = ((name.decode(), _read(ToolDefinition, name.decode(), row)) for name, row in rows.items())
    return {name: tool for name, tool in found if tool is not None}


def _read(kind: type[M], name: str, raw: bytes | None) -> M | None:
    """What a row says; one that this process cannot read, such as a newer worker's, hides no other."""
    try:
        return kind.model_validate_json(raw) if raw else None
    except ValidationError as error:
        log.warning("`%s` of the catalog cannot be read: %s", name, error, extra={"action": "bad_row", "tool": name})
        return None


def _row(name: bytes, version: bytes | None, raw: bytes | None) -> Row:
    return Row(name.decode(), (version or b"").decode(), raw)


def generation_of(version: bytes | None) -> tuple[str, int]:
    """The epoch and the number of a version: the number rises with every change, also when the store was emptied between."""
    epoch, number, _ = version.decode().split(":") if version else ("", "0", "0")
    return epoch, int(number)


def _texts(raw: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(r.decode() for r in raw)


def _epoch() -> str:
    """Tells a catalog from one that was there before the store was emptied."""
    return secrets.token_hex(6)


def _taken(source: str, pairs: tuple[str, ...], diff: Diff) -> NameTaken:
    owners = dict(zip(pairs[::2], pairs[1::2], strict=True))
    shown = ", ".join(f"`{name}` of `{owner}`" for name, owner in list(owners.items())[:5])
    more = f" and {len(owners) - 5} more" if len(owners) > 5 else ""
    return NameTaken(
        f"`{source}` offers tools whose names are taken: {shown}{more}; its others were published",
        next="Give the tools or their server another name.",
        diff=diff,
        problems=[{"path": n, "code": "name_taken", "message": f"`{n}` is a tool of `{o}`"} for n, o in owners.items()],
    )
