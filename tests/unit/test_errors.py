"""Every error arrives at the client as the class that the server raised."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from orchestrator import errors
from orchestrator.errors import (
    BackendError,
    PlanError,
    PolicyError,
    RequestError,
    ToolError,
    ToolTimeout,
    ToolWeaverError,
    from_problem,
    to_problem,
)


def tree(cls: type[ToolWeaverError] = ToolWeaverError) -> Iterator[type[ToolWeaverError]]:
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below)


CLASSES = list(tree())


def test_the_tree_was_found() -> None:
    assert {"NotFound", "Conflict", "LimitExceeded", "ToolTimeout", "JobCancelled", "CallCancelled"} <= {
        c.__name__ for c in CLASSES
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_crosses_the_wire(cls: type[ToolWeaverError]) -> None:
    sent = cls("It broke.", path="steps[1].input", next="Mend it.", problems=[{"path": "x", "code": "y", "message": "z"}])
    problem = json.loads(json.dumps(to_problem(sent)))
    arrived = from_problem(problem)
    assert type(arrived) is cls
    assert to_problem(arrived) == problem
    assert str(arrived) == str(sent)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_docstring_is_the_message_when_none_is_given(cls: type[ToolWeaverError]) -> None:
    assert cls().message == (cls.__doc__ or "").splitlines()[0]
    assert type(from_problem(to_problem(cls()))) is cls


def test_codes_are_distinct() -> None:
    assert len({c.code for c in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("cls", [ToolError, ToolTimeout])
def test_whether_a_tool_error_may_be_retried_crosses_too(cls: type[ToolError], retryable: bool) -> None:
    assert from_problem(to_problem(cls("no", retryable=retryable))).retryable is retryable


def test_a_tool_may_name_its_own_failure() -> None:
    arrived = from_problem(to_problem(ToolError("no text", code="no_text", retryable=True)))
    assert type(arrived) is ToolError
    assert arrived.retryable


@pytest.mark.parametrize("cls", [RequestError, PlanError, ToolError, PolicyError, BackendError])
def test_a_code_of_a_later_version_arrives_as_its_family(cls: type[ToolWeaverError]) -> None:
    arrived = from_problem({"code": "from_the_future", "family": cls.family, "detail": "new", "status": 499})
    assert type(arrived) is cls
    assert arrived.message == "new"


@pytest.mark.parametrize("problem", [{}, {"code": None, "family": None}, {"title": "Bad Gateway", "status": 502}])
def test_a_foreign_problem_is_still_an_error(problem: dict[str, object]) -> None:
    arrived = from_problem(problem)
    assert type(arrived) is ToolWeaverError
    assert arrived.message == (problem.get("title") or "Something went wrong in ToolWeaver.")


def test_what_passes_by_itself_is_retryable() -> None:
    assert {c.__name__ for c in CLASSES if c().retryable} == {"BackendError", "CircuitBreakerOpenError", "RateLimited", "StoreFull"}


def test_an_error_reads_as_place_message_and_move() -> None:
    assert str(RequestError("No.", path="limit", next="Give a number.")) == "limit: No. Give a number."
    many = PlanError("Two.", problems=[{"path": "a", "message": "A.", "next": "B."}, {"message": "C."}])
    assert str(many).splitlines() == ["Two.", "  a: A. B.", "  $: C."]


def test_a_class_without_a_code_of_its_own_arrives_as_its_parent() -> None:
    class Narrower(errors.ModelError):
        """Only this process tells it apart."""

    assert type(from_problem(to_problem(Narrower("gone")))) is errors.ModelError
