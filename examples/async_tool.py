"""A tool that waits for a service: hundreds of its calls share one process, one loop and one client."""

from functools import lru_cache

import httpx

from orchestrator.catalog.register import tool
from orchestrator.errors import ToolError


@lru_cache
def client() -> httpx.AsyncClient:
    """One for all calls, made on the loop with the first of them, so that they share its connections."""
    return httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=100))


@tool(effect="none", timeout_s=30)
async def http_status(url: str) -> int:
    """The status with which an address answers.

    Args:
        url: The address, of a service that you trust.
    """
    try:
        response = await client().get(url)
    except httpx.HTTPError as error:
        raise ToolError(f"{url} does not answer: {error!r}", code="no_answer", retryable=True) from error
    return response.status_code
