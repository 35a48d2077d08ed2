"""`plan`: checked without a platform, every problem with its place and a caret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.cli.app import app
from orchestrator.errors import PlanError
from tests.unit.fake_platform import fake_platform

Run = Callable[..., Result]
GOOD = {"steps": [{"id": "tax", "tool": "compute_tax", "input": {"amount": 100, "tax_rate": 0.08}}]}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.delenv("TOOLWEAVER_URL", raising=False)
    monkeypatch.setenv("TOOLWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return lambda *words, **more: CliRunner().invoke(app, list(words), **more)


def write(plan: object) -> str:
    Path("plan.json").write_text(json.dumps(plan, indent=2))
    return "plan.json"


def test_a_good_plan_is_good_without_a_platform(run: Run) -> None:
    ended = run("plan", "check", write(GOOD))

    assert (ended.exit_code, ended.stdout) == (0, "plan.json: a good plan of 1 step\n")
    assert "bundled tools" in ended.stderr


def test_a_plan_from_standard_input(run: Run) -> None:
    assert run("plan", "check", "-", input=json.dumps(GOOD)).exit_code == 0


def test_every_problem_has_its_line_and_a_caret(run: Run) -> None:
    bad = {
        "steps": [
            {"id": "tax", "tool": "compute_taxx", "input": {}},
            {"id": "tax", "tool": "compute_tax", "input": {"amount": "step:x"}},
        ]
    }

    ended = run("plan", "check", write(bad))

    assert ended.exit_code == 2
    assert "plan.json:5" in ended.stdout
    assert '"tool": "compute_taxx"' in ended.stdout
    assert "^" in ended.stdout
    assert "compute_tax" in ended.stdout
    assert ended.stdout.count("^") >= 3
    assert "nothing of this plan would run" in ended.stderr


def test_problems_as_json(run: Run) -> None:
    ended = run("plan", "check", write({"steps": [{"id": "a", "tool": "compute_taxx"}]}), "--json")

    assert ended.exit_code == 2
    assert json.loads(ended.stdout)["problems"][0]["path"] == "steps[0].tool"


def test_broken_json_shows_where_it_breaks(run: Run) -> None:
    Path("plan.json").write_text('{"steps": [\n  {"id": "a" "tool": "b"}\n]}')

    ended = run("plan", "check", "plan.json")

    assert ended.exit_code == 2
    assert "plan.json:2:" in ended.stdout


def test_inputs_are_checked_when_they_are_given(run: Run) -> None:
    plan = {"steps": [{"id": "tax", "tool": "compute_tax", "input": {"amount": "input:amount", "tax_rate": 0.1}}]}

    assert run("plan", "check", write(plan), "--inputs", '{"amount": 3}').exit_code == 0
    ended = run("plan", "check", write(plan), "--inputs", "{}")
    assert ended.exit_code == 2
    assert "amount" in ended.stdout


def test_a_file_that_is_not_there(run: Run) -> None:
    ended = run("plan", "check", "nowhere.json")

    assert ended.exit_code == 2
    assert "`nowhere.json` cannot be read" in ended.stderr


def test_a_file_that_is_no_text(run: Run) -> None:
    Path("plan.json").write_bytes(b"\x89PNG\xff\xfe")

    assert run("plan", "check", "plan.json").exit_code == 2


def test_bundled_plans_are_listed_and_shown(run: Run) -> None:
    assert "receipts" in run("plan", "list").stdout
    assert "receipt_ocr" in run("plan", "show", "receipts").stdout
    Path("mine.json").write_text(run("plan", "show", "receipts", "--json").stdout)
    assert run("plan", "check", "mine.json").exit_code == 0


def test_an_unknown_bundled_plan_names_the_nearest(run: Run) -> None:
    ended = run("plan", "show", "receipt")

    assert ended.exit_code == 2
    assert "`receipts`" in ended.stderr


BENT = {"steps": [{"id": "tax", "tool": "compute_txa", "input": {"amount": "100", "tax_rate": 0.08}}]}


def test_certain_fixes_are_shown_and_made(run: Run) -> None:
    ended = run("plan", "check", write(BENT))
    assert "There is no tool `compute_txa`." in ended.stdout
    assert "compute_txa" in json.loads(Path("plan.json").read_text())["steps"][0]["tool"], "a check changes nothing"

    bent = {"steps": [BENT["steps"][0] | {"tool": "comptue_tax"}]}
    assert 'Fix: put "compute_tax" at /steps/0/tool' in run("plan", "check", write(bent)).stdout
    ended = run("plan", "check", "plan.json", "--fix", "fixed.json")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert json.loads(Path("fixed.json").read_text()) == GOOD
    assert json.loads(run("plan", "check", "plan.json", "--fix", "-").stdout) == GOOD


def test_nothing_is_written_when_a_problem_has_no_certain_fix(run: Run) -> None:
    bent = {"steps": [{"id": "tax", "tool": "comptue_tax", "input": {"amount": "much", "tax_rate": 0.08}}]}

    ended = run("plan", "check", write(bent), "--fix", "fixed.json")

    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "steps[0].input.amount: `amount` of `compute_tax` is text" in ended.stderr
    assert "nothing was written" in ended.stderr
    assert not Path("fixed.json").exists()


def test_an_example_shows_the_clash_and_warnings_do_not_refuse(run: Run) -> None:
    wrong = {"steps": [GOOD["steps"][0], {"id": "b", "tool": "compute_tax", "input": {"amount": "step:tax", "tax_rate": 0.1}}]}
    assert 'For example: `step:tax` may give {"amount": 0.5,' in run("plan", "check", write(wrong)).stdout

    ended = run("plan", "check", write(GOOD | {"inputs": {"spare": 1}}))
    assert ended.exit_code == 0
    assert "No step uses input `spare`." in ended.stdout


def test_a_platform_is_asked_whether_the_caller_may_use_the_tools(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"path": "steps[0].tool", "code": "permission_denied", "message": "Permission denied: tool compute_tax not allowed."}
    with fake_platform() as fake:
        monkeypatch.setenv("TOOLWEAVER_URL", fake.url)
        fake.answers["GET /v1/tools"] = bundled_catalog().model_dump(mode="json")
        fake.answers["POST /v1/plans/check"] = PlanError(problems=[refused | {"next": "Ask an admin."}])

        ended = run("plan", "check", write(GOOD))

        assert ended.exit_code == 2
        assert "Permission denied: tool compute_tax not allowed." in ended.stdout
        assert fake.sent("POST /v1/plans/check") == [{"plan": GOOD, "inputs": None}]
