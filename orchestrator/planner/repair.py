"""Sending a plan back: the model sees its own answer and what the check found in it, and nothing else.

What it read before stays as it was, byte for byte, so that the provider's cache holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.planner.prompt import fenced
from orchestrator.providers.model import Block, ModelReply, ModelRequest, Turn

MOST = 20  # findings that are sent back at once; mending those often mends the rest
_SHOWN = ("path", "code", "message", "next", "example")
_TEXT = 600


def asked_again(request: ModelRequest, reply: ModelReply, problems: Sequence[Mapping[str, Any]]) -> ModelRequest:
    """The next request of a planning: the same, with the model's answer and what is to be mended."""
    turn = reply.turn or Turn("assistant", (Block(reply.text),))
    said = (turn,) if reply.text.strip() or turn.uses else ()  # vendors refuse empty turns
    return replace(request, turns=_joined((*request.turns, *said, _findings(problems))), purpose="repair")


def _findings(problems: Sequence[Mapping[str, Any]]) -> Turn:
    more = f" {len(problems) - MOST} more were found." if len(problems) > MOST else ""
    text = "\n".join(
        [
            f"The plan was not accepted; nothing of it ran. What is wrong, by place:{more}",
            fenced("problems", map(_row, problems[:MOST])),
            "Answer with the whole plan, mended, as one JSON object.",
        ]
    )
    return Turn("user", (Block(text),))


def _row(problem: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _short(problem[name]) for name in _SHOWN if problem.get(name) is not None}


def _short(value: Any) -> Any:
    return f"{value[:_TEXT]}…" if isinstance(value, str) and len(value) > _TEXT else value


def _joined(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Turns that alternate: two of the same role in a row are one."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role == "user":
            joined[-1] = replace(joined[-1], blocks=(*joined[-1].blocks, *turn.blocks))
        else:
            joined.append(turn)
    return tuple(joined)
