"""How every process reaches Redis: with time limits, keep-alive and patience for a restart."""

from __future__ import annotations

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

from orchestrator.settings import Settings

RETRIES = 4
_TRANSIENT: list[type[Exception]] = [ConnectionError, TimeoutError, BusyLoadingError]


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=1.0)


def connect(settings: Settings, *, retries: int = RETRIES, timeout_s: float = 10.0) -> redis.Redis:
    """A synchronous client that answers bytes; a cut connection is retried `retries` times, so scripts must bear a resend."""
    return redis.Redis.from_url(
        settings.store_url,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(timeout_s, 5.0),
        health_check_interval=30,
        retry=Retry(_backoff(), retries),
        retry_on_error=_TRANSIENT,
    )


def connect_async(settings: Settings) -> redis.asyncio.Redis:
    """An asynchronous client that answers bytes; its reads have no time limit, since it blocks on streams."""
    return redis.asyncio.Redis.from_url(
        settings.store_url,
        socket_timeout=None,
        socket_connect_timeout=5.0,
        retry=AsyncRetry(_backoff(), RETRIES),
        retry_on_error=_TRANSIENT,
    )
