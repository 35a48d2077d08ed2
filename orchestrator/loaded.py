"""What a process has loaded at its start stays to its end."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def settle() -> None:
    """Takes what is loaded out of every later search for garbage, the last one included; forked children then share its memory.

    For the entry of a process that has turned the collector off while it loaded its modules; it is on afterwards.
    """
    gc.freeze()
    gc.enable()


def give_back() -> None:
    """Gives memory that was freed back to the system, where the C library (glibc) does not by itself; elsewhere nothing.

    For after something large was loaded: ONNX Runtime leaves 55 of 160 MB behind from loading MiniLM.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
