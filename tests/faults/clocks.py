"""Clocks that are wrong: libfaketime before a process, which leaves the monotonic clock alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LIBRARY = "libfaketimeMT.so.1"
_MENDED = Path(__file__).parent / "misled"
_PLACES = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime")


def missing() -> str | None:
    """Why no clock can be misled here."""
    return None if _library() else "Debian's package faketime is not installed"


def ahead(by: str, *, path: str) -> Mapping[str, str]:
    """The environment of a Python whose clock is wrong, such as by `+2h`, and whose modules lie at `path`."""
    return {
        "LD_PRELOAD": str(_library()), "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": f"{_MENDED}:{path}",
    }  # fmt: skip


def from_file(place: Path) -> Mapping[str, str]:
    """The environment of a process whose clock follows the file: see `turn`."""
    turn(place, "+0")
    return {
        "LD_PRELOAD": str(_library()), "FAKETIME_TIMESTAMP_FILE": str(place), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


def turn(place: Path, by: str) -> None:
    """Sets how far the clock is wrong from now on; in one step, since it may be read at any time."""
    new = place.with_suffix(".new")
    new.write_text(by)
    new.replace(place)


def _library() -> Path | None:
    return next((p for place in _PLACES if (p := Path(place) / LIBRARY).exists()), None)
