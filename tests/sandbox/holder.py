"""A process with a pool, for tests that kill it: prints its ids, holds one container, and waits."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.sandbox.lab import sandbox_settings
from workers.code.pool import SandboxPool


async def hold(folder: str, lease_s: float) -> None:
    """Starts the pool and never ends."""
    pool = SandboxPool(sandbox_settings(sandbox_dir=Path(folder), sandbox_lease_s=lease_s))
    await pool.start()
    async with pool.take() as sandbox, pool.take(job="j", reuse=True):
        told = {"owner": pool.owner.id, "guard": pool.owner.guard_pid, "container": sandbox.id}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], float(sys.argv[2])))
