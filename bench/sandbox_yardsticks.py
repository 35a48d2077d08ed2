"""The yardsticks of `bench/sandbox.py`: `docker run`, bare sockets in the same container, and one peer library."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from workers.code.container import Shape, hardening, seccomp_profile
from workers.code.engine import Engine

SNIPPET = (
    "import json, math\nroots = [math.sqrt(n) for n in range(100)]\njson.loads(json.dumps({'sum': round(sum(roots), 3)}))['sum']"
)
EXPECTED = 661.463
# The same with its value printed, for those who give no values.
PRINTED = SNIPPET.replace("json.loads", "print(json.loads") + ")"

HEADER = struct.Struct(">I")
PEER_IMAGE = "toolweaver-bench-peer:local"
PEER_FILE = """
FROM {base}
RUN ["python3", "-c", "import os, shutil; shutil.which('python') or os.symlink(shutil.which('python3'), '/usr/bin/python')"]
RUN ["python3", "-c", "import os; os.makedirs('/sandbox', exist_ok=True)"]
RUN ["python3", "-c", "print('root:x:0:0::/:/bin/sh', file=open('/etc/passwd', 'a'))"]
CMD ["python3", "-c", "import time; time.sleep(86400)"]
"""


class DockerRun:
    """`docker run --rm` of the image with every flag that a container of the pool has; a process each, as a script has it."""

    def __init__(self, image: str) -> None:
        self._profile = tempfile.NamedTemporaryFile("w", suffix=".json")  # noqa: SIM115 (as long as this lives)
        self._profile.write(seccomp_profile())
        self._profile.flush()
        flags = _flags(hardening(Shape.of(None), self._profile.name))
        python = ["--entrypoint", "/opt/toolweaver/python3", image, "-s", "-B", "-c", PRINTED]
        self.command = ["docker", "run", *flags, "--user=65534:65534", "--workdir=/tmp", "--hostname=sandbox", *python]

    def once(self) -> float:
        """Seconds until the snippet's answer is here and the command has ended."""
        began = time.perf_counter()
        ran = subprocess.run(self.command, capture_output=True, text=True, check=True)
        took = time.perf_counter() - began
        assert float(ran.stdout) == EXPECTED, ran.stdout
        return took


def _flags(host: Mapping[str, Any]) -> list[str]:
    """What `hardening` says, as the command line's flags. One that is not known here fails: both must be the same."""
    plain = {
        "network_mode": "network", "cap_drop": "cap-drop", "security_opt": "security-opt", "ipc_mode": "ipc",
        "cgroupns": "cgroupns", "pids_limit": "pids-limit", "mem_limit": "memory", "memswap_limit": "memory-swap",
        "shm_size": "shm-size", "oom_score_adj": "oom-score-adj", "read_only": "read-only", "init": "init", "auto_remove": "rm",
    }  # fmt: skip
    flags = []
    for name, value in host.items():
        match name:
            case "nano_cpus":
                flags.append(f"--cpus={value / 1e9:g}")
            case "tmpfs":
                flags += [f"--tmpfs={at}:{options}" for at, options in value.items()]
            case "ulimits":
                flags += [f"--ulimit={u['Name']}={u['Soft']}:{u['Hard']}" for u in value]
            case "log_config":
                flags.append(f"--log-driver={value['Type']}")
            case _:
                flags += [f"--{plain[name]}={str(v).lower() if isinstance(v, bool) else v}" for v in _several(value)]
    return flags


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Peer:
    """`llm-sandbox` with a session that is warm: on the same base, with the limits and walls that it can be told of."""

    def __init__(self, base: str) -> None:
        self._stack = ExitStack()
        self.why_not = "" if importlib.util.find_spec("llm_sandbox") else "not installed; `pip install llm-sandbox`"
        if not self.why_not:
            try:
                self._open(base)
            except Exception as error:  # whatever a foreign library raises, the rest of the figures stands
                self.why_not = f"{type(error).__name__}: {error}"[:200]

    def _open(self, base: str) -> None:
        import docker
        from llm_sandbox import SandboxSession  # type: ignore[import-not-found,unused-ignore]

        _build_peer(base)
        shape = Shape.of(None)
        walls = {"network_mode": "none", "mem_limit": shape.memory_mb << 20, "nano_cpus": shape.nano_cpus, "pids_limit": shape.pids}
        session = SandboxSession(
            client=docker.from_env(),
            image=PEER_IMAGE,
            lang="python",
            keep_template=True,
            skip_environment_setup=True,
            runtime_configs=walls,
        )
        self._session = self._stack.enter_context(session)
        self.once()

    def once(self) -> float:
        """Seconds of `.run` with the snippet."""
        began = time.perf_counter()
        ran = self._session.run(PRINTED)
        took = time.perf_counter() - began
        assert float(ran.stdout) == EXPECTED, (ran.stdout, ran.stderr)
        return took

    def close(self) -> None:
        self._stack.close()


def _build_peer(base: str) -> None:
    import io
    import tarfile

    engine, file = Engine(), PEER_FILE.format(base=base).encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(file)
        tar.addfile(entry, io.BytesIO(file))
    context.seek(0)
    try:
        for _ in engine.build(context, tag=PEER_IMAGE, arguments={}, labels={}):
            pass
    finally:
        engine.close()


# Bare sockets. They are spoken on the channel of a program, by a program, in a container of the pool: the two processes
# and the socket between them are those of a tool call. The frames are as long as those of a tool call.

_ASYNCIO = """
import asyncio, json, os, socket, struct, time
header = struct.Struct(">I")

async def main():
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=os.dup(3)))
    took = []
    for n in range(input):
        began = time.perf_counter()
        data = json.dumps({"op": "call", "id": n, "key": f"0:{n}", "tool": "tool", "args": {"v": n}}).encode()
        writer.write(header.pack(len(data)) + data)
        size, = header.unpack(await reader.readexactly(4))
        assert json.loads(await reader.readexactly(size))["value"] == n
        took.append(time.perf_counter() - began)
    return took

loop = asyncio.unix_events._UnixSelectorEventLoop()  # Python's own
output = loop.run_until_complete(main())
"""

_BLOCKING = """
import os, socket, time
sock, took = socket.socket(fileno=os.dup(3)), []
data = b"x" * 67
for n in range(input):
    began = time.perf_counter()
    sock.send(data)
    assert len(sock.recv(100)) == 35
    took.append(time.perf_counter() - began)
output = took
"""


async def asyncio_echo(sock: socket.socket, count: int) -> list[float]:
    """Seconds of each round trip, of a frame of JSON and its answer, by asyncio's streams at both ends."""
    reader, writer = await asyncio.open_connection(sock=sock.dup(), limit=1 << 24)
    writer.write(_order(_ASYNCIO, count))
    try:
        while True:
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            frame = json.loads(await reader.readexactly(size))
            if frame["op"] == "done":
                return _answer(frame)
            if frame["op"] == "call":
                data = json.dumps({"op": "result", "id": frame["id"], "value": frame["args"]["v"]}).encode()
                writer.write(HEADER.pack(len(data)) + data)
    finally:
        writer.close()


async def blocking_echo(sock: socket.socket, count: int) -> list[float]:
    """The same with blocking sockets and bytes that nobody reads: what the kernel alone takes."""
    return await asyncio.to_thread(_echo, sock, count)


def _echo(sock: socket.socket, count: int) -> list[float]:
    with sock.dup() as ours:
        ours.setblocking(True)
        ours.sendall(_order(_BLOCKING, count))
        answer = b"y" * 35
        for _ in range(count):
            assert len(ours.recv(100)) == 67
            ours.send(answer)
        return _answer(json.loads(_exactly(ours, *HEADER.unpack(_exactly(ours, HEADER.size)))))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data)) or b"!"
    return data


def _order(code: str, count: int) -> bytes:
    data = json.dumps({"op": "exec", "code": code, "input": count, "modules": {}, "names": {}, "seed": "x", "limits": {}}).encode()
    return HEADER.pack(len(data)) + data


def _answer(frame: dict[str, Any]) -> list[float]:
    assert frame["error"] is None, frame["error"]
    took: list[float] = frame["value"]
    return took
