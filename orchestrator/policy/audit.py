"""The log of who did what when, and how it ended: a stream per tenant in Redis, and a file if wished.

Each tenant has a stream of its own, so that a flood of one cannot push out what is known of another. What comes
without a valid key is a stream too, named `-`. The long part of what programs did lies in a second stream, which keeps
the latest only, so that no tenant fills the store with its log; the file keeps all.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import Any

import redis

from orchestrator.errors import RequestError
from orchestrator.models.access import AuditEntry, AuditPage, Caller
from orchestrator.settings import Settings
from orchestrator.state.keys import AUDITED, audit_details, audit_log

log = logging.getLogger(__name__)

NOBODY = "-"
REPEATED = ("unauthorized", "limited")  # such refusals cost nothing to provoke
REPEATED_S = 1.0
_TOLD = 1_000
_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([a-z0-9_-]{1,63})")
LONGEST = 200  # characters of an object: what is longer is a made-up one
DETAILS_KEPT = 1_000  # per tenant, about: with details of 64 KiB at most
DETAILS_A_PAGE = 100
_FIELDS = ("key", "name", "address", "action", "object", "verdict", "status")


@dataclass(frozen=True, slots=True)
class Detail:
    """What an entry tells besides: `figures` stay as long as the entry does, `rest` for the latest entries only."""

    figures: Mapping[str, Any]
    rest: Mapping[str, Any] = field(default_factory=dict)

    def whole(self) -> dict[str, Any]:
        return {**self.figures, **self.rest}


class AuditLog:
    """Writes entries, and reads them back, newest first."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._settings = settings
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str, str], float] = {}

    def write(
        self,
        caller: Caller | None,
        action: str,
        object: str = "",
        *,
        verdict: str = "ok",
        status: int = 0,
        address: str = "",
        detail: Detail | None = None,
    ) -> None:
        """One entry; `caller` is None where the request had no valid key.

        That the log cannot be written is logged and fails no request: what it tells of has happened already.
        """
        tenant = caller.tenant if caller is not None else NOBODY
        if verdict in REPEATED and not self._news(tenant, caller.address if caller else address, verdict):
            return
        fields = {
            "key": caller.key if caller else "",
            "name": caller.name if caller else "",
            "address": caller.address if caller else address,
            "action": action,
            "object": object[:LONGEST],
            "verdict": verdict,
            "status": str(status),
        }
        self._append(tenant, fields, detail)
        try:
            if detail is not None:
                fields |= {"figures": _json(detail.figures), "rest": self._keep(tenant, detail.rest)}
            pipe = self._redis.pipeline(transaction=False)
            pipe.xadd(audit_log(tenant), fields, maxlen=self._settings.audit_max, approximate=True)
            pipe.sadd(AUDITED, tenant)
            pipe.execute()
        except redis.RedisError as error:
            log.error("the audit log could not be written: %s", error, extra={"action": "audit_lost", "what": action})

    def page(self, *, tenant: str | None = None, limit: int = 100, cursor: str | None = None, detail: bool = False) -> AuditPage:
        """Entries of one tenant, or of all, newest first; with `detail` all that is known of programs, and shorter pages.

        Raises:
            RequestError: the cursor is none of ours.
        """
        limit = min(limit, DETAILS_A_PAGE) if detail else limit
        tenants = [tenant] if tenant is not None else sorted(t.decode() for t in self._redis.smembers(AUDITED))
        before = _position(cursor) if cursor else None
        pipe = self._redis.pipeline(transaction=False)
        for name in tenants:
            pipe.xrevrange(audit_log(name), max=f"{before[0]}-{before[1]}" if before else "+", count=limit + 2)
        found = pipe.execute() if tenants else []
        rows = [[(_number(i), name, f) for i, f in stream] for name, stream in zip(tenants, found, strict=True)]
        newest = merge(*rows, key=lambda r: (r[0], r[1]), reverse=True)
        after = (r for r in newest if before is None or (r[0], r[1]) < (before[:2], before[2]))
        page = list(islice(after, limit + 1))
        rests = self._rests([(name, fields) for _, name, fields in page[:limit]]) if detail else [{}] * len(page)
        entries = tuple(_entry(at, name, fields, rest) for (at, name, fields), rest in zip(page[:limit], rests, strict=False))
        more = len(page) > limit
        return AuditPage(entries=entries, next_cursor=f"{entries[-1].id}-{entries[-1].tenant}" if more else None)

    def _keep(self, tenant: str, rest: Mapping[str, Any]) -> str:
        """The place of the long part; it is written first, so that no entry names a place that is not there yet."""
        if not rest:
            return ""
        packed = zlib.compress(_json(rest).encode(), 6)
        place = self._redis.xadd(audit_details(tenant), {"d": packed}, maxlen=DETAILS_KEPT, approximate=True)
        return str(place.decode())

    def _rests(self, rows: Sequence[tuple[str, Mapping[bytes, bytes]]]) -> list[dict[str, Any]]:
        """Of each entry the long part, as far as there is one and it is still kept."""
        pipe = self._redis.pipeline(transaction=False)
        for tenant, fields in rows:
            place = fields.get(b"rest") or b"0-1"
            pipe.xrange(audit_details(tenant), min=place, max=place)
        found = pipe.execute() if rows else []
        return [json.loads(zlib.decompress(one[0][1][b"d"])) if one else {} for one in found]

    def _news(self, tenant: str, address: str, verdict: str) -> bool:
        """Whether this was not told a moment ago: whoever is refused a thousand times a second is told of once."""
        now, what = time.monotonic(), (tenant, address, verdict)
        with self._lock:
            if len(self._told) > _TOLD:
                self._told = {k: t for k, t in self._told.items() if now - t < REPEATED_S}
            if now - self._told.get(what, float("-inf")) < REPEATED_S or len(self._told) > 2 * _TOLD:
                return False
            self._told[what] = now
        return True

    def _append(self, tenant: str, fields: Mapping[str, str], detail: Detail | None) -> None:
        path = self._settings.audit_file
        if path is None:
            return
        entry: dict[str, Any] = {"ts": datetime.now(UTC).isoformat(), "tenant": tenant, **fields}
        entry |= {"detail": detail.whole()} if detail is not None else {}
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        try:
            with self._lock:
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(descriptor, line)  # in one piece, so that processes may share the file
                finally:
                    os.close(descriptor)
        except OSError as error:
            log.error("the audit file could not be written: %s", error, extra={"action": "audit_lost", "what": fields["action"]})


def _number(stream_id: bytes) -> tuple[int, int]:
    time_ms, _, number = stream_id.decode().partition("-")
    return int(time_ms), int(number)


def _position(cursor: str) -> tuple[int, int, str]:
    """The place of a cursor: stream id and tenant."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise RequestError(
            "This is no cursor of this list.", path="cursor", next="Pass on `next_cursor` of the page before, unchanged."
        )
    return int(found[1]), int(found[2]), found[3]


def _entry(at: tuple[int, int], tenant: str, fields: Mapping[bytes, bytes], rest: Mapping[str, Any]) -> AuditEntry:
    told = {name: fields.get(name.encode(), b"").decode(errors="replace") for name in _FIELDS}
    ts = datetime.fromtimestamp(at[0] / 1000, UTC)
    figures = fields.get(b"figures")
    detail = {**json.loads(figures), **rest} if figures else None
    known = {**told, "status": int(told["status"] or 0), "detail": detail}
    return AuditEntry(id=f"{at[0]}-{at[1]}", ts=ts, tenant=tenant, **known)  # type: ignore[arg-type]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
