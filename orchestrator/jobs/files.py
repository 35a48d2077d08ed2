"""What jobs have to do with files: values too large for Redis, files that a job names, files that its calls made."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import redis

from orchestrator.errors import BackendError, NotFound
from orchestrator.jobs.blobs import Blobs
from orchestrator.jobs.books import VALUE, Note
from orchestrator.jobs.ledger import LUA, Claim
from orchestrator.jobs.values import BLOB, Elsewhere, Kept, Stored, decode, elsewhere, encode, stored
from orchestrator.models.file import Artifact, digests_in, reference
from orchestrator.settings import Settings
from orchestrator.state.keys import JobKeys, job_keys
from orchestrator.state.scripts import Scripts

JSON = "application/json"


class JobFiles:
    """Large values and files of jobs; `blobs` holds the bytes."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.redis: Any = client  # redis-py types one method for its sync and async client at once
        self.settings = settings
        self.blobs = Blobs(client, settings)
        self._scripts = Scripts(client, LUA)
        self._kept = Kept(settings.kept_bytes)

    def submitted(self, job: str, *, plan: bytes, inputs: bytes, tenant: str) -> bytes:
        """The inputs as they are stored; the files that plan and inputs name are kept from now on.

        Raises:
            NotFound: the tenant has no such file.
        """
        missing = self.blobs.books.name(tenant, digests_in(plan) | digests_in(inputs), job=job)
        if missing and not self.redis.exists(self._keys(job).state):  # else it was accepted by an earlier request
            raise _missing(min(missing))
        if len(inputs) <= self.settings.blob_bytes:
            return inputs
        made = stored(inputs, self.settings)
        self._put(made, tenant=tenant, job=job)
        return made.field

    def inputs(self, job: str, number: int = 0) -> dict[str, Any]:
        """The job's inputs, for its plan of that number; kept, since a map must not fetch its list once per item."""
        name = f"{job}@{number}" if number else job
        found, value = self._kept.get(name)
        if not found:
            raw: bytes = self.redis.hget(self._keys(job).data, "inputs") or b"{}"
            value = self.read_inputs(job, raw)
            self._kept.put(name, value, len(raw))
        return dict(value)

    def read_inputs(self, job: str, field: bytes) -> dict[str, Any]:
        """Stored inputs as values."""
        if field[:1] != BLOB:
            return dict(json.loads(field))
        where = elsewhere(field)
        assert where is not None, "such a field says where its value lies"
        return dict(self._values(job, {where})[where.sha256])

    def keep(self, claim: Claim, value: Any, *, files: Collection[str] = ()) -> Stored:
        """A result in the form in which it is committed; what is too large for Redis lies in the blob store then.

        The files that it names are kept as long as the job; `files` are those that the call made, by SHA-256.

        Raises:
            ToolError: it is no JSON value, or too large.
            BackendError: the blob store does not take it.
        """
        made = encode(value, self.settings)
        self._note_files(claim, made, files)
        if not made.blob:
            return made
        self._put(made, tenant=claim.tenant, job=claim.job)
        return Stored(made.field)

    def decoded(self, job: str, fields: Sequence[bytes | None]) -> Sequence[Any]:
        """The values of stored results."""
        places = {where for f in fields if f is not None and (where := elsewhere(f))}
        large = self._values(job, places) if places else {}
        return [decode(f, large) for f in fields]

    def decoded_small(self, job: str, fields: Sequence[bytes | None]) -> Sequence[Any]:
        """The same, but a value in the blob store is only named: `{"$blob": "blob:sha256:...", "size": ...}`."""
        small = [None if f is None or f[:1] == BLOB else f for f in fields]
        values = self.decoded(job, small)
        return [_named(f) if f is not None and f[:1] == BLOB else v for f, v in zip(fields, values, strict=True)]

    def artifacts(self, job: str, calls: Sequence[str], *, tenant: str) -> list[Artifact]:
        """The files that these calls of a job made, by their attempt that was committed."""
        keys = self._keys(job)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(keys.state, [f"c:{c}" for c in calls])
        pipe.hmget(keys.data, [f"a:{c}" for c in calls])
        found = []
        for call, state, raw in zip(calls, *pipe.execute(), strict=True):
            made = json.loads(raw) if raw is not None else {}
            if made and state is not None and state.decode().startswith(f"s|{made['attempt']}|"):
                for sha256 in made["files"]:
                    if booked := self.blobs.books.find(tenant, sha256):
                        found.append(Artifact(call=call, step=call.replace("#", ".").partition(".")[0], file=booked.file))
        return found

    def _note_files(self, claim: Claim, made: Stored, files: Collection[str]) -> None:
        self.blobs.books.name(claim.tenant, digests_in(made.blob or made.large or made.field), job=claim.job)
        if files:
            note = json.dumps({"attempt": claim.attempt, "files": sorted(files)})
            self._scripts.call("job_files", [self._keys(claim.job).data], [f"a:{claim.call}", note])

    def _put(self, made: Stored, *, tenant: str, job: str) -> None:
        where = elsewhere(made.field)
        assert where is not None, "a value for the blob store does not stand inline"
        note = Note(media_type=JSON, kind=VALUE, job=job)
        self.blobs.put(made.blob, tenant=tenant, note=note, sha256=where.sha256)

    def _values(self, job: str, places: Iterable[Elsewhere]) -> Mapping[str, Any]:
        """Large values by SHA-256; some are kept, since every call of a map may read the same list."""
        found: dict[str, Any] = {}
        missing = []
        for where in places:
            is_kept, value = self._kept.get(where.sha256)
            if is_kept:
                found[where.sha256] = value
            else:
                missing.append(where)
        beside = [w.sha256 for w in missing if not w.in_blobs]
        texts = dict(zip(beside, self.redis.hmget(self._keys(job).big, beside), strict=True)) if beside else {}
        for where in missing:
            text = self._blob(job, where.sha256) if where.in_blobs else texts[where.sha256]
            if text is not None:
                found[where.sha256] = value = json.loads(text)
                self._kept.put(where.sha256, value, len(text))
        return found

    def _blob(self, job: str, sha256: str) -> bytes:
        tenant = self.redis.hget(self._keys(job).state, "tenant") or b"default"
        try:
            return b"".join(self.blobs.read(sha256, tenant=tenant.decode()))
        except NotFound:
            raise BackendError(
                f"the value `{reference(sha256)}` of {job} is not in the blob store any more",
                next="Run the job again; if this comes back, look at the store.",
            ) from None

    def _keys(self, job: str) -> JobKeys:
        return job_keys(job, self.settings.shards)


def is_named(value: Any) -> bool:
    """Whether a result says only where it lies."""
    return isinstance(value, dict) and "$blob" in value


def _named(field: bytes) -> dict[str, Any]:
    where = json.loads(field[1:])
    return {"$blob": reference(where["sha256"]), "size": where["size"], "media_type": JSON}


def _missing(sha256: str) -> NotFound:
    return NotFound(
        f"There is no file `{reference(sha256)}`.",
        path="inputs",
        next="Upload it with `toolweaver files upload` and pass the reference that it prints; files expire.",
    )
