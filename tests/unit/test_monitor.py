"""`ToolUsageMonitor` and its report: what is counted, that it is right, bounded and private, and that logging never raises."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import stat
import statistics
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ToolError
from orchestrator.models.report import MetricsReport, ModelFigures, ToolFigures
from orchestrator.models.tool import ToolCatalog
from orchestrator.models.usage import ModelCall
from orchestrator.monitoring import ToolUsageMonitor, print_metrics_report
from orchestrator.monitoring import monitor as monitor_room
from orchestrator.monitoring.metrics import fine_bin, quantile
from orchestrator.monitoring.monitor import PLATFORM, code_of
from orchestrator.monitoring.report import report_text
from orchestrator.programmatic_executor import ProgrammaticToolExecutor
from orchestrator.settings import Settings
from orchestrator.state.keys import METRICS

REFERENCE = """\
================================================================================
TOOL USAGE MONITORING REPORT
================================================================================

📊 Overview:
   Total tool calls:    1,247
   Total errors:        18
   Overall error rate:  1.4%
   Unique tools used:   8
   Search queries:      523
   Cache hit rate:      82.2%

🔧 Top Tools:
   receipt_ocr                     453 calls  (p50: 45ms, errors: 0.2%)
   parse_line_items                312 calls  (p50: 12ms, errors: 1.0%)
   categorize_expenses             201 calls  (p50: 8ms, errors: 2.5%)

💰 Token Usage:
   Input tokens:        523,401
   Output tokens:       87,234
   Cached tokens:       2,104,523
   Cache savings:       80.1%

🚨 Recent Errors:
   No recent errors
"""


def printed(report: ToolUsageMonitor | MetricsReport) -> str:
    out = io.StringIO()
    print_metrics_report(report, file=out)
    return out.getvalue()


def test_the_layout_is_the_references() -> None:
    tools = (
        ToolFigures(name="receipt_ocr", calls=453, errors=1, p50_ms=45.0),
        ToolFigures(name="parse_line_items", calls=312, errors=3, p50_ms=12.0),
        ToolFigures(name="categorize_expenses", calls=201, errors=5, p50_ms=8.0),
    )
    report = MetricsReport(
        shared=False, tool_calls=1_247, tool_errors=18, unique_tools=8, tools=tools, searches=523, searches_cached=430,
        input_tokens=523_401, output_tokens=87_234, cached_tokens=2_104_523,
    )  # fmt: skip
    assert printed(report) == REFERENCE


def test_without_utf8_the_report_has_no_signs() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_metrics_report(MetricsReport(shared=False, models=(ModelFigures(provider="é", model="m"),)), file=out)
    out.seek(0)
    text = out.read()
    assert "\nOverview:\n" in text
    assert "? m" in text


def test_everything_is_counted() -> None:
    monitor = ToolUsageMonitor()
    for n in range(10):
        monitor.log_tool_call("ocr", n > 0, 0.05, "ToolError: cannot read /home/ann/secret.png" if n == 0 else None)
    monitor.log_tool_call("tax", True, 0.001)
    monitor.log_search_query("process receipt", num_results=5, latency=0.1, cache_hit=True)
    monitor.log_search_query("other", num_results=0, latency=0.1, cache_hit=False)
    monitor.log_token_usage(input_tokens=100, output_tokens=50, cached_tokens=300)
    report = monitor.report()

    assert (report.tool_calls, report.tool_errors, report.unique_tools) == (11, 1, 2)
    assert [(t.name, t.calls, t.errors) for t in report.tools] == [("ocr", 10, 1), ("tax", 1, 0)]
    assert report.tools[0].p50_ms == pytest.approx(50, rel=0.045)
    assert (report.searches, report.cache_hit_rate) == (2, 0.5)
    assert (report.input_tokens, report.output_tokens, report.cached_tokens, report.cache_savings) == (100, 50, 300, 0.75)
    assert [(e.tool, e.code) for e in report.recent_errors] == [("ocr", "ToolError")]
    assert "secret" not in printed(monitor) + report.model_dump_json()


def test_tokens_of_model_calls_are_converted() -> None:
    """`ModelCall.input_tokens` are all of the input; the reference's are without those of the cache."""
    monitor = ToolUsageMonitor()
    call = ModelCall(
        id="a", purpose="plan", provider="anthropic", model="m", input_tokens=1_000, cached_tokens=800, cache_write_tokens=50,
        output_tokens=10, cost_usd=0.5, seconds=2.0,
    )  # fmt: skip
    monitor.log_model_call(call)
    monitor.log_model_call(call.model_copy(update={"id": "b", "ok": False, "error": "model_limited", "cost_usd": None}))
    report = monitor.report()
    assert (report.input_tokens, report.cached_tokens, report.output_tokens) == (400, 1_600, 20)
    assert report.cache_savings == pytest.approx(0.8)
    assert (report.cost_usd, report.unpriced_calls) == (0.5, 1)
    (model,) = report.models
    assert (model.calls, model.failed, model.input_tokens) == (2, 1, 400)
    assert model.p50_ms == pytest.approx(2_000, rel=0.045)


def test_the_median_is_near_the_true_one() -> None:
    values = [random.Random(7).lognormvariate(-3, 1.5) for _ in range(2_001)]
    bins: dict[int, float] = {}
    for value in values:
        bins[fine_bin(value)] = bins.get(fine_bin(value), 0) + 1
    assert quantile(bins, 0.5) == pytest.approx(statistics.median(values), rel=0.045)
    assert quantile(bins, 0.95) == pytest.approx(statistics.quantiles(values, n=20)[18], rel=0.05)
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-12, 1e-6, 1.0, 2.0, 1e9])
def test_every_value_has_a_bin(value: float) -> None:
    assert -160 <= fine_bin(value) <= 136


def test_a_bound_belongs_to_its_bin() -> None:
    assert [fine_bin(2.0**n) for n in range(-10, 12)] == [8 * n for n in range(-10, 12)]


def test_memory_is_bounded() -> None:
    monitor = ToolUsageMonitor()
    for n in range(3_000):
        monitor.log_tool_call(f"tool_{n}", n % 2 == 0, n / 1000, "boom")
    report = monitor.report()
    assert len(report.tools) == 201
    assert (report.unique_tools, report.more_tools) == (200, True)
    assert report.tools[0].name == "other"
    assert report.tools[0].calls == 2_800
    assert len(report.recent_errors) == 20
    assert report.tool_calls == 3_000
    assert "200 and others" in printed(monitor)


def test_threads_lose_nothing() -> None:
    monitor = ToolUsageMonitor()

    def work() -> None:
        for _ in range(2_000):
            monitor.log_tool_call("t", True, 0.01)
            monitor.log_token_usage(1, 1, 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = monitor.report()
    assert (report.tool_calls, report.input_tokens) == (16_000, 16_000)


def test_the_log_file_is_private_and_holds_no_query(tmp_path: Path) -> None:
    monitor = ToolUsageMonitor(log_to_file=True, log_dir=tmp_path / "logs")
    monitor.log_tool_call("ocr", False, 0.5, ToolError("cannot read /home/ann/x.png", code="unreadable"))
    monitor.log_search_query("salary of ann", num_results=5, latency=0.1, cache_hit=True)
    monitor.log_token_usage(1, 2, 3)
    monitor.close()
    file = tmp_path / "logs" / "tool_usage.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    text = file.read_text()
    assert "ann" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["kind"] for line in lines] == ["tool_call", "search", "tokens"]
    assert lines[0]["error"] == "unreadable"
    assert (lines[1]["query_length"], len(lines[1]["query_sha256"])) == (13, 16)


def test_queries_are_written_when_asked_for(tmp_path: Path) -> None:
    monitor = ToolUsageMonitor(True, tmp_path, log_queries=True)
    monitor.log_search_query("read a receipt")
    assert json.loads((tmp_path / "tool_usage.jsonl").read_text())["query"] == "read a receipt"


def test_the_log_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_room, "FILE_BYTES", 2_000)
    monitor = ToolUsageMonitor(True, tmp_path)
    for _ in range(200):
        monitor.log_tool_call("t", True, 0.1)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["tool_usage.jsonl", *(f"tool_usage.jsonl.{n}" for n in range(1, 6))]
    assert all(f.stat().st_size <= 2_000 and stat.S_IMODE(f.stat().st_mode) == 0o600 for f in files)


def test_the_default_folder_is_the_platforms(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, home=tmp_path)  # type: ignore[call-arg]
    ToolUsageMonitor(True, settings=settings).log_tool_call("t", True, 0.1)
    assert (tmp_path / "logs" / "tool_usage.jsonl").exists()


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    monitor = ToolUsageMonitor(log_to_file=True, log_dir=tmp_path / "file" / "logs")
    for _ in range(3):
        monitor.log_tool_call("t", True, 0.1)
    assert monitor.report().tool_calls == 3
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "cannot be written" in record.message
    assert "log_dir" in record.message


def test_a_disk_that_fills_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    (tmp_path / "tool_usage.jsonl").symlink_to("/dev/full")
    monitor = ToolUsageMonitor(True, tmp_path)
    for _ in range(3):
        monitor.log_tool_call("t", True, 0.1)
    assert monitor.report().tool_calls == 3
    assert len([r for r in caplog.records if "cannot be written" in r.message]) == 1


def test_nothing_that_is_logged_raises() -> None:
    monitor = ToolUsageMonitor()
    monitor.log_tool_call(None, "yes", "soon", object())  # type: ignore[arg-type]
    monitor.log_tool_call("t", True, float("nan"))
    monitor.log_tool_call("t", True, -3)
    monitor.log_tool_call("x" * 10_000, True, 1e300)
    monitor.log_search_query("\ud800", num_results=None)  # type: ignore[arg-type]
    monitor.log_token_usage("many")  # type: ignore[arg-type]
    assert monitor.report().tool_calls == 3
    assert max(len(t.name) for t in monitor.report().tools) == 128


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ToolError("x", code="bad_input"), "bad_input"),
        (ValueError("ann@example.com"), "ValueError"),
        ("SecurityError: Dangerous import detected: os", "SecurityError"),
        ("could not read ann's file", "failed"),
        ("http://user:pass@host", "http"),
        (None, "failed"),
        ("", "failed"),
        ("a" * 200, "failed"),
    ],
)
def test_of_an_error_only_its_code_is_kept(error: object, code: str) -> None:
    assert code_of(error) == code


def test_names_do_not_steer_a_terminal() -> None:
    monitor = ToolUsageMonitor()
    monitor.log_tool_call("\x1b[31mred\n", False, 0.1, "\x1b]0;x")
    text = report_text(monitor.report())
    assert "\x1b" not in text
    assert "?[31mred?" in text


def test_the_monitor_counts_where_the_platform_does() -> None:
    assert PLATFORM == METRICS


SAMPLE = """
from orchestrator.monitoring import ToolUsageMonitor, print_metrics_report

# Initialize monitoring
monitor = ToolUsageMonitor(log_to_file=True, log_dir="/var/log/toolweaver")

# Log tool calls automatically
executor = ProgrammaticToolExecutor(
    tool_catalog=catalog,
    on_tool_call=lambda name, success, latency, error:
        monitor.log_tool_call(name, success, latency, error)
)

# Log search queries
monitor.log_search_query("process receipt", num_results=5, latency=0.1, cache_hit=True)

# Log token usage
monitor.log_token_usage(input_tokens=100, output_tokens=50, cached_tokens=200)

# View metrics
print_metrics_report(monitor)
"""


@pytest.mark.parametrize("writable", [True, False])
def test_the_references_sample_runs_as_it_stands(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder is one of the machine; here it lies elsewhere, where it can be written or not."""
    (tmp_path / "file").write_text("")
    root = tmp_path if writable else tmp_path / "file"
    made = monitor_room._LogFile
    monkeypatch.setattr(monitor_room, "_LogFile", lambda folder: made(root / folder.relative_to("/")))
    catalog = ToolCatalog(source="my_tools", version="1.0")
    names: dict[str, Any] = {"ProgrammaticToolExecutor": ProgrammaticToolExecutor, "catalog": catalog}

    exec(SAMPLE, names)

    printed = capsys.readouterr().out
    assert "Search queries:      1\n" in printed
    assert "Cache hit rate:      100.0%" in printed
    assert "Cache savings:       66.7%" in printed
    assert (tmp_path / "var/log/toolweaver/tool_usage.jsonl").exists() == writable
    names["executor"].on_tool_call("receipt_ocr", False, 0.045, "ToolError: no")
    assert names["monitor"].report().tools[0].errors == 1
