"""Follows the catalog's log: from an index of one version and what changed since, the index of the next.

Bundled tools that nobody announced are findable too, as they are plannable: they stand in the index, and not in the hash, which is
the store's. A row that cannot be read is in the hash, and not findable. So the hash says that nothing was missed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.catalog.store import CatalogStore, Row, generation_of
from orchestrator.models.catalog import CatalogHash
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.document import Document, document_of, document_of_row
from orchestrator.tool_search.index import Index

log = logging.getLogger(__name__)

BATCH = 50  # tools of one step: a search that meets it is held up by no more; a page of them is taken over at once
BREATH_S = 0.001  # between two steps, for the searches that wait


@dataclass(frozen=True, slots=True)
class Known:
    """Which catalog an index is of, beside its tools. `unreadable`, `stand_ins`: versions by name; `model`: of its vectors."""

    version: bytes | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    model: str = ""

    @property
    def epoch(self) -> str:
        """Tells a catalog from one that was there before the store was emptied."""
        return generation_of(self.version)[0]

    @property
    def generation(self) -> int:
        """The number of the latest change."""
        return generation_of(self.version)[1]

    def hash_of(self, index: Index) -> str:
        """The store's hash, if nothing was missed."""
        there = CatalogHash.read(index.catalog_hash)
        for name, version in self.unreadable.items():
            there = there.add(name, version)
        for name, version in self.stand_ins.items():
            there = there.remove(name, version)
        return str(there)


class Follower:
    """Brings indexes up to date. `bundled`: the tools that are there although nobody announced them."""

    def __init__(self, store: CatalogStore, bundled: Iterable[ToolDefinition] = (), *, batch: int = BATCH) -> None:
        self.store = store
        self._bundled = {t.name: document_of(t) for t in bundled}
        self._batch = batch

    def fresh(self, known: Known) -> bool:
        """Whether nothing changed since.

        Raises:
            redis.RedisError: the store does not answer.
        """
        return self.store.version() == known.version

    def follow(self, index: Index, known: Known) -> tuple[Index, Known] | None:
        """The index as the store has it now; None: it must be built anew.

        Raises:
            redis.RedisError: the store does not answer.
        """
        changes = self.store.changes(known.version)
        if changes is None:
            return None
        for page in changes.pages:
            index, known = self._applied(index, known, page)
        known = replace(known, version=changes.version)
        return replace(index, generation=known.generation), known

    def begin(self) -> tuple[bytes | None, Iterator[Document], Callable[[], Known]]:
        """To build anew: the version, all documents, and what is known once they were all taken; then `follow` what came meanwhile.

        Raises:
            redis.RedisError: the store does not answer.
        """
        everything = self.store.everything()
        unreadable: dict[str, str] = {}
        stand_ins = {name: d.version for name, d in self._bundled.items()}

        def documents() -> Iterator[Document]:
            for page in everything.pages:
                for row in page:
                    if row.raw is None:
                        continue
                    document = _document(row)
                    if document is None:
                        unreadable[row.name] = row.version
                    else:
                        yield document
                    stand_ins.pop(row.name, None)
            yield from (self._bundled[name] for name in stand_ins)

        return everything.version, documents(), lambda: Known(everything.version, dict(unreadable), dict(stand_ins))

    def _applied(self, index: Index, known: Known, page: Sequence[Row]) -> tuple[Index, Known]:
        unreadable, stand_ins = dict(known.unreadable), dict(known.stand_ins)
        upserts, removed = list[Document](), list[str]()
        for start in range(0, len(page), self._batch):
            for row in page[start : start + self._batch]:
                unreadable.pop(row.name, None)
                stand_ins.pop(row.name, None)
                document = _document(row) if row.raw is not None else self._bundled.get(row.name)
                if document is None:
                    removed.append(row.name)
                else:
                    upserts.append(document)
                if row.raw is None and document is not None:
                    stand_ins[row.name] = document.version
                elif row.raw is not None and document is None:
                    unreadable[row.name] = row.version
            time.sleep(BREATH_S)
        index = index.apply(upserts, removed, generation=index.generation)
        return index, replace(known, unreadable=unreadable, stand_ins=stand_ins)


def _document(row: Row) -> Document | None:
    """A row as search sees it, under the version that the store gives it; None: it cannot be read, and hides no other."""
    try:
        document = document_of_row(row.raw or b"")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("`%s` of the catalog cannot be searched: %s", row.name, error, extra={"action": "bad_row", "tool": row.name})
        return None
    return replace(document, name=row.name, version=row.version)
