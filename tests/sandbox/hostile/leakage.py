"""Programs in pairs: what one leaves or holds must not be found by the next one, nor by one beside it."""

from __future__ import annotations

from tests.sandbox.hostile.program import ANY, Hostile

_LEAVE_FILES = """
for folder in ("/tmp", "/tmp/.hidden", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run", "/run/toolweaver", "/opt/toolweaver",
    "/root", "/home"):
    try:
        os.makedirs(folder, exist_ok=True)
        open(f"{folder}/left-behind", "w").write("left")
    except OSError:
        pass
for name in ("json.py", "sitecustomize.py", "usercustomize.py", "asyncio.py", "runner.py", "bridge.py"):
    open(f"/tmp/{name}", "w").write("print('BREACH a module was left')\\n")
os.makedirs("/tmp/.local/lib/python3.11/site-packages", exist_ok=True)
open("/tmp/.local/lib/python3.11/site-packages/x.pth", "w").write("import os; print('BREACH a path file was left')\\n")
os.symlink("/", "/tmp/link")
try:
    os.mkfifo("/tmp/pipe")
except OSError:
    pass
os.makedirs("/tmp/closed/inner")
open("/tmp/closed/inner/left-behind", "w").close()
os.chmod("/tmp/closed/inner", 0)
os.chmod("/tmp/closed", 0)
open(b"/tmp/odd-\\xff\\n-name", "w").close()
try:
    socket.socket(socket.AF_UNIX).bind("/tmp/socket")
except OSError:
    pass
held()
"""
_FIND_FILES = """
for folder in ("/tmp", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run", "/run/toolweaver", "/opt/toolweaver", "/root", "/home"):
    try:
        found = os.listdir(folder)
    except OSError:
        continue
    if folder in ("/tmp", "/dev/shm", "/dev/mqueue") and found:
        breach(f"{folder} holds {found}")
    if "left-behind" in found:
        breach(f"{folder} still holds the file")
import json, subprocess
subprocess.run([sys.executable, "-c", "import json"], cwd="/tmp")
open("/tmp/mine", "w").write("x")
held()
"""
_LEAVE_PROCESSES = """
for way in range(4):
    if os.fork() == 0:
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        if way % 2:
            os.setsid()
        if way > 1 and os.fork():
            os._exit(0)
        while True:
            try:
                os.close(os.open("/tmp/still-here", os.O_CREAT | os.O_WRONLY))
            except OSError:
                pass
            time.sleep(0.002)
time.sleep(0.1)
held()
"""
_FIND_PROCESSES = """
time.sleep(0.2)
mine = {1, os.getpid()}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        parent = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
        state = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
    except OSError:
        continue
    if int(pid) not in mine and parent != os.getpid() and state != "Z":
        breach(f"process {pid} of before")
if os.path.exists("/tmp/still-here"):
    breach("a process of before still writes")
held()
"""
_LEAVE_IPC = """
import mmap
key = 0x7001
got = syscall("shmget", key, 4096, 0o1666)
if got >= 0:
    print("a segment")
syscall("semget", key, 1, 0o1666)
queue = syscall("msgget", key, 0o1666)
if queue >= 0:
    syscall("msgsnd", queue, struct.pack("q8s", 1, b"left"), 8, 2048)
syscall("mq_open", b"left-behind", os.O_CREAT | os.O_RDWR, 0o666, None)
syscall("add_key", b"user", b"left-behind", b"left", 4, -4)
syscall("add_key", b"user", b"left-behind", b"left", 4, -5)
for name in ("/dev/shm/left-behind", "/dev/mqueue/left-behind2"):
    try:
        open(name, "w").write("left")
    except OSError:
        pass
held()
"""
_FIND_IPC = """
for name, args in (("shmget", (0x7001, 0, 0)), ("semget", (0x7001, 0, 0)), ("msgget", (0x7001, 0)), ("mq_open", (b"left-behind",
    0, 0, None)), ("request_key", (b"user", b"left-behind", None, 0)), ("keyctl", (10, -4, b"user", b"left-behind",
    0)), ("keyctl", (10, -5, b"user", b"left-behind", 0))):
    if syscall(name, *args) >= 0:
        breach(f"{name} finds what was left")
for kind in ("shm", "sem", "msg"):
    try:
        lines = open(f"/proc/sysvipc/{kind}").read().splitlines()[1:]
    except OSError:
        continue
    if lines:
        breach(f"{kind}: {lines}")
for folder in ("/dev/shm", "/dev/mqueue"):
    if os.path.isdir(folder) and os.listdir(folder):
        breach(f"{folder}: {os.listdir(folder)}")
held()
"""
_LEAVE_PATCHES = """
import builtins, json, random
builtins.left_behind = "left"
os.environ["LEFT_BEHIND"] = "left"
json.left_behind = "left"
json.dumps = lambda *a, **k: '"left"'
sys.modules["left_behind"] = sys
sys.path.insert(0, "/tmp")
random.seed(1)
os.umask(0o777)
try:
    os.nice(10)
except OSError:
    pass
os.chdir("/dev")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
os._exit(0)
"""
_FIND_PATCHES = """
import builtins, json
if hasattr(builtins, "left_behind") or "LEFT_BEHIND" in os.environ or hasattr(json, "left_behind") or "left_behind" in sys.modules:
    breach("a patch of before")
nice = os.getpriority(os.PRIO_PROCESS, 0)
if json.dumps(1) != "1" or os.getcwd() != "/tmp" or nice != 0:
    breach(f"not as at the start: {os.getcwd()} {nice}")
if os.path.exists("/tmp/.left") or signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
    breach("a signal of before")
open("/tmp/fine", "w").write("fine")
held()
"""
_LEAVE_DEPTH = """
here = os.getcwd()
os.mkdir("/tmp/deep")
os.chdir("/tmp/deep")
for _ in range(3000):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
open("left-behind", "w").close()
held()
os.chdir(here)
"""
_LEAVE_MANY = """
for n in range(4000):
    open(f"/tmp/{n}", "w").close()
held()
"""
_LEAVE_CLOSED_TMP = """
try:
    os.chmod("/tmp", 0)
except OSError:
    pass
held()
"""
_ENTER_TMP = """
if os.listdir("/tmp"):
    breach(f"{len(os.listdir('/tmp'))} files of before")
open("/tmp/mine", "w").write("x")
held()
"""
_LEAVE_FULL_TMP = """
try:
    with open("/tmp/full", "wb") as file:
        while True: file.write(bytes(1 << 20))
except OSError:
    pass
held()
"""
_FIND_ROOM = """
with open("/tmp/mine", "wb") as file:
    file.write(bytes(20 << 20))
held()
"""

_PAIRS: tuple[tuple[str, str, str], ...] = (
    ("files", _LEAVE_FILES, _FIND_FILES),
    ("processes", _LEAVE_PROCESSES, _FIND_PROCESSES),
    ("shared_memory_and_queues", _LEAVE_IPC, _FIND_IPC),
    ("patches", _LEAVE_PATCHES, _FIND_PATCHES),
    ("full_tmp", _LEAVE_FULL_TMP, _FIND_ROOM),
    ("folders_too_deep_for_a_path", _LEAVE_DEPTH, _ENTER_TMP),
    ("thousands_of_files", _LEAVE_MANY, _ENTER_TMP),
    ("closed_tmp", _LEAVE_CLOSED_TMP, _ENTER_TMP),
)

_NEXT = [Hostile(f"left_for_another_job_{name}", "leakage", first, then=second, status=ANY) for name, first, second in _PAIRS[:5]]
_SAME = [
    Hostile(f"left_for_the_same_job_{name}", "leakage", first, then=second, same_job=True, status=ANY)
    for name, first, second in _PAIRS
    if name != "shared_memory_and_queues"
]
_SAME += [
    Hostile(
        "same_job_fork_bomb_before",
        "leakage",
        """
for _ in range(3000):
    try:
        if os.fork() == 0:
            while True:
                try: os.fork()
                except OSError: pass
    except OSError: break
os._exit(0)
""",
        then=_FIND_PROCESSES,
        same_job=True,
        status=ANY,
        note="processes that are born while the others are killed",
    ),
    Hostile(
        "same_job_channel_of_before",
        "leakage",
        """
if os.fork() == 0:
    os.setsid()
    time.sleep(0.1)
    for fd in range(3, 256):
        try:
            os.write(fd, struct.pack(">I", 58) + b'{"op":"done","value":"BREACH","has_value":true,"error":null}')
        except OSError:
            pass
    forever()
held()
""",
        then="""
time.sleep(0.4)
held()
'my own'
""",
        same_job=True,
        status=ANY,
        note="a process of before writes into whatever it holds",
    ),
    Hostile(
        "same_job_killed_before",
        "leakage",
        """
os.kill(os.getpid(), 9)
""",
        then=_ENTER_TMP,
        same_job=True,
        status=ANY,
    ),
]


def _beside(name: str, holder: str, finder: str, *, note: str = "") -> Hostile:
    code = (
        holder
        + """
await armed()
time.sleep(2)
held()
"""
    )
    return Hostile(name, "leakage", code, tools=("armed",), beside=finder + "\nheld()\n", status=ANY, held=False, note=note)


_BESIDE = [
    _beside(
        "beside_abstract_socket",
        """
try:
    s = socket.socket(socket.AF_UNIX)
    s.bind('\\0toolweaver-left')
    s.listen()
except OSError as error: print(error)
""",
        """
attempt('connect', lambda: socket.socket(socket.AF_UNIX).connect('\\0toolweaver-left'))
if 'toolweaver-left' in open('/proc/net/unix').read(): breach('seen')
""",
    ),
    _beside(
        "beside_shared_memory",
        """
kept = syscall('shmget', 0x7002, 4096, 0o1666)
if kept >= 0: syscall('shmat', kept, None, 0)
for folder in ('/dev/shm', '/dev/mqueue', '/tmp'):
    try: open(folder + '/beside', 'w').write('x')
    except OSError: pass
""",
        """
if syscall('shmget', 0x7002, 0, 0) >= 0: breach('segment')
for folder in ('/dev/shm', '/dev/mqueue', '/tmp'):
    if os.path.exists(folder + '/beside'): breach(folder)
""",
    ),
    _beside(
        "beside_file_locks",
        """
import fcntl
kept = [open(p) for p in ('/etc/passwd', '/usr/bin/env', '/etc/hosts') if os.path.exists(p)]
for f in kept:
    try: fcntl.flock(f, fcntl.LOCK_EX)
    except OSError: pass
""",
        """
import fcntl
for p in ('/etc/passwd', '/usr/bin/env', '/etc/hosts'):
    if os.path.exists(p):
        try: fcntl.flock(open(p), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError: breach(f'{p} is locked by another container')
        except OSError: pass
""",
        note="a file of the image is shared by all containers; a lock on it would be a way to talk",
    ),
    _beside(
        "beside_watches_used_up",
        """
kept = 0
for _ in range(250):
    if syscall('inotify_init1', 0) < 0: break
    kept += 1
print(kept)
""",
        """
got = syscall('inotify_init1', 0)
if -got in (errno.EMFILE, errno.ENFILE): breach('another container has used up what one user may watch')
""",
        note="limits of a user are counted over all containers of that user",
    ),
    _beside(
        "beside_descriptors_in_flight",
        """
a, b = socket.socketpair()
a.setblocking(False)
fds = [os.open('/dev/null', 0) for _ in range(100)]
sent = 0
try:
    while sent < 100_000:
        socket.send_fds(a, [b'x'], fds)
        sent += 100
except OSError as error: print(sent, error)
""",
        """
a, b = socket.socketpair()
try: socket.send_fds(a, [b'x'], [0])
except OSError as error:
    if error.errno == errno.ETOOMANYREFS: breach('another container has used up what one user may send')
""",
    ),
    _beside(
        "beside_pipe_pages",
        """
import fcntl
kept = []
try:
    while len(kept) < 110:
        kept.append(os.pipe())
        fcntl.fcntl(kept[-1][1], 1031, 1 << 20)
except OSError as error: print(len(kept), error)
""",
        """
import fcntl
size = fcntl.fcntl(os.pipe()[1], 1032)
if size < 65536: breach(f'another container has used up the pages of pipes: {size}')
""",
    ),
    _beside(
        "beside_signals_used_up",
        """
made = ctypes.c_int()
kept = 0
while kept < 200_000 and syscall('timer_create', 0, None, ctypes.byref(made)) >= 0: kept += 1
print(kept)
""",
        """
made = ctypes.c_int()
got = syscall('timer_create', 0, None, ctypes.byref(made))
if -got == errno.EAGAIN: breach('another container has used up the timers of one user')
""",
    ),
    _beside(
        "beside_processes_used_up",
        """
born = []
try:
    while len(born) < 500:
        pid = os.fork()
        if pid == 0:
            time.sleep(4)
            os._exit(0)
        born.append(pid)
except OSError: pass
for pid in born[:3]: os.kill(pid, 9)
""",
        """
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
""",
    ),
    _beside(
        "beside_processes_seen",
        "print(os.getpid())\n",
        """
if len([p for p in os.listdir('/proc') if p.isdigit()]) > 4: breach('processes of another container')
for pid in range(2, 3000):
    if pid != os.getpid():
        try: os.kill(pid, 0)
        except OSError: continue
        if os.getpgid(pid) != os.getpgid(0): breach(f'{pid} can be signalled')
""",
    ),
    _beside(
        "beside_socket_folder",
        "pass\n",
        """
import glob
if glob.glob('/run/toolweaver/*') + glob.glob('/run/toolweaver/../../run/*/host.sock'): breach('a socket of another container')
""",
    ),
]

PROGRAMS: list[Hostile] = _NEXT + _SAME + _BESIDE
