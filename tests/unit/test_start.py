"""What a process does not load at its start: each of these cost every start and every test that starts one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from orchestrator.cli import app as cli

MODELS = ("anthropic", "openai", "google.genai", "mcp", "onnxruntime", "tokenizers", "sentence_transformers")  # of one room each
COMMAND_LINE = ("celery.bin.celery", "prompt_toolkit", "flower")  # Celery's, which loads that of its plugins: 0.35 s
HTTP = ("httpx", "pygments")  # httpx brings a command line of its own with rich and pygments: 0.16 s
FAR = ("fsspec", "docker", "requests")  # large values and containers: 0.1 s each, for those who have some
TESTING = ("doctest", "unittest.case", "pdb")  # doctest is for docstrings with examples: 0.05 s
SERVERS = ("fastapi", "starlette", "uvicorn", "prometheus_client")  # who serves HTTP
SCHEMAS = ("jsonschema", "referencing")  # who judges plans: 0.1 s
SEARCH = ("numpy", "faiss", "Stemmer")  # who searches: 0.3 s

NEVER = (*MODELS, *COMMAND_LINE, "docker", "babel", "pdb")
UNUSED = {
    "orchestrator.tasks": (*NEVER, *HTTP, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "rich"),
    "workers.boot": (*NEVER, *HTTP, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "rich"),
    "orchestrator.local.__main__": (*NEVER, *HTTP, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "rich", "celery", "kombu"),
    "orchestrator.local.guard": (*NEVER, *HTTP, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "rich", "celery", "redis"),
    "orchestrator.api.__main__": (*NEVER, *FAR, *TESTING, "numpy", "faiss"),
    "orchestrator.tool_search.service": (
        *COMMAND_LINE,
        "anthropic",
        "openai",
        "mcp",
        "onnxruntime",
        "babel",
        "fsspec",
        "fastapi",
        "celery",
    ),
    "orchestrator.cli": (*NEVER, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "celery", "redis", "httpx"),
    "orchestrator.cli.platform": (*NEVER, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "celery", "redis", "httpx"),
    "orchestrator.cli.jobs": (*NEVER, *FAR, *TESTING, *SERVERS, *SEARCH, *SCHEMAS, "celery", "redis"),
}


@pytest.mark.parametrize("entry", UNUSED)
def test_a_start_loads_only_what_it_needs(entry: str) -> None:
    words = (sys.executable, "-c", f"import sys, {entry}; print(*sys.modules)")
    loaded = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert entry in loaded
    assert not loaded & set(UNUSED[entry])


def test_each_command_is_found_in_the_module_that_the_table_names() -> None:
    for part, words in cli.PARTS.items():
        commands = typer.main.get_command(cli.make_app([part]))
        assert tuple(commands.commands) == words  # type: ignore[attr-defined]
    assert set(typer.main.get_command(cli.app).commands) == {w for words in cli.PARTS.values() for w in words}  # type: ignore[attr-defined]
