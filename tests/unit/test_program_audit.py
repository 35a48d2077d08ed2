"""What is told of programs: the entry of the audit log, the alerts in the job's stream, the metrics. On a real store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.api.app import create_app
from orchestrator.cli.access import program_figures
from orchestrator.cli.progress import failure_line
from orchestrator.jobs.ledger import Claim, new_token
from orchestrator.models.access import AuditEntry, Caller, CreateKeyRequest
from orchestrator.models.program import Caller as CallOf
from orchestrator.models.program import CallRecord, ProgramLimits, ProgramResult, Usage
from orchestrator.monitoring import metrics as metrics_room
from orchestrator.monitoring.metrics import PROGRAM_CALLS, PROGRAM_SECONDS, Count, Metrics
from orchestrator.policy import audit as audit_room
from orchestrator.policy.audit import AuditLog, Detail
from orchestrator.policy.keys import KeyStore
from orchestrator.settings import Settings
from orchestrator.state.keys import METRICS, audit_details
from tests.engine import Engine
from workers.code.audit import DETAIL_BYTES, Audits, parameters_shown

CODE = "output = await get_expenses(user_id='alice')"
EXECUTION = "code_exec_1a2b3c4d"
LIMITS = ProgramLimits(timeout_s=5, calls=20, memory_mb=256)


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings)

    @made.tool()
    def program(code: str) -> str:
        return code

    return made


@pytest.fixture
def audits(engine: Engine) -> Iterator[Audits]:
    made = Audits(engine.store)
    made.start()
    yield made
    made.close()


def claimed(engine: Engine, *, items: int = 1) -> Claim:
    """The first call of a job, which runs now."""
    steps = [{"id": "run", "tool": "program", "input": {"code": CODE}, **({"map": "input:items"} if items > 1 else {})}]
    job = engine.submit(steps, inputs={"items": list(range(items))} if items > 1 else {})
    call = engine.mailbox.calls.pop(0)
    claim = engine.ledger.claim(job, call.call, attempt=call.attempt, token=new_token(), queue=call.queue)
    assert isinstance(claim, Claim)
    return claim


def call_of(n: int, *, tool: str = "get_expenses", error: str | None = None, **parameters: Any) -> CallRecord:
    caller = CallOf(type="code_execution", execution_id=EXECUTION, tool_id=f"tool_call_{n}")
    return CallRecord(
        tool=tool, parameters=parameters, timestamp=1_702_518_000.2, completed_at=1_702_518_000.7, duration=0.456,
        result_size=None if error else 2_048, error=error, caller=caller,
    )  # fmt: skip


def record_of(calls: Sequence[CallRecord] = (), **fields: Any) -> ProgramResult:
    usage = Usage(
        cpu_s=0.25, memory_peak=24 << 20, bytes_in=1_000, bytes_out=2_000, container="c0ffee" * 10 + "c0de", measured_by="cgroup"
    )
    given = {"output": "hello\n", "result": 42, "tool_calls": tuple(calls), "execution_time": 0.789, "usage": usage, **fields}
    return ProgramResult(execution_id=EXECUTION, **given)


def run(
    audits: Audits, claim: Claim, record: ProgramResult, *, alerts: Sequence[str] = (), tools: Sequence[str] = ("get_expenses",)
) -> None:
    """A whole execution; all of it is written when this returns."""

    async def execution() -> None:
        with audits.of(claim, EXECUTION, code=CODE, limits=LIMITS, tools=tools) as audit:
            audit.began("c0ffee" * 10 + "c0de")
            for call in record.tool_calls:
                audit.called(call)
            await audit.ended(record, alerts=alerts)

    asyncio.run(execution())
    audits.close()


def entry_of(engine: Engine, **filter: Any) -> AuditEntry:
    (entry,) = AuditLog(engine.store.redis, engine.store.settings).page(detail=True, **filter).entries
    return entry


def figures(engine: Engine) -> dict[str, float]:
    """Every sample that `/metrics` shows: `name{labels}` to value, read as Prometheus reads it."""
    text = Metrics(engine.store.redis, METRICS).text().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value for s in samples}


def test_an_entry_has_all_that_is_known_of_an_execution(engine: Engine, audits: Audits) -> None:
    claim = claimed(engine)
    run(audits, claim, record_of([call_of(1, user_id="alice"), call_of(2, error="no such user", user_id="bob")]))

    entry = entry_of(engine)
    assert (entry.tenant, entry.action, entry.object) == ("default", "program.run", f"{claim.job}/run#0")
    assert entry.verdict == "success"
    detail = entry.detail
    assert detail is not None
    assert abs(time.time() - detail.pop("start_time")) < 60
    assert detail.pop("code_sha256") == hashlib.sha256(CODE.encode()).hexdigest()
    calls = detail.pop("tool_calls")
    assert detail == {
        "execution_id": EXECUTION, "job": claim.job, "call": "run#0", "attempt": 1, "tool": "program",
        "submitted_by": {"tenant": "default", "key": "", "name": ""}, "status": "success", "execution_time": 0.789,
        "container": "c0ffee" * 10 + "c0de", "cpu_s": 0.25, "memory_peak": 24 << 20, "bytes_in": 1_000, "bytes_out": 2_000,
        "measured_by": "cgroup", "alerts": [], "calls": 2, "error": None, "output": "hello\n", "tool_calls_left_out": 0,
    }  # fmt: skip
    assert calls[0] == {
        "tool": "get_expenses", "type": "function", "parameters": {"user_id": "alice"}, "timestamp": 1_702_518_000.2,
        "completed_at": 1_702_518_000.7, "duration": 0.456, "result_size": 2_048, "error": None,
        "caller": {"type": "code_execution", "execution_id": EXECUTION, "tool_id": "tool_call_1"},
    }  # fmt: skip
    assert (calls[1]["error"], calls[1]["result_size"]) == ("no such user", None)


def test_an_execution_is_charged_to_the_key_that_submitted_its_job(engine: Engine, audits: Audits) -> None:
    claim = claimed(engine)
    engine.store.redis.hset(engine.ledger.keys(claim.job).state, "by", "0123456789ab nightly")
    run(audits, claim, record_of())

    entry = entry_of(engine)
    assert (entry.key, entry.name) == ("0123456789ab", "nightly")
    assert entry.detail is not None
    assert entry.detail["submitted_by"] == {"tenant": "default", "key": "0123456789ab", "name": "nightly"}


def test_the_value_of_a_program_is_in_no_log(engine: Engine, audits: Audits) -> None:
    run(audits, claimed(engine), record_of(result={"salary": 98_765_432}))

    assert "98765432" not in entry_of(engine).model_dump_json()


def test_parameters_are_cut_and_secrets_hidden() -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    shown = parameters_shown(
        {
            "short": [1, 2.5, None, True, "ö"], "long": "é" * 10_000, "wide": [{"a": 1}] * 1_000_000, "deep": deep,
            "api_key": "sk-123", "headers": {"Authorization": "Bearer abc", "accept": "*/*"}, "half": "\ud800", "nan": float("nan"),
            "huge": 10**300, "exactly": "y" * 198,
        }
    )  # fmt: skip

    assert shown["short"] == [1, 2.5, None, True, "ö"]
    assert shown["exactly"] == "y" * 198, "200 characters of JSON, with its quotes"
    for name in ("long", "wide", "deep"):
        assert isinstance(shown[name], str)
        assert len(shown[name]) == 200
        assert shown[name].endswith("…")
    assert shown["long"].startswith('"éé')
    assert shown["api_key"] == "(hidden)"
    assert shown["headers"] == {"Authorization": "(hidden)", "accept": "*/*"}
    assert (shown["half"], shown["nan"], shown["huge"]) == ("?", None, "(a large number)")


def test_of_many_parameters_some_are_kept() -> None:
    shown = parameters_shown({f"p{i}": i for i in range(1_000)})

    assert len(shown) == 32


HOSTILE = [
    pytest.param([call_of(i, user_id="alice") for i in range(1, 1_001)], {}, id="many calls"),
    pytest.param([call_of(i, **{f"\U0001f600{p}": "\U0001f600" * 999 for p in range(99)}) for i in range(1, 101)], {}, id="wide"),
    pytest.param([call_of(1, tool="t" * 500_000, error="\u0000" * 500_000)], {"output": "\u0000" * 9_999_999}, id="long texts"),
    pytest.param([], {"error": "\U0001f600" * 100_000, "output": "\x1b" * 100_000, "status": "error"}, id="long error"),
]


@pytest.mark.parametrize(("calls", "fields"), HOSTILE)
def test_no_program_makes_an_entry_large(engine: Engine, audits: Audits, calls: list[CallRecord], fields: dict[str, Any]) -> None:
    run(audits, claimed(engine), record_of(calls, **fields))

    detail = entry_of(engine).detail
    assert detail is not None
    assert len(json.dumps(detail)) <= DETAIL_BYTES
    assert len(detail["output"].encode()) <= 2_048
    assert len(detail["tool_calls"]) + detail["tool_calls_left_out"] == detail["calls"] == len(calls)
    assert len(detail["tool_calls"]) <= 200
    assert len(detail["tool_calls"]) >= min(len(calls), 100), "as many as a program may make, if nothing else is said"


def test_a_call_with_much_to_show_hides_no_other(engine: Engine, audits: Audits) -> None:
    loud = [
        call_of(n, tool="\U0001f600" * 999, error="\u0000" * 999, **{f"p{i}": "x" * 999 for i in range(99)}) for n in range(1, 61)
    ]
    run(audits, claimed(engine), record_of([*loud, *(call_of(n, user_id="mallory", amount=10**6) for n in range(61, 101))]))

    detail = entry_of(engine).detail
    assert detail is not None
    assert detail["tool_calls_left_out"] == 0
    assert [c["parameters"] for c in detail["tool_calls"][60:]] == [{"user_id": "mallory", "amount": 10**6}] * 40
    assert detail["tool_calls"][0]["parameters"]["..."] > 90


def test_the_file_has_the_whole_detail(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = engine.store.settings.model_copy(update={"audit_file": path})
    audits = Audits(type(engine.store)(engine.store.redis, settings))
    audits.start()
    run(audits, claimed(engine), record_of([call_of(1, user_id="alice")]))

    (line,) = path.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["action"], entry["verdict"], entry["tenant"]) == ("program.run", "success", "default")
    assert entry["detail"] == entry_of(engine).detail


def test_old_details_go_and_the_figures_stay(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_room, "DETAILS_KEPT", 10)
    log = AuditLog(engine.store.redis, engine.store.settings)
    for n in range(300):
        log.write(Caller(tenant="acme"), "program.run", f"job/{n}", detail=Detail({"calls": n}, {"output": "x"}))

    assert engine.store.redis.xlen(audit_details("acme")) < 150, "in whole nodes of the stream"
    first = [e.detail for e in log.page(tenant="acme", limit=1_000).entries]
    assert first == [{"calls": n} for n in reversed(range(300))]
    pages, cursor = [], None
    while True:
        page = log.page(tenant="acme", limit=1_000, cursor=cursor, detail=True)
        pages.append(page.entries)
        if (cursor := page.next_cursor) is None:
            break
    assert [len(p) for p in pages] == [100, 100, 100]
    assert pages[0][0].detail == {"calls": 299, "output": "x"}
    assert pages[-1][-1].detail == {"calls": 0}


ALERTS = {
    "timeout": ("time limit of 5 s", "timeout_s"),
    "call_limit": ("20 tool calls", "limits: {calls"),
    "memory": ("256 MiB", "memory_mb"),
    "cpu": ("1 cores for 0.8 s", "cpus"),
    "violation": ("may not do: SecurityError: Dangerous import", "toolweaver audit --json"),
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_stands_in_the_jobs_stream_before_the_call_ends(engine: Engine, audits: Audits, alert: str) -> None:
    claim = claimed(engine)

    async def execution() -> None:
        audit = audits.of(claim, EXECUTION, code=CODE, limits=LIMITS)
        audit.began("c0ffee")
        await audit.ended(record_of(error="SecurityError: Dangerous import detected: os", status="error"), alerts=[alert])
        engine.ledger.complete(claim, outcome="s")  # nothing waits between the two

    asyncio.run(execution())
    audits.close()
    told = [e for e in engine.events(claim.job) if e.type in ("log", "alert", "job.succeeded")]
    assert [e.type for e in told] == ["log", "alert", "job.succeeded"]
    began, alerted, _ = told
    assert began.data == {"message": "program started", "execution_id": EXECUTION, "container": "c0ffee"}
    assert (alerted.step, alerted.call, alerted.attempt) == ("run", "run#0", 1)
    assert (alerted.data["alert"], alerted.data["execution_id"]) == (alert, EXECUTION)
    for part in ALERTS[alert]:
        assert part in alerted.data["message"]
    assert failure_line(alerted) == f"run#0 alert {alert}: {alerted.data['message']}"
    assert figures(engine)[f"toolweaver_program_alerts_total alert={alert}"] == 1
    assert entry_of(engine).detail["alerts"] == [alert]  # type: ignore[index]


def test_nothing_is_told_of_a_call_after_its_end(engine: Engine) -> None:
    claim = claimed(engine)
    assert engine.ledger.log(claim, {"alert": "cpu"}, type="alert")
    engine.ledger.complete(claim, outcome="s")

    assert not engine.ledger.log(claim, {"alert": "cpu"}, type="alert")
    assert engine.events(claim.job)[-1].type == "job.succeeded"


def test_of_a_large_map_only_some_programs_are_told_to_start_but_all_alerts(engine: Engine) -> None:
    claim = claimed(engine, items=1_000)
    second = engine.mailbox.calls.pop(0)
    other = engine.ledger.claim(second.job, second.call, attempt=1, token=new_token(), queue=second.queue)
    assert isinstance(other, Claim)

    assert engine.ledger.log(claim, {}, sampled=True)
    assert other.call == "run#1"
    assert not engine.ledger.log(other, {}, sampled=True)
    assert engine.ledger.log(other, {}, type="alert")


def test_an_execution_without_a_record_is_told_too(engine: Engine, audits: Audits) -> None:
    claim = claimed(engine)

    def execution() -> None:
        with audits.of(claim, EXECUTION, code=CODE, limits=LIMITS, tools=["get_expenses"]) as audit:
            audit.began("c0ffee")
            audit.called(call_of(1, user_id="alice"))
            raise RuntimeError("overtaken")

    with pytest.raises(RuntimeError):
        execution()
    audits.close()

    entry = entry_of(engine)
    assert entry.verdict == "stopped"
    assert entry.detail is not None
    assert (entry.detail["container"], entry.detail["error"]) == ("c0ffee", "RuntimeError: overtaken")
    assert [c["parameters"] for c in entry.detail["tool_calls"]] == [{"user_id": "alice"}]
    assert figures(engine)["toolweaver_program_executions_total status=stopped"] == 1


def test_each_execution_is_told_once(engine: Engine, audits: Audits) -> None:
    async def execution() -> None:
        with audits.of(claimed(engine), EXECUTION, code=CODE, limits=LIMITS) as audit:
            await audit.ended(record_of())
            raise RuntimeError("after its end")

    with pytest.raises(RuntimeError):
        asyncio.run(execution())
    audits.close()

    assert entry_of(engine).verdict == "success"


def test_a_store_that_is_away_costs_no_program_its_result(engine: Engine, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    claim = claimed(engine)
    away = engine.store.settings.model_copy(update={"redis_url": f"unix://{tmp_path}/nobody.sock"})
    audits = Audits(type(engine.store)(engine.store.redis, away))
    audits.start()
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING):
        run(audits, claim, record_of([call_of(1)]), alerts=["timeout"])

    assert time.monotonic() - begun < 10
    assert {r.action for r in caplog.records if hasattr(r, "action")} == {"audit_lost", "metrics_lost"}
    assert "Traceback" not in caplog.text


def test_the_loop_never_waits_for_the_store(engine: Engine, tmp_path: Path) -> None:
    """The thread that writes stands still, as before a store that hangs; the loop goes on."""
    audits = Audits(engine.store)  # not started

    async def execution() -> float:
        audit = audits.of(claimed(engine), EXECUTION, code=CODE, limits=LIMITS)
        begun = time.monotonic()
        audit.began("c0ffee")
        for n in range(1_000):
            audit.called(call_of(n, rows=[{"a": 1}] * 100_000 if n == 0 else []))
        await audit.ended(record_of([call_of(1)]))
        return time.monotonic() - begun

    assert asyncio.run(execution()) < 1.0


# Metrics


def test_metrics_count_programs_calls_and_seconds(engine: Engine, audits: Audits) -> None:
    run(
        audits, claimed(engine), record_of([call_of(1), call_of(2), call_of(3, error="no"), call_of(4, tool="made_up", error="no")])
    )

    found = figures(engine)
    assert found["toolweaver_program_executions_total status=success"] == 1
    assert found["toolweaver_program_calls_total success=true tool=get_expenses"] == 2
    assert found["toolweaver_program_calls_total success=false tool=get_expenses"] == 1
    assert found["toolweaver_program_calls_total success=false tool=unknown"] == 1, "a name that the program made up is no label"
    assert found["toolweaver_program_cpu_seconds_total"] == 0.25
    assert found["toolweaver_program_seconds_count"] == 1
    assert found["toolweaver_program_seconds_sum"] == pytest.approx(0.789)
    buckets = {k.split("le=")[1]: v for k, v in found.items() if "program_seconds_bucket" in k}
    assert (buckets["0.3"], buckets["1.0"], buckets["3600.0"], buckets["+Inf"]) == (0, 1, 1, 1)


def test_the_counters_of_processes_add_up(client: redis.Redis, engine: Engine) -> None:
    for _ in range(3):  # a process each
        Metrics(client, METRICS).add([Count(PROGRAM_SECONDS, by=s) for s in (0.01, 0.5, 5_000.0)])

    found = figures(engine)
    assert found["toolweaver_program_seconds_count"] == 9
    assert found["toolweaver_program_seconds_sum"] == pytest.approx(15_001.53)
    assert found["toolweaver_program_seconds_bucket le=0.01"] == 3, "a bound belongs to its bucket"
    assert found["toolweaver_program_seconds_bucket le=3600.0"] == 6


def test_names_of_tools_are_bounded(client: redis.Redis, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_room, "TOOLS_MOST", 3)
    Metrics(client, METRICS).add([Count(PROGRAM_CALLS, (f"t{n}", "true")) for n in range(3)])
    Metrics(client, METRICS).add([Count(PROGRAM_CALLS, (f"t{n}", "true")) for n in (2, 3, 4)])  # a second process

    found = {k: v for k, v in figures(engine).items() if "calls" in k}
    assert {k.split("tool=")[1]: v for k, v in found.items()} == {"t0": 1, "t1": 1, "t2": 2, "other": 2}


def test_metrics_of_a_fresh_platform_are_there(settings: Settings) -> None:
    with TestClient(create_app(settings), base_url="http://localhost", client=("127.0.0.1", 5)) as http:
        answer = http.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {f.name for f in text_string_to_metric_families(answer.text)}
    assert families == {m.name for m in metrics_room.ALL}
    assert "toolweaver_program_cpu_seconds_total 0.0" in answer.text


def test_with_keys_the_metrics_are_the_operators(settings: Settings, client: redis.Redis) -> None:
    keys = KeyStore(client)
    user, admin = (keys.create(CreateKeyRequest(tenant="acme", scopes=s)).key for s in (("read", "write"), ("admin",)))
    with TestClient(create_app(settings), base_url="http://localhost", client=("127.0.0.1", 5)) as http:
        assert http.get("/metrics").status_code == 401
        assert http.get("/metrics", headers={"Authorization": f"Bearer {user}"}).status_code == 403
        assert http.get("/metrics", headers={"Authorization": f"Bearer {admin}"}).status_code == 200
        Metrics(client, METRICS).add([Count(PROGRAM_SECONDS, by=1.0)])
        assert "toolweaver_program_seconds_count 1.0" in http.get("/metrics", headers={"X-API-Key": admin}).text
    refused = [e.verdict for e in AuditLog(client, settings).page().entries]
    assert sorted(refused) == ["denied", "unauthorized"], "refusals are in the log, scrapes are not"


# How a person sees it


def test_the_api_shows_details_to_those_who_ask(engine: Engine, audits: Audits) -> None:
    run(audits, claimed(engine), record_of([call_of(1, half="\ud800")]))
    with TestClient(create_app(engine.store.settings), base_url="http://localhost", client=("127.0.0.1", 5)) as http:
        brief = http.get("/v1/audit").json()["entries"]
        whole = http.get("/v1/audit", params={"detail": "true"}).json()["entries"]

    (brief_entry,) = [e for e in brief if e["action"] == "program.run"]
    (whole_entry,) = [e for e in whole if e["action"] == "program.run"]
    assert "tool_calls" not in brief_entry["detail"]
    assert brief_entry["detail"]["calls"] == 1
    assert whole_entry["detail"]["tool_calls"][0]["parameters"] == {"half": "?"}
    assert all(e["detail"] is None for e in whole if e["action"] != "program.run")


def test_a_program_in_one_line(engine: Engine, audits: Audits) -> None:
    run(audits, claimed(engine), record_of([call_of(1)]), alerts=["memory", "cpu"])
    (entry,) = AuditLog(engine.store.redis, engine.store.settings).page().entries

    assert entry.detail is not None
    line = f"{EXECUTION} · 1 calls · 0.79 s · cpu 0.25 s · 24 MiB · alerts: memory, cpu"
    assert program_figures(entry.detail) == line
    bare = {"execution_id": EXECUTION, "calls": 0, "execution_time": 0.0, "cpu_s": None, "memory_peak": None, "alerts": []}
    assert program_figures(bare) == f"{EXECUTION} · 0 calls · 0.00 s"
