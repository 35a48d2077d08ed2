"""Which hosts a request may name, and which pages may stand behind it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from orchestrator.errors import PolicyError, RequestError, ToolWeaverError
from orchestrator.settings import Settings


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether an address to listen on means all of this machine's."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class Hosts:
    """The names by which this API is reached: loopback, `api_hosts`, and the address that it listens on."""

    def __init__(self, settings: Settings) -> None:
        own = () if is_wildcard(settings.api_host) else (settings.api_host,)
        self._named = {h.lower().rstrip(".") for h in (*settings.api_hosts, *own)}
        # All addresses of the machine and no name of it: only there a key is the one guard, and a rebinding page has none.
        self._any = is_wildcard(settings.api_host) and not settings.api_hosts and not settings.api_in_container

    def refusal(self, headers: Headers) -> ToolWeaverError | None:
        """A page of a foreign site must not reach us: neither by a name that it rebinds, nor by a form."""
        host = _host_of(f"//{headers.get('host', '')}")
        if not self._serves(host):
            move = "Use `127.0.0.1` or `localhost`" + (", or a name of TOOLWEAVER_API_HOSTS." if self._named else ".")
            return RequestError(f"The host `{host}` is not served here.", path="Host", next=move)
        origin = headers.get("origin")
        page = _host_of(origin) if origin is not None else host
        if not (is_loopback(page) or page in self._named or (self._any and page == host)):
            return PolicyError(
                f"Pages of `{origin}` may not use this API.", path="Origin", next="Call it from a program or from its own pages."
            )
        return None

    def _serves(self, host: str) -> bool:
        return is_loopback(host) or host in self._named or (self._any and bool(host))


def _host_of(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""
