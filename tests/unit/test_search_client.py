"""The client of the index service: whose turn it is, which answers another replica is asked after, and when it gives up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.errors import RequestError, Unauthorized, to_problem
from orchestrator.models.search import SearchRequest
from orchestrator.tool_search.client import AsyncIndexClient, IndexClient, IndexUnavailable
from orchestrator.tool_search.select import select_tools
from tests.services import free_port

REQUEST = SearchRequest(queries=("weather",))


class Replica:
    """An HTTP server that answers as it is told, and counts what it was asked."""

    def __init__(self, answer: Callable[[], tuple[int, object]]) -> None:
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append(dict(self.headers))
                status, body = answer()
                sent = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answers(name: str) -> Callable[[], tuple[int, object]]:
    return lambda: (200, {"hits": [{"name": name, "score": 0.5}], "replica": name})


@pytest.fixture
def replicas() -> Iterator[Callable[[Callable[[], tuple[int, object]]], Replica]]:
    made: list[Replica] = []

    def make(answer: Callable[[], tuple[int, object]]) -> Replica:
        made.append(Replica(answer))
        return made[-1]

    yield make
    for replica in made:
        replica.stop()


Make = Callable[[Callable[[], tuple[int, object]]], Replica]


def test_replicas_are_asked_in_turn(replicas: Make) -> None:
    one, two = replicas(answers("one")), replicas(answers("two"))
    with IndexClient([one.url, two.url]) as client:
        said = [client.search(REQUEST).replica for _ in range(4)]
    assert sorted(said) == ["one", "one", "two", "two"]
    assert said[0] != said[1]


def test_a_dead_replica_is_passed_over_and_then_asked_last(replicas: Make) -> None:
    alive = replicas(answers("alive"))
    with IndexClient([f"http://127.0.0.1:{free_port()}", alive.url]) as client:
        assert [client.search(REQUEST).replica for _ in range(6)] == ["alive"] * 6


@pytest.mark.parametrize("status", [425, 503, 500])
def test_another_one_is_asked_when_one_is_behind_or_busy(replicas: Make, status: int) -> None:
    unable, able = replicas(lambda: (status, {"detail": "not now"})), replicas(answers("able"))
    with IndexClient([unable.url, able.url]) as client:
        assert {client.search(REQUEST).replica for _ in range(4)} == {"able"}
    assert unable.asked, "it was asked, and passed over"


def test_the_only_one_is_asked_again_until_it_can(replicas: Make) -> None:
    told = iter([503, 503])
    busy = replicas(lambda: (next(told, 200), {"replica": "back"}))
    with IndexClient([busy.url]) as client:
        assert client.search(REQUEST).replica == "back"
    assert len(busy.asked) == 3


def test_a_refusal_is_the_error_that_the_service_raised_and_is_not_repeated(replicas: Make) -> None:
    refuses = replicas(lambda: (422, to_problem(RequestError("k is too large", path="k", next="Ask for fewer."))))
    with IndexClient([refuses.url]) as client, pytest.raises(RequestError, match="k is too large") as caught:
        client.search(REQUEST)
    assert caught.value.next == "Ask for fewer."
    assert len(refuses.asked) == 1


def test_it_gives_up_in_time_and_says_who_did_what(replicas: Make) -> None:
    busy, dead = replicas(lambda: (503, {"detail": "starting"})), f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with IndexClient([busy.url, dead], timeout=0.5) as client, pytest.raises(IndexUnavailable) as caught:
        client.search(REQUEST)
    assert time.monotonic() - began < 2.0
    assert "503 starting" in str(caught.value)
    assert dead in str(caught.value)
    assert "toolweaver up" in str(caught.value)


def test_a_replica_that_never_answers_does_not_hold_it_up(replicas: Make) -> None:
    stuck = threading.Event()
    silent = replicas(lambda: (200, {"late": stuck.wait(20)}))
    try:
        with IndexClient([silent.url], timeout=0.4) as client, pytest.raises(IndexUnavailable):
            client.search(REQUEST)
    finally:
        stuck.set()


def test_no_replica_at_all_is_told_at_once() -> None:
    with IndexClient([]) as client, pytest.raises(IndexUnavailable, match="No replica"):
        client.search(REQUEST)


def test_the_key_is_sent_and_never_shown(replicas: Make) -> None:
    locked = replicas(lambda: (401, to_problem(Unauthorized())))
    with IndexClient([locked.url], key=SecretStr("swordfish")) as client, pytest.raises(Unauthorized) as caught:
        client.search(REQUEST)
    assert locked.asked[0]["Authorization"] == "Bearer swordfish"
    assert "swordfish" not in repr(client) + str(caught.value)


def test_awaited_it_does_the_same(replicas: Make) -> None:
    alive, dead = replicas(answers("alive")), f"http://127.0.0.1:{free_port()}"

    async def body() -> list[str]:
        async with AsyncIndexClient([dead, alive.url]) as client:
            return [a.replica for a in await asyncio.gather(*(client.search(REQUEST) for _ in range(10)))]

    assert asyncio.run(body()) == ["alive"] * 10


def test_something_else_at_the_port_is_no_replica(replicas: Make) -> None:
    other, right = replicas(lambda: (200, {"hits": "none"})), replicas(answers("right"))
    with IndexClient([other.url, right.url]) as client:
        assert [client.search(REQUEST).replica for _ in range(4)] == ["right"] * 4
    assert other.asked


def test_who_waits_for_the_encoder_is_waited_for(replicas: Make) -> None:
    def slow() -> tuple[int, object]:
        time.sleep(0.5)
        return answers("slow")()

    one = replicas(slow)
    with IndexClient([one.url], timeout=0.2) as client:
        with pytest.raises(IndexUnavailable):
            client.search(REQUEST)
        assert client.search(SearchRequest(queries=("weather",), deadline_ms=3_000)).replica == "slow"


def test_a_planner_finds_tools_by_itself_where_the_service_refuses_it(replicas: Make) -> None:
    closed = replicas(lambda: (401, to_problem(Unauthorized("no"))))
    with IndexClient([closed.url]) as client:
        chosen = select_tools(["read a receipt"], bundled_catalog(), threshold=1, k=1, client=client)
    assert [t.name for t in chosen.tools] == ["receipt_ocr"]
    assert chosen.degraded
    assert len(closed.asked) == 1
