"""The example of a tool that waits for a service, against a service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from examples.async_tool import client, http_status
from orchestrator.errors import ToolError
from workers.testing import call_tool


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204 if self.path == "/good" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing into the test's output."""


@pytest.fixture
def service() -> Iterator[str]:
    client.cache_clear()  # each `call_tool` has a loop of its own
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("path", "status"), [("/good", 204), ("/bad", 404)])
def test_it_tells_the_status(service: str, path: str, status: int) -> None:
    assert call_tool(http_status, url=service + path) == status


def test_a_service_that_is_away_is_worth_another_try(service: str) -> None:
    with pytest.raises(ToolError, match="does not answer") as caught:
        call_tool(http_status, url="http://127.0.0.1:9/")
    assert caught.value.retryable
