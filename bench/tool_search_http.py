"""What a search costs through the index service: wall beside a request that does nothing, processor time, memory.

    python -m bench.tool_search_http FOLDER [--queries 200]      # a snapshot folder, as bench.tool_search_scale keeps with --home

Each query is asked three times of one replica, one request at a time: new (it is encoded), with its vector kept (another k, so
that nothing but the vector is), and as it was asked before (the answer is kept). A `/ping` goes between. Processor time is that
of all threads of the replica from before a request to after its answer, as the kernel counts it. Then 16 new queries at once,
which the encoder takes together.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from bench.tool_search_scale import real_queries

K = 10
AT_ONCE = 16
START_S = 120
LIMIT_MS, LIMIT_MB = 10.0, 1024


@dataclass
class Times:
    """Milliseconds of requests of one kind."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """The kind's figures."""
        shown = [f"{kind} p50 {np.percentile(v, 50):7.2f}  p95 {np.percentile(v, 95):7.2f} ms" for kind, v in self.pairs()]
        return f"  {name:28} {'   '.join(shown)}"

    def pairs(self) -> list[tuple[str, list[float]]]:
        """Both kinds of time."""
        return [("wall", self.wall), ("cpu", self.cpu)]


@contextmanager
def replica(folder: Path) -> Iterator[tuple[str, int, float]]:
    """A replica that serves a folder: its address, its process id, the seconds until it answered."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as said:
        environment = os.environ | {"TOOLWEAVER_HOME": home, "TOOLWEAVER_INDEX_PORT": "0", "TOOLWEAVER_LOG_LEVEL": "INFO"}
        began = time.perf_counter()
        command = [sys.executable, "-m", "orchestrator.tool_search.service", "--snapshot", str(folder)]
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            url = _address(process, lambda: Path(f"/proc/self/fd/{said.fileno()}").read_text(encoding="utf-8"), began)
            yield url, process.pid, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(20)


def _address(process: subprocess.Popen[bytes], log, began: float) -> str:  # type: ignore[no-untyped-def]
    while time.perf_counter() - began < START_S:
        if process.poll() is not None:
            raise SystemExit(f"the service ended:\n{log()}")
        if found := re.search(r"https?://[\w.\[\]:]+:\d+", log()):
            try:
                if httpx.get(f"{found[0]}/health", timeout=5).status_code == 200:
                    return found[0]
            except httpx.HTTPError:
                pass
        time.sleep(0.02)
    raise SystemExit(f"the service did not start within {START_S} s:\n{log()}")


def cpu_ms(pid: int) -> float:
    """Processor time of all threads so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e6


def resident_mb(pid: int) -> float:
    """Memory, mapped files included."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return float(fields["VmRSS"].split()[0]) / 1024


def measure(folder: Path, queries: Sequence[str]) -> None:
    """Prints the figures of one snapshot."""
    with replica(folder) as (url, pid, started), httpx.Client(base_url=url, timeout=60) as client:
        for text in queries[:20]:  # threads and pages are there afterwards
            _ask(client, text, K + 2)
        kinds = {name: Times() for name in ("ping", "new", "vector kept", "answer kept")}
        for text in queries:
            _time(kinds["ping"], pid, lambda: client.get("/ping"))
            _time(kinds["new"], pid, lambda text=text: _ask(client, text, K))
            _time(kinds["vector kept"], pid, lambda text=text: _ask(client, text, K + 1))
            _time(kinds["answer kept"], pid, lambda text=text: _ask(client, text, K + 1))
        size = client.get("/status").json()["size"]
        print(f"\n{size:,} tools over HTTP: answers {started:.1f} s after its start; {resident_mb(pid):.0f} MB resident")
        print("\n".join(times.line(name) for name, times in kinds.items()))
        kept, ping = kinds["vector kept"], kinds["ping"]
        p95 = float(np.percentile(kept.cpu, 95))
        print(
            f"  cpu p95 without the encoder, HTTP included: {p95:.2f} ms ({'met' if p95 <= LIMIT_MS else 'missed'}: {LIMIT_MS:.0f})"
        )
        print(f"  wall p50 beside a ping's: {np.median(kept.wall) / np.median(ping.wall):.1f} times, with the encoder "
              f"{np.median(kinds['new'].wall) / np.median(ping.wall):.1f} times")  # fmt: skip
        asyncio.run(_together(url, pid))


def _ask(client: httpx.Client, text: str, k: int) -> None:
    answer = client.post("/search", json={"queries": [text], "k": k, "detail": "names", "deadline_ms": 10_000})
    assert answer.status_code == 200, answer.text
    assert not answer.json().get("degraded"), answer.text


def _time(times: Times, pid: int, call) -> None:  # type: ignore[no-untyped-def]
    before, began = cpu_ms(pid), time.perf_counter()
    call()
    times.wall.append(1e3 * (time.perf_counter() - began))
    times.cpu.append(cpu_ms(pid) - before)


async def _together(url: str, pid: int) -> None:
    """New queries at once, and as many one after the other."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def ask(text: str) -> None:
            body = {"queries": [text], "k": K, "detail": "names", "deadline_ms": 10_000}
            assert (await client.post("/search", json=body)).status_code == 200

        texts = [f"{t} please" for t in real_queries(2 * AT_ONCE)]
        figures = []
        for some, at_once in ((texts[::2], False), (texts[1::2], True)):
            before, began = cpu_ms(pid), time.perf_counter()
            if at_once:
                await asyncio.gather(*map(ask, some))
            else:
                for text in some:
                    await ask(text)
            figures.append((1e3 * (time.perf_counter() - began) / AT_ONCE, (cpu_ms(pid) - before) / AT_ONCE))
        (wall, cpu), (wall_together, cpu_together) = figures
        print(f"  {AT_ONCE} new queries, each, one by one: wall {wall:.1f}, cpu {cpu:.1f} ms")
        print(f"  {AT_ONCE} new queries, each, at once:    wall {wall_together:.1f}, cpu {cpu_together:.1f} ms")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="snapshots")
    parser.add_argument("--queries", type=int, default=200)
    said = parser.parse_args()
    for folder in said.folder:
        measure(folder, real_queries(said.queries))


if __name__ == "__main__":
    main()
