"""What redis-py does over Unix sockets when they break."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import redis

import orchestrator.state.connection  # noqa: F401  # what is tested


def test_a_server_that_goes_away_is_a_connection_error_over_a_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "gone.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        connection = redis.UnixDomainSocketConnection(str(path), protocol=2, lib_name=None, lib_version=None)
        connection._sock = socket.socket(socket.AF_UNIX)
        connection._sock.connect(str(path))
    gone = redis.ConnectionError("gone")
    connection.disconnect(error=gone, failure_count=100, health_check_failed=True)
    with pytest.raises(redis.ConnectionError):
        connection.connect()
