"""A worker on a second host, started with one command: it takes work over the network alone, and its end loses nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.client import Client
from orchestrator.errors import ToolWeaverError
from tests.faults.load import Load, pass_time
from tests.faults.platforms import QUICK
from tests.hosts import SecondHost, second_host
from tests.processes import TOOLS, Platform, platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos

TOOLWEAVER = str(Path(sys.executable).parent / "toolweaver")


@pytest.fixture(scope="module")
def host() -> Iterator[SecondHost]:
    with second_host() as made:
        yield made


@pytest.fixture(scope="module")
def p(host: SecondHost) -> Iterator[Platform]:
    """On the first host: Redis with a password, a planner, a worker of each pool."""
    with platform(address=host.first, password="between-us", **QUICK) as made:
        made.start_planner()
        made.start_worker("here", concurrency=1)
        made.start_worker("loop", pool="async")
        made.wait_ready(workers=2)
        yield made


def start_there(p: Platform, host: SecondHost, *, pool: str = "function", **settings: str) -> None:
    """The one command of docs/scale-out.md. What it is told by environment: where Redis is, and here a folder of its own."""
    words = [TOOLWEAVER, "worker", "--pool", pool, "--concurrency", "2", "--tools", str(TOOLS)]
    own = {"HOME": str(p.folder), "TMPDIR": str(p.folder), **settings}
    p.start("there", host.command(words, hidden=[p.folder]), env=own)
    p.wait_announced("there")


def bodies_there(p: Platform, load: Load) -> int:
    """How many bodies of the load the second host's worker began."""
    children = {c.pid for c in psutil.Process(p.processes["there"].pid).children(recursive=True)}
    return sum(b.pid in children for b in p.effects.bodies() if b.job in set(load.jobs))


def busy_load(p: Platform, *, jobs: int = 8) -> Load:
    """Jobs that keep both hosts busy, once the second one works on them."""
    load = Load(p, seconds=0.05)
    load.submit(jobs)
    wait_until(lambda: bodies_there(p, load) >= 5, description="the second host takes work")
    return load


def test_it_sees_nothing_of_the_first_host_but_its_network(p: Platform, host: SecondHost) -> None:
    def there(*words: str) -> int:
        return subprocess.run(host.command(words, hidden=[p.folder]), capture_output=True, timeout=30).returncode

    assert (p.folder / "redis.sock").exists()
    assert there("test", "-e", str(p.folder / "redis.sock")) == 1
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
    assert there(sys.executable, "-c", connect, host.first, str(p.port)) == 0
    assert there(sys.executable, "-c", connect, "127.0.0.1", str(p.port)) == 1


def test_stopped_in_order_it_ends_what_it_runs(p: Platform, host: SecondHost) -> None:
    start_there(p, host)
    load = busy_load(p)
    assert p.terminate("there") == 0
    load.finish()
    load.audit()
    assert (load.repeats(), load.unknown) == (0, 0), "nothing was lost on the way"


def test_killed_it_loses_nothing(p: Platform, host: SecondHost) -> None:
    start_there(p, host)
    load = busy_load(p)
    p.kill("there")
    load.finish()
    load.audit()


def test_cut_off_it_is_replaced_and_comes_back(p: Platform, host: SecondHost) -> None:
    """The cable is pulled for longer than a lease."""
    start_there(p, host)
    load = busy_load(p)
    host.pull_cable()
    pass_time(2 * p.settings.lease_s)
    host.plug_in()
    load.finish()
    load.audit()
    busy_load(p).finish()
    p.kill("there")


def test_files_go_through_the_api(p: Platform, host: SecondHost) -> None:
    """The folder of the blob store is on the first host; the second one moves bytes through the API, with a key for that."""
    key = new_key(p, "read", "write")  # before the API starts: beyond loopback it wants one
    p.start_api(host=host.first)
    client = Client(f"http://{host.first}:{p.env['TOOLWEAVER_API_PORT']}", api_key=key)
    wait_until(lambda: answers(client), description="the API answers", timeout=60)
    start_there(p, host, pool="far", TOOLWEAVER_BLOBS=client.url, TOOLWEAVER_API_KEY=new_key(p, "worker"))
    content = random.Random(5).randbytes(3 << 20)
    sent = client.upload(content, name="a.bin")
    made = client.submit({"steps": [{"id": "a", "tool": "reverse_file", "input": {"file": sent.ref}}]})
    back = made.wait(60).steps["a"]
    place = p.folder / "back"
    client.download(back, place)
    assert place.read_bytes() == content[::-1]
    for name in ("there", "api"):
        p.kill(name)


def new_key(p: Platform, *scopes: str) -> str:
    """A key that is made right in the store, as the first one always is."""
    words = [TOOLWEAVER, "keys", "create", "--local", "--json", *(word for scope in scopes for word in ("--scope", scope))]
    made = subprocess.run(words, env=p.env, cwd=p.folder, capture_output=True, timeout=60, check=True)
    return str(json.loads(made.stdout)["key"])


def answers(client: Client) -> bool:
    try:
        return bool(client.health())
    except ToolWeaverError:
        return False
