"""Looks at a real container from all sides and says of each wall whether it stands; the pool starts only when all do.

What the kernel says of the first process counts, not what the engine was asked for: `/proc`, the cgroup's files, and a
program inside that tries what must fail. Where the engine is not on this machine, the program's own reading has to do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendError
from workers.code.container import INSIDE, MIB, OPEN_FILES, RUNNER, SHM_BYTES, SOCKET, Container, Kind, encode, receive
from workers.code.figures import CGroup

PROBE_S = 20.0
PROBE_BYTES = 1 << 20
NO_LIMIT = 1 << 60  # version 1 of cgroups says "none" by a number about this large
SHELLS = ("sh", "bash")  # a base image may have one; what it runs has the same walls
KERNEL_FOLDERS = ("/proc", "/sys", "/dev")

# What must fail, tried by a program. Each ends in `refused` or tells what was possible.
PROBE = r"""
import ctypes, os, resource, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)

def call(number, *args):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "refused" if done < 0 else f"done ({done})"

def attempt(what):
    try:
        found = what()
    except OSError as error:
        return "refused"
    return found if isinstance(found, str) else "done"

def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)

def run_from_tmp():
    with open("/tmp/probe", "w") as file:
        file.write(f"#!{os.path.realpath(sys.executable)} -S\n")
    os.chmod("/tmp/probe", 0o755)
    pid = os.fork()
    if pid == 0:
        try:
            os.execv("/tmp/probe", ["/tmp/probe"])
        except OSError:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.unlink("/tmp/probe")
    return "refused" if code == 99 else f"done ({code})"

def sock(*kind):
    return lambda: socket.socket(*kind).close()

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect("INSIDE/SOCKET")

arm = os.uname().machine == "aarch64"
numbers = {"unshare": 97, "mount": 40, "setns": 268, "bpf": 280, "keyctl": 219, "pivot_root": 41, "prctl": 167} if arm else {
    "unshare": 272, "mount": 165, "setns": 308, "bpf": 321, "keyctl": 250, "pivot_root": 155, "prctl": 157}
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), 8)
rules = struct.pack("HP", 1, ctypes.addressof(allow))
found = {
    "network socket": attempt(sock(socket.AF_INET, socket.SOCK_STREAM)),
    "network socket, version 6": attempt(sock(socket.AF_INET6, socket.SOCK_STREAM)),
    "netlink socket": attempt(sock(16, socket.SOCK_RAW)),
    "packet socket": attempt(sock(17, socket.SOCK_RAW)),
    "vsock": attempt(sock(40, socket.SOCK_STREAM)),
    "new user namespace": call(numbers["unshare"], 0x10000000),
    "mount": call(numbers["mount"], b"none", b"/tmp", b"tmpfs", 0, None),
    "io_uring": call(425, 8, ctypes.create_string_buffer(512)),
    "bpf": call(numbers["bpf"], 0, ctypes.create_string_buffer(128), 128),
    "keyring": call(numbers["keyctl"], 0, -3, 1),
    "host's socket": attempt(connect),
    "program in /tmp": attempt(run_from_tmp),
    "file in /": attempt(lambda: write("/probe")),
    "file in the runner's folder": attempt(lambda: write("/opt/toolweaver/probe")),
    "file beside the host's socket": attempt(lambda: write("INSIDE/probe")),
    "memory of the first process": attempt(lambda: open("/proc/1/mem", "rb").close()),
    "limits of the first process": attempt(lambda: resource.prlimit(1, resource.RLIMIT_NOFILE) and None),
    "likelihood of the first process to be killed": attempt(lambda: open("/proc/1/oom_score_adj", "w").close()),
    "filter for calls": call(numbers["prctl"], 22, 2, rules, 0, 0),
    "filter for a socket": attempt(lambda: socket.socket(socket.AF_UNIX).setsockopt(1, 26, rules)),
    "root again": attempt(lambda: os.setuid(0)),
}
files = {}
for name in ("status", "mountinfo", "limits", "net/dev"):
    with open(f"/proc/self/{name}") as file:
        files[name] = file.read()
output = {"found": found, "files": files}
""".replace("INSIDE", INSIDE).replace("SOCKET", SOCKET)


@dataclass(frozen=True, slots=True)
class Check:
    """One wall: what it must be, what it is."""

    flag: str
    wanted: str
    found: str
    ok: bool


@dataclass(frozen=True)
class Seen:
    """What was gathered of a container; `files` are those of its first process, by their name in /proc."""

    container: Container
    inspected: Mapping[str, Any]
    files: Mapping[str, str]
    attempts: Mapping[str, str]
    cgroup: CGroup | None

    @property
    def host(self) -> Mapping[str, Any]:
        """The engine's settings of the container."""
        return dict(self.inspected.get("HostConfig") or {})

    def status(self, word: str) -> str:
        """A line of `/proc/<pid>/status`."""
        lines = self.files.get("status", "").splitlines()
        return next((" ".join(line.split()[1:]) for line in lines if line.startswith(f"{word}:")), "")

    def mounts(self) -> Iterator[tuple[str, str, set[str]]]:
        """Where, of which kind, and with which options something is mounted, the last of a place."""
        found = {}
        for line in self.files.get("mountinfo", "").splitlines():
            before, _, after = line.partition(" - ")
            words, kind = before.split(), after.split()
            found[words[4]] = (kind[0], {*words[5].split(","), *kind[2].split(",")}, set(words[5].split(",")))
        for where, (kind_name, options, own) in found.items():
            yield where, kind_name, own | {o for o in options if "=" in o} | ({"ro"} if "ro" in options else set())


async def look(container: Container) -> list[Check]:
    """Every wall of a running container. A program is run in it: it is of no use afterwards.

    Raises:
        BackendError: it did not answer.
    """
    inspected = await container.engine.run(container.engine.inspect, container.id)
    told = await _probe(container)
    files = _proc(container.pid) if container.local else dict(told.get("files") or {})
    seen = Seen(container, inspected, files, dict(told.get("found") or {}), container.meter.cgroup)
    return [
        *_process(seen),
        *_namespaces(seen),
        *_mounted(seen),
        *_limits(seen),
        *_engine(seen),
        *_attempts(seen),
        *_first(await container.control.report(), container.kind),
    ]


async def verify(container: Container) -> list[Check]:
    """The same, where all must stand.

    Raises:
        BackendError: one does not.
    """
    checks = await look(container)
    if bad := [c for c in checks if not c.ok]:
        raise BackendError(
            "programs are not run here: " + "; ".join(f"{c.flag} is {c.found}, wanted {c.wanted}" for c in bad),
            next="`toolweaver sandbox check` shows all walls; the engine's configuration or its version takes some away.",
        )
    return checks


def _proc(pid: int) -> dict[str, str]:
    names = ("status", "mountinfo", "limits", "net/dev")
    return {name: Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace") for name in names}


async def _probe(container: Container) -> dict[str, Any]:
    sock = container.channel
    if sock is None:
        raise BackendError("the container has no program process")
    limits = {"output_bytes": 1 << 16, "in_flight": 1}
    program = {"op": "exec", "code": PROBE, "input": None, "modules": {}, "names": {}, "seed": "inspection", "limits": limits}
    try:
        async with asyncio.timeout(PROBE_S):
            await asyncio.get_running_loop().sock_sendall(sock, encode(program))
            while (said := await receive(sock, PROBE_BYTES)).get("op") != "done":
                pass
    except (TimeoutError, EOFError, OSError, ValueError) as error:
        raise BackendError(f"the program that tries the walls did not end ({error!r})") from error
    if said.get("error") or not isinstance(said.get("value"), dict):
        raise BackendError(f"the program that tries the walls failed: {json.dumps(said.get('error'))[:500]}")
    return dict(said["value"])


def _same(flag: str, wanted: object, found: object) -> Check:
    return Check(flag, str(wanted), str(found), str(wanted) == str(found))


def _process(seen: Seen) -> Iterator[Check]:
    user = group = str(seen.container.user)
    yield _same("user", " ".join([user] * 4), seen.status("Uid"))
    yield _same("group", " ".join([group] * 4), seen.status("Gid"))
    groups = seen.status("Groups")
    yield Check("other groups", "none", groups or "none", set(groups.split()) <= {group})
    for word in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        yield _same(f"capabilities ({word})", "0" * 16, seen.status(word))
    yield _same("no new privileges", 1, seen.status("NoNewPrivs"))
    yield _same("seccomp (2: filter)", 2, seen.status("Seccomp"))


def _namespaces(seen: Seen) -> Iterator[Check]:
    devices = [line.split(":")[0].strip() for line in seen.files.get("net/dev", "").splitlines() if ":" in line]
    if seen.container.kind.network == "none":
        yield _same("network devices", ["lo"], devices)
    if not seen.container.local:
        return
    for name in ("net", "pid", "ipc", "uts", "mnt", "cgroup"):
        ours, its = (Path(f"/proc/{p}/ns/{name}") for p in ("self", seen.container.pid))
        try:
            same = ours.readlink() == its.readlink()
        except PermissionError:  # not root here; the engine's word is below
            continue
        yield Check(f"namespace {name}", "its own", "the host's" if same else "its own", not same)


def _mounted(seen: Seen) -> Iterator[Check]:
    mounts = {where: (kind, options) for where, kind, options in seen.mounts()}
    for where in ("/", INSIDE, RUNNER) if seen.container.kind.foreign else ("/", INSIDE):
        yield Check(
            f"mount {where}",
            "ro",
            "ro" if "ro" in mounts.get(where, ("", set()))[1] else "rw",
            "ro" in mounts.get(where, ("", set()))[1],
        )
    kind, options = mounts.get("/tmp", ("none", set()))
    wanted = {"noexec", "nosuid", "nodev", f"size={seen.container.shape.tmp_mb * 1024}k"}
    yield Check(
        "mount /tmp",
        f"tmpfs {','.join(sorted(wanted))}",
        f"{kind} {','.join(sorted(options))}",
        kind == "tmpfs" and wanted <= options,
    )
    yield Check(
        "files in /tmp",
        "limited",
        "limited" if any(o.startswith("nr_inodes=") for o in options) else "any number",
        any(o.startswith("nr_inodes=") for o in options),
    )
    others = sorted(w for w, (k, o) in mounts.items() if "ro" not in o and w != "/tmp" and not w.startswith(KERNEL_FOLDERS))
    yield _same("other places to write", [], others)
    kind, options = mounts.get("/dev/shm", ("none", set()))
    small = kind == "none" or {"noexec", "nosuid", "nodev", f"size={SHM_BYTES // 1024}k"} <= options
    yield Check("mount /dev/shm", "small, noexec,nosuid,nodev", f"{kind} {','.join(sorted(options))}", small)


def _limits(seen: Seen) -> Iterator[Check]:
    limits = {line[:25].strip(): line[25:].split() for line in seen.files.get("limits", "").splitlines()}
    yield _same("open files", [OPEN_FILES] * 2, [int(n) for n in limits.get("Max open files", [])[:2] if n.isdigit()])
    yield _same("core file", ["0", "0"], limits.get("Max core file size", [])[:2])
    shape, group = seen.container.shape, seen.cgroup
    if group is None:
        host = seen.host
        yield _same("memory (the engine says)", shape.memory_mb * MIB, host.get("Memory"))
        yield _same("processes (the engine says)", shape.pids, host.get("PidsLimit"))
        yield _same("cores (the engine says)", shape.nano_cpus, host.get("NanoCpus"))
        return
    yield _same("processes", shape.pids, group.number("pids", "pids.max"))
    memory = group.number("memory", "memory.limit_in_bytes") or group.number("", "memory.max")
    yield _same("memory", shape.memory_mb * MIB, memory)
    yield _swap(group, shape.memory_mb * MIB)
    yield _same("cores", f"{shape.cpus:g}", f"{_cores(group):g}")


def _swap(group: CGroup, memory: int) -> Check:
    both = group.number("memory", "memory.memsw.limit_in_bytes")
    alone = group.number("", "memory.swap.max")
    if both is not None:
        return _same("memory and swap", memory, both)
    if alone is not None:
        return _same("swap", 0, alone)
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    swap_kb = next((int(line.split()[1]) for line in lines if line.startswith("SwapTotal:")), 0)
    found = "this kernel does not limit it, and the machine has none" if swap_kb == 0 else f"{swap_kb} kB, not limited"
    return Check("swap", "0", found, swap_kb == 0)


def _cores(group: CGroup) -> float:
    quota, period = group.number("cpu", "cpu.cfs_quota_us"), group.number("cpu", "cpu.cfs_period_us")
    if quota is None or period is None:
        words = (group.read("", "cpu.max") or "max 100000").split()
        quota, period = (-1 if words[0] == "max" else int(words[0])), int(words[1])
    return quota / period if quota > 0 else float("inf")


def _engine(seen: Seen) -> Iterator[Check]:
    host, kind = seen.host, seen.container.kind
    yield _same("network", kind.network, host.get("NetworkMode"))
    yield _same("privileged", False, host.get("Privileged"))
    yield _same("devices", [], host.get("Devices") or [])
    ours = [f"{seen.container.folder}:{INSIDE}:ro"]
    ours += [f"{seen.container.folder.parent / 'runner'}:{RUNNER}:ro"] if kind.foreign else []
    yield _same("folders of the host", ours, host.get("Binds") or [])
    yield _same("other mounts of the host", len(seen.container.shape.volumes), len(host.get("Mounts") or []))
    yield _same("log", "none", (host.get("LogConfig") or {}).get("Type"))
    yield _same("removed at its end", True, host.get("AutoRemove"))
    for name, key in (("processes of the host", "PidMode"), ("host's users", "UsernsMode")):
        yield Check(name, "hidden", host.get(key) or "hidden", host.get(key) != "host")
    yield Check("host's memory segments", "private", str(host.get("IpcMode")), host.get("IpcMode") in ("private", "none"))


def _attempts(seen: Seen) -> Iterator[Check]:
    yield Check("attempts made", "all", str(len(seen.attempts)), len(seen.attempts) > 0)
    networked = seen.container.kind.network != "none"
    for what, found in seen.attempts.items():
        if networked and what.startswith("network socket"):
            continue
        yield _same(f"attempt: {what}", "refused", found)


def _first(report: Mapping[str, Any], kind: Kind) -> Iterator[Check]:
    """What the first process says of itself; the rest of it was seen from outside."""
    yield _same("first process", 1, report.get("pid"))
    yield _same("hashes are the same each time", True, report.get("hash_seed_fixed"))
    wanted = [] if kind.network == "none" else ["AF_INET", "AF_INET6"]
    yield _same("kinds of sockets", wanted, report.get("sockets"))
    allowed = [name for name, refused in dict(report.get("refused") or {"any": False}).items() if not refused]
    yield _same("calls that it may make and must not", [], allowed)
    if not kind.foreign:  # such an image has what its owner wants; without rights it leads nowhere
        yield _same("ways to other users and packages", [], [t for t in report.get("tools") or () if t not in SHELLS])
