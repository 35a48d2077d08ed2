"""A plan run from a script or a notebook: on the platform in use, else on one that lives as long as this process."""

from __future__ import annotations

import asyncio
import atexit
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from importlib.metadata import entry_points
from typing import Any

from orchestrator.catalog.register import registry
from orchestrator.client.aio import AsyncClient
from orchestrator.client.outcome import outcome
from orchestrator.errors import RequestError
from orchestrator.launch import Launched
from orchestrator.models.plan import FinalSynthesis, Plan
from orchestrator.models.platform import Platform, running_platform
from orchestrator.planner.synthesis import final_synthesis_text
from orchestrator.settings import Settings, load_settings

GROUP, NAME = "toolweaver.inline", "worker"
PROGRAM_TOOLS = ("code_exec", "run_program")
Runner = Callable[[Settings, Sequence[str]], AbstractContextManager[None]]


async def execute_plan(plan: Mapping[str, Any] | Plan, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The results of a plan by step id.

    It runs on the platform at TOOLWEAVER_URL or in the home folder; when there is none, on one that is started for
    this process and stopped with it. Functions registered in `__main__` run in a thread of this process.

    Raises:
        PlanError: the plan has problems; nothing of it ran.
        JobFailed: the job failed; `.result` holds what was done.
        BackendError: the platform does not answer or does not come up.
    """
    async with platform(own_functions(plan)) as client:
        job = await client.submit(plan, inputs=inputs)
        details = await job.wait()
    outcome(details)
    return details.steps


@asynccontextmanager
async def platform(own: Sequence[str] = ()) -> AsyncIterator[AsyncClient]:
    """A client of the platform in use, started here if need be; `own` functions of this process serve it meanwhile.

    Raises:
        RequestError: one of the functions has the name of a tool of the platform.
        BackendError: the platform does not come up.
    """
    settings = await asyncio.to_thread(_settings_of_platform)
    with await asyncio.to_thread(_serve_own, settings, own):
        async with AsyncClient(settings=settings) as client:
            yield client


async def final_synthesis(plan: Mapping[str, Any] | Plan, context: Mapping[str, Any]) -> str:
    """The worded answer of a plan, from what `execute_plan` gave; all results when the plan has no template."""
    synthesis = plan.final_synthesis if isinstance(plan, Plan) else plan.get("final_synthesis")
    template = FinalSynthesis.model_validate(synthesis or {"prompt_template": "{{steps}}"})
    worded = Plan.model_validate(plan).model_copy(update={"final_synthesis": template})
    return final_synthesis_text(worded, context) or ""


def own_functions(plan: Mapping[str, Any] | Plan) -> list[str]:
    """The tools of a plan that are functions of the script or notebook itself, which no worker can import."""
    steps: Any = plan.steps if isinstance(plan, Plan) else plan.get("steps") or ()
    return own_among({name for step in steps for name in _tools_of(step)})


def own_among(names: Iterable[str]) -> list[str]:
    """Those of the names that are functions of the script or notebook itself."""
    found = {name: registry.get(name) for name in names}
    return sorted(name for name, tool in found.items() if tool is not None and tool.origin.startswith("__main__."))


def private_runner() -> Runner | None:
    """What runs the caller's own functions in a thread of the caller; None when no package offers it.

    It is called with the settings and the functions' names, and serves a private queue for as long as its block runs.
    """
    found = next(iter(entry_points(group=GROUP, name=NAME)), None)
    if found is None:
        return None
    runner: Runner = found.load()
    return runner


def _tools_of(step: Any) -> Iterator[str]:
    """The tool that a step calls, and those that its program may call by the step's own list."""
    called, given = (step.tool, step.input) if hasattr(step, "tool") else _as_written(step)
    if called == "function_call" and isinstance(given, Mapping):
        called = given.get("name")
    if isinstance(called, str):
        yield called
    listed = given.get("tools") if called in PROGRAM_TOOLS and isinstance(given, Mapping) else None
    yield from (name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()


def _as_written(step: Any) -> tuple[Any, Any]:
    return (step.get("tool"), step.get("input")) if isinstance(step, Mapping) else (None, None)


def _serve_own(settings: Settings, names: Sequence[str]) -> AbstractContextManager[None]:
    if not names:
        return nullcontext()
    runner = private_runner()
    if runner is None:
        raise RequestError(
            f"`{names[0]}` is a function of this script, and nothing here runs such functions",
            next="Move it to a module and set TOOLWEAVER_TOOLS to that module.",
        )
    return runner(settings, names)


def _settings_of_platform() -> Settings:
    """Settings that lead to a running platform, started here if need be."""
    settings = load_settings()
    platform = running_platform(settings.home)
    if settings.url is not None and (platform is None or platform.api != settings.url.rstrip("/")):
        return settings  # a platform elsewhere: what it keeps its store in, the settings say
    platform = platform or _embedded.ensure()
    return settings.model_copy(update={"url": platform.api, "redis_url": platform.redis})


class _Embedded:
    """The platform of this process: started once, on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._launched: Launched | None = None
        self._platform: Platform | None = None
        self._owner = 0

    def ensure(self) -> Platform:
        """The running platform; starts it when there is none, or when this is a fork of the process that had one."""
        with self._lock:
            if self._platform is None or not self._platform.alive or self._owner != os.getpid():
                self._start()
            assert self._platform is not None
            return self._platform

    def _start(self) -> None:
        home = tempfile.mkdtemp(prefix="toolweaver-")
        self._owner = os.getpid()
        self._launched = Launched(options=("--no-flower", "--temporary"), env={"TOOLWEAVER_HOME": home})
        atexit.register(self.stop)
        self._platform = self._launched.wait_ready()

    def stop(self) -> None:
        """Stops it, and with it goes its folder; a fork leaves it alone."""
        if self._launched is not None and self._owner == os.getpid():
            self._launched.stop()
            self._launched = self._platform = None


_embedded = _Embedded()
