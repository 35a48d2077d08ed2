"""The Celery app of every process, for Redis or RabbitMQ. Messages are wake-ups that carry ids; the ledger is the truth."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from orchestrator.broker import rabbitmq
from orchestrator.broker.queues import PLANNER, POOLS, PRIORITIES, PRIORITY_STEPS
from orchestrator.settings import Settings

VISIBILITY_TIMEOUT_S = 6 * 3600  # a backstop only: leases recover calls long before
HEARTBEAT_S = 10  # RabbitMQ; a worker notices a broker that is gone without a word after two of them
# For whoever publishes: what is not sent waits in the outbox, and a person may wait for the answer.
_GIVE_UP_SOON = {"max_retries": 1, "interval_start": 0.2, "interval_step": 0, "connect_retries_timeout": 3}


def make_app(settings: Settings) -> Celery:
    """An app that is configured for the settings' broker."""
    app = Celery("toolweaver", backend="orchestrator.broker.backend:LedgerBackend", set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        # Leases recover a lost call; the broker's own redelivery looped on tasks that kill their process.
        task_reject_on_worker_lost=False,
        task_acks_on_failure_or_timeout=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=settings.task_events,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=5.0,
        worker_consumer="orchestrator.broker.consumer:Consumer",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # RabbitMQ closes a channel whose call ran longer than its consumer_timeout
        task_default_queue=PLANNER,
        task_default_priority=PRIORITIES["normal"],
        task_create_missing_queues=True,
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        enable_utc=True,
    )
    app.conf.update(_rabbitmq(settings) if settings.on_rabbitmq else _redis(settings))
    return app


def _redis(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.celery_url,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",
            "priority_steps": PRIORITY_STEPS,
            "socket_keepalive": not settings.celery_url.startswith("redis+socket"),
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "health_check_interval": 5,  # a worker notices a Redis that is gone without a word after about two of them
            # kombu's copy of unacknowledged messages would come back after VISIBILITY_TIMEOUT_S; leases and the outbox
            # bring a call back within seconds, and the copy costs half of a worker's main process. See decision 0008.
            "ack_emulation": False,
            **_GIVE_UP_SOON,
        },
        "task_queues": [Queue(name) for name in (PLANNER, *POOLS)],
    }


def _rabbitmq(settings: Settings) -> dict[str, Any]:
    url, tls = rabbitmq.split_tls(settings.celery_url)
    return {
        "broker_url": url,
        "broker_use_ssl": tls or False,
        "broker_transport": rabbitmq.TRANSPORT,
        "broker_heartbeat": HEARTBEAT_S,
        "broker_transport_options": _GIVE_UP_SOON,
        "task_queues": [rabbitmq.queue(name) for name in (PLANNER, *POOLS)],
        "task_create_missing_queue_type": "quorum",
    }
