"""The API for tests: a real server in a thread of this process, on a port of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from orchestrator.api.__main__ import listen
from orchestrator.api.app import create_app
from orchestrator.settings import Settings
from tests.support import wait_until


@contextmanager
def running_api(settings: Settings) -> Iterator[str]:
    """The address of an API that serves until the block ends."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(create_app(settings), log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, description="the API serves")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
