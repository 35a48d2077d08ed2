"""Broken servers beside two good ones in one servers file, what is left of their processes, and where their secret went."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from tests.mcp import broken, broken_http
from tests.mcp.expected import EXPECTED, Expected

ROOT = Path(__file__).parents[2]
PROGRAM = Path(broken.__file__)
GOOD = ("good", "http_good")
TOKEN = "BROKEN_TOKEN"  # where the platform's processes have it
CALL_S = 1.0
LONGER_S = {"huge_error": 5.0}  # it answers, and a busy worker takes its time to read that


@dataclass(frozen=True)
class BrokenServers:
    """All of them; `canary` is the secret that each is given and nobody else may show."""

    folder: Path
    url: str  # of those over HTTP
    seen: str  # what reached another origin
    canary: str

    def entry(self, kind: str) -> dict[str, Any]:
        """A server as an entry of `mcpServers`."""
        rest = {"timeout_s": LONGER_S.get(kind, CALL_S)}
        if kind in broken_http.KINDS:
            return {"url": f"{self.url}/{kind}", "headers": {"Authorization": f"Bearer ${{{TOKEN}}}"}, **rest}
        env = {broken.SECRET: f"${{{TOKEN}}}", broken.STATE: str(self.folder / f"{kind}.state")}
        # Of the interpreter only what is needed: seventy start at once.
        return {"command": sys.executable, "args": ["-S", "-E", str(PROGRAM), kind, self.mark], "env": env, **rest}

    def entries(self, kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {kind: self.entry(kind) for kind in kinds}

    @property
    def mark(self) -> str:
        """An argument of each process, so that it is known for ours."""
        return f"--of={self.folder}"

    def alive(self) -> list[str]:
        """The processes of servers that live now."""
        return [" ".join(p.info["cmdline"][3:5]) for p in psutil.process_iter(["cmdline"]) if self._ours(p)]

    def end(self) -> None:
        """Kills what is left, so that one test's finding is not another's."""
        for process in psutil.process_iter(["cmdline"]):
            if self._ours(process):
                process.kill()

    def credentials_elsewhere(self) -> list[str]:
        """What credentials reached another origin than the server's own."""
        with urlopen(self.seen, timeout=5) as answer:
            found: list[str] = json.load(answer)
        return found

    def forget(self) -> None:
        """Servers that remember how often they were asked begin anew."""
        for state in self.folder.glob("*.state"):
            state.unlink()

    def _ours(self, process: psutil.Process) -> bool:
        return self.mark in (process.info["cmdline"] or []) and process.is_running()


@contextmanager
def broken_servers(folder: Path) -> Iterator[BrokenServers]:
    """The servers over HTTP run for as long as the block; those over stdio are started by whoever connects."""
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mcp.broken_http"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as http:  # fmt: skip
        assert http.stdout is not None
        said = json.loads(http.stdout.readline())
        made = BrokenServers(folder, said["url"], said["seen"], f"canary-{secrets.token_hex(12)}")
        try:
            yield made
        finally:
            made.end()
            http.kill()


def kinds() -> dict[str, str]:
    """What each does, by name, the two good ones included."""
    return {name: does for table in (broken.KINDS, broken_http.KINDS) for name, (_, does) in table.items()}


def bad_kinds() -> list[str]:
    return [name for name in kinds() if name not in GOOD]


def expected(kind: str) -> Expected:
    return EXPECTED[kind]


def holds(folder: Path, text: str) -> list[str]:
    """The files beneath a folder that hold a text, with what stands around it."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file() and (at := (data := path.read_bytes()).find(text.encode())) >= 0:
                found.append(f"{path.relative_to(folder)}: {data[max(at - 200, 0) : at + 80]!r}")
    return found
