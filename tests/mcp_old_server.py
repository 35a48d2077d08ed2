"""An MCP server of 2025 over HTTP, by hand: sessions with ids, which it forgets on demand. `python tests/mcp_old_server.py PORT`.

It forgets all sessions when the file `FORGETS` is there, which it deletes. Each session and call is a line in `NOTES`.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NOTES, FORGETS = Path(os.environ["NOTES"]), Path(os.environ["FORGETS"])
HEADER = "Mcp-Session-Id"
TOOL = {
    "name": "pay",
    "description": "Pays.",
    "inputSchema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "old", "version": "1"}}

sessions: set[str] = set()


def note(*words: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(" ".join(words) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = message.get("method")
        if FORGETS.exists():
            FORGETS.unlink()
            sessions.clear()
        if method == "initialize":
            session = uuid.uuid4().hex
            sessions.add(session)
            note("session")
            return self.say(200, self.result(message, HELLO), session=session)
        if method == "server/discover":
            return self.say(400, b"Bad Request: no session", kind="text/plain")
        if self.headers.get(HEADER) not in sessions:
            return self.say(404, b"{}")
        if "id" not in message:
            return self.say(202, b"")
        return self.say(200, self.result(message, self.answer(method, message.get("params") or {})))

    def do_GET(self) -> None:
        self.say(405, b"")

    def do_DELETE(self) -> None:
        self.say(200, b"")

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "tools/list":
            return {"tools": [TOOL]}
        if method == "tools/call":
            note("pay", params["arguments"]["key"])
            return {"content": [{"type": "text", "text": f"paid {params['arguments']['key']}"}]}
        return {}

    def result(self, message: dict[str, Any], result: dict[str, Any]) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()

    def say(self, status: int, body: bytes, *, kind: str = "application/json", session: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if session:
            self.send_header(HEADER, session)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
