"""Flower, looking at this platform's broker; on loopback and without its HTTP API, which would need a password."""

from __future__ import annotations

import sys

from orchestrator.broker.app import make_app
from orchestrator.settings import load_settings


def main(host: str, port: str) -> None:
    """Runs Flower until it is stopped."""
    make_app(load_settings()).start(["flower", f"--address={host}", f"--port={port}", "--inspect_timeout=3000"])


if __name__ == "__main__":
    main(*sys.argv[1:3])
