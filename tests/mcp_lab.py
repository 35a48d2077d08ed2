"""A platform with servers of tools: the servers file, the notes that the tests' own servers leave, their processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from orchestrator.catalog.store import CatalogStore
from orchestrator.models.catalog import ServerState
from orchestrator.models.job import JobView
from tests.processes import Platform, platform
from tests.services import free_port
from tests.support import wait_until

HERE = Path(__file__).parent


class Lab:
    """The platform `p`; `servers` is what its servers file says, as `write` wrote it."""

    def __init__(self, p: Platform) -> None:
        self.p = p
        self.file = p.folder / "mcp.json"
        self.notes_file, self.hangs, self.extra, self.forgets = (p.folder / n for n in ("notes", "hangs", "extra", "forgets"))
        self.servers: dict[str, dict[str, Any]] = {}
        self.more: dict[str, Any] = {}
        self.catalog = CatalogStore(p.client)

    @property
    def env(self) -> dict[str, str]:
        """What the tests' own servers need to know."""
        return {"NOTES": f"{self.notes_file}", "HANGS": f"{self.hangs}", "EXTRA": f"{self.extra}", "FORGETS": f"{self.forgets}"}

    def own(self, **more: Any) -> dict[str, Any]:
        """The tests' server over stdio, as an entry."""
        return {"command": sys.executable, "args": ["-P", str(HERE / "mcp_server.py")], "env": self.env, **more}

    def write(self, **servers: dict[str, Any] | None) -> None:
        """Changes entries of the servers file; None takes one out."""
        self.servers = {k: v for k, v in (self.servers | servers).items() if v is not None}
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"mcpServers": self.servers, **self.more}))
        draft.replace(self.file)

    def start_http(self, name: str, port: int | None = None, *, script: str = "mcp_server.py") -> dict[str, Any]:
        """Starts a server that listens, under a name for `p.kill`; its entry in the file."""
        port = port or free_port()
        words = ["http", str(port)] if script == "mcp_server.py" else [str(port)]
        self.p.start(name, [sys.executable, "-P", str(HERE / script), *words], env=self.env)
        return {"url": f"http://127.0.0.1:{port}/mcp"}

    def start_worker(self, name: str, *, concurrency: int = 30, **env: str) -> None:
        self.p.start_worker(name, pool="mcp", concurrency=concurrency, env=env)
        self.p.wait_announced(name)

    def state(self, server: str) -> ServerState | None:
        return self.catalog.server_states().get(server)

    def wait_up(self, *servers: str) -> None:
        for server in servers:
            wait_until(lambda s=server: (t := self.state(s)) and t.state == "up", description=f"server {server} is up", timeout=40)

    def notes(self, *words: str) -> list[list[str]]:
        """The lines of the servers that begin so, without the process id."""
        lines = self.notes_file.read_text().splitlines() if self.notes_file.exists() else []
        rows = [line.split() for line in lines]
        rows = [row[1:] if row[0].isdigit() else row for row in rows]
        return [row for row in rows if row[: len(words)] == list(words)]

    def pids(self, worker: str | None = None) -> list[int]:
        """The processes of the tests' server over stdio, or of those that a worker started."""
        roots = [self.p.processes[worker].pid] if worker else [psutil.Process().pid]
        family = [c for root in roots for c in psutil.Process(root).children(recursive=True)]
        return [c.pid for c in family if _runs_server(c)]

    def call(self, tool: str, **input: Any) -> JobView:
        """One call in a job, at its end."""
        return self.p.wait(self.submit(tool, **input))

    def submit(self, tool: str, *, step: dict[str, Any] | None = None, **input: Any) -> str:
        return self.p.submit([{"id": "s", "tool": tool, "input": input, **(step or {})}])

    def value(self, tool: str, *, step: dict[str, Any] | None = None, **input: Any) -> Any:
        """What one call gives."""
        job = self.submit(tool, step=step, **input)
        view = self.p.wait(job)
        assert view.error is None, view.error
        return self.p.store.result(job).steps["s"]


def _runs_server(process: psutil.Process) -> bool:
    """Whether it is the server itself, not the launcher before it."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return len(words) == 3 and words[2].endswith("mcp_server.py")


@contextmanager
def lab(**options: Any) -> Iterator[Lab]:
    """A platform with a planner, and without servers yet."""
    with platform(**options) as p:
        p.start_planner()
        yield Lab(p)
