"""Confirmed uses in Redis: one ordered log, so that every replica learns the same; a use can be taken back.

A query is its tenant's data. Its text (`QUERY_BYTES` at most) stands in `FEEDBACK_ENTRIES` and nowhere else in Redis; `undo`
deletes the entry at once and leaves a mark with its id alone, and the oldest go when a tenant has more than `MOST_OF_A_TENANT`.
Replicas keep the uses in memory until they have read the mark, and vectors of queries in the cache of embeddings by digest.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from orchestrator.errors import LimitExceeded, RequestError
from orchestrator.state.keys import FEEDBACK, FEEDBACK_ENTRIES, FEEDBACK_OWN, FEEDBACK_STATE
from orchestrator.state.scripts import Scripts
from orchestrator.tool_search.feedback import MOST_OWN, MOST_USED, Use

QUERY_BYTES = 2_048
MOST_OF_A_TENANT = MOST_OWN
MOST = 200_000
"""Entries of all tenants; then the oldest goes, whosever it is."""
_PAGE = 1_000
_NOBODY = "-"
_KEYS = (FEEDBACK, FEEDBACK_ENTRIES, FEEDBACK_STATE, FEEDBACK_OWN)


@dataclass(frozen=True, slots=True)
class Gone:
    """Uses of a tenant that were taken back."""

    tenant: str | None
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class News:
    """What was told since, in order and with its number in the log, up to `number`.

    `anew`: forget all that was read before, this is everything. What is below `floor` is not kept any more.
    """

    entries: tuple[tuple[int, Use | Gone], ...]
    after: str
    number: int
    floor: int
    anew: bool


class FeedbackStore:
    """The log of confirmed uses. Threads may share a store.

    Every call may raise redis errors; `orchestrator.state.connection.transient` knows those that pass.
    """

    def __init__(self, client: redis.Redis, *, most_of_a_tenant: int = MOST_OF_A_TENANT, most: int = MOST) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._scripts = Scripts(client, Path(__file__).parent / "lua")
        self._limits = (most_of_a_tenant, most)

    def add(self, query: str, used: Sequence[str], ok: bool = True, tenant: str | None = None, *, id: str | None = None) -> str:
        """Tells that these tools were used for a query, and whether they did what was wanted; gives the use's id.

        Of no tenant: everybody learns from it. Under an id of the caller's own it may be told again, which changes nothing.

        Raises:
            RequestError: no query, or no tool. LimitExceeded: more than `MOST_USED` tools.
        """
        return self.tell(query, used, ok, tenant, id=id).id

    def tell(self, query: str, used: Sequence[str], ok: bool = True, tenant: str | None = None, *, id: str | None = None) -> Use:
        """As `add`; gives the use as it is kept."""
        query, names, id = _bounded(query), _names(used), id or secrets.token_hex(12)
        told = json.dumps({"q": query, "u": names, "ok": ok}, ensure_ascii=False, separators=(",", ":"))
        at = self._scripts.call("tell", _KEYS, [id, _owner(tenant), told, secrets.token_hex(6), *self._limits])
        return Use(id, float(at), tenant, query, names, ok)

    def undo(
        self, id: str | None = None, *, since: float | None = None, all: bool = False, tenant: str | None = None
    ) -> tuple[str, ...]:
        """Takes back one use of a tenant, those since a time (Unix seconds), or all; gives their ids, those that there were.

        What was learned from them is forgotten, and ranking is what it would be had they never been told.

        Raises:
            RequestError: not exactly one of the three is given.
        """
        if (id is not None) + (since is not None) + all != 1:
            raise RequestError("It is not said which uses to take back", next="Give one of `id`, `since`, `all`.")
        wanted = [id] if id is not None else [u.id for u in self.uses(tenant) if since is None or u.ts >= since]
        found: list[str] = []
        for start in range(0, len(wanted), _PAGE):
            args = [_owner(tenant), secrets.token_hex(6), *wanted[start : start + _PAGE]]
            found += [raw.decode() for raw in self._scripts.call("untell", _KEYS, args)]
        return tuple(found)

    def uses(self, tenant: str | None) -> tuple[Use, ...]:
        """The uses of a tenant (None: the shared ones), oldest first."""
        owner = _owner(tenant)
        name = f"u{len(owner)}:{owner} "  # as lua/feedback.lua names them
        own = [str(int(raw[len(name) :])) for raw in self._redis.zrangebylex(FEEDBACK_OWN, f"[{name}", f"[{name}~")]
        pages = (self._redis.hmget(FEEDBACK_ENTRIES, own[n : n + _PAGE]) for n in range(0, len(own), _PAGE))
        kept = (_entry(json.loads(raw)) for page in pages for raw in page if raw is not None)  # one may go meanwhile
        return tuple(e for e in kept if isinstance(e, Use))

    def read(self, after: str = "") -> News:
        """What was told since a former answer's `after`; with "" everything."""
        raw = self._redis.hmget(FEEDBACK_STATE, "epoch", "number")
        epoch, number = (raw[0] or b"").decode(), int(raw[1] or 0)
        known, _, told = after.partition(":")
        anew = not after or known != epoch or int(told) > number
        if not anew and int(told) == number:
            return News((), after, number, 0, anew=False)
        entries = tuple(self._numbered(0 if anew else int(told)))
        last = max([number, *(n for n, _ in entries[-1:])])
        first = self._redis.zrange(FEEDBACK, 0, 0)
        return News(entries, f"{epoch}:{last}", last, int(first[0]) if first else last + 1, anew)

    def _numbered(self, after: int) -> Iterator[tuple[int, Use | Gone]]:
        """What stands in the log behind a number; a page is read whole, so a use that goes meanwhile is in it or not."""
        while page := self._scripts.call("news", [FEEDBACK, FEEDBACK_ENTRIES], [after, _PAGE]):
            for number, raw in zip(page[::2], page[1::2], strict=True):
                after = int(number)
                yield after, _entry(json.loads(raw))


class Log:
    """What is live of a log that was read: fed with each `News`, equal wherever the same was read."""

    def __init__(self, most_of_a_tenant: int = MOST_OF_A_TENANT) -> None:
        self._most = most_of_a_tenant
        self._live: dict[str | None, dict[str, tuple[int, Use]]] = {}  # by tenant and id, in order

    def take(self, news: News) -> bool:
        """Applies news; whether anything changed."""
        changed = news.anew and bool(self._live)
        if news.anew:
            self._live = {}
        for number, entry in news.entries:
            changed |= self._told(number, entry) if isinstance(entry, Use) else self._untold(entry)
        for uses in self._live.values():
            for id in [id for id, (number, _) in uses.items() if number < news.floor]:
                del uses[id]
        return changed

    @property
    def uses(self) -> tuple[Use, ...]:
        """Live uses in the order of the log."""
        return tuple(use for _, use in sorted((one for uses in self._live.values() for one in uses.values()), key=lambda o: o[0]))

    def _told(self, number: int, use: Use) -> bool:
        own = self._live.setdefault(use.tenant, {})
        own[use.id] = number, use
        if len(own) > self._most:
            del own[next(iter(own))]
        return True

    def _untold(self, gone: Gone) -> bool:
        own = self._live.get(gone.tenant, {})
        return any([own.pop(id, None) for id in gone.ids])  # noqa: C419  all of them


def _entry(kept: dict[str, Any]) -> Use | Gone:
    tenant = None if kept["tenant"] == _NOBODY else kept["tenant"][1:]
    if "gone" in kept:
        return Gone(tenant, tuple(kept["gone"]))
    told = json.loads(kept["use"])
    return Use(kept["id"], float(kept["at"]), tenant, told["q"], tuple(told["u"]), told["ok"])


def _owner(tenant: str | None) -> str:
    """No tenant is not a tenant of an empty or any other name."""
    return _NOBODY if tenant is None else f"={tenant}"


def _bounded(query: str) -> str:
    kept = query.strip().encode("utf-8", "replace")[:QUERY_BYTES].decode("utf-8", "ignore")
    if not kept:
        raise RequestError("Feedback without a query", path="query", next="Give the query that the tools were used for.")
    return kept


def _names(used: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(used))
    if not names:
        raise RequestError("Feedback without a tool", path="used", next="Name the tools that were used.")
    if len(names) > MOST_USED:
        raise LimitExceeded(f"Feedback names {len(names)} tools; the limit is {MOST_USED}", path="used", next="Name fewer.")
    return names
