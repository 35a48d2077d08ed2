"""One call outside a plan; and the place where `register_function` is looked for."""

from orchestrator.catalog.register import register_function

__all__ = ["register_function"]
