"""An MCP server of the tests, written with the SDK: `python -P tests/mcp_server.py [http PORT]`.

What its tools do to the world is a line each in the file that `NOTES` names, which lies outside the platform. `HANGS`, when it
is there, stops the whole server; `EXTRA` gives it one tool more.
"""

from __future__ import annotations

import base64
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel, Field

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwADAgH/p9cZrgAAAABJRU5ErkJggg==")
NOTES, HANGS, EXTRA = (Path(os.environ.get(name, f"/nowhere/{name}")) for name in ("NOTES", "HANGS", "EXTRA"))

READS = ToolAnnotations(read_only_hint=True)
IDEMPOTENT = ToolAnnotations(read_only_hint=False, idempotent_hint=True)
ONCE = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False)

server = MCPServer("lab", version="1.0")


class Sum(BaseModel):
    total: float
    terms: int


def note(*words: Any) -> None:
    with NOTES.open("a") as notes:
        notes.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


def stand_still() -> None:
    while HANGS.exists():
        time.sleep(0.02)


@server.tool(annotations=READS)
def total(values: list[float]) -> Sum:
    """Adds numbers."""
    return Sum(total=sum(values), terms=len(values))


@server.tool(annotations=READS, structured_output=False)
def echo(text: str) -> str:
    """Says the text again."""
    stand_still()
    return text


@server.tool(annotations=READS, structured_output=False)
def fails(why: str) -> str:
    """Fails."""
    raise ToolError(why)


@server.tool(annotations=READS, structured_output=False)
def mixed() -> CallToolResult:
    """Gives a picture, a sound, a file and words."""
    encoded = base64.b64encode(PIXEL).decode()
    blob = BlobResourceContents(
        uri="file:///made/table.bin", mime_type="application/x-table", blob=base64.b64encode(b"rows").decode()
    )
    return CallToolResult(
        content=[
            TextContent(text="here"),
            ImageContent(data=encoded, mime_type="image/png"),
            AudioContent(data=base64.b64encode(b"RIFF").decode(), mime_type="audio/wav"),
            EmbeddedResource(resource=blob),
        ]
    )


@server.tool(annotations=READS, structured_output=False)
async def slow(context: Context[Any, Any], seconds: float, steps: Annotated[int, Field(ge=1)] = 1) -> str:
    """Takes its time, and says how far it is."""
    note("slow", "began")
    try:
        for step in range(steps):
            await anyio.sleep(seconds / steps)
            await context.report_progress(step + 1, steps, f"step {step + 1}")
    except BaseException:
        note("slow", "cancelled")
        raise
    return f"{steps} steps"


@server.tool(annotations=READS, structured_output=False)
async def read(key: str, wait: float = 0.0) -> str:
    """Reads: does nothing to the world."""
    note("read", key)
    await anyio.sleep(wait)
    return f"read {key}"


@server.tool(annotations=IDEMPOTENT, structured_output=False)
async def put(key: str, wait: float = 0.0) -> str:
    """Puts: a repeat is harmless."""
    note("put", key)
    await anyio.sleep(wait)
    return f"put {key}"


@server.tool(annotations=ONCE, structured_output=False)
async def pay(key: str, wait: float = 0.0) -> str:
    """Pays: a repeat does harm."""
    note("pay", key)
    await anyio.sleep(wait)
    return f"pay {key}"


@server.tool(annotations=READS, structured_output=False)
def die(on: str = "") -> str:
    """Kills the server, once per file `on`."""
    if on and Path(on).exists():
        return "alive"
    if on:
        Path(on).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "dead"


@server.tool(annotations=READS, structured_output=False)
def noise(lines: int = 20) -> str:
    """Writes to stdout what is no message."""
    for n in range(lines):
        os.write(1, f"noise {n} {{not json\n".encode())
    return "loud"


class Name(BaseModel):
    name: str


@server.tool(annotations=READS, structured_output=False)
async def ask(context: Context[Any, Any]) -> str:
    """Asks the user something."""
    return str(await context.elicit("Who are you?", Name))


@server.tool(annotations=READS, structured_output=False)
async def grow(context: Context[Any, Any]) -> str:
    """Gives the server a tool more, and says so."""

    def grown() -> str:
        """Came while it ran."""
        return "grown"

    server.add_tool(grown, annotations=READS, structured_output=False)
    await context.notify_tools_changed()
    return "more"


if EXTRA.exists():

    @server.tool(annotations=READS, structured_output=False)
    def extra() -> str:
        """Came later."""
        return "extra"


if __name__ == "__main__":
    note("started")
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("stdio")
