"""Who may come in: which mode the API is in, which key a request carries, which scope it needs.

Every address needs a key unless it stands in `OPEN`, so that a new route is closed until somebody opens it.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers

from orchestrator.api.hosts import is_loopback
from orchestrator.errors import MissingScope, PolicyError, RequestError, Unauthorized
from orchestrator.models.access import Caller, Scope
from orchestrator.policy.keys import KeyRing
from orchestrator.settings import Settings

OPEN = ("/", "/health", "/docs", "/docs/oauth2-redirect", "/openapi.json")
OPEN_BELOW = "/static-offline-docs/"
ROOMS: Mapping[str, Scope] = {
    "keys": "admin", "permissions": "admin", "audit": "admin", "tenants": "admin", "blobs": "worker",
    "metrics": "admin",
}  # fmt: skip
"""The rooms beneath `/v1/` whose scope does not follow from the method."""

METRICS_PATH = "/metrics"
"""Figures of all tenants together, for the operator's Prometheus."""

HARMLESS_POSTS = ("/v1/plans/check", "/v1/tools/search")
SAFE = ("GET", "HEAD", "OPTIONS")
HOW_TO_MAKE = "Make the first one on the machine that reaches the store: `toolweaver keys create --admin --local`."
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def shared(settings: Settings) -> bool:
    """Whether others than this machine's users are meant to reach the API."""
    beyond = not is_loopback(settings.api_host) and not settings.api_in_container
    return beyond or bool(settings.api_hosts or settings.api_proxies)


def always_keyed(settings: Settings) -> bool:
    """Whether requests need a key, whatever the store says."""
    return settings.auth == "required" or (settings.auth == "auto" and shared(settings))


def check_mode(settings: Settings) -> None:
    """Refuses settings that would let everybody in.

    Raises:
        RequestError: keys are off, and others than this machine's users could come.
    """
    if settings.auth == "off" and shared(settings):
        raise RequestError(
            f"Without keys the API listens on loopback only, not on `{settings.api_host}`, for other hosts, or behind a proxy.",
            path="TOOLWEAVER_AUTH",
            next="Set TOOLWEAVER_AUTH=required, or use 127.0.0.1 and an SSH tunnel; in a container whose port is published on "
            "127.0.0.1 only, set TOOLWEAVER_API_IN_CONTAINER=true.",
        )


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None when it needs no key."""
    if method in SAFE and (path in OPEN or path.startswith(OPEN_BELOW)):
        return None
    if path == METRICS_PATH:
        return "admin"
    room = path.removeprefix("/v1/").partition("/")[0] if path.startswith("/v1/") else ""
    if room in ROOMS:
        return ROOMS[room]
    return "read" if method in SAFE or path in HARMLESS_POSTS else "write"


class Door:
    """Lets callers in, by the settings and the keys."""

    def __init__(self, settings: Settings, ring: KeyRing) -> None:
        self._settings = settings
        self._always = always_keyed(settings)
        self._ring = ring

    def open_known(self) -> bool:
        """Whether no key is needed, as far as that is known without asking the store."""
        return not self._always and (self._settings.auth == "off" or self._ring.any_known() is False)

    def keyed(self) -> bool:
        """Whether requests need a key now."""
        return self._always or (self._settings.auth == "auto" and self._ring.any())

    def local(self, headers: Headers, *, address: str) -> Caller:
        """The caller where no key is needed: whoever works on this machine.

        Raises:
            PolicyError: the request came through a proxy, so that it may come from anywhere.
        """
        through = next((name for name in _PROXY_HEADERS if name in headers), None)
        if through is not None:
            raise PolicyError(
                "This API asks for no key and serves this machine only; the request came through a proxy.",
                path=through,
                next="Name the proxy in TOOLWEAVER_API_PROXIES, which makes keys required.",
            )
        return Caller(address=address)

    def admit(self, headers: Headers, *, address: str) -> Caller:
        """Whoever the key of a request belongs to, or the local caller where none is needed.

        Raises:
            Unauthorized: there is no valid key.
        """
        if not self.keyed():
            return self.local(headers, address=address)
        text = key_in(headers)
        if text is None:
            raise Unauthorized(
                "This address needs a key.",
                next="Send `Authorization: Bearer <key>`; clients and commands take TOOLWEAVER_API_KEY.",
            )
        caller = self._ring.caller(text, address=address)
        if caller is None:
            raise Unauthorized(
                "The key is not valid: unknown, revoked or ended.", next="Ask an admin for one: `toolweaver keys create`."
            )
        return caller


def check_scope(caller: Caller, scope: Scope) -> None:
    """Lets a caller pass whose key has the scope.

    Raises:
        MissingScope: it has not.
    """
    if scope not in caller.scopes:
        raise MissingScope(
            f"The key `{caller.name}` ({caller.key}) has not the scope `{scope}`.",
            next=f"Use a key that has it; an admin makes one: `toolweaver keys create --scope {scope}`.",
        )


def key_in(headers: Headers) -> str | None:
    """The text of the key that a request carries.

    Raises:
        Unauthorized: its `Authorization` is of another kind.
    """
    given = headers.get("authorization")
    if given is None:
        return headers.get("x-api-key")
    scheme, _, text = given.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("`Authorization` is no bearer key.", next="Send `Authorization: Bearer <key>`.")
    return text.strip()
