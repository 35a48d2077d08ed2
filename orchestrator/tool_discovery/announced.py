"""What the pools of a running platform announced; one that does not run is not waited for."""

from __future__ import annotations

import logging

import redis

from orchestrator.catalog.store import CatalogStore
from orchestrator.models.tool import ToolDefinition
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
ANSWER_S = 2.0


def announced_tools(settings: Settings) -> list[ToolDefinition] | None:
    """The announced tools; None when no platform answers."""
    client = redis.Redis.from_url(settings.store_url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)
    try:
        return CatalogStore(client).all().tools
    except redis.RedisError as e:
        log.info("no announced tools: %s", e, extra={"action": "announced_unread"})
        return None
    finally:
        client.close()
