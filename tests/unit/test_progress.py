"""Progress as a person reads it: folded from events, one line per step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.cli.progress import PlainLines, Progress, failure_line, step_line
from orchestrator.models.event import Event
from orchestrator.models.job import JobStatus, JobView, StepView

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def view(**changes: Any) -> JobView:
    steps = (
        StepView(id="ocr", tool="receipt_ocr", queue="ocr", state="pending"),
        StepView(id="parse", tool="line_item_parser", queue="small_model", state="pending"),
    )
    return JobView(**{"id": "job_1", "status": JobStatus.PLANNING, "created_at": BEGIN, "steps": steps} | changes)


class Stream:
    """Makes the events of one job, in order, a tenth of a second apart."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, type: str, step: str | None = None, *, call: str | None = None, after_s: float = 0.1, **data: Any) -> Event:
        self.count += 1
        self.at = getattr(self, "at", BEGIN) + timedelta(seconds=after_s)
        return Event(id=f"{self.count}-0", type=type, job_id="job_1", step=step, call=call, ts=self.at, data=data)


@pytest.fixture
def event() -> Stream:
    return Stream()


def fold(events: list[Event]) -> Progress:
    progress = Progress(view())
    for e in events:
        progress.apply(e)
    return progress


def test_a_step_in_the_words_that_were_promised() -> None:
    step = StepView(
        id="ocr", tool="receipt_ocr", queue="ocr", state="running", total=12, done=7, failed=1, waiting="no worker for queue ocr"
    )

    assert step_line(step) == "ocr 7/12 · 1 failed · waiting: no worker for queue ocr"


def test_a_map_whose_length_is_not_known_yet() -> None:
    assert fold([]).line("parse") == "parse 0/?"


def test_counts_follow_the_events(event: Stream) -> None:
    progress = fold(
        [
            event("job.running"),
            event("step.running", "ocr", total=12),
            event("step.progress", "ocr", total=12, done=7, failed=1, skipped=0),
        ]
    )

    assert progress.status == "running"
    assert progress.line("ocr") == "ocr 7/12 · 1 failed"
    assert progress.steps["ocr"].state == "running"


def test_the_end_of_a_step_carries_its_counts(event: Stream) -> None:
    progress = fold([event("step.running", "ocr", total=2), event("step.succeeded", "ocr", total=2, done=2, failed=0, skipped=1)])

    assert progress.line("ocr") == "ocr 2/2 · 1 skipped"
    assert progress.steps["ocr"].state == "succeeded"


def test_waiting_is_said_until_somebody_works_on_the_step(event: Stream) -> None:
    waiting = [event("step.running", "ocr", total=3), event("step.waiting", "ocr", reason="no worker for queue ocr", queue="ocr")]

    assert fold(waiting).line("ocr") == "ocr 0/3 · waiting: no worker for queue ocr"
    assert fold([*waiting, event("call.running", "ocr", call="ocr#0")]).line("ocr") == "ocr 0/3"


def test_calls_that_wait_for_their_next_try_are_counted(event: Stream) -> None:
    events = [event("step.running", "ocr", total=3)]
    events += [event("call.waiting", "ocr", call=f"ocr#{i}", retry_in_ms=500) for i in (0, 1, 1)]

    assert fold(events).line("ocr") == "ocr 0/3 · 2 waiting to be tried again"
    assert fold([*events, event("call.running", "ocr", call="ocr#1")]).line("ocr") == "ocr 0/3 · 1 waiting to be tried again"


def test_after_a_gap_the_snapshot_counts(event: Stream) -> None:
    steps = (StepView(id="ocr", tool="receipt_ocr", queue="ocr", state="running", total=9, done=8),)
    snapshot = view(status=JobStatus.RUNNING, steps=steps).model_dump(mode="json")

    progress = fold([event("step.running", "ocr", total=3), event("gap", **snapshot)])

    assert progress.line("ocr") == "ocr 8/9"
    assert list(progress.steps) == ["ocr"]


def test_a_job_that_waits_for_a_person_says_for_what(event: Stream) -> None:
    progress = fold([event("job.waiting", reason="calls whose outcome is unknown wait for `resolve`", unknown=1)])

    assert progress.text().plain.endswith("waiting: calls whose outcome is unknown wait for `resolve`")


def test_events_of_steps_that_the_view_does_not_have_are_passed_over(event: Stream) -> None:
    progress = fold([event("step.running", "elsewhere", total=1), event("call.running", "elsewhere", call="elsewhere#0")])

    assert list(progress.steps) == ["ocr", "parse"]


def test_the_terminal_shows_every_step_with_its_sign(event: Stream) -> None:
    progress = fold([event("step.running", "ocr", total=2), event("step.failed", "ocr", total=2, done=2, failed=2, skipped=0)])

    assert progress.text().plain.splitlines() == ["✗ ocr 2/2 · 2 failed", "· parse 0/?"]


def plain(events: list[Event]) -> list[str]:
    lines = PlainLines(Progress(view()))
    return [line for e in events for line in lines.lines(e)]


def test_plain_lines_count_at_most_once_a_second(event: Stream) -> None:
    events = [event("step.running", "ocr", total=100)]
    events += [event("step.progress", "ocr", total=100, done=i, failed=0, skipped=0) for i in range(1, 21)]  # two seconds
    events.append(event("step.succeeded", "ocr", total=100, done=100, failed=0, skipped=0))

    assert plain(events) == ["ocr 0/100", "ocr 10/100", "ocr 20/100", "ocr 100/100 · succeeded"]


def test_plain_lines_say_failures_and_waits_at_once(event: Stream) -> None:
    events = [
        event("step.running", "ocr", total=2),
        event("step.waiting", "ocr", reason="no worker for queue ocr"),
        event("call.failed", "ocr", call="ocr#1", error={"message": "`b.png` is no image"}),
        event("step.progress", "ocr", total=2, done=1, failed=1, skipped=0),
        event("job.failed", has_errors=True),
    ]

    assert plain(events) == [
        "ocr 0/2",
        "ocr 0/2 · waiting: no worker for queue ocr",
        "ocr#1 failed: `b.png` is no image",
        "ocr 0/2",
        "ocr 1/2 · 1 failed",
        "job job_1 failed",
    ]


def test_plain_lines_say_alerts_at_once(event: Stream) -> None:
    alert = event(
        "alert", "ocr", call="ocr#0", alert="timeout", execution_id="code_exec_1", message="program code_exec_1 was ended"
    )

    assert plain([event("step.running", "ocr", total=1), alert]) == [
        "ocr 0/1",
        "ocr#0 alert timeout: program code_exec_1 was ended",
    ]


def test_plain_lines_say_nothing_twice(event: Stream) -> None:
    again = [event("step.running", "ocr", total=2, after_s=5) for _ in range(3)]

    assert plain(again) == ["ocr 0/2"]


def test_an_unknown_outcome_names_the_way_out(event: Stream) -> None:
    line = failure_line(event("call.unknown", "ocr", call="ocr#0", error={"message": "the worker is gone"}))

    assert line == "ocr#0 may or may not have happened; settle it with `toolweaver resolve`: the worker is gone"
