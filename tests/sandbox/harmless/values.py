"""What a program may give back: the last expression, `output`, a print, and values that JSON does not know."""

from __future__ import annotations

from tests.sandbox.harmless.case import Harmless

A = "values"

CASES = (
    Harmless("last_expression", A, "x = 20\ny = 22\nx + y", value=42),
    Harmless("one_expression", A, "sum(range(101))", value=5050),
    Harmless("print_only", A, "for i in range(3):\n    print('row', i)", prints="row 0\nrow 1\nrow 2\n"),
    Harmless(
        "print_with_sep_end_flush", A, "print(1, 2, sep=',', end=';', flush=True)\nprint()\nprint('a\\tb')", prints="1,2;\na\tb\n"
    ),
    Harmless("assignment_last_is_null", A, "x = 1"),
    Harmless("nothing_but_a_comment", A, "# nothing to do\n"),
    Harmless("nothing_at_all", A, ""),
    Harmless("pass_only", A, "pass"),
    Harmless("output_wins_over_the_last_expression", A, "output = 1\n2 + 2", value=1),
    Harmless("output_set_to_none", A, "output = None\n'ignored'", value=None),
    Harmless("output_built_up", A, "output = {}\nfor w in ['a', 'b']:\n    output[w] = len(output)\n", value={"a": 0, "b": 1}),
    Harmless("output_by_tuple_assignment", A, "output, other = [1, 2], 3\nother", value=[1, 2]),
    Harmless("output_in_a_branch", A, "if 3 > 2:\n    output = 'yes'\nelse:\n    output = 'no'", value="yes"),
    Harmless("output_augmented", A, "output = 0\nfor i in range(4):\n    output += i", value=6),
    Harmless("output_by_walrus_and_annotation", A, "output: list[int] = []\n(n := 5)\noutput.append(n)", value=[5]),
    Harmless("output_inside_a_function_is_local", A, "def f():\n    output = 5\n    return output + 1\n\nf()", value=6),
    Harmless("last_expression_is_await", A, "import asyncio\nawait asyncio.sleep(0, result='slept')", value="slept"),
    Harmless("last_expression_awaits_a_tool", A, "await echo([1, {'a': None}])", value=[1, {"a": None}], tools=("echo",)),
    Harmless("last_expression_is_a_string_like_a_docstring", A, "x = 1\n'''the text'''", value="the text"),
    Harmless("last_expression_after_semicolons", A, "a = 1; b = 2; a + b", value=3),
    Harmless("input_is_null_without_input", A, "input is None, input_data is None", value=[True, True]),
    Harmless("input_scalar", A, "input * 2", value=84, input_data=42),
    Harmless("input_string_and_input_data_are_equal", A, "[input, input == input_data]", value=["héllo", True], input_data="héllo"),
    Harmless("input_may_be_changed", A, "input_data.append(4)\noutput = input_data", value=[1, 4], input_data=[1]),
    Harmless(
        "dataclasses_as_value",
        A,
        r"""
from dataclasses import dataclass, field

@dataclass
class Line:
    sku: str
    qty: int = 1

@dataclass
class Order:
    id: int
    lines: list[Line] = field(default_factory=list)

Order(7, [Line("a"), Line("b", 3)])
""",
        value={"id": 7, "lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 3}]},
    ),
    Harmless("set_as_value", A, "{3, 1, 2}", value=[1, 2, 3]),
    Harmless(
        "frozenset_and_nested_tuples", A, "{'s': frozenset('ba'), 't': ((1, 2), (3,))}", value={"s": ["a", "b"], "t": [[1, 2], [3]]}
    ),
    Harmless(
        "range_dict_views_and_deque",
        A,
        "from collections import deque\nd = {'a': 1}\n[list(range(3)), list(d.items()), list(deque([1, 2]))]",
        value=[[0, 1, 2], [["a", 1]], [1, 2]],
    ),
    Harmless(
        "counter_defaultdict_and_namedtuple",
        A,
        "from collections import Counter, defaultdict\ndd = defaultdict(list)\ndd['x'].append(1)\n{'c': Counter('aab'), 'd': dd}",
        value={"c": {"a": 2, "b": 1}, "d": {"x": [1]}},
    ),
    Harmless("decimal_exact_as_value", A, "from decimal import Decimal\nDecimal('12.50') * 2", value=25),
    Harmless(
        "decimal_too_exact_for_a_number",
        A,
        "from decimal import Decimal\nDecimal('12345678901234567890.123')",
        value="12345678901234567890.123",
    ),
    Harmless(
        "datetime_date_time_as_values",
        A,
        "from datetime import *\n"
        "[datetime(2024, 1, 2, 3, 4), date(2024, 1, 2), time(5, 6), datetime(2024, 1, 1, tzinfo=timezone.utc)]",
        value=["2024-01-02T03:04:00", "2024-01-02", "05:06:00", "2024-01-01T00:00:00+00:00"],
    ),
    Harmless(
        "enum_as_value",
        A,
        "from enum import Enum\nclass C(Enum):\n    RED = 'red'\n    BLUE = 'blue'\n{'c': C.RED, 'all': list(C)}",
        value={"c": "red", "all": ["red", "blue"]},
    ),
    Harmless(
        "pure_path_and_uuid_strings",
        A,
        "from pathlib import PurePosixPath\n[PurePosixPath('a') / 'b', str(PurePosixPath('/x'))]",
        value=["a/b", "/x"],
    ),
    Harmless("nan_and_infinity_are_null", A, "[float('nan'), float('inf'), -math.inf, 1.5]", value=[None, None, None, 1.5]),
    Harmless("int_keys_become_text", A, "{1: 'a', 2: {3: 'b'}}", value={"1": "a", "2": {"3": "b"}}),
    Harmless("booleans_stay_booleans", A, "[True, False, 1, 0, not 0]", value=[True, False, 1, 0, True]),
    Harmless("big_integer", A, "2 ** 100", value=2**100),
    Harmless("long_string", A, "'x' * 100_000", value="x" * 100_000),
    Harmless(
        "deeply_nested_list",
        A,
        "v = 'core'\nfor _ in range(30):\n    v = [v]\nlen(str(v)), v[0][0] == [[v[0][0][0][0]]]",
        value=[66, True],
    ),
    Harmless("lone_unicode_and_emoji", A, "['ñ', '日本', '👩‍👩‍👧', '\\u200b']", value=["ñ", "日本", "👩‍👩‍👧", "\u200b"]),
    Harmless(
        "value_with_a_custom_repr_in_print",
        A,
        "class P:\n    def __repr__(self): return '<P>'\n    def __str__(self): return 'pee'\n"
        "print(P(), [P()], f'{P()!r}')\nlen([P()])",
        value=1,
        prints="pee [<P>] <P>\n",
    ),
    Harmless("print_is_the_last_expression", A, "print('hi')", prints="hi\n"),
    Harmless(
        "print_many_lines",
        A,
        "for i in range(2000):\n    print(i)\nprint('done')",
        prints="".join(f"{i}\n" for i in range(2000)) + "done\n",
    ),
    Harmless("return_value_of_a_named_expression", A, "(total := 3 * 7)", value=21),
    Harmless(
        "raise_and_handle_system_exit_of_our_own",
        A,
        "class Stop(Exception): pass\ntry:\n    raise Stop('now')\nexcept Stop as s:\n    said = str(s)\nsaid",
        value="now",
    ),
)
