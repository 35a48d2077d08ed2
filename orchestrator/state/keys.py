"""The one builder of Redis keys. All keys of a job carry the tag of its shard, so that a cluster keeps them together."""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass
from functools import lru_cache

WORKERS = "tw:workers"
WORKERS_INFO = "tw:workers:info"
CATALOG = "tw:catalog"
CATALOG_VERSION = "tw:catalog:version"


@dataclass(frozen=True, slots=True)
class Shard:
    """Keys that all jobs of one shard share."""

    number: int

    def _key(self, name: str) -> str:
        return f"tw:{{s{self.number}}}:{name}"

    @property
    def accepted(self) -> str:
        """Jobs that wait for the planner, by time: the outbox of `plan_job`."""
        return self._key("accepted")

    @property
    def leases(self) -> str:
        """Running calls, by the time at which they count as lost."""
        return self._key("leases")

    @property
    def timers(self) -> str:
        """Calls that wait for their retry, by due time."""
        return self._key("timers")

    @property
    def marks(self) -> str:
        """By `queue|priority`, the publish time of the youngest call that was claimed."""
        return self._key("marks")

    @property
    def queues(self) -> str:
        """Names of the queues in use."""
        return self._key("queues")

    @property
    def envelopes(self) -> str:
        """Messages with blanks, by format, queue, tool and priority."""
        return self._key("envelopes")

    @property
    def leader(self) -> str:
        """The reconciler that works on this shard now."""
        return self._key("leader")

    def queued(self, queue: str) -> str:
        """Published and not yet claimed calls of a queue, by publish time: its outbox."""
        return self._key(f"queued:{queue}")

    def index(self, tenant: str) -> str:
        """Jobs of a tenant, by time of acceptance."""
        return self._key(f"jobs:{tenant}")

    def idempotency(self, tenant: str, key: str) -> str:
        """What a tenant's idempotency key was used for."""
        return self._key(f"idem:{tenant}:{key}")


@dataclass(frozen=True, slots=True)
class JobKeys:
    """Keys of one job."""

    shard: Shard
    job: str

    def _key(self, name: str) -> str:
        return f"tw:{{s{self.shard.number}}}:{name}:{self.job}"

    @property
    def state(self) -> str:
        """Hash: the ledger."""
        return self._key("job")

    @property
    def data(self) -> str:
        """Hash: plan, inputs, results and errors."""
        return self._key("data")

    @property
    def big(self) -> str:
        """Hash by SHA-256: values too large to stand inline."""
        return self._key("big")

    @property
    def events(self) -> str:
        """Stream of what happened."""
        return self._key("events")


@lru_cache(maxsize=4096)
def job_keys(job: str, shards: int) -> JobKeys:
    """The keys of a job; its id decides the shard."""
    return JobKeys(Shard(crc32(job.encode()) % shards), job)


def tenant_shard(tenant: str, key: str, shards: int) -> Shard:
    """The shard that remembers a tenant's idempotency key."""
    return Shard(crc32(f"{tenant}/{key}".encode()) % shards)


def all_shards(shards: int) -> list[Shard]:
    return [Shard(n) for n in range(shards)]
