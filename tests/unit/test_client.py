"""The client on the wire: what it sends, what it makes of answers, how it goes on after a cut. Both clients, one suite."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from orchestrator.client import AsyncClient, Client, follow
from orchestrator.client.access import Access, AsyncAccess
from orchestrator.errors import (
    BackendError,
    Conflict,
    JobCancelled,
    JobFailed,
    LimitExceeded,
    NotFound,
    PlanError,
    PolicyError,
    RequestError,
    ToolError,
    ToolWeaverError,
    to_problem,
)
from orchestrator.models.plan import Plan
from orchestrator.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
URL = "http://127.0.0.1:8400"
PLAN = {"steps": [{"id": "a", "tool": "t"}]}
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Callable[[Handler], Any]:
    """Makes a client whose requests are answered by a function."""
    return lambda handler: request.param(URL, http=httpx.MockTransport(handler))


async def done(value: Any) -> Any:
    """The value of a call of either client."""
    return await value if inspect.isawaitable(value) else value


async def collect(items: Any) -> list[Any]:
    return [i async for i in items] if isinstance(items, AsyncIterable) else list(items)


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends with an error, or well when there is none."""

    def __init__(self, text: str, error: Exception | None = None) -> None:
        self.text, self.error, self.closed = text, error, False

    def __iter__(self) -> Iterator[bytes]:
        yield self.text.encode()
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def job(status: str = "running", **more: Any) -> dict[str, Any]:
    return {"id": "job_1", "status": status, "created_at": NOW} | more


def event(number: int, type: str = "log", **data: Any) -> str:
    body = {"id": f"{number}-0", "type": type, "job_id": "job_1", "ts": NOW, "data": data}
    return f"event: {type}\nid: {number}-0\ndata: {json.dumps(body)}\n\n"


def stream(text: str, error: Exception | None = None) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, stream=Stream(text, error))


def problem(error: ToolWeaverError, **headers: str) -> httpx.Response:
    return httpx.Response(error.http_status, json=to_problem(error), headers={"content-type": "application/problem+json"} | headers)


def script(*answers: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """A handler that gives the answers in order, and the requests that it got."""
    left, seen = iter(answers), list[httpx.Request]()

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, seen


@pytest.mark.parametrize(
    "error",
    [
        RequestError("bad", path="limit", next="mend it"),
        NotFound("no job"),
        Conflict("used"),
        LimitExceeded("large"),
        PlanError("two problems", problems=[{"path": "steps[0].tool", "message": "unknown", "next": "did you mean `t`?"}]),
        PolicyError("denied"),
        ToolError("broken", retryable=False),
    ],
    ids=lambda e: type(e).__name__,
)
async def test_the_servers_error_arrives_as_the_same_class(connect: Any, error: ToolWeaverError) -> None:
    client = connect(script(problem(error))[0])

    with pytest.raises(type(error)) as raised:
        await done(client.job("job_1").view())

    assert type(raised.value) is type(error)
    assert to_problem(raised.value) == to_problem(error)


async def test_an_answer_of_something_else_names_the_address(connect: Any) -> None:
    client = connect(script(httpx.Response(404, text="<html>nginx</html>"))[0])

    with pytest.raises(BackendError, match=r"127\.0\.0\.1:8400.*404"):
        await done(client.tools())


async def test_submit_sends_the_plan_with_an_idempotency_key(connect: Any) -> None:
    handler, seen = script(httpx.Response(201, json=job()))

    handle = await done(connect(handler).submit(PLAN, inputs={"n": 1}, priority="batch"))

    assert handle.id == "job_1"
    assert (seen[0].method, seen[0].url.path) == ("POST", "/v1/jobs")
    assert json.loads(seen[0].content) == {"plan": PLAN, "inputs": {"n": 1}, "priority": "batch"}
    assert len(seen[0].headers["idempotency-key"]) >= 32


async def test_a_submit_that_was_cut_is_sent_again_with_the_same_key(connect: Any) -> None:
    handler, seen = script(httpx.ReadError("cut"), httpx.Response(200, json=job()))

    await done(connect(handler).submit(PLAN))

    assert len(seen) == 2
    assert seen[0].headers["idempotency-key"] == seen[1].headers["idempotency-key"]
    assert seen[0].content == seen[1].content


async def test_two_submits_have_two_keys_and_a_given_key_is_kept(connect: Any) -> None:
    handler, seen = script(*(httpx.Response(201, json=job()) for _ in range(3)))
    client = connect(handler)

    for key in (None, None, "mine"):
        await done(client.submit(PLAN, idempotency_key=key))

    first, second, third = (r.headers["idempotency-key"] for r in seen)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize("call", [lambda h: h.retry(), lambda h: h.resolve("a#0", happened=True)], ids=["retry", "resolve"])
async def test_what_must_not_happen_twice_is_not_sent_twice(connect: Any, call: Callable[[Any], Any]) -> None:
    handler, seen = script(httpx.ReadError("cut"), httpx.Response(200, json=job()))

    with pytest.raises(BackendError):
        await done(call(connect(handler).job("job_1")))

    assert len(seen) == 1


async def test_nothing_listens_names_the_address_and_the_command(connect: Any) -> None:
    handler, seen = script(*[httpx.ConnectError("[Errno 111] Connection refused")] * 5)

    with pytest.raises(BackendError, match=r"127\.0\.0\.1:8400.*toolweaver up") as raised:
        await done(connect(handler).tools())

    assert raised.value.retryable
    assert len(seen) == 3


async def test_a_backend_that_is_away_for_a_moment_is_asked_again(connect: Any) -> None:
    away = problem(BackendError("no store"), **{"retry-after": "0"})
    handler, seen = script(away, httpx.Response(200, json=job("succeeded")))

    view = await done(connect(handler).job("job_1").view())

    assert view.status == "succeeded"
    assert len(seen) == 2


async def test_a_backend_that_stays_away_is_an_error(connect: Any) -> None:
    handler, _ = script(*(problem(BackendError("no store"), **{"retry-after": "0"}) for _ in range(3)))

    with pytest.raises(BackendError, match="no store"):
        await done(connect(handler).job("job_1").view())


async def test_health_is_an_answer_even_when_it_is_bad(connect: Any) -> None:
    body = {"status": "down", "version": "1", "timestamp": NOW, "checks": {"store": {"ok": False, "detail": "refused"}}}
    health = await done(connect(script(httpx.Response(503, json=body))[0]).health())

    assert not health.checks["store"].ok


async def test_events_are_taken_up_where_the_connection_broke_and_none_comes_twice(connect: Any) -> None:
    handler, seen = script(
        stream(event(1) + event(2) + event(3)[:-20], httpx.ReadError("cut")),  # the third one broke off in the middle
        httpx.ConnectError("refused"),
        stream(event(2) + event(3) + event(4, "job.succeeded")),
    )

    events = await collect(connect(handler).job("job_1").events())

    assert [e.id for e in events] == ["1-0", "2-0", "3-0", "4-0"]
    assert [r.headers.get("last-event-id") for r in seen] == [None, "2-0", "2-0"]


async def test_a_handle_is_an_iterable_of_its_events(connect: Any) -> None:
    assert [e.type for e in await collect(connect(script(stream(event(1, "job.failed")))[0]).job("job_1"))] == ["job.failed"]


async def test_a_stream_that_a_stopping_server_ended_goes_on(connect: Any) -> None:
    handler, seen = script(stream(": heartbeat\n\n" + event(1)), stream(event(2, "job.cancelled")))

    assert len(await collect(connect(handler).job("job_1").events(after="0-5"))) == 2
    assert [r.headers["last-event-id"] for r in seen] == ["0-5", "1-0"]


async def test_a_final_event_in_the_middle_is_not_the_end(connect: Any) -> None:
    text = event(1, "job.failed") + event(2, "job.running") + event(3, "job.succeeded")

    assert [e.id for e in await collect(connect(script(stream(text))[0]).job("job_1").events())] == ["1-0", "2-0", "3-0"]


async def test_a_cut_after_the_last_event_asks_once_more_and_ends(connect: Any) -> None:
    handler, seen = script(stream(event(1, "job.failed"), httpx.RemoteProtocolError("incomplete")), httpx.Response(204))

    assert len(await collect(connect(handler).job("job_1").events())) == 1
    assert len(seen) == 2


async def test_a_gap_is_handed_on_although_its_place_was_passed(connect: Any) -> None:
    text = event(5, "gap", status="running") + event(7, "job.succeeded")

    events = await collect(connect(script(stream(text))[0]).job("job_1").events(after="6-0"))

    assert [e.type for e in events] == ["gap", "job.succeeded"]


async def test_events_of_an_unknown_job(connect: Any) -> None:
    with pytest.raises(NotFound):
        await collect(connect(script(problem(NotFound("no job")))[0]).job("nope").events())


async def test_events_end_when_nothing_answers_for_long(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE_S", -1.0)

    with pytest.raises(BackendError, match="toolweaver up"):
        await collect(connect(script(httpx.ConnectError("refused"))[0]).job("job_1").events())


async def test_what_streams_no_events_is_not_asked_for_ever(connect: Any) -> None:
    with pytest.raises(RequestError, match="does not stream events"):
        await collect(connect(script(httpx.Response(200, text="<html>"))[0]).job("job_1").events())


async def test_waiting_ends_in_time(connect: Any) -> None:
    handler, seen = script(httpx.Response(200, json=job(cursor="3-0")), *(stream("") for _ in range(50)))

    with pytest.raises(TimeoutError, match=r"job_1 has not ended within 0\.1 s"):
        await done(connect(handler).job("job_1").result(timeout=0.1))

    assert 0 < float(seen[1].url.params["for_s"]) <= 0.1
    assert seen[1].headers["last-event-id"] == "3-0"


class Answer(BaseModel):
    total: float


async def test_the_result_is_the_output_typed_when_asked(connect: Any) -> None:
    body = {"job_id": "job_1", "status": "succeeded", "output": {"total": 3}}
    answers = [httpx.Response(200, json=job("succeeded")), httpx.Response(200, json=body)]

    assert await done(connect(script(*answers)[0]).job("job_1").result()) == {"total": 3}
    assert await done(connect(script(*answers)[0]).job("job_1").result(as_=Answer)) == Answer(total=3)
    with pytest.raises(ValidationError):
        await done(connect(script(*answers)[0]).job("job_1").result(as_=list[int]))


async def test_the_result_waits_for_the_end(connect: Any) -> None:
    body = {"job_id": "job_1", "status": "succeeded", "output": 7}
    handler, seen = script(
        httpx.Response(200, json=job(cursor="1-0")),
        stream(event(2, "job.succeeded")),
        httpx.Response(200, json=job("succeeded")),
        httpx.Response(200, json=body),
    )

    assert await done(connect(handler).job("job_1").result(timeout=10)) == 7
    assert [r.url.path.rpartition("/")[2] for r in seen] == ["job_1", "events", "job_1", "result"]


@pytest.mark.parametrize(("status", "kind"), [("failed", JobFailed), ("cancelled", JobCancelled)])
async def test_a_job_without_success_raises_with_what_was_done(connect: Any, status: str, kind: type[JobFailed]) -> None:
    errors = [
        {"code": "bad_input", "message": "no image", "step": "ocr", "index": 3, "next": "send a png"},
        {"code": "x", "message": "y"},
    ]
    body = {"job_id": "job_1", "status": status, "steps": {"ocr": [1, None]}, "errors": errors}
    handler, _ = script(httpx.Response(200, json=job(status)), httpx.Response(200, json=body))

    with pytest.raises(kind) as raised:
        await done(connect(handler).job("job_1").result())

    assert raised.value.result.steps == {"ocr": [1, None]}
    if status == "failed":
        assert "step `ocr` item 3: no image" in str(raised.value)
        assert "1 more" in str(raised.value)
        assert raised.value.next == "send a png"


async def test_jobs_are_listed_page_by_page(connect: Any) -> None:
    handler, seen = script(
        httpx.Response(200, json={"jobs": [job(), job()], "next_cursor": "c1"}), httpx.Response(200, json={"jobs": [job()]})
    )

    assert len(await collect(connect(handler).jobs(status="failed", name="receipts"))) == 3
    assert dict(seen[1].url.params) == {"status": "failed", "name": "receipts", "limit": "100", "cursor": "c1"}


async def test_a_list_of_at_most_so_many(connect: Any) -> None:
    handler, seen = script(httpx.Response(200, json={"jobs": [job(), job()], "next_cursor": "c1"}))

    assert len(await collect(connect(handler).jobs(limit=2))) == 2
    assert seen[0].url.params["limit"] == "2"


async def test_calls_are_listed_page_by_page(connect: Any) -> None:
    calls = [{"call": f"a#{i}", "step": "a", "state": "failed", "attempt": 1} for i in range(3)]
    handler, seen = script(
        httpx.Response(200, json={"calls": calls[:2], "next_cursor": "a#1"}), httpx.Response(200, json={"calls": calls[2:]})
    )

    assert [c.call for c in await collect(connect(handler).job("job_1").calls(state="failed"))] == ["a#0", "a#1", "a#2"]
    assert dict(seen[1].url.params) == {"state": "failed", "limit": "500", "cursor": "a#1"}


async def test_running_one_tool(connect: Any) -> None:
    handler, seen = script(
        httpx.Response(201, json=job()),
        httpx.Response(200, json=job("succeeded")),
        httpx.Response(200, json={"job_id": "job_1", "status": "succeeded", "output": 4.2}),
    )

    assert await done(connect(handler).run_tool("pkg/tool", {"amount": 10})) == 4.2
    assert seen[0].url.raw_path == b"/v1/tools/pkg%2Ftool/run"
    assert "idempotency-key" in seen[0].headers


async def test_hostile_ids_stay_one_part_of_the_path(connect: Any) -> None:
    handler, seen = script(problem(NotFound("x")))

    with pytest.raises(NotFound):
        await done(connect(handler).job("../tools?x=1#y").view())

    assert seen[0].url.raw_path == b"/v1/jobs/..%2Ftools%3Fx%3D1%23y"


async def test_leaving_the_events_early_gives_the_connection_back(connect: Any) -> None:
    body = Stream(event(1) + event(2))
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    events = connect(script(response)[0]).job("job_1").events()

    if isinstance(events, AsyncIterable):
        await anext(events)
        await events.aclose()
    else:
        next(events)
        events.close()

    assert body.closed


@pytest.mark.parametrize("spelling", [lambda p: p, str], ids=["Path", "str"])
def test_a_plan_file(tmp_path: Path, spelling: Callable[[Path], Any]) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    handler, seen = script(httpx.Response(201, json=job()))

    Client(URL, http=httpx.MockTransport(handler)).submit(spelling(file))

    assert json.loads(seen[0].content)["plan"] == PLAN


def test_a_plan_object_and_a_name() -> None:
    handler, seen = script(httpx.Response(201, json=job()), httpx.Response(201, json=job()))
    client = Client(URL, http=httpx.MockTransport(handler))

    client.submit(Plan.model_validate(PLAN))
    client.submit("receipts")

    assert [json.loads(r.content)["plan"] for r in seen] == [PLAN, "receipts"]


def test_plan_files_that_are_none(tmp_path: Path) -> None:
    client = Client(URL, http=httpx.MockTransport(script()[0]))
    (tmp_path / "broken.json").write_text('{"steps": [}')
    (tmp_path / "list.json").write_text("[]")

    with pytest.raises(NotFound, match=r"missing\.json"):
        client.submit(tmp_path / "missing.json")
    with pytest.raises(PlanError) as raised:
        client.submit(tmp_path / "broken.json")
    assert "line 1, column 12" in raised.value.problems[0]["message"]
    with pytest.raises(PlanError, match="holds no plan"):
        client.submit(tmp_path / "list.json")
    with pytest.raises(RequestError, match="cannot be a int"):
        client.submit(3)  # type: ignore[arg-type]


def test_no_platform_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="toolweaver up"):
        Client(settings=Settings(home=tmp_path, url=None))


def test_the_address_comes_from_the_settings(tmp_path: Path) -> None:
    assert Client(settings=Settings(home=tmp_path, url="http://127.0.0.1:9/")).url == "http://127.0.0.1:9"


@pytest.mark.parametrize("url", ["127.0.0.1:8400", "ftp://host", "http://"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(RequestError, match="no address"):
        Client(url)


def test_the_client_loads_no_celery_and_no_redis() -> None:
    code = "import sys, orchestrator.client; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"celery", "kombu", "redis", "fastapi"} & set(loaded)


def test_both_clients_offer_the_same() -> None:
    def names(cls: type) -> Iterable[str]:
        return {n for n in vars(cls) if not n.startswith("_")}

    for blocking, awaited in ((Client, AsyncClient), (Access, AsyncAccess)):
        assert names(blocking) == names(awaited)
        for name in names(blocking) - {"url", "access"}:
            assert list(inspect.signature(getattr(blocking, name)).parameters) == list(
                inspect.signature(getattr(awaited, name)).parameters
            )
