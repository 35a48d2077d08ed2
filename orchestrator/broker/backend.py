"""A Celery result backend that keeps no results: the join of a chord is the job ledger.

Celery's own join costs two to four times a direct task, and loses the chord when its counter expires. Here the
finishing worker completes the call *inside* the task, fenced by the attempt, and the hooks below do nothing.
"""

from __future__ import annotations

from typing import Any

from celery.backends.base import Backend


class LedgerBackend(Backend):
    """Chords without counters and tasks without results."""

    supports_autoexpire = True

    def store_result(self, task_id: str, result: Any, state: str, *_: Any, **__: Any) -> Any:
        return result

    def get_task_meta(self, task_id: str, *_: Any, **__: Any) -> dict[str, Any]:
        return {"task_id": task_id, "status": "PENDING", "result": None}

    def ensure_chords_allowed(self) -> None:
        """Chords are what this backend is for."""

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """Nothing to count: the ledger knows the step's calls."""

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """Nothing to join: the call was completed inside the task."""

    def add_pending_result(self, result: Any, *_: Any, **__: Any) -> Any:
        return result

    def remove_pending_result(self, result: Any) -> Any:
        return result

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing to subscribe to."""

    def as_uri(self, include_password: bool = True) -> str:
        return "ledger://"
