"""Which pool a tool goes to, and of which kind a pool is."""

from __future__ import annotations

import pytest

from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.errors import RequestError
from workers.aio import _is_large
from workers.boot import main, pool_of


async def waits() -> None:
    """Waits."""


def works() -> None:
    """Works."""


@pytest.fixture
def tools() -> ToolRegistry:
    return ToolRegistry()


def test_async_functions_go_to_the_loop_and_others_to_processes(tools: ToolRegistry) -> None:
    register_function(registry=tools)(waits)
    register_function(registry=tools)(works)
    assert {t.name: t.pool for t in tools.definitions()} == {"waits": "async", "works": "function"}


def test_an_async_function_may_be_given_to_a_process(tools: ToolRegistry) -> None:
    register_function(pool="function", registry=tools)(waits)
    assert tools.definitions()[0].pool == "function"
    assert pool_of("function", kind=None, tools=tools).kind == "prefork"


def test_a_function_that_blocks_is_not_put_on_the_loop(tools: ToolRegistry) -> None:
    with pytest.raises(TypeError, match=r"`works` is a `def` function.*write `async def`"):
        register_function(pool="async", registry=tools)(works)


def test_a_pool_of_ones_own_is_async_when_all_its_tools_are(tools: ToolRegistry) -> None:
    register_function(pool="mine", registry=tools)(waits)
    assert pool_of("mine", kind=None, tools=tools).kind == "async"
    assert pool_of("mine", kind="prefork", tools=tools).kind == "prefork"

    register_function(pool="mine", registry=tools)(works)
    assert pool_of("mine", kind=None, tools=tools).kind == "prefork"
    assert pool_of("another", kind=None, tools=tools).kind == "prefork"


def test_a_mixed_pool_does_not_start_as_async(tools: ToolRegistry) -> None:
    register_function(pool="mine", registry=tools)(waits)
    register_function(pool="mine", registry=tools)(works)
    with pytest.raises(RequestError, match="`works` would hold up all its calls") as caught:
        pool_of("mine", kind="async", tools=tools)
    assert caught.value.next is not None
    assert "async def" in caught.value.next


def test_a_worker_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pool", "function", "--kind", "async"]) == 2
    assert "pool `function` cannot be async" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "large"),
    [
        (None, False),
        (3.5, False),
        ("x" * 1000, False),
        ({"a": [1, "b", {"c": None}]}, False),
        ("x" * 100_000, True),
        ({"a": ["x" * 100_000]}, True),
        (list(range(1000)), True),
        (object(), True),
    ],
)
def test_what_may_be_large_is_told_from_what_is_small(value: object, large: bool) -> None:
    assert _is_large(value) is large
