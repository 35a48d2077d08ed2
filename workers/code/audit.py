"""What is told of a program: its whole record to the audit log, its alerts to the job, its figures to the metrics.

All of it is written by one thread of the process, so that the loop which runs the programs never waits for the store; only
an alert is waited for, a little, since it must stand in the job's stream before the call ends. A store that is away
costs no program its result.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import redis

from orchestrator.jobs.ledger import Claim
from orchestrator.jobs.store import JobStore
from orchestrator.models.access import Caller
from orchestrator.models.program import CallRecord, ProgramLimits, ProgramResult, Usage
from orchestrator.monitoring.metrics import (
    PROGRAM_ALERTS,
    PROGRAM_CALLS,
    PROGRAM_CPU_SECONDS,
    PROGRAM_EXECUTIONS,
    PROGRAM_SECONDS,
    UNKNOWN_TOOL,
    Count,
    Metrics,
)
from orchestrator.policy.audit import AuditLog, Detail
from orchestrator.state.connection import connect
from orchestrator.state.keys import METRICS
from workers.batches import Batches

log = logging.getLogger(__name__)

ACTION = "program.run"
STOPPED = "stopped"
DETAIL_BYTES = 64 << 10
OUTPUT_BYTES = ERROR_BYTES = 2 << 10
CALL_ERROR_BYTES = 500
VALUE_LETTERS = 200
VALUE_NODES = 100
CALLS_MOST, PARAMETERS_MOST, NAME_LETTERS = 200, 32, 64
BARE_BYTES = 400  # a call without its parameters
FIGURES_BYTES = 4 << 10  # set aside for what stands beside the calls
ALERT_S = 3.0
HIDDEN = "(hidden)"
_UNUSUAL = re.compile(r"[^\w.:/*-]", re.ASCII)  # in a name that a program made up
_SECRET_NAME = re.compile(r"password|passwd|token|secret|api_?-?key|authorization|credential|cookie", re.IGNORECASE)


class Audits:
    """Writes what the programs of one process did."""

    def __init__(self, store: JobStore) -> None:
        client = connect(store.settings, retries=1, timeout_s=2.0)  # it is told of a store that is away soon
        self._jobs = JobStore(client, store.settings)
        self._log = AuditLog(client, store.settings)
        self._metrics = Metrics(client, METRICS)
        self._batches: Batches[_Item] = Batches("audit", self._work)

    def start(self) -> None:
        self._batches.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Writes what is left, within `timeout_s`."""
        self._batches.stop(timeout_s)

    def of(self, claim: Claim, execution_id: str, *, code: str, limits: ProgramLimits, tools: Collection[str] = ()) -> Audit:
        """The audit of one execution. `tools`: those that it may call; what else it asks for is counted as `unknown`."""
        return Audit(self._batches.put, claim, execution_id, code=code, limits=limits, tools=frozenset(tools))

    def _work(self, batch: Sequence[_Item]) -> None:
        """Each item by itself; the counters of all at once."""
        for item in batch:
            try:
                self._write(item)
            except Exception as error:  # the next one must not suffer for it
                _lost(item, error)
            finally:
                item.written.set_result(None)
        try:
            self._metrics.add(count for item in batch for count in item.counts)
        except redis.RedisError as error:
            log.warning("metrics of programs were lost: %s", error, extra={"action": "metrics_lost"})

    def _write(self, item: _Item) -> None:
        for type, data in item.events:
            self._jobs.ledger.log(item.claim, data, type=type, sampled=type == "log")
        if item.entry is not None:
            submitter = _submitter(item.claim.tenant, self._jobs.caller(item.claim.job))
            self._log.write(
                submitter,
                ACTION,
                f"{item.claim.job}/{item.claim.call}",
                verdict=item.verdict,
                detail=item.entry(submitter),
            )


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to write: events of the job, an entry of the log, figures."""

    claim: Claim
    events: Sequence[tuple[Any, Mapping[str, Any]]] = ()
    counts: Sequence[Count] = ()
    entry: Callable[[Caller], Detail] | None = None
    verdict: str = ""
    written: Future[None] = field(default_factory=Future)


class Audit:
    """What is told of one execution, by the loop that runs it; a block that is left by an error has `stopped`."""

    def __init__(
        self,
        put: Callable[[_Item], None],
        claim: Claim,
        execution_id: str,
        *,
        code: str,
        limits: ProgramLimits,
        tools: frozenset[str],
    ) -> None:
        self._put, self._claim, self._execution, self._code = put, claim, execution_id, code
        self._limits, self._tools = limits, tools
        self._calls: list[CallRecord] = []
        self._began = time.time()
        self._container = ""
        self._over = False

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.stopped(error)

    def began(self, container_id: str) -> None:
        """The program starts in this container."""
        self._began, self._container = time.time(), container_id
        data = {"message": "program started", "execution_id": self._execution, "container": container_id}
        self._put(_Item(self._claim, events=[("log", data)]))

    def called(self, record: CallRecord) -> None:
        """A call of the program ended."""
        self._calls.append(record)
        tool = record.tool if record.tool in self._tools else UNKNOWN_TOOL
        success = "true" if record.error is None else "false"
        self._put(_Item(self._claim, counts=[Count(PROGRAM_CALLS, (tool, success))]))

    async def ended(self, record: ProgramResult, *, began: float | None = None, alerts: Sequence[str] = ()) -> None:
        """The program ended with this record. Returns when its alerts stand in the job's stream, or cannot within `ALERT_S`."""
        usage = record.usage or Usage()
        self._over = True
        item = _Item(
            self._claim,
            events=[("alert", self._alert(alert, record)) for alert in alerts],
            counts=[
                Count(PROGRAM_EXECUTIONS, (record.status,)),
                Count(PROGRAM_SECONDS, by=max(0.0, record.execution_time)),
                *(Count(PROGRAM_ALERTS, (alert,)) for alert in alerts),
                *((Count(PROGRAM_CPU_SECONDS, by=max(0.0, usage.cpu_s)),) if usage.cpu_s is not None else ()),
            ],
            entry=self._entry(record.model_copy(update={"result": None}), status=record.status, began=began, alerts=alerts),
            verdict=record.status,
        )
        self._put(item)
        if alerts:
            await asyncio.wait([asyncio.wrap_future(item.written)], timeout=ALERT_S)

    def stopped(self, error: BaseException) -> None:
        """It ended without a record: cancelled, overtaken, or its container was lost. After `ended` this changes nothing."""
        if self._over:
            return
        self._over = True
        record = ProgramResult(
            tool_calls=tuple(self._calls),
            execution_time=round(max(0.0, time.time() - self._began), 6),
            execution_id=self._execution,
            error=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        )
        entry = self._entry(record, status=STOPPED, began=None, alerts=())
        self._put(_Item(self._claim, counts=[Count(PROGRAM_EXECUTIONS, (STOPPED,))], entry=entry, verdict=STOPPED))

    def _entry(
        self, record: ProgramResult, *, status: str, began: float | None, alerts: Sequence[str]
    ) -> Callable[[Caller], Detail]:
        """Makes the entry's detail, in the thread that writes it."""
        claim, code, container = self._claim, self._code, self._container
        start = self._began if began is None else began

        def make(submitter: Caller) -> Detail:
            usage = record.usage or Usage(container=container)
            figures = {
                "execution_id": self._execution,
                "job": claim.job, "call": claim.call, "attempt": claim.attempt, "tool": claim.spec.get("tool"),
                "submitted_by": {"tenant": submitter.tenant, "key": submitter.key, "name": submitter.name},
                "start_time": start, "status": status, "execution_time": record.execution_time,
                "code_sha256": hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest(),
                "container": usage.container or container,
                **usage.model_dump(include={"cpu_s", "memory_peak", "bytes_in", "bytes_out", "measured_by"}),
                "alerts": list(alerts), "calls": len(record.tool_calls),
            }  # fmt: skip
            return Detail(figures, _rest(record))

        return make

    def _alert(self, alert: str, record: ProgramResult) -> dict[str, Any]:
        return {"alert": alert, "execution_id": self._execution, "message": _message(alert, record, self._limits)}


def _message(alert: str, record: ProgramResult, limits: ProgramLimits) -> str:
    """What happened, with the limit and the next move."""
    program = f"program {record.execution_id}"
    more = "or ask for more with `limits: {{{0}: ...}}`."
    if alert == "timeout":
        return f"{program} was ended at its time limit of {limits.timeout_s:g} s; let it do less, {more.format('timeout_s')}"
    if alert == "call_limit":
        return f"{program} asked for more than its {limits.calls} tool calls; let it make fewer, {more.format('calls')}"
    if alert == "memory":
        return f"{program} met its memory limit of {limits.memory_mb} MiB; let it hold less at once, {more.format('memory_mb')}"
    if alert == "cpu":
        return f"{program} used all of its {limits.cpus:g} cores for {record.execution_time:.1f} s; {_cpu_next(more)}"
    why = f": {_clip(record.error, 300)}" if record.error else ""
    return f"{program} did what programs may not do{why}. Look at it with `toolweaver audit --json` before it runs again."


def _cpu_next(more: str) -> str:
    return f"let it compute less, {more.format('cpus')}"


def _submitter(tenant: str, called: Sequence[str]) -> Caller:
    """Whoever the execution is charged to: the tenant, and the key that submitted the job, if one did."""
    key, name = ("", "") if tuple(called) == ("direct",) else (called[0], called[-1])
    return Caller(tenant=tenant, key=key, name=name)


# What is kept of a record


def _rest(record: ProgramResult) -> dict[str, Any]:
    """Calls, output and error, clipped so that a whole detail stays below `DETAIL_BYTES`."""
    rest: dict[str, Any] = {"error": None if record.error is None else _clip(record.error, ERROR_BYTES)}
    rest["output"] = _clip(record.output, OUTPUT_BYTES)
    calls = list(_fitting(record.tool_calls[:CALLS_MOST], DETAIL_BYTES - FIGURES_BYTES - _size(rest)))
    return {**rest, "tool_calls": calls, "tool_calls_left_out": len(record.tool_calls) - len(calls)}


def _fitting(records: Sequence[CallRecord], left: int) -> Iterator[dict[str, Any]]:
    """As many calls as fit; each has its share, so that no call with much to show hides those after it."""
    for at, record in enumerate(records):
        call = _fitted(record, max(BARE_BYTES, left // (len(records) - at)))
        left -= _size(call) + 1
        if left < 0:
            return
        yield call


def _fitted(record: CallRecord, share: int) -> dict[str, Any]:
    """A call with as many of its parameters as its share has room for."""
    call = {
        **record.model_dump(exclude={"parameters"}),
        "tool": _UNUSUAL.sub("?", record.tool[:NAME_LETTERS]),
        "error": None if record.error is None else _clip(record.error, min(CALL_ERROR_BYTES, share // 6)),
        "parameters": {},
    }
    room = share - _size(call) - len('"...":1000,')
    for name, value in parameters_shown(record.parameters).items():
        room -= _size({name: value})
        if room < 0:
            break
        call["parameters"][name] = value
    hidden = len(record.parameters) - len(call["parameters"])
    call["parameters"] |= {"...": hidden} if hidden else {}
    return call


def parameters_shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the log keeps them: values of more than 200 characters of JSON are cut, those named like secrets hidden."""
    return {_cut(name, NAME_LETTERS): _shown(name, value) for name, value in islice(parameters.items(), PARAMETERS_MOST)}


def _shown(name: str, value: Any) -> Any:
    if _SECRET_NAME.search(name[:NAME_LETTERS]):
        return HIDDEN
    pruned = _pruned(value, [VALUE_NODES])
    text = json.dumps(pruned, ensure_ascii=False)
    return pruned if len(text) <= VALUE_LETTERS else text[: VALUE_LETTERS - 1] + "…"


def _pruned(value: Any, left: list[int]) -> Any:
    """As much of a value as a cut text may show; what is more than that is not looked at."""
    left[0] -= 1
    if left[0] < 0:
        return "…"
    if isinstance(value, Mapping):
        pairs = islice(value.items(), max(0, left[0]) + 1)
        return {_cut(str(k), VALUE_LETTERS): HIDDEN if _SECRET_NAME.search(str(k)) else _pruned(v, left) for k, v in pairs}
    if isinstance(value, list | tuple):
        return [_pruned(v, left) for v in islice(value, max(0, left[0]) + 1)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 64 else "(a large number)"
    return _cut(str(value), VALUE_LETTERS + 1)


def _cut(text: str, letters: int) -> str:
    """The beginning of a text that a program chose; halves of surrogate pairs, which no answer can carry, become `?`."""
    return text[:letters].encode("utf-8", "replace").decode()


def _clip(text: str, most: int) -> str:
    """Text of at most `most` bytes, cut where a character ends."""
    raw = text[: most + 1].encode("utf-8", "replace")
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode(errors="ignore") + "…"


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _lost(item: _Item, error: Exception) -> None:
    where = {"action": "audit_lost", "job_id": item.claim.job}
    if isinstance(error, redis.RedisError):
        log.warning("what a program did could not be written: %s", error, extra=where)
    else:
        log.exception("what a program did could not be written", extra=where)
