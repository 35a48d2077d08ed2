"""What the stream of a job tells: steps that end a job, large maps in samples, and gaps wherever they come up."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import ToolError
from orchestrator.jobs.events import EventReader
from orchestrator.settings import Settings
from tests.engine import Engine


@pytest.fixture
def engine(settings: Settings) -> Engine:
    made = Engine(settings)

    @made.tool()
    def echo(value: Any = None) -> Any:
        return value

    @made.tool()
    def fail(value: Any = None) -> Any:
        raise ToolError(f"cannot do {value}")

    return made


@pytest.mark.parametrize("step", [{"tool": "fail"}, {"tool": "echo", "map": "input:number"}])
def test_the_step_that_stops_its_job_is_told_before_the_end(engine: Engine, step: dict[str, Any]) -> None:
    job = engine.submit([{"id": "a", **step}, {"id": "b", "tool": "echo"}], inputs={"number": 7})
    engine.drain()
    assert [e.type for e in engine.events(job)][-2:] == ["step.failed", "job.failed"]
    assert engine.events(job)[-2].step == "a"


@pytest.mark.parametrize(("items", "told"), [(200, 200), (1_000, 100)])
def test_a_large_map_tells_of_some_items(engine: Engine, items: int, told: int) -> None:
    job = engine.submit([{"id": "a", "tool": "echo", "map": "input:xs"}], inputs={"xs": list(range(items))})
    engine.drain()
    events = engine.ledger.redis.xrange(engine.ledger.keys(job).events)
    assert sum(fields[b"t"] == b"call.running" for _, fields in events) == told
    assert engine.store.status(job) == "succeeded"


async def test_a_follower_that_fell_behind_the_trim_is_told(engine: Engine, settings: Settings) -> None:
    job = engine.submit([{"id": "a", "tool": "echo"}])
    stream, redis = engine.ledger.keys(job).events, engine.ledger.redis
    for at in range(600):
        redis.xadd(stream, {"t": "log", "d": f'{{"at":{at}}}'})
    reader, seen = EventReader(settings), []
    async for event in reader.follow(job):
        seen.append(event)
        if len(seen) == 500:  # while this one dawdles, much happens
            for at in range(600):
                redis.xadd(stream, {"t": "log", "d": f'{{"at":{at}}}'})
            redis.xtrim(stream, maxlen=550, approximate=False)
            engine.drain()
    await reader.close()
    assert [e.type for e in seen].count("gap") == 1
    assert seen[500].type == "gap"
    assert seen[-1].type == "job.succeeded"
