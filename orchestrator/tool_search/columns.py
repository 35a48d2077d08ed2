"""What is told about each tool beside its words and its vector: name, version, row, filters' group, tokens, exact names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.tool_search.document import Document, Group
from orchestrator.tool_search.postings import Strings

DIGEST = 16


def text_digest(text: str) -> str:
    """What a text's vector is kept by: 32 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: 2 * DIGEST]


def hash_of(name: bytes) -> np.uint64:
    """64 bits of a name; two names may share them, so whoever finds one looks at the name."""
    return np.uint64(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big"))


@dataclass(frozen=True, slots=True)
class Columns:
    """One entry for each tool, in the order of their names' bytes."""

    names: Strings
    versions: Strings
    rows: Strings
    called: Strings  # exact names in lower case, a zero byte between them
    digests: NDArray[np.uint8]
    group_of: NDArray[np.int32]
    groups: tuple[Group, ...]
    tokens: NDArray[np.int32]
    hashes: NDArray[np.uint64]  # of exact names, ascending
    hashed: NDArray[np.int32]  # the tool that each is of

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Columns:
        """Of documents that are in order already."""
        groups = {g: n for n, g in enumerate(sorted({d.group for d in documents}, key=group_json))}
        hashes, hashed = _hashes((n, name) for n, d in enumerate(documents) for name in d.names)
        return cls(
            names=Strings.of(d.name.encode() for d in documents),
            versions=Strings.of(d.version.encode() for d in documents),
            rows=Strings.of(d.row for d in documents),
            called=Strings.of("\0".join(d.names).encode() for d in documents),
            digests=np.frombuffer(bytes.fromhex("".join(text_digest(d.text) for d in documents)), np.uint8).reshape(-1, DIGEST),
            group_of=np.fromiter((groups[d.group] for d in documents), np.int32, len(documents)),
            groups=tuple(groups),
            tokens=np.fromiter((d.tokens for d in documents), np.int32, len(documents)),
            hashes=hashes,
            hashed=hashed,
        )

    def __len__(self) -> int:
        return len(self.names)

    def exact(self, name: str) -> list[int]:
        """The tools that have an exact name (in lower case)."""
        wanted = name.encode("utf-8", "surrogatepass")
        digest = hash_of(wanted)
        first, last = np.searchsorted(self.hashes, digest, "left"), np.searchsorted(self.hashes, digest, "right")
        return [int(r) for r in self.hashed[first:last] if wanted in self.called[int(r)].split(b"\0")]


def _hashes(named: Iterable[tuple[int, str]]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    pairs = [(hash_of(name.encode("utf-8", "surrogatepass")), row) for row, name in named]
    hashes = np.array([h for h, _ in pairs], np.uint64)
    order = np.argsort(hashes, kind="stable")
    return hashes[order], np.array([r for _, r in pairs], np.int32)[order]


def group_json(group: Group) -> bytes:
    """A group as it stands in a file."""
    return json.dumps(group, ensure_ascii=False).encode()


def group_of_json(raw: bytes) -> Group:
    """A group as it stood in a file."""
    tenants, requires, tags, server, pool, deprecated = json.loads(raw)
    return Group(None if tenants is None else tuple(tenants), tuple(requires), tuple(tags), server, pool, deprecated)
