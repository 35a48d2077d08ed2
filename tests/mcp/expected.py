"""What each broken server must come to: whether it is up, what of its tools is let in, and how a call of `ping` ends.

`why` is found in the reason that is reported, `call` in the error of a call; `pong` is an answer. None: it is not called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.mcp.broken import hidden

PONG = "pong"
SLOW = r"(?i)in time|time[- ]?out|timed out|longer than|within|not answer|no answer|did not"
GONE = r"(?i)ended|exit|died|closed|broke|connection|gone|restart|unreachable|lost"


@dataclass(frozen=True)
class Expected:
    """`tools` are those in the catalog by native name (a number: so many); the rest must be among the refused or quarantined."""

    state: Literal["up", "down", "any"] = "up"
    tools: frozenset[str] | int = frozenset({"ping"})
    refused: int = 0  # at least
    quarantined: frozenset[str] = frozenset()
    why: str = ""
    call: str | None = PONG
    tool: str = "ping"


def _down(why: str) -> Expected:
    return Expected("down", frozenset(), why=why, call=None)


def _tools(*more: str, **rest: object) -> Expected:
    return Expected(tools=frozenset({"ping", *more}), **rest)  # type: ignore[arg-type]


def _call(fails: str) -> Expected:
    return Expected(call=fails)


TURNING = _tools("turning")
TURNED = _tools(quarantined=frozenset({"turning"}))

EXPECTED: dict[str, Expected] = {
    # Connecting
    "never_answers": _down(SLOW),
    "answers_in_an_hour": _down(SLOW),
    "dies_at_start": _down(GONE),
    "refuses": _down(r"token"),
    "old_protocol": _down(r"(?i)protocol|version"),
    "no_info": _down(r"(?i)protocol|valid|understood|initialize|answer"),
    "noise": _tools(),
    "only_noise": _down(r"no messages"),
    "bad_utf8": Expected("any", 0),
    "utf8_in_answer": Expected("any", 0),
    "wrong_ids": _down(SLOW),
    "unasked": _tools(),
    "never_reads": _down(SLOW),
    "closes_stdout": _down(GONE),
    "immortal": _tools(),
    "child": _tools(),
    "daemon": _tools(),
    "stderr_flood": Expected("any", 0),
    # Listing
    "dies_in_list": _down(GONE),
    "hundred_bytes": _down(GONE),
    "never_lists": _down(SLOW),
    "slow_pages": Expected("any", 0, call=None),
    "many_tools": Expected(tools=2_000),
    "same_cursor": _tools(),
    "growing_cursor": Expected("any", 0),
    "empty_pages": Expected("any", 0),
    "huge_line": _down(f"{SLOW}|MiB"),
    "deep_json": _down(r"."),
    "no_list": _down(r"(?i)list|tools"),
    "changed_flood": Expected(call=None),
    "schema_turns": TURNED,
    "description_turns": TURNED,
    "hint_turns": TURNED,
    # Tools that are none
    "huge_description": _tools("big"),
    "twice_same": _tools("twice"),
    "twice_different": _tools(refused=1),
    "no_schemas": _tools(refused=8),
    "references": _tools(refused=3),
    "recursion": Expected(tools=0),
    "too_deep": Expected("any", 0),
    "slow_pattern": _tools(*(f"slow_{n}" for n in range(4)), tool="slow_0", call=r"pattern"),
    "bad_pattern": Expected(tools=0),
    "huge_enum": Expected(tools=0),
    "bad_names": Expected(tools=0),
    "surrogates": Expected("any", 0),
    "hidden_orders": _tools(quarantined=frozenset(hidden())),
    # Calls
    "dies_on_call": _call(GONE),
    "dies_after_call": _tools(),
    "never_returns": _call(SLOW),
    "progress_for_ever": _call(SLOW),
    "flood": Expected(call=None),
    "nan": _call(r"."),
    "infinite": _call(r"."),
    "deep_result": _call(r"."),
    "half_a_character": Expected(call=None),
    "no_result": _call(r"."),
    "bad_blocks": Expected(call=None),
    "huge_result": Expected(call=None),
    "huge_error": _call(r"cannot log in"),
    "secret_error": _call(r"cannot log in"),
    "breaks_promise": _call(r"(?i)schema|number|five"),
    "asks_back": _call(r"(?i)nobody answers|input"),
    "needs_input": _call(r"(?i)input|asks"),
    # HTTP
    "http_500": _down(r"500"),
    "http_401": _down(r"401"),
    "http_lost_session": _call(r"(?i)session|404"),
    "http_redirect": Expected("any", 0, call=None),
    "http_redirect_on_call": Expected(call=None),
    "http_redirect_loop": _down(r"(?i)redirect|30[78]"),
    "http_endless": _down(SLOW),
    "http_endless_line": _down(r"."),
    "http_loris": _down(SLOW),
    "http_silent": _down(SLOW),
    "http_silent_call": _call(SLOW),
    "http_bomb": _down(r"."),
    "http_bomb_in_list": _down(r"."),
    "http_bomb_in_call": _call(r"."),
    "http_page": _down(r"(?i)html|content|json"),
    "http_cut": _down(r"broke off"),
}  # fmt: skip
