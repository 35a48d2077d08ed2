"""What programs may not use, and the next move for each. A courtesy with clear words; the container is the wall.

Whatever a harmless program may do is let through: own names that look dangerous, `re.compile`, `getattr` on own objects.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterator

from orchestrator.programmatic_executor.scan import Chain, Facts, Place

Report = Callable[[ast.AST, str, str, str], None]  # node, code, message, next move

HOME = "/tmp"
_DEVICES = frozenset({"/dev/null", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/zero", "/dev/urandom"})

_SYSTEM = "Programs cannot touch the system. For paths use `pathlib.PurePosixPath`, for files `open` in the working folder."
_PROCESS = "Programs start no processes; call a tool instead."
_IMPORT = "Write the `import` itself."
_NATIVE = "Programs run no native code of their own."
_NETWORK = "Programs have no network; call a tool that fetches instead."
_PICKLE = "Use `json` to store and load values."
_GLOB = 'Use `pathlib.Path(".").glob(...)` in the working folder.'

MODULES: dict[str, str] = {
    **dict.fromkeys(("os", "posix", "nt", "pty"), _SYSTEM),
    **dict.fromkeys(("subprocess", "_posixsubprocess"), _PROCESS),
    **dict.fromkeys(("importlib", "runpy", "imp", "_imp", "zipimport"), _IMPORT),
    **dict.fromkeys(("ctypes", "_ctypes", "cffi"), _NATIVE),
    **dict.fromkeys(("socket", "_socket", "socketserver", "requests", "http", "httpx", "aiohttp", "urllib3"), _NETWORK),
    **dict.fromkeys(("ftplib", "smtplib", "poplib", "imaplib", "telnetlib", "nntplib", "xmlrpc", "websockets"), _NETWORK),
    "urllib": f"{_NETWORK} `urllib.parse` may be imported.",
    **dict.fromkeys(("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"), _PICKLE),
    "glob": _GLOB,
}
"""Modules that programs may not import, by root, and what to do instead."""

_HARMLESS_PARTS = ("urllib.parse", "http.HTTPStatus", "http.HTTPMethod")
_HOPS = frozenset(MODULES) - {"http", "requests", "glob", "nt"} | {"builtins"}  # reached through another module, as `logging.os`
_FUNCTIONS = {
    "__import__": _IMPORT,
    "eval": "Use `json.loads` or `ast.literal_eval` for data, or write the expression itself.",
    "exec": "Write the code itself.",
    "compile": "Write the code itself; `re.compile` is fine.",
}
_PATHS = {
    **{f"builtins.{name}": move for name, move in _FUNCTIONS.items()},
    **dict.fromkeys(("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"), _PROCESS),
    **dict.fromkeys(("asyncio.open_connection", "asyncio.start_server", "asyncio.open_unix_connection"), _NETWORK),
}
_INNARDS = frozenset({"__globals__", "__builtins__", "__locals__", "__loader__", "func_globals", "f_globals", "f_builtins"})
_SECRET_KEYS = frozenset({"__globals__", "__builtins__", "__subclasses__", "__import__", "__loader__"})
_BY_NAME = frozenset({"getattr", "setattr", "delattr", "get", "pop", "attrgetter", "methodcaller"})
_BY_NAME_TOO = frozenset({"__getattribute__", "__getattr__", "__getitem__"})
_PARENTS = frozenset({"__base__", "__bases__", "__mro__", "mro"})
_TITLES = frozenset({"__name__", "__qualname__", "__doc__", "__module__"})
_FORMAT_WALK = re.compile(r"\{[^{}]*\.__(?:globals|builtins|subclasses|bases|base|mro)__")
_FILE_VERBS = frozenset({
    "open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "rename", "replace", "touch", "mkdir", "rmdir",
    "iterdir", "glob", "rglob", "chmod", "walk", "symlink_to", "hardlink_to",
})  # fmt: skip
_INSIDE = "Programs have the working folder only: use a name such as `out.csv`."
_OWN_WAY = "Use the names of your own program."


def find_dangers(facts: Facts, report: Report) -> None:
    """Reports what the program uses and may not."""
    for node, place in facts.imports:
        if not place.dead:
            _judge_import(node, report)
    for name, place in facts.names:
        _judge_name(name, place, report)
    for chain in facts.chains:
        _judge_chain(chain, report)


def dotted(chain: Chain, plain: Callable[[str], str | None] = lambda _: None) -> list[str]:
    """The import paths of the root and of each attribute directly after it; empty where the root is the program's own."""
    root = chain.root
    if not isinstance(root, ast.Name) or chain.place.scope.find(f"{root.id}."):
        return []
    origins = chain.place.scope.find(root.id)
    first = next(iter(origins)) if origins and len(origins) == 1 else None if origins else plain(root.id)
    if not first or first == "own":
        return []
    paths = [first]
    for step in chain.steps:
        if not isinstance(step, ast.Attribute) or len(paths) > 6:
            break
        paths.append(f"{paths[-1]}.{step.attr}")
    return paths


def _judge_import(node: ast.Import | ast.ImportFrom, report: Report) -> None:
    for path in _imported(node):
        root = path.split(".")[0]
        hop = next((part for part in path.split(".")[1:] if part in _HOPS), None)
        if path.startswith(_HARMLESS_PARTS):
            continue
        if root in MODULES:
            name = ".".join(path.split(".")[:2]) if root in ("urllib", "http") else root
            report(node, "dangerous_import", f"Dangerous import detected: {name}", MODULES[root])
        elif root != "tools" and hop:
            report(node, "dangerous_import", f"Dangerous import detected: {hop}", MODULES.get(hop, _OWN_WAY))
        elif path in _PATHS:
            report(node, "dangerous_import", f"Dangerous import detected: {path}", _PATHS[path])


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _judge_name(node: ast.Name, place: Place, report: Report) -> None:
    if place.dead or place.scope.find(node.id):
        return
    if node.id in _FUNCTIONS:
        report(node, "dangerous_call", f"Dangerous call detected: {node.id}", _FUNCTIONS[node.id])
    elif node.id in _INNARDS:
        report(node, "dangerous_name", f"Dangerous name detected: {node.id}", _OWN_WAY)


def _judge_chain(chain: Chain, report: Report) -> None:
    if chain.place.dead:
        return
    _judge_path(chain, report)
    _judge_walk(chain, report)
    _judge_strings(chain, report)
    _judge_file(chain, report)


def _judge_path(chain: Chain, report: Report) -> None:
    """A module reached through another, or a function of one that starts processes."""
    if got := _got_by_name(chain):
        _judge_reached(got, chain.steps[0], report)
    paths = dotted(chain, _module_named)
    if not paths or paths[0].split(".")[0] in {*MODULES, "tools"}:
        return  # the import was reported
    for path, step in zip(paths[1:], chain.steps, strict=False):
        _judge_reached(path, step, report)
    if paths[-1] == "sys.modules" and len(chain.steps) > 1 and _key(chain.steps[1]) in _HOPS:
        name = _key(chain.steps[1]) or ""
        report(chain.steps[1], "dangerous_import", f"Dangerous import detected: {name}", MODULES.get(name, _OWN_WAY))


def _judge_reached(path: str, node: ast.AST, report: Report) -> None:
    name = path.rpartition(".")[2]
    if name in _HOPS and path.count(".") == 1:
        report(node, "dangerous_import", f"Dangerous import detected: {name}", MODULES.get(name, _OWN_WAY))
    elif path in _PATHS:
        report(node, "dangerous_call", f"Dangerous call detected: {path}", _PATHS[path])


def _got_by_name(chain: Chain) -> str | None:
    """`getattr(module, "name")` as a path."""
    call = chain.steps[0]
    if not (_is_builtin(chain, "getattr") and isinstance(call, ast.Call) and len(call.args) > 1):
        return None
    inner = dotted(Chain(call.args[0], (), chain.place), _module_named)
    name = constant_text(call.args[1])
    return f"{inner[0]}.{name}" if inner and name else None


def _judge_walk(chain: Chain, report: Report) -> None:
    """From an object through its class to everything that there is."""
    words = chain.words
    foreign = _is_foreign(chain.root, chain.place)
    for n, (word, step) in enumerate(zip(words, chain.steps, strict=True)):
        if word in _INNARDS or (word == "__subclasses__" and _is_walk(chain, words[:n], foreign)):
            report(step, "dangerous_attribute", f"Dangerous attribute detected: {word}", _OWN_WAY)
            return
        if word in _PARENTS and "__class__" in words[:n] and (foreign or _goes_on(chain, words[n + 1 :])):
            report(step, "dangerous_attribute", f"Dangerous attribute detected: __class__.{word}", _OWN_WAY)
            return


def _is_walk(chain: Chain, before: list[str], foreign: bool) -> bool:
    return foreign or bool(_PARENTS & set(before)) or ("__class__" in before and not _is_self(chain))


def _goes_on(chain: Chain, after: list[str]) -> bool:
    further = [w for w in after if w not in ("[]", "()")]
    return bool(further) and further[0] not in _TITLES and not _is_self(chain)


def _is_self(chain: Chain) -> bool:
    return isinstance(chain.root, ast.Name) and chain.root.id in ("self", "cls")


def _is_foreign(node: ast.expr, place: Place) -> bool:
    """Whether it is certainly none of the program's own objects: a literal, a builtin, something imported."""
    if isinstance(node, ast.Name):
        origins = place.scope.find(node.id)
        return not origins or "own" not in origins
    return isinstance(node, ast.Constant | ast.Tuple | ast.List | ast.Dict | ast.Set | ast.JoinedStr)


def _judge_strings(chain: Chain, report: Report) -> None:
    """The same walks, spelled in strings."""
    if text := constant_text(chain.root):
        formats = isinstance(chain.steps[0], ast.Attribute) and chain.steps[0].attr in ("format", "format_map")
        if formats and _FORMAT_WALK.search(text):
            report(chain.steps[0], "dangerous_attribute", "Dangerous attribute detected in a format string", _OWN_WAY)
    words = chain.words
    for n, step in enumerate(chain.steps):
        name = words[n - 1] if n else chain.root.id if isinstance(chain.root, ast.Name) else ""
        if (key := _key(step)) in _SECRET_KEYS:
            report(step, "dangerous_attribute", f"Dangerous attribute detected: {key}", _OWN_WAY)
        elif isinstance(step, ast.Call) and name in _BY_NAME | _BY_NAME_TOO:
            _judge_by_name(step, chain, report)


def _judge_by_name(call: ast.Call, chain: Chain, report: Report) -> None:
    key = next((text for a in call.args if (text := constant_text(a)) and text.split(".")[-1] in _SECRET_KEYS), None)
    if key:
        report(call, "dangerous_attribute", f"Dangerous attribute detected: {key}", _OWN_WAY)
        return
    built_in = any(_is_builtin(chain, name) for name in ("getattr", "setattr", "delattr"))
    computed = len(call.args) > 1 and constant_text(call.args[1]) is None and _starts_dunder(call.args[1])
    if built_in and computed and _is_foreign(call.args[0], chain.place):
        report(call, "dangerous_attribute", "Dangerous attribute detected: a computed dunder name", "Write the attribute itself.")


def _starts_dunder(node: ast.expr) -> bool:
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    while isinstance(first, ast.BinOp):
        first = first.left
    return (constant_text(first) or "").startswith("__")


def _judge_file(chain: Chain, report: Report) -> None:
    at = _file_call(chain)
    call = chain.steps[at] if at is not None else None
    if not isinstance(call, ast.Call):
        return
    given = call.args[:1] or [k.value for k in call.keywords if k.arg == "file"]
    path = constant_text(given[0]) if given else None
    if path is not None and not _is_inside(path):
        report(call, "dangerous_file", f"Dangerous file access detected: {path[:200]}", _INSIDE)


def _file_call(chain: Chain) -> int | None:
    """Which step calls `open(...)`, or makes the `Path(...)` that a file is then opened by."""
    if _is_builtin(chain, "open"):
        return 0
    paths = dotted(chain)
    if paths and paths[-1] == "io.open" and len(chain.steps) >= len(paths):
        return len(paths) - 1
    made = [p in ("pathlib.Path", "pathlib.PosixPath") for p in paths]
    if any(made) and _FILE_VERBS & set(chain.words):
        return made.index(True)
    return None


def _is_inside(path: str) -> bool:
    real = posixpath.normpath(posixpath.join(HOME, path))
    return real == HOME or real.startswith(f"{HOME}/") or real in _DEVICES


def _is_builtin(chain: Chain, name: str) -> bool:
    return isinstance(chain.root, ast.Name) and chain.root.id == name and not chain.place.scope.find(name)


def _key(step: ast.AST) -> str | None:
    return constant_text(step.slice) if isinstance(step, ast.Subscript) else None


def _module_named(name: str) -> str | None:
    return name if name in ("asyncio", "json", "math", "re", "datetime") else None


def constant_text(node: ast.AST | None, depth: int = 0) -> str | None:
    """The text of a string, also of one put together from constants; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and depth < 20:
        left, right = constant_text(node.left, depth + 1), constant_text(node.right, depth + 1)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.JoinedStr):
        parts = [constant_text(v) for v in node.values]
        return None if None in parts else "".join(p for p in parts if p)
    return None
