"""What is told about a catalog beside its tools: what changed, and how its servers are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

ServerKind = Literal["stdio", "http", "openapi"]
ServerStatus = Literal["up", "down", "starting"]
_HASH_BITS = 256


@dataclass(frozen=True, slots=True)
class CatalogHash:
    """Tells whether two catalogs hold the same versions of the same tools, and follows a change without a look at the others.

    The sum of the SHA-256 of each `name version`, modulo 2**256 (MSet-Add-Hash; Clarke, Devadas, van Dijk, Gassend and Suh,
    "Incremental Multiset Hash Functions", ASIACRYPT 2003): the order does not count, and what is taken out is as if never there.
    It finds what was missed or mixed up, not what somebody forged.
    """

    value: int = 0

    @classmethod
    def of(cls, versions: Iterable[tuple[str, str]]) -> Self:
        """The hash of these names and versions."""
        return cls(sum(_term(name, version) for name, version in versions) % (1 << _HASH_BITS))

    @classmethod
    def read(cls, text: str) -> Self:
        """From `str()` of one."""
        return cls(int(text, 16))

    def add(self, name: str, version: str) -> Self:
        """With one tool more."""
        return type(self)((self.value + _term(name, version)) % (1 << _HASH_BITS))

    def remove(self, name: str, version: str) -> Self:
        """Without a tool that it has."""
        return type(self)((self.value - _term(name, version)) % (1 << _HASH_BITS))

    def __str__(self) -> str:
        return f"{self.value:064x}"


def _term(name: str, version: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{name} {version}".encode()).digest(), "big")


class Diff(BaseModel):
    """What became of tools, by name: new, with another content, gone."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Quarantined(BaseModel):
    """A tool that is kept out of the catalog until somebody has approved it: this version of it, and why."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: str
    version: str
    reasons: tuple[str, ...] = ()


class Refusal(BaseModel):
    """Something a server listed that is no tool, by the name it has there."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    native_name: str
    reason: str


class ServerState(BaseModel):
    """How a server was when its worker last looked; `at` is in Unix seconds, `version` the server's own.

    `reach` is a hash of how it was reached when it listed its tools: asked in another way, it may rightly offer other ones.

    `away` are tools that it offered once and not now, and its version then: should they come back as others, that is a change.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")  # a newer worker may say more

    name: str
    kind: ServerKind = "stdio"
    state: ServerStatus = "starting"
    error: str | None = None
    protocol: str | None = None
    version: str | None = None
    reach: str = ""
    tools: int = Field(default=0, ge=0)
    quarantined: tuple[Quarantined, ...] = ()
    refused: tuple[Refusal, ...] = ()
    diff: Diff | None = None
    away: dict[str, str | None] = Field(default_factory=dict)
    at: float = 0.0
    worker: str = ""
