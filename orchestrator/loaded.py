"""What a process has loaded at its start stays to its end."""

from __future__ import annotations

import gc


def settle() -> None:
    """Takes what is loaded out of every later search for garbage, the last one included; forked children then share its memory.

    For the entry of a process that has turned the collector off while it loaded its modules; it is on afterwards.
    """
    gc.freeze()
    gc.enable()
