"""The only table of queues: which there are, which pool of which kind serves each, and what priorities mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.models.job import Priority

PLANNER = "planner"
PLAN_JOB = "planner.plan_job"
STEP_FINISHED = "planner.step_finished"
PRIVATE = "private-"  # of a script or notebook that serves its own functions; declared by it alone, and gone with it

# kombu on Redis serves 0 first. Levels 0-2, by priority, are for tenants with few published calls in the queue, 3-5 for those
# with many, so that a flood does not stand before anybody else; what was starved for long moves to 0.
PRIORITIES: dict[Priority, int] = {"interactive": 0, "normal": 1, "batch": 2}
LEVELS = range(6)
PRIORITY_STEPS = list(LEVELS)
SEPARATOR = "\x06\x16"  # kombu's, between a queue's name and its priority


PoolKind = Literal["prefork", "async", "threads", "solo"]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of workers: its queue has its name. `extra` is what installs its packages, `check` the module that says
    whether it can run on this machine."""

    name: str
    kind: PoolKind = "prefork"
    extra: str | None = None
    check: str | None = None
    summary: str = ""


POOLS = {
    p.name: p
    for p in (
        Pool("function", summary="registered Python functions"),
        Pool("async", kind="async", summary="registered `async def` functions, many at once on one loop"),
        Pool("ocr", extra="ocr", summary="text from images"),
        Pool("small_model", summary="small models and rules"),
        Pool("mcp", kind="async", extra="mcp", summary="tools of MCP servers"),
        Pool("http", kind="async", summary="operations of OpenAPI documents"),
        Pool("code", kind="async", extra="sandbox", check="workers.code.check", summary="programs in containers"),
    )
}

ON_DEMAND = frozenset(("mcp", "http"))  # pools that serve what the servers file names, and nothing where it names none


def task_name(queue: str) -> str:
    """The Celery task that runs the calls of a queue; Flower shows the tool's name in its place."""
    return f"{queue}.call"


def list_name(queue: str, level: int) -> str:
    """The Redis list that kombu keeps the messages of a queue and level in."""
    return f"{queue}{SEPARATOR}{level}" if level else queue
