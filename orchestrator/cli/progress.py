"""How far a job is, step by step: folded from its events, shown as one line per step."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.text import Text

from orchestrator.models.event import Event
from orchestrator.models.job import JobView, StepView

QUIET_S = 1.0  # between two lines of plain progress about the same step
SIGNS = {"pending": "·", "running": "▸", "succeeded": "✓", "failed": "✗", "skipped": "-", "cancelled": "-"}
STYLES = {"pending": "dim", "running": "bold", "succeeded": "green", "failed": "red", "skipped": "dim", "cancelled": "dim"}
_STATUS = {"accepted": "running", "planned": "planning", "confirmed": "planning", "replanning": "planning", "answering": "running"}
_COUNTS = ("total", "done", "failed", "skipped", "running")


def step_line(step: StepView, *, retrying: int = 0) -> str:
    """One step in words: `ocr 7/12 · 1 failed · waiting: no worker for queue ocr`."""
    total = "?" if step.total is None else step.total
    parts = [f"{step.id} {step.done}/{total}"]
    if step.failed:
        parts.append(f"{step.failed} failed")
    if step.skipped:
        parts.append(f"{step.skipped} skipped")
    if retrying:
        parts.append(f"{retrying} waiting to be tried again")
    if step.waiting:
        parts.append(f"waiting: {step.waiting}")
    return " · ".join(parts)


class Progress:
    """A job's steps as its events tell them. `view` is where it stood when the events began."""

    def __init__(self, view: JobView) -> None:
        self.job_id = view.id
        self.status = str(view.status)
        self.steps = {s.id: s for s in view.steps}
        self.reason: str | None = view.waiting  # why the whole job waits
        self._retrying: dict[str, set[str]] = {}

    def apply(self, event: Event) -> StepView | None:
        """Takes one more event in; the step that it changed, if it did."""
        kind, _, what = event.type.partition(".")
        if kind == "job":
            self.status = _STATUS.get(what, what)
            self.reason = event.data.get("reason") if what == "waiting" else None
            if what == "planned":
                self.steps = {s["id"]: StepView(**s, queue="", state="pending") for s in event.data.get("steps") or ()}
        elif event.type == "gap":
            self._replace(event.data)
        elif kind == "step" and event.step:
            return self._set_step(event, what)
        elif kind == "call" and event.step:
            return self._note_call(event, what)
        return None

    def retrying(self, step: str) -> int:
        """How many calls of the step wait for their next try."""
        return len(self._retrying.get(step, ()))

    def line(self, step: str) -> str:
        """The step in words."""
        return step_line(self.steps[step], retrying=self.retrying(step))

    def text(self) -> Text:
        """All steps, for a terminal."""
        lines = [Text(f"{SIGNS[s.state]} {self.line(s.id)}", style=STYLES[s.state]) for s in self.steps.values()]
        if self.reason:
            lines.append(Text(f"waiting: {self.reason}", style="yellow"))
        return Text("\n").join(lines)

    def _replace(self, view: dict[str, Any]) -> None:
        seen = JobView.model_validate(view)
        self.status, self.steps, self.reason = str(seen.status), {s.id: s for s in seen.steps}, seen.waiting
        self._retrying.clear()

    def _set_step(self, event: Event, what: str) -> StepView | None:
        step = self.steps.get(str(event.step))
        if step is None:
            return None
        counts = {name: event.data[name] for name in _COUNTS if isinstance(event.data.get(name), int)}
        state = "running" if what in ("running", "waiting", "progress") else what
        waiting = event.data.get("reason") if what == "waiting" else None
        self.steps[step.id] = step.model_copy(update={**counts, "state": state, "waiting": waiting})
        return self.steps[step.id]

    def _note_call(self, event: Event, what: str) -> StepView | None:
        step = self.steps.get(str(event.step))
        if step is None or event.call is None:
            return None
        waiting = self._retrying.setdefault(step.id, set())
        if what == "waiting":
            waiting.add(event.call)
        else:
            waiting.discard(event.call)
        if step.waiting and what != "waiting":  # somebody works on it again
            self.steps[step.id] = step.model_copy(update={"waiting": None})
        return self.steps[step.id]


class PlainLines:
    """Progress where there is no terminal: a line when something a reader cares about changed, at most one a second of counting."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: dict[str, tuple[str, str, datetime]] = {}

    def lines(self, event: Event) -> list[str]:
        """What to print about this event; nothing when it says nothing new."""
        step = self._progress.apply(event)
        said = [line] if (line := failure_line(event)) else []
        if event.type in ("job.planned", "job.replanning"):
            said += planned_lines(event)
        elif event.type.startswith("job.") and event.type not in ("job.accepted", "job.running", "job.confirmed"):
            said.append(
                f"job {self._progress.job_id} {self._progress.status}"
                + (f": {reason}" if (reason := self._progress.reason) else "")
            )
        if step is not None and (line := self._step(step, event.ts)):
            said.append(line)
        return said

    def _step(self, step: StepView, now: datetime) -> str | None:
        line = self._progress.line(step.id)
        gist = f"{step.state} {step.failed} {step.waiting}"
        before = self._said.get(step.id)
        if before is not None and (line == before[1] and gist == before[0]):
            return None
        if before is not None and gist == before[0] and (now - before[2]).total_seconds() < QUIET_S:
            return None
        self._said[step.id] = (gist, line, now)
        return line + (f" · {step.state}" if step.state not in ("running", "pending") else "")


def planned_lines(event: Event) -> list[str]:
    """What became of a request's plan, in words."""
    if event.type == "job.replanning":
        failed = ", ".join(dict.fromkeys(str(e.get("step")) for e in event.data.get("errors") or ()))
        return [f"planned anew, since steps failed: {failed}" if failed else "planned anew, since steps failed"]
    if event.type != "job.planned":
        return []
    total, by = event.data.get("total"), event.data.get("model") or f"the template {event.data.get('template')}"
    return [f"planned by {by}: {total} step{'s' if total != 1 else ''}"]


def failure_line(event: Event) -> str | None:
    """What went wrong in one call, in words; None when the event tells of no failure."""
    if event.type == "alert":
        return f"{event.call} alert {event.data.get('alert')}: {event.data.get('message')}"
    if event.type not in ("call.failed", "call.unknown"):
        return None
    error = event.data.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    how = "failed" if event.type == "call.failed" else "may or may not have happened; settle it with `toolweaver resolve`"
    return f"{event.call} {how}" + (f": {message}" if message else "")
