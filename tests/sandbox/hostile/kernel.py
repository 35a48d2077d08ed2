"""Programs that ask the kernel for what a container must not have, and that go for its first process."""

from __future__ import annotations

from tests.sandbox.hostile.program import ANY, Hostile


def asks(name: str, code: str, *, note: str = "") -> Hostile:
    """An attack of system calls that comes to its end: the container is still whole after it."""
    return Hostile(name, "kernel", code + "\nheld()\n", note=note)


_NAMESPACES = [
    asks("unshare_user", "denied('unshare', 0x10000000)"),
    asks(
        "unshare_every_namespace",
        """
for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80, 0x7e020000):
    if in_child(lambda: syscall("unshare", flag) >= 0 and 42) == 42:
        breach(f"unshare {flag:#x}")
""",
    ),
    asks(
        "clone_into_namespaces",
        """
for flag in (0x10000000, 0x10020000, 0x20000, 0x20000000, 0x40000000):
    pid = syscall("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
        breach(f"clone {flag:#x}")
""",
    ),
    asks(
        "clone3_into_namespaces",
        """
for flag in (0x10000000, 0x20000, 0x200000000):
    wanted = struct.pack("11Q", flag, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid = syscall("clone3", wanted, len(wanted))
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
        breach(f"clone3 {flag:#x}")
""",
    ),
    asks(
        "join_namespaces_of_pid_1",
        """
for kind in ("mnt", "pid", "net", "user", "ipc", "uts", "cgroup", "time", "pid_for_children"):
    for pid in (1, "self"):
        try:
            fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        except OSError:
            continue
        if syscall("setns", fd, 0) >= 0:
            breach(f"setns {pid} {kind}")
""",
    ),
    asks(
        "join_namespaces_by_pidfd",
        """
fd = syscall('pidfd_open', 1, 0)
if fd >= 0: denied('setns', fd, 0x20000, also={errno.EINVAL})
""",
    ),
    asks(
        "parent_namespace",
        "fd = attempt('parent user namespace', lambda: __import__('fcntl').ioctl(os.open('/proc/self/ns/user', 0), 0xb702))",
    ),
]

_MOUNTS = [
    asks(
        "mount",
        """
for kind, where, flags in ((b"tmpfs", b"/tmp", 0), (b"proc", b"/proc", 0), (b"sysfs", b"/sys", 0), (b"cgroup", b"/tmp", 0)):
    denied("mount", kind, where, kind, flags, None)
denied("mount", b"/", b"/tmp", None, 4096, None)
denied("mount", None, b"/", None, 32 | 4096, None)
denied("mount", b"/dev/vda", b"/tmp", b"ext4", 0, None)
""",
    ),
    asks(
        "mount_by_the_new_calls",
        """
denied("fsopen", b"tmpfs", 0)
denied("open_tree", -100, b"/", 1)
denied("fsmount", 0, 0, 0)
denied("move_mount", -100, b"/", -100, b"/tmp", 0)
denied("mount_setattr", -100, b"/", 0, struct.pack("4Q", 0, 1, 0, 0), 32)
""",
    ),
    asks(
        "unmount",
        """
for where in (b'/tmp', b'/proc/kcore', b'/proc/sys', b'/run/toolweaver', b'/sys', b'/'):
    denied('umount2', where, 2)
""",
    ),
    asks(
        "pivot_root",
        """
os.makedirs('/tmp/old', exist_ok=True)
denied('pivot_root', b'/tmp', b'/tmp/old')
""",
    ),
    asks(
        "chroot",
        """
os.makedirs('/tmp/root', exist_ok=True)
denied('chroot', b'/tmp/root')
attempt('chroot', lambda: os.chroot('/tmp'))
""",
    ),
    asks(
        "mknod",
        """
for kind in (stat.S_IFBLK, stat.S_IFCHR):
    for major in (1, 7, 8, 10, 252, 254, 259):
        for where in ("/tmp/node", "/dev/node", "/dev/shm/node"):
            attempt(f"mknod {major}", lambda: os.mknod(where, kind | 0o666, os.makedev(major, 1)))
""",
    ),
    asks(
        "files_by_handle",
        """
size = struct.calcsize("Ii") + 128
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128), size)
got = syscall("name_to_handle_at", -100, b"/etc", handle, ctypes.byref(ctypes.c_int()), 0)
root = struct.pack("IiQ", 8, 1, 2)
denied("open_by_handle_at", os.open("/tmp", os.O_RDONLY), root, os.O_RDONLY)
denied("open_by_handle_at", os.open("/etc/passwd", os.O_RDONLY), handle, os.O_RDONLY)
""",
        note="shocker: the host's root by its inode",
    ),
]

_CALLS = [
    asks(
        "keyrings",
        """
denied('add_key', b'user', b'a', b'b', 1, -4)
denied('keyctl', 0, -4, 1)
denied('keyctl', 1, b'x')
denied('request_key', b'user', b'a', None, 0)
""",
    ),
    asks(
        "bpf",
        """
denied('bpf', 0, struct.pack('4I', 2, 4, 4, 1) + bytes(104), 120)
denied('bpf', 5, bytes(120), 120)
""",
    ),
    asks("perf_event_open", "denied('perf_event_open', struct.pack('IIQ', 1, 112, 0) + bytes(96), 0, -1, -1, 0)"),
    asks(
        "userfaultfd",
        """
denied('userfaultfd', 0)
denied('userfaultfd', 1)
attempt('/dev/userfaultfd', lambda: os.open('/dev/userfaultfd', os.O_RDWR))
""",
    ),
    asks(
        "io_uring",
        """
denied('io_uring_setup', 8, ctypes.create_string_buffer(120))
denied('io_uring_register', -1, 0, None, 0)
""",
    ),
    asks(
        "modules",
        """
denied('init_module', None, 0, b'')
denied('finit_module', 0, b'', 0)
denied('delete_module', b'none', 2048)
""",
    ),
    asks(
        "new_kernel",
        """
denied('kexec_load', 0, 0, None, 0)
denied('kexec_file_load', 0, 0, 0, None, 4)
""",
    ),
    asks("reboot", "denied('reboot', 0xfee1dead, 672274793, 0, None)", note="the command that only turns Ctrl-Alt-Del off"),
    asks(
        "swap",
        """
denied('swapon', b'/tmp/none', 0)
denied('swapoff', b'/tmp/none')
""",
    ),
    asks(
        "names_of_the_host",
        """
denied('sethostname', b'owned', 5)
denied('setdomainname', b'owned', 5)
""",
    ),
    asks(
        "kernel_log",
        """
buffer = ctypes.create_string_buffer(4096)
for action in (2, 3, 4, 5, 10):
    denied('syslog', action, buffer, 4096)
""",
    ),
    asks(
        "accounting_and_quotas",
        """
denied('acct', None)
denied('acct', b'/tmp/acct')
denied('quotactl', 0x800007, b'/dev/vda', 0, ctypes.create_string_buffer(256))
""",
    ),
    asks(
        "ports",
        """
denied('iopl', 3)
denied('ioperm', 0x70, 1, 1)
""",
    ),
    asks("segments", "denied('modify_ldt', 1, struct.pack('4I', 0, 0, 0xfffff, 0x51), 16)"),
    asks(
        "persona",
        """
for persona in (0x0040000, 0x0400000, 0x0100000, 0x8):
    denied('personality', persona)
""",
    ),
    asks(
        "fanotify",
        """
denied('fanotify_init', 0, 0)
denied('fanotify_init', 0x200, 0)
""",
    ),
    asks(
        "old_and_odd_calls",
        """
denied('vhangup')
denied('lookup_dcookie', 0, None, 0)
denied('nfsservctl', 0, None, None)
denied('uselib', b'/tmp/x')
denied('memfd_secret', 0)
denied('sysfs', 3)
denied('ustat', 1, ctypes.create_string_buffer(64))
""",
    ),
    asks(
        "pages_of_other_processes",
        """
denied('migrate_pages', 1, 8, bytes(8), bytes(8))
denied('move_pages', 1, 0, None, None, None, 0)
denied('set_mempolicy', 2, struct.pack('Q', 1), 8)
""",
    ),
    asks(
        "clocks",
        """
now = time.time()
denied("clock_settime", 0, struct.pack("2q", int(now), 0))
denied("settimeofday", struct.pack("2q", int(now), 0), None)
denied("adjtimex", struct.pack("I", 0x4000) + bytes(300))
denied("clock_adjtime", 0, struct.pack("I", 0x4000) + bytes(300))
""",
    ),
    asks(
        "real_time",
        """
attempt("FIFO", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
attempt("RR", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
denied("sched_setattr", 0, struct.pack("IIQiIQQQ", 48, 6, 0, 0, 0, 10**7, 10**8, 10**8), 0, also={errno.EBUSY})
attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
denied("ioprio_set", 1, 0, 1 << 13)
""",
    ),
    asks(
        "limits_raised",
        """
import resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE, resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO):
    soft, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        continue
    attempt(f"limit {kind}", lambda: resource.setrlimit(kind, (hard, hard + 1)))
if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 4096:
    breach("thousands of descriptors")
""",
    ),
    asks("filters_of_its_own", "denied('seccomp', 1, 8, struct.pack('HxxxxxxQ', 0, 0))", note="a filter with a listener"),
]

_SOCKETS = [
    asks(
        f"socket_of_{name}",
        f"""
for kind in (1, 2, 3, 5):
    for protocol in {protocols}:
        if syscall("socket", {family}, kind, protocol) >= 0:
            breach(f"socket {name} {{kind}} {{protocol}}")
""",
    )
    for name, family, protocols in (
        ("netlink", 16, "range(23)"),
        ("packets", 17, "(0, 3, 768)"),
        ("virtual_machines", 40, "(0,)"),
        ("kernel_cryptography", 38, "(0,)"),
        ("keys", 15, "(0, 2)"),
    )
]
_SOCKETS.append(
    asks(
        "socket_of_any_other_family",
        """
for family in range(64):
    for kind in (1, 2, 3, 4, 5):
        if family not in (1, 2, 10) and syscall("socket", family, kind, 0) >= 0:
            breach(f"family {family} kind {kind}")
for family, protocol in ((2, 1), (2, 255), (10, 58), (2, 132), (2, 262)):
    for kind in (1, 3, 5):
        if syscall("socket", family, kind, protocol) >= 0:
            breach(f"family {family} kind {kind} protocol {protocol}")
""",
    )
)

_FIRST = [
    asks(
        "trace_pid_1",
        """
for request in (16, 0x4206):
    if syscall("ptrace", request, 1, None, None) >= 0:
        breach(f"ptrace {request:#x}")
""",
    ),
    asks(
        "memory_of_pid_1_by_vectors",
        """
here = ctypes.create_string_buffer(64)
mine = struct.pack("QQ", ctypes.addressof(here), 8)
for address in (ctypes.addressof(here), 0x400000, id(object), id(sys)):
    there = struct.pack("QQ", address, 8)
    for name in ("process_vm_readv", "process_vm_writev"):
        got = syscall(name, 1, mine, 1, there, 1, 0)
        if got >= 0:
            breach(f"{name} at {address:#x}")
""",
        note="the program was forked from PID 1: its addresses are the same",
    ),
    asks(
        "memory_of_pid_1_by_proc",
        """
attempt('read', lambda: open('/proc/1/mem', 'rb'))
attempt('write', lambda: open('/proc/1/mem', 'r+b'))
attempt('maps', lambda: open('/proc/1/maps').read())
attempt('smaps', lambda: open('/proc/1/smaps').read())
attempt('stack', lambda: open('/proc/1/stack').read())
attempt('auxv', lambda: open('/proc/1/auxv', 'rb').read())
""",
    ),
    asks(
        "descriptors_of_pid_1",
        """
attempt('list', lambda: os.listdir('/proc/1/fd'))
attempt('info', lambda: os.listdir('/proc/1/fdinfo'))
for fd in range(64):
    for mode in (os.O_RDONLY, os.O_WRONLY):
        attempt(f'open {fd}', lambda: os.open(f'/proc/1/fd/{fd}', mode))
""",
    ),
    asks(
        "folders_of_pid_1",
        """
for name in ('root', 'cwd', 'exe'):
    attempt(name, lambda: os.readlink(f'/proc/1/{name}'))
attempt('through', lambda: os.listdir('/proc/1/root/'))
attempt('map_files', lambda: os.listdir('/proc/1/map_files'))
attempt('environ', lambda: open('/proc/1/environ', 'rb').read())
""",
    ),
    asks(
        "descriptors_by_pidfd",
        """
fd = syscall("pidfd_open", 1, 0)
for number in range(64):
    if fd >= 0 and syscall("pidfd_getfd", fd, number, 0) >= 0:
        breach(f"descriptor {number} of PID 1")
""",
    ),
    asks(
        "made_dumpable_then_memory_of_pid_1",
        """
syscall('prctl', 4, 1, 0, 0, 0)
attempt('mem', lambda: open('/proc/1/mem', 'rb'))
attempt('fd', lambda: os.listdir('/proc/1/fd'))
if syscall('ptrace', 16, 1, None, None) >= 0: breach('ptrace')
""",
    ),
    asks(
        "kill_pid_1",
        """
os.kill(1, 9)
os.kill(1, signal.SIGSTOP)
fd = syscall('pidfd_open', 1, 0)
if fd >= 0: syscall('pidfd_send_signal', fd, 9, None, 0)
syscall('tgkill', 1, 1, 9)
time.sleep(0.2)
""",
    ),
    asks(
        "kill_everything",
        """
try:
    os.kill(-1, 9)
except ProcessLookupError:
    pass
time.sleep(0.2)
""",
        note="all but PID 1 and itself",
    ),
    Hostile(
        "every_signal_to_pid_1",
        "kernel",
        """
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
time.sleep(0.3)
held()
""",
        status=ANY,
        held=False,
        note="Python handles SIGINT unless told otherwise: a first process may die of it, but its container then ends as an error",
    ),
    asks(
        "pid_1_made_slow",
        """
import resource
attempt('limit', lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)))
attempt('oom', lambda: open('/proc/1/oom_score_adj', 'w').write('1000'))
denied('process_madvise', syscall('pidfd_open', 1, 0), struct.pack('QQ', 0x400000, 4096), 1, 21, 0, also={errno.EBADF})
if syscall('kcmp', 1, os.getpid(), 2, 0, 0) >= 0: breach('kcmp')
""",
    ),
]

_RIGHTS = [
    asks(
        "other_users",
        """
for name, args in (("setuid", (0,)), ("setgid", (0,)), ("setresuid", (0, 0, 0)), ("setresgid", (0, 0, 0)), ("setgroups", (1,
    struct.pack("I", 0)))):
    syscall(name, *args)
syscall("setfsuid", 0)
mine = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
if "0" in (mine["Uid"] + "\\t" + mine["Gid"]).split() or "0" in mine["Groups"].split():
    breach(f"root: {mine['Uid']} {mine['Gid']} {mine['Groups']}")
""",
    ),
    asks(
        "capabilities",
        """
for version in (0x20080522, 0x19980330):
    syscall("capset", struct.pack("Ii", version, 0), struct.pack("6I", *[0xffffffff] * 6))
for capability in range(41):
    syscall("prctl", 47, 2, capability, 0, 0)
    syscall("prctl", 23, capability, 0, 0, 0)
mine = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    if int(mine[name], 16):
        breach(f"{name} {mine[name]}")
""",
    ),
    asks(
        "walls_are_up",
        """
mine = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
syscall("prctl", 38, 0, 0, 0, 0)
if mine["NoNewPrivs"] != "1" or mine["Seccomp"] != "2":
    breach(f"no_new_privs {mine['NoNewPrivs']} seccomp {mine['Seccomp']}")
if os.getuid() == 0 or os.getgid() == 0:
    breach("root")
""",
    ),
    asks(
        "setuid_programs",
        """
for folder, names, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        names.clear()
    for file in files:
        try:
            mode = os.lstat(os.path.join(folder, file)).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o6000:
            path = os.path.join(folder, file)
            out, into = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.dup2(into, 1)
                os.execv(path, [path, "--version"])
            os.close(into)
            time.sleep(0.05)
            try:
                shown = open(f"/proc/{pid}/status").read()
                if "Uid:\\t0" in shown or "\\t0\\n" in shown.split("Uid:")[1].splitlines(True)[0]:
                    breach(f"{path} runs as root")
            except (OSError, IndexError):
                pass
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(out)
""",
    ),
    asks(
        "walls_stay_after_exec",
        """
import subprocess
path, kept = sys.executable, []
try:
    kept.append(os.memfd_create("copy", 0))
    with open(os.path.realpath(sys.executable), "rb") as source:
        while part := source.read(1 << 20):
            os.write(kept[0], part)
    path = f"/proc/self/fd/{kept[0]}"
except OSError as error:
    print("no file in memory:", error)
inner = "import ctypes; c = ctypes.CDLL(None); print('BREACH' if c.unshare(0x10000000) == 0 or c.socket(40, 1, 0) >= 0 else 'fine')"
got = subprocess.run([path, "-I", "-c", inner], capture_output=True, text=True, pass_fds=kept)
print(got.stdout, got.stderr[-300:])
if "fine" not in got.stdout:
    raise RuntimeError("the inner program did not run")
""",
        note="a program of its own, run from memory",
    ),
    asks(
        "terminal_input",
        """
import fcntl
for path in ("/dev/tty", "/dev/console", "/dev/tty0", "/dev/vcs"):
    attempt(path, lambda: os.open(path, os.O_RDWR))
for fd in (0, 1, 2):
    for character in b"x":
        attempt("TIOCSTI", lambda: fcntl.ioctl(fd, 0x5412, bytes([character])))
    attempt("TIOCLINUX", lambda: fcntl.ioctl(fd, 0x541C, bytes([2, 0])))
""",
    ),
]

_SHELLCODE = """
import mmap


def run(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return function()


def old_call(number, *args):
    # push rbx; mov eax, n; mov ebx, a; mov ecx, b; mov edx, c; int 0x80; pop rbx; ret
    values = (list(args) + [0, 0, 0])[:3]
    text = b"\\x53\\xb8" + struct.pack("<I", number)
    for opcode, value in zip((0xbb, 0xb9, 0xba), values):
        text += bytes([opcode]) + struct.pack("<I", value)
    return run(text + b"\\xcd\\x80\\x5b\\xc3")


"""

_OTHER_WAYS = [
    asks(
        "calls_of_32_bits",
        _SHELLCODE
        + """
if X86:
    for what, number, *args in (("unshare", 310, 0x10000000), ("vsock", 359, 40, 1, 0), ("netlink", 359, 16, 3, 0), ("io_uring",
        425, 0, 0, 0), ("keyctl", 288, 0, 0xfffffffc, 1)):
        if in_child(lambda: 42 if old_call(number, *args) >= 0 else 0) == 42:
            breach(f"{what} by int 0x80")
    if in_child(lambda: 42 if old_call(310, 0x10000000) == -22 else 0) == 42:
        breach("the kernel looked at the arguments")
""",
        note="a filter for 64 bits alone lets everything of 32 bits through",
    ),
    asks(
        "calls_of_x32",
        """
if X86:
    for what, number, *args in (("unshare", 272, 0x10000000), ("socket", 41, 40, 1, 0), ("ptrace", 521, 16, 1, 0, 0)):
        if in_child(lambda: 42 if _libc.syscall(ctypes.c_long(0x40000000 | number),
            *[ctypes.c_long(a) for a in args]) >= 0 else 0) == 42:
            breach(f"{what} by x32")
""",
    ),
    asks(
        "file_pages_by_a_private_mapping",
        """
import mmap
before = open("/etc/passwd", "rb").read()
with open("/etc/passwd", "rb") as file:
    page = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
attempt("a writing mapping", lambda: mmap.mmap(os.open("/etc/passwd", os.O_RDONLY), 0, flags=mmap.MAP_SHARED,
    prot=mmap.PROT_READ | mmap.PROT_WRITE))
start = [line for line in open("/proc/self/maps") if "/etc/passwd" in line]
if start:
    try:
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(int(start[0].split("-")[0], 16))
            memory.write(b"owned")
    except OSError:
        pass
if open("/etc/passwd", "rb").read() != before:
    breach("a file of the image was changed through memory")
""",
    ),
]

PROGRAMS: list[Hostile] = _NAMESPACES + _MOUNTS + _CALLS + _SOCKETS + _FIRST + _RIGHTS + _OTHER_WAYS
