"""The tools that hostile programs are granted, and what the host saw of their use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from orchestrator.errors import ToolError

LARGE = "b" * (512 << 10)


class Toolbox:
    """Tools for one program, counting on the host's side.

    Attributes:
        invoked: how often any tool's body began.
        running, peak: bodies that run now, and the most at once.
        late: bodies that began after the program had ended.
        paid: what `pay` was ever called with; its schema allows amounts from 1 to 100 only.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.invoked = self.running = self.peak = self.late = 0
        self.ended = False
        self.paid: list[tuple[Any, Any]] = []
        self.is_armed = asyncio.Event()

    def grant(self, names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
        """The tools of these names."""
        return {name: getattr(self, name) for name in names}

    def _begin(self) -> None:
        self.invoked += 1
        self.late += self.ended

    async def echo(self, text: str = "") -> str:
        """Gives its text back."""
        self._begin()
        return text

    async def count(self, n: int = 0) -> int:
        """Gives its number back."""
        self._begin()
        return n

    async def big(self) -> str:
        """Half a MiB of text."""
        self._begin()
        return LARGE

    async def slow(self, seconds: float = 20.0) -> str:
        """Sleeps."""
        self._begin()
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
        return "slept"

    async def pay(self, amount: Annotated[float, Field(ge=1, le=100)], to: Annotated[str, Field(max_length=40)]) -> str:
        """Pays an amount to somebody."""
        self._begin()
        self.paid.append((amount, to))
        return "paid"

    async def leaky(self) -> str:
        """Fails in a way that its author did not foresee."""
        self._begin()
        raise RuntimeError(f"could not connect to redis://:{self._secret}@10.1.2.3 from /srv/private/tool.py")

    async def refuses(self) -> str:
        """Fails as a tool should, on top of something that it should not show."""
        self._begin()
        try:
            raise KeyError(self._secret)
        except KeyError as error:
            raise ToolError("there is no such expense") from error

    async def armed(self) -> bool:
        """The program holds what it wants to hold: the one beside it may start."""
        self._begin()
        self.is_armed.set()
        return True

    async def vault(self) -> str:
        """A tool of another job; no hostile program is granted it."""
        return self._secret
