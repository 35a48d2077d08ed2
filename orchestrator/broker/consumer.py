"""Celery's consumer, which comes back soon after an outage and leaves no queues behind that nobody uses."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from celery.worker import consumer
from kombu import Connection

RETRY_EVERY_S = 1
_DELAYED = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(consumer.Consumer):
    """Tries once a second: Celery itself waits two seconds longer after each try, up to half a minute.

    Delayed delivery would declare 28 queues on RabbitMQ for tasks with a time of their own; ours have none, since retries wait
    in the ledger.
    """

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc, valid-type]  # its stubs call it a variable
        default_steps: ClassVar[list[str]] = [s for s in consumer.Consumer.Blueprint.default_steps if s != _DELAYED]

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connects, however long it takes."""
        soon = partial(conn.ensure_connection, interval_start=RETRY_EVERY_S, interval_step=0, interval_max=RETRY_EVERY_S)
        conn.ensure_connection = soon  # type: ignore[method-assign]  # Celery calls it with intervals of kombu's
        return super().ensure_connected(conn)
