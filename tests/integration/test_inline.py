"""Functions of `__main__` run in a thread of the script, on a platform that others use too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import platform

SCRIPT = '''
import asyncio, os, threading
from workers.inline import serve
from orchestrator.catalog.register import register_function
from orchestrator.settings import load_settings
from orchestrator.jobs.store import JobStore
from orchestrator.state.connection import connect
from orchestrator.publisher.control import Control
from orchestrator.broker.app import make_app
from orchestrator.models.plan import Plan
from tests.support import wait_until

@register_function("mine", effect="none")
def mine(value: int) -> list[int]:
    """Doubles, here."""
    return [value * 2, os.getpid()]

if __name__ == "__main__":
    settings = load_settings()
    store = JobStore(connect(settings), settings)
    plan = Plan.model_validate({"steps": [
        {"id": "a", "tool": "work", "input": {"seconds": 0}},
        {"id": "b", "tool": "mine", "map": "input:xs", "input": {"value": "item"}, "depends_on": ["a"]}]})
    with serve(settings, ["mine"]):
        job, _ = Control(store, make_app(settings)).accept(plan, inputs={"xs": [1, 2, 3]})
        wait_until(lambda: store.status(job).final, description="the job ends")
    doubled = store.result(job).steps["b"]
    assert [v for v, _ in doubled] == [2, 4, 6], doubled
    assert {pid for _, pid in doubled} == {os.getpid()}
    print("done in this process")
'''


def test_functions_of_a_script_run_in_its_own_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with platform() as p:
        p.start_planner()
        p.start_worker("one")
        p.wait_ready()
        env = os.environ | {"TOOLWEAVER_REDIS_URL": p.settings.store_url, "PYTHONPATH": os.getcwd()}
        ran = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert ran.stdout == "done in this process\n", ran.stderr
        assert "mine" not in p.catalog(), "nobody else is offered what nobody runs any more"
        left: Any = p.client.smembers("tw:{s0}:queues")
        assert left == {b"function"}
        assert [w.pool for w in p.store.workers()] == ["function"]
