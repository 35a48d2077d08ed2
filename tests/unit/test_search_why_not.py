"""Why a tool was not found: what `toolweaver search explain --tool` says while tools have no vectors."""

from __future__ import annotations

from typing import cast

import pytest

from orchestrator.cli.search import _request, _why_not
from orchestrator.client.client import Client
from orchestrator.models.search import SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolDefinition
from orchestrator.tool_search.answer import answer
from orchestrator.tool_search.document import document_of
from orchestrator.tool_search.index import Index
from tests.unit.search_tools import tool

TOOLS = {
    t.name: t
    for t in (
        tool("read_file", "Reads a file."),
        tool("send_mail", "Sends a letter."),
        tool("old_mail", "Posts it.", deprecated="use send_mail"),
        tool("secret", "Opens the safe.", tenants=["other"]),
    )
}


class Near:
    """The platform's answers, of an index in this process that has no vectors."""

    def __init__(self) -> None:
        self.index = Index.of(map(document_of, TOOLS.values()))

    def tool(self, name: str) -> ToolDefinition:
        return TOOLS[name]

    def search_tools(self, request: SearchRequest) -> SearchAnswer:
        return answer(self.index, request)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("read_file", "1st of 2; shares file, read (1st by words); no vector"),
        ("send_mail", "beyond the first 1 that either half brought up; shares no word with the query; no vector"),
        ("old_mail", "deprecated, so it is not offered: use send_mail"),
        ("secret", "your permissions hide it"),
    ],
)
def test_each_reason_is_its_own(name: str, says: str) -> None:
    client = cast(Client, Near())
    found = client.search_tools(_request("read the file", k=10, explain=True, detail="names"))
    assert says in _why_not(client, "read the file", name, found)["said"]
