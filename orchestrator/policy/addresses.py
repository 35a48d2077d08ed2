"""Which network addresses may be reached on behalf of others: those of the public internet."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from orchestrator.errors import ToolError


def public_address(host: str, port: int, *, trusted: Collection[str] = ()) -> str:
    """The address to connect to for a host: resolved once, and public unless `trusted` names the host. Blocks.

    Raises:
        ToolError: `forbidden`.
        OSError: the name cannot be resolved.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if host.lower() not in {h.lower() for h in trusted} and (private := [a for a in found if not is_public(a)]):
        raise ToolError(f"`{host}` is at {private[0]}, which is no public address", code="forbidden")
    return found[0].partition("%")[0]


def is_public(address: str) -> bool:
    """Whether an address is on the public internet, and does not wrap one that is not."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast
