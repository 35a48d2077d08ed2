"""Platforms of real processes that files share, one for documents and samples, one for programs; they start when asked for."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import BackendError
from orchestrator.launch import launched
from tests.processes import Platform, platform
from tests.sandbox.lab import IMAGE, prepare
from tests.together import kept

ROOT = Path(__file__).parents[2]
NO_SANDBOX = "TEST_NO_SANDBOX"


@pytest.fixture(scope="module")
def shell(request: pytest.FixtureRequest) -> dict[str, str]:
    """See `running_shell`; the files of documents and samples share one."""
    return kept(request.session).get("shell", running_shell)


@pytest.fixture(scope="module")
def programs_platform(request: pytest.FixtureRequest) -> Platform:
    """See `running_programs`; the files about programs share one."""
    return kept(request.session).get("programs", running_programs)


@contextmanager
def running_programs() -> Iterator[Platform]:
    """A platform with `tests/program_tools.py` and an API; whoever needs a worker of the pool `code` starts it."""
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")
    tools = ROOT / "tests" / "program_tools.py"
    with platform(tools=str(tools), lease_s=2.0, sandbox_image=IMAGE) as p:
        p.start_planner()
        p.start_worker("functions", pool="function")
        p.start_worker("aio", pool="async", concurrency=100)
        p.start_api()
        yield p


def with_code(p: Platform) -> Platform:
    """With a worker of the pool `code`, a new one when the test before ended it."""
    if "code" not in p.processes:
        p.start_worker("code", pool="code", concurrency=8)
        p.wait_announced("code")
    return p


@contextmanager
def running_shell() -> Iterator[dict[str, str]]:
    """The environment of a person in this folder: the commands on the path, a platform that runs, the examples' tools on it."""
    home = tempfile.mkdtemp(prefix="tw-")  # a socket's path must be short
    own = {k: v for k, v in os.environ.items() if not k.startswith("TOOLWEAVER_") and k not in ("REDIS_URL", "PYTEST_CURRENT_TEST")}
    own |= {"TOOLWEAVER_HOME": home, "PATH": f"{Path(sys.executable).parent}:{own['PATH']}", "PYTHONPATH": str(ROOT)}
    tools = ",".join(str(ROOT / "examples" / f) for f in ("file_tool.py", "my_tool.py", "pool_tool.py"))
    more = {"TOOLWEAVER_TOOLS": tools, "TOOLWEAVER_FETCH_HOSTS": "127.0.0.1", "TOOLWEAVER_CONCURRENCY": "1"}
    gone = dict.fromkeys((k for k in os.environ if k.startswith("TOOLWEAVER_") or k == "REDIS_URL"), "")
    before = {k: os.environ.pop(k) for k in gone}
    pools = "function,ocr,small_model,counting,mcp,http"
    try:
        prepare()
    except BackendError as error:  # what needs it is skipped with this reason
        own[NO_SANDBOX] = str(error)
    else:
        own["TOOLWEAVER_SANDBOX_IMAGE"] = IMAGE
        pools += ",code"
    options = ("--no-flower", "--pools", pools)
    try:
        with launched(options=options, env=own | more):
            yield own
    finally:
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)
