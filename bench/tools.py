"""The tool that the engine's benchmark runs: none."""

from __future__ import annotations

from orchestrator.catalog.register import register_function


@register_function("bench_noop", effect="none")
def bench_noop() -> None:
    """Does nothing."""


@register_function("bench_list", effect="none")
def bench_list(n: int) -> list[int]:
    """A list of n numbers."""
    return list(range(n))
