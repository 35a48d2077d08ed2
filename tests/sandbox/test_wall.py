"""The wall from the inside: ways around it that were found once, tried again by programs that want through."""

from __future__ import annotations

import pytest

from orchestrator.errors import ToolError
from orchestrator.programmatic_executor.limits import LimitRules
from tests.sandbox.lab import Lab

# Each is tried in the program's process; `EPERM` is what a filter answers.
TRIED = r"""
import ctypes, os, resource, signal, socket, struct

libc = ctypes.CDLL(None, use_errno=True)
EPERM = 1

def refused(function):
    try:
        function()
    except OSError as error:
        return error.errno == EPERM
    return False

def call(name, *arguments):
    def made():
        if getattr(libc, name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)
    return made

class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

allow = Instruction(6, 0, 0, 0x7FFF0000)
filter = struct.pack("HP", 1, ctypes.addressof(allow))
one, other = socket.socketpair()
pipes = os.pipe(), os.pipe()
output = {
    "limits of process 1, read": refused(lambda: resource.prlimit(1, resource.RLIMIT_NOFILE)),
    "limits of process 1, set": refused(lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))),
    "a filter of its own for calls": refused(call("prctl", 22, 2, filter, 0, 0)),
    "a filter of its own for a socket": refused(lambda: one.setsockopt(socket.SOL_SOCKET, 26, filter)),
    "a timer that counts against all of its user": refused(call("timer_create", 1, None, ctypes.byref(ctypes.c_void_p()))),
    "a signal with a value, which counts alike": refused(call("sigqueue", os.getpid(), signal.SIGURG, None)),
    "pages moved between pipes": refused(call("splice", pipes[0][0], None, pipes[1][1], None, 1, 1)),
    "own limits": resource.prlimit(0, resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE),
    "own name": libc.prctl(15, b"harmless", 0, 0, 0) == 0,
    "a larger buffer": one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16) is None,
}
"""


async def test_calls_that_reach_beyond_the_program_are_refused(lab: Lab) -> None:
    found = (await lab.run(TRIED)).result
    assert found == dict.fromkeys(found, True)


@pytest.mark.parametrize("asked", [{"memory_mb": "65536"}, {"timeout_s": "3600"}, {"cpus": " 64 "}, {"memory_mb": "6_5536"}])
def test_a_limit_written_as_text_is_held_against_the_most_too(asked: dict[str, str]) -> None:
    with pytest.raises(ToolError) as told:
        LimitRules().of("code_exec", tenant="anybody", asked=asked)
    assert told.value.code in ("limit_too_high", "bad_limit")
    assert LimitRules().of("code_exec", tenant="anybody", asked={"memory_mb": "64"}).memory_mb == 64
