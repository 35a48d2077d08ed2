"""Programs run from Python alone: the samples of the reference, every way to end, every way to be closed, images of others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import BackendError, RequestError
from orchestrator.settings import Settings
from tests.sandbox.lab import BASE, IMAGE, ROOT, sandbox_settings
from tests.support import wait_until
from workers import CodeExecutor, CodeResult, DockerExecutor, ResourceError, ResourceMonitor
from workers.code.engine import Engine
from workers.code.leases import PLACE, place_name
from workers.code.volumes import volumes_of

NOWHERE = "unix:///nowhere/docker.sock"
BUSY = "while True:\n    pass\n"
FILL = "held = bytearray(input << 20)\nfor at in range(0, len(held), 4096):\n    held[at] = 1\noutput = len(held) >> 20\n"

FIBONACCI = '''
from workers import CodeExecutor

executor = CodeExecutor(
    language="python",
    timeout=30,
    max_memory_mb=512
)

# Execute Python code
result = executor.execute("""
import numpy as np

def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a

print(fibonacci(10))
""")

print(f"Output: {result.stdout}")
print(f"Execution time: {result.execution_time_ms}ms")
'''

SAFE = '''
from workers import CodeExecutor

executor = CodeExecutor(
    sandbox=True,
    allowed_imports=["numpy", "pandas", "math"],
    blocked_functions=["eval", "exec", "open"],
    network_access=False,
    filesystem_access=False
)

# Safe execution
result = executor.execute_safe("""
import numpy as np
arr = np.array([1, 2, 3, 4, 5])
print(arr.mean())
""")
'''

LIMITS = """
from workers import CodeExecutor

executor = CodeExecutor(
    max_execution_time=30,  # 30 seconds
    max_memory_mb=512,      # 512 MB
    max_cpu_percent=50      # 50% CPU
)

# Execute with limits
result = executor.execute_with_limits(code)

if result.timeout:
    print("Execution timed out")
if result.memory_exceeded:
    print("Memory limit exceeded")
"""

IN_DOCKER = """
from workers import DockerExecutor

docker_exec = DockerExecutor(
    image="python:3.11-slim",
    network_mode="none",
    read_only=True
)

result = docker_exec.execute(
    code="print('Running in Docker!')",
    volumes={"/workspace": "/app"}
)
"""


@pytest.fixture(scope="module")
def settings(sandbox_image: None) -> Iterator[Settings]:
    """Those of the test's image, with a folder for sockets whose path is short."""
    with tempfile.TemporaryDirectory(prefix="tw-d-") as folder:
        yield sandbox_settings(sandbox_dir=Path(folder) / "s")


@pytest.fixture(scope="module")
def executor(settings: Settings) -> Iterator[CodeExecutor]:
    with CodeExecutor(settings=settings, timeout=10, max_cpu_percent=100) as made:
        yield made


@pytest.fixture(scope="module")
def foreign(settings: Settings) -> Iterator[DockerExecutor]:
    with DockerExecutor(image=BASE, settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def engine(sandbox_image: None) -> Iterator[Engine]:
    made = Engine.of(sandbox_settings())
    yield made
    made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a container's user may read and write."""
    with tempfile.TemporaryDirectory(prefix="tw-v-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tw-e-") as name:
        yield Path(name) / "s"


def left(engine: Engine, place: Path) -> list[str]:
    """The containers of pools whose sockets lie there."""
    return [c.id for c in engine.containers(f"{PLACE}={place_name(place)}")]


def played(sample: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, **names: Any) -> tuple[CodeResult, str]:
    """The `result` of a sample, and what it printed."""
    monkeypatch.setenv("TOOLWEAVER_SANDBOX_IMAGE", settings.sandbox_image)
    monkeypatch.setenv("TOOLWEAVER_SANDBOX_DIR", str(settings.sandbox_folder))
    space = dict(names)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(sample, "<sample>", "exec", dont_inherit=True), space)
    for made in space.values():
        if isinstance(made, CodeExecutor | DockerExecutor):
            made.close()
    result = space["result"]
    assert isinstance(result, CodeResult)
    return result, printed.getvalue()


# The samples


def test_the_sample_says_how_to_add_the_library_that_the_image_has_not(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    result, printed = played(FIBONACCI, settings, monkeypatch)
    assert printed.startswith("Output: \nExecution time: ")
    assert "ModuleNotFoundError: No module named 'numpy' (line 2)" in str(result.error)
    assert "`toolweaver sandbox build --libraries numpy`" in str(result.error)


def test_the_sample_prints_its_number(executor: CodeExecutor) -> None:
    sample = FIBONACCI.split('"""')[1].replace("import numpy as np\n", "")
    result = executor.execute(sample)
    assert (result.stdout, result.success, result.exit_status, result.error) == ("55\n", True, 0, None)
    assert 0 < result.execution_time_ms < 5_000


def test_the_safe_sample_passes_the_check_and_needs_its_library(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = played(SAFE, settings, monkeypatch)
    assert result.status == "error"  # and no security_error: numpy is allowed
    assert "--libraries numpy" in str(result.error)


def test_the_sample_of_limits(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    short = LIMITS.replace("max_execution_time=30", "max_execution_time=0.3")
    result, printed = played(short, settings, monkeypatch, code=BUSY)
    assert printed == "Execution timed out\n"
    assert result.usage is not None
    assert result.usage.cpu_s is not None
    assert result.usage.cpu_s < 0.29  # half a core


def test_the_sample_of_docker(settings: Settings, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    here = IN_DOCKER.replace("python:3.11-slim", BASE).replace("/workspace", str(folder))
    result, _ = played(here, settings, monkeypatch)
    assert (result.stdout, result.error) == ("Running in Docker!\n", None)


# What comes of a program


def test_input_value_output_and_errors(executor: CodeExecutor) -> None:
    result = executor.execute(
        "import sys\nprint('warned', file=sys.stderr)\noutput = {'twice': input['n'] * 2, 'same': input_data == input}", {"n": 21}
    )
    assert (result.result, result.stderr, result.stdout) == ({"twice": 42, "same": True}, "warned\n", "")
    failed = executor.execute("x = 1\nx / 0")
    assert (failed.status, failed.exit_status, failed.error) == ("error", 1, "ZeroDivisionError: division by zero (line 2)")
    assert "program.py" in str(failed.traceback)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("import sys\nsys.exit(3)", 3, "SystemExit: 3 (line 2)"),
        ("import os\nos._exit(5)", 5, "ProcessEnded: the program's process ended before the program had (exit code 5)"),
        ("import os\nos.kill(os.getpid(), 9)", -9, "ProcessEnded: the program's process ended before the program had (signal 9)"),
        ("import os\nos._exit(0)", 0, "ProcessEnded: the program's process ended before the program had (exit code 0)"),
    ],
)
def test_a_program_that_ends_itself(executor: CodeExecutor, code: str, status: int, error: str) -> None:
    result = executor.execute(code)
    assert (result.success, result.exit_status, result.error) == (False, status, error)


def test_a_program_that_takes_too_much_memory_or_forges_its_end(settings: Settings) -> None:
    with CodeExecutor(settings=settings, max_memory_mb=64) as small:
        result = small.execute(FILL, 200)
        assert (result.memory_exceeded, result.success) == (True, False)
        assert result.error == "MemoryError: the program used more than its 64 MiB (`max_memory_mb`)"
        forged = small.execute(
            "import os\nfor fd in range(3, 50):\n    try: os.write(fd, b'\\0\\0\\0\\2{}')\n    except OSError: pass"
        )
        assert (forged.status, forged.exit_status) == ("security_error", None)
        assert small.execute("1 + 1").result == 2


def test_programs_share_nothing(executor: CodeExecutor) -> None:
    executor.execute("open('/tmp/mine', 'w').write('x')")
    seen = executor.execute("import os\n[os.listdir('/tmp'), os.getuid(), os.environ.get('HOME')]")
    files, user_id, home = seen.result
    assert (files, home) == ([], "/tmp")
    assert user_id >= 65534


# The courtesy


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> CodeExecutor:
    """One with rules and without an engine: what it refuses never gets that far."""
    rules: dict[str, Any] = {"allowed_imports": ["math", "os.path"], "blocked_functions": ["open", "math.factorial"]}
    return CodeExecutor(settings=sandbox_settings(docker_host=NOWHERE, sandbox_dir=tmp_path_factory.mktemp("x")), **rules)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import math\nimport csv", "Import not allowed: csv"),
        ("from collections import deque", "Import not allowed: collections.deque"),
        ("def f():\n    return open('x')", "Function not allowed: open"),
        ("read = open", "Function not allowed: open"),
        ("import math as m\nm.factorial(3)", "Function not allowed: math.factorial"),
        ("from math import factorial", "Function not allowed: math.factorial"),
        ("math.factorial(3)", "Function not allowed: math.factorial"),
    ],
)
def test_what_the_owner_does_not_allow_is_refused_with_its_place(unused: CodeExecutor, code: str, said: str) -> None:
    for execute in (unused.execute, unused.execute_safe):
        result = execute(code)
        assert (result.status, result.exit_status, result.usage) == ("security_error", None, None)
        assert str(result.error).startswith(f"SecurityError: {said}")
        assert f"line {code.count(chr(10)) + 1}, column" in str(result.error)


def test_only_the_safe_way_checks_the_whole_program(executor: CodeExecutor) -> None:
    code = "import os\noutput = os.getcwd()"
    assert executor.execute(code).result == "/tmp"
    assert str(executor.execute_safe(code).error).startswith("SecurityError: Dangerous import detected: os")
    assert str(executor.execute_safe("retrun 1").error).startswith("ProgramError: Syntax error")


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\nimport math\nfrom math import sqrt\nimport os.path\nfrom os import path",
        "def open(name):\n    return name\nopen('x')",
        "class File:\n    def open(self):\n        return 1\nFile().open()",
    ],
)
def test_what_the_owner_allows_passes(unused: CodeExecutor, code: str) -> None:
    with pytest.raises(BackendError, match="there is no Docker engine"):
        unused.execute(code)


# Ways to call it


async def test_it_works_within_a_running_loop_and_does_not_block_it(executor: CodeExecutor) -> None:
    assert executor.execute("2 + 2").result == 4
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    results = await asyncio.gather(*(executor.aexecute(f"import time\ntime.sleep(0.3)\n{n}") for n in range(3)))
    ticking.cancel()
    assert [r.result for r in results] == [0, 1, 2]
    assert ticks > 5
    assert (await executor.aexecute_safe("import os")).status == "security_error"


async def test_a_cancelled_execution_ends_its_program(executor: CodeExecutor, engine: Engine, settings: Settings) -> None:
    running = asyncio.create_task(executor.aexecute(BUSY))
    room = executor._room
    assert room is not None
    await asyncio.to_thread(wait_until, lambda: len(room._running) > 0, description="it runs")
    began = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.to_thread(wait_until, lambda: not room._running, description="it has ended", timeout=5)
    assert time.monotonic() - began < 5


async def test_the_monitor_sees_what_it_used(executor: CodeExecutor) -> None:
    monitor = ResourceMonitor(cpu_limit=4.0, memory_limit=64 << 20)
    result = await monitor.monitor_execution(lambda: executor.aexecute("40 + 2"))
    assert result.usage is not None
    assert [u.container for u in monitor.usage] == [result.usage.container]
    with pytest.raises(ResourceError, match=r"Memory limit exceeded: .* of 64 MB"):
        await monitor.monitor_execution(lambda: executor.aexecute(FILL, 128))

    async def blocking() -> CodeResult:
        return executor.execute("held = sum(range(3_000_000))")

    with pytest.raises(ResourceError, match="CPU limit exceeded"):
        await ResourceMonitor(cpu_limit=0.01).monitor_execution(blocking)
    assert (await executor.aexecute("1")).success  # and nobody measures it


# What there is not


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"language": "javascript"}, "there is no executor for `javascript` yet"),
        ({"sandbox": False}, "programs are never run in our own processes"),
        ({"network_access": True}, "DockerExecutor"),
        ({"filesystem_access": True}, "volumes="),
        ({"max_memory_mb": 1}, "`max_memory_mb` cannot be so"),
        ({"timeout": 0}, "`timeout` cannot be so"),
        ({"max_cpu_percent": 0}, "`max_cpu_percent` cannot be so"),
    ],
)
def test_what_there_is_not_is_refused_with_the_alternative(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        CodeExecutor(**asked)
    assert said in str(caught.value)
    assert caught.value.next


@pytest.mark.parametrize("network", ["host", "container:abc", ""])
def test_a_network_of_somebody_else_is_refused(network: str) -> None:
    with pytest.raises(RequestError, match="somebody else's network"):
        DockerExecutor(network_mode=network)


def test_without_engine_or_image_it_says_what_to_do(settings: Settings, place: Path) -> None:
    for make in (CodeExecutor, DockerExecutor):
        nowhere = make(settings=sandbox_settings(docker_host=NOWHERE, sandbox_dir=place))
        for _ in range(2):  # the second try is one, not the memory of the first
            with pytest.raises(BackendError, match=r"there is no Docker engine.*Install and start Docker"):
                nowhere.execute("1")
        nowhere.close()
    gone = settings.model_copy(update={"sandbox_image": "toolweaver-nothing:at-all"})
    with CodeExecutor(settings=gone) as none, pytest.raises(BackendError, match="sandbox build"):
        none.execute("1")
    with (
        DockerExecutor("nothing:at-all", settings=settings) as none,
        pytest.raises(BackendError, match="docker pull nothing:at-all"),
    ):
        none.execute("1")


def test_the_names_cost_nothing_until_they_are_used() -> None:
    code = (
        "import sys, workers\nassert 'docker' not in sys.modules\nsys.modules['docker'] = None\n"
        "try:\n    from workers import CodeExecutor\nexcept ImportError as error:\n    print(error)\n"
        "del sys.modules['docker']\nfrom workers import CodeExecutor\nassert 'docker' in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.stderr == ""
    assert ended.stdout == "`CodeExecutor` needs Docker's package: run `pip install 'toolweaver[sandbox]'`\n"


# The end


def test_a_closed_executor_leaves_nothing_and_says_so(engine: Engine, place: Path) -> None:
    executor = CodeExecutor(settings=sandbox_settings(sandbox_dir=place))
    executor.execute("1")
    assert left(engine, place)
    executor.close()
    executor.close()
    assert left(engine, place) == []
    assert list(place.iterdir()) == []
    with pytest.raises(RequestError, match="this executor was closed"):
        executor.execute("1")


def test_what_runs_or_waits_while_it_is_closed_is_told(engine: Engine, place: Path) -> None:
    executor = CodeExecutor(settings=sandbox_settings(sandbox_dir=place, sandbox_concurrency=1))
    executor.execute("1")
    room, errors = executor._room, []

    def run() -> None:
        try:
            executor.execute(BUSY)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert room is not None
    wait_until(lambda: len(room._running) == 2, description="one runs, one waits")
    began = time.monotonic()
    executor.close()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - began < 5
    assert [type(e) for e in errors] == [BackendError] * 2
    assert "the executor was closed" in str(errors[0])
    assert left(engine, place) == []


def test_a_forgotten_executor_is_closed(engine: Engine, place: Path) -> None:
    executor = CodeExecutor(settings=sandbox_settings(sandbox_dir=place))
    executor.execute("1")
    assert left(engine, place)
    del executor
    gc.collect()
    wait_until(lambda: not left(engine, place) and not list(place.iterdir()), description="nothing is left")


def user(place: Path, code: str) -> subprocess.Popen[str]:
    """A process that uses an executor."""
    env = {**os.environ, "TOOLWEAVER_SANDBOX_IMAGE": IMAGE, "TOOLWEAVER_SANDBOX_DIR": str(place)}
    script = (
        f"from workers import CodeExecutor\nexecutor = CodeExecutor()\nprint(executor.execute('6 * 7').result, flush=True)\n{code}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_end_of_a_process_leaves_nothing_and_says_nothing(engine: Engine, place: Path) -> None:
    process = user(place, "")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "42\n", "")
    assert left(engine, place) == []
    assert list(place.iterdir()) == []


def test_a_killed_process_leaves_nothing(engine: Engine, place: Path) -> None:
    process = user(place, "input()")
    assert process.stdout is not None
    assert process.stdout.readline() == "42\n"
    process.send_signal(signal.SIGKILL)
    process.wait()  # and not for the end of its output, which its guard holds for a while
    wait_until(lambda: not left(engine, place), description="no container is left")


def test_a_fork_has_its_own_and_leaves_its_parents_alone(engine: Engine, place: Path) -> None:
    again = "os.wait()\nprint(executor.execute('1').result)\nexecutor.close()"
    process = user(place, f"import os\nif os.fork() == 0:\n    executor.close()\n    os._exit(0)\n{again}")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "42\n1\n", "")
    assert left(engine, place) == []


# Images of others


def test_another_image_has_the_same_walls(foreign: DockerExecutor) -> None:
    probe = (
        "import os, socket\n"
        "def refused(what):\n    try:\n        what()\n    except OSError:\n        return True\n    return False\n"
        "output = [os.getuid(), os.listdir('/tmp'), sorted(os.listdir('/sys/class/net')), refused(lambda: open('/x', 'w')),\n"
        "    refused(lambda: open('/opt/toolweaver/sandbox_image/runner.py', 'a')), refused(lambda: socket.socket())]"
    )
    result = foreign.execute(probe)
    assert result.result == [65534, [], ["lo"], True, True, True]
    assert result.usage is not None
    assert result.usage.measured_by == "cgroup"
    assert "Take one that has" in str(foreign.execute("import numpy").error)
    assert foreign.execute("input + 1", input_data=1).result == 2


def test_volumes_are_read_only_unless_asked(foreign: DockerExecutor, settings: Settings, folder: Path) -> None:
    (folder / "in.txt").write_text("given")
    write = "print(open('/app/in.txt').read())\nopen('/app/out.txt', 'w').write('made')"
    result = foreign.execute(write, volumes={str(folder): "/app"})
    assert result.stdout == "given\n"
    assert "Read-only file system" in str(result.error)
    assert foreign.execute("import os\nos.path.exists('/app')").result is False  # gone for the next program
    with DockerExecutor(BASE, read_only=False, settings=settings) as writing:
        assert writing.execute(write, volumes={str(folder): "/app"}).success
        outside = writing.execute("open('/app2', 'w')")
    assert (folder / "out.txt").read_text() == "made"
    assert "Read-only file system" in str(outside.error) or "Permission denied" in str(outside.error)


@pytest.mark.parametrize(
    ("host", "inside", "said"),
    [
        ("/", "/app", "no program may see"),
        ("/proc", "/app", "no program may see"),
        ("/proc/1", "/app", "no program may see"),
        ("/sys/fs", "/app", "no program may see"),
        ("/dev", "/app", "no program may see"),
        ("/var/run/docker.sock", "/app", "no program may see"),
        ("/run", "/app", "no program may see"),
        ("/var", "/app", "no program may see"),
        ("/var/lib/docker", "/app", "no program may see"),
        ("/usr/../etc", "/app", "no program may see"),
        ("{link}", "/app", "no program may see"),
        ("{place}", "/app", "no program may see"),
        ("{socket}", "/app", "neither a folder nor a plain file"),
        ("data", "/app", "is not absolute"),
        ("/no/such/folder", "/app", "cannot be had"),
        ("{folder}", "app", "is not absolute, as seen by the program"),
        ("{folder}", "/", "the container's own"),
        ("{folder}", "/app/../tmp", "is not absolute"),
        ("{folder}", "/tmp/x", "the container's own"),
        ("{folder}", "/usr/lib/python3", "the container's own"),
        ("{folder}", "/run/toolweaver", "the container's own"),
        ("{folder}", "/opt/toolweaver/sandbox_image", "the container's own"),
    ],
)
def test_volumes_that_would_give_the_machine_away_are_refused(folder: Path, host: str, inside: str, said: str) -> None:
    place = folder / "sockets"
    place.mkdir()
    (folder / "link").symlink_to("/proc")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        (folder / "data").mkdir()
        named = host.format(link=folder / "link", place=place, socket=folder / "socket", folder=folder / "data")
        with pytest.raises(RequestError, match=said):
            volumes_of({named: inside}, writable=False, place=place, engine="unix:///home/me/docker.sock")


def test_a_folder_that_holds_the_engines_socket_or_covers_another_volume_is_refused(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    nowhere = Path("/nowhere")
    with pytest.raises(RequestError, match="no program may see"):
        volumes_of({str(folder): "/app"}, writable=False, place=nowhere, engine=f"unix://{folder}/a/docker.sock")
    with pytest.raises(RequestError, match="cover each other"):
        volumes_of({str(folder / "a"): "/app", str(folder / "b"): "/app/b"}, writable=False, place=nowhere, engine="tcp://x")


@pytest.fixture
def network(sandbox_image: None) -> Iterator[tuple[str, str]]:
    """A network of the engine: its name, and this machine's address in it."""
    name = f"tw-test-{secrets.token_hex(4)}"
    subprocess.run(["docker", "network", "create", name], check=True, capture_output=True)
    try:
        seen = subprocess.run(["docker", "network", "inspect", name], check=True, capture_output=True).stdout
        yield name, json.loads(seen)[0]["IPAM"]["Config"][0]["Gateway"]
    finally:
        subprocess.run(["docker", "network", "rm", name], check=True, capture_output=True)


def test_a_network_lets_programs_be_clients_only(settings: Settings, network: tuple[str, str]) -> None:
    name, gateway = network
    call = "import socket\nwith socket.create_connection(tuple(input), timeout=5) as s:\n    output = s.recv(10).decode()"
    code = (
        "import socket\n"
        "for kind in (socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK):\n"
        "    try:\n        socket.socket(kind, socket.SOCK_RAW)\n        print('made', kind)\n"
        "    except PermissionError:\n        pass\n"
        "socket.socket().bind(('', 8080))"
    )
    with socket.create_server((gateway, 0)) as server, DockerExecutor(BASE, network_mode=name, settings=settings) as networked:
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        assert networked.execute(call, input_data=[gateway, server.getsockname()[1]]).result == "hello"
        result = networked.execute(code)
    assert result.stdout == ""
    assert str(result.error).startswith("PermissionError")


def _greet(server: socket.socket) -> None:
    made, _ = server.accept()
    with made:
        made.sendall(b"hello")


def test_an_image_without_python_says_what_it_needs(settings: Settings, engine: Engine) -> None:
    tag = "toolweaver-test-empty:latest"
    subprocess.run(["docker", "import", "-", tag], input=bytes(10_240), check=True, capture_output=True)
    try:
        with DockerExecutor(tag, settings=settings) as empty, pytest.raises(BackendError) as caught:
            empty.execute("1")
        assert f"programs cannot run in `{tag}`" in str(caught.value)
        assert "Python 3.10 or newer as `python3`" in str(caught.value)
    finally:
        subprocess.run(["docker", "rmi", tag], check=True, capture_output=True)


# The example


def test_the_example_runs(settings: Settings) -> None:
    env = {**os.environ, "TOOLWEAVER_SANDBOX_IMAGE": IMAGE, "TOOLWEAVER_SANDBOX_DIR": str(settings.sandbox_folder)}
    ended = subprocess.run(
        [sys.executable, "examples/run_code.py"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "fibonacci(10) = 55" in ended.stdout
    assert "Dangerous import detected: os" in ended.stdout
    assert "timeout" in ended.stdout
