"""HTTP with one API: to the addresses that it may have, with its headers to nobody else, and no more bytes than are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from orchestrator.errors import ToolError
from orchestrator.policy.addresses import public_address

MAX_REDIRECTS = 5
CONNECT_S = 10.0
_CONNECTIONS = 200
_READS = frozenset({"GET", "HEAD", "OPTIONS"})

Body = Callable[[], Mapping[str, Any]]
"""Makes what `httpx` takes as a body (`content`, `files`, ...), anew for each request."""


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port: who is asked."""
    return url.scheme, url.host.lower(), url.port or (443 if url.scheme == "https" else 80)


class Site:
    """A client of one API. `headers`, asked for each request, go to the origin of `url` alone.

    `private` lets that origin have a private address; `trusted` are other hosts that may.
    """

    def __init__(self, url: str, headers: Callable[[], Mapping[str, str]], *, private: bool, trusted: Collection[str] = ()) -> None:
        self._origin = origin_of(httpx.URL(url))
        self._headers, self._private, self._trusted = headers, private, trusted
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S), trust_env=False, follow_redirects=False,
            limits=httpx.Limits(max_connections=_CONNECTIONS),
        )  # fmt: skip

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def answer(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The answer, its body unread; redirects are followed where that is no second effect.

        Raises:
            ToolError: `forbidden`: a private address; `redirected`: to where this may not follow.
            httpx.TransportError: the API cannot be reached, or broke off.
        """
        at, own = httpx.URL(url), dict(headers or {})
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._client.send(await self._request(method, at, own, body), stream=True)
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                onto = at.join(response.headers["location"])
            finally:
                await response.aclose()
            method, body = _followed(method, body, response.status_code, same=origin_of(onto) == origin_of(at))
            own = own if origin_of(onto) == origin_of(at) else {}
            at = onto
        raise ToolError(f"`{at.host}` redirects more than {MAX_REDIRECTS} times", code="redirected")

    async def _request(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: Body | None) -> httpx.Request:
        """A request to the checked address itself; name and certificate stay those of the host."""
        if url.scheme not in ("http", "https") or not url.host:
            raise ToolError("the address is no http(s) address with a host", code="redirected")
        ours = origin_of(url) == self._origin
        sent = {"User-Agent": "toolweaver", **(self._headers() if ours else {}), **headers, "Host": url.netloc.decode("ascii")}
        more: dict[str, Any] = dict(body()) if body is not None else {}
        if ours and self._private:
            return self._client.build_request(method, url, headers=sent, **more)
        address = await asyncio.to_thread(self._checked, url)
        return self._client.build_request(
            method, url.copy_with(host=address), headers=sent, extensions={"sni_hostname": url.host}, **more
        )

    def _checked(self, url: httpx.URL) -> str:
        try:
            return public_address(url.host, origin_of(url)[2], trusted=self._trusted)
        except OSError as error:
            raise httpx.ConnectError(f"the name `{url.host}` cannot be resolved: {error.strerror or error}") from None
        except ToolError as error:
            move = "Set `private` in its entry of the servers file if it may be called."
            raise ToolError(error.message, code=error.code, next=move) from None


async def read_within(response: httpx.Response, most: int) -> bytes | None:
    """The body, unpacked; None when it is longer than `most` bytes."""
    if int(response.headers.get("content-length") or 0) > most:
        return None
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > most:
            return None
    return bytes(data)


def _followed(method: str, body: Body | None, status: int, *, same: bool) -> tuple[str, Body | None]:
    """How to go on after a redirect.

    Raises:
        ToolError: that would send a body elsewhere, or it is not said what to send.
    """
    if method in _READS:
        return method, None
    if status == httpx.codes.SEE_OTHER:
        return "GET", None
    if same and status in (httpx.codes.TEMPORARY_REDIRECT, httpx.codes.PERMANENT_REDIRECT):
        return method, body
    raise ToolError(
        f"the API redirects a {method} {'in a way that does not say how to go on' if same else 'to another origin'}",
        code="redirected", next="Name the final address as `base_url`.",
    )  # fmt: skip
