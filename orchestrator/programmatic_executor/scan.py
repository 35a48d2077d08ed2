"""One walk over a program: its scopes and what is bound in them, and the uses that the check judges afterwards.

The walk keeps its own stack, so that no nesting that the parser lets through can exhaust Python's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

Chained = ast.Attribute | ast.Subscript | ast.Call
_HONEST = frozenset({
    "open", "StringIO", "BytesIO", "localcontext", "timeout", "timeout_at", "TaskGroup", "nullcontext", "closing", "Path",
    "Lock", "RLock", "Semaphore", "ThreadPoolExecutor", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile",
    "redirect_stdout", "redirect_stderr",
})  # fmt: skip
"""Context managers that swallow no exception; any other may."""

OWN = "own"


@dataclass(slots=True, eq=False)
class Scope:
    """Names bound in one scope, each with its origins: `OWN`, or the dotted path of what was imported."""

    kind: str  # module, function, class, comprehension
    parent: Scope | None = None
    bound: dict[str, set[str]] = field(default_factory=dict)

    def bind(self, name: str, origin: str = OWN) -> None:
        self.bound.setdefault(name, set()).add(origin)

    def find(self, name: str) -> set[str] | None:
        """Where the name may come from; None when no scope around binds it. Generous: names of classes are seen from inside."""
        found: set[str] = set()
        for scope in self.chain():
            found |= scope.bound.get(name, set())
            if found and scope.kind != "class":
                break
        return found or None

    @property
    def in_function(self) -> bool:
        return any(scope.kind == "function" for scope in self.chain())

    def chain(self) -> Iterator[Scope]:
        """This scope and those around it, outwards."""
        scope: Scope | None = self
        while scope:
            yield scope
            scope = scope.parent


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands: its scope, the exceptions that the program catches around it (`*`: all), whether it never runs."""

    scope: Scope
    caught: frozenset[str] = frozenset()
    dead: bool = False
    dropped: bool = False  # an expression that is a statement of its own


@dataclass(frozen=True, slots=True)
class Chain:
    """`root.step[step](step)`: an access from its root outwards."""

    root: ast.expr
    steps: tuple[Chained, ...]
    place: Place

    @property
    def words(self) -> list[str]:
        """The steps as text: the attribute's name, `[]` or `()`."""
        return [s.attr if isinstance(s, ast.Attribute) else "()" if isinstance(s, ast.Call) else "[]" for s in self.steps]


@dataclass(slots=True)
class Facts:
    """What the walk found."""

    module: Scope
    names: list[tuple[ast.Name, Place]] = field(default_factory=list)  # those read
    chains: list[Chain] = field(default_factory=list)
    imports: list[tuple[ast.Import | ast.ImportFrom, Place]] = field(default_factory=list)
    loops: list[tuple[ast.expr, Place]] = field(default_factory=list)  # what `for` goes over
    caught: set[str] = field(default_factory=set)  # by any handler of the program
    starred: bool = False  # `from x import *` of something whose names we do not know


def scan(tree: ast.Module) -> Facts:
    """The facts of a parsed program."""
    module = Scope("module")
    walk = _Walk(Facts(module))
    walk.run(tree.body, Place(module))
    return walk.facts


class _Walk:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.todo: list[tuple[ast.AST, Place]] = []

    def run(self, body: list[ast.stmt], place: Place) -> None:
        self.push(body, place)
        while self.todo:
            node, place = self.todo.pop()
            visit = getattr(self, f"on_{type(node).__name__}", None)
            if visit is None:
                self.push(ast.iter_child_nodes(node), place)
            else:
                visit(node, place)

    def push(self, nodes: Iterable[ast.AST | None], place: Place) -> None:
        self.todo.extend((n, place) for n in nodes if n is not None)

    # names

    def on_Name(self, node: ast.Name, place: Place) -> None:
        if isinstance(node.ctx, ast.Load):
            self.facts.names.append((node, place))
        else:
            place.scope.bind(node.id)

    def on_NamedExpr(self, node: ast.NamedExpr, place: Place) -> None:
        scope: Scope | None = place.scope
        while scope:  # bound outside of comprehensions; binding it in every scope on the way is generous
            scope.bind(node.target.id)
            scope = scope.parent if scope.kind == "comprehension" else None
        self.push([node.value], place)

    def on_Global(self, node: ast.Global, place: Place) -> None:
        for name in node.names:
            self.facts.module.bind(name)
            place.scope.bind(name)

    def on_Nonlocal(self, node: ast.Nonlocal, place: Place) -> None:
        for name in node.names:
            place.scope.bind(name)

    def on_Import(self, node: ast.Import, place: Place) -> None:
        for alias in node.names:
            whole = alias.asname or "." not in alias.name
            place.scope.bind(alias.asname or alias.name.split(".")[0], alias.name if whole else alias.name.split(".")[0])
        self.facts.imports.append((node, place))

    def on_ImportFrom(self, node: ast.ImportFrom, place: Place) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.facts.starred |= (node.module or "").split(".")[0] != "tools"
            else:
                place.scope.bind(alias.asname or alias.name, f"{node.module or ''}.{alias.name}")
        self.facts.imports.append((node, place))

    # patterns and handlers

    def on_ExceptHandler(self, node: ast.ExceptHandler, place: Place) -> None:
        self._bind(node.name, place)
        self.push([node.type, *node.body], place)

    def on_MatchAs(self, node: ast.MatchAs, place: Place) -> None:
        self._bind(node.name, place)
        self.push([node.pattern], place)

    def on_MatchStar(self, node: ast.MatchStar, place: Place) -> None:
        self._bind(node.name, place)

    def on_MatchMapping(self, node: ast.MatchMapping, place: Place) -> None:
        self._bind(node.rest, place)
        self.push([*node.keys, *node.patterns], place)

    def _bind(self, name: str | None, place: Place) -> None:
        if name:
            place.scope.bind(name)

    # scopes

    def on_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef, place: Place) -> None:
        place.scope.bind(node.name)
        self.push(node.decorator_list, place)
        self._function(node.args, node.body, place, types=getattr(node, "type_params", []))

    on_AsyncFunctionDef = on_FunctionDef

    def on_Lambda(self, node: ast.Lambda, place: Place) -> None:
        self._function(node.args, [node.body], place)

    def _function(self, args: ast.arguments, body: Iterable[ast.AST], place: Place, types: Iterable[ast.AST] = ()) -> None:
        inner = Scope("function", place.scope)
        for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
            if arg:  # annotations are not judged: Python may never evaluate them
                inner.bind(arg.arg)
        self.push([*args.defaults, *args.kw_defaults], place)
        self._type_params(types, inner)
        self.push(body, Place(inner, place.caught, place.dead))

    def on_ClassDef(self, node: ast.ClassDef, place: Place) -> None:
        place.scope.bind(node.name)
        inner = Scope("class", place.scope)
        types = getattr(node, "type_params", [])
        self._type_params(types, inner)
        outer = replace(place, scope=inner) if types else place
        self.push(node.decorator_list, place)
        self.push([*node.bases, *node.keywords], outer)
        self.push(node.body, replace(place, scope=inner))

    def _type_params(self, types: Iterable[ast.AST], scope: Scope) -> None:
        for node in types:
            scope.bind(getattr(node, "name", OWN))  # bounds and defaults are evaluated lazily, if at all

    def on_TypeAlias(self, node: ast.AST, place: Place) -> None:
        name = getattr(node, "name", None)
        if isinstance(name, ast.Name):
            place.scope.bind(name.id)  # its value is evaluated lazily

    def on_AnnAssign(self, node: ast.AnnAssign, place: Place) -> None:
        self.push([node.target, node.value], place)

    def _comprehension(self, node: ast.AST, place: Place) -> None:
        generators: list[ast.comprehension] = getattr(node, "generators", [])
        inner = replace(place, scope=Scope("comprehension", place.scope))
        self.push([getattr(node, part, None) for part in ("elt", "key", "value")], inner)
        for n, loop in enumerate(generators):
            around = inner if n else place
            self.push([loop.target, *loop.ifs], inner)
            self.push([loop.iter], around)
            if not loop.is_async:
                self.facts.loops.append((loop.iter, around))

    on_ListComp = on_SetComp = on_DictComp = on_GeneratorExp = _comprehension

    # statements

    def on_For(self, node: ast.For, place: Place) -> None:
        self.facts.loops.append((node.iter, place))
        self.push(ast.iter_child_nodes(node), place)

    def on_Expr(self, node: ast.Expr, place: Place) -> None:
        self.push([node.value], replace(place, dropped=True) if isinstance(node.value, ast.Call) else place)

    def on_If(self, node: ast.If, place: Place) -> None:
        test = node.test
        typing_only = (test.id if isinstance(test, ast.Name) else getattr(test, "attr", "")) == "TYPE_CHECKING"
        chosen = replace(place, caught=place.caught | {"*"}) if _asks_platform(test) else place
        self.push([test, *node.orelse], chosen)
        self.push(node.body, replace(place, dead=True) if typing_only else chosen)

    def on_Try(self, node: ast.Try, place: Place) -> None:
        caught = frozenset(name for handler in node.handlers for name in _caught(handler.type))
        self.facts.caught |= caught
        self.push(node.body, replace(place, caught=place.caught | caught))
        self.push([*node.handlers, *node.orelse, *node.finalbody], place)

    on_TryStar = on_Try

    def on_With(self, node: ast.With | ast.AsyncWith, place: Place) -> None:
        caught = frozenset(name for item in node.items for name in _suppressed(item.context_expr))
        self.facts.caught |= caught
        self.push(node.items, place)
        self.push(node.body, replace(place, caught=place.caught | caught))

    on_AsyncWith = on_With

    # chains

    def on_Attribute(self, node: Chained, place: Place) -> None:
        steps: list[Chained] = []
        root: ast.expr = node
        while isinstance(root, Chained):
            steps.append(root)
            root = root.func if isinstance(root, ast.Call) else root.value
        steps.reverse()
        self.facts.chains.append(Chain(root, tuple(steps), place))
        around = place
        if place.dropped or _collects(steps):
            around = replace(place, dropped=False, caught=place.caught | {"*"} if _collects(steps) else place.caught)
        self.push([root, *_inside(steps)], around)
        if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load) and isinstance(root, ast.Name):
            around.scope.bind(f"{root.id}.", OWN)  # something of it is assigned

    on_Subscript = on_Call = on_Attribute


def _asks_platform(test: ast.expr) -> bool:
    """`if sys.version_info >= (3, 12)`: a branch for another Python may use names that this one has not."""
    asked = test.left if isinstance(test, ast.Compare) else test
    asked = asked.value if isinstance(asked, ast.Subscript) else asked
    return isinstance(asked, ast.Attribute) and asked.attr in ("version_info", "platform", "name")


def _collects(steps: Iterable[Chained]) -> bool:
    """`gather(..., return_exceptions=True)` hands exceptions on as values."""
    return any(k.arg == "return_exceptions" for step in steps if isinstance(step, ast.Call) for k in step.keywords)


def _inside(steps: Iterable[Chained]) -> Iterator[ast.AST]:
    """The expressions within the steps: indexes and arguments."""
    for step in steps:
        if isinstance(step, ast.Subscript):
            yield step.slice
        elif isinstance(step, ast.Call):
            yield from step.args
            yield from step.keywords


def _caught(kind: ast.expr | None) -> Iterator[str]:
    """The names of the exceptions that a handler catches; `*` for all of them, and for what cannot be told."""
    if kind is None:
        yield "*"
    for part in kind.elts if isinstance(kind, ast.Tuple) else [kind] if kind else []:
        yield part.id if isinstance(part, ast.Name) and part.id not in ("Exception", "BaseException") else "*"


def _suppressed(context: ast.expr) -> Iterator[str]:
    """What a `with` may swallow: nothing where its manager is known to be honest, the named ones of `suppress`, else anything."""
    func = context.func if isinstance(context, ast.Call) else context
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if isinstance(context, ast.Call) and name == "suppress":
        for arg in context.args:
            yield from _caught(arg)
    elif name not in _HONEST:
        yield "*"
