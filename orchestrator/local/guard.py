"""The guard: a process that does nothing until its supervisor is gone, then ends whatever that one left running.

The kernel's death signal reaches the supervisor's children, but not theirs (the children of a prefork pool): the guard does.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from orchestrator.local.processes import sweep


def main(home: str, supervisor: str) -> int:
    """Waits for the end of standard input, which the supervisor holds open, and sweeps."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    while sys.stdin.buffer.read(4096):
        pass
    sweep(Path(home), supervisor=int(supervisor), grace_s=0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
