"""The embedded server: it keeps its data, ends with its owner, and comes back after every kind of end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from orchestrator.errors import BackendError, Conflict
from orchestrator.local import processes
from orchestrator.local.home import SOCKET_PATH_MAX, Home
from orchestrator.local.server import EmbeddedServer, answers, find_orphan, note_pid, server_command, stop_orphan
from orchestrator.models.platform import MARK
from tests.support import wait_until

pytestmark = pytest.mark.integration

OWNER = """
    import signal, sys
    from pathlib import Path
    from orchestrator.local.server import EmbeddedServer
    server = EmbeddedServer(Path(sys.argv[1])).start()
    print(server.pid, flush=True)
    signal.pause()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns a server in `tmp_path/home` and said its process id."""
    command = [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def start_unowned(home: Home) -> int:
    """Starts a server that nobody looks after: what a supervisor leaves behind where the kernel has no death signal."""
    home.make()
    process = subprocess.Popen(server_command(home), start_new_session=True, stdout=subprocess.DEVNULL)
    note_pid(home, process.pid)
    wait_until(lambda: answers(home.redis_url), description="the unowned server answers")
    return process.pid


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_owner(owner: subprocess.Popen[str], signum: int) -> None:
    assert owner.stdout is not None
    server = int(owner.stdout.readline())

    owner.send_signal(signum)

    wait_until(lambda: gone(server), description="the server ends after its owner")


def test_data_survives_a_stop(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        redis.Redis.from_url(server.url).set("kept", "yes")
    assert not answers(server.url)

    with EmbeddedServer(tmp_path) as server:
        assert redis.Redis.from_url(server.url).get("kept") == b"yes"


def test_data_survives_a_kill_of_the_server_and_its_stale_socket(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path).start()
    redis.Redis.from_url(server.url).set("kept", "yes")
    pid = server.pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.pid is None, description="the server is dead")
    server.stop()
    assert server.home.socket.exists(), "a killed server leaves its socket behind"

    with EmbeddedServer(tmp_path) as again:
        assert redis.Redis.from_url(again.url).get("kept") == b"yes"


def test_a_server_that_is_cut_off_in_the_middle_of_a_write_starts_again(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        client.set("kept", "yes")
        client.set("torn", "x" * 100)
    log = next((tmp_path / "redis" / "appendonlydir").glob("*.incr.aof"))
    os.truncate(log, log.stat().st_size - 20)

    with EmbeddedServer(tmp_path) as again:
        assert redis.Redis.from_url(again.url).mget("kept", "torn") == [b"yes", None]


def test_it_is_durable_and_drops_nothing(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        client = redis.Redis.from_url(server.url, decode_responses=True)
        found = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy", "port")}

    assert found == {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "port": "0"}


def test_only_the_owner_may_look_into_the_home(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "home") as server:
        modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (server.home.path, server.home.data, server.home.socket)}

    assert set(modes.values()) == {"0o700"}, modes


def test_an_orphan_is_stopped_and_its_data_taken_over(tmp_path: Path) -> None:
    home = Home(tmp_path)
    orphan = start_unowned(home)
    redis.Redis.from_url(home.redis_url).set("kept", "yes")
    assert find_orphan(home) is not None

    with EmbeddedServer(tmp_path) as server:
        assert server.pid != orphan
        assert redis.Redis.from_url(server.url).get("kept") == b"yes"

    assert gone(orphan)


def test_a_pid_file_that_names_another_process_by_now_stops_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    note_pid(home, bystander.pid)
    home.pid_file.write_text(home.pid_file.read_text().replace('"created": ', '"created": 1'))  # the number was given out anew

    assert stop_orphan(home) is None
    assert bystander.poll() is None

    bystander.kill()
    bystander.wait()


def test_a_second_server_in_the_same_home_is_refused(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(Conflict, match="already runs"):
            EmbeddedServer(tmp_path).start()
        assert answers(server.url), "the first one is left alone"


def test_a_home_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30)
    with EmbeddedServer(path) as server:
        redis.Redis.from_url(server.url).set("kept", "yes")
        assert len(os.fsencode(server.home.socket)) <= SOCKET_PATH_MAX < len(os.fsencode(path / "redis.sock"))
        assert server.home.socket.parent.stat().st_mode & 0o777 == 0o700

    with EmbeddedServer(path) as again:
        assert redis.Redis.from_url(again.url).get("kept") == b"yes"
        folder = again.home.socket.parent
    assert not folder.exists(), "the temp folder is left as it was found"


def test_a_home_with_a_space_and_a_percent_sign_works(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "my 100% home") as server:
        assert answers(server.url)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    (home.data / "appendonlydir").write_text("in the way")

    with pytest.raises(BackendError, match=r"ended with exit code .*appendonlydir") as caught:
        EmbeddedServer(tmp_path).start()

    assert "server.log" in str(caught.value)


def test_stop_kills_a_server_that_does_not_listen(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path).start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    server.stop(timeout_s=0.2)

    assert gone(pid)


def test_the_sweep_finds_what_carries_the_mark_and_nothing_else(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import signal; signal.pause()"]
    mine = subprocess.Popen(sleeper, env={**os.environ, MARK: processes.mark(tmp_path, 12345)})
    other = subprocess.Popen(sleeper, env={**os.environ, MARK: processes.mark(tmp_path / "elsewhere", 12345)})
    wait_until(lambda: processes.marked(tmp_path), description="the marked process is seen")

    count = processes.sweep(tmp_path, grace_s=0.0)

    assert count == 1
    assert mine.poll() is not None
    assert other.poll() is None
    other.kill()
    other.wait()
