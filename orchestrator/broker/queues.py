"""The only table of queues: which there are, which pool of which kind serves each, and what priorities mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.models.job import Priority

PLANNER = "planner"
PLAN_JOB = "planner.plan_job"
STEP_FINISHED = "planner.step_finished"

# kombu on Redis serves 0 first (the reverse of RabbitMQ).
PRIORITIES: dict[Priority, int] = {"interactive": 0, "normal": 3, "batch": 6}
PRIORITY_STEPS = [0, 3, 6, 9]
SEPARATOR = "\x06\x16"  # kombu's, between a queue's name and its priority


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of workers: its queue has its name. `extra` is what installs its packages."""

    name: str
    kind: Literal["prefork", "threads", "solo"] = "prefork"
    extra: str | None = None
    summary: str = ""


POOLS = {
    p.name: p
    for p in (
        Pool("function", summary="registered Python functions"),
        Pool("ocr", extra="ocr", summary="text from images"),
        Pool("small_model", summary="small models and rules"),
    )
}


def task_name(queue: str) -> str:
    """The Celery task that runs the calls of a queue; Flower shows the tool's name in its place."""
    return f"{queue}.call"


def list_name(queue: str, priority: Priority) -> str:
    """The Redis list that kombu keeps the messages of a queue and priority in."""
    step = PRIORITIES[priority]
    return f"{queue}{SEPARATOR}{step}" if step else queue
