"""Programs that turn Python against the runner and the bridge: what they reach must not be worth anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.models.program import Status
from tests.sandbox.hostile.program import ANY, FAILED, RAN, STUCK, Hostile

_SEARCH = '''
import re
SECRET = re.compile(("toolweaver-" + "canary-").encode() + rb"[0-9a-f]{16}")


def search(data):
    """A secret in bytes or text is shown, and so found by whoever reads what this program printed."""
    data = data.encode("utf-8", "replace") if isinstance(data, str) else data
    for match in set(SECRET.findall(data)):
        breach(f"a secret: {match!r}")


async def steal(way):
    """Calls a tool that was not granted, by whatever the attack has found."""
    try:
        got = way()
        if asyncio.iscoroutine(got) or asyncio.isfuture(got):
            got = await asyncio.wait_for(got, 2)
    except BaseException as error:
        search(repr(error))
        return
    if got is not None:
        search(repr(got))
        print("answered", repr(got)[:200])


'''


def python(
    name: str,
    code: str,
    *,
    tools: tuple[str, ...] = (),
    status: frozenset[Status] = RAN,
    held: bool = True,
    value: Any = ...,
    limits: Mapping[str, Any] | None = None,
    note: str = "",
) -> Hostile:
    """An attack in Python; one that is held ends by printing so."""
    ending = "\nheld()\n" if held and value is ... else ""
    return Hostile(
        name, "jail", _SEARCH + code + ending, tools=tools, status=status, held=held, value=value, limits=limits or {}, note=note
    )


_REACH = [
    python(
        "through_subclasses",
        """
for kind in ().__class__.__base__.__subclasses__():
    for name in ('popen', 'system', 'environ'):
        owner = getattr(getattr(kind, '__init__', None), '__globals__', {})
        if name == 'environ' and name in owner: search(repr(dict(owner[name])))
        elif name in owner: attempt(name, lambda: os.popen('env').read() or 1 / 0)

""",
    ),
    python(
        "through_frames",
        """
frame, seen = sys._getframe(), 0
while frame:
    for name, value in {**frame.f_globals, **frame.f_locals}.items():
        search(f"{name}={value!r}"[:100_000])
        seen += 1
    frame = frame.f_back
await asyncio.sleep(0)
for task in asyncio.all_tasks():
    for inner in task.get_stack():
        search(repr(inner.f_locals)[:100_000])
print(seen)
""",
    ),
    python(
        "through_the_collector",
        """
import gc
for thing in gc.get_objects():
    try:
        if isinstance(thing, dict): search(repr({k: v for k, v in list(thing.items())[:200] if isinstance(v, (str, bytes))}))
        elif isinstance(thing, (list, tuple, set)) and len(thing) < 1000: search(repr([v for v in thing if isinstance(v, (str,
            bytes))]))
    except Exception: pass
""",
    ),
    python(
        "through_its_own_memory",
        """
for line in open("/proc/self/maps"):
    span, rights = line.split()[:2]
    if "r" not in rights or "[v" in line: continue
    start, end = (int(x, 16) for x in span.split("-"))
    if end - start > 64 << 20: continue
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            search(memory.read(end - start))
    except (OSError, ValueError, OverflowError): pass
""",
        note="everything that ever came into this process, including what the runner was given before the program",
    ),
    python(
        "through_modules",
        """
for name, module in list(sys.modules.items()):
    for key, value in list(vars(module).items()) if hasattr(module, '__dict__') else []:
        if isinstance(value, (str, bytes, dict, list, tuple)): search(repr(value)[:100_000])
""",
    ),
    python(
        "through_closures_of_a_tool",
        """
stack, seen = [echo], set()
while stack and len(seen) < 5000:
    thing = stack.pop()
    if id(thing) in seen: continue
    seen.add(id(thing))
    try: search(repr(thing)[:10_000])
    except Exception: pass
    for name in ('__closure__', '__globals__', '__dict__', '__self__', '__func__', '__wrapped__', '__defaults__', 'cell_contents'):
        found = getattr(thing, name, None)
        if isinstance(found, dict): stack += list(found.values())[:300]
        elif isinstance(found, (tuple, list)): stack += list(found)
        elif found is not None: stack.append(found)
print(len(seen))
""",
        tools=("echo",),
    ),
]

_BRIDGE = [
    python(
        "the_runner_imported_again",
        """
sys.path.insert(0, "/opt/toolweaver")
for name in ("runner", "bridge", "program", "loop", "values"):
    try:
        module = __import__(name)
    except BaseException as error:
        print(name, type(error).__name__)
        continue
    search(repr(vars(module))[:1_000_000])
    for key in dir(module):
        value = getattr(module, key)
        if callable(value) and key.lower() in ("call", "call_tool", "bridge", "invoke"):
            await steal(lambda: value("vault", {}))
""",
        tools=("echo",),
        status=ANY,
        held=False,
        limits={"timeout_s": 5},
    ),
    python(
        "another_name_into_a_stub",
        """
import types
for part in (echo, getattr(echo, '__wrapped__', None), getattr(echo, '__func__', None)):
    if isinstance(part, types.FunctionType):
        for cell in part.__closure__ or ():
            try:
                if cell.cell_contents == 'echo': cell.cell_contents = 'vault'
            except ValueError: pass
        try: part.__code__ = part.__code__.replace(co_consts=tuple('vault'
            if c == 'echo' else c for c in part.__code__.co_consts), co_name='vault')
        except Exception as error: print(error)
        part.__name__ = part.__qualname__ = 'vault'
await steal(lambda: echo(text='x'))
""",
        tools=("echo",),
    ),
    python(
        "every_constant_in_the_runner",
        """
import gc, types
for function in [o for o in gc.get_objects() if isinstance(o, types.FunctionType)]:
    if any(part in function.__code__.co_filename for part in ("toolweaver", "<stub", "tools")):
        try: function.__code__ = function.__code__.replace(co_consts=tuple("vault"
            if c == "echo" else c for c in function.__code__.co_consts))
        except Exception: pass
await steal(lambda: echo(text="x"))
""",
        tools=("echo",),
        note="code objects are rewritten in place",
    ),
    python(
        "the_way_to_json_patched",
        """
import json as j
before = j.dumps, j.encoder.JSONEncoder.encode
def bent(value, *a, **k):
    if isinstance(value, dict) and value.get('op') == 'call': value = {**value, 'tool': 'vault'}
    return before[0](value, *a, **k)
j.dumps = bent
j.encoder.JSONEncoder.encode = lambda self, value: bent(value)
for module in list(sys.modules.values()):
    if getattr(module, 'dumps', None) is before[0]: module.dumps = bent
await steal(lambda: echo(text='x'))
""",
        tools=("echo",),
        status=ANY,
        held=False,
        limits={"timeout_s": 4},
    ),
    python(
        "the_way_to_the_socket_patched",
        """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ in ('_SelectorSocketTransport', 'StreamWriter', 'Bridge', 'Channel'):
        for name in ('write', 'send', '_send', 'sendall'):
            old = getattr(thing, name, None)
            if callable(old):
                try: setattr(thing, name, lambda data, *a, old=old: old(data.replace(b'echo', b'vaul') if isinstance(data,
                    bytes) else data, *a))
                except Exception: pass
await steal(lambda: echo(text='x'))
""",
        tools=("echo",),
        status=ANY,
        held=False,
        limits={"timeout_s": 4},
    ),
    python(
        "tools_by_another_road",
        """
for server in ('default', 'function', 'vault', '', 'mcp', None, '../', 'http://127.0.0.1'):
    for name in ('vault', 'code_exec', 'run_program', '../vault', 'default/vault', 'vault\\x00', 'VAULT', '*'):
        try: search(repr(await call_tool(server=server, tool_name=name, parameters={}, timeout=1)))
        except Exception as error: search(str(error))
""",
        tools=("echo",),
    ),
    python(
        "modules_of_tools_that_are_not",
        """
import importlib
for name in ('tools.secrets', 'tools.vault', 'tools', 'tools.finance', 'tools.default', 'stubs', 'servers', 'orchestrator',
    'workers', 'docker'):
    try:
        module = importlib.import_module(name)
    except ImportError: continue
    for key in ('vault', 'Settings', 'load_settings', 'from_env'):
        if hasattr(module, key): breach(f'{name}.{key}')
""",
        tools=("echo",),
    ),
]

_TRAPS = [
    python(
        "builtins_replaced",
        """
import builtins
for name in ('print', 'len', 'isinstance', 'repr', 'str', 'dict', 'list', 'open', 'getattr', 'type', 'id', 'Exception',
    'BaseException'):
    setattr(builtins, name, lambda *a, **k: forever())
1
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "every_module_emptied",
        """
for name, module in list(sys.modules.items()):
    if name not in ('__main__', 'builtins'):
        try: vars(module).clear()
        except Exception: pass
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "modules_removed",
        """
sys.modules.clear()
sys.path[:] = ['/tmp']
sys.meta_path.clear()
1
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "audit_hook",
        """
seen = []
sys.addaudithook(lambda event, args: seen.append((event, repr(args)[:2000])))
await echo(text='x')
open('/etc/hostname').close()
for event in seen: search(repr(event))
""",
        tools=("echo",),
    ),
    python(
        "audit_hook_that_hangs",
        """
sys.addaudithook(lambda event, args: forever())
open('/tmp/x', 'w')
""",
        status=STUCK,
        held=False,
        limits={"timeout_s": 2},
    ),
    python(
        "tracing_the_runner",
        """
seen = []
def trace(frame, event, arg):
    if len(seen) > 300:
        return None
    seen.append(repr(list(frame.f_locals.values())[:20])[:5000])
    return trace
sys.settrace(trace)
threading.settrace(trace)
frame = sys._getframe()
while frame:
    frame.f_trace = trace
    frame = frame.f_back
sys.setprofile(lambda *a: None)
await echo(text='x')
sys.settrace(None)
for text in seen: search(text)
""",
        tools=("echo",),
        status=ANY,
        held=False,
        limits={"timeout_s": 4},
    ),
    python(
        "streams_replaced",
        """
class Odd:
    def write(self, text): forever()
    def flush(self): forever()
    def __getattr__(self, name): return forever
sys.stdout = sys.stderr = Odd()
1
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "loop_stopped",
        """
asyncio.get_running_loop().stop()
await asyncio.sleep(3)
1
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "loop_closed",
        """
loop = asyncio.get_running_loop()
loop._closed = True
loop._ready.clear()
loop._selector.close()
await asyncio.sleep(1)
""",
        status=FAILED,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "tasks_of_the_runner_cancelled",
        """
for task in asyncio.all_tasks():
    if task is not asyncio.current_task(): task.cancel()
asyncio.current_task().cancel()
await asyncio.sleep(1)
""",
        status=FAILED,
        held=False,
        limits={"timeout_s": 3},
    ),
    *(
        python(
            f"leaves_by_{name}",
            f"raise {name}({args})\n",
            status=ANY if name == "SystemExit" else FAILED,
            held=False,
            limits={"timeout_s": 3},
        )
        for name, args in (
            ("SystemExit", "0"),
            ("SystemExit", "'text'"),
            ("KeyboardInterrupt", ""),
            ("GeneratorExit", ""),
            ("asyncio.CancelledError", ""),
            ("StopIteration", "1"),
            ("StopAsyncIteration", ""),
            ("BaseException", "'x'"),
        )[1:]
    ),
    python(
        "error_that_hangs_when_shown",
        """
class Odd(Exception):
    def __str__(self): forever()
    __repr__ = __str__
raise Odd()
""",
        status=FAILED,
        held=False,
        limits={"timeout_s": 2},
    ),
    python(
        "error_that_fails_when_shown",
        """
class Odd(Exception):
    def __str__(self): raise self
    __repr__ = __str__
    __class__ = property(lambda self: forever())
raise Odd()
""",
        status=FAILED,
        held=False,
        limits={"timeout_s": 2},
    ),
    python(
        "error_with_a_false_name",
        """
Odd = type('SecurityError\\r\\n\\x1b[2J\\ud800', (Exception,), {'__module__': 'x\\ud800'})
raise Odd('\\ud800\\udfff\\0')
""",
        status=FAILED,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "task_that_will_not_go",
        """
async def stay():
    while True:
        try: await asyncio.sleep(0.01)
        except BaseException: pass
kept = [asyncio.create_task(stay()) for _ in range(20)]
1
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
    python(
        "generator_that_will_not_go",
        """
async def stay():
    try:
        while True: yield 1
    finally:
        while True: await asyncio.sleep(0.01)
kept = stay()
await anext(kept)
1
""",
        status=ANY,
        held=False,
        limits={"timeout_s": 3},
    ),
]

_VALUES = [
    python(
        "value_with_reduce",
        """
import subprocess
class Odd:
    def __reduce__(self): return (subprocess.getoutput, ('id',))
    def __repr__(self): return 'an odd thing'
Odd()
""",
        status=ANY,
        held=False,
        note="whatever arrives is plain JSON",
    ),
    python(
        "value_of_odd_text",
        """
class Odd(str):
    def __eq__(self, other): return True
    __hash__ = None
    def encode(self, *a): return b'odd'
    def __str__(self): return 'other'
[Odd('x'), {'k': Odd('y')}]
""",
        status=ANY,
        held=False,
    ),
    python(
        "value_of_odd_numbers",
        """
class N(int):
    def __repr__(self): return '1, "op": "call"'
    __str__ = __repr__
class F(float):
    def __repr__(self): return 'NaN'
[N(5), F(2.5), float('nan'), float('inf'), 10**5000]
""",
        status=ANY,
        held=False,
    ),
    python(
        "value_of_odd_keys",
        """
{1: 'a', '1': 'b', None: 'c', (1, 2): 'd', float('nan'): 'e', '__class__': 'f', '__proto__': 'g', '$literal': 'step:other.secret'}
""",
        status=ANY,
        held=False,
    ),
    python(
        "value_like_a_reference",
        """
{'a': 'step:other.secret', 'b': 'input:host_file', 'c': '{{ config }}', 'd': '${HOME}', 'e': 'file:/etc/passwd',
    'f': 'blob:sha256:' + '0' * 64}
""",
        value={
            "a": "step:other.secret",
            "b": "input:host_file",
            "c": "{{ config }}",
            "d": "${HOME}",
            "e": "file:/etc/passwd",
            "f": "blob:sha256:" + "0" * 64,
        },
        held=False,
        note="text stays text",
    ),
]

PROGRAMS: list[Hostile] = _REACH + _BRIDGE + _TRAPS + _VALUES
