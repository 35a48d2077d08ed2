"""One program from its input to its record: checked, run in a container, its calls made through the queues, all of it audited."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from celery import Celery

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.catalog.render.stubs import StubGenerator
from orchestrator.catalog.store import CatalogStore
from orchestrator.errors import EffectUnknown, NotFound, Overtaken, PermissionDenied, RateLimited, ToolError, ToolWeaverError
from orchestrator.hybrid_dispatcher.children import Children, Diverged, NotMade
from orchestrator.jobs.ledger import Claim
from orchestrator.jobs.store import JobStore
from orchestrator.models.program import ProgramLimits, ProgramResult, Usage
from orchestrator.models.tool import ToolCatalog, ToolDefinition
from orchestrator.policy.rates import JobRates
from orchestrator.programmatic_executor.check import check_program
from orchestrator.programmatic_executor.granted import callable_by_programs, with_aliases
from orchestrator.programmatic_executor.limits import LimitRules
from orchestrator.programmatic_executor.session import Ended, Program, Session, ToolCall
from workers.code.audit import Audit, Audits
from workers.code.pool import Sandbox, SandboxPool
from workers.code.request import Request
from workers.step import CallContext, PutBack

log = logging.getLogger(__name__)

PROGRAMS = 200  # checked programs that are remembered
GRANTS = 100  # sets of tools that are kept ready
LOOK_AGAIN_S = 60.0  # a program that waits for its tenant's rate looks so often whether the limit was raised
STUBS_WHOLE = 64  # of so many tools a program gets all stubs, of more those that it mentions
EXIT_CODE_S = 1.0  # how long after the program's channel closed its container may take to say why


class SandboxLost(ToolError):
    """The program's container went away before the program had ended."""

    code = "sandbox_lost"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retryable=True, next="The program runs again, and what its calls gave is not asked for again.")


class Programs:
    """Runs the programs of one process, on one event loop."""

    def __init__(self, store: JobStore, app: Celery, *, pool: SandboxPool | None = None) -> None:
        self.store = store
        self.pool = pool or SandboxPool(store.settings)
        self.children = Children(store, app)
        self.audits = Audits(store)
        self.rules = LimitRules.load(store.settings.program_limits_file)
        self._catalog = CatalogStore(store.redis)
        self._rates = JobRates(store.redis, store.settings)
        self._version: bytes | None = b""
        self._restricted = False  # whether there are tools that some tenants do not see
        self._grants: dict[Any, _Grant] = {}
        self._lock = threading.Lock()

    async def start(self) -> None:
        """Fills the warm pool.

        Raises:
            BackendError: there is no engine or no image, or a container would not be hardened.
        """
        await self.pool.start()
        self.children.start()
        self.audits.start()

    async def close(self) -> None:
        """Removes every container."""
        self.children.close()
        await self.pool.close()
        await asyncio.to_thread(self.audits.close)

    async def run(self, request: Request, context: ToolContext) -> ProgramResult:
        """The record of a program; what it did wrong stands in it.

        Raises:
            ToolError: the step asks for what there is not; or the container was lost, which a retry mends.
            Overtaken: the call may go on no more.
            EffectUnknown: the effect of a call of the program is not known.
            PutBack: as many jobs and programs were started in this hour as may be.
        """
        if not isinstance(context, CallContext):
            raise TypeError("programs run in workers only: their calls are calls of a job")
        claim = context.claim
        limits = self.rules.of(request.tool, tenant=claim.tenant, asked=request.limits)
        await asyncio.to_thread(self._count, claim)
        grant = await asyncio.to_thread(self._grant, request, claim.tenant)
        execution = execution_id(claim)
        with self.audits.of(claim, execution, code=request.code, limits=limits, tools=grant.tools) as audit:
            refusal = await asyncio.to_thread(grant.refusal, request.code)
            if refusal is not None:
                record = ProgramResult(execution_id=execution, error=refusal.printed, status=refusal.status)
                await audit.ended(record, alerts=("violation",) if refusal.status == "security_error" else ())
                return record
            modules, names = grant.stubs(request.code)
            program = Program(request.code, request.input_data, with_aliases(grant.tools), execution, modules, names)
            return await self._in_sandbox(claim, request, program, limits=limits, audit=audit)

    def _count(self, claim: Claim) -> None:
        """Counts the program among those of this hour; over the limit it waits, which its job's log says."""
        try:
            self._rates.take_program(tenant=claim.tenant, called=self.store.caller(claim.job), job=claim.job, call=claim.call)
        except RateLimited as error:
            self.store.ledger.log(claim, {"message": f"a program waits: {error.message}"}, sampled=True)
            raise PutBack(error.message, delay_s=min(error.retry_after_s, LOOK_AGAIN_S)) from error

    async def _in_sandbox(
        self, claim: Claim, request: Request, program: Program, *, limits: ProgramLimits, audit: Audit
    ) -> ProgramResult:
        calls = _Calls(self.children, claim)
        reuse = request.isolation == "job"
        labels = {"toolweaver.job": claim.job, "toolweaver.call": claim.call, "toolweaver.execution": program.execution_id}
        async with self.pool.take(limits=limits, job=claim.job, reuse=reuse, labels=labels) as sandbox:
            audit.began(sandbox.id)
            clock = time.monotonic()
            session = Session(sandbox.sock, program, limits=limits, call=calls, on_call=audit.called)
            ended = await calls.unless_stopped(session.run())
            seconds = time.monotonic() - clock
            if ended.status == "security_error":
                sandbox.condemn("its program broke the protocol")
            usage = (await sandbox.figures()).model_copy(update={"bytes_in": ended.bytes_in, "bytes_out": ended.bytes_out})
            why = await _why_closed(sandbox, ended, usage, limits)
            record = _record(program, ended, usage=usage, seconds=seconds, why=why)
        await audit.ended(record, alerts=_alerts(ended, usage, limits, seconds))
        return record

    def _grant(self, request: Request, tenant: str) -> _Grant:
        """The tools that the program may call, of those that its tenant sees; runs in a thread.

        Raises:
            ToolError: the step names a tool that there is not, or that is not for programs.
        """
        with self._lock:
            version = self._catalog.version()
            if version != self._version:
                self._grants.clear()
                self._version = version
                self._restricted = any(t.tenants is not None for t in self._catalog.all(bundled_catalog()).tools)
            key = (
                tenant if self._restricted else "",
                None if request.tools is None else tuple(request.tools),
                tuple((request.domains or {}).items()),
            )
            if key not in self._grants:
                if len(self._grants) > GRANTS:
                    self._grants.clear()
                self._grants[key] = _Grant.of(self._catalog.all(bundled_catalog()).seen_by(tenant), request)
            return self._grants[key]


@dataclass(frozen=True, slots=True)
class _Grant:
    """The tools of a program, and how it may write them."""

    tools: Mapping[str, ToolDefinition]
    generator: StubGenerator
    whole: tuple[Mapping[str, str], Mapping[str, str]] | None
    refusals: dict[bytes, _Refusal | None] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: ToolCatalog, request: Request) -> _Grant:
        try:
            granted = callable_by_programs(catalog, request.tools)
        except (NotFound, PermissionDenied) as error:
            raise ToolError(error.message, code=error.code, path="tools", next=error.next) from None
        domains = request.domains or {}
        tools = {n: t.model_copy(update={"domain": domains[n]}) if n in domains else t for n, t in granted.items()}
        generator = StubGenerator(tools.values())
        return cls(tools, generator, _stubs_of(generator) if len(tools) <= STUBS_WHOLE else None)

    def refusal(self, code: str) -> _Refusal | None:
        """Why a program is not run; asked once for each program, since the calls of a map run the same one."""
        digest = hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
        with suppress(KeyError):  # other threads may clear it meanwhile
            return self.refusals[digest]
        if len(self.refusals) >= PROGRAMS:
            self.refusals.clear()
        found = self.refusals[digest] = _refusal(code, self.tools)
        return found

    def stubs(self, code: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Modules and plain names for a program: of all its tools, or of a large catalog those that it mentions."""
        if self.whole is not None:
            return self.whole
        return _stubs_of(self.generator.mentioned(code))


def _refusal(code: str, tools: Mapping[str, ToolDefinition]) -> _Refusal | None:
    try:
        check_program(code, tools=tools)
    except ToolWeaverError as error:
        kind: Literal["error", "security_error"] = "security_error" if error.code == "security_error" else "error"
        return _Refusal(f"{type(error).__name__}: {error}", kind)
    return None


def _stubs_of(generator: StubGenerator) -> tuple[Mapping[str, str], Mapping[str, str]]:
    return generator.modules(), generator.names()


class _Calls:
    """Makes a program's calls as children of its own call, and stops the program when they cannot be made any more."""

    def __init__(self, children: Children, claim: Claim) -> None:
        self._children, self._claim = children, claim
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, call: ToolCall) -> Any:
        try:
            return await self._children.call(
                self._claim, call.tool, call.arguments, key=call.key, caller=call.caller.model_dump(exclude_none=True)
            )
        except (Overtaken, EffectUnknown, Diverged, NotMade) as error:
            if not self._stop.done():
                self._stop.set_exception(error)
            raise ToolError("the program is being stopped", code="stopped") from None

    async def unless_stopped(self, running: Awaitable[Ended]) -> Ended:
        """How the program ended.

        Raises:
            Overtaken, EffectUnknown, Diverged, NotMade: what stopped it.
        """
        task = asyncio.ensure_future(running)
        try:
            both: set[asyncio.Future[Any]] = {task, self._stop}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.done():
                self._stop.result()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=2.0)
            self._stop.cancel()


@dataclass(frozen=True, slots=True)
class _Refusal:
    printed: str
    status: Literal["error", "security_error"]


def execution_id(claim: Claim) -> str:
    """The execution that a call is: the same for all attempts, since a rerun goes on where the first one ended."""
    return f"code_exec_{hashlib.sha256(f'{claim.job}/{claim.call}'.encode()).hexdigest()[:8]}"


def _record(program: Program, ended: Ended, *, usage: Usage, seconds: float, why: str | None) -> ProgramResult:
    error = why or (str(ended.error) if ended.error is not None else None)
    return ProgramResult(
        output=ended.output,
        result=ended.value,
        tool_calls=tuple(ended.records),
        execution_time=round(seconds, 6),
        execution_id=program.execution_id,
        error=error,
        status="error" if why is not None and ended.status == "success" else ended.status,
        usage=usage,
        errors=ended.errors,
        traceback=ended.error.traceback if ended.error is not None else None,
    )


async def _why_closed(sandbox: Sandbox, ended: Ended, usage: Usage, limits: ProgramLimits) -> str | None:
    """Why a program ended without saying so; None when it did say so.

    Raises:
        SandboxLost: it was not the program's doing.
    """
    if not ended.closed:
        return None
    if usage.memory_exceeded:
        return f"MemoryError: the program used more than its memory_mb of {limits.memory_mb}"
    code = await sandbox.exited(within_s=EXIT_CODE_S)
    if code is None:
        raise SandboxLost(f"the program's container was lost: {sandbox.fault or 'its process went away'}")
    if code == -signal.SIGKILL:  # by somebody outside, such as a kernel that is short of memory; by itself is rare
        raise SandboxLost("the program's process was killed")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"ProcessEnded: the program's process ended before the program had ({how})"


def _alerts(ended: Ended, usage: Usage, limits: ProgramLimits, seconds: float) -> tuple[str, ...]:
    found = dict.fromkeys(ended.alerts)
    if usage.memory_exceeded:
        found["memory"] = None
    if usage.cpu_s is not None and seconds > 1 and usage.cpu_s > 0.95 * limits.cpus * seconds:
        found["cpu"] = None
    return tuple(found)
