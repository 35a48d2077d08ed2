"""What the last run of `discover_all` found, in a file that only its owner reads: JSON, checked like everything from outside."""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from orchestrator.models.catalog import ServerState
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_discovery.servers import write_private

log = logging.getLogger(__name__)

FILE = "discovered_tools.json"
FORMAT: Literal[1] = 1
RETRY_S = 60.0
MOST_BYTES = 256 << 20
MOST_FORMER = 2_000
_TOOLS = TypeAdapter(list[ToolDefinition])


class Found(BaseModel):
    """What one source offered.

    `key` says of what state of its configuration, `at` (Unix seconds) when. `former` are tools that are quarantined now, gone,
    or whose server did not answer, as they were before: a tool is compared with what it was when it was let in, however long ago.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    key: str = ""
    at: float = 0.0
    failed: bool = False
    state: ServerState | None = None
    known_version: str | None = None
    known_reach: str = ""
    tools: tuple[ToolDefinition, ...] = ()
    former: tuple[ToolDefinition, ...] = ()

    def fresh(self, now: float, ttl: float) -> bool:
        """Whether it still counts; a failure counts for a minute."""
        return 0 <= now - self.at < (min(RETRY_S, ttl) if self.failed else ttl)

    def known(self) -> dict[str, ToolDefinition]:
        """The tools as they were let in, by name."""
        return {t.name: t for t in (*self.former, *self.tools)}


class Cached(BaseModel):
    """One run; `key` covers everything that a run depends on beside time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    key: str = ""
    found: tuple[Found, ...] = ()

    def fresh(self, key: str, now: float, ttl: float) -> bool:
        """Whether a run now would find the same."""
        return self.key == key and all(f.fresh(now, ttl) for f in self.found)


def read(path: Path) -> Cached | None:
    """The last run; None when there is none, or the file is not one of ours."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        with _uncollected():
            return Cached.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as e:
        log.info("%s is not used: %s", path, str(e).splitlines()[0], extra={"action": "cache_unread"})
        return None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing that is being read is garbage yet, and looking for it takes twice as long as the reading."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def write(path: Path, cached: Cached) -> None:
    """Replaces the file at once. One that cannot be written costs time on the next run, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, cached.model_dump_json(exclude_defaults=True))
    except OSError as e:
        log.warning("%s cannot be written: %s", path, e, extra={"action": "cache_unwritten"})


def key_of(*parts: bytes) -> str:
    """A key over the parts."""
    digest = hashlib.sha256(str(FORMAT).encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def bytes_of(tools: Iterable[ToolDefinition]) -> bytes:
    """The tools as bytes, the same for the same tools."""
    return _TOOLS.dump_json(list(tools), exclude_defaults=True)
