"""The yardsticks of `bench/engine.py`: Celery as one would use it without us, and raw Redis."""

from __future__ import annotations

import os
import sys
from typing import Any

import redis
from celery import Celery

URL = os.environ.get("BENCH_URL", "")
SOCKET = os.environ.get("BENCH_SOCKET", "")
ON_REDIS = URL.startswith("redis")

app = Celery("yardstick", broker=URL, backend=f"redis+socket://{SOCKET}?virtual_host=1", set_as_current=False)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    task_default_queue=os.environ.get("BENCH_QUEUE", "yard"),
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": 3600,
        "socket_timeout": 30,
        "ack_emulation": os.environ.get("BENCH_ACKS", "1") == "1",
    }
    if ON_REDIS
    else {"confirm_publish": True},
    # The same guarantees as ours on RabbitMQ: quorum queues, confirmed messages.
    task_default_queue_type="classic" if ON_REDIS else "quorum",
    worker_detect_quorum_queues=not ON_REDIS,
    broker_native_delayed_delivery_queue_type="classic",
)


@app.task(name="yard.noop", ignore_result=True)
def noop(*_: Any) -> None:
    return None


@app.task(name="yard.done", ignore_result=True)
def done(key: str) -> None:
    redis.Redis(unix_socket_path=SOCKET, db=1).lpush(key, 1)


_client: list[redis.Redis] = []


@app.task(name="yard.count", ignore_result=True)
def count() -> None:
    if not _client:
        _client.append(redis.Redis(unix_socket_path=SOCKET, db=1))
    _client[0].incr("yard:count")


FINISH = """
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
for i = 4, #ARGV do
  if redis.call('HINCRBY', KEYS[2], ARGV[i], -1) == 0 then redis.call('LPUSH', KEYS[3], ARGV[1] .. '|' .. ARGV[i]) end
end
if redis.call('HINCRBY', KEYS[2], '__left', -1) == 0 then redis.call('LPUSH', KEYS[4], 1) end
"""


def floor_worker() -> None:
    """One BRPOP and one script a step: nothing is lost less than a kill away."""
    import json

    client = redis.Redis(unix_socket_path=SOCKET, socket_timeout=None)
    finish = client.register_script(FINISH)
    successors: dict[bytes, dict[str, list[str]]] = {}
    while True:
        _, message = client.brpop("floor:q")  # type: ignore[misc]
        job, _, step = message.partition(b"|")
        kind = job.split(b":")[1]
        if kind not in successors:
            successors[kind] = json.loads(client.get(b"floor:dag:" + kind))  # type: ignore[arg-type]
        following = successors[kind].get(step.decode(), [])
        finish(keys=[job + b":r", job + b":p", "floor:q", "floor:done"], args=[job, step, "null", *following])


if __name__ == "__main__" and sys.argv[1:] == ["floor"]:
    floor_worker()
