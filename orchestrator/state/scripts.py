"""Loads Lua scripts: `-- include name` pastes a sibling file, so that scripts share one library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

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
        return self._script(name)(keys=list(keys), args=list(args))

    def call_many(self, name: str, each: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Runs a script once for each `(keys, args)` in one round trip; the answers, an exception where one failed."""
        script = self._script(name)
        answers = self._piped(script.sha, each)
        if any(isinstance(a, NoScriptError) for a in answers):  # a fresh server; what ran already bears a repeat
            script.sha = self._client.script_load(script.script)
            answers = self._piped(script.sha, each)
        return answers

    def _piped(self, sha: str, each: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for keys, args in each:
            pipe.evalsha(sha, len(keys), *keys, *args)
        return list(pipe.execute(raise_on_error=False))

    def _script(self, name: str) -> Script:
        if name not in self._loaded:
            self._loaded[name] = self._client.register_script(source(self._folder, name))
        return self._loaded[name]
