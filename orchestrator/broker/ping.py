"""Whether a Celery process of this host takes messages: `python -m orchestrator.broker.ping`, the health check of containers."""

from __future__ import annotations

import socket
import sys

from kombu.exceptions import OperationalError

from orchestrator.broker.app import make_app
from orchestrator.settings import Settings, load_settings

TIMEOUT_S = 5.0


def answers(settings: Settings, *, host: str | None = None, timeout_s: float) -> bool:
    """Whether a planner or pool that runs on `host` (default: this one) answers within `timeout_s` seconds."""
    nodes = f"*@{host or socket.gethostname()}"
    control = make_app(settings).control
    found = control.broadcast("ping", reply=True, pattern=nodes, matcher="glob", timeout=timeout_s, limit=1)  # type: ignore[arg-type]  # its stubs are wrong
    return bool(found)


def main() -> int:
    """The exit code: 0 when one answers, else 1."""
    try:
        if answers(load_settings(), timeout_s=TIMEOUT_S):
            return 0
        sys.stderr.write(f"no Celery process of {socket.gethostname()} answers\n")
    except OperationalError as error:
        sys.stderr.write(f"the broker does not answer: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
