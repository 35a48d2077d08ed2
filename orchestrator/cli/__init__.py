"""The command `toolweaver`. It speaks to the API and starts processes; it carries no Celery, Redis or model package."""

from orchestrator.cli.app import main

__all__ = ["main"]
