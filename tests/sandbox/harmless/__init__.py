"""Harmless programs as language models write them, with what must come of each."""

from __future__ import annotations

import importlib

from tests.sandbox.harmless.case import Harmless

AREAS = ("stdlib", "language", "concurrency", "data", "calling", "imports", "values", "habits", "long", "references")

PROGRAMS: tuple[Harmless, ...] = tuple(
    case for area in AREAS for case in importlib.import_module(f"tests.sandbox.harmless.{area}").CASES
)
