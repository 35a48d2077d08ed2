"""The first process of a container: holds the line to the host, starts programs, clears up behind them, ends with the line.

Started as `python3 -s -B runner.py --socket PATH [--lease SECONDS]`. As process 1 of its namespace nothing inside can kill
it; it runs no line of a program itself. `python3 runner.py --channel FD` is one program process without the rest (tests).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import json
import os
import platform
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

if __name__ == "__main__":  # run as a file, through a link in the image: the package lies around the real one
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio does without; a waiting container is smaller without OpenSSL
from sandbox_image import program

if __name__ == "__main__":
    del sys.modules["ssl"]  # programs may import it

VERSION = 1
HEADER = struct.Struct(">I")
MOST_BYTES = 1 << 16
LEASE_S = 8.0
CHANNEL_FD = 3
LIBRARIES = "/opt/toolweaver/libraries"
SCRATCH = ("/tmp", "/dev/shm", "/dev/mqueue", "/var/tmp")
_PR_SET_DUMPABLE = 4
_OOM_FIRST = 1000


class Hangup(Exception):
    """The host is gone, or has not been heard of for a lease."""


class Supervisor:
    """Process 1: one control connection, at most one program process."""

    def __init__(self, control: socket.socket, lease_s: float) -> None:
        self._control = control
        self._lease_s = lease_s
        self._bytes = b""
        self._channels: list[int] = []
        self._child = 0
        self._n = 0
        self._wake, self._woken = os.pipe()

    def run(self) -> None:
        """Serves the host until it hangs up."""
        self._watch_children()
        self._say(op="hello", version=VERSION, python=platform.python_version())
        heard = time.monotonic()
        with contextlib.suppress(Hangup, OSError):
            while True:
                left_s = heard + self._lease_s - time.monotonic()
                if left_s <= 0:
                    return
                if self._control in self._wait(left_s):
                    for frame in self._hear():
                        self._obey(frame)
                    heard = time.monotonic()
                self._reap()

    def _watch_children(self) -> None:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _wait(self, seconds: float) -> list[Any]:
        watched: list[Any] = [self._control, self._wake]
        ready = select.select(watched, [], [], seconds)[0]
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        return ready

    def _hear(self) -> Iterator[dict[str, Any]]:
        data, descriptors, _flags, _from = socket.recv_fds(self._control, MOST_BYTES, 4)
        self._channels += descriptors
        if not data:
            raise Hangup
        self._bytes += data
        while len(self._bytes) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                return
            body, self._bytes = self._bytes[HEADER.size : end], self._bytes[end:]
            yield json.loads(body)

    def _obey(self, frame: dict[str, Any]) -> None:
        if frame["op"] == "spawn":
            self._spawn(frame["n"], self._channels.pop(0))
        elif frame["op"] == "report":
            self._say(op="report", **report())

    def _say(self, **frame: Any) -> None:
        data = json.dumps(frame).encode()
        self._control.sendall(HEADER.pack(len(data)) + data)

    def _spawn(self, n: int, channel: int) -> None:
        self._clear_up()
        self._n, self._child = n, os.fork()
        if self._child == 0:
            _become_program(channel, first=n == 1)
        os.close(channel)
        self._say(op="spawned", n=n)

    def _clear_up(self) -> None:
        """Ends everything else that runs, and empties what can be written to. What cannot be cleared ends the container."""
        if os.getpid() != 1:  # not in a container (tests): nothing here is ours alone
            return
        self._kill_all()
        for folder in SCRATCH:
            if os.path.isdir(folder) and os.access(folder, os.W_OK):
                empty(folder)

    def _kill_all(self) -> None:
        """Until no child is left: the children of the killed become ours."""
        if os.getpid() != 1:
            return
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                self._note(*os.waitpid(-1, 0))
            except ChildProcessError:
                return

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._note(pid, status)

    def _note(self, pid: int, status: int) -> None:
        if pid != self._child:
            return
        self._child = 0
        self._kill_all()  # what it started does not outlive it
        self._say(op="ended", n=self._n, code=os.waitstatus_to_exitcode(status))


def _become_program(channel: int, *, first: bool) -> NoReturn:
    """In the forked process: away from everything of process 1, then into the program."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        _only_keep(channel)
        _die_first()
        program.serve(socket.socket(fileno=CHANNEL_FD), rehearsed=first)  # the first one waits in the pool
    finally:
        os._exit(1)


def _only_keep(channel: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(channel, CHANNEL_FD + 100, inheritable=False)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.dup2(CHANNEL_FD + 100, CHANNEL_FD, inheritable=False)
    os.closerange(CHANNEL_FD + 1, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))


def _die_first() -> None:
    """When memory is short the program is to go, not process 1, which reports it. Only a dumpable process may say so."""
    dumpable(True)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(_OOM_FIRST))
    dumpable(False)


def dumpable(yes: bool) -> None:
    """A process that is not dumpable cannot be looked into through /proc by others of its user."""
    _libc.prctl(_PR_SET_DUMPABLE, int(yes), 0, 0, 0)


_libc = ctypes.CDLL(None, use_errno=True)


def empty(folder: str) -> None:
    """Removes everything in a folder, however deep, however locked by its modes: each folder is lifted to the top, then emptied."""
    lifted = 0
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, stat.S_IRWXU)
            for inner in list(os.scandir(entry.path)):
                if not inner.is_dir(follow_symlinks=False):
                    os.unlink(inner.path)
                    continue
                os.chmod(inner.path, stat.S_IRWXU)
                lifted += 1
                os.rename(inner.path, os.path.join(folder, f".toolweaver-{os.getpid()}-{lifted}"))
            os.rmdir(entry.path)


# What the inspection wants to know


def report() -> dict[str, Any]:
    """What process 1 sees of its own walls; every figure is read or tried at this moment."""
    return {
        "python": platform.python_version(),
        "pid": os.getpid(),
        "hash_seed_fixed": not sys.flags.hash_randomization,
        "status": _status(
            "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"
        ),
        "mounts": _mounts(),
        "writable": [path for path in _folders() if os.access(path, os.W_OK)],
        "limits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}")) for name in ("nofile", "nproc", "core", "fsize")
        },
        "interfaces": _interfaces(),
        "sockets": [name for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG") if _opens(name)],
        "refused": {name: _refused(number) for name, number in _CALLS.get(platform.machine(), {}).items()},
        "environment": sorted(os.environ),
        "tools": [
            name
            for name in ("sh", "bash", "gcc", "cc", "curl", "wget", "pip", "pip3", "apt-get", "su", "mount")
            if shutil.which(name)
        ],
    }


def _status(*names: str) -> dict[str, str]:
    with open("/proc/self/status") as lines:
        pairs = (line.partition(":") for line in lines)
        return {name: value.strip() for name, _, value in pairs if name in names}


def _mounts() -> list[dict[str, str]]:
    with open("/proc/self/mountinfo") as lines:
        return [_mount(line) for line in lines]


def _mount(line: str) -> dict[str, str]:
    before, _, after = line.partition(" - ")
    kind, _source, options = [*after.split(), "", "", ""][:3]
    fields = before.split()
    return {"at": fields[4], "options": fields[5], "type": kind, "super": options[:200]}


def _folders() -> list[str]:
    found = ["/", "/etc", "/home", "/opt/toolweaver", "/run", "/run/toolweaver", "/usr", "/var", *SCRATCH]
    return sorted({*found, *(mount["at"] for mount in _mounts())})


def _interfaces() -> list[str]:
    with open("/proc/net/dev") as lines:
        return [line.partition(":")[0].strip() for line in lines if ":" in line]


def _opens(family: str) -> bool:
    try:
        socket.socket(
            getattr(socket, family), socket.SOCK_RAW if family in ("AF_NETLINK", "AF_PACKET") else socket.SOCK_STREAM
        ).close()
    except (OSError, AttributeError):
        return False
    return True


# Harmless with these arguments (all -1) even where they are allowed: they then fail for another reason.
_CALLS = {
    "x86_64": {
        "ptrace": 101,
        "bpf": 321,
        "io_uring_setup": 425,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "keyctl": 250,
        "mount": 165,
    },
    "aarch64": {
        "ptrace": 117,
        "bpf": 280,
        "io_uring_setup": 425,
        "perf_event_open": 241,
        "userfaultfd": 282,
        "keyctl": 219,
        "mount": 40,
    },
}


def _refused(number: int) -> bool:
    ctypes.set_errno(0)
    failed = _libc.syscall(number, -1, -1, -1, -1, -1) == -1
    return failed and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)


# Start


def main() -> None:
    """Reads the arguments and becomes process 1, or one program process."""
    if sys.flags.hash_randomization:  # a replayed program must meet its sets in the same order
        os.execve(sys.executable, [sys.executable, "-s", "-B", *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", help="where the host listens")
    parser.add_argument(
        "--lease", type=float, default=LEASE_S, help="seconds without a word of the host after which the container ends"
    )
    parser.add_argument("--channel", type=int, help="be one program process on this descriptor")
    chosen = parser.parse_args()
    _mend_paths()
    dumpable(False)
    program.warm_up()
    gc.collect()
    gc.freeze()  # so that collections in the children leave the shared pages alone
    if chosen.channel is not None:
        program.serve(socket.socket(fileno=chosen.channel))
    control = socket.socket(socket.AF_UNIX)
    control.connect(chosen.socket)
    Supervisor(control, chosen.lease).run()


def _mend_paths() -> None:
    """Programs import the standard library and the image's libraries, nothing of ours."""
    sys.path.remove(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.realpath(__file__))]
    if os.path.isdir(LIBRARIES):
        sys.path.append(LIBRARIES)


if __name__ == "__main__":
    main()
