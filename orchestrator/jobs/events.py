"""The stream of what happens in a job: read once, followed live, resumed after any event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import redis
import redis.asyncio

from orchestrator.errors import RequestError
from orchestrator.jobs.store import JobStore
from orchestrator.models.event import Event
from orchestrator.models.job import JobStatus
from orchestrator.settings import Settings
from orchestrator.state.connection import connect, connect_async
from orchestrator.state.keys import job_keys

START = "0-0"
_BLOCK_MS = 1_000
_PAGE = 500


def parse_event(job_id: str, stream_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    """An entry of a job's stream as an event."""
    text = stream_id.decode()
    return Event(
        id=text,
        type=fields[b"t"].decode(),
        job_id=job_id,
        step=fields[b"s"].decode() if b"s" in fields else None,
        call=fields[b"c"].decode() if b"c" in fields else None,
        attempt=int(fields[b"a"]) if b"a" in fields else None,
        ts=datetime.fromtimestamp(int(text.partition("-")[0]) / 1000, UTC),
        data=json.loads(fields.get(b"d", b"{}")),
    )


def check_event_id(after: str | None) -> str:
    """The id to resume after; the start of the stream when none is given.

    Raises:
        RequestError: it is no event's id.
    """
    if not after:
        return START
    time, _, number = after.partition("-")
    if not (time.isascii() and time.isdigit() and number.isascii() and (number.isdigit() or number == "")):
        raise RequestError(
            f"`{after}` is no event's id.", path="Last-Event-ID", next="Pass back the `id` of the last event that you saw."
        )
    return f"{time}-{number or 0}"


class EventReader:
    """Reads the streams of many jobs; the followers of one reader share one blocking connection."""

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        self._settings = settings
        self._redis = client or connect(settings)
        self._store = JobStore(self._redis, settings)
        self._hub: _Hub | None = None

    def read(self, job_id: str, after: str | None = None, limit: int = 1_000) -> list[Event]:
        """Up to `limit` events after an id, oldest first, at once."""
        rows: Any = self._redis.xrange(self._key(job_id), min=f"({check_event_id(after)}", count=limit)
        return [parse_event(job_id, i, f) for i, f in rows]

    async def follow(self, job_id: str, *, after: str | None = None) -> AsyncIterator[Event]:
        """Every event after an id, as it happens, up to the job's last one.

        A `gap` event stands for events that were trimmed; its data is the job's view. A job whose stream is gone
        (it was purged) ends the iteration.
        """
        at = check_event_id(after)
        hub = self._hub = self._hub or _Hub(connect_async(self._settings))
        gap = await asyncio.to_thread(self._gap, job_id, at)
        if gap is not None:
            yield gap
            at = gap.id
        with hub.wakeups(self._key(job_id)) as wakeup:
            while True:
                wakeup.clear()
                events = await hub.entries(self._key(job_id), at)
                if len(events) == _PAGE and at != START and (gap := await asyncio.to_thread(self._gap, job_id, at)):
                    yield gap  # so far behind that the stream was trimmed before it was read
                    at = gap.id
                    continue
                for stream_id, fields in events:
                    event = parse_event(job_id, stream_id, fields)
                    at = event.id
                    yield event
                    if event.final and await asyncio.to_thread(self._over, job_id, at):
                        return
                if events:
                    continue
                if await asyncio.to_thread(self._over, job_id, at):
                    return
                await hub.wait(wakeup)

    async def close(self) -> None:
        """Ends the shared connection; followers stop."""
        if self._hub is not None:
            await self._hub.close()
            self._hub = None

    def _key(self, job_id: str) -> str:
        return job_keys(job_id, self._settings.shards).events

    def _gap(self, job_id: str, at: str) -> Event | None:
        first: Any = self._redis.xrange(self._key(job_id), count=1)
        if not first or first[0][1].get(b"t") == b"job.accepted":
            return None
        if at != START and _number(at) >= _number(first[0][0].decode()):
            return None
        view = self._store.view(job_id, tenant=self._tenant(job_id))
        cursor = view.cursor or at
        ts = datetime.fromtimestamp(_number(cursor)[0] / 1000, UTC)
        # The snapshot includes everything up to its cursor; the last event is repeated so that the stream has an end.
        before = self._before_last(job_id, view.status, cursor)
        return Event(id=before, type="gap", job_id=job_id, ts=ts, data=view.model_dump(mode="json"))

    def _before_last(self, job_id: str, status: JobStatus, cursor: str) -> str:
        if not status.final:
            return cursor
        newest: Any = self._redis.xrevrange(self._key(job_id), count=2)
        return str(newest[-1][0].decode()) if len(newest) == 2 else START

    def _tenant(self, job_id: str) -> str:
        raw: Any = self._redis.hget(job_keys(job_id, self._settings.shards).state, "tenant")
        return raw.decode() if raw else "default"

    def _status(self, job_id: str) -> bytes | None:
        raw: Any = self._redis.hget(job_keys(job_id, self._settings.shards).state, "st")
        return bytes(raw) if raw is not None else None

    def _over(self, job_id: str, at: str) -> bool:
        """Nothing follows: the job is gone, or it ended and `at` is its last event."""
        status = self._status(job_id)
        if status is None:
            return True
        if not JobStatus(status.decode()).final:
            return False
        newest: Any = self._redis.xrevrange(self._key(job_id), count=1)
        return not newest or _number(newest[0][0].decode()) <= _number(at)


def _number(stream_id: str) -> tuple[int, int]:
    time, _, number = stream_id.partition("-")
    return int(time), int(number or 0)


class _Hub:
    """One XREAD for all streams that are followed here: it only wakes the followers, who read for themselves."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._seen: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def entries(self, key: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        rows: Any = await self._redis.xrange(key, min=f"({after}", count=_PAGE)
        if rows:
            self._seen[key] = max(self._seen.get(key, START), rows[-1][0].decode(), key=_number)
        return list(rows)

    def wakeups(self, key: str) -> _Wakeup:
        return _Wakeup(self._followers, self._seen, key)

    async def wait(self, wakeup: asyncio.Event) -> None:
        """Sleeps until the stream grew, a little longer than one XREAD at most."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait_for(wakeup.wait(), _BLOCK_MS / 1000)
        except TimeoutError:
            return

    async def _watch(self) -> None:
        while self._followers:
            streams: Any = {key: self._seen.get(key, START) for key in self._followers}
            try:
                rows: Any = await self._redis.xread(streams, count=100, block=_BLOCK_MS // 4)
            except (redis.ConnectionError, redis.TimeoutError):
                await asyncio.sleep(0.2)  # followers meet the same error and report it
                continue
            for raw, entries in rows or []:
                key = raw.decode()
                self._seen[key] = entries[-1][0].decode()
                for wakeup in self._followers.get(key, ()):
                    wakeup.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        await self._redis.aclose()


class _Wakeup:
    """Registers a follower of a stream for as long as it follows."""

    def __init__(self, followers: dict[str, set[asyncio.Event]], seen: dict[str, str], key: str) -> None:
        self._followers, self._seen, self._key = followers, seen, key
        self._event = asyncio.Event()

    def __enter__(self) -> asyncio.Event:
        self._followers.setdefault(self._key, set()).add(self._event)
        return self._event

    def __exit__(self, *_: object) -> None:
        mine = self._followers.get(self._key, set())
        mine.discard(self._event)
        if not mine:
            self._followers.pop(self._key, None)
            self._seen.pop(self._key, None)
