"""What a search for tools is asked and answers: on the wire between whoever needs tools and the index service."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from orchestrator.models.access import Tenant, ToolPattern
from orchestrator.models.tool import MAX_TOOL_NAME, ToolDefinition

MOST_QUERIES = 16
MOST_HITS = 1_000
MOST_PRIORITY = 100
MOST_NAMES = 10_000
QUERY_CHARS = 2_000  # what stands behind is not read, and the answer says so; the encoder reads some 1,000 at most
DEFAULT_K = 10

ToolName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOOL_NAME)]
Grant = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,31}|\*):([a-z][a-z0-9_]{0,31}|\*)$")]
Detail = Literal["names", "summary", "schema"]
_MANY = 256
_MOST_PATTERNS = 4_096


class _Body(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class _Wire(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")  # a newer replica may say more


class Filters(_Body):
    """Which tools count at all: they are left out before anything is ranked, so that no hit and no figure tells of others.

    Every filter that is given must let a tool pass. `tags`: it has one of them; `servers`, `pools`: it is of one of them;
    `names`: it is one of them. `allowed`: of each list of patterns, one means it; `forbidden`: none does.
    `requires`: actions that are granted, such as `network:https` or `filesystem:*`; a tool passes when all that it needs
    (`policy.permissions.needed`) are among them. None: whatever it needs.
    """

    tenant: Tenant | None = Field(default="default", description="who asks; none: tools that everybody sees, only")
    tags: tuple[str, ...] = Field(default=(), max_length=_MANY)
    servers: tuple[str, ...] = Field(default=(), max_length=_MANY)
    pools: tuple[str, ...] = Field(default=(), max_length=_MANY)
    names: tuple[ToolName, ...] | None = Field(default=None, max_length=MOST_NAMES)
    allowed: tuple[tuple[ToolPattern, ...], ...] = Field(default=(), max_length=_MANY)
    forbidden: tuple[ToolPattern, ...] = Field(default=(), max_length=4 * _MANY)
    requires: tuple[Grant, ...] | None = Field(default=None, max_length=16 * _MANY)
    deprecated: bool = Field(default=False, description="with those that are not to be used any more")

    @field_validator("allowed")
    @classmethod
    def _bearable(cls, allowed: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        if (found := sum(map(len, allowed))) > _MOST_PATTERNS:
            raise ValueError(f"{found} patterns are more than {_MOST_PATTERNS}")
        return allowed

    @property
    def by_name(self) -> bool:
        """Whether a tool's name decides anything, beside the group that it is in."""
        return self.names is not None or bool(self.allowed) or bool(self.forbidden)

    def admits_group(
        self,
        *,
        tenants: Collection[str] | None,
        requires: Collection[str],
        tags: Collection[str],
        server: str | None,
        pool: str,
        deprecated: bool,
    ) -> bool:
        """Whether all but the name lets tools of such fields pass; `requires` is all that they need."""
        return (
            (tenants is None or self.tenant in tenants)
            and (self.deprecated or not deprecated)
            and (not self.tags or not set(self.tags).isdisjoint(tags))
            and (not self.servers or server in self.servers)
            and (not self.pools or pool in self.pools)
            and (self.requires is None or all(_granted(action, self.requires) for action in requires))
        )

    def admits_name(self, name: str) -> bool:
        """Whether a name passes."""
        return (
            (self.names is None or name in self.names)
            and all(any(fnmatchcase(name, p) for p in patterns) for patterns in self.allowed)
            and not any(fnmatchcase(name, p) for p in self.forbidden)
        )


class SearchRequest(_Body):
    """Body of `POST /search` of the index service, and of `POST /v1/tools/search`, where the key decides the tenant.

    `k` tools are wanted, or as many as fit `token_budget` (k bounds them then too, when it is given). Several queries share
    one answer, each with an equal part of it. `priority` tools are always in, in front, if they pass the filters; they count.
    """

    queries: tuple[str, ...] = Field(min_length=1, max_length=MOST_QUERIES)
    k: int | None = Field(default=None, ge=1, le=MOST_HITS, description=f"default: {DEFAULT_K}, or none with a `token_budget`")
    token_budget: int | None = Field(default=None, ge=1, le=10_000_000, description="tokens that the schemas of all hits may have")
    filters: Filters = Filters()
    priority: tuple[ToolName, ...] = Field(default=(), max_length=MOST_PRIORITY)
    detail: Detail = Field(default="summary", description="`names` only, `summary` with descriptions, `schema` with definitions")
    min_score: float = Field(default=0.0, ge=0.0, le=1.0, description="hits that are less likely to be meant are left out")
    min_generation: int | None = Field(default=None, ge=0, description="a replica that knows an older catalog refuses")
    deadline_ms: int | None = Field(default=None, ge=0, le=60_000, description="how long the encoder is waited for")
    explain: bool = Field(default=False, description="with the parts of every score")

    @property
    def most(self) -> int:
        """How many hits there may be."""
        return self.k if self.k is not None else DEFAULT_K if self.token_budget is None else MOST_HITS


class ScoreParts(_Wire):
    """What a score is made of."""

    lexical: float = 0.0
    cosine: float | None = Field(default=None, description="nearness of meaning; none: the encoder or the tool's vector was absent")
    learned: float = Field(default=0.0, description="what confirmed use adds")
    terms: tuple[str, ...] = Field(default=(), description="terms of the query that the tool has")


class SearchHit(_Wire):
    """One tool that was found; `score` is how likely it is meant (0 to 1), `rank_score` what it was ordered by."""

    name: str
    score: float
    rank_score: float = 0.0
    reason: str = ""
    tokens: int = Field(default=0, description="tokens of its schema as a model sees it")
    version: str = Field(default="", description="content hash of the definition")
    description: str | None = None
    tool: ToolDefinition | None = None
    queries: tuple[int, ...] = Field(default=(), description="which of the queries found it")
    priority: bool = False
    exact: bool = Field(default=False, description="a query names it")
    parts: ScoreParts | None = None


class SearchAnswer(_Wire):
    """Hits, best first, and the catalog that they are of. `degraded` says what was missing while they were looked for.

    `size` and `tokens_all` count the tools that pass the request's filters, never others.
    """

    hits: tuple[SearchHit, ...] = ()
    catalog_hash: str = ""
    generation: int = 0
    size: int = 0
    backlog: int = Field(default=0, description="tools that are found by words, but not by meaning yet")
    degraded: tuple[str, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="what of the request was not used, such as the end of a long query")
    tokens: int = Field(default=0, description="of the schemas of all hits")
    tokens_all: int = Field(default=0, description="of all schemas that pass the filters")
    took_ms: float = 0.0
    cached: bool = False
    replica: str = ""


class EmbedRequest(_Body):
    """Body of `POST /embed`."""

    texts: tuple[Annotated[str, StringConstraints(max_length=100_000)], ...] = Field(min_length=1, max_length=256)


class EmbedAnswer(_Wire):
    """One vector of length 1 for each text, and the model that made them: those of different models are not comparable."""

    model: str
    dimensions: int
    vectors: tuple[tuple[float, ...], ...]


class FeedbackRequest(_Body):
    """Body of `POST /feedback`: which tools were used for a query; `ok`: they did what was wanted."""

    query: str = Field(min_length=1, max_length=QUERY_CHARS)
    used: tuple[ToolName, ...] = Field(min_length=1, max_length=64)
    ok: bool = True
    tenant: Tenant = "default"
    id: str | None = Field(
        default=None, pattern=r"^[\w-]{1,64}$", description="of a use that may be told twice; default: a new one"
    )


class FeedbackEntry(FeedbackRequest):
    """A use that was confirmed, or denied; `at` in Unix seconds."""

    id: str
    at: float

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")


class FeedbackPage(_Wire):
    """What was told, newest first."""

    entries: tuple[FeedbackEntry, ...]
    total: int


class IndexStatus(_Wire):
    """How a replica is. `catalog_hash` must be `store_hash` where `generation` is `store_generation`."""

    replica: str
    url: str = ""
    generation: int
    catalog_hash: str
    store_generation: int | None = None
    store_hash: str | None = None
    size: int
    backlog: int
    delta: int = 0
    tombstones: int = 0
    feedback: int = Field(default=0, description="generation of what was learned")
    snapshot: str | None = Field(default=None, description="the folder that the base was read from")
    encoder: str | None = Field(default=None, description="the model of meanings; none: it is absent")
    degraded: tuple[str, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict, description="searches, swaps, merges, reloads, refused snapshots ...")
    memory_bytes: int = 0
    uptime_s: float = 0.0


def _granted(action: str, grants: Collection[str]) -> bool:
    category = action.partition(":")[0]
    return not {action, f"{category}:*", f"*:{action.partition(':')[2]}", "*:*"}.isdisjoint(grants)
