"""How every process reaches Redis: with time limits, keep-alive and patience for a restart; and which errors pass by themselves."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from orchestrator.settings import Settings

# redis-py 8.1 names the port of a connection when it counts errors; one over a Unix socket has none, and the AttributeError hid
# the error that was counted.
if not hasattr(redis.UnixDomainSocketConnection, "port"):
    redis.UnixDomainSocketConnection.port = None  # type: ignore[attr-defined]

RETRIES = 4
_RETRIED: list[type[Exception]] = [ConnectionError, TimeoutError, BusyLoadingError]
# The errors that pass, for an `except`; `transient` knows some more that have no class of their own.
STORE_AWAY = (ConnectionError, TimeoutError, OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
# AOF or snapshot not writable, a script runs too long, too few replicas.
_PASSING_CODES = ("MISCONF", "BUSY", "NOREPLICAS")


def transient(error: object) -> bool:
    """Whether an error of Redis passes without a change of ours: an outage, a restart, a full memory or disk.

    All others are defects or a lack of rights, and trying again does not help.
    """
    if isinstance(error, STORE_AWAY):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_PASSING_CODES)


def connect(settings: Settings, *, retries: int = RETRIES, timeout_s: float = 10.0) -> redis.Redis:
    """A synchronous client that answers bytes; a cut connection is retried `retries` times, so scripts must bear a resend."""
    return redis.Redis.from_url(
        settings.store_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(timeout_s, 5.0),
        health_check_interval=30,
        retry=Retry(_backoff(), retries),
        retry_on_error=_RETRIED,
        **_keepalive(settings),
    )


def connect_async(settings: Settings, *, timeout_s: float = 10.0) -> redis.asyncio.Redis:
    """An asynchronous client that answers bytes; it may block on a stream for less than `timeout_s`."""
    return redis.asyncio.Redis.from_url(
        settings.store_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=5.0,
        retry=AsyncRetry(_backoff(), RETRIES),
        retry_on_error=_RETRIED,
        **_keepalive(settings),
    )


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=1.0)


def _keepalive(settings: Settings) -> dict[str, Any]:
    return {} if settings.store_url.startswith("unix:") else {"socket_keepalive": True}
