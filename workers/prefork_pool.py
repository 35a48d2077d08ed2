"""The pool of processes, which ends at once when no call runs: Celery's own needs seconds for it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

from celery.concurrency.prefork import TaskPool

NAME = f"{__name__}:PreforkPool"


class PreforkPool(TaskPool):
    """Celery's pool of processes. Its children sleep a second before they end, in which its main process polls them by turns."""

    def on_stop(self) -> None:
        """Lets running calls end; children without one have nothing to lose."""
        pool: Any = self._pool  # type: ignore[attr-defined]  # Celery's stubs leave it out
        if pool is None or pool._cache:
            super().on_stop()
            return
        pool.close()  # before, so that nothing takes their place
        for child in pool._pool:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        self.on_terminate()
