"""The two ways to wait: a blocking and an asyncio transport. Each sends calls and streams events; neither decides anything."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx
from httpx_sse import EventSource
from pydantic import SecretStr

from orchestrator.client.answers import Attempts
from orchestrator.client.calls import Call, events_path
from orchestrator.client.files import PIECE, Arriving
from orchestrator.client.follow import Follow
from orchestrator.errors import BackendError, RequestError
from orchestrator.models.event import Event
from orchestrator.models.platform import running_platform
from orchestrator.settings import Settings, load_settings

T = TypeVar("T")
_KEY = re.compile(r"[\x21-\x7e]{8,256}")  # what fits a header; whether it is a key, the server knows


def find_address(url: str | None, settings: Settings | None = None) -> str:
    """Where the API is: the argument, else TOOLWEAVER_URL, else the platform that runs in the home folder.

    Raises:
        BackendError: nothing says where.
        RequestError: it is no http(s) address.
    """
    if url is None:
        settings = settings or load_settings()
        platform = running_platform(settings.home) if settings.url is None else None
        url = settings.url or (platform.api if platform else None)
        if url is None:
            raise BackendError(
                f"no platform runs in `{settings.home}`", next="Start one with `toolweaver up`, or set TOOLWEAVER_URL."
            )
    if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
        raise RequestError(f"`{url}` is no address of an API", path="url", next="Write it as `http://127.0.0.1:8400`.")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is, and how one gets in there; the key is sent to this address and to no other."""

    address: str
    key: SecretStr | None = None
    ca: Path | None = None

    def options(self, timeout: float) -> dict[str, Any]:
        """The keyword arguments of an httpx client. It follows no redirect, so the key goes nowhere else."""
        return {
            "base_url": self.address,
            "timeout": timeout,
            # A proxy of the environment cannot reach this machine's loopback.
            "trust_env": not _is_loopback(httpx.URL(self.address).host),
            "headers": {"Authorization": f"Bearer {self.key.get_secret_value()}"} if self.key is not None else {},
            "follow_redirects": False,
            **({"verify": _trusting(self.ca)} if self.ca is not None else {}),
        }


def find_endpoint(url: str | None, settings: Settings | None, api_key: str | SecretStr | None) -> Endpoint:
    """The API and the key for it: the arguments, else TOOLWEAVER_URL and TOOLWEAVER_API_KEY.

    Raises:
        BackendError: nothing says where the API is.
        RequestError: the address is none, or the key cannot be one.
    """
    settings = settings or load_settings()
    key = SecretStr(api_key) if isinstance(api_key, str) else api_key or settings.api_key
    if key is not None and not _KEY.fullmatch(key.get_secret_value()):
        raise RequestError("what was given as key is none", path="api_key", next="A key begins with `tw_`; copy all of it.")
    return Endpoint(find_address(url, settings), key, settings.api_ca)


def _trusting(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise RequestError(f"`{ca}` holds no certificates: {error}", path="api_ca", next="Give a PEM file.") from None
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Transport:
    """Blocking; safe to share between threads."""

    def __init__(self, endpoint: Endpoint, *, timeout: float, http: httpx.BaseTransport | None = None) -> None:
        self.address = endpoint.address
        self._timeout = timeout
        self._http = httpx.Client(**endpoint.options(timeout), transport=http)

    def send(self, call: Call[T]) -> T:
        """The answer to a call, tried again after a cut when that does no harm.

        Raises:
            ToolWeaverError: what the server raised; BackendError when it cannot be reached.
        """
        attempts = Attempts(self.address, repeatable=call.repeatable)
        while True:
            content = call.source.pieces() if call.source is not None else None
            try:
                response = self._http.send(self._http.build_request(**call.arguments(), content=content))
            except httpx.TransportError as error:
                time.sleep(attempts.after_cut(error))
                continue
            pause = attempts.after_answer(response, call.accepts)
            if pause is None:
                return call.read(response)
            time.sleep(pause)

    def fetch(self, ref: str, to: str | os.PathLike[str] | BinaryIO) -> Path | None:
        """A file, across lost connections; where it is, unless it went into an open file.

        Raises:
            ToolWeaverError: what the server raised; BackendError when it sends other bytes.
        """
        with closing(Arriving(ref, to, address=self.address)) as file:
            while True:
                try:
                    with self._http.stream("GET", file.path, headers=file.headers) as response:
                        if not response.is_success:
                            response.read()
                        pause = file.opened(response)
                        if pause is None:
                            for piece in response.iter_raw(PIECE):
                                file.write(piece)
                            return file.finish()
                except httpx.TransportError as error:
                    pause = file.cut(error)
                time.sleep(pause)

    def follow(self, job_id: str, *, after: str | None = None, timeout: float | None = None) -> Iterator[Event]:
        """The events of a job up to its last one, each once, across lost connections."""
        place = Follow(job_id, self.address, after=after, timeout=timeout)
        while not place.done:
            try:
                with self._open(place) as response:
                    if not response.is_success:
                        response.read()
                    if place.opened(response):
                        for message in EventSource(response).iter_sse():
                            event = place.read(message)
                            if event is not None:
                                yield event
            except (httpx.TransportError, BackendError) as error:
                time.sleep(place.cut(error))
                continue
            if not place.done:
                time.sleep(place.closed())

    def _open(self, place: Follow) -> AbstractContextManager[httpx.Response]:
        timeout = place.timeout(self._timeout)
        return self._http.stream("GET", events_path(place.job_id), headers=place.headers, params=place.params, timeout=timeout)

    def close(self) -> None:
        self._http.close()


class AsyncTransport:
    """The same on an event loop."""

    def __init__(self, endpoint: Endpoint, *, timeout: float, http: httpx.AsyncBaseTransport | None = None) -> None:
        self.address = endpoint.address
        self._timeout = timeout
        self._http = httpx.AsyncClient(**endpoint.options(timeout), transport=http)

    async def send(self, call: Call[T]) -> T:
        """See `Transport.send`."""
        attempts = Attempts(self.address, repeatable=call.repeatable)
        while True:
            content = call.source.async_pieces() if call.source is not None else None
            try:
                response = await self._http.send(self._http.build_request(**call.arguments(), content=content))
            except httpx.TransportError as error:
                await asyncio.sleep(attempts.after_cut(error))
                continue
            pause = attempts.after_answer(response, call.accepts)
            if pause is None:
                return call.read(response)
            await asyncio.sleep(pause)

    async def fetch(self, ref: str, to: str | os.PathLike[str] | BinaryIO) -> Path | None:
        """See `Transport.fetch`."""
        with closing(Arriving(ref, to, address=self.address)) as file:
            while True:
                try:
                    async with self._http.stream("GET", file.path, headers=file.headers) as response:
                        if not response.is_success:
                            await response.aread()
                        pause = file.opened(response)
                        if pause is None:
                            async for piece in response.aiter_raw(PIECE):
                                await asyncio.to_thread(file.write, piece)
                            return file.finish()
                except httpx.TransportError as error:
                    pause = file.cut(error)
                await asyncio.sleep(pause)

    async def follow(self, job_id: str, *, after: str | None = None, timeout: float | None = None) -> AsyncGenerator[Event, None]:
        """See `Transport.follow`."""
        place = Follow(job_id, self.address, after=after, timeout=timeout)
        while not place.done:
            try:
                async with self._open(place) as response:
                    if not response.is_success:
                        await response.aread()
                    if place.opened(response):
                        async for message in EventSource(response).aiter_sse():
                            event = place.read(message)
                            if event is not None:
                                yield event
            except (httpx.TransportError, BackendError) as error:
                await asyncio.sleep(place.cut(error))
                continue
            if not place.done:
                await asyncio.sleep(place.closed())

    def _open(self, place: Follow) -> AbstractAsyncContextManager[httpx.Response]:
        timeout = place.timeout(self._timeout)
        return self._http.stream("GET", events_path(place.job_id), headers=place.headers, params=place.params, timeout=timeout)

    async def close(self) -> None:
        await self._http.aclose()
