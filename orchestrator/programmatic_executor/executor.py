"""Programs run from Python: given to the platform as a step, followed, and answered with their whole record."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.catalog.render.stubs import StubGenerator
from orchestrator.client.outcome import outcome
from orchestrator.hybrid_dispatcher.single import on_platform
from orchestrator.models.event import Event
from orchestrator.models.program import CallRecord, ProgramLimits, ProgramResult
from orchestrator.models.tool import ToolCatalog
from orchestrator.programmatic_executor.granted import callable_by_programs

OnToolCall = Callable[[str, bool, float, str | None], Awaitable[None] | None]
"""Told of each call as it ends: `(name, success, latency in seconds, error)`."""

STEP = "program"


class ProgrammaticToolExecutor:
    """Runs programs that call the tools of a catalog, on the platform in use, or on one started for this process.

    The tools themselves are those that the platform's workers announced, and functions registered in this script; the
    catalog says which of them a program may call, and from which `tools.<domain>` it imports them.
    """

    def __init__(
        self,
        tool_catalog: ToolCatalog | None = None,
        enable_stubs: bool | None = None,
        on_tool_call: OnToolCall | None = None,
        *,
        catalog: ToolCatalog | None = None,
        limits: ProgramLimits | Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            tool_catalog: The tools that programs may call; `catalog` is another name for it.
            enable_stubs: True writes the tools as Python source beneath `stubs`, for editors and type checkers; None only
                offers it, as `stubs` and by `write_stubs`; False leaves `stubs` empty.
            on_tool_call: Told of each call: name, whether it succeeded, seconds, error. May be `async`.
            limits: Such as `{"timeout_s": 5}`; default: those of the platform.
        """
        given = tool_catalog if tool_catalog is not None else catalog
        if given is None:
            raise TypeError("ProgrammaticToolExecutor takes the catalog of the tools that programs may call")
        self.catalog = given
        self.enable_stubs = enable_stubs
        if enable_stubs:
            self.write_stubs()
        self.on_tool_call = on_tool_call
        self.limits = limits.model_dump(exclude_unset=True) if isinstance(limits, ProgramLimits) else dict(limits or {})

    @property
    def stubs(self) -> dict[str, str]:
        """The tools as Python modules: source by path, such as `tools/finance/get_expenses.py`. None if it is False."""
        return {} if self.enable_stubs is False else StubGenerator(self.catalog).modules()

    def write_stubs(self, folder: str | Path = "stubs") -> Path:
        """Writes the stubs beneath a folder, for editors and type checkers."""
        return StubGenerator(self.catalog).write(folder)

    async def execute(self, code: str, input_data: Any = None) -> dict[str, Any]:
        """What came of a program: `output, result, tool_calls, execution_time, execution_id, error, status`.

        `output` is what it printed, `result` what it assigned to `output`, else the value of its last expression. A
        program that fails is no exception: `error` and `status` (`success`, `error`, `timeout`, `security_error`) say so.

        Raises:
            JobFailed: the platform could not run it: a tool of the catalog that no worker announced, no pool `code`.
            BackendError: the platform does not answer or does not come up.
        """
        tools = callable_by_programs(self.catalog)
        plan = {"steps": [{"id": STEP, "tool": "run_program", "input": self._input(list(tools))}], "output": f"step:{STEP}"}
        inputs = {"code": code, "input_data": input_data}
        async with on_platform(list(tools)) as client:
            job = await client.submit(plan, inputs=inputs)
            calls = _Told(self.on_tool_call)
            async for event in job.events():
                await calls.hear(event)
            details = await job.details()
        outcome(details)
        record = ProgramResult.model_validate(details.steps[STEP])
        await calls.rest(record.tool_calls)
        return record.to_dict()

    def _input(self, names: Sequence[str]) -> dict[str, Any]:
        domains = {t.name: t.domain for t in self.catalog.tools if t.name in names}
        asked: dict[str, Any] = {"code": "input:code", "input_data": "input:input_data", "tools": {"$literal": list(names)}}
        asked |= {"domains": {"$literal": domains}, "on_failure": "return"}
        return asked | ({"limits": {"$literal": self.limits}} if self.limits else {})


class _Told:
    """Tells of calls as their events come; at the end of those that had none, since they were refused before they were made."""

    def __init__(self, tell: OnToolCall | None) -> None:
        self._tell = tell
        self._running: dict[str, tuple[str, datetime]] = {}
        self._counts: Counter[str] = Counter()

    async def hear(self, event: Event) -> None:
        if self._tell is None or event.call is None:
            return
        if event.type == "call.running" and "parent" in event.data:
            self._running.setdefault(event.call, (event.data["tool"], event.ts))
        elif event.type in ("call.succeeded", "call.failed") and event.call in self._running:
            name, began = self._running.pop(event.call)
            error = event.data.get("error")
            self._counts[name] += 1
            await self._say(name, error is None, (event.ts - began).total_seconds(), error["message"] if error else None)

    async def rest(self, records: Sequence[CallRecord]) -> None:
        for record in records:
            if self._counts[record.tool] > 0:
                self._counts[record.tool] -= 1
            elif self._tell is not None:
                await self._say(record.tool, record.error is None, record.duration or 0.0, record.error)

    async def _say(self, name: str, success: bool, latency: float, error: str | None) -> None:
        assert self._tell is not None
        said = self._tell(name, success, latency, error)
        if inspect.isawaitable(said):
            await said
