"""An MCP server that is given up while it starts is gone, whatever it bears."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.tool_discovery import stdio
from tests.support import wait_until

pytestmark = pytest.mark.integration

IMMORTAL = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""


def test_a_server_that_is_given_up_while_it_starts_is_gone(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def start() -> None:
        tail = stdio.Tail(None, str)
        async with stdio.started([sys.executable, "-c", IMMORTAL, str(note)], env={}, cwd=None, tail=tail):
            raise AssertionError("it was to be given up before")

    async def give_up() -> None:
        before = set(psutil.Process().children())
        task = asyncio.create_task(start())
        for _ in range(1_000):  # turns of the loop, until the process is forked and no further
            if set(psutil.Process().children()) - before:
                break
            await asyncio.sleep(0)
        wait_until(note.exists, description="the server runs, while the loop has not come to look", timeout=30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    server = int(note.read_text())
    wait_until(lambda: not psutil.pid_exists(server), description="the server is gone", timeout=10)
