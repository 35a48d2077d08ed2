"""The message of a call as Celery itself makes it, with blanks: where the broker is the ledger's own Redis, the script
that releases a call fills them in and pushes the message in the same breath.

That saves a round trip and the publishing of every step, and leaves no gap between "the result is stored" and "what
follows is published". The envelope is not written by hand: the publisher's canvas is sent once per tool, queue and
priority into a channel that keeps the message instead of delivering it, so it follows the installed Celery and kombu.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import kombu
from celery import Celery
from kombu.utils.json import dumps

from orchestrator.broker.queues import PRIORITIES
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import Priority
from orchestrator.publisher.publish import send_chord

JOB, STEP, CALL, ATTEMPT = "@J@", "@S@", "@C@", "@A@"
_FORMAT = f"1/{version('celery')}/{version('kombu')}"


def envelope_name(queue: str, tool: str) -> str:
    """Under which name (and priority) an envelope is kept; it changes with the format, so that upgrades do not mix."""
    return f"{_FORMAT}/{queue}/{tool}"


class Envelopes:
    """Makes envelopes, each once per process."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._kept: list[Any] = []
        self._made: dict[tuple[str, str, Priority], bytes] = {}
        channel: Any = kombu.Connection("memory://").default_channel
        self._channel = channel
        channel.body_encoding = None  # blanks in the body stay readable; kombu decodes a plain body as it is
        channel._put = lambda _queue, message, **_: self._kept.append(message)

    def named(self, pairs: Iterable[tuple[str, str]], priority: Priority) -> dict[str, bytes]:
        """The envelopes of (queue, tool) pairs at a priority, by the name under which the ledger looks for them."""
        return {f"{envelope_name(q, tool)}/{priority}": self.make(q, tool, priority) for q, tool in pairs}

    def make(self, queue: str, tool: str, priority: Priority) -> bytes:
        """One envelope, as JSON with the blanks JOB, STEP, CALL and ATTEMPT."""
        key = (queue, tool, priority)
        if key not in self._made:
            blank: Any = ReadyCall(JOB, CALL, ATTEMPT, queue, tool, PRIORITIES[priority])  # type: ignore[arg-type]
            producer = self._app.amqp.Producer(self._channel)
            send_chord(self._app, JOB, STEP, members=[blank], producer=producer)
            message = self._kept.pop()
            message["properties"]["delivery_tag"] = f"{JOB}:{CALL}:{ATTEMPT}"
            self._made[key] = dumps(message).encode()
        return self._made[key]
