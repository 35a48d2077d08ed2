"""The references that are written from the code are current, and the one of the API names every address."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from orchestrator.api.app import create_app
from orchestrator.settings import load_settings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.mark.parametrize("page", PAGES)
def test_a_written_page_is_current(page: str) -> None:
    assert (DOCS / "reference" / page).read_text(encoding="utf-8") == PAGES[page](), "run `python docs/generate.py`"


def test_every_setting_says_what_it_sets() -> None:
    rows = [line for line in PAGES["settings.md"]().splitlines() if line.startswith("| `")]
    assert rows
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_page_of_the_api_names_every_address() -> None:
    api = create_app(load_settings(_env_file=None)).openapi()
    served = {(method.upper(), path.replace("{job_id}", "{id}")) for path, methods in api["paths"].items() for method in methods}
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    told = {(m[1], m[2]) for m in re.finditer(r"^\| `(GET|POST|PUT|DELETE) ([^`]+)` \|", text, re.MULTILINE)}
    assert told == served
