"""The list of a tenant's jobs, newest first, over all shards; and what stands of a job in its row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from typing import Any

from orchestrator.errors import RequestError
from orchestrator.models.job import JobStatus
from orchestrator.state.keys import all_shards

ROW = (
    "st",
    "t0",
    "t1",
    "t2",
    "tenant",
    "name",
    "rid",
    "pri",
    "ne",
    "nf",
    "un",
    "rq",
    "md",
    "rq_text",
    "rq_why",
    "rq_at",
    "rq_token",
    "pv",
)
_PAGE = 200


@dataclass(frozen=True, slots=True)
class JobRow:
    """The fields `ROW` of a job's state."""

    id: str
    status: JobStatus
    raw: Mapping[str, bytes]

    def text(self, name: str) -> str:
        return self.raw.get(name, b"").decode()

    def number(self, name: str) -> int:
        return int(self.raw.get(name) or 0)

    def time(self, name: str) -> datetime | None:
        ms = self.number(name)
        return datetime.fromtimestamp(ms / 1000, UTC) if ms else None

    @property
    def has_errors(self) -> bool:
        return self.number("ne") + self.number("nf") > 0

    @property
    def asked(self) -> bool:
        """Whether it began as a request in words."""
        return "rq" in self.raw

    def waiting(self, now_ms: int | None = None) -> str | None:
        """Why nothing moves; with the time of now, in how many seconds it is tried again."""
        why, until = self.text("rq_why"), self.number("rq_at")
        if not why or self.status.final:
            return None
        if not until:
            return why
        left = -1 if now_ms is None else (until - now_ms) / 1000
        if left > 0:
            return f"{why.rstrip('.')}; tried again in {math.ceil(left)} s"
        return why if now_ms is None or not self.text("rq_token") else None  # a planner that said so has gone on

    def summary(self) -> dict[str, Any]:
        """What a `JobView` tells without looking at steps."""
        return {
            "id": self.id,
            "status": self.status,
            "has_errors": self.has_errors,
            "tenant": self.text("tenant"),
            "name": self.text("name"),
            "request_id": self.text("rid") or None,
            "priority": self.text("pri") or "normal",
            "created_at": self.time("t0"),
            "started_at": self.time("t1"),
            "finished_at": self.time("t2"),
            **({"request": self.text("rq_text"), "mode": self.text("md"), "waiting": self.waiting()} if self.asked else {}),
        }


def newest(client: Any, tenant: str, before: tuple[int, str] | None, *, shards: int) -> Iterator[tuple[int, str]]:
    """Times and ids of a tenant's jobs, newest first, from a place in the list on."""
    return merge(*(_newest_of(client, shard.index(tenant), before) for shard in all_shards(shards)), reverse=True)


def _newest_of(client: Any, index: str, before: tuple[int, str] | None) -> Iterator[tuple[int, str]]:
    high = before[0] if before else "+inf"
    at = 0
    while rows := client.zrange(index, high, "-inf", byscore=True, desc=True, offset=at, num=_PAGE, withscores=True):
        for raw, score in rows:
            row = (int(score), raw.decode())
            if before is None or row < before:
                yield row
        at += len(rows)


def parse_cursor(cursor: str | None) -> tuple[int, str] | None:
    """The place in the list that a cursor names.

    Raises:
        RequestError: it is none of ours.
    """
    if cursor is None:
        return None
    score, _, job = cursor.partition("-")
    if not (score.isascii() and score.isdigit() and job):
        raise RequestError(
            f"`{cursor}` is no cursor of this list.", path="cursor", next="Pass on `next_cursor` of the page before, unchanged."
        )
    return int(score), job
