"""What goes wrong while a request is planned, and what its user sees: no job hangs, no attempt pays for a request twice.

Most faults meet a planner of this process with the real store, pool, guard and SDKs; a server speaks the vendor's wire format and
counts what arrives. The table of docs/planning.md is made here: `PLANNER_TABLE=1`.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest

from orchestrator.broker.app import make_app
from orchestrator.jobs.events import EventReader
from orchestrator.jobs.requests import Request
from orchestrator.jobs.store import JobStore
from orchestrator.models.job import JobStatus, JobView
from orchestrator.models.tool import ToolCatalog
from orchestrator.models.usage import ModelCall
from orchestrator.planner.turns import PAUSE_LEAST_S
from orchestrator.policy.breaker import Breakers
from orchestrator.providers.warm import large_model
from orchestrator.settings import Settings, load_settings
from orchestrator.state.keys import all_shards
from orchestrator.tasks import Planner
from tests.engine import Mailbox
from tests.processes import Platform, platform
from tests.services import free_port
from tests.support import wait_until
from tests.wire import KEY, Turn, WireServer, wire_server
from tests.wire.base import Script, VendorName

pytestmark = pytest.mark.integration

VENDORS: tuple[VendorName, ...] = ("openai", "openai-chat", "azure-openai", "anthropic", "gemini")
SECRET = "Quagga4711"  # stands in the request
ANSWERED = "Okapi0815"  # stands in answers that are no plans
SENTENCE = f"compute the tax of 100 at 19 percent for {SECRET}"
STEP: dict[str, Any] = {"id": "tax", "tool": "compute_tax", "input": {"amount": 100, "tax_rate": 0.19}}
GOOD: dict[str, Any] = {"description": f"{ANSWERED} tax", "steps": [STEP], "output": "step:tax.total"}
BAD: dict[str, Any] = {"steps": [{**STEP, "input": {"amount": "much", "tax_rate": 0.19}}]}
FOOD = "process these receipts and tell me what we spent on food"
BOUND_S = 15.0
RETRIES = REPAIRS = 1
SHORT_S = 1.0

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
_HEAD = "| what goes wrong | what the user sees | requests sent | what follows |\n| --- | --- | --- | --- |\n"

pictures = {"files": ["bundled:grocery", "bundled:cafe"]}


class Desk:
    """A planner of this process over real Redis, as `orchestrator.tasks` makes it; nothing runs what it plans."""

    def __init__(self, settings: Settings, **more: Any) -> None:
        own = load_settings(_env_file=None, **{"planner_retries": RETRIES, "planner_repairs": REPAIRS, **more})
        update = {name: getattr(own, name) for name in own.model_fields_set} | {"broker_url": "memory://"}
        self.settings = settings.model_copy(update=update)
        if self.settings.planner_provider is not None:
            large_model(self.settings)  # loads the vendor's SDK now, not within a short deadline
        app = make_app(self.settings)
        self.planner = Planner(self.settings, app)
        self.planner.publisher = Mailbox(app)
        self.store: JobStore = self.planner.store
        self.events = EventReader(self.settings, self.store.redis)

    def submit(self, text: str = SENTENCE, inputs: Mapping[str, Any] | None = None) -> str:
        return self.store.submit_request(Request(text, "plan"), inputs=inputs or {})[0]

    def look(self) -> None:
        for shard in all_shards(self.settings.shards):
            while (job := self.store.ledger.take(shard)) is not None:
                self.planner._plan(job)

    def settle(self, job: str, *, after: int = 0) -> JobView:
        """How the job stands when it was planned, has failed, or waits for the `after + 1`-th time."""

        def settled() -> bool:
            self.look()
            pauses = [e for e in self.events.read(job) if e.type == "job.waiting" and "code" in e.data]
            return self.store.status(job) is not JobStatus.PLANNING or len(pauses) > after

        wait_until(settled, description=f"{job} is planned, fails or waits", timeout=BOUND_S)
        return self.store.view(job)

    def status(self, job: str) -> JobStatus:
        return self.store.status(job)

    def all_done(self, jobs: Sequence[str]) -> bool:
        self.look()
        return all(self.status(job).final for job in jobs)

    def calls(self, job: str) -> list[ModelCall]:
        """The calls that count for a job, in their order."""
        found = self.store.redis.hgetall(self.store.ledger.keys(job).data)
        numbers = sorted(int(name[2:]) for name in found if name.startswith(b"u:"))
        return [ModelCall.model_validate_json(found[b"u:%d" % n]) for n in numbers]

    def told(self, job: str) -> str:
        """All that anybody is told of a job, but for the request itself and the plan."""
        view = self.store.view(job)
        shown = view.model_copy(update={"request": None}).model_dump_json()
        return "\n".join([shown, *(e.model_dump_json() for e in self.events.read(job))])


@contextmanager
def desk(settings: Settings, **more: Any) -> Iterator[Desk]:
    made = Desk(settings, **more)
    try:
        yield made
    finally:
        made.planner.close()


def sees(view: JobView) -> str:
    """What `toolweaver status` tells a person, without what differs between vendors and runs."""
    if view.error is not None:
        said = f"{view.status}, {view.error.code}: {view.error.message} {view.error.next or ''}"
    elif view.waiting is not None:
        said = f"{view.status}, waits: {view.waiting}"
    else:
        assert view.planned is not None
        made = view.planned
        notes = "".join(f"; degraded: {d}" for d in made.degraded)
        said = f"{view.status}: {made.source}{' ' + made.template if made.template else ''}, {made.repairs} repairs{notes}"
    for pattern, plain in _DIFFERS:
        said = re.sub(pattern, plain, said)
    return " ".join(said.split())


_DIFFERS = (
    (r"`wire-model` (at http://\S+|of `[a-z-]+`)", "`MODEL`"),
    (r"(model|plan of the model) wire-model( of [a-z-]+)?", r"\1 MODEL"),
    (r"\(HTTP (\d+), \w+\)", r"(HTTP \1)"),  # the vendor's own word
    (r" of Gemini's", ""),
    (r"`model:[a-z-]+`", "`model:PROVIDER`"),
    (r"job_[0-9a-f]+", "JOB"),
    (r"\d\d:\d\d:\d\d UTC", "HH:MM:SS UTC"),
    (r"(tried|try) again in \d\d? s", r"\1 again in N s"),
)


@dataclass(frozen=True)
class Fault:
    """`sees` are parts of what the user is told; `calls` the codes of the requests that count, "" for one that was answered."""

    name: str
    turns: Script
    sees: tuple[str, ...]
    calls: tuple[str, ...]
    then: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    text: str = SENTENCE
    settings: Mapping[str, Any] = field(default_factory=dict)
    waits_s: tuple[float, float] | None = None  # until it is taken up again
    everywhere: bool = True  # shown of each vendor; else what arrived is no matter of the wire


LIMITED = Turn(status=429, headers={"retry-after": "0.2"}, message="slow down")
FAULTS = (
    Fault(
        "silent beyond the deadline",
        [Turn(fault="silent")],
        ("planning, waits:", "makes no plans now (model_timeout)", "no plan template fits"),
        ("model_timeout",),
        "asked again after 60 s: the answer may have been paid for, so never at once",
        settings={"planner_timeout_s": SHORT_S},
        waits_s=(55, 61),
    ),
    Fault(
        "drips for ever, says nothing",
        [Turn(fault="drip")],
        ("planning, waits:", "makes no plans now (model_timeout)"),
        ("model_timeout",),
        "as when it is silent",
        settings={"planner_timeout_s": SHORT_S},
        waits_s=(55, 61),
    ),
    Fault(
        "the answer is cut off on its way",
        [Turn(value=GOOD, fault="truncated")],
        ("planning, waits:", "makes no plans now (model_unreachable)"),
        ("model_unreachable",),
        "as when it is silent",
        waits_s=(55, 61),
    ),
    Fault(
        "a body that is no JSON",
        [Turn(fault="garbage")],
        ("failed, model_bad_answer:", "answered with"),
        ("model_bad_answer",),
        "`toolweaver retry`; is the address that of a model?",
    ),
    Fault(
        "words in place of a plan",
        [f"I would love to help you with {ANSWERED}!"],
        ("failed, model_bad_answer:", "gave no plan, after 1 repair:", "Ask again, or choose another model."),
        ("", ""),
        "told once what is missing, then given up",
        everywhere=False,
    ),
    Fault(
        "JSON of another form",
        [{"answer": 42, "note": ANSWERED}],
        ("failed, model_bad_answer:", "gave no plan, after 1 repair:"),
        ("", ""),
        "as words",
        everywhere=False,
    ),
    Fault(
        "a plan that does not pass, mended",
        [BAD, GOOD],
        ("succeeded: model, 1 repairs",),
        ("", ""),
        "only the findings were sent back",
        everywhere=False,
    ),
    Fault(
        "a plan that does not pass, never mended",
        [BAD],
        ("failed, bad_plan:", "1 repair did not mend; nothing of it was published", "steps[0].input.amount:"),
        ("", ""),
        "word it in more detail, or write the plan",
        everywhere=False,
    ),
    Fault(
        "the model refuses",
        [Turn(text=f"I will not touch {ANSWERED}.", fault="refusal")],
        ("failed, model_refused:", "refused to make a plan.", "Word the request in another way"),
        ("",),
        "not asked again: a refusal is an answer",
    ),
    Fault(
        "the answer ends at the token limit",
        [Turn(value=GOOD, fault="length")],
        ("failed, model_cut_off:", "Raise TOOLWEAVER_PLANNER_MAX_TOKENS."),
        ("", ""),
        "told once to be shorter, then given up",
    ),
    Fault(
        "429 with short hints, then it answers",
        [LIMITED, GOOD],
        ("succeeded: model, 0 repairs",),
        ("model_limited", ""),
        "waited as long as the server said",
    ),
    Fault(
        "429 with a long hint",
        [Turn(status=429, headers={"retry-after": "30"}, message="slow down")],
        ("planning, waits:",),
        ("model_limited",),
        "taken up again when the hint is over",
        waits_s=(25, 34),
    ),
    Fault(
        "429 and nothing else",
        [Turn(status=429, message="slow down")],
        ("planning, waits:", "takes no more requests now"),
        ("model_limited",) * (RETRIES + 1),
        "taken up again after 2, 4, 8 ... s, for 10 minutes in all",
        waits_s=(0.5, PAUSE_LEAST_S),
    ),
    Fault(
        "500 once, then it answers",
        [Turn(status=500), GOOD],
        ("succeeded: model, 0 repairs",),
        ("model_failed", ""),
        "no vendor bills an error that it returns",
    ),
    Fault(
        "500 and nothing else",
        [Turn(status=500)],
        ("planning, waits:", "makes no plans now (model_failed)"),
        ("model_failed",) * (RETRIES + 1),
        "taken up again after 60 s",
        waits_s=(55, 61),
    ),
    Fault(
        "502 of a proxy",
        [Turn(status=502)],
        ("planning, waits:", "makes no plans now (model_failed)"),
        ("model_failed",),
        "not asked again at once: the model may have answered",
        waits_s=(55, 61),
        everywhere=False,
    ),
    Fault(
        "the key is refused",
        [Turn(status=401, message="no such key")],
        ("failed, model_denied:", "refused the key (HTTP 401", "Set the right key."),
        ("model_denied",),
        "set the key, then `toolweaver retry`",
    ),
    Fault(
        "500s, and a template fits",
        [Turn(status=500)],
        ("succeeded: template receipts_total, 0 repairs; degraded: the model",),
        ("model_failed",) * (RETRIES + 1),
        "planned without a model, and said so",
        text="process these receipts and tell me how much we spent in total",
        inputs=pictures,
        everywhere=False,
    ),
)


@dataclass(frozen=True)
class Row:
    fault: str
    sees: str
    requests: int
    then: str


class Table:
    """The rows that were shown, as the page has them."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, row: Row) -> None:
        known = self.rows.setdefault(row.fault, row)
        assert known == row, "all vendors look alike to the user"

    def lines(self) -> list[str]:
        return [f"| {r.fault} | {r.sees.replace('|', '/')} | {r.requests} | {r.then} |" for r in self.rows.values()]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Printed at the end; `PLANNER_TABLE=1` writes it into the page, otherwise each row must stand there."""
    made = Table()
    yield made
    lines, page = made.lines(), PAGE.read_text(encoding="utf-8")
    print("", *lines, sep="\n")
    if "PLANNER_TABLE" in os.environ:
        before, _, rest = page.partition(_HEAD)
        after = dropwhile(lambda line: line.startswith("|"), rest.splitlines())
        PAGE.write_text("\n".join([before + _HEAD.rstrip(), *lines, *after, ""]), encoding="utf-8")
    else:
        assert [line for line in lines if line not in page] == [], "docs/planning.md is not up to date: PLANNER_TABLE=1"


@pytest.fixture(autouse=True)
def _nothing_secret_is_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG, logger="orchestrator")
    yield
    for word in (KEY, SECRET, ANSWERED):
        assert word not in caplog.text


def check_telling(d: Desk, job: str) -> None:
    for word in (KEY, SECRET, ANSWERED):
        assert word not in d.told(job)


def each_run(number: int, vendor: VendorName) -> tuple[pytest.MarkDecorator, ...]:
    """A fault meets two vendors in every run, in turn, and all of them in `make chaos`; their own tests have every fault."""
    places = {number % len(VENDORS), (number + 2) % len(VENDORS)}
    return () if VENDORS.index(vendor) in places else (pytest.mark.long,)


CASES = [
    pytest.param(fault, vendor, id=f"{fault.name.replace(' ', '_')}-{vendor}", marks=each_run(n, vendor))
    for n, fault in enumerate(FAULTS)
    for vendor in (VENDORS if fault.everywhere else VENDORS[n % len(VENDORS) :][:1])
]


@pytest.mark.parametrize(("fault", "vendor"), CASES)
def test_a_fault(fault: Fault, vendor: VendorName, settings: Settings, table: Table) -> None:
    with wire_server(vendor, fault.turns) as wire, desk(settings, **wire.settings(), **fault.settings) as d:
        job = d.submit(fault.text, fault.inputs)
        view = d.settle(job)
        seen = sees(view)
        assert [part for part in fault.sees if part not in seen] == [], seen
        assert [c.error or "" for c in d.calls(job)] == list(fault.calls)
        assert len(wire.seen) == len(fault.calls)
        assert view.usage is not None
        assert (view.usage.calls, view.usage.failed) == (len(fault.calls), sum(map(bool, fault.calls)))
        if fault.waits_s is not None:
            least, most = fault.waits_s
            assert least <= _until_taken_up(d, job) <= most
        check_telling(d, job)
        table.add(Row(fault.name, seen, len(wire.seen), fault.then))


def _until_taken_up(d: Desk, job: str) -> float:
    at = d.store.redis.hget(d.store.ledger.keys(job).state, "rq_at")
    assert at is not None
    return int(at) / 1000 - time.time()


@pytest.mark.parametrize("vendor", VENDORS)
def test_nobody_listens(vendor: VendorName, settings: Settings, table: Table) -> None:
    with wire_server(vendor, [GOOD]) as wire:
        address = wire.settings()
    with desk(settings, **address) as d:
        job = d.submit()
        view = d.settle(job)
        seen = sees(view)
        assert "makes no plans now (model_unreachable), and no plan template fits the request" in seen
        assert (d.calls(job), wire.seen) == ([], [])  # what was not sent costs nothing and is not counted
        check_telling(d, job)
        table.add(Row("nobody listens there", seen, 0, "tried again at once, since nothing was sent; taken up again after 60 s"))


def test_a_catalog_without_tools(settings: Settings, table: Table) -> None:
    with wire_server("openai", [GOOD]) as wire, desk(settings, **wire.settings()) as d:
        d.planner.bundled = ToolCatalog(source="none", version="1")
        job = d.submit()
        seen = sees(d.settle(job))
        assert "There are no tools that this request may use." in seen
        assert "toolweaver tools list" in seen
        assert wire.seen == []
        table.add(Row("a catalog without tools", seen, 0, "start a worker, then `toolweaver retry`"))


def test_the_index_service_is_down(settings: Settings, table: Table) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with wire_server("anthropic", [GOOD]) as wire:
        with desk(settings, **wire.settings(), index_urls=away, search_threshold=1) as d:
            view = d.settle(d.submit())
        seen = sees(view)
        assert "degraded: the index service: no replica answered" in seen
        assert view.planned is not None
        assert view.planned.shown == view.planned.of > 1
        assert len(wire.seen) == 1
        table.add(Row("the index service is down", seen, 1, "all tools that fit were shown"))


def test_a_limit_of_ones_own_is_used_up(settings: Settings, table: Table) -> None:
    with wire_server("openai", [GOOD]) as wire, desk(settings, **wire.settings(), provider_requests_per_minute=1) as d:
        assert sees(d.settle(d.submit())) == "succeeded: model, 0 repairs"
        job = d.submit(f"{SENTENCE}, again")
        seen = sees(d.settle(job))
        assert "planning, waits:" in seen
        assert len(wire.seen) == 1
        assert d.calls(job) == []
        table.add(Row("the provider's limit of requests a minute is used up", seen, 0, "taken up again when there is room"))


def test_no_model_is_set(settings: Settings, table: Table) -> None:
    with desk(settings) as d:
        seen = sees(d.settle(d.submit()))
    assert seen.startswith("failed, planning_unavailable: No model is set that makes plans")
    assert "Set PLANNER_PROVIDER" in seen
    table.add(Row("no model is set, and no template fits", seen, 0, "set one, then `toolweaver retry`"))


def test_a_storm_of_429_for_many_jobs(settings: Settings) -> None:
    """The server's hint holds for all jobs: while it lasts nobody asks, and no job fails."""
    came, lock = list[float](), Lock()

    def stormy(number: int, _: Mapping[str, Any]) -> Turn:
        with lock:
            came.append(time.monotonic())
        return Turn(status=429, headers={"retry-after": "1"}, message="slow down") if number <= 8 else Turn(value=GOOD)

    with wire_server("openai", stormy) as wire, desk(settings, **wire.settings(), planner_retries=6) as d:
        jobs = [d.submit(f"{SENTENCE}, number {n}") for n in range(8)]
        wait_until(lambda: d.all_done(jobs), description="all are planned")
        assert {d.status(job) for job in jobs} == {JobStatus.SUCCEEDED}
        assert sum(len(d.calls(job)) for job in jobs) == len(wire.seen) == 16
        assert came[8] - came[0] >= 1.0


# --- processes


@contextmanager
def planners(wire: WireServer, **settings: Any) -> Iterator[Platform]:
    """A server and no planner yet."""
    with platform(lease_s=0.5, reconcile_s=0.1, planner_retries=0, **wire.settings(), **settings) as p:
        yield p
        assert p.dead() == []
        for word in (KEY, SECRET, ANSWERED):
            assert word not in _logs(p)


def _logs(p: Platform) -> str:
    return "".join(log.read_text(errors="replace") for log in p.folder.glob("*.log"))


def plan_only(p: Platform, text: str = SENTENCE) -> str:
    return p.control.accept_request(Request(text, "plan"), inputs={})[0]


def waits(p: Platform, job: str) -> str:
    """Why a job waits, once it does."""
    found = wait_until(lambda: p.store.view(job).waiting, description=f"{job} waits", timeout=BOUND_S)
    assert found is not None
    return found


def test_the_circuit_opens_for_all_processes_and_closes_by_one_probe(table: Table) -> None:
    healthy, came, lock = Event(), list[float](), Lock()

    def answer(_: int, body: Mapping[str, Any]) -> Turn:
        with lock:
            came.append(time.monotonic())
        return Turn(value=GOOD, delay_s=1.0) if healthy.is_set() else Turn(status=500)

    rules: dict[str, Any] = {"breaker_failures": 5, "breaker_open_s": 3.0}
    with wire_server("openai", answer) as wire, planners(wire, **rules) as p, desk(p.settings, planner_retries=0) as second:
        breakers = Breakers(p.client, p.settings)
        p.start_planner("first")
        for n in range(5):
            assert "model_failed" in waits(p, plan_only(p, f"{SENTENCE}, number {n}"))
        assert len(wire.seen) == 5
        assert breakers.state("model:openai") == "OPEN"

        sixth = plan_only(p, f"{SENTENCE}, sixth")
        waits(p, sixth)
        seen = sees(p.store.view(sixth))
        assert "is not asked now: `model:PROVIDER` failed 5 times in a row" in seen
        p.kill("first")
        seventh = second.submit(f"{SENTENCE}, seventh")  # this process is the other one
        assert "is not asked now: `model:PROVIDER` failed 5 times in a row" in sees(second.settle(seventh))
        assert len(wire.seen) == 5

        healthy.set()
        both = (sixth, seventh)
        wait_until(lambda: second.all_done(both), description="both are planned")
        assert {second.status(job) for job in both} == {JobStatus.SUCCEEDED}
        assert len(wire.seen) == 7
        assert came[6] - came[5] >= 1.0, "one call probes, the others wait for its end"
        assert breakers.state("model:openai") == "CLOSED"
        table.add(Row("it failed five times in a row", seen, 0, "after a minute one request probes; then all go on"))


def test_a_planner_is_killed_while_the_model_answers(table: Table) -> None:
    """What had arrived is not paid for again; what was on its way is asked once more."""

    def answer(number: int, _: Mapping[str, Any]) -> Turn:
        return (Turn(value=BAD), Turn(fault="silent"), Turn(value=GOOD))[number - 1]

    with wire_server("anthropic", answer) as wire, planners(wire) as p, desk(p.settings, planner_retries=0) as second:
        p.start_planner("first")
        job = plan_only(p)
        wait_until(lambda: len(wire.seen) == 2, description="the model is asked to mend its plan", timeout=BOUND_S)
        p.kill("first")
        wait_until(lambda: second.all_done([job]), description="this process plans it")
        view = second.store.view(job)
        assert (view.status, view.planned and view.planned.repairs) == (JobStatus.SUCCEEDED, 1)
        assert len(wire.seen) == 3
        assert wire.seen[1] == wire.seen[2] != wire.seen[0]
        attempts = [e.data["attempt"] for e in EventReader(p.settings, p.client).read(job) if e.type == "job.planning"]
        assert attempts == [1, 2]
        assert view.usage is not None
        assert (view.usage.calls, view.usage.failed) == (3, 1)
        table.add(
            Row(
                "the planner is killed while the model answers",
                sees(view),
                3,
                "another one went on; the plan of the first answer was kept",
            )
        )
