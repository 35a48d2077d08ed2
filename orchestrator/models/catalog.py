"""What is told about a catalog beside its tools: what changed, and how its servers are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ServerKind = Literal["stdio", "http", "openapi"]
ServerStatus = Literal["up", "down", "starting"]


class Diff(BaseModel):
    """What became of tools, by name: new, with another content, gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Quarantined(BaseModel):
    """A tool that is kept out of the catalog until somebody has approved it: this version of it, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    reasons: tuple[str, ...] = ()


class Refusal(BaseModel):
    """Something a server listed that is no tool, by the name it has there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    native_name: str
    reason: str


class ServerState(BaseModel):
    """How a server was when its worker last looked; `at` is in Unix seconds, `version` the server's own.

    `reach` is a hash of how it was reached when it listed its tools: asked in another way, it may rightly offer other ones.

    `away` are tools that it offered once and not now, and its version then: should they come back as others, that is a change.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer worker may say more

    name: str
    kind: ServerKind = "stdio"
    state: ServerStatus = "starting"
    error: str | None = None
    protocol: str | None = None
    version: str | None = None
    reach: str = ""
    tools: int = Field(default=0, ge=0)
    quarantined: tuple[Quarantined, ...] = ()
    refused: tuple[Refusal, ...] = ()
    diff: Diff | None = None
    away: dict[str, str | None] = Field(default_factory=dict)
    at: float = 0.0
    worker: str = ""
