"""Plans that come with ToolWeaver, by name."""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from orchestrator.errors import NotFound

_FOLDER = files("orchestrator") / "plans"


def named_plans() -> list[str]:
    """The names of the bundled plans, sorted."""
    if not _FOLDER.is_dir():
        return []
    return sorted(f.name.removesuffix(".json") for f in _FOLDER.iterdir() if f.name.endswith(".json"))


def load_named(name: str) -> dict[str, Any]:
    """A bundled plan.

    Raises:
        NotFound: there is none of that name.
    """
    known = named_plans()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        move = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known) or 'none'}."
        raise NotFound(f"There is no bundled plan `{name[:80]}`.", next=move)
    plan: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return plan
