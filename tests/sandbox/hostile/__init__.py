"""Hostile programs, as one writes them who knows Linux, Docker, CPython and our protocol; none of them may get anywhere."""

from __future__ import annotations

import importlib

from tests.sandbox.hostile.program import Hostile

AREAS = ("resources", "kernel", "files", "network", "forgery", "jail", "leakage", "misuse")

PROGRAMS: tuple[Hostile, ...] = tuple(
    program for area in AREAS for program in importlib.import_module(f"tests.sandbox.hostile.{area}").PROGRAMS
)


MANY = 20  # programs of one area


def quick() -> tuple[Hostile, ...]:
    """What every run of the tests takes: a quarter of an area of many programs, and one in twelve of the variants of attacks."""
    chosen: list[Hostile] = []
    for area in dict.fromkeys(program.area for program in PROGRAMS):
        plain = [p for p in PROGRAMS if p.area == area and not p.variant]
        variants = [p for p in PROGRAMS if p.area == area and p.variant]
        chosen += [*(plain if len(plain) <= MANY else plain[::4]), *variants[::12]]
    return tuple(chosen)
