"""The API as it runs in a container: it listens on every address, and still serves loopback names only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

pytestmark = pytest.mark.integration


@pytest.fixture
def contained() -> Iterator[str]:
    """The address of an API that listens on every address, as in a container; there is no store behind it."""
    extra = {"API_HOST": "0.0.0.0", "API_IN_CONTAINER": "true", "API_PORT": "0", "REDIS_URL": "redis://127.0.0.1:1/0"}
    env = os.environ | {f"TOOLWEAVER_{name}": value for name, value in extra.items()}
    command = [sys.executable, "-m", "orchestrator.api"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "answers at" in line), "")
        try:
            yield f"http://127.0.0.1:{line.strip().rsplit(':', 1)[1]}"
        finally:
            process.kill()


def test_a_contained_api_still_refuses_foreign_hosts_and_pages(contained: str) -> None:
    with httpx.Client(base_url=contained, timeout=10) as http:
        assert http.get("/openapi.json").status_code == 200
        assert http.get("/openapi.json", headers={"host": "evil.example"}).status_code == 400
        assert http.get("/openapi.json", headers={"host": "192.168.1.5:8400"}).status_code == 400
        assert http.get("/openapi.json", headers={"origin": "https://evil.example"}).status_code == 403
