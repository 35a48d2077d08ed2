"""Whether a pool can run on this machine: its packages are there, and its own check has nothing against it."""

from __future__ import annotations

import importlib

from orchestrator.broker.queues import POOLS
from orchestrator.errors import BackendError, RequestError, ToolWeaverError
from orchestrator.extras import install_command, missing_packages
from orchestrator.settings import Settings


def refusal(pool: str, settings: Settings) -> tuple[str, int] | None:
    """What is said, and with which exit code, where the pool cannot run; None where it can."""
    try:
        require(pool, settings)
    except (RequestError, BackendError) as error:
        return f"pool {pool} is not started: {in_one_line(error)}", 3 if isinstance(error, BackendError) else 2
    return None


def require(pool: str, settings: Settings) -> None:
    """Makes sure that a pool can run here.

    Raises:
        RequestError: packages of it are not installed.
        BackendError: what it needs is not there, or not as it must be.
    """
    known = POOLS.get(pool)
    if known is None:
        return
    if known.extra and (missing := missing_packages(known.extra)):
        raise RequestError(f"{', '.join(missing)} not installed", next=f"Run `{install_command(known.extra)}`.")
    if known.check:
        importlib.import_module(known.check).able(settings)


def in_one_line(error: ToolWeaverError) -> str:
    """What is wrong and the next move."""
    move = (error.next or "").rstrip(".")
    return f"{error.message}; {move[:1].lower()}{move[1:]}" if move else error.message
