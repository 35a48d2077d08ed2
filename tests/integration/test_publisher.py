"""The publisher shares its connections with whatever else of a process speaks to the broker."""

from __future__ import annotations

import pytest

from orchestrator.broker.app import make_app
from orchestrator.publisher.publish import Publisher
from orchestrator.settings import Settings
from orchestrator.state.connection import connect

pytestmark = pytest.mark.integration


def test_a_queue_is_counted_after_a_consumer_used_the_connection(settings: Settings) -> None:
    """A broadcast that waits for answers leaves a BRPOP open on the connection; its answer is not the length of a queue."""
    app = make_app(settings)
    publisher = Publisher(app)
    connect(settings).lpush("function", "a message")
    app.control.ping(timeout=0.1)
    assert [publisher.waiting("function") for _ in range(3)] == [1, 1, 1]
