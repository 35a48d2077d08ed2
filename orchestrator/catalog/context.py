"""What a running tool may ask of its call: who it is, whether it is cancelled, and a place to log.

A tool that names a parameter of this type gets it; the parameter is no part of the tool's input.
"""

from __future__ import annotations

from typing import Any, Protocol

from orchestrator.settings import Settings


class ToolContext(Protocol):
    """The call that a tool runs in."""

    @property
    def job_id(self) -> str:
        """The job that this call belongs to."""

    @property
    def call(self) -> str:
        """The call's id within the job; the same for all attempts."""

    @property
    def attempt(self) -> int:
        """The fencing token: it rises with every attempt, so a store that remembers it can refuse an overtaken one."""

    @property
    def tenant(self) -> str:
        """Whose job it is."""

    @property
    def idempotency_key(self) -> str:
        """`job/call`, the same for all attempts: pass it to services that refuse to do a thing twice."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""

    def cancelled(self) -> bool:
        """Whether the call was cancelled or overtaken; cheap, so that loops can poll it."""

    def check(self) -> None:
        """Raises `CallCancelled` when the call was cancelled or overtaken."""

    def log(self, message: str, **data: Any) -> None:
        """Adds a `log` event to the job."""
