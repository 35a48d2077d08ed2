"""One exchange with a vendor's server: to one address, bounded in time and bytes, and its failures told without a quote."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from orchestrator.errors import ModelError

CONNECT_S = 5.0
MAX_BYTES = 16 << 20  # of an answer; a stream spends some 150 bytes on a token
_RETRIED = (408, 409, 429)  # and 5xx
_WORD = re.compile(r"[A-Za-z_]{1,40}")  # a vendor's word such as `invalid_api_key`; nothing that could be a secret
_SENT = frozenset(
    {"accept", "authorization", "connection", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding"}
    | {"user-agent", "x-goog-api-client", "x-goog-api-key", "x-server-timeout", "anthropic-version"}
)

T = TypeVar("T")


class TooLong(Exception):
    """The answer is longer than `MAX_BYTES`, or in a coding that hides how long it is."""


class PerLoop(Generic[T]):
    """One client for each event loop, since connections belong to the loop that opened them."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T] = weakref.WeakKeyDictionary()

    def get(self) -> T:
        """The client of the running loop; those of loops that were closed without it go, with their sockets."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for over in [other for other in self._made if other.is_closed()]:
                del self._made[over]  # its connections know the loop, so that it would never go by itself
            if loop not in self._made:
                self._made[loop] = self._make()
            return self._made[loop]

    def pop(self) -> T | None:
        """The same, if there is one, and forgets it."""
        with self._lock:
            return self._made.pop(asyncio.get_running_loop(), None)


class Discreet(logging.Filter):
    """Keeps out of the logs what the libraries below would write there.

    Anthropic's SDK writes whole requests at DEBUG, and HTTP clients write addresses at INFO with their query, where keys may stand.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if "Request options" in str(record.msg):
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(a.copy_with(query=None, userinfo=b"") if isinstance(a, httpx2.URL) else a for a in record.args)
        return True


for _name in ("httpx2", "anthropic._base_client"):
    logging.getLogger(_name).addFilter(Discreet())


def http_client(*, headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """A client for a vendor's SDK: no redirects (prompts go nowhere else), bounded answers, and no headers but the SDK's own.

    `headers` are set on every request whatever the SDK found in the environment; other unknown ones are taken off.
    """

    async def trim(request: httpx2.Request) -> None:
        for name in [n for n in request.headers if n not in _SENT and not n.startswith("x-stainless-")]:
            del request.headers[name]
        request.headers.update({**headers, "accept-encoding": "identity"})
        timeout = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {**timeout, "connect": min(timeout.get("connect") or CONNECT_S, CONNECT_S)}

    return httpx2.AsyncClient(follow_redirects=False, event_hooks={"request": [trim], "response": [_bound]})


async def _bound(response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise TooLong
    response.stream = _Bounded(response.stream)  # type: ignore[arg-type]


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner, self._left = inner, MAX_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLong
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(frozen=True)
class Failures:
    """What can go wrong with one model, as errors that name it and quote neither keys nor prompts nor answers."""

    name: str  # of the model and its address
    key: str = field(default="", repr=False)

    def status(
        self,
        status: int,
        word: object = None,
        *,
        retry_after_s: float | None = None,
        retryable: bool | None = None,
    ) -> ModelError:
        """The server refused; `word` is the vendor's own for why. `retryable` None: as the status says."""
        said = f", {word}" if isinstance(word, str) and _WORD.fullmatch(word) and word not in self.key else ""
        code, what, move = _MEANINGS.get(status, ("model_failed", "failed", None))
        return ModelError(
            f"{self.name} {what} (HTTP {status}{said})",
            code=code,
            status=status,
            next=move,
            retryable=(status in _RETRIED or status >= 500) if retryable is None else retryable,
            retry_after_s=retry_after_s,
        )

    def too_slow(self, seconds: float) -> ModelError:
        """Nothing whole came in time."""
        return ModelError(f"{self.name} did not answer within {seconds:g} s", code="model_timeout", retryable=True)

    def connection(self, why: BaseException | None) -> ModelError:
        """The connection did not come about, broke, or brought too much."""
        if isinstance(why, TooLong):
            return self.bad(f"more than {MAX_BYTES >> 20} MiB")
        if isinstance(why, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.UnsupportedProtocol):
            return ModelError(
                f"{self.name} cannot be reached",
                code="model_unreachable",
                retryable=True,
                sent=False,
                next="Is it running, and is the address right?",
            )
        return self.cut_off()

    def cut_off(self) -> ModelError:
        """The connection ended in the middle."""
        return ModelError(f"{self.name} ended the connection before its answer was whole", code="model_unreachable", retryable=True)

    def bad(self, what: str) -> ModelError:
        """The answer is no answer."""
        return ModelError(f"{self.name} answered with {what}", code="model_bad_answer")


_MEANINGS: dict[int, tuple[str, str, str | None]] = {
    400: ("model_bad_request", "does not take the request", None),
    413: ("model_bad_request", "takes no request as long", "Offer fewer tools, or shorten the inputs."),
    422: ("model_bad_request", "does not take the request", None),
    401: ("model_denied", "refused the key", "Set the right key."),
    402: ("model_denied", "is not paid for", "See to the account's credit."),
    403: ("model_denied", "refused the key", "Set a key that may use this model."),
    404: ("model_not_found", "is not there", "Check the address and the model's name."),
    429: ("model_limited", "takes no more requests now", None),
}


def hint(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to be left alone; None when it does not say."""
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", value := headers.get(name, "")):
            return float(value) / per_second
    try:
        return max(parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def sendable(key: SecretStr | None) -> str:
    """The key without the line break that files of secrets end with; "" for none.

    Raises:
        ModelError: `model_not_set`: no key has such characters.
    """
    text = key.get_secret_value().strip() if key else ""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ModelError("the model's key holds characters that no key has", code="model_not_set", next="Set the right key.")
    return text


def shown(url: str) -> str:
    """The address without a user's name and password, and without a query, which may hold a key.

    Raises:
        ModelError: `model_not_set`: it is no http(s) URL.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        fits = False
    if not fits:
        raise ModelError("the model's address is no http(s) URL", code="model_not_set", next="Write it such as https://host:8000.")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"
