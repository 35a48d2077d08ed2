"""The engine without processes, as users have it: see `workers.testing`."""

from workers.testing import Engine, Mailbox

__all__ = ["Engine", "Mailbox"]
