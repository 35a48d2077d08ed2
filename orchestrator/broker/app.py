"""The Celery app of every process. Messages are wake-ups that carry ids; the ledger is the truth."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from orchestrator.broker.queues import PLANNER, POOLS, PRIORITIES, PRIORITY_STEPS
from orchestrator.settings import Settings

VISIBILITY_TIMEOUT_S = 6 * 3600  # a backstop only: leases recover calls long before


def make_app(settings: Settings) -> Celery:
    """An app that is configured for the settings' broker."""
    app = Celery(
        "toolweaver", broker=settings.celery_url, backend="orchestrator.broker.backend:LedgerBackend", set_as_current=False
    )
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
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "queue_order_strategy": "priority",
            "priority_steps": PRIORITY_STEPS,
            "socket_keepalive": not settings.celery_url.startswith("redis+socket"),
            "socket_timeout": 30,
            "health_check_interval": 25,
            # kombu's copy of unacknowledged messages would come back after VISIBILITY_TIMEOUT_S; leases and the outbox
            # bring a call back within seconds, and the copy costs half of a worker's main process. See decision 0008.
            "ack_emulation": False,
        },
        task_queues=[Queue(name) for name in (PLANNER, *POOLS)],
        task_default_queue=PLANNER,
        task_default_priority=PRIORITIES["normal"],
        task_create_missing_queues=True,
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        enable_utc=True,
    )
    return app
