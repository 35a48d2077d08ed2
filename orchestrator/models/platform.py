"""A running platform, as it says of itself in `<home>/platform.json`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE_NAME = "platform.json"
MARK = "TOOLWEAVER_SUPERVISED"  # in the environment of every process of a platform: "<pid of its supervisor>@<home>"


Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one check of the doctor saw; `next` says what to do about it."""

    name: str
    level: Level
    detail: str
    next: str = ""


class Platform(BaseModel):
    """Where the parts of a running platform answer, and which process holds them together."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    pid: int = Field(description="the supervisor; SIGTERM stops everything in order")
    api: str
    flower: str | None = None
    redis: str = Field(description="store and broker, as a `redis_url`")
    started: datetime
    process_started: float = Field(
        description="when the kernel says that `pid` began: tells it from a later process of that number"
    )
    pools: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.process_started) < 1.0
        except psutil.Error:
            return False


def running_platform(home: Path) -> Platform | None:
    """The platform that runs in this home now, or None; a file that a killed supervisor left behind counts for nothing."""
    try:
        platform = Platform.model_validate_json((home / FILE_NAME).read_text())
    except (OSError, ValidationError):
        return None
    return platform if platform.alive else None
