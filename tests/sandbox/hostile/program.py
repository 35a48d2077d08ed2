"""One hostile program as data: what it tries, what may come of it, and the helpers that its text may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.models.program import ProgramLimits, Status

Area = Literal["resources", "kernel", "files", "network", "forgery", "jail", "leakage", "tools"]

CANARY = "toolweaver-canary-"
"""What every planted secret begins with; sixteen hexadecimal digits follow. No secret is ever written in a program."""

ANY: frozenset[Status] = frozenset({"success", "error", "timeout", "security_error"})
RAN: frozenset[Status] = frozenset({"success"})
FAILED: frozenset[Status] = ANY - {"success"}
VIOLATION: frozenset[Status] = frozenset({"security_error"})
STUCK: frozenset[Status] = frozenset({"timeout"})


@dataclass(frozen=True, slots=True)
class Hostile:
    """A program that must not get anywhere.

    Attributes:
        code: what it does after the helpers; it prints `BREACH <what>` when an attack succeeds.
        tools: names of the tools in `test_hostile.py` that are granted.
        then: a second program, run after the first one has ended.
        same_job: the second program belongs to the same job, which allows the same container.
        beside: a program of another job, run in another container as soon as this one calls the tool `armed`.
        limits: differences to the limits of the suite.
        status: how it may end.
        held: each of its texts that calls `held` must come to that point: proof that every attack of its was tried.
        value: what its value must be, if that is what the attack is about.
        bare: run without the helpers, as the text is.
        variant: one of a family that differs in a value only; the quick run takes every third of them.
        note: why this is an attack.
    """

    name: str
    area: Area
    code: str
    tools: tuple[str, ...] = ()
    then: str | None = None
    same_job: bool = False
    beside: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    status: frozenset[Status] = RAN
    held: bool = True
    value: Any = ...
    bare: bool = False
    variant: bool = False
    note: str = ""

    def texts(self) -> list[str]:
        """The programs to run, in order, helpers included."""
        parts = [text for text in (self.code, self.then) if text is not None]
        return parts if self.bare else [PRELUDE + text for text in parts]

    def bounds(self) -> ProgramLimits:
        """A wall limit of 10 s for attacks that end by themselves; bombs say their own."""
        return ProgramLimits.model_validate({"timeout_s": 10, **self.limits})


def bomb(
    name: str,
    code: str,
    *,
    area: Area = "resources",
    status: frozenset[Status] = FAILED,
    timeout_s: float = 2,
    limits: Mapping[str, Any] | None = None,
    tools: tuple[str, ...] = (),
    bare: bool = False,
    note: str = "",
) -> Hostile:
    """A program that only the host can stop: it need not come to its end, but it must be ended."""
    bounds = {"timeout_s": timeout_s, **(limits or {})}
    return Hostile(name, area, code, tools=tools, limits=bounds, status=status, held=False, bare=bare, note=note)


def forged(
    name: str,
    code: str,
    *,
    status: frozenset[Status] = VIOLATION,
    timeout_s: float = 2,
    tools: tuple[str, ...] = (),
    value: Any = ...,
    held: bool = False,
    note: str = "",
) -> Hostile:
    """A program that speaks to the host past the bridge: `send` and `raw` write to the program channel."""
    limits = {"timeout_s": timeout_s}
    return Hostile(name, "forgery", WIRE + code, tools=tools, limits=limits, status=status, held=held, value=value, note=note)


PRELUDE = '''\
import ctypes, errno, os, platform, signal, socket, stat, struct, sys, threading, time

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
NR = dict(
    setns=(308, 268), unshare=(272, 97), clone=(56, 220), clone3=(435, 435), mount=(165, 40), umount2=(166, 39),
    pivot_root=(155, 41), chroot=(161, 51), fsopen=(430, 430), fsmount=(432, 432), open_tree=(428, 428),
    move_mount=(429, 429), mount_setattr=(442, 442), add_key=(248, 217), request_key=(249, 218), keyctl=(250, 219),
    bpf=(321, 280), perf_event_open=(298, 241), userfaultfd=(323, 282), io_uring_setup=(425, 425),
    io_uring_register=(427, 427), ptrace=(101, 117), process_vm_readv=(310, 270), process_vm_writev=(311, 271),
    pidfd_open=(434, 434), pidfd_getfd=(438, 438), pidfd_send_signal=(424, 424), process_madvise=(440, 440),
    personality=(135, 92), modify_ldt=(154, -1), name_to_handle_at=(303, 264), open_by_handle_at=(304, 265),
    capset=(126, 91), setgroups=(116, 159), setuid=(105, 146), setgid=(106, 144), setresuid=(117, 147),
    setresgid=(119, 149), setfsuid=(122, 151), seccomp=(317, 277), reboot=(169, 142), kexec_load=(246, 104),
    kexec_file_load=(320, 294), init_module=(175, 105), finit_module=(313, 273), delete_module=(176, 106),
    swapon=(167, 224), swapoff=(168, 225), sethostname=(170, 161), setdomainname=(171, 162), syslog=(103, 116),
    sched_setattr=(314, 274), ioprio_set=(251, 30), clock_settime=(227, 112), settimeofday=(164, 170),
    adjtimex=(159, 171), clock_adjtime=(305, 266), quotactl=(179, 60), acct=(163, 89), iopl=(172, -1),
    ioperm=(173, -1), fanotify_init=(300, 262), vhangup=(153, 58), migrate_pages=(256, 238), move_pages=(279, 239),
    kcmp=(312, 272), prlimit64=(302, 261), memfd_secret=(447, 447), tgkill=(234, 131), nfsservctl=(180, 42),
    lookup_dcookie=(212, 18), inotify_init1=(294, 26), mq_open=(240, 180), shmget=(29, 194), shmat=(30, 196),
    shmctl=(31, 195), semget=(64, 190), msgget=(68, 186), msgsnd=(69, 189), msgrcv=(70, 188), timer_create=(222, 107),
    splice=(275, 76), socket=(41, 198), process_mrelease=(448, 448), landlock_create_ruleset=(444, 444),
    set_mempolicy=(238, 237), sysfs=(139, -1), uselib=(134, -1), ustat=(136, -1), prctl=(157, 167),
)
DENIED = {errno.EPERM, errno.EACCES, errno.ENOSYS}


def syscall(name, *args):
    """The system call's result, or minus its errno; the C library is not asked."""
    number = NR[name][0 if X86 else 1]
    if number < 0:
        return -errno.ENOSYS
    ctypes.set_errno(0)
    got = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    return got if got >= 0 else -ctypes.get_errno()


def breach(what):
    print("BREACH", what, flush=True)


def held():
    print("HELD", flush=True)


def denied(name, *args, also=()):
    """A system call that must be refused as such: an answer about its arguments means that the kernel listened."""
    got = syscall(name, *args)
    if -got not in DENIED | set(also):
        breach(f"{name}{args!r:.80} answered {got}" + (f" ({errno.errorcode.get(-got)})" if got < 0 else ""))


def attempt(what, action):
    """An action that must fail; what it returned is shown, so that a planted secret in it would be seen."""
    try:
        got = action()
    except BaseException as error:
        return error
    breach(f"{what}: {got!r:.300}")


def in_child(action, seconds=3.0):
    """Runs an action in a child that may die of it: its exit code, or minus its signal; None: it hung."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(action() or 0)
        except BaseException:
            os._exit(99)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)


def forever():
    while True:
        pass


'''

WIRE = '''\
import json


def foreign_sockets():
    """Sockets whose other end is not in this container: the program channel, and nothing else should be here."""
    found, seen = [], set()
    for fd in [fd for fd in range(1024) if os.path.exists(f"/proc/self/fd/{fd}")]:
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            end = socket.socket(fileno=os.dup(fd))
            pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            continue
        if pid == 0 and os.fstat(fd).st_ino not in seen:
            seen.add(os.fstat(fd).st_ino)
            end.settimeout(1.5)
            found.append(end)
    return found


channels = foreign_sockets()
if not channels:
    raise LookupError("the program channel was not found: this attack tried nothing")


def raw(data):
    """Bytes to the host, as they are; False when the host has hung up."""
    try:
        channels[0].sendall(data)
    except OSError:
        return False
    return True


def packed(frame):
    body = frame if isinstance(frame, bytes) else json.dumps(frame).encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(body)) + body


def send(*frames):
    """Frames to the host in one write."""
    return raw(b"".join(map(packed, frames)))


def call(number=1, tool="echo", args=None, **more):
    return {"op": "call", "id": number, "key": f"0:{number}", "tool": tool, "args": args or {}, **more}


def done(value, **more):
    return {"op": "done", "value": value, "has_value": True, "error": None, **more}


'''
