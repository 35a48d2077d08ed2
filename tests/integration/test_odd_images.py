"""Every odd input becomes a text or a failure that says what is wrong and what to do: one test a row of the table."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")

from orchestrator.errors import ToolError
from tests.odd_images import ODD, Odd, told, tried
from workers.ocr.tools import warm_up

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_an_odd_input(odd: Odd, tmp_path: Path) -> None:
    if odd.needs and importlib.util.find_spec(odd.needs) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"`{odd.needs}` is not installed")
        pytest.skip(f"`{odd.needs}` is not installed")
    result = tried(odd, tmp_path)
    if odd.code is None:
        assert not isinstance(result, ToolError), told(result)
        assert odd.holds in result.text
        assert odd.notes in " ".join(result.notes)
        assert bool(result.lines) == bool(odd.holds)
    else:
        assert isinstance(result, ToolError), told(result)
        assert (result.code, result.retryable, result.path) == (odd.code, False, "image_url")
        assert odd.holds in result.message + (result.next or "")
        assert result.next


def test_two_papers_are_read_one_after_the_other(tmp_path: Path) -> None:
    result = tried(next(o for o in ODD if o.name.startswith("two receipts")), tmp_path)
    assert not isinstance(result, ToolError)
    assert result.text.index("MASTERCARD") < result.text.index("HARVEST LANE MARKET"), (
        "the left paper's last line is before the other's"
    )
    assert max(line.box[2] for line in result.lines) <= result.width


@pytest.mark.parametrize("name", ["100 megapixels, PNG", "TIFF that claims 1.6 gigapixels", "PDF with a picture of 3.6 gigapixels"])
def test_what_claims_to_be_huge_takes_no_memory(name: str, tmp_path: Path) -> None:
    warm_up()
    before = psutil.Process().memory_info().rss
    tried(next(o for o in ODD if o.name == name), tmp_path)
    assert psutil.Process().memory_info().rss - before < 150 << 20
