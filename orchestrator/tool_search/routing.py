"""When a planner searches, and what it takes along: all tools while they are a small part of its window, the best ones after that.

Twenty tools are 1,000 tokens or 20,000, so what counts is the share of the model's window that all schemas take; a number of tools
decides when the caller sets one, or does not know the window.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger(__name__)

SHARE = 0.1
THRESHOLD = 20  # tools; where neither a window nor a threshold is given


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to search, and why in a few words."""

    search: bool
    reason: str


def decide(tools: int, tokens: int, *, window: int | None = None, share: float = SHARE, threshold: int | None = None) -> Decision:
    """Whether so many tools with so many tokens are too many to show them all.

    Args:
        tools: visible tools.
        tokens: of their schemas together.
        window: tokens that the model reads at most; None: not known.
        share: the part of the window that tools may take.
        threshold: a number of tools that decides alone, whatever their tokens.
    """
    if threshold is None and window is None:
        threshold = THRESHOLD
    if threshold is not None:
        return Decision(tools > threshold, f"{tools} tools, {'more than' if tools > threshold else 'at most'} {threshold}")
    assert window is not None
    room = share * window
    more = tokens > room
    return Decision(
        more, f"{tokens:,} tokens of {tools} tools, {'more than' if more else 'within'} {share:.0%} of a window of {window:,}"
    )


def saved_line(tools: int, chosen: int, *, saved: float) -> str:
    """What is logged of a choice: "30 tools -> 10 relevant (~66.7% token reduction)"; `saved` is a share of the tokens."""
    return f"{tools:,} tools -> {chosen} relevant (~{100 * saved:.1f}% token reduction)"


def saved_share(tokens_all: int, tokens_chosen: int) -> float:
    """The part of the tokens that a choice saves, 0 to 1."""
    return max(0.0, 1 - tokens_chosen / tokens_all) if tokens_all else 0.0
