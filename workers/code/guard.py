"""Waits for its pool to end, then removes what the pool left: `python -m workers.code.guard PLACE OWNER ENGINE`.

It has a session of its own, so that what kills the pool's process group spares it, and imports nothing while it waits.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Returns when the pool has cleaned up itself; otherwise becomes the sweep."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its pool, and not before
    if sys.stdin.buffer.read() == b"done":
        return
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers.code.leases", *sys.argv[1:]])


if __name__ == "__main__":
    main()
