"""What vendors publish on their prompt caches, as data with source and date, and a cache that follows it.

A prompt is a row of pieces in the order in which the vendor puts it together; a cache remembers beginnings of prompts. Two ways
are published: one that is looked for by itself, in blocks of tokens (OpenAI before gpt-5.6, Gemini), and one at marks, which are
written and found again as wholes (Anthropic, and OpenAI from gpt-5.6 on).

Not simulated, since no numbers are published or they are chance: routing to machines and its overflow, eviction under load,
implicit caches that miss without a reason (Gemini promises nothing).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

Way = Literal["blocks", "marks"]


@dataclass(frozen=True)
class Rule:
    """One vendor's rule for some of its models; `provider` and `model` are as prices name them."""

    name: str
    provider: str
    model: str
    way: Way
    minimum: int  # tokens that a beginning must have
    block: int  # hits are whole blocks of so many tokens; 1 where none is published
    ttl_s: float  # since the last use
    source: str
    date: str
    marks: int = 0  # that one request may write
    lookback: int = 0  # content blocks before a mark in which an older mark's entry is found
    implicit_mark: bool = False  # the end of the prompt is a mark too


READ = "2026-11-21"
"""When the sources were read."""

RULES: tuple[Rule, ...] = (
    Rule(
        "openai-gpt-4o", "openai", "gpt-4o", "blocks", 1024, 128, 300,
        "OpenAI, Cookbook `prompt_caching_201`: from 1024 tokens, in blocks of 128; idle for 5 to 10 minutes (Azure's page)", READ,
    ),
    Rule(
        "openai-gpt-5.6", "openai", "gpt-5.6", "marks", 1024, 1, 1800,
        "openai 3.52.0, `prompt_cache_options`: one implicit and the latest 3 explicit breakpoints written, the latest 80 looked "
        "up, not rounded, 30 minutes; a mark is found only as a whole (guide `prompt-caching`)", READ,
        marks=3, implicit_mark=True,
    ),
    Rule(
        "anthropic-sonnet-5", "anthropic", "claude-sonnet-5", "marks", 1024, 1, 300,
        "Anthropic, guide `prompt-caching`, with LiteLLM's table of 2026-10-07: 1024 tokens, 4 marks, 20 blocks back, 5 minutes",
        READ, marks=4, lookback=20,
    ),
    Rule(
        "anthropic-haiku-4-5", "anthropic", "claude-haiku-4-5", "marks", 4096, 1, 300,
        "the same, 4096 tokens for Haiku 4.5, Opus 4.5 and 4.6", READ, marks=4, lookback=20,
    ),
    Rule(
        "gemini-2.5-pro", "gemini", "gemini-2.5-pro", "blocks", 4096, 1, 300,
        "Google, `ai.google.dev` context caching, implicit: 2048 (2026-07-07) or 4096 (2026-05-07), the larger is taken; no "
        "block size and no lifetime are published, so 5 minutes are assumed", READ,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """Text that stands together in a prompt: a tool, or one block of content. `mark`: a cache breakpoint at its end."""

    text: str
    mark: bool = False


@dataclass(frozen=True)
class Verdict:
    """Tokens of one request: all, those read from the cache, and those written to it."""

    total: int
    hit: int
    written: int


@dataclass
class Cache:
    """A vendor's cache by its rule. `count` is not enough: prefixes are compared token by token, so it takes an encoder."""

    rule: Rule
    encode: Callable[[str], Sequence[int]]
    _seen: list[tuple[list[int], float]] = field(default_factory=list)  # of `blocks`: prompts, and until when they live
    _marks: dict[str, float] = field(default_factory=dict)  # of `marks`: until when a beginning lives

    def ask(self, pieces: Sequence[Piece], now: float) -> Verdict:
        """What one more request finds there at that second, and leaves there."""
        return self._by_blocks(pieces, now) if self.rule.way == "blocks" else self._by_marks(pieces, now)

    def _by_blocks(self, pieces: Sequence[Piece], now: float) -> Verdict:
        tokens = [t for p in pieces for t in self.encode(p.text)]
        alive = [(old, until) for old, until in self._seen if until >= now]
        common = max((_common(tokens, old) for old, _ in alive), default=0)
        hit = common // self.rule.block * self.rule.block if common >= self.rule.minimum else 0
        used = [(old, now + self.rule.ttl_s if hit and _common(tokens, old) >= hit else until) for old, until in alive]
        self._seen = [*used, (tokens, now + self.rule.ttl_s)]
        return Verdict(len(tokens), hit, 0)

    def _by_marks(self, pieces: Sequence[Piece], now: float) -> Verdict:
        rule, ends = self.rule, self._ends(pieces)
        marked = [at for at, piece in enumerate(pieces) if piece.mark]
        written = marked[-rule.marks :] + ([len(pieces) - 1] if rule.implicit_mark and pieces else [])
        looked = {at - back for at in written for back in range(rule.lookback + 1) if at >= back}
        if rule.implicit_mark:
            looked |= set(marked[-80:])
        self._marks = {key: until for key, until in self._marks.items() if until >= now}
        found = max((at for at in looked if ends[at][1] in self._marks), default=None)
        hit = ends[found][0] if found is not None else 0
        kept = [at for at in written if ends[at][0] >= rule.minimum]
        for at in [*kept, *([found] if found is not None else [])]:
            self._marks[ends[at][1]] = now + rule.ttl_s
        total = ends[-1][0] if ends else 0
        return Verdict(total, hit, max(0, max((ends[at][0] for at in kept), default=0) - hit))

    def _ends(self, pieces: Sequence[Piece]) -> list[tuple[int, str]]:
        """Tokens up to each piece's end, and what names that beginning."""
        ends, count, name = [], 0, sha256()
        for piece in pieces:
            count += len(self.encode(piece.text))
            name.update(len(piece.text).to_bytes(8, "big") + piece.text.encode())
            ends.append((count, name.hexdigest()))
        return ends


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def prompt(body: Mapping[str, Any]) -> list[Piece]:
    """The pieces of a request's body, in the order in which the vendor puts the prompt together.

    OpenAI: tools, schema, then messages. Anthropic: tools, system, messages. Gemini: system instruction, tools, contents.
    """
    if "contents" in body:
        system, tools = body.get("systemInstruction", {}).get("parts", []), body.get("tools", [])
        declared = [d for tool in tools for d in tool.get("functionDeclarations", [])]
        return [*map(_part, system), *map(_part, declared), *(_part(p) for c in body["contents"] for p in c["parts"])]
    tools = list(map(_part, body.get("tools", [])))
    schema = body.get("text", {}).get("format") or body.get("response_format") or body.get("output_config")
    before = [*tools, *([_part(schema)] if schema else []), *_content(body.get("system")), *_content(body.get("instructions"))]
    return [*before, *(p for m in body.get("input") or body.get("messages") or [] for p in _message(m))]


def _message(message: Mapping[str, Any]) -> list[Piece]:
    return _content(message["content"]) if message.get("content") else [_part(message)]


def _content(content: Any) -> list[Piece]:
    return [Piece(content)] if isinstance(content, str) else list(map(_part, content or ()))


def _part(part: Mapping[str, Any]) -> Piece:
    """A part's words: its text, or all of it as JSON."""
    mark = "cache_control" in part or "prompt_cache_breakpoint" in part
    bare = {k: v for k, v in part.items() if k not in ("cache_control", "prompt_cache_breakpoint")}
    return Piece(bare["text"] if isinstance(bare.get("text"), str) else json.dumps(bare, ensure_ascii=False), mark)
