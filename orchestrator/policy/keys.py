"""Keys of the API: made here, looked up here, kept as hashes only.

A key is `tw_<id>_<secret>`. Its secret has 256 random bits, so SHA-256 is enough: a slow hash guards what people
choose and others can guess; nobody guesses this, and every request would pay for the slowness.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import redis
from redis.exceptions import OutOfMemoryError

from orchestrator.errors import Conflict, NotFound
from orchestrator.models.access import Caller, CreateKeyRequest, KeyInfo, NewKey, Scope
from orchestrator.state.keys import API_KEYS, api_key
from orchestrator.state.scripts import Scripts

T = TypeVar("T")
LUA = Path(__file__).parent / "lua"
CACHE_S = 1.0  # a revoked key is refused after this
CACHED = 4_096
USED_EVERY_S = 60  # `used` is written at most so often
_KEY = re.compile(r"tw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SCOPES: tuple[Scope, ...] = ("read", "write", "admin", "worker")


def split_key(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key's text; None when it is no key."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """All keys, of all tenants; a key that was revoked stays listed, so that the audit log can be read."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types one method for its sync and async client at once
        self._scripts = Scripts(client, LUA)

    def create(self, request: CreateKeyRequest) -> NewKey:
        """A new key; its text is in `key`, this once."""
        id, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), self._now()
        fields = {
            "tenant": request.tenant,
            "name": request.name,
            "scopes": " ".join(s for s in _SCOPES if s in request.scopes),
            "created": now,
            "hash": digest(secret),
        }
        if request.expires_s is not None:
            fields["expires"] = now + request.expires_s
        pipe = self._redis.pipeline()
        pipe.hset(api_key(id), mapping=fields)
        pipe.zadd(API_KEYS, {id: now})
        pipe.execute()
        return NewKey(**self.info(id).model_dump(), key=f"tw_{id}_{secret}")

    def any(self) -> bool:
        """Whether a key was ever made: revoking the last one must not open the door again."""
        return bool(self._redis.exists(API_KEYS))

    def list(self, tenant: str | None = None) -> list[KeyInfo]:
        """The keys, oldest first."""
        ids = [i.decode() for i in self._redis.zrange(API_KEYS, 0, -1)]
        now, pipe = self._now(), self._redis.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(api_key(id))
        rows = zip(ids, pipe.execute(), strict=True) if ids else ()
        found = [_info(id, row, now) for id, row in rows if row]
        return [k for k in found if tenant is None or k.tenant == tenant]

    def info(self, id: str) -> KeyInfo:
        """One key.

        Raises:
            NotFound: there is none of that id.
        """
        row = self._redis.hgetall(api_key(id))
        if not row:
            raise NotFound(f"There is no key `{id[:64]}`.", path="id", next="`toolweaver keys list` shows those that there are.")
        return _info(id, row, self._now())

    def revoke(self, id: str) -> KeyInfo:
        """Ends a key; revoking twice is once."""
        self.info(id)
        self._scripts.call("revoke", [api_key(id)], [])
        return self.info(id)

    def rotate(self, id: str, *, grace_s: float) -> NewKey:
        """A new secret for a key; the one before stays valid for `grace_s`, an older one ends now.

        Raises:
            Conflict: the key is not valid any more.
        """
        if not self.info(id).valid:
            raise Conflict(f"The key `{id}` is revoked or has ended.", next="Make a new one: `toolweaver keys create`.")
        secret, until = secrets.token_urlsafe(32), self._now() + grace_s

        def change(pipe: Any) -> None:
            before = pipe.hget(api_key(id), "hash")
            pipe.multi()
            pipe.hset(api_key(id), mapping={"hash": digest(secret), "old": before, "old_until": until})

        self._redis.transaction(change, api_key(id))
        return NewKey(**self.info(id).model_dump(), key=f"tw_{id}_{secret}")

    def find(self, text: str) -> KeyInfo | None:
        """The key of that text if it is valid now."""
        parts = split_key(text)
        if parts is None:
            return None
        id, secret = parts
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(api_key(id))
        pipe.time()
        row, (seconds, _) = pipe.execute()
        given = digest(secret)
        current, old = (row.get(f, b"").decode() for f in (b"hash", b"old"))
        known = _info(id, row, float(seconds)) if row else None
        # Both are compared in any case, so that the time taken tells nothing.
        matches = [hmac.compare_digest(given, current), hmac.compare_digest(given, old)]
        if known is None or not known.valid or not (matches[0] or (matches[1] and known.old_until is not None)):
            return None
        if known.used is None or seconds - known.used.timestamp() >= USED_EVERY_S:
            with suppress(OutOfMemoryError):  # a full store keeps nobody from cancelling
                self._redis.hset(api_key(id), "used", seconds)
        return known

    def _now(self) -> float:
        seconds, _ = self._redis.time()
        return float(seconds)


class KeyRing:
    """The keys as one process of the API meets them: an answer of the store is kept for a second."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[float, KeyInfo]] = OrderedDict()
        self._alive: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._any = (0.0, False)
        self._lock = threading.Lock()

    def caller(self, text: str, *, address: str) -> Caller | None:
        """Who sends this key; None when it is not valid."""
        key = self._find(text)
        return caller_of(key, address=address) if key is not None else None

    def any_known(self) -> bool | None:
        """Whether there is a key at all, as far as that is known without asking the store; None when it is not."""
        until, known = self._any
        return known if known or time.monotonic() < until else None  # once there is one, there always is

    def any(self) -> bool:
        """Whether there is a key at all."""
        known = self.any_known()
        if known is None:
            known = self._store.any()
            self._any = (time.monotonic() + CACHE_S, known)
        return known

    def alive(self, id: str) -> bool:
        """Whether the key of that id is still valid; for what goes on for long."""
        now = time.monotonic()
        with self._lock:
            hit = self._alive.get(id)
        if hit is not None and now < hit[0]:
            return hit[1]
        valid = self._store.info(id).valid
        with self._lock:
            _keep(self._alive, id, (now + CACHE_S, valid))
        return valid

    def _find(self, text: str) -> KeyInfo | None:
        place, now = digest(text), time.monotonic()
        with self._lock:
            hit = self._known.get(place)
        if hit is not None and now < hit[0]:
            return hit[1]
        found = self._store.find(text)
        with self._lock:
            if found is not None:  # what is no key is not kept: made-up ones would push the true ones out
                _keep(self._known, place, (now + CACHE_S, found))
            else:
                self._known.pop(place, None)
        return found


def _keep(cache: OrderedDict[str, T], place: str, value: T) -> None:
    cache.pop(place, None)
    cache[place] = value
    while len(cache) > CACHED:
        cache.popitem(last=False)


def caller_of(key: KeyInfo, *, address: str) -> Caller:
    return Caller(tenant=key.tenant, key=key.id, name=key.name, scopes=frozenset(key.scopes), address=address)


def scopes_of(text: str) -> tuple[Scope, ...]:
    """The scopes of a stored text; what is no scope any more is left out."""
    return tuple(cast(Iterable[Scope], (s for s in text.split() if s in _SCOPES)))


def _info(id: str, row: Mapping[bytes, bytes], now: float) -> KeyInfo:
    def at(field: bytes) -> datetime | None:
        return datetime.fromtimestamp(float(row[field]), UTC) if field in row else None

    expires, revoked, old_until = at(b"expires"), at(b"revoked"), at(b"old_until")
    moment = datetime.fromtimestamp(now, UTC)
    return KeyInfo(
        id=id,
        tenant=row[b"tenant"].decode(),
        name=row[b"name"].decode(),
        scopes=scopes_of(row[b"scopes"].decode()),
        created=datetime.fromtimestamp(float(row[b"created"]), UTC),
        expires=expires,
        used=at(b"used"),
        revoked=revoked,
        old_until=old_until if old_until is not None and old_until > moment else None,
        valid=revoked is None and (expires is None or expires > moment),
    )
