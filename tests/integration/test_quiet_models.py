"""What large models are asked and answer, and with which key, is in no log, however much the logs say; and sockets go again."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from dataclasses import replace

import pytest

from orchestrator.providers import warm
from orchestrator.providers.model import Block, ModelRequest, Turn
from orchestrator.settings import load_settings
from tests.support import wait_until
from tests.wire import KEY, wire_server
from tests.wire import Turn as Answer
from tests.wire.base import VendorName

VENDORS: tuple[VendorName, ...] = ("openai", "openai-chat", "azure-openai", "anthropic", "gemini")
PROMPT, ANSWER = "the prompt of a private letter", "an answer that nobody else may read"
REQUEST = ModelRequest((Block(PROMPT),), (Turn("user", (Block(PROMPT),)),), "plan", deadline_s=20)


@pytest.mark.parametrize("vendor", VENDORS)
def test_at_debug_nothing_of_a_request_is_logged(vendor: VendorName, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with wire_server(vendor, [Answer(text=ANSWER)]) as server:
        model = warm.large_model(load_settings(_env_file=None, **server.settings()))

        async def run() -> None:
            await model.ask(REQUEST)
            await model.ask(replace(REQUEST, schema={"type": "object"}), on_text=lambda _: None)
            await model.close()

        asyncio.run(run())
    logged = "\n".join(r.getMessage() for r in caplog.records)
    assert "HTTP" in logged
    for secret in (KEY, PROMPT, ANSWER):
        assert secret not in logged


def test_an_addresss_query_is_not_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's functions take their key so."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="httpx2")  # whatever another test's libraries made of it
    monkeypatch.setattr(logging.getLogger("httpx2"), "disabled", False)
    with wire_server("openai-chat", [Answer(text=ANSWER)]) as server:
        url = f"{server.url}/chat/completions?code=query-secret"
        fields = {"planner_provider": "azure-foundry", "azure_foundry_endpoint": url, "azure_foundry_key": KEY}
        model = warm.large_model(load_settings(_env_file=None, **fields))

        async def run() -> None:
            assert (await model.ask(REQUEST)).text == ANSWER
            await model.close()

        asyncio.run(run())
        assert "code=query-secret" in server.paths[0]
    logged = "\n".join(r.getMessage() for r in caplog.records)
    assert "/chat/completions" in logged
    assert "query-secret" not in logged


@pytest.mark.parametrize("vendor", VENDORS)
def test_event_loops_that_ended_keep_no_sockets(vendor: VendorName) -> None:
    """`asyncio.run` for each request, and nobody closes the model."""
    with wire_server(vendor, [Answer(text=ANSWER)]) as server:
        model = warm.large_model(load_settings(_env_file=None, **server.settings()))
        asyncio.run(model.ask(REQUEST))
        before = _sockets()
        for _ in range(10):
            asyncio.run(model.ask(REQUEST))
        wait_until(lambda: _sockets() - before < 4, description="the sockets of loops that ended are closed")


def _sockets() -> int:
    gc.collect()  # clients and their loops know each other
    return len(os.listdir("/proc/self/fd"))
