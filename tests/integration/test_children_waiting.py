"""Programs that wait for calls that they made: the real listener, threads and ledger; messages are delivered by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import redis

from orchestrator.errors import BackendError, ToolError
from orchestrator.hybrid_dispatcher import children as module
from orchestrator.hybrid_dispatcher.children import Children, NotMade
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.integration.test_children import CALLER, Maker, begin
from tests.integration.test_children import engine as _engine

engine = _engine
FEW = 0.05


@pytest.fixture
async def children(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Children]:
    monkeypatch.setattr(module, "LOOK_S", FEW)
    made = Children(engine.store, engine.mailbox.app)
    made._publisher = engine.mailbox
    made.start()
    yield made
    made.close()


def ask(children: Children, maker: Maker, *asked: tuple[str, str, dict[str, Any]]) -> list[asyncio.Task[Any]]:
    tools = {name: maker.engine.registry.get(name) for _, name, _ in asked}
    return [
        asyncio.create_task(children.call(maker.claim, tools[name].definition, arguments, key=key, caller=CALLER))  # type: ignore[union-attr]
        for key, name, arguments in asked
    ]


async def until(true: Callable[[], Any], *, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (a store, a list: nothing that could tell)
            await asyncio.sleep(0.005)


async def test_a_fan_wider_than_the_window_gets_all_its_answers(engine: Engine, children: Children) -> None:
    _, maker = begin(engine)
    asked = ask(children, maker, *((f"0:{n}", "double", {"value": n}) for n in range(64)))
    await until(lambda: len(children._waiting) == 64)
    await asyncio.sleep(5 * FEW)  # several looks at those that have no room yet
    assert not any(a.done() for a in asked)
    assert len([c for c in engine.mailbox.calls if c.job == maker.job]) == 8
    while not all(a.done() for a in asked):
        await asyncio.to_thread(engine.drain, limit=5)
        await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [2 * n for n in range(64)]
    assert not children._waiting


async def test_a_call_that_is_given_up_while_it_is_made_leaves_nothing(engine: Engine, children: Children) -> None:
    _, maker = begin(engine)
    begun, go_on = threading.Event(), threading.Event()
    spawn = engine.ledger.spawn

    def slow(*args: Any, **rest: Any) -> Any:
        begun.set()
        go_on.wait(5)
        return spawn(*args, **rest)

    engine.ledger.spawn = slow  # type: ignore[method-assign]
    tool = engine.registry.get("double")
    assert tool is not None
    stray = tool.definition.model_copy(update={"name": "stray", "pool": "nowhere"})
    unknown = asyncio.create_task(children.call(maker.claim, stray, {}, key="0:1", caller=CALLER))
    first, second = ask(children, maker, ("0:2", "double", {"value": 1}), ("0:3", "double", {"value": 2}))
    await until(begun.is_set)
    unknown.cancel()
    first.cancel()
    go_on.set()
    await until(lambda: len(engine.mailbox.calls) >= 2)
    await asyncio.to_thread(engine.drain)
    assert await asyncio.wait_for(second, 5) == 4
    assert not children._waiting


async def test_large_arguments_are_refused_before_they_reach_the_store(engine: Engine, children: Children) -> None:
    _, maker = begin(engine)
    (asked,) = ask(children, maker, ("0:1", "double", {"value": "x" * (1 << 20)}))
    with pytest.raises(ToolError, match="double") as refused:
        await asyncio.wait_for(asked, 5)
    assert refused.value.code == "arguments_too_large"
    assert not engine.mailbox.calls


async def test_when_it_is_not_known_whether_a_call_was_made_the_program_stops(
    engine: Engine, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could catch an error, and call again under another key: twice."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    job, maker = begin(engine)
    spawn = engine.ledger.spawn

    def cut(*args: Any, **rest: Any) -> Any:
        spawn(*args, **rest)
        raise redis.ConnectionError("the answer did not come")

    engine.ledger.spawn = cut  # type: ignore[method-assign]
    (asked,) = ask(children, maker, ("0:1", "pay", {"amount": 1}))
    with pytest.raises(NotMade) as error:
        await asyncio.wait_for(asked, 5)
    assert error.value.retryable
    assert [c.call for c in engine.store.calls(job)] == ["p#0", "p.0.1#0"]


async def test_calls_that_could_not_be_published_are_waited_for(engine: Engine, children: Children) -> None:
    _, maker = begin(engine)

    class Broken:
        def publish(self, calls: Any) -> None:
            raise OSError("the broker's connection broke in a way that nobody knows")

    children._publisher = Broken()  # type: ignore[assignment]
    (asked,) = ask(children, maker, ("0:1", "double", {"value": 4}))
    await until(lambda: children._waiting)
    assert not asked.done(), "it stands in the outbox"
    ready = engine.ledger.redis.zrange(engine.ledger.keys(maker.job).shard.queued("work"), 0, -1)
    assert [raw.decode().split("|")[1] for raw in ready if raw.decode().startswith(maker.job)] == ["p.0.1#0"]
    asked.cancel()


async def test_answers_come_after_the_store_forgot_its_scripts_and_cut_its_connections(
    engine: Engine, children: Children, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 60.0)  # by the channel alone
    _, maker = begin(engine)
    (first,) = ask(children, maker, ("0:1", "double", {"value": 1}))
    await until(lambda: engine.mailbox.calls)
    await asyncio.to_thread(engine.drain)
    assert await asyncio.wait_for(first, 5) == 2
    store: Any = engine.store.redis
    store.script_flush()
    store.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: store.pubsub_numsub(children._channel)[0][1] == 1)
    (second,) = ask(children, maker, ("0:2", "double", {"value": 2}))
    await until(lambda: engine.mailbox.calls)
    await asyncio.to_thread(engine.drain)
    assert await asyncio.wait_for(second, 5) == 4


async def test_an_answer_that_cannot_be_read_holds_up_no_other(engine: Engine, children: Children) -> None:
    _, maker = begin(engine)
    read = engine.store.children

    def broken(job: str, calls: Sequence[str]) -> Any:
        if "p.0.1#0" in calls:
            raise BackendError("its value is gone")
        return read(job, calls)

    engine.store.children = broken  # type: ignore[method-assign, assignment]
    gone, other = ask(children, maker, ("0:1", "double", {"value": 1}), ("0:2", "double", {"value": 2}))
    await until(lambda: len(engine.mailbox.calls) == 2)
    await asyncio.to_thread(engine.drain)
    assert await asyncio.wait_for(other, 5) == 4
    assert not gone.done()
    gone.cancel()
