"""The one builder of Redis keys. All keys of a job carry the tag of its shard, so that a cluster keeps them together."""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass
from functools import lru_cache

WORKERS = "tw:workers"
WORKERS_INFO = "tw:workers:info"
CATALOG = "tw:{catalog}:tools"  # a hash: the announced tools; one tag for all that one script changes
CATALOG_VERSION = "tw:{catalog}:version"  # `epoch:number:floor`: readers older than the floor read everything
CATALOG_HASHES = "tw:{catalog}:hashes"  # a hash: content hashes, by name
CATALOG_OWNERS = "tw:{catalog}:owners"  # a hash: the source that published a tool, by name
CATALOG_CHANGED = "tw:{catalog}:changed"  # names by the number of their last change
CATALOG_GONE = "tw:{catalog}:gone"  # names that were withdrawn, by the number of that change
CATALOG_FORMER = "tw:{catalog}:former"  # a hash: former tools, by `name@hash`
CATALOG_VERSIONS = "tw:{catalog}:versions"  # a hash: the hashes of former tools, latest first, by name
INDEX_REPLICAS = "tw:index:replicas"  # addresses of the index service's replicas, by when their leases end
FEEDBACK = (
    "tw:{search}:feedback"  # numbers of the entries of a log, in order: which tools were used for what, and what was taken back
)
FEEDBACK_ENTRIES = "tw:{search}:feedback:entries"  # a hash: they, by number
FEEDBACK_STATE = "tw:{search}:feedback:state"  # a hash: the log's number and epoch, and the number of each use
FEEDBACK_OWN = "tw:{search}:feedback:own"  # uses by tenant, in order
SERVERS = "tw:servers"  # a hash: how servers of tools are, by name
ENDED = "tw:ended"  # a channel: jobs that ended before their time, or calls of which were stopped
CHILDREN = "tw:children:"  # a channel per process that runs programs: calls of theirs that ended
BLOB_STORE = "tw:blobs:store"
API_KEYS = "tw:apikeys"
POLICIES = "tw:policies"
POLICIES_VERSION = "tw:policies:version"
AUDITED = "tw:audited"
METRICS = "tw:metrics"  # a hash: the counters of all processes
HEALTH = "tw:health"  # what a check writes to see that it can


def catalog_source(source: str) -> str:
    """Set: the names that a source published; whether they are still its own, the owners say."""
    return f"tw:{{catalog}}:source:{source}"


def cached(key: str) -> str:
    """String: what a `DistributedCache` keeps for a while."""
    return f"tw:cache:{key}"


def api_key(id: str) -> str:
    """Hash: what is known of a key of the API."""
    return f"tw:apikey:{id}"


def audit_log(tenant: str) -> str:
    """Stream: who did what in a tenant; one each, so that nobody can push another's entries out."""
    return f"tw:audit:{tenant}"


def audit_details(tenant: str) -> str:
    """Stream: what the latest programs of a tenant did; their entries in its log name the places."""
    return f"tw:audit:{tenant}:details"


def breaker(name: str) -> str:
    """Hash: a circuit that opens when what it protects keeps failing; one call asks several, so all share a tag."""
    return f"tw:breaker:{{b}}:{name}"


def mcp_answer(idempotency_key: str) -> str:
    """String: what a server of tools answered to a call, until the ledger has it and for a while after."""
    return f"tw:mcp:answer:{idempotency_key}"


def request_bucket(tenant: str) -> str:
    """Hash: the requests that a tenant may still make now."""
    return f"tw:requests:{tenant}"


def active_jobs(tenant: str) -> str:
    """Sorted set: jobs of a tenant that have not ended, as far as is known."""
    return f"tw:active:{tenant}"


def started_by(whom: str) -> str:
    """Sorted set: jobs and programs that were started lately by one key, by a tenant or by all, by when."""
    return f"tw:{{rates}}:{whom}"


def covered_program(job: str) -> str:
    """String: the program of a job that is not counted beside it."""
    return f"tw:{{rates}}:program:{job}"


def provider_window(provider: str) -> tuple[str, ...]:
    """What a provider of models was asked lately, and who waits for it; one tag, since one script changes all."""
    return tuple(f"tw:provider:{{{provider}}}:{part}" for part in ("leaving", "places", "sums", "queue", "tickets"))


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
        """By `queue|level`, the publish time of the youngest call that was claimed."""
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
    def load(self) -> str:
        """By gate, how many published calls hold it: of a tenant in a queue, of a tool; and jobs that wait, by tenant."""
        return self._key("load")

    @property
    def slots(self) -> str:
        """By queue, how many calls its workers run at once."""
        return self._key("slots")

    @property
    def parked(self) -> str:
        """Lanes of jobs that wait for a gate, and calls that wait for a key, in order."""
        return self._key("parked")

    @property
    def held(self) -> str:
        """Keys of tools that running calls hold."""
        return self._key("held")

    @property
    def fence(self) -> str:
        """Written to wait until it, and so all before it, is on disk."""
        return self._key("fence")

    @property
    def tenants(self) -> str:
        """Tenants that have jobs."""
        return self._key("tenants")

    @property
    def blobs_due(self) -> str:
        """`tenant|sha256` of files and large values, by when the sweep looks at them next."""
        return self._key("blobs:due")

    @property
    def blobs_pending(self) -> str:
        """Places in the blob store that no book names, yet or any more, by when they may be deleted."""
        return self._key("blobs:pending")

    @property
    def blobs_bytes(self) -> str:
        """Hash: bytes kept in the blob store, by tenant."""
        return self._key("blobs:bytes")

    def blob(self, tenant: str, sha256: str) -> str:
        """Hash: what is known of one file or large value."""
        return self._key(f"blob:{tenant}:{sha256}")

    def blob_jobs(self, tenant: str, sha256: str) -> str:
        """Jobs that name it, by when they began to."""
        return self._key(f"blob:{tenant}:{sha256}:jobs")

    def files(self, tenant: str) -> str:
        """A tenant's files by time of making; large values are not among them."""
        return self._key(f"files:{tenant}")

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
