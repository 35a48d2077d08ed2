"""Hostile programs, as one writes them who knows Linux, Docker, CPython and our protocol; none of them may get anywhere."""

from __future__ import annotations

import importlib

from tests.sandbox.hostile.program import Hostile

AREAS = ("resources", "kernel", "files", "network", "forgery", "jail", "leakage", "misuse")

PROGRAMS: tuple[Hostile, ...] = tuple(
    program for area in AREAS for program in importlib.import_module(f"tests.sandbox.hostile.{area}").PROGRAMS
)


def quick() -> tuple[Hostile, ...]:
    """All programs but two thirds of the variants: what every run of the tests takes."""
    variants = [program for program in PROGRAMS if program.variant]
    left_out = {program.name for n, program in enumerate(variants) if n % 3}
    return tuple(program for program in PROGRAMS if program.name not in left_out)
