"""What `doctor` says of store, broker and blob store, sound and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.jobs.store import JobStore
from orchestrator.local.examine import examine
from orchestrator.models.plan import Plan
from orchestrator.settings import Settings


def found(settings: Settings, **changes: Any) -> dict[str, tuple[str, str]]:
    """Level and detail by name; whatever is not well says the next move."""
    findings = list(examine(settings.model_copy(update=changes)))
    assert all(f.next for f in findings if f.level != "ok")
    return {f.name: (f.level, f.detail) for f in findings}


@pytest.fixture
def configured(client: redis.Redis) -> Any:
    """Sets something of the server for one test."""
    before: dict[str, str] = {}

    def set_(name: str, value: str) -> None:
        before.setdefault(name, next(iter(client.config_get(name).values())))
        client.config_set(name, value)

    yield set_
    for name, value in before.items():
        client.config_set(name, value)


def test_a_store_without_a_file_is_told_of(settings: Settings) -> None:
    seen = found(settings)
    assert seen["store"][0] == seen["broker"][0] == seen["clock"][0] == seen["memory"][0] == "ok"
    assert seen["durability"] == ("warn", "no append-only file: a restart loses every job")
    assert seen["blob store"][0] == "ok"
    assert not [p for p in settings.home.glob("blobs/*") if p.name.startswith(".doctor")], "it takes its file away"


def test_a_full_or_forgetful_store_is_told_of(settings: Settings, configured: Any) -> None:
    configured("maxmemory", "1mb")
    assert found(settings)["memory"][0] == "fail"
    configured("maxmemory-policy", "allkeys-lru")
    configured("maxmemory", "1gb")
    assert "allkeys-lru throws parts of jobs away" in found(settings)["memory"][1]


def test_what_waits_without_a_worker_or_planner_is_told_of(settings: Settings, client: redis.Redis) -> None:
    store = JobStore(client, settings)
    plan = Plan.model_validate({"steps": [{"id": "a", "tool": "compute_tax", "input": {"amount": 1, "tax_rate": 0.1}}]})
    job, _ = store.submit(plan, inputs={})
    assert found(settings)["planner"] == ("fail", "1 jobs wait and no planner runs")
    shard = store.ledger.keys(job).shard
    client.sadd(shard.queues, "function")
    client.zadd(shard.queued("function"), {f"{job}|a#0|1": store.ledger.now_ms()})
    assert found(settings)["queue function"] == ("warn", "1 calls wait and no worker serves it")


def test_servers_that_do_not_answer_are_told_of(settings: Settings, tmp_path: Path) -> None:
    gone = found(settings, redis_url="redis://127.0.0.1:1/0")
    assert {n: level for n, (level, _) in gone.items()} == {"store": "fail"}
    assert found(settings, broker_url="amqp://guest:secret@127.0.0.1:1//")["broker"][0] == "fail"
    assert "secret" not in str(found(settings, broker_url="amqp://guest:secret@127.0.0.1:1//"))
    (tmp_path / "taken").write_text("a file where a folder should be")
    assert found(settings, blobs=str(tmp_path / "taken"))["blob store"][0] == "fail"


def test_the_command_asks_a_process_of_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVER_HOME", str(settings.home))
    monkeypatch.setenv("TOOLWEAVER_REDIS_URL", str(settings.redis_url))
    ended = CliRunner().invoke(app, ["doctor", "--json"])
    names = {f["name"]: f["level"] for f in json.loads(ended.stdout)}
    assert {"store", "durability", "memory", "clock", "broker", "blob store"} <= set(names)
    monkeypatch.setenv("TOOLWEAVER_REDIS_URL", "redis://127.0.0.1:1/0")
    ended = CliRunner().invoke(app, ["doctor"])
    assert ended.exit_code == 2
    assert "does not answer" in ended.stdout
