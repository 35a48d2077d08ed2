"""A worker with a newer tool than the plan was made with: the call runs as long as its input fits."""

from __future__ import annotations

import logging

import pytest

from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.models.job import JobStatus
from workers.testing import Engine, running_engine


def greet_in_english(name: str) -> str:
    """Greets."""
    return f"hello {name}"


def greet(name: str, greeting: str = "good day") -> str:
    """Greets, in any language."""
    return f"{greeting} {name}"


def greet_formally(name: str, title: str) -> str:
    """Greets by title."""
    return f"good day {title} {name}"


def upgraded(engine: Engine, newer: object) -> str:
    """A job of two calls, planned with the tool as it was, delivered to a worker that has another."""
    register_function("greet", effect="none", registry=engine.registry)(greet_in_english)
    step = {"id": "g", "tool": "greet", "map": "input:names", "input": {"name": "item"}, "retry": {"max": 0}}
    job = engine.submit([step], inputs={"names": ["Ada", "Bob"]})
    tools = ToolRegistry()
    register_function("greet", effect="none", registry=tools)(newer)  # type: ignore[type-var]
    engine.registry._tools.clear()
    engine.registry.add(tools.get("greet"))  # type: ignore[arg-type]
    engine.drain()
    return job


def test_a_newer_tool_that_takes_the_input_runs_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with running_engine(ToolRegistry()) as engine, caplog.at_level(logging.WARNING):
        job = upgraded(engine, greet)
        assert engine.store.result(job).steps["g"] == ["good day Ada", "good day Bob"]
    assert [r.getMessage() for r in caplog.records if "is not the one that was planned" in r.getMessage()] == [
        "tool `greet` is not the one that was planned; it runs if its input fits"
    ]


def test_a_newer_tool_that_does_not_take_the_input_fails() -> None:
    with running_engine(ToolRegistry()) as engine:
        view = engine.store.view(upgraded(engine, greet_formally))
    assert view.status is JobStatus.FAILED
    assert view.error is not None
    assert view.error.code == "bad_input"
