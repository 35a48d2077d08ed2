"""What the documents and examples show is run: every block of shell and Python, every plan, every example file.

A block that cannot run says why in its fence: `sh norun (reason)`. `sh exit=2` ends so; `text output` is what it printed;
`python docker` is skipped where programs cannot run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.manifest import bundled_catalog
from orchestrator.client import Client
from orchestrator.errors import PlanError
from orchestrator.planner.check import check_plan

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), EXAMPLES / "README.md"]
LANGUAGES = {"sh", "python", "json", "text", "mermaid"}
_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    place: str
    language: str
    info: str
    text: str
    output: str | None = None

    @property
    def runs(self) -> bool:
        return not self.info.startswith("norun")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found = []
    for fence, following in zip(fences, [*fences[1:], None], strict=False):
        place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, fence.start()) + 1}"
        printed = following[3] if following and following[2].strip() == "output" else None
        found.append(Block(place, fence[1], fence[2].strip(), fence[3], printed))
    return found


BLOCKS = [b for page in sorted(PAGES) for b in blocks(page)]
SCRIPTS = {p.name: p.read_text() for p in sorted(EXAMPLES.glob("*.py"))}
RUN = ("run_demo.py", "run_planner_demo.py", "own_function.py", "client_sync.py", "client_async.py")
TOOLS = ("async_tool.py", "file_tool.py", "my_tool.py", "pool_tool.py")
SERVERS = EXAMPLES / "mcp" / "servers.json"
PLANS = sorted(
    p for p in EXAMPLES.rglob("*.json") if p.parent.name not in ("expenses", "planner") and p != SERVERS
)  # test_expenses.py runs the first, docs/planning.md the second
REFUSED = EXAMPLES / "example_plan.json"


def of(*languages: str, runs: bool = True) -> list[Any]:
    return [pytest.param(b, id=b.place) for b in BLOCKS if b.language in languages and b.runs is runs]


def need(block: Block, shell: dict[str, str]) -> None:
    if block.info == "docker" and "TEST_NO_SANDBOX" in shell:
        pytest.skip(shell["TEST_NO_SANDBOX"])


def run(command: list[str], shell: dict[str, str], *, code: int = 0) -> str:
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_block_has_a_language_and_a_reason_if_it_does_not_run() -> None:
    assert {b.place for b in BLOCKS if b.language not in LANGUAGES} == set()
    assert [b.place for b in BLOCKS if not b.runs and not re.fullmatch(r"norun \(.+\)", b.info)] == []


@pytest.mark.parametrize("block", of("sh"))
def test_shell(block: Block, shell: dict[str, str]) -> None:
    need(block, shell)
    if "curl" in block.text and not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    printed = run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        shell,
        code=int(block.info.removeprefix("docker").removeprefix("exit=") or 0),
    )
    if block.output is not None:
        assert printed.strip() == block.output.strip()


@pytest.mark.parametrize("block", of("sh", runs=False))
def test_shell_that_is_not_run_is_at_least_shell(block: Block) -> None:
    subprocess.run(["bash", "-n", "-c", block.text], check=True)


@pytest.mark.parametrize("block", of("python"))
def test_python(block: Block, shell: dict[str, str], tmp_path: Path) -> None:
    need(block, shell)
    script = tmp_path / "block.py"
    script.write_text(block.text)
    run([sys.executable, str(script)], shell)


@pytest.mark.parametrize("block", of("json"))
def test_json(block: Block) -> None:
    value = json.loads(block.text)
    if "steps" in value:
        inputs = {"images": ["bundled:cafe"]} if "inputs" not in value else {}
        assert check_plan(value, bundled_catalog(), inputs=inputs).plan.steps


def test_the_tools_in_the_documents_are_those_of_the_examples() -> None:
    shown = [b for b in BLOCKS if b.language == "python" and re.search(r"^@|^def test_", b.text, re.MULTILINE)]
    assert len(shown) >= 4
    strays = [b.place for b in shown if not any(_code(b.text) in text for text in SCRIPTS.values())]
    assert strays == []


def _code(block: str) -> str:
    return re.sub(r"\A(# .*\n)?", "", block)


def test_every_example_is_run_somewhere() -> None:
    assert set(SCRIPTS) == {*RUN, *TOOLS, "test_my_tools.py", "run_code.py"}  # tests/sandbox runs the last
    assert any("examples/test_my_tools.py" in b.text for b in BLOCKS if b.language == "sh" and b.runs)


@pytest.mark.parametrize("name", RUN)
def test_an_example_runs(name: str, shell: dict[str, str]) -> None:
    printed = run([sys.executable, f"examples/{name}"], shell)
    expected = {
        "run_demo.py": "discount_then_tax.json: With tax: 128.52, 16.6, 64.26",
        "run_planner_demo.py": "food: 11.37 USD",
        "own_function.py": "{'say': {'result': 'ababab'}}",
        "client_sync.py": "Did you mean `compute_tax`?",
        "client_async.py": "HARVEST LANE MARKET 37.32 USD",
    }
    assert expected[name] in printed


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.name)
def test_an_example_plan(path: Path, shell: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLWEAVER_HOME", shell["TOOLWEAVER_HOME"])
    if path.parent.name == "mcp":
        run(["toolweaver", "mcp", "add", "time", "--", "python", "-m", "mcp_server_time"], shell)
    with Client() as client:
        if path == REFUSED:
            with pytest.raises(PlanError, match="the whole result"):
                client.submit(path)
            return
        details = client.submit(path).wait(timeout=60)
    assert details.status == "succeeded"
    assert details.has_errors is (path.name == "split_bills.json")


def test_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
