"""One call of an operation: circuit breaker, request, answer. The step's own retry repeats what may be repeated."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import httpx

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.files import FileSource
from orchestrator.catalog.judge import Judge
from orchestrator.errors import EffectUnknown, RequestError, ToolError, ToolTimeout
from orchestrator.jobs.store import JobStore
from orchestrator.models.plan import Effect
from orchestrator.policy.breaker import Breakers, Permit
from orchestrator.tool_discovery.openapi import Operation
from orchestrator.tool_discovery.site import Site
from workers.http.answers import error_of, value_of, without
from workers.http.request import Attached, Outgoing, checked_references, file_references, outgoing
from workers.step import CallContext

log = logging.getLogger(__name__)

T = TypeVar("T")
THREADS = 8
COUNTS_FROM_S = 5.0  # a step that gives an API less time than this says nothing about the API
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_UNFIT = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, ValueError)


class Api(Protocol):
    """What a call needs of its API."""

    @property
    def name(self) -> str:
        """Its name in the servers file."""

    @property
    def site(self) -> Site:
        """Whom to ask."""

    @property
    def secrets(self) -> frozenset[str]:
        """What no message may hold."""


@dataclass
class Asked:
    """A call on its way. `told`: the circuits know how it ended; `done`: the API says that it did what it was asked to."""

    api: Api
    operation: Operation
    arguments: dict[str, Any]
    context: ToolContext
    began: float = field(default_factory=time.monotonic)
    told: bool = False
    done: bool = False

    @property
    def name(self) -> str:
        return self.operation.tool.name

    @property
    def effect(self) -> Effect:
        """What a repeat would do, as the step has it."""
        own = self.context.claim.spec.get("effect") if isinstance(self.context, CallContext) else None
        return own or self.operation.tool.effect

    @property
    def timeout_s(self) -> float:
        """The step's time or the tool's, whichever is less; a little less still, so that this speaks before the step does."""
        own = self.context.claim.spec.get("timeout_s") if isinstance(self.context, CallContext) else None
        limit: float = min(self.operation.tool.timeout_s, own or self.operation.tool.timeout_s)
        return max(limit - 0.2, 0.8 * limit)

    @property
    def circuits(self) -> tuple[str, str]:
        return f"openapi:{self.api.name}", f"openapi:{self.api.name}.{self.operation.tool.native_name}"


class Calls:
    """What runs behind every tool of the pool."""

    def __init__(self, store: JobStore) -> None:
        self._breakers = Breakers(store.redis, store.settings)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        self._after: set[asyncio.Future[Any]] = set()

    async def close(self) -> None:
        """Waits a little for what is still told to the circuits."""
        if self._after:
            await asyncio.wait(self._after, timeout=1.0)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, api: Api, operation: Operation, arguments: dict[str, Any], context: ToolContext) -> Any:
        """The value of one call.

        Raises:
            CircuitBreakerOpenError: the API, or this operation of it, failed too often.
            EffectUnknown: the request was sent, nobody knows what became of it, and it must not be repeated silently.
            ToolError: `http_error`: the API refused; `unreachable`, `timeout`, `redirected`, `forbidden`, `bad_input`, ...
        """
        asked = Asked(api, operation, arguments, context)
        request = outgoing(operation, arguments, await self._attached(asked))
        try:
            return await self._admitted(asked, request)
        finally:
            request.close()

    async def _admitted(self, asked: Asked, request: Outgoing) -> Any:
        admit = partial(self._breakers.admit, asked.circuits, lease_s=asked.timeout_s + COUNTS_FROM_S)
        permit = await self._step(admit)
        try:
            async with asyncio.timeout(asked.timeout_s):
                return await self._answered(asked, request, permit)
        except asyncio.CancelledError:
            self._stopped(asked, permit)
            raise
        except TimeoutError:
            self._stopped(asked, permit)
            raise _by_effect(asked, ToolTimeout(f"`{asked.name}` did not answer within {asked.timeout_s:.3g} s")) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._unreached(asked, permit, error) from None
        except RequestError as error:  # a secret that is not there
            self._end(asked, permit.neutral)
            raise ToolError(error.message, code="not_configured", next=error.next) from None
        except ToolError:
            self._end(asked, permit.neutral)
            raise

    async def _answered(self, asked: Asked, request: Outgoing, permit: Permit) -> Any:
        if request.method not in _READS:
            request.headers["Idempotency-Key"] = asked.context.idempotency_key
        sent = asked.api.site.answer(request.method, request.url, headers=request.headers, body=request.make_body)
        async with sent as response:
            asked.done = response.is_success
            self._tell(asked, permit, response.status_code)
            if not response.is_success:
                raise await error_of(response, name=asked.name, effect=asked.effect, secrets=asked.api.secrets)
            value = await value_of(response, asked.context, most=asked.context.settings.fetch_max_bytes)
        self._compare(asked, value)
        return value

    async def _attached(self, asked: Asked) -> dict[str, Attached]:
        """Copies of the files that go along."""
        wanted = checked_references(file_references(asked.operation, asked.arguments))
        files = asked.context.files
        return {ref: await self._step(partial(_attached, files, ref)) for ref in wanted}

    def _tell(self, asked: Asked, permit: Permit, status: int) -> None:
        """What an answer says about the API: that it is there, or that this operation, or all of it, is not well."""
        if status == httpx.codes.TOO_MANY_REQUESTS:
            self._end(asked, permit.neutral)
        elif status >= 500 and status != httpx.codes.NOT_IMPLEMENTED:
            all_of_it = None if status in (502, 503, 504) else asked.circuits[1:]
            self._end(asked, partial(permit.failed, f"it answered {status}", of=all_of_it))
        else:
            self._end(asked, permit.succeeded)

    def _stopped(self, asked: Asked, permit: Permit) -> None:
        """The call was cancelled, or its time is over: that counts when the API had time enough."""
        waited = time.monotonic() - asked.began
        if asked.context.cancelled() or waited < 0.7 * min(asked.operation.tool.timeout_s, COUNTS_FROM_S):
            self._end(asked, permit.neutral)
        else:
            self._end(asked, partial(permit.failed, f"no answer within {waited:.1f} s"))

    def _unreached(self, asked: Asked, permit: Permit, error: Exception) -> ToolError:
        why = without(str(error) or type(error).__name__, asked.api.secrets)
        if isinstance(error, _UNFIT):
            self._end(asked, permit.neutral)
            return ToolError(f"`{asked.name}` cannot be asked so: {why}", code="bad_input")
        self._end(asked, partial(permit.failed, why[:200]))
        ours = ToolError(f"`{asked.api.name}` cannot be reached: {why}", code="unreachable", retryable=True)
        return ours if isinstance(error, _UNSENT) else _by_effect(asked, ours)

    def _end(self, asked: Asked, how: Callable[[], object]) -> None:
        """Tells the circuits once how the call ended; the call does not wait for that."""
        if not asked.told:
            asked.told = True
            self._later(how)

    def _compare(self, asked: Asked, value: Any) -> None:
        """Notes where an answer is not what the document promises: what was done is done, so that is no failure."""
        schema = asked.operation.tool.output_schema
        if schema is not None and value is not None and (problems := Judge(schema).problems(value, steps=20_000, most=3)):
            asked.context.log("the answer is not what the document says", problems=problems)

    async def _step(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, step)

    def _later(self, step: Callable[[], object]) -> None:
        future = asyncio.get_running_loop().run_in_executor(self._threads, step)
        self._after.add(future)
        future.add_done_callback(self._told)

    def _told(self, future: asyncio.Future[Any]) -> None:
        self._after.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            log.warning("a circuit was not told: %r", error, extra={"action": "circuit_lost"})


def _attached(files: FileSource, ref: str) -> Attached:
    return Attached(files.info(ref), files.fetch(ref))


def _by_effect(asked: Asked, error: ToolError) -> ToolError:
    """A failure after the request was sent: to be tried again, unless that might do a thing twice."""
    if asked.effect != "once":
        return ToolError(error.message, code=error.code, retryable=True, next=error.next)
    if asked.done:
        return ToolError(f"the API did what it was asked to, and its answer broke off: {error.message}", code="bad_answer")
    return EffectUnknown(
        f"the request was sent and not answered, so its effect may have happened: {error.message}",
        next="Find out, then `toolweaver resolve` with `--happened` or `--retry`.",
    )
