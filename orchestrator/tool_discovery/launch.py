"""Starts an MCP server in a group of processes that ends with whoever started it, even when that one is killed.

Run as a script, without this package: `python -I -S launch.py LIFELINE COMMAND [ARG ...]`. LIFELINE is a descriptor to read
from; nobody ever writes there. When its other end closes, because the starter is done or dead, the whole group is killed.
The kernel's signal for a parent's death would not do: it reaches neither what the server started itself, nor comes at all when
another thread of the starter lives on.
"""

import contextlib
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
    if server == 0:
        _become(command, lifeline)
    _let_go_of_its_pipes()
    while True:
        ready, _, _ = select.select([lifeline, woken], [], [])
        if lifeline in ready:
            os.killpg(0, signal.SIGKILL)
        os.read(woken, 64)
        ended, status = os.waitpid(server, os.WNOHANG)
        if ended:
            return _exit_code(status)


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
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
