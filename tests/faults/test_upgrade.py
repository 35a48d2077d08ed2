"""A rolling upgrade with jobs in flight: workers first, then the planner, then whoever submits; nothing is lost on the way.

The next version is a copy of this one whose ledger has a higher schema. Its processes take the jobs of both; processes of
this one leave its jobs alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.jobs.ledger import SCHEMA_VERSION
from orchestrator.models.job import JobStatus
from tests.faults.load import Load
from tests.processes import ROOT, TOOLS, Platform, platform

pytestmark = pytest.mark.chaos
NEXT = SCHEMA_VERSION + 1
SUBMIT = """
import sys
from orchestrator.broker.app import make_app
from orchestrator.jobs.store import JobStore
from orchestrator.models.plan import Plan
from orchestrator.publisher.control import Control
from orchestrator.settings import load_settings
from orchestrator.state.connection import connect
settings = load_settings()
control = Control(JobStore(connect(settings), settings), make_app(settings))
plan = Plan.model_validate({"steps": [{"id": s, "tool": "work", "depends_on": d} for s, d in {"a": [], "b": ["a"]}.items()]})
for _ in range(10):
    print(control.accept(plan, inputs={})[0])
"""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A folder with the code of the next version."""
    for package in ("orchestrator", "workers", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    for name, pattern in (("ledger.py", r"^SCHEMA_VERSION = \d+"), ("lua/ledger.lua", r"^local SCHEMA = \d+")):
        file = tmp_path / "orchestrator" / "jobs" / name
        text, count = re.subn(pattern, lambda m: re.sub(r"\d+$", str(NEXT), m[0]), file.read_text(), flags=re.M)
        assert count == 1
        file.write_text(text)
    return tmp_path


@pytest.fixture
def p() -> Iterator[Platform]:
    with platform(lease_s=1.0, grace_s=0.8, reconcile_s=0.1, drain_s=5) as made:
        made.start_planner()
        made.start_worker("old")
        made.wait_ready()
        yield made


def test_a_rolling_upgrade_with_jobs_in_flight(p: Platform, newer: Path) -> None:
    new = {"PYTHONPATH": str(newer)}
    load = Load(p, tools={"d": "work", "e": "work_idempotent", "f": "work_once"})
    load.submit(30)
    load.wait_busy()

    p.start(
        "new", [sys.executable, "-m", "workers.boot", "--pool", "function", "--concurrency", "2", "--tools", str(TOOLS)], env=new
    )
    p.wait_ready(workers=2)
    load.submit(10)
    assert p.terminate("old") == 0, "it drained"
    load.submit(10)
    p.start("planner2", [sys.executable, "-m", "orchestrator.tasks"], env=new)
    p.terminate("planner")
    load.submit(10)
    made = subprocess.run([sys.executable, "-c", SUBMIT], env=p.env | new, capture_output=True, text=True, check=True, cwd=p.folder)
    p.start_worker("old again")  # one that was forgotten: it takes the messages of newer jobs too, and leaves their calls
    load.finish(timeout=90)
    load.audit()
    jobs = made.stdout.split()
    assert len(jobs) == 10
    assert {p.wait(job, timeout=60).status for job in jobs} == {JobStatus.SUCCEEDED}
    versions = {p.client.hget(p.store.ledger.keys(job).state, "v") for job in [*jobs, *load.jobs]}
    assert versions == {str(NEXT).encode(), str(SCHEMA_VERSION).encode()}
