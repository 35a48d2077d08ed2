"""A queue of RabbitMQ that takes nothing although others would is deleted and declared anew: messages are wake-ups only.

RabbitMQ writes which files are a quorum queue's up to half a second after it was declared (`auto_save` of `names.dets`, in its
library Ra from 2.2 to 3.1 at least). Killed before that, it comes back with an empty member of a cluster that was never started: it
elects no leader, confirms nothing, answers no consumer, and stays so through restarts. See docs/brokers.md.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from typing import Any

from celery import Celery
from kombu import Connection

from orchestrator.broker.queues import PRIVATE
from orchestrator.broker.rabbitmq import QUORUM

log = logging.getLogger(__name__)

SILENT_S = 20.0  # longer than the election of a leader, and than a disk that stalls
PAUSE_S = 60.0  # between two renewals of a queue, by whichever process
ANSWER_S = 30.0  # RabbitMQ tries for 5 s to delete a queue in order, and then by force


class Silence:
    """Since when which queues confirm nothing to this process."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def heard(self, queues: Iterable[str] | None = None) -> None:
        """These took messages again; None: nothing can be said of any, since the broker itself was away."""
        for queue in list(self._since) if queues is None else queues:
            self._since.pop(queue, None)

    def lasting(self, queues: Iterable[str]) -> list[str]:
        """Those of the queues, silent now, that were so for SILENT_S; private ones are their owner's."""
        now = time.monotonic()
        return sorted(q for q in queues if now - self._since.setdefault(q, now) >= SILENT_S and not q.startswith(PRIVATE))


def renew(app: Celery, queue: str) -> bool:
    """Puts a new queue in the place of one that takes nothing, and lets its workers listen to that; whether it did.

    It does not where that was tried less than PAUSE_S ago, by any process.

    Raises:
        Unconfirmed: a new queue takes nothing either (the disk is full, memory is short, most nodes are away).
        AMQPError | OSError: the broker went away, or did not answer for ANSWER_S.
    """
    with app.connection_for_write(transport_options={"read_timeout": ANSWER_S}) as connection:
        if not _first(connection, trial := f"{queue}.trial"):
            return False
        _try(connection, trial)
        log.warning("queue %s takes nothing: it is deleted and declared anew", queue, extra={"action": "renew_queue"})
        channel: Any = connection.default_channel
        channel.queue_delete(queue)
        app.amqp.queues[queue](channel).declare()
    _listen_again(app, queue)
    return True


def _first(connection: Connection, trial: str) -> bool:
    """Whether no trial is there yet; that of another process goes PAUSE_S after it was used."""
    channel: Any = connection.channel()  # of its own, since the broker closes it when there is no such queue
    try:
        with channel:
            channel.queue_declare(trial, passive=True)
    except connection.channel_errors:
        return True
    return False


def _try(connection: Connection, trial: str) -> None:
    """Declares a quorum queue, and waits until it took two messages: a broker without memory or disk blocks from the second on."""
    channel: Any = connection.channel()  # one of `rabbitmq.Channel`
    with channel:
        lapses = {**QUORUM, "x-expires": int(PAUSE_S * 1000)}
        channel.queue_declare(trial, durable=True, auto_delete=False, arguments=lapses)
        batch = channel.create_publish_batch(max_size=1)
        for _ in range(2):
            batch.publish(channel.prepare_message(b""), routing_key=trial)


def _listen_again(app: Celery, queue: str) -> None:
    """RabbitMQ does not tell consumers of a queue deleted by force; those that it never answered connect again by themselves."""
    workers = rf"{re.escape(queue)}-\d+@"  # as `workers.boot` and `orchestrator.tasks` name them
    control: Any = app.control  # its stubs know no pattern
    for command in ("cancel_consumer", "add_consumer"):
        control.broadcast(command, arguments={"queue": queue}, pattern=workers, matcher="pcre")
