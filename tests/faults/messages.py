"""What can happen to messages in a broker: they vanish, or come twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import amqp
from kombu import Connection

from orchestrator.broker.queues import PRIORITY_STEPS, SEPARATOR
from tests.processes import Platform


def waiting(p: Platform, queue: str = "function") -> list[tuple[str, list[bytes]]]:
    """The messages of a queue in Redis that no worker took, by list."""
    client: Any = p.messages
    names = [f"{queue}{SEPARATOR}{s}" if s else queue for s in PRIORITY_STEPS]
    return [(name, client.lrange(name, 0, -1)) for name in names]


def discard(p: Platform, queue: str = "function") -> int:
    """Throws away what waits in a queue; how many messages."""
    if p.rabbit is not None:
        with _taken(p, queue) as (_, messages):
            return len(messages)
    client: Any = p.messages
    pipe = client.pipeline()
    for name, _ in waiting(p, queue):
        pipe.llen(name)
        pipe.delete(name)
    return int(sum(pipe.execute()[::2]))


def double(p: Platform, seen: set[str], queue: str = "function") -> int:
    """Adds a copy of each message that waits and has none yet; how many."""
    return _double_in_rabbit(p, seen, queue) if p.rabbit is not None else _double_in_redis(p, seen, queue)


def _double_in_redis(p: Platform, seen: set[str], queue: str) -> int:
    client: Any = p.messages
    before = len(seen)
    for name, messages in waiting(p, queue):
        for message in messages:
            if (call := json.loads(message)["headers"]["id"]) not in seen:
                client.lpush(name, message)
                seen.add(call)
    return len(seen) - before


def _double_in_rabbit(p: Platform, seen: set[str], queue: str) -> int:
    before = len(seen)
    with _taken(p, queue) as (channel, messages):
        for message in messages:
            call = message.headers["id"]
            for _ in range(1 if call in seen else 2):
                channel.basic_publish(amqp.Message(message.body, **message.properties), routing_key=queue)
            seen.add(call)
    return len(seen) - before


@contextmanager
def _taken(p: Platform, queue: str) -> Iterator[tuple[Any, list[Any]]]:
    """What waits in a queue of RabbitMQ; it is gone after the block."""
    assert p.rabbit is not None
    with Connection(p.rabbit.url) as connection, connection.channel() as opened:
        channel: Any = opened
        messages = []
        while (message := channel.basic_get(queue)) is not None:
            messages.append(message)
        yield channel, messages
        for message in messages:
            channel.basic_ack(message.delivery_tag)
