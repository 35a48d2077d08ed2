"""What discovery reads from a function: its docstring in the common styles, its types' own docs, and its examples."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Doc, TypedDict, deprecated

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.define import read_signature
from orchestrator.catalog.docstring import read_doc
from orchestrator.catalog.files import File
from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.models.tool import ToolDefinition, ToolExample


def google(user: str, quarter: str = "Q3") -> dict[str, float]:
    """The expenses of a person.

    Only those that were approved.

    Args:
        user (str): Whose they are; the
            name as it stands in the directory:

            - given name
            - family name
        quarter (str, optional): Which quarter. Defaults to "Q3".

    Returns:
        The sums by kind.

    Raises:
        LookupError: there is no such person.

    Examples:
        >>> google("ada")
        {'travel': 3.5}
    """
    return {user: 3.5, quarter: 0.0}


def numpy(user: str, quarter: str = "Q3") -> dict[str, float]:
    """The expenses of a person.

    Only those that were approved.

    Parameters
    ----------
    user : str
        Whose they are; the
        name as it stands in the directory:

        - given name
        - family name
    quarter : {'Q1', 'Q2', 'Q3'}, optional
        Which quarter. Defaults to "Q3".

    Returns
    -------
    dict
        The sums by kind.

    Raises
    ------
    LookupError
        there is no such person.

    Examples
    --------
    >>> numpy("ada")
    {'travel': 3.5}
    """
    return {user: 3.5, quarter: 0.0}


def sphinx(user: str, quarter: str = "Q3") -> dict[str, float]:
    """The expenses of a person.

    Only those that were approved.

    :param str user: Whose they are; the
        name as it stands in the directory:

        - given name
        - family name
    :param quarter: Which quarter. Defaults to "Q3".
    :type quarter: str, optional
    :returns: The sums by kind.
    :raises LookupError: there is no such person.
    """
    return {user: 3.5, quarter: 0.0}


def epydoc(user: str, quarter: str = "Q3") -> dict[str, float]:
    """The expenses of a person.

    Only those that were approved.

    @param user: Whose they are; the
        name as it stands in the directory:

        - given name
        - family name
    @type user: str
    @param quarter: Which quarter. Defaults to "Q3".
    @return: The sums by kind.
    @raise LookupError: there is no such person.
    """
    return {user: 3.5, quarter: 0.0}


def tool_of(function: Callable[..., Any], **options: Any) -> ToolDefinition:
    """The definition that registering a function makes."""
    registry = ToolRegistry()
    register_function(registry=registry, **options)(function)
    (made,) = registry.definitions()
    Draft202012Validator.check_schema(made.input_schema)
    return made


@pytest.mark.parametrize("function", [google, numpy, sphinx, epydoc])
def test_the_styles_say_the_same(function: Callable[..., Any]) -> None:
    tool = tool_of(function)
    assert tool.description == "The expenses of a person.\n\nOnly those that were approved."
    user, quarter = tool.parameters
    assert user.description == "Whose they are; the\nname as it stands in the directory:\n\n- given name\n- family name"
    assert (user.required, user.default) == (True, None)
    assert (quarter.description, quarter.default) == ('Which quarter. Defaults to "Q3".', "Q3")
    assert tool.output_schema == {"type": "object", "additionalProperties": {"type": "number"}, "description": "The sums by kind."}


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        (None, ""),
        ("", ""),
        ("One line.", "One line."),
        ("Note: no section.\n\nA colon: here.", "Note: no section.\n\nA colon: here."),
        (":", ":"),
        (":param", ":param"),
        ("Sums.\n\n>>> f(\n", "Sums.\n\n>>> f("),
        ("Ünïcode.\n\n\ttabs: too", "Ünïcode.\n\ntabs: too"),
    ],
)
def test_what_follows_no_style_is_prose(text: str | None, prose: str) -> None:
    doc = read_doc(text)
    assert (doc.description, dict(doc.parameters)) == (prose, {})


def test_parameters_that_one_line_describes_each_get_it() -> None:
    doc = read_doc("Adds.\n\nParameters\n----------\na, b : int\n    A number.\n*rest\n    More.\n")
    assert doc.parameters == {"a": "A number.", "b": "A number.", "rest": "More."}


class Color(Enum):
    """A color of the palette."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Person:
    """Somebody.

    Attributes:
        name: Full name,
            as on the passport.
        age (int): In years.
    """

    name: str
    age: int = 30


class Place(TypedDict):
    """Somewhere.

    Parameters
    ----------
    city : str
        Its name.
    """

    city: str


class Order(BaseModel):
    """What was ordered.

    :param amount: How many.
    :ivar note: The docstring's own word.
    """

    amount: int
    note: str = Field(default="", description="The field's own word.")
    color: Color = Color.RED


class Said(BaseModel):
    """Fields with docstrings of their own."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    x: int
    """Where."""


def every_kind(  # type: ignore[no-untyped-def]
    person: Person,
    place: Place,
    orders: list[Order],
    said: Said,
    size: Literal["s", "m"],
    count: Annotated[int, Field(ge=1, description="How many.")],
    depth: Annotated[int, "how deep"] = 1,
    width: Annotated[int, Doc("how wide")] = 2,
    color: Color = Color.BLUE,
    when: datetime.date = datetime.date(2024, 1, 2),
    either: int | list[str] = 3,
    maybe: str | None = None,
    anything=None,
) -> Order:
    """Takes all kinds.

    Args:
        color: The paint.

    Returns:
        What came of it.
    """
    raise NotImplementedError


def test_types_say_what_they_are_and_what_their_docstrings_say() -> None:
    tool = tool_of(every_kind)
    by = {p.name: p for p in tool.parameters}
    definitions = tool.definitions or {}
    assert definitions["Person"]["description"] == "Somebody."
    assert definitions["Person"]["properties"]["name"] == {"type": "string", "description": "Full name,\nas on the passport."}
    assert definitions["Person"]["properties"]["age"] == {"type": "integer", "default": 30, "description": "In years."}
    assert definitions["Place"]["properties"]["city"]["description"] == "Its name."
    assert definitions["Order"]["properties"]["amount"]["description"] == "How many."
    assert definitions["Order"]["properties"]["note"]["description"] == "The field's own word."
    assert definitions["Said"]["properties"]["x"]["description"] == "Where."
    assert definitions["Color"]["enum"] == ["red", "blue"]  # orders refer to it
    assert (by["size"].type, by["size"].enum, by["size"].required) == ("string", ("s", "m"), True)
    assert by["count"].to_schema() == {"type": "integer", "minimum": 1, "description": "How many."}
    assert (by["depth"].description, by["width"].description) == ("how deep", "how wide")
    assert by["color"].to_schema() == {"type": "string", "enum": ["red", "blue"], "default": "blue", "description": "The paint."}
    assert by["when"].to_schema() == {"type": "string", "format": "date", "default": "2024-01-02"}
    assert by["either"].to_schema()["anyOf"] == [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]
    assert by["maybe"].to_schema() == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert (by["anything"].type, by["anything"].required) == ("any", False)
    assert (tool.output_schema or {})["description"] == "What was ordered."  # its type's own word stands


def test_an_enum_that_only_one_parameter_takes_needs_no_definition() -> None:
    def paint(color: Color) -> None:
        """Paints."""

    tool = tool_of(paint)
    assert tool.definitions is None
    assert tool.parameters[0].to_schema() == {"type": "string", "enum": ["red", "blue"], "description": "A color of the palette."}
    assert read_signature(paint).arguments.model_validate({"color": "red"}).arg_color is Color.RED  # type: ignore[attr-defined]


def test_the_docstring_wins_over_the_annotation() -> None:
    def f(a: Annotated[int, Field(description="annotated")], b: Annotated[int, Field(description="annotated")]) -> None:
        """F.

        Args:
            a: documented
        """

    assert [p.description for p in tool_of(f).parameters] == ["documented", "annotated"]


def test_a_field_as_a_default_is_refused_with_what_to_write() -> None:
    def f(a: int = Field(3, description="x")) -> None: ...

    with pytest.raises(TypeError, match=r"write `a: Annotated\[<type>, Field\(\.\.\.\)\] = <default>`"):
        tool_of(f)


async def search(query: str, context: ToolContext, limit: int = 10, tags: list[str] | None = None) -> list[str]:
    """Searches.

    Examples:
        The shortest one:

        >>> await search("cats")
        ['cat.txt']

        >>> search(query="dogs", limit=2, tags=["a", "b"])
        >>> search("too", limit="many")
        []
        >>> search(query)
        []
        >>> search("x", **options)
        >>> search("no such parameter", depth=3)
        []
        >>> search("wrong result")
        {'a': 1}
        >>> search("an object")
        [<File 3>]
        >>> search("cut short")
        ['a', ...]
        >>> search("fails")
        Traceback (most recent call last):
        LookupError: nothing
        >>> other("cats")
        []
        >>> len(search("cats"))
        1
        >>> n = search("cats")
        >>> search(("a", "tuple"))
        []
    """
    raise NotImplementedError


def test_doctests_that_leave_no_doubt_are_examples() -> None:
    assert tool_of(search).examples == (
        ToolExample(scenario="The shortest one", input={"query": "cats"}, output=["cat.txt"]),
        ToolExample(scenario="From its documentation", input={"query": "dogs", "limit": 2, "tags": ["a", "b"]}),
    )


@pytest.mark.parametrize("function", [google, numpy])
def test_examples_come_from_a_section_of_any_style(function: Callable[..., Any]) -> None:
    assert tool_of(function).examples == (
        ToolExample(scenario="From its documentation", input={"user": "ada"}, output={"travel": 3.5}),
    )


def test_sphinx_style_has_no_section_and_its_doctests_count_too() -> None:
    def f(a: int) -> int:
        """Doubles.

        :param a: A number.

        .. rubric:: Examples

        >>> f(a=2)
        4
        """
        return 2 * a

    assert [(e.input, e.output) for e in tool_of(f).examples] == [({"a": 2}, 4)]


def test_a_tool_has_so_many_examples_at_most() -> None:
    def f(a: int) -> None: ...

    f.__doc__ = "Counts.\n\nExamples:\n" + "".join(f"    >>> f({n})\n" for n in range(9))
    assert [e.input["a"] for e in tool_of(f).examples] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "text", ["F.\n\n>>>f(1)", "F.\n\n  >>> f(1)\n 1", "F.\n\n>>> f(" + "-" * 5000 + "1)\n1", "F.\n\n>>> f(\0)\n"]
)
def test_broken_doctests_break_nothing(text: str) -> None:
    def f(a: int) -> int: ...  # type: ignore[empty-body]

    f.__doc__ = text
    assert tool_of(f).examples == ()


def test_given_examples_win_over_the_docstrings() -> None:
    given = ToolExample(scenario="mine", input={"user": "b"})
    assert tool_of(google, examples=[given]).examples == (given,)
    assert [e.input for e in tool_of(google, input_examples=[{"user": "c"}]).examples] == [{"user": "c"}]


def test_an_input_example_that_the_tool_does_not_take_is_refused() -> None:
    def f(rows: list[int]) -> None: ...

    with pytest.raises(TypeError, match=r"`input_examples\[1\]\.rows\[0\]`: Input should be a valid integer"):
        tool_of(f, input_examples=[{"rows": [1]}, {"rows": ["x"]}])


def test_an_input_example_may_name_a_file() -> None:
    def f(picture: File) -> None: ...

    reference = "blob:sha256:" + "0" * 64
    assert tool_of(f, input_examples=[{"picture": reference}]).examples[0].input == {"picture": reference}


def test_what_else_can_be_said_at_registration() -> None:
    tool = tool_of(
        google,
        defer_loading=True,
        strict=True,
        tags=["money"],
        aliases=["expenses"],
        deprecated="Use `costs`.",
        tenants=["acme"],
        timeout_s=5.0,
    )
    assert (tool.defer_loading, tool.strict, tool.tags, tool.aliases) == (True, True, ("money",), ("expenses",))
    assert (tool.deprecated, tool.tenants, tool.timeout_s) == ("Use `costs`.", ("acme",), 5.0)
    assert tool_of(google, tenants=[]).tenants == ()
    plain = tool_of(google)
    assert (plain.defer_loading, plain.strict, plain.tags, plain.aliases) == (False, False, (), ())
    assert (plain.deprecated, plain.tenants) == (None, None)


def test_deprecation_is_read_from_the_decorator_and_the_docstring() -> None:
    @deprecated("Use `new`.")
    def old(a: int) -> int:
        """Old."""
        return a

    def older(a: int) -> int:
        """Older.

        .. deprecated:: 1.2
            Use `new`.

        Parameters
        ----------
        a
            A number.
        """
        return a

    assert (tool_of(old).deprecated, tool_of(older).deprecated) == ("Use `new`.", "Use `new`.")
    assert tool_of(old, deprecated="Use `newest`.").deprecated == "Use `newest`."


def test_the_references_sample_is_registered_as_it_stands() -> None:
    registry = ToolRegistry()

    @register_function("my_function", registry=registry)
    def my_function(arg1: str, arg2: int) -> dict:  # type: ignore[type-arg]
        """Your custom logic here."""
        return {"result": arg1 * arg2}

    (tool,) = registry.definitions()
    assert [(p.name, p.type, p.required) for p in tool.parameters] == [("arg1", "string", True), ("arg2", "integer", True)]
    assert tool.description == "Your custom logic here."
