"""Programs that speak the protocol themselves: forged, broken, endless and early frames."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.models.program import Status
from tests.sandbox.hostile.program import ANY, FAILED, STUCK, VIOLATION, Hostile, forged


def _variant(
    name: str, code: str, *, status: frozenset[Status] = VIOLATION, tools: tuple[str, ...] = (), note: str = ""
) -> Hostile:
    """One of a family of forged frames."""
    return replace(forged(name, code, status=status, tools=tools, note=note), variant=True)


_REFUSED: frozenset[Status] = frozenset({"security_error", "error"})

_ENDS = [
    forged(
        "value_of_its_own",
        """
send(done('forged'))
time.sleep(60)
""",
        status=ANY,
        note="at most its own value, and no container that stays",
    ),
    forged(
        "two_values",
        """
send(done('first'), done('second'))
time.sleep(60)
""",
        status=ANY,
    ),
    forged(
        "frames_after_the_end",
        """
send(done('first'), {'op': 'out', 'stream': 'stdout', 'text': 'BREACH after the end'})
time.sleep(60)
""",
        status=ANY,
    ),
    forged(
        "calls_after_the_end",
        """
send(done('first'), *[call(n, 'count') for n in range(1, 50)])
time.sleep(60)
""",
        tools=("count",),
        status=ANY,
        note="no tool may be called",
    ),
    forged(
        "calls_before_and_after_the_end",
        """
send(call(1, 'slow'), done('first'), call(2, 'count'))
time.sleep(60)
""",
        tools=("slow", "count"),
        status=ANY,
    ),
    forged("exit_without_an_end", "os._exit(0)\n", status=FAILED),
    forged("crash", "ctypes.string_at(0)\n", status=FAILED),
    forged("killed_by_itself", "os.kill(os.getpid(), 9)\n", status=FAILED),
    forged(
        "channel_closed",
        """
for end in channels: end.shutdown(2)
os.closerange(3, 256)
forever()
""",
        status=FAILED,
    ),
    forged(
        "half_closed_for_writing",
        """
channels[0].shutdown(socket.SHUT_WR)
forever()
""",
        status=FAILED,
    ),
    forged(
        "half_closed_for_reading",
        """
channels[0].shutdown(socket.SHUT_RD)
send(call(1, 'big'), call(2, 'big'))
forever()
""",
        tools=("big",),
        status=FAILED,
    ),
    forged(
        "end_by_a_child",
        """
if os.fork() == 0:
    send(done('by the child'))
    os._exit(0)
forever()
""",
        status=ANY,
    ),
    forged(
        "exit_while_a_child_holds_the_channel",
        """
if os.fork() == 0: forever()
os._exit(0)
""",
        status=FAILED,
    ),
    forged(
        "error_of_success",
        """
send({'op': 'done', 'value': None, 'has_value': False, 'error': {}})
time.sleep(60)
""",
        status=ANY,
    ),
]

_LENGTHS = [
    forged(
        "length_of_4_gib",
        """
raw(b'\\xff\\xff\\xff\\xff{')
time.sleep(60)
""",
    ),
    forged(
        "length_of_2_gib",
        """
raw(struct.pack('>I', 1 << 31))
time.sleep(60)
""",
    ),
    forged(
        "length_one_over",
        """
raw(struct.pack('>I', (16 << 20) + 1))
time.sleep(60)
""",
    ),
    forged(
        "frame_one_over",
        """
raw(packed(b'{"op":"out","stream":"stdout","text":"' + b'x' * (16 << 20) + b'"}'))
time.sleep(60)
""",
    ),
    forged("empty_frame", "raw(bytes(4))\ntime.sleep(60)\n"),
    forged(
        "empty_frames_for_ever",
        """
while raw(bytes(4096)): pass
time.sleep(60)
""",
    ),
    forged(
        "half_a_frame_then_silence",
        """
raw(struct.pack('>I', 100) + b'{"op":')
time.sleep(60)
""",
        status=STUCK,
    ),
    forged("half_a_length_then_gone", "raw(b'\\0\\0')\nos._exit(0)\n", status=FAILED),
    forged(
        "letter_by_letter",
        """
for byte in packed(done('x' * 1000)):
    raw(bytes([byte]))
    time.sleep(0.05)
""",
        status=STUCK,
        note="a frame that never becomes whole, but is always alive",
    ),
    forged(
        "random_bytes",
        """
while raw(os.urandom(4096)): pass
time.sleep(60)
""",
    ),
    forged(
        "words_of_another_protocol",
        """
raw(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
time.sleep(60)
""",
    ),
]

_JSON = [
    _variant(f"text_{name}", f"send({body})\ntime.sleep(60)\n", status=_REFUSED, note=note)
    for name, body, note in (
        ("that_is_no_json", "b'{op: done}'", ""),
        ("of_a_pickle", "b\"cos\\nsystem\\n(S'touch /tmp/owned'\\ntR.\"", "nothing on the host may ever unpickle"),
        ("of_a_list", "b'[]'", ""),
        ("of_a_number", "b'1'", ""),
        ("of_null", "b'null'", ""),
        ("that_goes_on", 'b\'{"op":"done","value":1,"has_value":true,"error":null}{}\'', ""),
        ("of_broken_letters", 'b\'{"op":"out","stream":"stdout","text":"\\xff\\xfe\\xc3"}\'', "not UTF-8"),
        ("of_overlong_letters", 'b\'{"op":"out","stream":"stdout","text":"\\xc0\\xaf"}\'', ""),
        ("of_raw_half_letters", 'b\'{"op":"out","stream":"stdout","text":"\\xed\\xa0\\x80"}\'', "a surrogate written as UTF-8"),
        ("of_utf_16", "json.dumps(done(1)).encode('utf-16')", "json.loads guesses codes when given bytes"),
        ("of_utf_32", "json.dumps(done(1)).encode('utf-32-le')", ""),
        ("with_a_mark", "b'\\xef\\xbb\\xbf' + json.dumps(done(1)).encode()", ""),
        (
            "of_great_depth",
            'b\'{"op":"done","has_value":true,"error":null,"value":\' + b\'[\' * 200_000 + b\']\' * 200_000 + b\'}\'',
            "RecursionError on the host",
        ),
        (
            "of_great_depth_of_objects",
            'b\'{"op":"done","has_value":true,"error":null,"value":\' + b\'{"a":\' * 100_000 + b\'1\' + b\'}\' * 100_001',
            "",
        ),
        ("of_depth_without_end", "b'[' * (4 << 20)", ""),
        ("of_a_deep_value", 'b\'{"op":"done","has_value":true,"error":null,"value":\' + b\'[\' * 300 + b\']\' * 300 + b\'}\'', ""),
        (
            "of_many_digits",
            'b\'{"op":"done","has_value":true,"error":null,"value":\' + b\'9\' * 10_000 + b\'}\'',
            "a ValueError that is no JSONDecodeError",
        ),
        ("of_megabytes_of_digits", 'b\'{"op":"done","has_value":true,"error":null,"value":\' + b\'9\' * (8 << 20) + b\'}\'', ""),
        ("of_a_raw_zero", 'b\'{"op":"out","stream":"stdout","text":"a\\0b"}\'', "control signs must be escaped"),
    )
]
_NUMBERS = [
    _variant(
        f"value_of_{name}",
        f'send(b\'{{"op":"done","has_value":true,"error":null,"value":{literal}}}\')\ntime.sleep(60)\n',
        status=ANY,
        note="must not reach a reader as a number that JSON does not know",
    )
    for name, literal in (
        ("no_number", "NaN"),
        ("infinity", "-Infinity"),
        ("too_large_a_float", "1e999"),
        ("a_list_of_odd_numbers", "[NaN,1e400,-0.0,1E-999]"),
    )
]

_OPS = [
    forged(
        "unknown_operation",
        """
send({'op': 'format_disk'})
time.sleep(60)
""",
    ),
    forged("no_operation", "send({})\ntime.sleep(60)\n"),
    *(
        _variant(f"operation_of_{name}", f"send({{'op': {value}}})\ntime.sleep(60)\n")
        for name, value in (
            ("a_list", "['done']"),
            ("an_object", "{'done': 1}"),
            ("null", "None"),
            ("a_number", "1"),
            ("truth", "True"),
            ("great_length", "'d' * 1_000_000"),
            ("an_attribute", "'__class__'"),
        )
    ),
    forged(
        "operation_twice_in_one_frame",
        """
raw(packed(b'{"op":"out","stream":"stdout","text":"x","op":"call","id":1,"key":"0:1","tool":"vault","args":{}}'))
time.sleep(60)
""",
        status=_REFUSED | STUCK,
    ),
    *(
        _variant(f"as_pid_1_{name}", f"send({frame})\ntime.sleep(60)\n")
        for name, frame in (
            ("hello", "{'op': 'hello', 'version': 1, 'python': '3.11.2'}"),
            ("ended", "{'op': 'ended', 'n': 1, 'code': 0}"),
            ("spawned", "{'op': 'spawned', 'n': 2}"),
        )
    ),
    *(
        _variant(f"as_the_host_{name}", f"send({frame})\ntime.sleep(60)\n")
        for name, frame in (
            ("exec", "{'op': 'exec', 'code': '1', 'input': None}"),
            ("result", "{'op': 'result', 'id': 1, 'value': 'forged'}"),
            ("spawn", "{'op': 'spawn', 'n': 2}"),
            ("ping", "{'op': 'ping'}"),
        )
    ),
    forged(
        "ready_again",
        """
send({'op': 'ready'})
time.sleep(60)
""",
        status=_REFUSED | STUCK,
    ),
    forged(
        "ready_for_ever",
        """
while send({'op': 'ready'}): pass
time.sleep(60)
""",
    ),
]

_CALLS = [
    *(
        _variant(f"call_numbered_{name}", f"send(call({number}, 'count'))\ntime.sleep(60)\n", tools=("count",))
        for name, number in (
            ("below_zero", "-1"),
            ("zero", "0"),
            ("far_ahead", "10 ** 6"),
            ("beyond_64_bits", "10 ** 400"),
            ("with_a_point", "1.0"),
            ("with_letters", "'1'"),
            ("truth", "True"),
            ("null", "None"),
            ("with_a_list", "[1]"),
            ("two", "2"),
        )
    ),
    forged(
        "call_twice_with_one_number",
        """
send(call(1, 'count'), call(1, 'count'))
time.sleep(60)
""",
        tools=("count",),
    ),
    forged(
        "calls_that_go_back",
        """
send(call(1, 'count'), call(2, 'count'), call(1, 'count'))
time.sleep(60)
""",
        tools=("count",),
    ),
    forged(
        "call_without_number",
        """
send({'op': 'call', 'key': '0:1', 'tool': 'count', 'args': {}})
time.sleep(60)
""",
        tools=("count",),
    ),
    *(
        _variant(
            f"call_keyed_by_{name}",
            f"frame = call(1, 'count')\nframe['key'] = {key}\nsend(frame)\ntime.sleep(60)\n",
            tools=("count",),
            status=_REFUSED | STUCK,
        )
        for name, key in (
            ("a_number", "7"),
            ("a_list", "[]"),
            ("megabytes", "'0.' * (2 << 20)"),
            ("another_job", "'../other-job:0:1'"),
            ("signs_of_control", "'0\\r\\n:1\\0'"),
        )
    ),
    forged(
        "two_calls_of_one_key",
        """
send({**call(1), 'key': '0:1'}, {**call(2, args={'text': 'b'}), 'key': '0:1'})
time.sleep(60)
""",
        tools=("echo",),
        status=VIOLATION | STUCK,
    ),
    *(
        _variant(
            f"arguments_of_{name}",
            f"send({{**call(1, 'count'), 'args': {value}}})\ntime.sleep(60)\n",
            tools=("count",),
            status=_REFUSED | STUCK,
        )
        for name, value in (("a_list", "[1, 2]"), ("null", "None"), ("text", "'n=1'"), ("a_number", "5"))
    ),
    forged(
        "arguments_of_great_depth",
        """
deep = b'[' * 500 + b']' * 500
send(b'{"op":"call","id":1,"key":"0:1","tool":"echo","args":{"text":' + deep + b'}}')
time.sleep(60)
""",
        tools=("echo",),
    ),
    forged(
        "arguments_with_half_a_letter",
        """
send(call(1, args={'text': '\\ud800'}))
time.sleep(60)
""",
        tools=("echo",),
        status=ANY,
    ),
    forged(
        "arguments_named_with_half_a_letter",
        """
send(call(1, args={'\\udfff': 'x'}))
time.sleep(60)
""",
        tools=("echo",),
        status=_REFUSED | STUCK,
    ),
    *(
        _variant(f"tool_named_{name}", f"send(call(1, {tool}))\ntime.sleep(60)\n", tools=("echo",), status=_REFUSED | STUCK)
        for name, tool in (
            ("vault", "'vault'"),
            ("a_path", "'../vault'"),
            ("nothing", "''"),
            ("an_attribute", "'__class__'"),
            ("null", "None"),
            ("a_list", "['vault']"),
            ("megabytes", "'v' * (8 << 20)"),
            ("with_signs_of_control", "'echo\\x1b[2J\\0\\r\\n'"),
            ("half_a_letter", "'\\udc80'"),
            ("code_exec", "'code_exec'"),
            ("with_space", "' vault '"),
        )
    ),
    forged(
        "caller_of_its_own",
        """
lies = {"caller": {"type": "direct", "execution_id": "forged", "tool_id": "forged"}, "execution_id": "forged",
    "status": "success", "duration": -1,
        "timestamp": 0, "result_size": -5, "error": None, "user": "root", "tenant": "forged", "record": {"tool": "vault"}}
send(call(1, "echo", {"text": "x"}, **lies))
channels[0].recv(65536)
send(done("ended", **lies, tool_calls=[], output="forged", usage={}))
time.sleep(60)
""",
        tools=("echo",),
        status=ANY,
        note="the host alone writes who called",
    ),
    forged(
        "results_never_read",
        """
for n in range(1, 61):
    if not send(call(n, 'big')): break
while True: time.sleep(1)
""",
        tools=("big",),
        status=_REFUSED | STUCK,
        note="30 MB of answers that nobody takes",
    ),
    forged(
        "results_taken_by_a_child",
        """
if os.fork() == 0:
    while True: channels[0].recv(10)
await asyncio.gather(*[echo(text=str(n)) for n in range(20)])
forever()
""",
        tools=("echo",),
        status=FAILED,
    ),
    forged(
        "calls_by_forged_frames_beyond_the_limit",
        """
import itertools
for n in itertools.count(1):
    if not send(call(n, 'count')): break
    try: channels[0].recv(1 << 20)
    except OSError: pass
time.sleep(60)
""",
        tools=("count",),
        status=FAILED,
        note="no tool may be called more than 100 times",
    ),
]

_FLOODS = [
    forged(
        "empty_output_for_ever",
        """
body = packed({'op': 'out', 'stream': 'stdout', 'text': ''}) * 200
while raw(body): pass
time.sleep(60)
""",
        status=_REFUSED | STUCK,
        note="an output that never reaches its limit",
    ),
    forged(
        "tiny_output_for_ever",
        """
body = packed({'op': 'out', 'stream': 'stderr', 'text': 'x'}) * 200
while raw(body): pass
time.sleep(60)
""",
        status=_REFUSED | STUCK,
    ),
    forged(
        "large_output_for_ever",
        """
body = packed({'op': 'out', 'stream': 'stdout', 'text': 'x' * (8 << 20)})
while raw(body): pass
time.sleep(60)
""",
        status=_REFUSED | STUCK,
    ),
    forged(
        "objects_from_little_text",
        """
send(b'{"op":"done","has_value":true,"error":null,"value":[' + b'[],' * (5 << 20) + b'[]]}')
time.sleep(60)
""",
        status=_REFUSED | frozenset[Status]({"success"}),
        note="15 MiB of text become 350 MB of lists",
    ),
    forged(
        "objects_from_little_text_as_arguments",
        """
send(b'{"op":"call","id":1,"key":"0:1","tool":"echo","args":{"text":[' + b'{},' * (5 << 20) + b'{}]}}')
time.sleep(60)
""",
        tools=("echo",),
        status=_REFUSED | STUCK,
    ),
    forged(
        "objects_from_little_text_of_no_operation",
        """
send(b'{"op":"out","stream":"stdout","text":"","more":[' + b'{},' * (5 << 20) + b'{}]}')
time.sleep(60)
""",
        status=ANY,
    ),
    forged(
        "many_names",
        """
send(b'{"op":"out","stream":"stdout","text":"",' + b','.join(b'"%d":0' % n for n in range(1_000_000)) + b'}')
time.sleep(60)
""",
        status=ANY,
    ),
    forged(
        "descriptors_to_the_host",
        """
fds = [os.open('/dev/null', 0) for _ in range(40)]
try:
    for _ in range(20_000):
        socket.send_fds(channels[0], [packed({'op': 'out', 'stream': 'stdout', 'text': ''})], fds)
except OSError: pass
time.sleep(60)
""",
        status=_REFUSED | STUCK,
        note="open files sent along with frames must not stay open at the host",
    ),
    forged(
        "the_channel_sent_to_the_host",
        """
for _ in range(50):
    socket.send_fds(channels[0], [packed({'op': 'out', 'stream': 'stdout', 'text': ''})], [channels[0].fileno()] * 20)
os._exit(0)
""",
        status=FAILED,
        note="a channel that holds itself open would never end",
    ),
    forged(
        "many_writers",
        """
for _ in range(6):
    if os.fork() == 0: break
while raw(packed({'op': 'out', 'stream': 'stdout', 'text': 'x' * 3000})): pass
time.sleep(60)
""",
        status=FAILED,
    ),
]

_SHAPES = [
    *(
        _variant(
            f"end_with_error_of_{name}",
            f"send({{'op': 'done', 'value': None, 'has_value': False, 'error': {value}}})\ntime.sleep(60)\n",
            status=FAILED,
        )
        for name, value in (
            ("text", "'x'"),
            ("a_list", "[1]"),
            ("truth", "True"),
            ("wrong_parts", "{'type': 1, 'message': [], 'line': 'x', 'traceback': {}}"),
            ("half_letters", "{'type': '\\ud800', 'message': '\\udfff', 'line': 1, 'traceback': '\\ud800'}"),
            ("megabytes", "{'type': 'E' * 10**6, 'message': 'x' * (6 << 20), 'line': 10**30, 'traceback': 'y' * (6 << 20)}"),
        )
    ),
    forged(
        "end_with_odd_flags",
        """
send({'op': 'done', 'value': 1, 'has_value': 'yes', 'error': None})
time.sleep(60)
""",
        status=ANY,
    ),
    forged(
        "end_with_nothing",
        """
send({'op': 'done'})
time.sleep(60)
""",
        status=ANY,
    ),
    forged(
        "value_with_half_a_letter",
        """
send(done({'\\ud800': ['\\udfff']}))
time.sleep(60)
""",
        status=ANY,
    ),
    *(
        _variant(f"output_of_{name}", f"send({{'op': 'out', {rest}}})\ntime.sleep(60)\n", status=_REFUSED | STUCK)
        for name, rest in (
            ("no_text", "'stream': 'stdout'"),
            ("a_number", "'stream': 'stdout', 'text': 5"),
            ("a_list", "'stream': 'stdout', 'text': ['x'] * 100"),
            ("an_odd_stream", "'stream': 'log', 'text': 'x'"),
            ("a_listed_stream", "'stream': ['stdout'], 'text': 'x'"),
            ("half_letters", "'stream': 'stdout', 'text': '\\ud83d'"),
            ("ends_of_lines", "'stream': 'stdout', 'text': '\\r\\n\\r\\ndata: forged\\u2028\\0'"),
        )
    ),
]

_THEFT = [
    forged(
        "control_connection_taken",
        """
if len(channels) > 1:
    breach(f"{len(channels)} connections to the outside")
for end in channels:
    for name in (end.getpeername(), end.getsockname()):
        if name:
            breach(f"a connection with the name {name!r}")
held()
""",
        status=frozenset({"success"}),
        held=True,
        timeout_s=10,
        note="only the program channel leads out, and it has no name of the host",
    ),
    forged(
        "other_ends_by_collected_objects",
        """
import gc
ends = {o.fileno() for o in gc.get_objects() if isinstance(o, socket.socket) and o.fileno() >= 0}
print(len(ends))
for fd in ends:
    try:
        name = socket.socket(fileno=os.dup(fd)).getpeername()
    except OSError:
        continue
    if name: breach(f"{name!r}")
held()
""",
        status=frozenset({"success"}),
        held=True,
        timeout_s=10,
    ),
]

_MANNERS = [replace(program, variant=True) for program in _LENGTHS + _JSON + _NUMBERS + _OPS + _CALLS + _SHAPES]

PROGRAMS: list[Hostile] = _ENDS + _MANNERS + _FLOODS + _THEFT
