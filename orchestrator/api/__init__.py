"""The HTTP API: jobs, tools, plans, health; errors as problems, events as server-sent events."""

from orchestrator.api.app import create_app

__all__ = ["create_app"]
