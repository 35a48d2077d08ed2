"""Loads Lua scripts: `-- include name` pastes a sibling file, so that scripts share one library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.commands.core import Script

_INCLUDE = re.compile(r"^-- include (\w+)$", re.M)


def source(folder: Path, name: str) -> str:
    """The text of a script with its includes."""
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda m: source(folder, m[1]), text)


class Scripts:
    """The scripts of a folder, callable by name; each is sent once and then called by its hash."""

    def __init__(self, client: redis.Redis, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._loaded: dict[str, Script] = {}

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Runs a script atomically and gives its answer."""
        script = self._loaded.get(name)
        if script is None:
            script = self._loaded[name] = self._client.register_script(source(self._folder, name))
        return script(keys=list(keys), args=list(args))
