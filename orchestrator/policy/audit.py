"""The log of who did what when, and how it ended: a stream per tenant in Redis, and a file if wished.

Each tenant has a stream of its own, so that a flood of one cannot push out what is known of another. What comes
without a valid key is a stream too, named `-`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import Any

import redis

from orchestrator.errors import RequestError
from orchestrator.models.access import AuditEntry, AuditPage, Caller
from orchestrator.settings import Settings
from orchestrator.state.keys import AUDITED, audit_log

log = logging.getLogger(__name__)

NOBODY = "-"
REPEATED = ("unauthorized", "limited")  # such refusals cost nothing to provoke
REPEATED_S = 1.0
_TOLD = 1_000
_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([a-z0-9_-]{1,63})")
LONGEST = 200  # characters of an object: what is longer is a made-up one
_FIELDS = ("key", "name", "address", "action", "object", "verdict", "status")


class AuditLog:
    """Writes entries, and reads them back, newest first."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._settings = settings
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str, str], float] = {}

    def write(
        self, caller: Caller | None, action: str, object: str = "", *, verdict: str = "ok", status: int = 0, address: str = ""
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
        self._append(tenant, fields)
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.xadd(audit_log(tenant), fields, maxlen=self._settings.audit_max, approximate=True)
            pipe.sadd(AUDITED, tenant)
            pipe.execute()
        except redis.RedisError as error:
            log.error("the audit log could not be written: %s", error, extra={"action": "audit_lost", "what": action})

    def page(self, *, tenant: str | None = None, limit: int = 100, cursor: str | None = None) -> AuditPage:
        """Entries of one tenant, or of all, newest first.

        Raises:
            RequestError: the cursor is none of ours.
        """
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
        entries = tuple(_entry(at, name, fields) for at, name, fields in page[:limit])
        more = len(page) > limit
        return AuditPage(entries=entries, next_cursor=f"{entries[-1].id}-{entries[-1].tenant}" if more else None)

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

    def _append(self, tenant: str, fields: Mapping[str, str]) -> None:
        path = self._settings.audit_file
        if path is None:
            return
        entry = {"ts": datetime.now(UTC).isoformat(), "tenant": tenant, **fields}
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


def _entry(at: tuple[int, int], tenant: str, fields: Mapping[bytes, bytes]) -> AuditEntry:
    told = {name: fields.get(name.encode(), b"").decode(errors="replace") for name in _FIELDS}
    ts = datetime.fromtimestamp(at[0] / 1000, UTC)
    return AuditEntry(id=f"{at[0]}-{at[1]}", ts=ts, tenant=tenant, **{**told, "status": int(told["status"] or 0)})  # type: ignore[arg-type]
