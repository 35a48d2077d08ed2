"""A second host on this machine: a network namespace with one cable to this one, and a file system view without our folders.

Processes over there see no socket and no state of a platform here; they reach it by TCP at `first`, or not at all. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NETWORK = "198.18"  # the range for tests of networks; a part of it for each test process

# Lays an empty disk of its own over each folder that the other host must not see, then becomes the command.
_BECOME = """
set -e
while [ "$1" != -- ]; do mount -t tmpfs tmpfs "$1"; shift; done
shift
cd /
exec "$@"
"""


@dataclass(frozen=True)
class SecondHost:
    """Where commands run as if on another machine."""

    name: str
    cable: str
    first: str  # the address of this host, as seen from there

    def command(self, words: Sequence[str], *, hidden: Sequence[Path]) -> list[str]:
        """The command that runs `words` there; the process is theirs, without a shell between."""
        over_there = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--propagation", "private"]
        return [*over_there, "sh", "-c", _BECOME, "sh", *map(str, hidden), "--", *words]

    def pull_cable(self) -> None:
        """Nothing comes through; no connection is told."""
        _run("ip", "link", "set", self.cable, "down")

    def plug_in(self) -> None:
        _run("ip", "link", "set", self.cable, "up")


@contextmanager
def second_host() -> Iterator[SecondHost]:
    """A host that is gone after the block."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("a second host needs root and Debian's package iproute2")
    number = os.getpid()
    subnet, there = f"{NETWORK}.{number % 256}", f"twb{number}"
    host = SecondHost(f"tw{number}", f"twa{number}", f"{subnet}.1")
    _run("ip", "netns", "add", host.name)
    try:
        _run("ip", "link", "add", host.cable, "type", "veth", "peer", "name", there, "netns", host.name)
        _run("ip", "address", "add", f"{host.first}/30", "dev", host.cable)
        host.plug_in()
        for words in (
            ["address", "add", f"{subnet}.2/30", "dev", there],
            ["link", "set", there, "up"],
            ["link", "set", "lo", "up"],
        ):
            _run("ip", "-netns", host.name, *words)
        yield host
    finally:
        _run("ip", "netns", "delete", host.name)  # its end of the cable goes with it, and so does ours


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)
