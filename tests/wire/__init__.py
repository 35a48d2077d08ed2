"""Local servers that speak the wire formats of the vendors of large models, by a script: for the tests of everybody."""

from tests.wire.base import KEY, MODEL, Turn, WireServer, wire_server

__all__ = ["KEY", "MODEL", "Turn", "WireServer", "wire_server"]
