"""What `toolweaver doctor` asks of the servers: `python -m orchestrator.local.examine` prints one JSON list of findings.

The command line carries no Redis and no broker, so this is a process of its own. It changes nothing but one small file in
the blob store, which it takes away again.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from typing import Any

import redis
from packaging.version import Version
from pydantic import TypeAdapter

from orchestrator.broker.app import make_app
from orchestrator.errors import ToolWeaverError
from orchestrator.jobs.blobs import StoredBytes
from orchestrator.jobs.store import JobStore
from orchestrator.models.platform import Finding
from orchestrator.models.search import IndexStatus
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from orchestrator.state.keys import all_shards
from orchestrator.tool_search.client import IndexClient

OLDEST, WITH_WAITAOF = Version("7.0"), Version("7.2")
FULL = 0.8  # of maxmemory
SKEW_S = 5.0
OLD_S = 60.0  # a call that waits so long in a queue is worth a word


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings about store, broker and blob store, in the order in which a person would mend them."""
    client = connect(settings, retries=0, timeout_s=3.0)
    try:
        info: Any = client.info()
    except redis.RedisError as error:
        yield Finding("store", "fail", f"does not answer: {error}", "Start it, or mend TOOLWEAVER_REDIS_URL.")
        return
    yield _version(settings, info)
    yield _file(settings, client, info)
    yield _memory(info)
    yield _clock(client)
    yield _broker(settings)
    store = JobStore(client, settings)
    yield from _work(store)
    yield _blobs(store)
    yield from _index(settings, client)


def _version(settings: Settings, info: dict[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    found = Version(str(info.get("valkey_version", info["redis_version"])))
    if found < OLDEST:
        return Finding("store", "fail", f"{name} {found}", f"Use Redis {OLDEST} or newer, or Valkey.")
    if settings.once_fsync and found < WITH_WAITAOF:
        return Finding("store", "fail", f"{name} {found} knows no WAITAOF", "Use 7.2 or newer, or turn `once_fsync` off.")
    return Finding("store", "ok", f"{name} {found} answers")


def _file(settings: Settings, client: Any, info: dict[str, Any]) -> Finding:
    if not info.get("aof_enabled"):
        return Finding("durability", "warn", "no append-only file: a restart loses every job", "Set `appendonly yes`.")
    if info.get("aof_last_write_status") != "ok":
        return Finding("durability", "fail", "the append-only file cannot be written", "Make room on the disk of the store.")
    fsync = _config(client, "appendfsync") or "unknown"
    if fsync == "no":
        return Finding("durability", "warn", "appendfsync no: a power cut may lose half a minute", "Set `appendfsync everysec`.")
    sure = " (`once` tools wait for the disk)" if settings.once_fsync else ""
    return Finding("durability", "ok", f"append-only file, appendfsync {fsync}{sure}")


def _memory(info: dict[str, Any]) -> Finding:
    policy, most, used = info.get("maxmemory_policy"), int(info.get("maxmemory", 0)), int(info["used_memory"])
    detail = f"{used / (1 << 20):.0f} MiB" + (f" of {most / (1 << 20):.0f}" if most else ", no limit")
    if most and policy != "noeviction":
        return Finding("memory", "fail", f"{detail}; {policy} throws parts of jobs away", "Set `maxmemory-policy noeviction`.")
    if most and used > most:
        return Finding("memory", "fail", f"{detail}: full, submissions are refused", "Raise `maxmemory`, or `toolweaver purge`.")
    if most and used > FULL * most:
        return Finding("memory", "warn", detail, "Raise `maxmemory`, or lower `retention_s`.")
    return Finding("memory", "ok", detail)


def _clock(client: Any) -> Finding:
    began = time.time()
    seconds, micros = client.time()
    skew = seconds + micros / 1e6 - (began + time.time()) / 2
    if abs(skew) > SKEW_S:
        return Finding("clock", "warn", f"the store's clock is {skew:+.0f} s off this machine's", "Let both follow NTP.")
    return Finding("clock", "ok", f"{skew:+.1f} s off the store's")


def _broker(settings: Settings) -> Finding:
    kind = "RabbitMQ" if settings.on_rabbitmq else "the store" if settings.direct else "Redis"
    try:
        with make_app(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
    except Exception as error:  # each transport has errors of its own
        return Finding("broker", "fail", f"{kind} does not answer: {error}", "Start it, or mend TOOLWEAVER_BROKER_URL.")
    return Finding("broker", "ok", f"{kind} answers")


def _work(store: JobStore) -> Iterator[Finding]:
    """What waits, and for how long."""
    now, served = store.ledger.now_ms(), {w.queue for w in store.workers()}
    for shard in all_shards(store.settings.shards):
        waiting = store.redis.zcard(shard.accepted)
        if waiting and store.redis.get(shard.leader) is None:
            yield Finding("planner", "fail", f"{waiting} jobs wait and no planner runs", "Start `python -m orchestrator.tasks`.")
        for queue in sorted(raw.decode() for raw in store.redis.smembers(shard.queues)):
            oldest = store.redis.zrange(shard.queued(queue), 0, 0, withscores=True)
            age = (now - oldest[0][1]) / 1000 if oldest else 0.0
            count = store.redis.zcard(shard.queued(queue))
            if count and queue not in served:
                yield Finding(f"queue {queue}", "warn", f"{count} calls wait and no worker serves it", _worker(queue))
            elif age > OLD_S:
                yield Finding(f"queue {queue}", "warn", f"{count} calls wait, one for {age:.0f} s", _worker(queue))


def _worker(queue: str) -> str:
    return f"Start another: `toolweaver worker --pool {queue}`."


def _blobs(store: JobStore) -> Finding:
    held = store.files.blobs.bytes
    if not isinstance(held, StoredBytes):
        return Finding("blob store", "ok", f"through the API at {held.where}")
    probe = f".doctor-{secrets.token_hex(8)}"
    try:
        file = held.store.write(probe)
        held.store.put(file, b"doctor")
        held.store.finish(file)
        read = b"".join(held.store.read(probe))
        held.store.delete(probe)
    except ToolWeaverError as error:
        return Finding("blob store", "fail", error.message, error.next or "")
    if read != b"doctor":
        return Finding("blob store", "fail", f"{held.where} gives back other bytes than it was given", "Look at that store.")
    return Finding("blob store", "ok", f"{held.where} takes and gives bytes")


def _index(settings: Settings, client: Any) -> Iterator[Finding]:
    """The replicas of the index service, and whether each knows the catalog that the store has."""
    with IndexClient.of(settings, client=client, timeout=3.0) as index:
        found = index.statuses()
    if not found:
        yield Finding("index", "warn", "no replica answers searches", "`toolweaver up` starts one; see `toolweaver logs index`.")
    for url, status in found.items():
        yield _replica(url, status)


def _replica(url: str, status: IndexStatus | str) -> Finding:
    if isinstance(status, str):
        return Finding("index", "warn", f"{url} does not answer: {status}", "Look at `toolweaver logs index`.")
    said = f"{url}: {status.size:,} tools, change {status.generation}"
    if status.generation == status.store_generation and status.catalog_hash != status.store_hash:
        return Finding("index", "warn", f"{said}; its hash is not the store's", "It reads the whole catalog again by itself.")
    said += f", {status.backlog:,} not found by meaning yet" if status.backlog else ""
    if status.degraded:
        return Finding("index", "warn", f"{said}; {'; '.join(status.degraded)}", "Look at `toolweaver logs index`.")
    return Finding("index", "ok", said)


def _config(client: Any, name: str) -> str | None:
    """A setting of the server; None where the user may not ask."""
    try:
        return next(iter(client.config_get(name).values()), None)
    except redis.ResponseError:
        return None


def main() -> int:
    """Prints the findings; the exit code is 0."""
    found = list(examine(load_settings()))
    sys.stdout.write(TypeAdapter(list[Finding]).dump_json(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
