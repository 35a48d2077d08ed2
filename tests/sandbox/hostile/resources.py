"""Programs that take: processes, memory, disk, time, descriptors, output."""

from __future__ import annotations

from tests.sandbox.hostile.program import ANY, STUCK, Hostile, bomb

_PROCESSES = [
    bomb(
        "fork_bomb",
        """
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    ),
    bomb(
        "fork_bomb_of_sessions",
        """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
""",
        note="every process leads a session of its own: no process group to kill",
    ),
    bomb(
        "exec_bomb",
        """
import subprocess
running = []
while True:
    try:
        running.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
    except OSError:
        time.sleep(0.01)
""",
    ),
    bomb(
        "thread_bomb",
        """
while True:
    try:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    except RuntimeError:
        pass
""",
    ),
    Hostile(
        "threads_are_bounded",
        "resources",
        """
def many():
    for started in range(2000):
        try:
            threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        except RuntimeError:
            return 1 + (started > 64)
    return 2
ended = in_child(many, seconds=8)
if ended != 1:
    breach(f"threads without end: {ended}")
held()
""",
    ),
    Hostile(
        "processes_are_bounded",
        "resources",
        """
born = []
try:
    while len(born) < 1000:
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
        born.append(child)
except OSError:
    pass
for child in born:
    os.kill(child, 9)
    os.waitpid(child, 0)
if len(born) > 64:
    breach(f"{len(born)} processes with 64 allowed")
held()
""",
    ),
    Hostile(
        "orphans_are_reaped",
        "resources",
        """
for n in range(80):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(n % 256)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.002)
held()
80
""",
        value=80,
        note="more orphans than processes are allowed, with codes of their own: PID 1 reaps them, and takes none for the program",
    ),
    bomb(
        "double_fork_daemon",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        forever()
    os._exit(0)
"the daemon stays"
""",
        status=ANY,
    ),
    bomb(
        "setsid_and_ignore_hangup",
        """
for _ in range(8):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        forever()
os._exit(0)
""",
        note="the program is gone at once; its children hold the channel open",
    ),
    bomb(
        "stop_itself",
        """
os.kill(os.getpid(), signal.SIGSTOP)
forever()
""",
        status=STUCK,
    ),
    bomb(
        "stop_everything",
        """
for _ in range(4):
    if os.fork() == 0: forever()
os.kill(-1, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
""",
        status=STUCK,
    ),
]

_MEMORY = [
    bomb(
        "memory_of_bytes",
        """
kept = []
while True:
    kept.append(bytearray(16 << 20))
""",
    ),
    bomb(
        "memory_errors_swallowed",
        """
kept = []
while True:
    try:
        kept.append(os.urandom(4096) * 1024)
    except MemoryError:
        pass
""",
    ),
    bomb(
        "memory_of_many_processes",
        """
for _ in range(30):
    if os.fork() == 0:
        break
kept = bytearray(os.urandom(1 << 20) * 100)
forever()
""",
        note="each below any limit of a process, 3 GB together",
    ),
    bomb(
        "memory_mapped",
        """
import mmap
kept = []
while True:
    part = mmap.mmap(-1, 64 << 20)
    for at in range(0, 64 << 20, 4096):
        part[at] = 1
    kept.append(part)
""",
    ),
    bomb(
        "memory_in_memfd",
        """
kept = []
while True:
    fd = os.memfd_create("hidden")
    for _ in range(64):
        os.write(fd, bytes(1 << 20))
    kept.append(fd)
""",
        status=ANY,
    ),
    bomb("memory_reserved_at_once", "kept = bytearray(1 << 45)\n"),
    bomb(
        "memory_by_strings",
        """
text = 'x'
while True:
    text += text
""",
    ),
    bomb(
        "memory_by_tasks",
        """
kept = []
async def wait():
    await asyncio.sleep(1e6)
while True:
    kept.append(asyncio.create_task(wait()))
""",
    ),
    bomb(
        "memory_in_c_stack",
        """
sys.setrecursionlimit(10**9)
threading.stack_size(512 << 20)
def down(n):
    return [down(n + 1)]
t = threading.Thread(target=down, args=(0,))
t.start()
t.join()
forever()
""",
    ),
    bomb(
        "memory_locked",
        """
import mmap
_libc.mlockall(7)
kept = []
while True:
    kept.append(mmap.mmap(-1, 32 << 20))
    kept[-1].write(os.urandom(4096) * 8192)
""",
    ),
    bomb(
        "kernel_memory_of_pipes",
        """
import fcntl
while True:
    try:
        _, end = os.pipe2(os.O_NONBLOCK)
        fcntl.fcntl(end, 1031, 1 << 20)
        os.write(end, bytes(1 << 20))
    except OSError:
        pass
""",
    ),
    bomb(
        "kernel_memory_of_sockets",
        """
kept = []
while True:
    try:
        pair = socket.socketpair()
        pair[0].setblocking(False)
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        kept.append(pair)
        while True:
            pair[0].send(bytes(65536))
    except OSError:
        pass
""",
    ),
    bomb(
        "kernel_memory_of_names",
        """
n = 0
while True:
    n += 1
    os.path.exists(f'/tmp/{n:0200d}')
""",
        note="negative directory entries",
    ),
    bomb(
        "kernel_memory_of_timers",
        """
while True:
    made = ctypes.c_int()
    syscall("timer_create", 0, None, ctypes.byref(made))
""",
    ),
    bomb(
        "zip_bomb",
        """
import zlib
small = zlib.compress(bytes(500 << 20), 1)
kept = [zlib.decompress(small) for _ in range(20)]
forever()
""",
    ),
    bomb(
        "objects_that_come_back",
        """
import gc
gc.disable()
kept = []
class Again:
    def __init__(self): self.me = self
    def __del__(self):
        kept.append(self)
        Again()
        Again()
while True:
    Again()
    gc.collect(0)
""",
    ),
    bomb(
        "first_in_line_for_the_oom_killer",
        """
open('/proc/self/oom_score_adj', 'w').write('1000')
kept = []
while True:
    kept.append(bytearray(16 << 20))
""",
    ),
]

_DISK = [
    Hostile(
        "tmp_is_bounded",
        "resources",
        """
written = 0
try:
    with open("/tmp/large", "wb", buffering=0) as file:
        while written < 1 << 30:
            written += file.write(bytes(1 << 20))
except OSError:
    pass
os.unlink("/tmp/large")
if written > 101 << 20:
    breach(f"{written >> 20} MiB written with 100 allowed")
held()
""",
    ),
    bomb(
        "tmp_of_many_files",
        """
n = 0
while True:
    n += 1
    try:
        open(f"/tmp/{n}", "x").close()
    except OSError:
        pass
""",
    ),
    bomb(
        "tmp_of_deep_folders",
        """
while True:
    try:
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    except OSError:
        break
forever()
""",
        note="a path longer than any call takes",
    ),
    Hostile(
        "shared_memory_folder_is_bounded",
        "resources",
        """
written = 0
try:
    with open("/dev/shm/large", "wb", buffering=0) as file:
        while written < 1 << 30:
            written += file.write(bytes(1 << 20))
except OSError:
    pass
if written > 128 << 20:
    breach(f"{written >> 20} MiB in /dev/shm")
held()
""",
    ),
    bomb(
        "sparse_file_mapped",
        """
import mmap
f = open('/tmp/s', 'w+b')
f.truncate(1 << 40)
m = mmap.mmap(f.fileno(), 1 << 36)
for at in range(0, 1 << 36, 4096):
    m[at] = 1
""",
    ),
    Hostile(
        "descriptors_are_bounded",
        "resources",
        """
def many():
    for opened in range(100_000):
        try:
            os.dup(1)
        except OSError:
            return 1 + (opened > 4096)
    return 2
ended = in_child(many, seconds=8)
if ended != 1:
    breach(f"descriptors without end: {ended}")
held()
""",
    ),
    bomb(
        "descriptors_then_go_on",
        """
try:
    while True: os.dup(1)
except OSError: pass
import decimal, csv, fractions
print('on')
""",
        status=ANY,
    ),
]

_TIME = [
    bomb("spin", "while True: pass\n", status=STUCK),
    bomb(
        "spin_in_c_threads",
        """
import hashlib
for _ in range(12):
    threading.Thread(target=hashlib.pbkdf2_hmac, args=('sha512', b'x', b'y', 10**9)).start()
""",
        note="threads that hold no lock of the interpreter, and that outlive the program's last line",
    ),
    bomb("power_of_powers", "9 ** 9 ** 9 ** 9\n", bare=True),
    bomb(
        "digits",
        """
sys.set_int_max_str_digits(0)
str(1 << (1 << 28))
""",
        status=STUCK,
    ),
    bomb(
        "regex_backtracking",
        """
import re
re.match(r'(a+)+$', 'a' * 60 + 'b')
""",
        status=STUCK,
    ),
    bomb("recursion", "def f(): return f()\nf()\n"),
    bomb(
        "recursion_into_a_crash",
        """
sys.setrecursionlimit(10**9)
def f(): return [*map(lambda _: f(), 'x')]
f()
""",
    ),
    bomb("sleep", "time.sleep(1e8)\n", status=STUCK),
    bomb("wait_for_nothing", "await asyncio.Event().wait()\n", status=STUCK),
    bomb(
        "ignore_all_signals",
        """
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
forever()
""",
        status=STUCK,
    ),
    bomb(
        "swallow_everything",
        """
while True:
    try:
        while True: time.sleep(0.01)
    except BaseException:
        pass
""",
        status=STUCK,
    ),
    bomb(
        "swallow_cancellation",
        """
while True:
    try:
        await asyncio.sleep(0.01)
    except BaseException:
        pass
""",
        status=STUCK,
    ),
    bomb(
        "loop_at_exit",
        """
import atexit
atexit.register(forever)
threading._register_atexit(forever)
1
""",
        status=ANY,
    ),
    bomb(
        "loop_in_finally",
        """
try:
    sys.exit(0)
finally:
    forever()
""",
        status=STUCK,
    ),
    bomb(
        "loop_in_destructor",
        """
class Last:
    def __del__(self): forever()
kept = Last()
kept.me = kept
1
""",
        status=ANY,
    ),
    bomb(
        "timer_storm",
        """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
forever()
""",
    ),
    bomb(
        "timer_that_recurses",
        """
def again(*_):
    again()
signal.signal(signal.SIGALRM, again)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
forever()
""",
    ),
    bomb(
        "read_stdin",
        """
sys.stdin.read()
print(os.read(0, 1))
forever()
""",
    ),
    bomb(
        "thread_never_joined",
        """
threading.Thread(target=forever).start()
1
""",
        status=ANY,
    ),
    bomb(
        "task_never_awaited",
        """
async def go():
    while True: await asyncio.sleep(0)
kept = asyncio.create_task(go())
1
""",
        status=ANY,
    ),
    bomb(
        "compile_bomb",
        """
compile('+'.join(['(' * 90 + '1' + ')' * 90] * 20_000), 'x', 'eval')
forever()
""",
    ),
]

_OUTPUT = [
    bomb("stdout_flood", "while True: print('x' * 1000)\n", status=STUCK),
    bomb(
        "stderr_flood",
        """
while True: sys.stderr.write('y' * 1000)
""",
        status=STUCK,
    ),
    bomb(
        "print_nothing_for_ever",
        """
while True: print(end='', flush=True)
""",
        status=STUCK,
    ),
    bomb(
        "print_letter_by_letter",
        """
while True: print('z', end='', flush=True)
""",
        status=STUCK,
    ),
    bomb("one_large_print", "print('w' * (100 << 20))\n", status=ANY),
    bomb(
        "raw_descriptor_flood",
        """
import fcntl
for fd in (0, 1, 2):
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    except OSError:
        pass
while True:
    for fd in (0, 1, 2):
        try:
            os.write(fd, b"v" * 65536)
        except OSError:
            pass
""",
        note="past Python's streams, into whatever the engine has connected",
    ),
    bomb("large_value", "'u' * (80 << 20)\n"),
    bomb(
        "large_value_of_small_parts", "[[]] * (8 << 20)\n", note="8 million empty lists: 24 MiB of text, half a gigabyte of objects"
    ),
    bomb(
        "large_error",
        """
raise RuntimeError('t' * (80 << 20))
""",
    ),
    bomb(
        "large_error_type",
        """
raise type('S' * (20 << 20), (Exception,), {})('s')
""",
    ),
    bomb(
        "long_chain_of_errors",
        """
last = None
for n in range(20_000):
    fresh = RuntimeError('r' * 1000)
    fresh.__cause__ = last
    last = fresh
raise last
""",
    ),
    bomb(
        "wide_group_of_errors",
        """
raise ExceptionGroup('many', [ValueError('q' * 1000) for _ in range(50_000)])
""",
    ),
    bomb("value_in_itself", "me = []\nme.append(me)\nme\n", status=ANY),
    bomb(
        "value_of_great_depth",
        """
deep = []
for _ in range(100_000): deep = [deep]
deep
""",
    ),
    bomb(
        "value_that_never_ends",
        """
class Endless(dict):
    def items(self):
        while True: yield 'a', 1
    def __iter__(self):
        while True: yield 'a'
    keys = __iter__
Endless(a=1)
""",
        status=ANY,
    ),
    bomb(
        "value_whose_text_hangs",
        """
class Odd:
    def __repr__(self): forever()
    __str__ = __format__ = __iter__ = isoformat = __repr__
Odd()
""",
        status=ANY,
    ),
]

_TEXT = [
    bomb("source_of_great_depth", "x = " + "(" * 5_000 + "1" + ")" * 5_000, bare=True),
    bomb("source_of_many_signs", "x = " + "-" * 300_000 + "1", bare=True),
    bomb("source_with_a_zero", "x = 1\x00\nprint('BREACH')", bare=True),
    bomb("source_with_half_a_letter", "x = '\ud800'\nprint(x)\nx\n", bare=True, status=ANY, note="half of a pair of UTF-16"),
    bomb("source_in_another_code", "# -*- coding: utf-7 -*-\n+AHAAcgBpAG4AdA-('read as something else')\n", bare=True),
    bomb("source_of_megabytes", "x = 1\n" * 700_000, bare=True, status=ANY),
]

PROGRAMS: list[Hostile] = _PROCESSES + _MEMORY + _DISK + _TIME + _OUTPUT + _TEXT
