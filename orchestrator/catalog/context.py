"""What a running tool may ask of its call: who it is, whether it is cancelled, and a place to log.

A tool that names a parameter of this type gets it; the parameter is no part of the tool's input.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Protocol

from orchestrator.catalog.files import FileSource
from orchestrator.models.program import Caller
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
    def caller(self) -> Caller:
        """Who calls the tool: a step of the plan (`direct`), or a program with the id of its execution."""

    @property
    def idempotency_key(self) -> str:
        """`job/call`, the same for all attempts: pass it to services that refuse to do a thing twice."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""

    @property
    def files(self) -> FileSource:
        """Where `File` parameters come from."""

    def open_file(self, ref: str) -> BinaryIO:
        """A file of the tenant, for reading and seeking; a copy of its own.

        Raises:
            ToolError: `not_found`: the tenant has no such file.
        """

    def save_file(self, data: bytes | str | os.PathLike[str] | BinaryIO, *, name: str = "", media_type: str | None = None) -> str:
        """Keeps bytes, the file at a path, or an open file for as long as the job is kept; the reference to return.

        Without `media_type` the name says what it is.
        """

    def cancelled(self) -> bool:
        """Whether the call was cancelled or overtaken; cheap, so that loops can poll it."""

    def check(self) -> None:
        """Raises `CallCancelled` when the call was cancelled or overtaken."""

    def log(self, message: str, **data: Any) -> None:
        """Adds a `log` event to the job."""
