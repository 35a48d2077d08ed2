"""`execute_plan` and `final_synthesis` as the reference's samples use them: from a script, with and without a platform."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.models.platform import MARK, Platform
from tests.support import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SAMPLE = """
    import asyncio
    from orchestrator import execute_plan, final_synthesis

    async def main():
        plan = {
            "steps": [
                {"id": "tax", "tool": "function_call", "input": {"name": "compute_tax", "args": {"amount": 100, "tax_rate": 0.08}}},
                {"id": "more", "tool": "compute_tax", "input": {"amount": "step:tax.total", "tax_rate": 0.5}},
            ],
            "final_synthesis": {"prompt_template": "The tax is {{steps.tax.tax}}, then {{steps.more.tax}}."},
        }
        context = await execute_plan(plan)
        print(sorted(context))
        print(await final_synthesis(plan, context))

    asyncio.run(main())
"""
OWN = """
    import asyncio, os
    from orchestrator import execute_plan
    from orchestrator.hybrid_dispatcher import register_function

    @register_function("my_function")
    def my_function(arg1: str, arg2: int) -> dict:
        '''Your custom logic here.'''
        return {"result": arg1 * arg2, "pid": os.getpid()}

    async def main():
        plan = {"steps": [{"id": "own", "tool": "my_function", "input": {"arg1": "ab", "arg2": 2}}]}
        context = await execute_plan(plan)
        print(context["own"]["result"], context["own"]["pid"] == os.getpid())

    asyncio.run(main())
"""
FAILING = """
    import asyncio
    from orchestrator import execute_plan
    from orchestrator.errors import JobFailed, PlanError

    async def main():
        try:
            await execute_plan({"steps": [{"id": "a", "tool": "compute_taxx"}]})
        except PlanError as error:
            print(error.problems[0]["path"])
        tax = {"id": "tax", "tool": "compute_tax", "input": {"amount": 100, "tax_rate": 1}}
        step = {"id": "a", "tool": "apply_discount", "input": {"amount": 1, "percent": "step:tax.total"}}
        try:
            await execute_plan({"steps": [tax, step]})
        except JobFailed as error:
            print(error.result.status, error.result.errors[0].step)

    asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a home and for the temp files of one script; nothing may run in it at the end."""
    with tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True) as path:
        yield Path(path)
        left = {p: " ".join(p.cmdline()) for p in running_in(Path(path))}
        for process in left:
            process.kill()
        assert not left, f"left behind: {list(left.values())}"


def running_in(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _runs_in(p, folder)]


def _runs_in(process: psutil.Process, folder: Path) -> bool:
    try:
        env = process.environ()
        return process.status() != psutil.STATUS_ZOMBIE and any(
            str(folder) in env.get(n, "") for n in (MARK, "TOOLWEAVER_HOME", "TMPDIR")
        )
    except psutil.Error:
        return False


def environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOOLWEAVER_") and k != "REDIS_URL"}
    return kept | {"TOOLWEAVER_HOME": str(folder / "home"), "TMPDIR": str(folder), "TOOLWEAVER_CONCURRENCY": "1"}


def start(folder: Path, code: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=folder,
        env=environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def output(folder: Path, code: str) -> list[str]:
    process = start(folder, code)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    return out.splitlines()


def test_the_sample_runs_without_a_platform_and_leaves_nothing(folder: Path) -> None:
    assert output(folder, SAMPLE) == ["['more', 'tax']", "The tax is 8.0, then 54.0."]
    assert not list(folder.glob("toolweaver-*")), "the platform's temporary home is removed"


@pytest.mark.long
def test_a_function_of_the_script_runs_in_the_script(folder: Path) -> None:
    assert output(folder, OWN) == ["abab True"]


@pytest.mark.long
def test_errors_of_a_platform_of_its_own_reach_the_script_as_the_same_classes(folder: Path) -> None:
    assert output(folder, FAILING) == ["steps[0].tool", "failed a"]


def test_a_running_platform_is_used_by_plans_and_functions_of_scripts_and_errors_are_of_the_same_classes(folder: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "up", "--json", "--no-flower", "--pools", "function"]
    up = subprocess.Popen(command, env=environment(folder), text=True, stdout=subprocess.PIPE)
    assert up.stdout is not None
    Platform.model_validate_json(up.stdout.readline())

    assert output(folder, SAMPLE)[1] == "The tax is 8.0, then 54.0."
    assert output(folder, OWN) == ["abab True"]
    listed = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "jobs"], env=environment(folder), capture_output=True, text=True, check=True
    )
    assert listed.stdout.count("succeeded") == 2
    assert output(folder, FAILING) == ["steps[0].tool", "failed a"]

    up.send_signal(signal.SIGTERM)
    assert up.wait(15) == 0


@pytest.mark.long
def test_kill_9_of_the_script_leaves_nothing(folder: Path) -> None:
    waiting = SAMPLE.replace("print(sorted(context))", "print('ran', flush=True); await asyncio.sleep(600)")
    process = start(folder, waiting)
    assert process.stdout is not None
    assert process.stdout.readline() == "ran\n"

    process.kill()
    process.communicate()

    wait_until(lambda: not running_in(folder), description="the platform of a killed script is gone", timeout=30)
    assert not list(folder.glob("toolweaver-*")), "and so is its temporary home"
