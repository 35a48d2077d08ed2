"""Tools of one tenant at every door: the list, the plan check, one call of it, and the worker; and tools by alias."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from orchestrator.catalog.imported import register_worker
from orchestrator.catalog.register import ToolRegistry
from orchestrator.catalog.store import CatalogStore
from orchestrator.client.client import Client
from orchestrator.errors import NotFound, PlanError
from orchestrator.models.job import JobStatus
from orchestrator.models.plan import Plan
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.integration.test_tenancy import Served, serving
from workers.presence import Presence

pytestmark = pytest.mark.integration

TOOLS = ToolRegistry()


@register_worker(ToolDefinition(name="acme.pay", tenants=("acme",), aliases=("settle_it",)), registry=TOOLS)
async def pay(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@register_worker(ToolDefinition(name="shop.list", aliases=("list_all",), deprecated="use `shop.find`"), registry=TOOLS)
async def shop_list(_payload: dict[str, Any]) -> list[str]:
    return ["a"]


def step(tool: str) -> dict[str, Any]:
    return {"steps": [{"id": "a", "tool": tool}]}


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    with serving(settings) as api:
        CatalogStore(api.redis).publish("mcp:shop", TOOLS.definitions())
        yield api


@pytest.fixture
def acme(served: Served) -> Iterator[Client]:
    with ExitStack() as stack:
        yield stack.enter_context(Client(served.url, api_key=served.key("acme").key, timeout=10))


@pytest.fixture
def mallory(served: Served) -> Iterator[Client]:
    with ExitStack() as stack:
        yield stack.enter_context(Client(served.url, api_key=served.key("mallory").key, timeout=10))


def test_the_list_shows_each_tenant_its_own(acme: Client, mallory: Client) -> None:
    hidden = {t.name for t in acme.tools()} - {t.name for t in mallory.tools()}
    assert hidden == {"acme.pay"}


def test_the_workers_show_each_tenant_its_own(acme: Client, mallory: Client, served: Served) -> None:
    Presence("mcp", concurrency=1, tools=["acme.pay", "shop.list", "acme.gone"]).show(served.services.store)
    assert {w.tools for w in acme.workers()} == {("acme.pay", "shop.list")}
    assert {w.tools for w in mallory.workers()} == {("shop.list",)}


ATTEMPTS: dict[str, Callable[[Client, str], object]] = {
    "show it": lambda client, name: client.tool(name),
    "run it": lambda client, name: client.submit_tool(name, {}),
    "check a plan with it": lambda client, name: client.check(step(name)),
    "submit a plan with it": lambda client, name: client.submit(step(name)),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=list(ATTEMPTS))
@pytest.mark.parametrize(("name", "absent"), [("acme.pay", "zzzz.pay"), ("settle_it", "zzz.qqq")])
def test_for_others_it_is_as_if_there_were_no_such_tool(
    acme: Client, mallory: Client, attempt: Callable[[Client, str], object], name: str, absent: str
) -> None:
    attempt(acme, name)
    answers = []
    for wanted in (name, absent):
        with pytest.raises((NotFound, PlanError)) as caught:
            attempt(mallory, wanted)
        answers.append(str(caught.value).replace(wanted, "it"))
    assert answers[0] == answers[1]


def test_a_call_by_alias_is_a_call_of_the_tool(acme: Client, served: Served) -> None:
    job = acme.submit_tool("list_all", {}).id
    assert acme.tool("list_all").name == "shop.list"
    assert [s.tool for s in served.services.store.plan(job, tenant="acme").steps] == ["shop.list"]


def test_a_worker_refuses_what_the_tenant_does_not_see(settings: Settings) -> None:
    engine = Engine(settings, TOOLS)
    jobs = {}
    for tenant in ("acme", "mallory"):
        jobs[tenant], _ = engine.store.submit(Plan.model_validate(step("acme.pay")), inputs={}, tenant=tenant)
        engine.start(jobs[tenant])
        engine.drain()
    assert engine.store.status(jobs["acme"], tenant="acme") is JobStatus.SUCCEEDED
    assert engine.store.status(jobs["mallory"], tenant="mallory") is JobStatus.FAILED
    error = engine.store.view(jobs["mallory"], tenant="mallory").error
    assert error is not None
    assert error.code == "unknown_tool"
    assert "There is no tool `acme.pay`" in error.message


def test_the_check_says_what_is_deprecated_and_the_plan_can_be_submitted_as_it_came_back(acme: Client) -> None:
    checked = acme.check(step("shop.list"))

    (warning,) = checked.warnings
    assert "use `shop.find`" in warning["next"]
    assert acme.submit(checked).id


def test_a_key_is_answered_before_anybody_asks_whether_the_tool_is_still_there(served: Served, acme: Client) -> None:
    first = acme.submit_tool("shop.list", {}, idempotency_key="order 8")
    CatalogStore(served.redis).withdraw(["shop.list"])

    again = acme.submit_tool("shop.list", {}, idempotency_key="order 8")

    assert again.id == first.id
    with pytest.raises(NotFound):
        acme.submit_tool("shop.list", {})
