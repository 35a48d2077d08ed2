"""`toolweaver metrics`: the report as data on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cli.output import BAD_REQUEST, DONE
from orchestrator.errors import MissingScope
from orchestrator.models.report import MetricsReport, ToolFigures
from tests.unit.fake_platform import FakePlatform, fake_platform

REPORT = MetricsReport(
    shared=True, tool_calls=3, unique_tools=1, tools=(ToolFigures(name="ocr", calls=3, p50_ms=45.2),), cost_usd=0.25
)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakePlatform]:
    with fake_platform() as made:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TOOLWEAVER_URL", made.url)
        monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path))
        made.answers["GET /v1/metrics/report"] = REPORT.model_dump(mode="json")
        yield made


def test_it_prints_the_report(fake: FakePlatform) -> None:
    ended = CliRunner().invoke(app, ["metrics"])
    assert ended.exit_code == DONE
    assert "TOOL USAGE MONITORING REPORT" in ended.stdout
    assert "ocr                               3 calls  (p50: 45ms, errors: 0.0%)" in ended.stdout
    assert "Cost:                $0.250000" in ended.stdout
    assert ended.stderr == ""


def test_as_json(fake: FakePlatform) -> None:
    ended = CliRunner().invoke(app, ["metrics", "--json"])
    assert MetricsReport.model_validate(json.loads(ended.stdout)) == REPORT


def test_without_the_scope_it_says_so(fake: FakePlatform) -> None:
    fake.answers["GET /v1/metrics/report"] = MissingScope("The key has not the scope `admin`.", next="Use a key that has it.")
    ended = CliRunner().invoke(app, ["metrics"])
    assert ended.exit_code == BAD_REQUEST
    assert "scope `admin`" in ended.stderr
    assert ended.stdout == ""
