"""Stubs of tools with ordinary and with hostile words: they compile, type-check, define one function and call the right tool."""

from __future__ import annotations

import ast
import asyncio
import importlib
import keyword
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mypy import api as mypy

from orchestrator.catalog.render.hints import hint
from orchestrator.catalog.render.names import NamedTool, identifier, name_tools
from orchestrator.catalog.render.stubs import HEADER, StubGenerator, stub
from orchestrator.errors import NotFound, PermissionDenied
from orchestrator.models.tool import ToolCatalog, ToolDefinition, ToolExample, ToolParameter
from orchestrator.programmatic_executor.granted import callable_by_programs
from tests.livemcp import livemcp

GET_EXPENSES = ToolDefinition(
    name="get_expenses",
    domain="finance",
    description="Expenses of one person.",
    parameters=(
        ToolParameter(name="quarter", enum=("Q1", "Q2"), default="Q1", description="which one"),
        ToolParameter(name="user_id", required=True, description="whose"),
        ToolParameter(name="tags", type="array", json_schema={"type": "array", "items": {"type": "string"}}),
    ),
    examples=(ToolExample(scenario="minimal", input={"user_id": "u1"}, output={"total": 3.5}),),
)

EXPECTED = '''\
# AUTO-GENERATED - DO NOT EDIT
from __future__ import annotations

from typing import Any, Literal

from toolweaver_bridge import call_tool


async def get_expenses(user_id: str, quarter: Literal["Q1", "Q2"] = "Q1", tags: list[str] | None = None) -> Any:
    """Expenses of one person.

    Args:
        user_id: whose
        quarter: which one Default "Q1".
        tags

    Examples:
        # minimal
        >>> await get_expenses(user_id="u1")
        {'total': 3.5}
    """
    parameters: dict[str, Any] = {"user_id": user_id}
    if quarter != "Q1":
        parameters["quarter"] = quarter
    if tags is not None:
        parameters["tags"] = tags
    return await call_tool(server="finance", tool_name="get_expenses", parameters=parameters)
'''

EVIL = (
    '"""\nimport os\nos.system("x")\n"""',
    'ends with a quote"',
    'ends with three"""',
    "ends with a backslash\\",
    'both \\"""',
    '\\\\"""\\"',
    "'''",
    "{braces} %s {0.__class__}",
    "\0\x1b[2J\x07\r\n\x0b\x0c\x85\u2028\u202etxt",
    "# AUTO-GENERATED\n\tdef f(): pass",
    "\\N{BULLET} \\x41 \\u0041",
    "x" * 100_000,
    "\n" * 5000,
    "",
    " ",
    '"',
    '""""""""',
    "日本語 🙂 ß",
)


def evil_tool(n: int, words: str) -> ToolDefinition:
    return ToolDefinition(
        name=f"evil_{n}",
        domain=words[:200] or "general",
        description=words,
        parameters=(
            ToolParameter(name=words[:300] or "a", required=True, description=words),
            ToolParameter(name="b", default=words, description=words),
            ToolParameter(name="c", enum=(words[:150], 1, None), default=words[:150]),
            ToolParameter(name="d", type="object", default={words[:50]: [words[:50]]}, json_schema={"type": words}),
        ),
        examples=(ToolExample(scenario=words, input={words: words}, output={words: words}, notes=words),),
    )


ODD_NAMES = (
    "web.search",
    "web_search",
    "web/search",
    "list-files",
    "class",
    "None",
    "async",
    "print",
    "sum",
    "json",
    "input",
    "output",
)
ODD_NAMES += (
    "call_tool",
    "Any",
    "Literal",
    "tools",
    "annotations",
    "Get",
    "get",
    "a" * 128,
    "mcp:x.y/z-1",
    "unï",
    "x__y",
    "str",
    "dict",
)
ODD_DOMAINS = (
    "web.search",
    "",
    "1st",
    "class",
    "Finance",
    "finance",
    "a b",
    "__init__",
    "../../etc",
    "tools",
    "ﬁnance",
    "_import",
    "get",
)
ODD_PARAMETERS = (
    "class",
    "self",
    "call_tool",
    "parameters",
    "result",
    "x-y",
    "x_y",
    "1",
    "",
    "None",
    "Any",
    "__dunder",
    "ß",
    "a b",
    "lambda",
    "list",
)


def odd_tools() -> list[ToolDefinition]:
    parameters = tuple(
        ToolParameter(name=p or " ", type=("string", "integer", "any")[n % 3], required=n % 4 == 0)
        for n, p in enumerate(ODD_PARAMETERS)
    )
    tools = [
        ToolDefinition(name=name, domain=ODD_DOMAINS[n % len(ODD_DOMAINS)], parameters=parameters, description=f"It is {name}.")
        for n, name in enumerate(ODD_NAMES)
    ]
    return tools + [evil_tool(n, words) for n, words in enumerate(EVIL)]


def only_a_function(source: str, name: str) -> None:
    """The module holds imports and one async function whose body does nothing before it is called."""
    tree = ast.parse(source)
    *imports, function = tree.body
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert {node.module for node in imports if isinstance(node, ast.ImportFrom)} == {"__future__", "typing", "toolweaver_bridge"}
    assert isinstance(function, ast.AsyncFunctionDef)
    assert function.name == name
    assert not function.decorator_list
    assert all(isinstance(d, ast.Constant) or ast.unparse(d)[0] == "-" for d in function.args.defaults)
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    assert [ast.unparse(c.func) for c in calls] == ["call_tool"]


def test_a_stub_reads_as_in_the_reference() -> None:
    modules = StubGenerator(ToolCatalog(tools=[GET_EXPENSES])).modules()
    assert modules["tools/finance/get_expenses.py"] == EXPECTED
    assert list(modules) == ["tools/__init__.py", "tools/finance/__init__.py", "tools/finance/get_expenses.py"]
    assert StubGenerator([GET_EXPENSES]).names() == {"get_expenses": "tools.finance"}


@pytest.mark.parametrize("words", EVIL, ids=range(len(EVIL)))
def test_words_of_strangers_are_only_words(words: str) -> None:
    (named,) = name_tools([evil_tool(0, words)])
    only_a_function(stub(named), "evil_0")


def test_random_words_are_only_words() -> None:
    draw = random.Random(5)
    pieces = (
        '"',
        "'",
        "\\",
        "\n",
        "\r",
        '"""',
        "'''",
        "#",
        "{",
        "}",
        " ",
        "\t",
        "\0",
        "\u2028",
        "a",
        "import os",
        "%",
        ")",
    )
    for n in range(400):
        words = "".join(draw.choices(pieces, k=draw.randint(1, 12)))
        (named,) = name_tools([evil_tool(n, words)])
        only_a_function(stub(named), f"evil_{n}")


def test_a_description_is_the_docstring_word_for_word() -> None:
    words = 'He said "no" \\n twice, """really""", and left \\'
    (named,) = name_tools([ToolDefinition(name="t", description=words)])
    function = ast.parse(stub(named)).body[-1]
    assert isinstance(function, ast.AsyncFunctionDef)
    assert ast.get_docstring(function) == words


def test_odd_schemas_make_plain_annotations() -> None:
    definitions = {
        "Node": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Node"}},
        "Wide": {"anyOf": [{"$ref": "#/$defs/Wide"}] * 8},
    }
    cases: list[tuple[Any, str]] = [
        ({"type": "string"}, "str"),
        ({"type": "array", "items": {"type": "object"}}, "list[dict[str, Any]]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]"),
        ({"type": ["integer", "null"]}, "int | None"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "str | None"),
        ({"enum": ["a", 1, None, True]}, 'Literal["a", 1, None, True]'),
        ({"enum": [1.5, 2.5], "type": "number"}, "float"),
        ({"const": 'it"s'}, "Literal['it\"s']"),
        ({"$ref": "#/$defs/Node"}, "dict[str, dict[str, Any]]"),
        ({"$ref": "#/$defs/Wide"}, "Any"),
        ({"$ref": "#/$defs/Missing"}, "Any"),
        ({"$ref": 7}, "Any"),
        ({"type": "x]; import os #"}, "Any"),
        ({"type": {"a": 1}}, "Any"),
        ({"enum": []}, "Any"),
        ({"enum": ["x" * 1000]}, "Any"),
        ({"items": 3, "type": "array"}, "list[Any]"),
        (True, "Any"),
        (None, "Any"),
    ]  # fmt: skip
    assert [hint(schema, definitions) for schema, _ in cases] == [expected for _, expected in cases]


def test_names_are_unique_legal_and_lead_back() -> None:
    tools = odd_tools()
    named = name_tools(tools)
    assert {t.tool.name for t in named} == {t.name for t in tools}
    assert len({t.name for t in named}) == len(named)
    assert len({(t.domain, t.stem.casefold()) for t in named}) == len(named)
    for t in named:
        for name in (t.name, t.domain, t.stem, *(p for p, _ in t.parameters)):
            assert name.isidentifier(), name
            assert not keyword.iskeyword(name)
            assert not name.startswith("__")
        assert len({p for p, _ in t.parameters}) == len(t.tool.parameters)
        assert {p.name for _, p in t.parameters} == {p.name for p in t.tool.parameters}
        required = [p.required for _, p in t.parameters]
        assert required == sorted(required, reverse=True)


def test_a_name_that_python_takes_is_kept() -> None:
    names = {
        t.tool.name: t.name for t in name_tools(ToolDefinition(name=n) for n in ("web.search", "web_search", "web/search", "now"))
    }
    assert names == {"web_search": "web_search", "web.search": "web_search_2", "web/search": "web_search_3", "now": "now"}
    assert identifier("list-files") == "list_files"
    assert identifier("class") == "class_"


def test_builtins_and_preloaded_names_stay_what_they_are() -> None:
    names = StubGenerator(
        [ToolDefinition(name=n) for n in ("sum", "print", "json", "input", "output", "call_tool", "ToolError")]
    ).names()
    assert set(names) == {"sum_", "print_", "json_", "input_", "output_", "call_tool_", "ToolError_"}


def test_the_order_of_the_catalog_changes_nothing() -> None:
    tools = odd_tools()
    once = StubGenerator(tools)
    random.Random(3).shuffle(tools)
    again = StubGenerator(tools)
    assert list(once.modules().items()) == list(again.modules().items())
    assert once.names() == again.names()


def test_what_programs_may_not_call_has_no_stub() -> None:
    tools = [
        GET_EXPENSES,
        ToolDefinition(name="private", allowed_callers=("direct",)),
        ToolDefinition(name="run_code", type="code_exec"),
    ]
    catalog = ToolCatalog(tools=tools)
    assert StubGenerator(catalog).names() == {"get_expenses": "tools.finance"}
    assert list(callable_by_programs(catalog)) == ["get_expenses"]
    assert callable_by_programs(catalog, ["get_expenses"]) == {"get_expenses": GET_EXPENSES}
    with pytest.raises(PermissionDenied, match="may not be called by programs"):
        callable_by_programs(catalog, ["private"])
    with pytest.raises(PermissionDenied, match="cannot start another"):
        callable_by_programs(catalog, ["run_code"])
    with pytest.raises(NotFound, match="no tool `nothing`"):
        callable_by_programs(catalog, ["nothing"])


def test_no_tools_give_an_empty_package() -> None:
    assert StubGenerator([]).names() == {}
    namespace: dict[str, Any] = {}
    exec(StubGenerator([]).modules()["tools/__init__.py"], namespace)
    assert namespace["__all__"] == []


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The stubs of the odd catalog, importable, with a bridge that writes down its calls."""
    calls: list[dict[str, Any]] = []
    bridge = ModuleType("toolweaver_bridge")

    async def call_tool(**given: Any) -> Any:
        calls.append(given)
        return given["tool_name"]

    vars(bridge)["call_tool"] = call_tool
    monkeypatch.syspath_prepend(str(StubGenerator([GET_EXPENSES, *odd_tools()]).write(tmp_path)))
    monkeypatch.setitem(sys.modules, "toolweaver_bridge", bridge)
    yield calls
    for name in [n for n in sys.modules if n.split(".")[0] == "tools"]:
        del sys.modules[name]


def call(named: NamedTool, *args: Any, **given: Any) -> Any:
    return asyncio.run(getattr(importlib.import_module(named.module), named.name)(*args, **given))


def test_every_stub_can_be_imported_and_calls_its_own_tool(called: list[dict[str, Any]]) -> None:
    for named in name_tools([GET_EXPENSES, *odd_tools()]):
        required = [name for name, p in named.parameters if p.required]
        assert call(named, *required) == named.tool.name
        expected = {p.name: name for name, p in named.parameters if p.required}
        assert called[-1] == {"server": named.tool.domain, "tool_name": named.tool.name, "parameters": expected}
        call(named, **{name: 7 for name, _ in named.parameters})
        assert called[-1]["parameters"] == {p.name: 7 for p in named.tool.parameters}


def test_the_functions_are_found_wherever_a_program_looks(called: list[dict[str, Any]]) -> None:
    space: dict[str, Any] = {}
    exec(
        "import tools.finance.get_expenses\n"  # first, so that the module could hide the function of its name
        "from tools.finance import get_expenses as a\n"
        "from tools.finance.get_expenses import get_expenses as b\n"
        "from tools import get_expenses as c, finance\n"
        "import tools\n"
        "from tools.finance import *\n"
        "same = a is b is c is tools.finance.get_expenses is finance.get_expenses is get_expenses\n",
        space,
    )
    assert space["same"]
    assert asyncio.iscoroutinefunction(space["a"])
    with pytest.raises(AttributeError, match="has no tool 'nothing'"):
        _ = space["tools"].nothing
    home = next(t for t in name_tools([GET_EXPENSES, *odd_tools()]) if t.tool.name == "sum")
    assert vars(importlib.import_module(home.module))["sum"] is vars(importlib.import_module(home.module))["sum_"]


def test_defaults_that_were_not_changed_are_left_out(called: list[dict[str, Any]]) -> None:
    (named,) = name_tools([GET_EXPENSES])
    call(named, "u1")
    call(named, "u1", "Q2", ["a"])
    assert [c["parameters"] for c in called] == [{"user_id": "u1"}, {"user_id": "u1", "quarter": "Q2", "tags": ["a"]}]


def test_writing_removes_what_is_gone_and_nothing_else(tmp_path: Path) -> None:
    other = ToolDefinition(name="other", domain="misc")
    base = StubGenerator([GET_EXPENSES, other]).write(tmp_path / "stubs")
    own = base / "tools" / "misc" / "notes.py"
    own.write_text("# mine\n")
    StubGenerator([GET_EXPENSES]).write(base)
    assert (base / "tools/finance/get_expenses.py").read_text().startswith(HEADER)
    assert not (base / "tools/misc/other.py").exists()
    assert own.exists()


def test_the_stubs_satisfy_a_type_checker_and_tell_it_of_mistakes(tmp_path: Path) -> None:
    typed = ToolDefinition(name="count", domain="finance", output_schema={"type": "integer"})
    base = StubGenerator([GET_EXPENSES, typed, *odd_tools()]).write(tmp_path / "stubs")
    (base / "good.py").write_text(
        "from tools import finance\nfrom tools.finance import count, get_expenses\n"
        "async def f() -> int:\n    await get_expenses('u', quarter='Q2', tags=['a'])\n\n"
        "    await finance.get_expenses(user_id='u')\n"
        "    return await count()\n"
    )
    (base / "bad.py").write_text(
        "from tools.finance import get_expence\nfrom tools.finance import get_expenses\n"
        "async def f() -> None:\n    await get_expenses(1)\n    await get_expenses('u', quarter='Q9')\n    await get_expenses()\n"
    )
    said, problems, _ = mypy.run(
        ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", str(base)]
    )
    assert not problems
    lines = [line for line in said.splitlines() if ": error:" in line]
    assert [line.split("stubs/")[-1].split(": error")[0] for line in lines] == ["bad.py:1", "bad.py:4", "bad.py:5", "bad.py:6"], (
        said
    )


def served(server: str, native: str, **given: Any) -> ToolDefinition:
    return ToolDefinition(name=f"{server}.{native}", server=server, native_name=native, domain=server, **given)


def test_a_servers_tool_is_also_found_by_its_name_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [served("filesystem", n) for n in ("read_file", "list-files", "class", "a.b", "a_b", "sum")]
    tools += [served("git", "read_file"), ToolDefinition(name="filesystem_read_file_", domain="filesystem")]
    aliases = {t.tool.name: (t.name, t.alias) for t in name_tools(tools)}
    assert aliases == {
        "filesystem.read_file": ("filesystem_read_file", "read_file"),
        "filesystem.list-files": ("filesystem_list_files", "list_files"),
        "filesystem.class": ("filesystem_class", "class_"),
        "filesystem.a.b": ("filesystem_a_b", None),  # two would be a_b
        "filesystem.a_b": ("filesystem_a_b_2", None),
        "filesystem.sum": ("filesystem_sum", "sum"),
        "git.read_file": ("git_read_file", "read_file"),
        "filesystem_read_file_": ("filesystem_read_file_", None),
    }
    called: list[str] = []
    bridge = ModuleType("toolweaver_bridge")

    async def call_tool(**given: Any) -> None:
        called.append(given["tool_name"])

    vars(bridge)["call_tool"] = call_tool
    monkeypatch.syspath_prepend(str(StubGenerator(tools).write(tmp_path)))
    monkeypatch.setitem(sys.modules, "toolweaver_bridge", bridge)
    space: dict[str, Any] = {}
    exec(
        "import tools\nfrom tools.filesystem import read_file, filesystem_read_file as long, list_files\n"
        "from tools.git import read_file as other\nfrom tools import git\n"
        "same = read_file is long is tools.filesystem.read_file and git.read_file is other is tools.git_read_file\n",
        space,
    )
    asyncio.run(space["read_file"]())
    asyncio.run(space["other"]())
    for name in [n for n in sys.modules if n.split(".")[0] == "tools"]:
        del sys.modules[name]
    assert space["same"]
    assert called == ["filesystem.read_file", "git.read_file"]


def test_an_alias_never_hides_another_tool_of_its_domain() -> None:
    tools = [served("fs", "fs_other"), ToolDefinition(name="fs_other", domain="fs"), served("fs", "fs.other")]
    named = {t.tool.name: t for t in name_tools(tools)}
    assert named["fs_other"].name == "fs_other"
    assert all(t.alias != "fs_other" for t in named.values())


def test_of_a_large_catalog_those_that_a_program_means_keep_their_names() -> None:
    tools = [served("fs", f"tool_{n}") for n in range(100)] + [ToolDefinition(name="web.search"), ToolDefinition(name="web_search")]
    whole = StubGenerator(tools)
    assert whole.mentioned("from tools.fs import tool_7").names() == {"fs_tool_7": "tools.fs"}
    assert whole.mentioned("import tools\nawait tools.fs_tool_8()").names() == {"fs_tool_8": "tools.fs"}
    assert whole.mentioned("await web_search_2()").names() == {"web_search_2": "tools.general"}
    assert whole.mentioned("1 + 1").names() == {}
    assert len(whole.names()) == 102


def test_the_stubs_of_527_real_tools_import_and_satisfy_a_type_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = StubGenerator(livemcp())
    base = generator.write(tmp_path / "stubs")
    assert len(generator.names()) == 527
    (base / "program.py").write_text(
        "from tools.filesystem import read_file\nfrom tools import git\n"
        "async def f() -> None:\n    await read_file('a')\n    await git.git_status(repo_path='.')\n"
    )
    said, problems, code = mypy.run(["--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", str(base)])
    assert (code, problems) == (0, ""), said[:2000]
    bridge = ModuleType("toolweaver_bridge")
    vars(bridge)["call_tool"] = asyncio.sleep
    monkeypatch.syspath_prepend(str(base))
    monkeypatch.setitem(sys.modules, "toolweaver_bridge", bridge)
    for named in generator.tools:
        found = vars(importlib.import_module(named.module))
        assert asyncio.iscoroutinefunction(found[named.name])
        assert named.alias is None or found[named.alias] is found[named.name]
    for name in [n for n in sys.modules if n.split(".")[0] == "tools"]:
        del sys.modules[name]
    assert sum(t.alias is not None for t in generator.tools) > 500
