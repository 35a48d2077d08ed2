"""Runs a Celery worker without Celery's command line, whose commands, plugins and prompt cost a third of a second of each start."""

from __future__ import annotations

import os
import signal
from typing import Any

from celery import Celery
from celery.signals import worker_ready
from celery.utils.nodenames import default_nodename, host_format
from kombu.asynchronous import get_event_loop

from orchestrator.loaded import settle


def run_worker(app: Celery, *, queue: str, log_level: str, pool: str | None = None) -> None:
    """Serves one queue until a signal ends it, as `celery worker` does with `--without-gossip` and `--without-mingle`.

    `pool` is Celery's name of a kind of pool; default: the app's setting `worker_pool`. Its slots are `worker_concurrency`.
    """
    worker_ready.connect(_wake_on_signals, weak=False)
    worker = app.Worker(
        hostname=host_format(default_nodename(f"{queue}-{os.getpid()}@%h")),
        pool_cls=pool,
        loglevel=log_level,
        queues=[queue],
        optimization="default",
        without_gossip=True,
        without_mingle=True,
    )
    settle()
    worker.start()


def _wake_on_signals(**_: Any) -> None:
    """Ends the wait of the worker's loop with each signal: only then, else up to a second later, Celery sees that it is to stop."""
    hub = get_event_loop()
    if hub is None:
        return
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    hub.add_reader(read, os.read, read, 4096)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
