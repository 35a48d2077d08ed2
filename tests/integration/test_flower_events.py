"""What Flower is told: the tool's name for each call, and failure for a call that failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.broker.app import make_app
from tests.processes import Platform, platform
from tests.support import wait_until


@contextmanager
def heard(p: Platform) -> Iterator[list[dict[str, Any]]]:
    """The events that Flower would get while the block runs."""
    seen: list[dict[str, Any]] = []
    app = make_app(p.settings)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=30, wakeup=False), daemon=True)
        thread.start()
        try:
            wait_until(lambda: any(e["type"] == "worker-heartbeat" for e in seen), description="events arrive")
            yield seen
        finally:
            receiver.should_stop = True
            thread.join(timeout=10)


def test_calls_read_well_and_failures_are_failures() -> None:
    good = {"id": "good", "tool": "work", "input": {"seconds": 0}}
    bad = {"id": "bad", "tool": "work", "input": {"seconds": "much"}, "on_error": "continue"}
    with platform() as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        with heard(p) as seen:
            job = p.submit([good, bad])
            p.wait(job)
            wait_until(lambda: any(e["type"] == "task-failed" for e in seen), description="a failure is told")

        received = {e["uuid"]: e["name"] for e in seen if e["type"] == "task-received"}
        assert received[f"{job}:good#0:1"] == "work"
        ended = {e["uuid"]: e["type"] for e in seen if e["type"] in ("task-succeeded", "task-failed")}
        assert ended[f"{job}:good#0:1"] == "task-succeeded"
        assert ended[f"{job}:bad#0:1"] == "task-failed"
        assert "bad_input" in next(e["exception"] for e in seen if e["type"] == "task-failed")
