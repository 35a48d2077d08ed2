"""The wall from the inside: ways around it that were found once, tried again by programs that want through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import output
from orchestrator.errors import ProgramError, ToolError
from orchestrator.models.program import ProgramLimits
from orchestrator.programmatic_executor.check import check_program
from orchestrator.programmatic_executor.frames import FrameError, TooManyValues, decode
from orchestrator.programmatic_executor.limits import LimitRules
from orchestrator.programmatic_executor.source import MAX_CODE
from tests.sandbox.lab import Lab

LEASE_S = 8.0  # the setting `sandbox_lease_s`

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


# What a frame becomes in the host's memory


def peak_mib(data: bytes) -> tuple[Any, int]:
    """What a frame is, or why it is none, and how much memory that took at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmHWM")
    try:
        found: Any = decode(data, depth=64)
    except FrameError as error:
        found = error
    return found, (memory("VmHWM") - before) >> 10


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def done(value: bytes) -> bytes:
    return b'{"op":"done","has_value":true,"error":null,"value":%s}' % value


MOST = 16 << 20
BOMBS = {
    "one wide character": done(b'"' + b"a" * (MOST - 100) + "\U0001f600".encode() + b'"'),
    "one wide character, escaped": done(b'"' + b"a" * (MOST - 100) + rb'\ud83d\ude00"'),
    "half of a character": done(b'"' + b"a" * (MOST - 100) + rb'\ud83d"'),
    "short texts": done(b"[" + b'"ab",' * 2_000_000 + b"1]"),
    "lists": done(b"[" + b"[]," * 2_000_000 + b"1]"),
    "objects": done(b"[" + b'{"a":{}},' * 500_000 + b"1]"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_read(name: str) -> None:
    found, mib = peak_mib(BOMBS[name])
    assert isinstance(found, TooManyValues)
    assert mib < 64


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10_000_000 + "\U0001f600",
        ["\U0001f600 " + "a" * 40] * 200_000,
        [{"id": n, "name": f"user {n}", "total": n / 7} for n in range(200_000)],
        [1 << 100, -0.0, 1e308, 5e-324, 0.1, True, None, '\0"\\/\n\u2028', [], {}] * 20_000,
    ],
    ids=["text", "texts", "rows", "odd"],
)
def test_honest_values_of_ten_megabytes_come_whole(value: Any) -> None:
    data = json.dumps({"value": value}, ensure_ascii=False).encode()
    assert repr(decode(data, depth=64)["value"]) == repr(value)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 400 + b".0", b"NaN", b"Infinity", b"9" * 5_000])
def test_numbers_that_are_none_are_refused_in_large_frames_too(number: bytes) -> None:
    with pytest.raises(FrameError):
        decode(done(b'["%s",{"a":[%s]}]' % (b"x" * (2 << 20), number)), depth=64)


ARGUMENTS = r"""
told = []
for value in ([[]] * 300_000, ["ab"] * 800_000, "x" * 5_000_000, {str(n): n for n in range(150_000)}):
    try:
        await echo(value=value)
    except ToolError as error:
        told.append(error.code)
output = told
"""


async def test_bombs_in_arguments_are_refused_unread(lab: Lab) -> None:
    called: list[Any] = []
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmHWM")
    ended = await lab.run(ARGUMENTS, tools={"echo": lambda value: called.append(value)})
    assert (ended.result, called) == (["limit_exceeded"] * 4, [])
    assert [call.parameters for call in ended.tool_calls] == [{}] * 4
    assert (memory("VmHWM") - before) >> 10 < 64


async def test_a_large_frame_of_no_kind_is_not_read(lab: Lab) -> None:
    ended = await lab.run(
        'import os, struct\nbody = b\'{"args":{"a":[\' + b\'[],\' * 1_500_000 + b\'1]},"op":"call"}\'\n'
        "data = struct.pack('>I', len(body)) + body\nwhile data: data = data[os.write(3, data):]\nimport time; time.sleep(9)"
    )
    assert ended.status == "security_error"
    assert "no known kind" in str(ended.error)


# Sources that keep the check busy: no thread of the host runs meanwhile, and without pings all its containers end

COSTLY = {
    "a text that never ends, in escaped quotes": ('"' + '\\"' * MAX_CODE)[:MAX_CODE],
    "the same with the other quotes": ("'" + "\\'" * MAX_CODE)[:MAX_CODE],
    "three quotes, again and again": ("'''\\'''a" * MAX_CODE)[:MAX_CODE],
    "a text with many values": 'f"' + "{a}" * (MAX_CODE // 3 - 2) + '"',
    "a call with many names": f"f({','.join(f'a{n}=1' for n in range(MAX_CODE // 9))})",
    "a pattern with many names": f"match a:\n case F({','.join(f'a{n}=1' for n in range(MAX_CODE // 9))}): b",
    "a name bound again and again": ("a=b.c\n" * MAX_CODE)[: MAX_CODE - 9000] + "a.d()\n" * 1000,
}


@pytest.mark.parametrize("name", COSTLY)
def test_no_source_keeps_the_check_for_long(name: str) -> None:
    began = time.thread_time()
    with contextlib.suppress(ProgramError):
        check_program(COSTLY[name], tools={})
    assert time.thread_time() - began < LEASE_S / 4


# The socket of a container that is being made


async def test_who_connects_before_the_container_does_is_sent_away(lab: Lab) -> None:
    met: list[bytes] = []

    def stranger(until: float) -> None:
        while not met and time.monotonic() < until:
            for path in lab.pool.owner.folder.glob("*/host.sock"):
                with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(10)
                    sock.connect(str(path))
                    met.append(sock.recv(1))

    thread = threading.Thread(target=stranger, args=(time.monotonic() + 10,))
    thread.start()
    ended = await lab.run("output = 1", limits=ProgramLimits(tmp_mb=64))  # takes a container of its own
    await asyncio.to_thread(thread.join)
    assert (ended.status, ended.result, met) == ("success", 1, [b""])


# What a program says, on the terminal of who asks


def test_what_a_program_prints_steers_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    evil = "\x1b]0;mine\x07\x1b[2J\x9b31m\rover"
    output.say(evil)
    output.fail(ToolError(evil, next=evil), as_json=False)
    output.print_table([evil], [[evil]])
    said = "".join(capsys.readouterr())
    assert said.count("mine") == 5
    assert set(re.findall(r"\x1b[^m]*m|[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)) <= {f"\x1b[{n}m" for n in ("0", "1", "1;31", "36")}
