"""Starts an MCP server in a group of processes that ends with whoever started it, even when that one is killed.

Run as a script, without this package: `python -I -S launch.py LIFELINE COMMAND [ARG ...]`. LIFELINE is a descriptor to read
from; nobody ever writes there. When its other end closes, because the starter is done or dead, all that came of it is killed.
The kernel's signal for a parent's death would not do: it reaches neither what the server started itself, nor comes at all when
another thread of the starter lives on.
"""

import os
import select
import signal
import sys


def main(lifeline: int, command: list[str]) -> int:
    """Runs the command until it ends or the lifeline closes; its exit status, 128 + the signal's number where one ended it."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a group that is asked to end is watched until it did
    server = os.fork()
    if not server:
        _become(command, lifeline)
    _let_go_of_its_pipes()
    _adopt_orphans()
    code = None
    while code is None:
        ready, _, _ = select.select([lifeline, woken], [], [])
        if lifeline in ready:
            break
        os.read(woken, 64)
        code = _buried(server)
    _end_what_is_left()
    return 137 if code is None else code


def _buried(server: int) -> int | None:
    """Takes leave of all that ended; the exit status of the server when it did."""
    code = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == server:
                code = _exit_code(ended[1])
    except ChildProcessError:
        pass
    return code


def _adopt_orphans() -> None:
    """On Linux, what the server leaves behind becomes ours, even if it has left the group, and can be ended."""
    try:
        import ctypes  # noqa: PLC0415  (the server starts meanwhile)

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    except (ImportError, AttributeError, OSError):
        pass


def _end_what_is_left() -> None:
    """Ends all that came from here. What loses its parent by that becomes ours and is next."""
    try:
        while children := _children():
            for child in children:
                os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)
    except OSError:  # no /proc here, or nobody left to wait for
        os.killpg(0, signal.SIGKILL)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as said:
        return [int(pid) for pid in said.read().split()]


def _become(command: list[str], lifeline: int) -> None:
    try:
        os.close(lifeline)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as e:
        os.write(2, f"cannot start {command[0]}: {e.strerror}\n".encode())
    os._exit(127)


def _let_go_of_its_pipes() -> None:
    """The server alone holds its stdin, stdout and stderr, so that their ends are seen when it ends."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
