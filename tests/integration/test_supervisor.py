"""The supervisor, with small processes in place of the platform's."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.local import supervisor as module
from orchestrator.local.home import Home
from orchestrator.local.supervisor import ChildSpec, Supervisor, rotate
from tests.support import wait_until

pytestmark = pytest.mark.integration

SLEEP = "import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
PARENT = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '{SLEEP}']).pid, flush=True); {SLEEP}"


class Rig:
    """A supervisor and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.home = Home(folder)
        self.home.make()
        self.supervisor = Supervisor(self.home, env=os.environ, say=self.said.append)

    def start(self, name: str, code: str, **options: object) -> int:
        spec = ChildSpec(name, (sys.executable, "-c", code), **options)  # type: ignore[arg-type]
        return self._pid(self.supervisor.start(spec))

    def pid(self, name: str) -> int | None:
        child = self.supervisor.children[name]
        return child.process.pid if child.process else None

    def tick_until(self, predicate: object, *, description: str) -> None:
        def look() -> bool:
            self.supervisor.tick()
            return bool(predicate())  # type: ignore[operator]

        wait_until(look, description=description)

    @staticmethod
    def _pid(child: module.Child) -> int:
        assert child.process is not None
        return child.process.pid


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(module, "BACKOFF_S", 0.05)
    made = Rig(tmp_path)
    yield made
    made.supervisor.stop()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_process_that_was_killed_is_started_again(rig: Rig) -> None:
    first = rig.start("a", SLEEP)

    os.kill(first, signal.SIGKILL)

    rig.tick_until(lambda: rig.pid("a") not in (None, first), description="a runs again")
    assert rig.said == [f"a was killed by SIGKILL; starting again in 0.05 s (log: {rig.home.log('a')})"]


def test_a_process_that_keeps_crashing_is_started_ever_more_patiently(rig: Rig) -> None:
    rig.start("a", "import sys; sys.exit('no such model')")

    rig.tick_until(lambda: len(rig.said) == 4, description="four crashes")

    assert [line.split(" in ")[1].split()[0] for line in rig.said] == ["0.05", "0.1", "0.2", "0.4"]
    assert rig.home.log("a").read_text().count("no such model") == 4
    assert rig.supervisor.children["a"].crashes == 4


def test_what_a_crashed_process_left_running_ends_with_it(rig: Rig) -> None:
    parent = rig.start("a", PARENT)
    child = int(wait_until(rig.home.log("a").read_text, description="the child's pid is said"))

    os.kill(parent, signal.SIGKILL)

    rig.tick_until(lambda: rig.pid("a") not in (None, parent), description="a runs again")
    wait_until(lambda: gone(child), description="the first one's child is gone")


def test_the_highest_stage_stops_first(rig: Rig, tmp_path: Path) -> None:
    noted = tmp_path / "order"
    stop = "open({p!r}, 'a').write({n!r})"
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (" + stop + ", sys.exit())); print(1, flush=True); {s}"
    for name, stage in (("0", 0), ("1", 1), ("2", 2)):
        rig.start(name, code.format(p=str(noted), n=name, s=SLEEP), stage=stage)
    wait_until(lambda: all(rig.home.log(n).read_text() for n in "012"), description="all listen to SIGTERM")

    rig.supervisor.stop()

    assert noted.read_text() == "210"


def test_a_process_that_does_not_stop_is_killed_after_its_grace(rig: Rig) -> None:
    pid = rig.start("a", STUBBORN, grace_s=0.2)
    wait_until(rig.home.log("a").read_text, description="it is deaf")
    begun = time.monotonic()

    rig.supervisor.stop()

    assert gone(pid)
    assert 0.2 <= time.monotonic() - begun < 2.0
    assert rig.said == ["a did not stop within 0.2 s and was killed"]


def test_a_command_that_is_not_there_does_not_stop_the_others(rig: Rig) -> None:
    rig.supervisor.start(ChildSpec("missing", ("/does/not/exist",)))
    pid = rig.start("a", SLEEP)

    rig.supervisor.tick()

    assert not gone(pid)
    assert "missing could not be started" in rig.said[0]


def test_a_log_that_grew_large_moves_on_while_its_writer_goes_on(rig: Rig) -> None:
    code = "import sys\nfor line in iter(sys.stdin.readline, ''): pass\nprint('x' * 100, flush=True)\nimport signal\nsignal.pause()"
    rig.start("a", code)
    log = rig.home.log("a")
    wait_until(log.read_text, description="it wrote")

    assert not rotate(log)
    assert rotate(log, limit=50)

    assert log.read_text() == ""
    assert log.with_name("a.log.1").read_text() == "x" * 100 + "\n"
