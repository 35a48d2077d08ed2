"""Six published MCP servers, real ones: three of npm, three of PyPI, each as an entry of an `mcpServers` file.

    lab.entry("filesystem")  # {"command": "/.../mcp-server-filesystem", "args": ["/tmp/.../files"]}
    with lab.everything_over_http() as url: ...

npm's are installed once a machine, at the versions of `package-lock.json` beside this file, into a cache folder.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.services import free_port
from tests.support import wait_until

HERE = Path(__file__).parent
PINNED = ("package.json", "package-lock.json")
NPM = ("everything", "filesystem", "memory")
PYPI = ("time", "git", "fetch")
SERVERS = (*NPM, *PYPI)
INSTALL_S = 300
PAGE = "<html><head><title>Page</title></head><body><p>The quick brown fox.</p></body></html>"


@dataclass(frozen=True)
class RealServers:
    """Where the servers are, and what they work on."""

    bin: Path  # npm's programs
    files: Path  # the root of `filesystem`
    repository: Path  # that of `git`
    graph: Path  # the file of `memory`

    def entry(self, name: str) -> dict[str, Any]:
        """The server as an entry of `mcpServers`."""
        program = self.bin if name in NPM else Path(sys.executable).parent
        command: dict[str, Any] = {"command": str(program / f"mcp-server-{name}")}
        arguments = {
            "everything": ["stdio"],
            "filesystem": [str(self.files)],
            "git": ["--repository", str(self.repository)],
            "time": ["--local-timezone", "UTC"],
            "fetch": ["--allow-private-ips"],  # the page to fetch is on this machine
        }
        env = {"memory": {"MEMORY_FILE_PATH": str(self.graph)}}
        return command | {key: known[name] for key, known in (("args", arguments), ("env", env)) if name in known}

    def entries(self, *names: str) -> dict[str, dict[str, Any]]:
        """Some servers, or all six, by name."""
        return {name: self.entry(name) for name in names or SERVERS}

    @contextmanager
    def everything_over_http(self) -> Iterator[str]:
        """The URL of `everything` over streamable HTTP."""
        port = free_port()
        command = [str(self.bin / "mcp-server-everything"), "streamableHttp"]
        with tempfile.TemporaryFile() as log:
            running = subprocess.Popen(
                command, env=os.environ | {"PORT": str(port)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )  # fmt: skip
            try:
                wait_until(lambda: _says(log, b"listening on port"), description="everything serves HTTP", timeout=30)
                yield f"http://127.0.0.1:{port}/mcp"
            finally:
                running.kill()
                running.wait()


def write_servers(path: Path, servers: Mapping[str, Mapping[str, Any]], **more: Any) -> Path:
    """A servers file, replaced at once."""
    made = path.with_suffix(".new")
    made.write_text(json.dumps({"mcpServers": servers, **more}))
    made.chmod(0o600)
    return made.replace(path)


def real_servers(folder: Path) -> RealServers:
    """The six, working in a folder of their own; skips without Node."""
    made = RealServers(npm_programs(), folder / "files", folder / "repository", folder / "graph.jsonl")
    made.files.mkdir(parents=True)
    (made.files / "hello.txt").write_text("hello from inside\n")
    (folder / "secret.txt").write_text("outside\n")
    _repository(made.repository)
    return made


@functools.cache
def npm_programs(of: Path = HERE) -> Path:
    """The programs of the npm packages that a folder pins, installed where they are missing; skips where that cannot be."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no Node.js: Debian's packages `nodejs` and, where that does not bring it, `npm` are not installed")
    place = _cache() / f"npm-{_version(of)}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test processes one installs
        if not place.exists():
            _install(place, of)
    return place / "node_modules" / ".bin"


def _install(place: Path, of: Path) -> None:
    """Into a folder beside, which takes its name when it is whole."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="npm-part-") as name:
        made = Path(name) / "made"
        made.mkdir()
        for pinned in PINNED:
            shutil.copy(of / pinned, made)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        ran = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        if ran.returncode:
            pytest.skip(f"npm cannot install the servers: {ran.stderr.strip()[-500:]}")
        made.rename(place)


def _version(of: Path) -> str:
    text = b"".join((of / name).read_bytes() for name in PINNED)
    return hashlib.sha256(text).hexdigest()[:12]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toolweaver-tests"


def _repository(place: Path) -> None:
    """A git repository of one commit and one changed file."""
    place.mkdir()
    git = functools.partial(subprocess.run, cwd=place, check=True, capture_output=True)
    git(["git", "init", "-q", "-b", "main"])
    git(["git", "config", "user.name", "Tester"])
    git(["git", "config", "user.email", "tester@example.org"])
    (place / "a.txt").write_text("one\n")
    git(["git", "add", "."])
    git(["git", "commit", "-q", "-m", "The first commit"])
    (place / "a.txt").write_text("two\n")


def _says(log: Any, words: bytes) -> bool:
    return words in os.pread(log.fileno(), 1 << 16, 0)


@contextmanager
def web_page() -> Iterator[str]:
    """The URL of a page on this machine, for `fetch` to fetch."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/page"
            body = PAGE.encode() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/page"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
