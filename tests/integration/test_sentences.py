"""A sentence and pictures become an answer: by each vendor's model, by a template offline; from the shell, the client, HTTP.

One platform of real processes serves all tests; its planner is started anew with the settings of each.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.client import Client
from orchestrator.client.handle import PLANNED
from orchestrator.models.job import JobStatus, JobView
from tests.processes import Platform, platform
from tests.support import wait_until
from tests.wire import KEY, Turn, WireServer, wire_server
from tests.wire.base import VendorName

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TOOLWEAVER = str(Path(sys.executable).parent / "toolweaver")
VENDORS: tuple[VendorName, ...] = ("openai", "openai-chat", "azure-openai", "anthropic", "gemini")
SENTENCE = "process these receipts and tell me what we spent on food"
PICTURES = ("grocery.png", "notice.png")
FOOD = "11.37"  # milk 4.29, bread 5.49, bananas 1.59: read off the picture
PLAN: dict[str, Any] = {
    "description": "Reads the receipts and says what was spent on food.",
    "on_error": "continue",
    "steps": [
        {"id": "text", "tool": "receipt_ocr", "map": "input:files", "input": {"image_uri": "item"}},
        {"id": "read", "tool": "line_item_parser", "map": "step:text", "input": {"ocr": "item"}},
        {
            "id": "kinds",
            "tool": "expense_categorizer",
            "map": "step:read",
            "when": {"ref": "item.is_receipt"},
            "input": {"items": "item.items"},
        },
        {
            "id": "whole",
            "tool": "merge_receipt",
            "map": "step:read",
            "when": {"ref": "item"},
            "on_skip": "run",
            "input": {"receipt": "item", "categories": "step:kinds"},
        },
        {"id": "food", "tool": "report_spending", "input": {"receipts": "step:whole", "category": "food"}},
    ],
    "output": "step:food",
    "final_synthesis": {"prompt_template": "By the model's plan: {{steps.food.text}}"},
}
USAGE = (3_000, 400, 2_000)


@dataclass
class Shop:
    """The platform, its folder of receipts, and the settings that its planner has now."""

    platform: Platform
    folder: Path
    planner: Mapping[str, str] | None = None
    said: str = ""  # by the last command, on stderr

    @property
    def client(self) -> Client:
        return self.platform.api

    def plan_with(self, environment: Mapping[str, str]) -> None:
        if self.planner == environment:
            return
        if "planner" in self.platform.processes:
            self.platform.kill("planner")
        self.platform.start("planner", [sys.executable, "-m", "orchestrator.tasks"], env=environment)
        self.planner = environment

    @property
    def env(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("TOOLWEAVER_")}
        return own | {"TOOLWEAVER_URL": self.client.url, "TOOLWEAVER_HOME": str(self.folder), "COLUMNS": "200"}

    def run(self, *words: str, code: int = 0) -> str:
        """What `toolweaver` prints, run in the folder of receipts without a terminal."""
        done = subprocess.run(
            [TOOLWEAVER, *words],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        self.said = done.stderr
        return done.stdout

    def answer(self, answer: str) -> tuple[int, str]:
        """The same in a terminal, where a person types an answer to `Run this plan?`; the exit code, and all that was shown."""
        ours, theirs = pty.openpty()
        command = [TOOLWEAVER, "submit", SENTENCE, *PICTURES, "--confirm", "--wait"]
        with subprocess.Popen(command, env=self.env, cwd=self.folder, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown, typed = b"", False
            while chunk := _read(ours):
                shown += chunk
                if not typed and b"Run this plan?" in shown:
                    os.write(ours, f"{answer}\n".encode())
                    typed = True
            os.close(ours)
            return process.wait(60), shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side has gone
        return b""


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with platform(lease_s=2.0, reconcile_s=0.2) as p:
        for pool in ("ocr", "small_model", "function"):
            p.start(pool, [sys.executable, "-m", "workers.boot", "--pool", pool, "--concurrency", "2"])
        p.start_api()
        folder = p.folder / "receipts"
        folder.mkdir()
        for name in PICTURES:
            shutil.copy(ROOT / "workers" / "ocr" / "data" / name, folder)
        p.wait_ready(workers=3)
        wait_until(lambda: _up(p), description="the API answers")
        yield Shop(p, folder)
        for log in p.folder.glob("*.log"):
            assert KEY not in log.read_text(errors="replace"), log.name


def _up(p: Platform) -> bool:
    try:
        return httpx.get(f"{p.api.url}/health", timeout=5).status_code in (200, 503)
    except httpx.HTTPError:
        return False


@contextmanager
def model(shop: Shop, vendor: VendorName) -> Iterator[WireServer]:
    """A model of a vendor that answers with `PLAN`, and a planner that asks it."""
    with wire_server(vendor, [Turn(value=PLAN, usage=USAGE)]) as wire:
        shop.plan_with(wire.environment())
        yield wire


@pytest.fixture
def offline(shop: Shop) -> Shop:
    shop.plan_with({"TOOLWEAVER_PLANNER_PROVIDER": ""} if "TOOLWEAVER_PLANNER_PROVIDER" in os.environ else {})
    return shop


def newest(shop: Shop) -> JobView:
    return shop.client.job(next(iter(shop.client.jobs(limit=1))).id).view()


def check_made_by_model(view: JobView, wire: WireServer) -> None:
    """One call, whose tokens are counted; the prompt names the files, and holds nothing of them."""
    assert len(wire.seen) == 1
    assert view.planned is not None
    assert (view.status, view.planned.source, view.planned.repairs) == (JobStatus.SUCCEEDED, "model", 0)
    assert view.usage is not None
    assert (view.usage.calls, view.usage.failed) == (1, 0)
    assert (view.usage.input_tokens, view.usage.output_tokens, view.usage.cached_tokens) == USAGE
    asked = json.dumps(wire.seen[0])
    assert SENTENCE in asked
    assert "file grocery.png (image/png" in asked
    assert "HARVEST LANE" not in asked


@pytest.mark.parametrize(
    "vendor", [pytest.param(v, marks=pytest.mark.long) if v in ("openai-chat", "azure-openai") else v for v in VENDORS]
)
def test_from_the_command_line_by_each_vendors_model(shop: Shop, vendor: VendorName) -> None:
    with model(shop, vendor) as wire:
        printed = shop.run("submit", SENTENCE, *PICTURES, "--wait")
        assert printed.startswith("By the model's plan: You spent ")
        assert f"{FOOD} USD on food" in printed
        check_made_by_model(newest(shop), wire)


def test_through_the_client(shop: Shop) -> None:
    with model(shop, "anthropic") as wire:
        job = shop.client.submit(SENTENCE, files=[shop.folder / name for name in PICTURES])
        details = job.wait(timeout=60)
        assert details.answer is not None
        assert FOOD in details.answer
        assert details.usage == job.view().usage
        assert [e.type for e in job.events() if e.type in ("job.accepted", PLANNED, "job.succeeded")] == [
            "job.accepted", PLANNED, "job.succeeded",
        ]  # fmt: skip
        check_made_by_model(job.view(), wire)


def test_through_plain_http(shop: Shop) -> None:
    with model(shop, "gemini") as wire, httpx.Client(base_url=shop.client.url, timeout=60) as http:
        files = []
        for name in PICTURES:
            picture, kind = (shop.folder / name).read_bytes(), {"content-type": "image/png"}
            sent = http.post("/v1/files", params={"name": name}, headers=kind, content=picture)
            files.append(sent.json()["ref"])
        made = http.post("/v1/jobs", json={"request": SENTENCE, "inputs": {"files": files}})
        assert made.status_code == 201
        place = made.headers["location"]
        assert (made.json()["request"], made.json()["mode"], made.json()["status"]) == (SENTENCE, "run", "planning")
        wait_until(lambda: http.get(place).json()["status"] == "succeeded", description="the job succeeds", timeout=60)
        assert FOOD in http.get(f"{place}/result").json()["answer"]
        assert [s["id"] for s in http.get(f"{place}/plan").json()["steps"]] == [s["id"] for s in PLAN["steps"]]
        check_made_by_model(JobView.model_validate(http.get(place).json()), wire)


def test_offline_by_template(offline: Shop) -> None:
    printed = offline.run("submit", SENTENCE, *PICTURES, "--wait")
    assert printed.startswith("You spent ")
    assert f"{FOOD} USD on food" in printed
    view = newest(offline)
    assert view.planned is not None
    assert (view.planned.source, view.planned.template, view.planned.reused) == ("template", "receipts_by_category", True)
    assert view.usage is not None
    assert view.usage.calls == 0


def test_offline_what_no_template_fits_says_what_to_do(offline: Shop) -> None:
    offline.run("submit", "translate this poem into French", "--wait", code=1)
    assert "No model is set that makes plans, and no plan template fits the request." in " ".join(offline.said.split())
    assert "Set PLANNER_PROVIDER" in offline.said


def test_confirmed_with_yes(offline: Shop) -> None:
    code, shown = offline.answer("y")
    assert code == 0
    plan, answered = shown.split("Run this plan?")
    for word in ("receipt_ocr", "report_spending", "by the template receipts_by_category"):
        assert word in plan
    assert FOOD not in plan
    assert FOOD in answered


def test_confirmed_with_no(offline: Shop) -> None:
    code, shown = offline.answer("n")
    assert code == 1
    assert "cancelled; nothing ran" in shown
    view = newest(offline)
    assert view.status is JobStatus.CANCELLED
    assert offline.platform.store.calls(view.id) == []


def test_without_a_terminal_the_plan_waits_for_the_command_that_confirms_it(offline: Shop) -> None:
    shown = offline.run("submit", SENTENCE, *PICTURES, "--confirm")
    found = re.match(r"(job_\w+) plan of 5 steps", shown)
    assert found is not None
    job = found[1]
    assert f"toolweaver confirm {job}" in offline.said
    view = offline.client.job(job).view()
    assert (view.status, view.waiting) == (JobStatus.WAITING, "waits for your confirmation")
    assert offline.platform.store.calls(job) == []
    assert FOOD in offline.run("confirm", job, "--wait")


def test_the_plan_only(offline: Shop) -> None:
    plan = json.loads(offline.run("submit", SENTENCE, *PICTURES, "--plan-only"))
    assert [s["tool"] for s in plan["steps"]] == [s["tool"] for s in PLAN["steps"]]
    view = newest(offline)
    assert view.status is JobStatus.SUCCEEDED
    assert offline.platform.store.calls(view.id) == []
    (offline.folder / "plan.json").write_text(json.dumps(plan))
    files = [offline.client.upload(offline.folder / name).ref for name in PICTURES]
    printed = offline.run("submit", "plan.json", "--inputs", json.dumps({"files": files}), "--wait")
    assert FOOD in printed
