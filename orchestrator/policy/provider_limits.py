"""How much a provider of models is asked, by all processes together: requests and tokens a minute, and pauses that it asks for.

A sliding window, by the clock of Redis alone. A request counts from when it gets its place until one window after it has surely
arrived: it ended, or `SLACK` of a window passed since (who comes later to send it asks for a new place). So in no window do
more requests arrive than the limit says, and about 95 % of it can be used although a model answers slowly. The sliding log is
the exact one of the usual ways; fixed windows let twice the limit pass, and an average over two windows is no bound.

Tokens are reserved by an estimate, and the estimate is replaced by what the server counted. What was used beyond it cannot be
taken back; it counts from then on. A request larger than the limit goes alone. Who dies leaves its place behind, which
lapses with the window.

Who waits holds a place in a queue: a place is given to who leaves enough for those before it, so nobody starves.

While Redis is away every request passes, as with the circuit breakers; a line in the log says so.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import redis

from orchestrator.errors import RequestError
from orchestrator.settings import Settings
from orchestrator.state.connection import transient
from orchestrator.state.keys import provider_window
from orchestrator.state.scripts import Scripts

LUA = Path(__file__).parent / "lua"
MINUTE_S = 60.0
SLACK = 0.05  # of a window: so long may a request take from its place to the server
GRACE = 1 / 12  # of a window: so long after its time may a ticket come back
MAX_PAUSE_S = 600.0  # a server that asks for longer is asked again after this
AWAY_S = 1.0  # after Redis failed to answer it is not asked again for so long
ANY = -1

Reason = Literal["requests", "tokens", "paused"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Most:
    """What one provider may be asked in a minute; None: any number."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Leave to send one request, soon; settle it once. `kept` is False when Redis was away and nobody counts."""

    provider: str
    id: str
    tokens: int
    kept: bool = True
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Wait:
    """No leave yet: for how long about, when to look again (places give back tokens that they did not need), and why."""

    seconds: float
    again_s: float
    reason: Reason
    text: str


class ProviderLimits:
    """The limits of all providers. Its methods block for one round trip; those who ask are threads of many processes.

    Args:
        default: What holds for a provider that `named` does not name.
        window_s: The time that limits are meant for; other than a minute only in tests.
        slack_s: How long a request may take from its place to the server; default: `SLACK` of the window.
    """

    def __init__(
        self,
        client: redis.Redis,
        default: Most,
        named: Mapping[str, Most] | None = None,
        *,
        window_s: float = MINUTE_S,
        slack_s: float | None = None,
    ) -> None:
        self._scripts = Scripts(client, LUA)
        self._default, self._named = default, dict(named or {})
        self.window_s, self.slack_s = window_s, window_s * SLACK if slack_s is None else slack_s
        self._away_until = float("-inf")

    @classmethod
    def of(cls, settings: Settings, client: redis.Redis) -> ProviderLimits:
        """The limits that the settings say.

        Raises:
            RequestError: `provider_limits` cannot be read.
        """
        default = Most(settings.provider_requests_per_minute, settings.provider_tokens_per_minute)
        return cls(client, default, read_limits(settings.provider_limits))

    def most(self, provider: str) -> Most:
        """What a provider may be asked in a minute."""
        return self._named.get(provider, self._default)

    def reserve(self, provider: str, *, tokens: int, ticket: str | None = None, later: bool = False) -> Place | Wait:
        """Leave to send one request that uses about so many tokens, or how long to wait for it.

        Args:
            ticket: Who asks; it keeps its place in the queue when it comes back in time. Who gives up calls `leave`.
            later: It comes back after `seconds`, not after `again_s`.
        """
        most, id = self.most(provider), secrets.token_hex(8)
        want = max(0, tokens if most.tokens is None else min(tokens, most.tokens))
        limits = [ANY if n is None else n for n in (most.requests, most.tokens)]
        times = [_ms(s) for s in (self.window_s, self.slack_s, self.window_s * GRACE)]
        at = time.monotonic()
        answer = self._call("provider_reserve", provider, [id, ticket or id, want, *limits, *times, int(later)])
        if not answer:
            return Place(provider, id, want, kept=answer is not None, at=at)
        ms, again, reason = answer
        return Wait(ms / 1000, again / 1000, reason.decode(), self._text(provider, reason.decode()))

    def in_time(self, place: Place) -> bool:
        """Whether a request may still be sent on its place; else `release` it and ask for another."""
        return not place.kept or time.monotonic() - place.at < self.slack_s / 2

    def settle(self, place: Place, tokens: int | None) -> None:
        """A request has ended, and used so many tokens; None: nobody knows, so the estimate stands."""
        self._end(place, "" if tokens is None else str(tokens))

    def release(self, place: Place) -> None:
        """A request was never sent."""
        self._end(place, "-")

    def leave(self, provider: str, ticket: str) -> None:
        """Who asked with this ticket comes back no more."""
        self._call("provider_leave", provider, [ticket])

    def pause(self, provider: str, seconds: float) -> None:
        """No process asks this provider for so long, as its server wants; for ten minutes at most."""
        if seconds > 0:
            self._call("provider_pause", provider, [_ms(min(seconds, MAX_PAUSE_S))])

    def _end(self, place: Place, real: str) -> None:
        if place.kept:
            self._call("provider_settle", place.provider, [place.id, place.tokens, real, _ms(self.window_s)])

    def _text(self, provider: str, reason: str) -> str:
        most = self.most(provider)
        if reason == "paused":
            return f"the server of `{provider}` wants a pause"
        number, unit = (most.requests, "requests") if reason == "requests" else (most.tokens, "tokens")
        return f"`{provider}` may be asked {number:,} {unit} a minute, and they are in use"

    def _call(self, script: str, provider: str, args: Sequence[Any]) -> Any:
        """The script's answer; None while Redis is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return self._scripts.call(script, provider_window(provider), args) or ()
        except redis.RedisError as error:
            if not transient(error):
                raise
            self._away_until = time.monotonic() + AWAY_S
            log.warning("limits of providers are not kept, the store is away: %s", error, extra={"action": "limits_away"})
            return None


def read_limits(texts: Sequence[str]) -> dict[str, Most]:
    """Limits by provider, from `openai=500/200000` (requests/tokens a minute; `-`: no limit).

    Raises:
        RequestError: a text is none.
    """
    return dict(_read_limit(text) for text in texts)


def _read_limit(text: str) -> tuple[str, Most]:
    name, equals, numbers = (part.strip() for part in text.partition("="))
    requests, _, tokens = (part.strip() for part in numbers.partition("/"))
    try:
        most = Most(*(None if n in ("", "-") else int(n) for n in (requests, tokens)))
    except ValueError:
        most = Most(0)
    if not (name and equals) or any(n is not None and n < 1 for n in (most.requests, most.tokens)):
        raise RequestError(
            f"`{text}` is no limit of a provider.", path="provider_limits",
            next="Write requests and tokens a minute as `openai=500/200000`; `-` stands for no limit.",
        )  # fmt: skip
    return name, most


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
