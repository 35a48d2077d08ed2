"""The optional parts of the installation: which there are, and what of each is missing."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

DISTRIBUTION = "toolweaver"


def extras() -> tuple[str, ...]:
    """The names of all extras of this distribution."""
    return tuple(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())


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


def _fits(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
