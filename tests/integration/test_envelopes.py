"""A message that the ledger makes from an envelope is the one that Celery would make."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from orchestrator.broker.app import make_app
from orchestrator.jobs.ledger import ReadyCall
from orchestrator.publisher.publish import Publisher
from tests.faults.messages import waiting
from tests.processes import platform
from tests.support import wait_until

pytestmark = pytest.mark.chaos


def test_a_message_made_by_the_ledger_is_the_one_that_celery_makes() -> None:
    """The envelope with its blanks filled in against the publisher's own message, field by field."""
    with platform() as p:
        p.start_worker("one")
        p.wait_ready()
        p.kill("one")
        p.start_planner()
        job = p.submit([{"id": "a", "tool": "work"}])
        client: Any = p.client
        name = waiting(p)[1][0]
        wait_until(lambda: client.llen(name), description="the message is queued")
        ours = json.loads(client.lpop(name))
        Publisher(make_app(p.settings)).publish([ReadyCall(job, "a#0", 1, "function", "work")])
        theirs = json.loads(client.lpop(name))
        bodies = [json.loads(ours.pop("body")), json.loads(base64.b64decode(theirs.pop("body")))]
        for body in bodies:
            body[0][2] = int(body[0][2])  # the attempt, a blank in the envelope
        assert bodies[0] == bodies[1]
        for message in (ours, theirs):
            for noise in ("origin", "argsrepr"):  # who made it, and the attempt's type
                message["headers"].pop(noise)
            for noise in ("delivery_tag", "body_encoding", "reply_to"):
                message["properties"].pop(noise, None)
        assert {k: v for k, v in ours.items() if v != theirs[k]} == {}
        assert ours["headers"] == theirs["headers"]
