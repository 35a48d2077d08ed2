"""Platforms that several tests share, one a broker: started when first asked for, and anew when a test left one broken."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.processes import Broker, Platform, platform
from tests.services import RabbitService
from tests.support import wait_until

LONG = "CHAOS_JOBS" in os.environ
QUICK: dict[str, Any] = {"lease_s": 1.0, "grace_s": 0.8, "reconcile_s": 0.1}
DISK = "size=512m"


class Platforms:
    """At most one a broker; `proxied`, and its server's disk is a small one of its own where that is allowed."""

    def __init__(self) -> None:
        self._settings = {} if LONG else QUICK
        self._running: dict[Broker, tuple[Platform, ExitStack]] = {}

    def get(self, broker: Broker) -> Platform:
        """A platform in good health: see `Platform.start_all`."""
        known = self._running.get(broker)
        if known is not None and not known[0].dead():
            return known[0]
        self.forget(broker)
        stack = ExitStack()
        try:
            made = stack.enter_context(_full_platform(broker, self._settings))
        except BaseException:
            stack.close()
            raise
        self._running[broker] = made, stack
        return made

    def forget(self, broker: Broker) -> None:
        """Ends the platform, if there is one."""
        if broker in self._running:
            self._running.pop(broker)[1].close()

    def close(self) -> None:
        for broker in list(self._running):
            self.forget(broker)


@contextmanager
def _full_platform(broker: Broker, settings: dict[str, Any]) -> Iterator[Platform]:
    with tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        if os.geteuid() == 0:
            stack.enter_context(_small_disk(folder / "data"))
        p = stack.enter_context(platform(broker=broker, proxied=True, folder=folder, **settings))
        p.start_all()
        if p.rabbit is not None:
            _settle(p.rabbit)
        yield p


def _settle(rabbit: RabbitService) -> None:
    """Waits until all queues are there, and written; tests/faults/test_forgotten_queue.py kills a broker before."""
    wait_until(lambda: {"planner", "function", "async"} <= rabbit.queues(rabbit.url).keys(), description="the queues are there")
    rabbit.settle()


@contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
