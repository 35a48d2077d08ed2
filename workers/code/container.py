"""One hardened container: made, spoken to by its first process, given a channel for each program, removed.

What comes out of it is hostile, even from its first process, which is ours: every frame is short, expected and has its time.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import importlib.resources
import json
import logging
import os
import secrets
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendError
from orchestrator.models.program import ProgramLimits
from workers.code.engine import BUILD, Engine, Missing
from workers.code.figures import Meter
from workers.code.image import content
from workers.code.leases import Owner, container_name

log = logging.getLogger(__name__)

INSIDE = "/run/toolweaver"  # where a container sees the folder of its socket
RUNNER = "/opt/toolweaver/sandbox_image"  # where a foreign image sees our files
SOCKET = "host.sock"
HEADER = struct.Struct(">I")
PROTOCOL = 1
CONTROL_BYTES = 1 << 16  # of one frame of the first process
READY_BYTES = 256
HELLO_S, SPAWN_S, LOOK_S = 20.0, 10.0, 1.0
FOREIGN_USER = 65534  # in images of others: what their owner puts into a volume shall not belong to a made-up user
FIRST_USER, USERS = (
    0x7000_0000,
    1 << 24,
)  # ids that no system gives out; the kernel counts much by user, so each container has its own
OPEN_FILES = 256
INODES = 16_384  # in the temporary folder
SHM_BYTES = 1 << 20
OOM_FIRST = 500  # when memory of the machine runs out, programs go before everything else
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Volume:
    """A file or folder of the engine's machine that a program sees; what is mounted within it stays out."""

    host: str
    inside: str
    writable: bool = False

    def mount(self) -> dict[str, Any]:
        """As the engine wants to be told. Unlike a bind it makes no folder where there is none."""
        options = {"NonRecursive": True}
        return {
            "Type": "bind",
            "Source": self.host,
            "Target": self.inside,
            "ReadOnly": not self.writable,
            "BindOptions": options,
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """What all containers of a pool are: of our own image, or of somebody else's, into which our runner is mounted."""

    foreign: bool = False
    network: str = "none"  # any other is for the owner of the machine alone to choose

    @property
    def entry(self) -> dict[str, Any]:
        """What is started: our image knows it, any other is told; and its own health check would run beside the program."""
        command = ["python3", "-s", "-B", f"{RUNNER}/runner.py"]
        return {"entrypoint": command, "healthcheck": {"test": ["NONE"]}} if self.foreign else {}


OURS = Kind()


@dataclass(frozen=True, slots=True)
class Shape:
    """The limits that the engine sets on a container, and what of the machine it sees."""

    memory_mb: int
    cpus: float
    pids: int
    tmp_mb: int
    volumes: tuple[Volume, ...] = ()

    @classmethod
    def of(cls, limits: ProgramLimits | None, volumes: tuple[Volume, ...] = ()) -> Shape:
        """Those of a program's limits."""
        wanted = limits or ProgramLimits()
        return cls(memory_mb=wanted.memory_mb, cpus=wanted.cpus, pids=wanted.pids, tmp_mb=wanted.tmp_mb, volumes=volumes)

    def same_place(self, other: Shape) -> bool:
        """Whether a running container of the one can become one of the other, by `update`."""
        return (self.tmp_mb, self.volumes) == (other.tmp_mb, other.volumes)

    def update(self) -> dict[str, int]:
        """What the engine can change on a running container: all but the size of its temporary folder."""
        memory = self.memory_mb * MIB
        return {"Memory": memory, "MemorySwap": memory, "NanoCPUs": self.nano_cpus, "PidsLimit": self.pids}

    @property
    def nano_cpus(self) -> int:
        return round(self.cpus * 1e9)


def seccomp_profile(*, network: bool = False) -> str:
    """The system calls that a program may make, as the engine wants to be told. `network`: sockets to others too, as a client."""
    profile = json.loads((importlib.resources.files("sandbox_image") / "seccomp.json").read_text(encoding="utf-8"))
    if network:
        profile["syscalls"] += [_socket_rule(family) for family in (socket.AF_INET, socket.AF_INET6)]
    return json.dumps(profile, separators=(",", ":"))


def _socket_rule(family: int) -> dict[str, Any]:
    only = {"index": 0, "value": int(family), "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    return {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [only]}


def hardening(shape: Shape, seccomp: str) -> dict[str, Any]:
    """The walls, as `create_host_config` names them."""
    memory = shape.memory_mb * MIB
    return {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", f"seccomp={seccomp}"],
        "ipc_mode": "private",
        "cgroupns": "private",
        "pids_limit": shape.pids,
        "mem_limit": memory,
        "memswap_limit": memory,  # memory and swap together: no swap
        "nano_cpus": shape.nano_cpus,
        "shm_size": SHM_BYTES,
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={shape.tmp_mb}m,nr_inodes={INODES},mode=1777"},
        "ulimits": [{"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES}, {"Name": "core", "Soft": 0, "Hard": 0}],
        "log_config": {"Type": "none"},  # endless output must not fill the engine's disk
        "oom_score_adj": OOM_FIRST,
        "init": False,
        "auto_remove": True,
    }


class ContainerLost(BackendError):
    """The container of a program is gone; the same program may run in another one."""

    code = "container_lost"


@dataclass(eq=False)
class Control:
    """The line to the first process of a container: pings and spawns go in, news of its children come out."""

    sock: socket.socket
    hello: dict[str, Any] = field(default_factory=dict)
    broken: str | None = None
    ended: dict[int, int] = field(default_factory=dict)  # how the n-th program's process ended: exit code, or minus the signal
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _sending: threading.Lock = field(default_factory=threading.Lock)
    _report: asyncio.Future[dict[str, Any]] | None = None
    _reader: asyncio.Task[None] | None = None

    async def greet(self) -> None:
        """Waits for the first frame, and reads on from there."""
        self.hello = await receive(self.sock, CONTROL_BYTES)
        if self.hello.get("op") != "hello" or self.hello.get("version") != PROTOCOL:
            raise ContainerLost(f"the container said {str(self.hello)[:200]!r} instead of hello", next=f"If it stays so, {BUILD}.")
        self._reader = asyncio.create_task(self._read(), name="sandbox control")

    def send(self, frame: Mapping[str, Any], *descriptors: int) -> None:
        """Sends a short frame without waiting, from any thread; a line that is full counts as broken."""
        data = encode(frame)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            with self._sending:
                sent = self.sock.sendmsg([data], rights, socket.MSG_DONTWAIT)
        except OSError as error:
            self.broken = self.broken or f"its line is closed ({error.strerror})"
            return
        if sent != len(data):
            self.broken = self.broken or "it does not listen"

    async def report(self) -> dict[str, Any]:
        """What the first process says of itself."""
        self._report = asyncio.get_running_loop().create_future()
        self.send({"op": "report"})
        async with asyncio.timeout(SPAWN_S):
            return await self._report

    async def exit_code(self, n: int, *, within_s: float) -> int | None:
        """How the n-th program's process ended; None when it runs on, or its container ended with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while n not in self.ended and self.broken is None:
                    self._news.clear()
                    await self._news.wait()
        return self.ended.get(n)

    async def _read(self) -> None:
        try:
            while True:
                self._take(await receive(self.sock, CONTROL_BYTES))
        except (EOFError, OSError, ValueError) as error:
            self.broken = self.broken or (str(error) or "it ended")
        finally:
            self._news.set()
            if self._report is not None and not self._report.done():
                self._report.set_exception(ContainerLost("the container ended before it reported"))

    def _take(self, frame: dict[str, Any]) -> None:
        match frame:
            case {"op": "spawned", "n": int()}:
                pass
            case {"op": "ended", "n": int(n), "code": int(code)}:
                self.ended = {n: code}  # only the last one matters
                self._news.set()
            case {"op": "report"} if self._report is not None and not self._report.done():
                self._report.set_result(frame)
            case _:
                raise ValueError(f"its first process said {str(frame)[:200]!r}")

    def close(self) -> None:
        """Closes the line; the container ends when it notices."""
        self.broken = self.broken or "it was closed"
        if self._reader is not None:
            self._reader.cancel()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        with self._sending:  # its number may mean another file right afterwards
            self.sock.close()


@dataclass(eq=False)
class Container:
    """A running container with a program process that waits for its program."""

    engine: Engine
    id: str
    name: str
    pid: int  # of its first process, as the engine's machine counts
    meter: Meter
    shape: Shape
    folder: Path
    control: Control
    kind: Kind = OURS
    user: int = FOREIGN_USER
    channel: socket.socket | None = None
    n: int = 0
    born: float = field(default_factory=time.monotonic)
    took_s: float = 0.0  # to make

    async def spawn(self) -> socket.socket:
        """Ends whatever still runs inside, starts the next program process, and waits until it is ready.

        Raises:
            ContainerLost: it did not, in time.
        """
        self._close_channel()
        ours, theirs = socket.socketpair()
        self.n += 1
        ours.setblocking(False)
        with theirs:
            self.control.send({"op": "spawn", "n": self.n}, theirs.fileno())
        try:
            async with asyncio.timeout(SPAWN_S):
                said = await receive(ours, READY_BYTES)
        except (TimeoutError, EOFError, OSError, ValueError) as error:
            ours.close()
            raise ContainerLost(f"the container started no program process ({self.control.broken or error!r})") from error
        if said != {"op": "ready"}:
            ours.close()
            raise ContainerLost(f"the program process said {str(said)[:200]!r} instead of ready")
        self.channel = ours
        self.meter.begin(again=self.n > 1)
        return ours

    @property
    def local(self) -> bool:
        """Whether its processes and cgroup can be seen from here."""
        return self.meter.cgroup is not None

    async def update(self, shape: Shape) -> None:
        """Changes its limits."""
        if shape != self.shape:
            await self.engine.run(self.engine.update, self.id, shape.update())
            self.shape = shape

    def fault(self) -> str | None:
        """Why it cannot be handed out, or None."""
        if self.control.broken is not None:
            return self.control.broken
        if self.channel is None or self.n in self.control.ended:
            return "it has no program process"
        try:
            left = self.channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            return f"its channel is closed ({error.strerror})"
        return "its program process spoke before it was asked" if left else "its program process ended"

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.born

    async def remove(self) -> None:
        """Ends and removes it, whatever state it is in. Closing its lines alone ends it; the engine makes it sure."""
        self._close_channel()
        self.control.close()
        try:
            await self.engine.run(self.engine.remove, self.id)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _close_channel(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self.channel = None


@dataclass
class Maker:
    """Makes containers of one image for one owner."""

    engine: Engine
    owner: Owner
    image: str
    lease_s: float
    seccomp: str = field(default_factory=seccomp_profile)
    harden: Callable[[Shape, str], dict[str, Any]] = hardening
    user: str | None = None  # default: one of its own for each container
    kind: Kind = OURS

    def unpack(self) -> None:
        """Lays our files out for containers of a foreign image, where they go with the owner."""
        self._runner.mkdir(mode=0o755)
        self._runner.chmod(0o755)
        for name, data in content().items():
            (self._runner / name).write_bytes(data)
            (self._runner / name).chmod(0o644)

    @property
    def _runner(self) -> Path:
        return self.owner.folder / "runner"

    async def make(self, shape: Shape, labels: Mapping[str, str] | None = None) -> Container:
        """A container that runs and whose program process is ready.

        Raises:
            BackendError: the engine does not make it, or it does not answer in time.
        """
        began = time.monotonic()
        user = FOREIGN_USER if self.kind.foreign else FIRST_USER + secrets.randbelow(USERS)
        folder = self.owner.folder / secrets.token_hex(4)
        name = container_name(self.owner.id, folder.name)
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)
        try:
            with _listen(folder / SOCKET) as listener:
                id = await self._start(name, shape, folder, labels or {}, user=self.user or f"{user}:{user}")
                try:
                    made = await self._connect(id, name, listener, shape, folder)
                    made.user = user
                    await made.spawn()
                except BaseException:
                    await asyncio.shield(self.engine.run(self.engine.remove, id))
                    raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        made.took_s = time.monotonic() - began
        return made

    async def _start(self, name: str, shape: Shape, folder: Path, labels: Mapping[str, str], *, user: str) -> str:
        engine = self.engine

        def start() -> str:
            walls = self.harden(shape, self.seccomp)
            if self.kind.network != "none":
                walls["network_mode"] = self.kind.network
            binds = {str(folder): {"bind": INSIDE, "mode": "ro"}}
            if self.kind.foreign:
                binds[str(self._runner)] = {"bind": RUNNER, "mode": "ro"}
            config = engine.host_config(binds=binds, mounts=[v.mount() for v in shape.volumes], **walls)
            id = engine.create(
                self.image,
                name=name,
                command=["--socket", f"{INSIDE}/{SOCKET}", "--lease", f"{self.lease_s:g}"],
                user=user,
                hostname="sandbox",
                working_dir="/tmp",
                environment={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "HOME": "/tmp", "TMPDIR": "/tmp"},
                labels={**labels, **self.owner.labels},
                stop_signal="SIGKILL",  # its first process ends with its line or its lease, not when it is asked to
                network_disabled=self.kind.network == "none",
                host_config=config,
                **self.kind.entry,
            )
            try:
                engine.start(id)
            except BackendError:
                engine.remove(id)
                raise
            return id

        return await engine.run(start)

    async def _connect(self, id: str, name: str, listener: socket.socket, shape: Shape, folder: Path) -> Container:
        seen = await self.engine.run(self.engine.inspect, id)
        pid = int(seen["State"]["Pid"])
        meter = Meter(self.engine, id, pid)
        sock = await self._accept(id, listener, pid if meter.cgroup is not None else None)
        (folder / SOCKET).unlink()  # nobody else will connect
        control = Control(sock)
        try:
            async with asyncio.timeout(HELLO_S):
                await control.greet()
        except (EOFError, OSError, ValueError) as error:
            control.close()
            raise ContainerLost(f"the container did not say hello ({error!r})", next=f"If it stays so, {BUILD}.") from error
        except BaseException:
            control.close()
            raise
        return Container(self.engine, id, name, pid, meter, shape, folder, control, self.kind)

    async def _accept(self, id: str, listener: socket.socket, pid: int | None) -> socket.socket:
        """The line of the container's first process; where its number is known, others who connect are sent away."""
        until = time.monotonic() + HELLO_S
        while time.monotonic() < until:
            if await _readable(listener, LOOK_S):  # an accept with a time limit would lose who comes just as it is cancelled
                sock = listener.accept()[0]
                sock.setblocking(False)
                if pid is None or _peer(sock) == pid:
                    return sock
                sock.close()
                log.warning("somebody else connected to the socket of container %s", id[:12], extra={"action": "sandbox_stranger"})
                continue
            try:
                running = (await self.engine.run(self.engine.inspect, id))["State"].get("Running")
            except Missing:
                running = False
            if not running:
                raise ContainerLost("the container ended at once", next=f"If it stays so, {BUILD}.")
        raise ContainerLost(
            f"the container did not connect to `{listener.getsockname()}` within {HELLO_S:g} s",
            next="The engine must see TOOLWEAVER_SANDBOX_DIR under the same path as this process.",
        )


def encode(frame: Mapping[str, Any]) -> bytes:
    """A frame as bytes."""
    data = json.dumps(frame).encode()
    return HEADER.pack(len(data)) + data


async def receive(sock: socket.socket, most: int) -> dict[str, Any]:
    """The next frame of a socket that does not block, and not a byte more.

    Raises:
        EOFError: there is none.
        ValueError: it is longer than `most`, or no JSON object.
    """
    (length,) = HEADER.unpack(await _exactly(sock, HEADER.size))
    if length > most:
        raise ValueError(f"a frame of {length} bytes came where {most} are allowed")
    frame = json.loads(await _exactly(sock, length))
    if not isinstance(frame, dict):
        raise ValueError("a frame was no JSON object")
    return frame


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop, parts = asyncio.get_running_loop(), b""
    while len(parts) < count:
        part = await loop.sock_recv(sock, count - len(parts))
        if not part:
            raise EOFError("it ended")
        parts += part
    return parts


async def _readable(sock: socket.socket, within_s: float) -> bool:
    """Whether something can be taken from a socket now or soon; takes nothing."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        async with asyncio.timeout(within_s):
            await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)
    return True


@contextlib.contextmanager
def _listen(path: Path) -> Any:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.chmod(path, 0o666)  # the container's user is another one; only it can reach the folder
        listener.listen(1)
        listener.setblocking(False)
        yield listener


def _peer(sock: socket.socket) -> int:
    pid, _uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)
