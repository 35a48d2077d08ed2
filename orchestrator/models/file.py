"""A file that the platform keeps for a tenant: its reference on the wire, and what is known of it."""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "blob:sha256:"
REF_PATTERN = rf"^{PREFIX}[0-9a-f]{{64}}$"
UNTYPED = "application/octet-stream"
MAX_NAME = 255

_REF = re.compile(rf"{PREFIX}([0-9a-f]{{64}})")
_IN_JSON = re.compile(rf'"{PREFIX}([0-9a-f]{{64}})"'.encode())
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")


class FileRef(BaseModel):
    """A file: pass its `ref` where a plan or a tool takes a file."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    ref: str = Field(pattern=REF_PATTERN)
    size: int = Field(ge=0, description="bytes")
    media_type: str = UNTYPED
    name: str = ""
    created_at: datetime
    expires_at: datetime = Field(description="kept at least until then, and as long as a kept job names it")

    @property
    def sha256(self) -> str:
        return self.ref.removeprefix(PREFIX)


class FilePage(BaseModel):
    """A page of files, newest first; `next_cursor` fetches the following one."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    files: tuple[FileRef, ...]
    next_cursor: str | None = None


class Artifact(BaseModel):
    """A file that a call of a job made."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    call: str
    step: str
    file: FileRef


class ArtifactPage(BaseModel):
    """A page of files that a job made; `next_cursor` fetches the following one."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    artifacts: tuple[Artifact, ...]
    next_cursor: str | None = None


def reference(sha256: str) -> str:
    """How the file of that hash is named."""
    return PREFIX + sha256


def digest_of(ref: str) -> str | None:
    """The SHA-256 that a reference names; None when it is no reference."""
    found = _REF.fullmatch(ref)
    return found[1] if found else None


def digests_in(text: bytes) -> set[str]:
    """The files that a JSON text names: whole strings only."""
    return {m.decode() for m in _IN_JSON.findall(text)} if PREFIX.encode() in text else set()


def clean_name(name: str) -> str:
    """A file's name without folders and control characters, so that it is safe to show and to save under."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if c.isprintable()).strip()
    return "" if kept in (".", "..") else kept[:MAX_NAME]


def clean_media_type(declared: str | None) -> str:
    """A media type without its parameters; what is none becomes plain bytes."""
    kind = (declared or "").partition(";")[0].strip()
    return kind.lower() if _MEDIA_TYPE.fullmatch(kind) else UNTYPED
