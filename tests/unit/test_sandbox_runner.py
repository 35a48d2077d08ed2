"""The program's process of the sandbox, driven over its channel without a container: protocol, values, loops, keys, errors."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox_image.runner import empty

RUNNER = Path(__file__).parents[2] / "sandbox_image" / "runner.py"
HEADER = struct.Struct(">I")
STUBS = {
    "tools/__init__.py": "",
    "tools/finance/__init__.py": "from .echo import echo\nfrom .twice import twice\n",
    "tools/finance/echo.py": "from toolweaver_bridge import call_tool\n\n\nasync def echo(v=None):\n"
    "    return await call_tool(server='finance', tool_name='echo', parameters={'v': v})\n",
    "tools/finance/twice.py": "from toolweaver_bridge import call_tool\n\n\nasync def twice(v):\n"
    "    return await call_tool(server='finance', tool_name='twice', parameters={'v': v})\n",
}
NAMES = {"echo": "tools.finance", "twice": "tools.finance"}


class Refused(Exception):
    """The host refuses a call."""


def _tools() -> dict[str, Callable[..., Any]]:
    def fail(**_: Any) -> Any:
        raise Refused("no such expense")

    return {"echo": lambda v: v, "twice": lambda v: v * 2, "fail": fail}


@dataclass
class Ran:
    """What came over the channel."""

    done: dict[str, Any] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)

    @property
    def value(self) -> Any:
        assert self.done["error"] is None, self.done["error"]["traceback"]
        return self.done["value"]

    @property
    def keys(self) -> list[str]:
        return [call["key"] for call in self.calls]


def encode(**frame: Any) -> bytes:
    data = json.dumps(frame).encode()
    return HEADER.pack(len(data)) + data


def receive(sock: socket.socket) -> dict[str, Any]:
    (size,) = HEADER.unpack(_exactly(sock, HEADER.size))
    frame: dict[str, Any] = json.loads(_exactly(sock, size))
    return frame


def _exactly(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    rest = memoryview(data)
    while rest:
        got = sock.recv_into(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return data


@dataclass
class Process:
    """A program's process that is ready."""

    channel: socket.socket

    def receive(self) -> dict[str, Any]:
        return receive(self.channel)

    def send(self, **frame: Any) -> None:
        self.channel.sendall(encode(**frame))

    def execute(self, code: str, given: Any = None, **limits: int) -> None:
        self.send(op="exec", code=code, input=given, modules=STUBS, names=NAMES, seed="code_exec_1", limits=limits)

    def serve(self) -> Ran:
        """Answers calls until the end, each as it comes."""
        ran = Ran()
        while True:
            frame = self.receive()
            ran.frames.append(frame["op"])
            if frame["op"] == "done":
                ran.done = frame
                return ran
            if frame["op"] == "out":
                setattr(ran, frame["stream"], getattr(ran, frame["stream"]) + frame["text"])
            else:
                ran.calls.append(frame)
                self.answer(frame)

    def answer(self, call: dict[str, Any]) -> None:
        try:
            self.send(op="result", id=call["id"], value=_tools()[call["tool"]](**call["args"]))
        except Refused as error:
            self.send(op="result", id=call["id"], error={"type": "ToolError", "code": "refused", "message": str(error)})


class Supervisor:
    """The runner as a container's first process, but outside of one: there it kills and clears nothing."""

    def __init__(self, lease_s: float = 600) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="tw")
        path = f"{self.folder.name}/host.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(30)
            command = [sys.executable, "-I", "-B", str(RUNNER), "--socket", path, "--lease", str(lease_s)]
            self.popen = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, cwd="/tmp")
            self.control, _ = listener.accept()
        self.control.settimeout(30)
        self.hello = receive(self.control)
        self.n = 0

    def spawn(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.n += 1
        with theirs:
            socket.send_fds(self.control, [encode(op="spawn", n=self.n)], [theirs.fileno()])
        assert receive(self.control) == {"op": "spawned", "n": self.n}
        ours.settimeout(30)
        return ours

    def ended(self) -> int:
        """The exit status of the last program's process."""
        frame = receive(self.control)
        assert (frame["op"], frame["n"]) == ("ended", self.n)
        return int(frame["code"])

    def close(self) -> None:
        self.control.close()
        self.popen.wait(10)
        self.folder.cleanup()


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


@dataclass
class Sandbox:
    """Runs programs, each in a new process."""

    supervisor: Supervisor

    @contextmanager
    def process(self, *, status: int = 0) -> Iterator[Process]:
        with self.supervisor.spawn() as channel:
            started = Process(channel)
            try:
                assert started.receive() == {"op": "ready"}
                yield started
            finally:
                channel.close()
                code = self.supervisor.ended()
            assert code == status

    def __call__(self, code: str, given: Any = None, **limits: int) -> Ran:
        with self.process() as started:
            started.execute(code, given, **limits)
            ran = started.serve()
            with pytest.raises(EOFError):  # nothing follows `done`
                started.receive()
        return ran


@pytest.fixture
def run(supervisor: Supervisor) -> Sandbox:
    return Sandbox(supervisor)


MAIN = "async def main():\n    return [await echo(1), await twice(2)]\n"


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", 2),
        ("output = 3\n4", 3),
        ("x = 5", None),
        ("await echo(6)", 6),
        ("from tools.finance import twice as double\nawait double(v=4)", 8),
        ("from tools.finance.echo import echo as e\nawait e('q')", "q"),
        (MAIN + "asyncio.run(main())", [1, 4]),
        (MAIN + "main()", [1, 4]),
        (MAIN + "if __name__ == '__main__':\n    asyncio.run(main())", [1, 4]),
        (MAIN + "loop = asyncio.get_event_loop()\nloop.run_until_complete(main())", [1, 4]),
        (MAIN + "asyncio.run(main())\nasyncio.get_event_loop().run_until_complete(main())", [1, 4]),
        (MAIN + "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())", [1, 4]),
        (MAIN + "await echo(0)\nasyncio.run(main())", [1, 4]),
        (MAIN + "def work():\n    return asyncio.run(main())\nawait echo(0)\nwork()", [1, 4]),
        (MAIN + "await echo(0)\nasyncio.new_event_loop().run_until_complete(main())", [1, 4]),
        (MAIN + "async def outer():\n    return asyncio.run(main())\nasyncio.run(outer())", [1, 4]),
        (MAIN + "with asyncio.Runner() as r:\n    out = [r.run(main()), r.run(main())]\nout", [[1, 4], [1, 4]]),
        ("await asyncio.gather(*[echo(i) for i in range(100)])", list(range(100))),
        (
            "async with asyncio.TaskGroup() as g:\n    t = [g.create_task(echo(i)) for i in range(3)]\n[x.result() for x in t]",
            [0, 1, 2],
        ),
        ("async with asyncio.timeout(20):\n    x = await echo(1)\nx", 1),
        ("await asyncio.wait_for(echo(1), 20)", 1),
        ("sorted([await f for f in asyncio.as_completed([echo(i) for i in range(5)])])", list(range(5))),
        ("await asyncio.to_thread(lambda: asyncio.run(echo(3)))", 3),
        (
            "loop = asyncio.get_running_loop()\n"
            "await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(echo(3), loop).result())",
            3,
        ),
        ("async def each():\n    for i in range(3):\n        yield await echo(i)\n[x async for x in each()]", [0, 1, 2]),
        ("input['a'] + input_data['a']", 14),
        ("[math.floor(1.5), json.dumps([1]), re.sub('a', 'b', 'a'), datetime.date(2024, 1, 2).year]", [1, "[1]", "b", 2024]),
        ("from datetime import datetime\ndatetime(2024, 1, 2).isoformat()", "2024-01-02T00:00:00"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 1\nA()", {"x": 1}),
        ("import random\nrandom.random() == random.Random(int.from_bytes(b'code_exec_1', 'big')).random()", True),
        ("import sys\nx = 1\nsys.exit(0)", None),
    ],
)
def test_programs_that_models_write(run: Sandbox, code: str, value: Any) -> None:
    assert run(code, {"a": 7}).value == value


def test_a_loop_run_from_within_lets_tasks_around_it_go_on(run: Sandbox) -> None:
    code = "t = asyncio.create_task(twice(21))\nawait echo(1)\nasync def main():\n    return await t\nasyncio.run(main())"
    assert run(code).value == 42


def test_a_thread_calls_tools_while_the_main_thread_waits_for_it(run: Sandbox) -> None:
    code = (
        "import threading\nfound = []\nasync def main():\n    found.append(await echo(5))\nawait echo(1)\n"
        "t = threading.Thread(target=lambda: asyncio.run(main()))\nt.start()\nt.join()\nfound.append(await echo(2))\nfound"
    )
    ran = run(code)
    assert ran.value == [5, 2]
    assert ran.keys == ["0:1", "0.t1.1:1", "0:2"]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (
            "from decimal import Decimal\n[Decimal('1.50'), Decimal('3'), Decimal('0.1234567890123456789')]",
            [1.5, 3, "0.1234567890123456789"],
        ),
        ("[datetime.date(2024, 1, 2), datetime.timedelta(minutes=1)]", ["2024-01-02", 60.0]),
        (
            "{'s': {3, 1, 2}, 'f': frozenset('a'), 't': (1, 2), 'r': range(2)}",
            {"s": [1, 2, 3], "f": ["a"], "t": [1, 2], "r": [0, 1]},
        ),
        ("[float('nan'), float('inf'), {'x': float('-inf')}]", [None, None, {"x": None}]),
        ("from enum import Enum\nclass C(Enum):\n    A = 'a'\n[C.A, {C.A: 1}]", ["a", {"a": 1}]),
        ("from pathlib import PurePosixPath\n[PurePosixPath('/a'), b'text', b'\\xff']", ["/a", "text", "/w=="]),
        ("{(1, 2): 'a', None: 'b', 3: 'c'}", {"(1, 2)": "a", "null": "b", "3": "c"}),
        ("'a\\ud800b'", "a�b"),
        ("class A:\n    def __repr__(self):\n        return 'an A'\n[A(), A]", ["an A", "<class '__main__.A'>"]),
        ("class A:\n    def __repr__(self):\n        1 / 0\nA()", "<A object whose repr fails: ZeroDivisionError>"),
        ("class A:\n    def model_dump(self):\n        return {'x': {1}}\nA()", {"x": [1]}),
        ("from collections import Counter, deque\n[Counter('aab'), deque([1])]", [{"a": 2, "b": 1}, [1]]),
        ("x = []\nfor _ in range(59):\n    x = [x]\nlen(json.dumps(x))", 120),
        ("['[' * 500, {'a': ']' * 500}]", ["[" * 500, {"a": "]" * 500}]),
    ],
)
def test_values_become_json(run: Sandbox, code: str, value: Any) -> None:
    assert run(code).value == value


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("x = []\nx.append(x)\nx", "contains itself"),
        ("x = {}\nx['a'] = [x]\nx", "contains itself"),
        ("x = []\nfor _ in range(100):\n    x = [x]\nx", "nested deeper than 60"),
        ("x = 1\nfor _ in range(100000):\n    x = {'a': x}\nx", "nested deeper than 60"),
        ("10 ** 5000", "more than 4300 digits"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    a: object = None\nx = A()\nx.a = x\nx", "contains itself"),
        ("'x' * (17 << 20)", "return less"),
    ],
)
def test_values_that_json_cannot_carry_are_a_clear_error(run: Sandbox, code: str, says: str) -> None:
    done = run(code).done
    assert done["error"]["type"] == "ValueUnfit"
    assert says in done["error"]["message"]
    assert (done["value"], done["has_value"]) == (None, False)


def test_arguments_that_json_cannot_carry_fail_at_the_call(run: Sandbox) -> None:
    ran = run("x = []\nx.append(x)\ntry:\n    await echo(x)\nexcept ValueError as e:\n    output = str(e)")
    assert "contains itself" in ran.value
    assert ran.calls == []


@pytest.mark.parametrize(
    ("code", "kind", "line"),
    [
        ("x = 1\ndef f():\n    return x / 0\n\nf()", "ZeroDivisionError", 3),
        ("x = 1\ny = (", "SyntaxError", 2),
        ("async def main():\n    raise ValueError('no')\nasyncio.run(main())", "ValueError", 2),
        ("await echo(1)\nasync def main():\n    raise ValueError('no')\nasyncio.run(main())", "ValueError", 3),
        ("\nawait echo(1, 2, 3)", "TypeError", 2),
        ("import sys\nsys.exit('bad')", "SystemExit", 2),
        ("import no_such_module", "ModuleNotFoundError", 1),
        ("def f(n):\n    return f(n + 1)\nf(0)", "RecursionError", 2),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", 1),
        ("class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E", "E", 4),
        ("await call_tool(server='finance', tool_name='fail', parameters={})", "ToolError", 1),
    ],
)
def test_errors_name_the_program_s_lines_and_none_of_ours(run: Sandbox, code: str, kind: str, line: int) -> None:
    error = run(code).done["error"]
    assert (error["type"], error["line"]) == (kind, line)
    assert "sandbox_image" not in error["traceback"]
    assert "asyncio" not in error["traceback"].replace(code, "").replace("asyncio.run(main())", "")


def test_a_failed_call_can_be_caught(run: Sandbox) -> None:
    code = "try:\n    await call_tool('x', 'fail', {})\nexcept ToolError as e:\n    output = [e.code, str(e)]"
    assert run(code).value == ["refused", "no such expense"]


def test_a_call_gives_up_after_the_programs_own_timeout(run: Sandbox) -> None:
    code = "try:\n    await call_tool('x', 'echo', {'v': 1}, timeout=0.05)\nexcept TimeoutError as e:\n    output = e.code"
    with run.process() as started:
        started.execute(code)
        assert started.receive()["op"] == "call"
        assert started.receive()["value"] == "timeout"


@pytest.mark.parametrize(
    ("code", "keys"),
    [
        ("await echo(1)\nawait echo(2)", ["0:1", "0:2"]),
        ("await asyncio.gather(echo(1), echo(2))\nawait echo(3)", ["0.1:1", "0.2:1", "0:1"]),
        (MAIN + "asyncio.run(main())", ["0.1:1", "0.1:2"]),
        (
            "async def a():\n    await asyncio.gather(echo(1), echo(2))\nt = asyncio.create_task(a())\nawait t",
            ["0.1.1:1", "0.1.2:1"],
        ),
        ("for f in asyncio.as_completed([echo(i) for i in range(4)]):\n    await f", ["0.1:1", "0.2:1", "0.3:1", "0.4:1"]),
        ("await asyncio.to_thread(lambda: asyncio.run(echo(1)))", ["0.1:1"]),
    ],
)
def test_keys_depend_on_the_text_alone(run: Sandbox, code: str, keys: list[str]) -> None:
    for _ in range(2):
        ran = run(code)
        assert ran.value is None or ran.done["has_value"]
        assert ran.keys == keys
        assert [call["id"] for call in ran.calls] == list(range(1, len(keys) + 1))


def test_more_calls_than_may_be_in_flight_wait(run: Sandbox) -> None:
    with run.process() as started:
        started.execute("await asyncio.gather(*[echo(i) for i in range(9)])", in_flight=4)
        first = [started.receive() for _ in range(4)]
        started.channel.settimeout(0.2)
        with pytest.raises(TimeoutError):
            started.receive()
        started.channel.settimeout(30)
        for call in reversed(first):  # in any order
            started.answer(call)
        ran = started.serve()
    assert ran.value == list(range(9))
    assert len(ran.calls) == 5


def test_output_comes_before_the_call_that_follows_it(run: Sandbox) -> None:
    ran = run("import sys\nprint('a')\nprint('b', file=sys.stderr)\nawait echo(1)\nsys.stdout.buffer.write('é'.encode())\nNone")
    assert ran.frames == ["out", "out", "call", "out", "done"]
    assert (ran.stdout, ran.stderr) == ("a\né", "b\n")


def test_output_of_a_busy_program_comes_while_it_runs(run: Sandbox) -> None:
    with run.process() as started:
        started.execute(
            "import time\nuntil = time.monotonic() + 1\nprint('begun')\nwhile time.monotonic() < until:\n    pass\nuntil"
        )
        assert started.receive() == {"op": "out", "stream": "stdout", "text": "begun\n"}
        came = time.monotonic()
        assert started.receive()["value"] - came > 0.5


def test_output_is_bounded_and_the_host_can_see_that_there_was_more(run: Sandbox) -> None:
    ran = run("for _ in range(1000):\n    print('é' * 100)", output_bytes=1000)
    assert 1000 < len(ran.stdout.encode()) <= 2100


def test_output_that_is_no_text_is_mended(run: Sandbox) -> None:
    assert run("print('a\\ud800')").stdout == "a�\n"


def test_a_forgotten_await_is_named(run: Sandbox) -> None:
    ran = run("echo(1)\nx = echo(2)\n3")
    assert ran.value == 3
    assert ran.stderr.count("RuntimeWarning: coroutine 'echo' was never awaited") == 2
    assert "sandbox_image" not in ran.stderr


def test_tasks_left_behind_are_cancelled_and_threads_waited_for(run: Sandbox) -> None:
    code = (
        "import threading\ngo = threading.Event()\n"
        "async def forever():\n    try:\n        await asyncio.sleep(1000)\n    finally:\n"
        "        print('cancelled')\n        go.set()\nt = asyncio.create_task(forever())\nawait asyncio.sleep(0)\n"
        "def late():\n    go.wait(20)\n    print('late')\nthreading.Thread(target=late).start()"
    )
    assert run(code).stdout == "cancelled\nlate\n"


def test_a_process_that_the_program_forks_stays_silent(run: Sandbox) -> None:
    code = (
        "import os\npid = os.fork()\nif pid == 0:\n    print('child')\n    os._exit(7)\n"
        "print('parent', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert run(code).stdout == "parent 7\n"


def test_large_values_go_in_and_out(run: Sandbox) -> None:
    text = "x" * 5_000_000
    ran = run("x = await twice(input)\n[len(x), x]", text)
    assert ran.value == [10_000_000, text * 2]


def test_large_values_in_two_calls_at_once(run: Sandbox) -> None:
    ran = run("a, b = await asyncio.gather(twice(input), twice(input))\n[len(a), a == b]", "é" * 1_000_000)
    assert ran.value == [2_000_000, True]


def test_a_program_sees_nothing_of_its_surroundings(run: Sandbox) -> None:
    value = run(
        "import sys, os\n[sys.argv, __name__, __file__, sys.stdin.read(), sorted(p for p in sys.path if 'sandbox' in p)]"
    ).value
    assert value == [["program.py"], "__main__", "program.py", "", []]


def test_the_process_ends_with_its_channel(run: Sandbox) -> None:
    with run.process(status=70) as started:
        started.execute("await echo(1)")
        assert started.receive()["op"] == "call"


def test_a_program_that_ends_itself_says_no_done(run: Sandbox) -> None:
    with run.process(status=3) as started:
        started.execute("import os\nos._exit(3)")
        with pytest.raises(EOFError):
            started.receive()


def test_sets_have_one_order_in_every_process(run: Sandbox) -> None:
    assert run("hash('a')").value == Sandbox(Supervisor())("hash('a')").value


def test_the_first_process_reports_on_itself(supervisor: Supervisor) -> None:
    supervisor.control.sendall(encode(op="ping") + encode(op="report"))
    said = receive(supervisor.control)
    assert said["op"] == "report"
    assert said["status"]["Uid"].split()[0] == str(os.getuid())
    assert said["hash_seed_fixed"]
    assert "/" in [mount["at"] for mount in said["mounts"]]


def test_the_first_process_ends_with_its_line_or_its_lease() -> None:
    hung_up, forgotten = Supervisor(), Supervisor(lease_s=0.3)
    assert hung_up.hello["version"] == 1
    hung_up.close()
    assert forgotten.popen.wait(10) == 0
    forgotten.close()


def test_a_folder_is_emptied_however_deep_and_locked(tmp_path: Path) -> None:
    deep = tmp_path / "a"
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    deep.mkdir()
    (deep / "f").write_text("x")
    (deep / "loop").symlink_to(tmp_path)
    deep.chmod(0)
    empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
