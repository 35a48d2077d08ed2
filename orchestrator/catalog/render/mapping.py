"""What tools and their properties are called at a vendor, and back to our names without loss."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256

from orchestrator.catalog.render.schemas import Notes, Schema
from orchestrator.errors import NotFound


@dataclass(frozen=True, slots=True)
class NameRule:
    """Which characters a name may have and how many."""

    illegal: re.Pattern[str]
    longest: int

    def fits(self, name: str) -> bool:
        """Whether the name may be used as it is."""
        return 0 < len(name) <= self.longest and not self.illegal.search(name)

    def nearest(self, name: str) -> str:
        """The name with what is illegal replaced, cut to its length with a hash that keeps it apart from others."""
        legal = self.illegal.sub("_", name) or "_"
        return legal if len(legal) <= self.longest else self.hashed(name)

    def hashed(self, name: str, *, salt: str = "") -> str:
        """As `nearest`, always with eight hex digits of the name's hash."""
        mark = sha256((salt + name).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{self.illegal.sub('_', name)[: self.longest - 9]}_{mark}"


@dataclass(frozen=True, slots=True)
class Names:
    """The tools of one rendering by both of their names."""

    vendor_names: Mapping[str, str]
    catalog_names: Mapping[str, str]

    def to_vendor(self, name: str) -> str:
        """The vendor's name of a tool of the catalog.

        Raises:
            NotFound: the tool was not rendered.
        """
        return _found(self.vendor_names, name)

    def to_catalog(self, vendor_name: str) -> str:
        """The catalog's name of a tool that a model called.

        Raises:
            NotFound: no tool of that name was offered to the model.
        """
        return _found(self.catalog_names, vendor_name)


def vendor_names(names: Iterable[str], rule: NameRule) -> Names:
    """A name for each that the vendor takes, all different; the same tool has the same one unless it meets a namesake."""
    found = mapped_names(names, rule)
    return Names(found, {v: k for k, v in found.items()})


def mapped_names(names: Iterable[str], rule: NameRule) -> dict[str, str]:
    """Legal names as they are, of the others the nearest legal one; those that meet there get a hash, which nobody can take."""
    near = {n: n if rule.fits(n) else rule.nearest(n) for n in names}
    users = Counter(near.values())
    taken = {n for n in near if rule.fits(n)}
    found = {n: n for n in taken}
    for name in sorted(near.keys() - taken):
        free = near[name] if users[near[name]] == 1 else rule.hashed(name)
        while free in taken:
            free = rule.hashed(name, salt=free)
        taken.add(free)
        found[name] = free
    return {n: found[n] for n in near}


def renamed_properties(schema: Schema, rule: NameRule, notes: Notes) -> tuple[Schema, dict[str, str]]:
    """The schema of an object with property names that the vendor takes, and our name of each that was changed."""
    names = mapped_names(schema["properties"], rule)
    changed = {new: old for old, new in names.items() if new != old}
    if not changed:
        return schema, {}
    notes[f"properties renamed: {', '.join(f'{old!r} to {new}' for new, old in changed.items())}"] = None
    out = {**schema, "properties": {names[n]: s for n, s in schema["properties"].items()}}
    if "required" in out:
        out["required"] = [names.get(n, n) for n in out["required"]]
    if "dependentRequired" in out:
        pairs = out["dependentRequired"].items()
        out["dependentRequired"] = {names.get(n, n): [names.get(m, m) for m in more] for n, more in pairs}
    return out, changed


def _found(names: Mapping[str, str], name: str) -> str:
    if name in names:
        return names[name]
    near = get_close_matches(name, names, 1)
    raise NotFound(f"No tool `{name}` was offered.", next=f"Did you mean `{near[0]}`?" if near else "Call one that was offered.")
