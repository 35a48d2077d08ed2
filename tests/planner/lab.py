"""Tools whose schemas say much: nullable, enum, unions, nested lists, definitions, free keys, bounds, `oneOf`; and bundled ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

import workers.function.tools
import workers.small_model.tools  # noqa: F401
from orchestrator.catalog.register import ToolRegistry, register_function, registry
from orchestrator.models.tool import ToolCatalog

TENANT = "default"
BUNDLED = (
    "apply_discount",
    "compute_item_statistics",
    "compute_tax",
    "line_item_parser",
    "merge_items",
    "merge_receipt",
    "summarise_receipts",
)
LAB = ToolRegistry()
for _name in BUNDLED:
    _tool = registry.get(_name)
    assert _tool is not None
    LAB.add(_tool)


class Geo(BaseModel):
    lat: float = Field(ge=-90, le=90)
    lon: float = Field(ge=-180, le=180)


class Address(BaseModel):
    street: str
    zip: str = Field(pattern=r"^\d{5}$")
    geo: Geo | None


class Person(BaseModel):
    name: str
    team: Literal["sales", "ops", "it"]
    email: str | None
    tags: list[str]
    address: Address
    level: int = Field(ge=1, le=9)


class Grade(BaseModel):
    letter: Literal["A", "B", "C", "F"]
    passed: bool
    score: float


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Square(BaseModel):
    kind: Literal["square"]
    side: float = Field(gt=0)


Shape = Annotated[Circle | Square, Field(discriminator="kind")]


class Drawn(BaseModel):
    shape: Shape
    label: str


class Area(BaseModel):
    value: float
    kind: Literal["circle", "square"]


class Matrix(BaseModel):
    cells: list[list[float]]
    rows: int
    columns: int


class Price(BaseModel):
    amount: float
    currency: Literal["EUR", "USD", "GBP"]


class Node(BaseModel):
    name: str
    children: list[Node]


class Read(BaseModel):
    text: str
    number: int | None
    parts: list[str]


class Noted(BaseModel):
    id: str
    stored: bool


@register_function(effect="none", registry=LAB, aliases=("who_is",))
def find_person(name: str, team: Literal["sales", "ops", "it"] = "it") -> Person:
    """Looks a person up."""
    geo = Geo(lat=len(name), lon=1) if team == "ops" else None
    email = f"{name}@example.org"
    level = 1 + len(name) % 9
    return Person(
        name=name, team=team, email=email, tags=[team, "person"], address=Address(street=name, zip="12345", geo=geo), level=level
    )


@register_function(effect="none", registry=LAB, aliases=("mark",))
def grade(score: Annotated[float, Field(ge=0, le=100)], scale: Literal["strict", "mild"] = "mild") -> Grade:
    """Grades a score."""
    line = 60 if scale == "strict" else 50
    return Grade(letter="A" if score >= 80 else "B" if score >= line else "F", passed=score >= line, score=score)


@register_function(effect="none", registry=LAB)
def draw(kind: Literal["circle", "square"], size: Annotated[float, Field(gt=0, le=1000)]) -> Drawn:
    """Draws a shape."""
    shape = Circle(kind="circle", radius=size) if kind == "circle" else Square(kind="square", side=size)
    return Drawn(shape=shape, label=f"{kind} of {size}")


@register_function(effect="none", registry=LAB, aliases=("surface",))
def area(shape: Shape) -> Area:
    """The area of a shape."""
    return Area(value=3 * shape.radius**2 if isinstance(shape, Circle) else shape.side**2, kind=shape.kind)


@register_function(effect="none", registry=LAB)
def matrix(rows: Annotated[int, Field(ge=2, le=6)], columns: Annotated[int, Field(ge=2, le=6)]) -> Matrix:
    """A matrix of growing numbers."""
    return Matrix(cells=[[float(r * columns + c) for c in range(columns)] for r in range(rows)], rows=rows, columns=columns)


@register_function(effect="none", registry=LAB)
def sum_matrix(cells: list[list[float]]) -> float:
    """The sum of all cells."""
    return sum(map(sum, cells))


@register_function(effect="none", registry=LAB, aliases=("add_up", "total_of"))
def sum_list(numbers: Annotated[list[float], Field(max_length=25)]) -> float:
    """The sum of some numbers."""
    return sum(numbers)


@register_function(effect="none", registry=LAB)
def rates(base: Literal["EUR", "USD", "GBP"] = "EUR") -> dict[str, float]:
    """What other currencies cost."""
    return {"EUR": 1.0, "USD": 1.1, "GBP": 0.9, "base": float(len(base))}


@register_function(effect="none", registry=LAB)
def convert(amount: float, table: dict[str, float], to: Literal["EUR", "USD", "GBP"]) -> Price:
    """Converts an amount."""
    return Price(amount=amount * table[to], currency=to)


@register_function(effect="none", registry=LAB)
def tree(depth: Annotated[int, Field(ge=1, le=3)], name: str = "root") -> Node:
    """A tree of that depth."""
    return Node(name=name, children=[tree(depth - 1, name + "l"), tree(depth - 1, name + "r")] if depth > 1 else [])


@register_function(effect="none", registry=LAB)
def tree_names(node: Node) -> list[str]:
    """All names in a tree."""
    return [node.name, *(n for child in node.children for n in tree_names(child))]


@register_function(effect="none", registry=LAB)
def read_value(value: int | str, parts: Annotated[int, Field(ge=1, le=5)] = 2) -> Read:
    """Reads text or a number."""
    text = str(value)
    return Read(text=text, number=value if isinstance(value, int) else None, parts=[text] * parts)


@register_function(effect="none", registry=LAB, aliases=("concat",))
def join_texts(
    texts: Annotated[list[str], Field(min_length=1, max_length=20)], separator: Annotated[str, Field(max_length=3)] = " "
) -> str:
    """One text of several."""
    return separator.join(texts)


@register_function(effect="none", registry=LAB)
def split_text(
    text: Annotated[str, Field(min_length=1, max_length=200)], at: Annotated[str, Field(min_length=1)] = ","
) -> list[str]:
    """The parts of a text."""
    return text.split(at)


@register_function(effect="none", registry=LAB, aliases=("how_many",))
def count(items: list[Any], note: str | None = None) -> int:
    """How many there are."""
    return len(items) + (note is not None and False)


@register_function(effect="once", registry=LAB)
def note(text: str, level: Literal["info", "warn"] | None = None) -> Noted:
    """Keeps a note."""
    return Noted(id=f"{level}-{len(text)}", stored=True)


@register_function(effect="once", requires=("filesystem:write",), registry=LAB)
def write_file(path: str, text: str) -> str:
    """Writes a file."""
    return path + text


@register_function(effect="once", requires=("shell:run",), registry=LAB)
def run_shell(text: str) -> str:
    """Runs a command."""
    return text


@register_function(effect="none", allowed_callers=("code_execution",), registry=LAB)
def from_programs(text: str) -> str:
    """For programs only."""
    return text


@register_function(effect="none", tenants=("acme",), registry=LAB)
def acme_only(text: str) -> str:
    """For one tenant only."""
    return text


def catalog() -> ToolCatalog:
    """The tools as the tenant of the tests sees them."""
    return ToolCatalog(tools=LAB.definitions()).seen_by(TENANT)


def facts() -> dict[str, dict[str, Any]]:
    """The same as plain data, for those who know nothing of the product: schemas of input and output, other names, needs."""
    return {
        t.name: {
            "input": t.input_schema, "output": t.output_schema, "aliases": list(t.aliases), "requires": list(t.requires),
            "callers": list(t.allowed_callers), "tenants": t.tenants, "effect": t.effect,
        }
        for t in LAB.definitions()
    }  # fmt: skip
