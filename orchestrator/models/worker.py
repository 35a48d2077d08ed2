"""A worker as it says of itself: one process that takes calls from one queue."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class WorkerInfo(BaseModel):
    """Who takes calls from which queue, and with which tools."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    id: str
    host: str
    pid: int
    pool: str
    queue: str
    concurrency: int
    tools: tuple[str, ...] = ()
    since: datetime
