"""The books of the blob store, in Redis: which bytes a tenant has, where they lie, which jobs name them, until when they stay.

The books decide, the store follows. Bytes count from the moment at which they are booked, and every writer writes to a
place of its own, so neither a half file nor a deletion that comes late can meet a reader: whoever stores content that
the sweep has just struck off gets a new place, and the sweep deletes only the old one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import redis

from orchestrator.errors import BackendError
from orchestrator.jobs.ledger import LUA
from orchestrator.jobs.listing import parse_cursor
from orchestrator.models.file import FilePage, FileRef, reference
from orchestrator.settings import Settings
from orchestrator.state.keys import Shard, all_shards, job_keys, tenant_shard
from orchestrator.state.scripts import Scripts

log = logging.getLogger(__name__)

WRITE_WITHIN_S = 6 * 3600  # a writer that takes longer counts as gone, and its bytes are deleted
SUBMIT_WITHIN_S = 600  # a job may name its files this long before it is stored
LOOK_EVERY_S = 3600  # a purged job leaves no trace, so a file is looked at again after this long at most
AGAIN_S = 30  # until bytes that could not be deleted are tried again
_NAMES = 100  # jobs that one look at a file asks about

Kind = Literal["f", "v"]
FILE: Kind = "f"
VALUE: Kind = "v"


@dataclass(frozen=True, slots=True)
class Note:
    """What a writer says about its bytes."""

    name: str = ""
    media_type: str = "application/octet-stream"
    kind: Kind = FILE
    job: str = ""


@dataclass(frozen=True, slots=True)
class Booked:
    """Bytes that a tenant has: where they lie, and what is known of them."""

    place: str
    file: FileRef


class BlobBooks:
    """The files and large values of all tenants; each method sees only those of the tenant that it is given."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.redis: Any = client  # redis-py types one method for its sync and async client at once
        self.settings = settings
        self._scripts = Scripts(client, LUA)

    def shard(self, tenant: str, name: str) -> Shard:
        return tenant_shard(tenant, name, self.settings.shards)

    def begin(self, tenant: str) -> str:
        """A temporary place for bytes whose hash is not known yet."""
        place = f"{tenant}/tmp/{secrets.token_hex(8)}"
        self.expect(tenant, place, place)
        return place

    def dropped(self, tenant: str, place: str, *, sha256: str | None = None) -> None:
        """Nothing lies at this place any more. `sha256` says whose it would have been."""
        self.redis.zrem(self.shard(tenant, sha256 or place).blobs_pending, place)

    def new_place(self, tenant: str, sha256: str) -> str:
        """A place that no other writer has."""
        return f"{tenant}/{sha256[:2]}/{sha256}-{secrets.token_hex(4)}"

    def expect(self, tenant: str, sha256: str, place: str) -> None:
        """Notes a place before bytes are moved there, so that a crash leaves a trace for the sweep."""
        seconds, _ = self.redis.time()
        self.redis.zadd(self.shard(tenant, sha256).blobs_pending, {place: (int(seconds) + WRITE_WITHIN_S) * 1000})

    def add(self, tenant: str, sha256: str, place: str, size: int, note: Note) -> str:
        """Books bytes that were written to `place`; the place that counts, which is another one when somebody was first.

        "" when the writer took so long that its bytes may be gone.
        """
        return self._add(tenant, sha256, place=place, size=size, note=note, own=True)

    def add_known(self, tenant: str, sha256: str, note: Note) -> bool:
        """Books bytes that the tenant has already, and keeps them for a while from now on; False when it has none of that hash."""
        return bool(self._add(tenant, sha256, place="", size=0, note=note, own=False))

    def _add(self, tenant: str, sha256: str, *, place: str, size: int, note: Note, own: bool) -> str:
        shard = self.shard(tenant, sha256)
        keys = [
            shard.blob(tenant, sha256), shard.blobs_pending, shard.blobs_due, shard.files(tenant), shard.blobs_bytes,
            shard.blob_jobs(tenant, sha256),
        ]  # fmt: skip
        args = [place, self._kept_ms(), size, note.media_type, note.name, note.kind, tenant, sha256, note.job, int(own)]
        counts: bytes = self._scripts.call("blob_add", keys, args)
        return counts.decode()

    def find(self, tenant: str, sha256: str) -> Booked | None:
        """What is known of a tenant's bytes; None when it has none of that hash."""
        row = self.redis.hgetall(self.shard(tenant, sha256).blob(tenant, sha256))
        return _booked(sha256, row) if row else None

    def name(self, tenant: str, digests: Iterable[str], *, job: str) -> set[str]:
        """Keeps files for as long as the job is kept; those that the tenant does not have."""
        missing = set()
        for sha256 in digests:
            shard = self.shard(tenant, sha256)
            if not self._scripts.call("blob_name", [shard.blob(tenant, sha256), shard.blob_jobs(tenant, sha256)], [job]):
                missing.add(sha256)
        return missing

    def page(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> FilePage:
        """A page of a tenant's files, newest first.

        Raises:
            RequestError: the cursor is none of ours.
        """
        before = parse_cursor(cursor)
        rows: list[tuple[int, str]] = []
        for shard in all_shards(self.settings.shards):
            rows += self._newest(shard.files(tenant), before, limit + 1)
        chosen = sorted(rows, reverse=True)[:limit]
        found = [self.find(tenant, sha256) for _, sha256 in chosen]
        more = len(rows) > limit
        return FilePage(
            files=tuple(b.file for b in found if b is not None),
            next_cursor=f"{chosen[-1][0]}-{chosen[-1][1]}" if more and chosen else None,
        )

    def remove(self, tenant: str, sha256: str) -> bool:
        """Ends a file's lifetime: it is struck off at once, or with the last kept job that names it (False)."""
        return self._look(tenant, sha256, at_once=True) or self.find(tenant, sha256) is None

    def expire(self, tenant: str) -> int:
        """Ends the lifetime of all that a tenant has in the store; how many of these no kept job names, which are struck off."""
        ended = 0
        for shard in all_shards(self.settings.shards):
            for raw, _ in self.redis.zscan_iter(shard.blobs_due, match=f"{tenant}|*"):
                ended += self._look(tenant, raw.decode().partition("|")[2], at_once=True)
        return ended

    def bytes_of(self, tenant: str) -> int:
        """How many bytes a tenant keeps in the blob store."""
        return sum(int(self.redis.hget(shard.blobs_bytes, tenant) or 0) for shard in all_shards(self.settings.shards))

    def sweep(self, limit: int, *, delete: Callable[[str], None]) -> int:
        """Strikes off what nobody names any more, and deletes bytes that no book names; how many places it deleted.

        It looks at no more than `limit` files and places per shard.
        """
        deleted = 0
        for shard in all_shards(self.settings.shards):
            now = self._now_ms()
            for raw in self.redis.zrange(shard.blobs_due, "-inf", now, byscore=True, offset=0, num=limit):
                tenant, _, sha256 = raw.decode().partition("|")
                self._look(tenant, sha256)
            places = self.redis.zrange(shard.blobs_pending, "-inf", now, byscore=True, offset=0, num=limit)
            deleted += sum(self._delete(shard, raw.decode(), delete) for raw in places)
        return deleted

    def _look(self, tenant: str, sha256: str, *, at_once: bool = False) -> bool:
        shard = self.shard(tenant, sha256)
        jobs_key = shard.blob_jobs(tenant, sha256)
        gone, again_ms = self._gone(self.redis.zrange(jobs_key, 0, _NAMES - 1, desc=True, withscores=True))
        keys = [
            shard.blob(tenant, sha256), jobs_key, shard.blobs_due, shard.blobs_pending, shard.files(tenant), shard.blobs_bytes,
        ]  # fmt: skip
        freed: int = self._scripts.call("blob_look", keys, [tenant, sha256, again_ms, int(at_once), *gone])
        return freed >= 0

    def _gone(self, names: Sequence[tuple[bytes, float]]) -> tuple[list[str], int]:
        """The jobs that are not kept any more, and after how many ms it pays to look again."""
        now = self._now_ms()
        pipe = self.redis.pipeline(transaction=False)
        for job, _ in names:
            pipe.pttl(job_keys(job.decode(), self.settings.shards).state)
        gone, again = [], 0
        for (job, since), left in zip(names, pipe.execute(), strict=True):
            may_come = int(since) + SUBMIT_WITHIN_S * 1000 - now
            if left == -2 and may_come <= 0:
                gone.append(job.decode())
            else:
                again = max(again, may_come if left == -2 else LOOK_EVERY_S * 1000 if left == -1 else left + 1)
        return gone, min(again, LOOK_EVERY_S * 1000)

    def _delete(self, shard: Shard, place: str, delete: Callable[[str], None]) -> int:
        try:
            delete(place)
        except BackendError as error:
            log.warning("bytes stay in the blob store for now: %s", error, extra={"action": "blob_delete_failed"})
            self.redis.zadd(shard.blobs_pending, {place: self._now_ms() + AGAIN_S * 1000}, xx=True)
            return 0
        self.redis.zrem(shard.blobs_pending, place)
        return 1

    def _newest(self, key: str, before: tuple[int, str] | None, count: int) -> list[tuple[int, str]]:
        high = before[0] if before else "+inf"
        found: list[tuple[int, str]] = []
        at = 0
        while len(found) < count:
            rows = self.redis.zrange(key, high, "-inf", byscore=True, desc=True, offset=at, num=count, withscores=True)
            at += len(rows)
            found += [row for raw, score in rows if (row := (int(score), raw.decode())) and (before is None or row < before)]
            if len(rows) < count:
                break
        return found

    def _kept_ms(self) -> int:
        return self.settings.upload_retention_s * 1000

    def _now_ms(self) -> int:
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000


def _booked(sha256: str, row: dict[bytes, bytes]) -> Booked:
    file = FileRef(
        ref=reference(sha256),
        size=int(row[b"s"]),
        media_type=row[b"m"].decode(),
        name=row[b"n"].decode(),
        created_at=_time(row[b"c"]),
        expires_at=_time(row[b"u"]),
    )
    return Booked(row[b"p"].decode(), file)


def _time(ms: bytes) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1000, UTC)
