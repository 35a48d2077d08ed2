"""The table of what the faults came to, at the end of a run."""

from __future__ import annotations

import pytest

from tests.faults import report
from tests.faults.platforms import LONG

collect_ignore = [] if LONG else ["test_soak.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if report.ROWS:
        terminalreporter.section("faults: every job ended well, nothing was committed or done twice")
        for line in report.table(report.ROWS):
            terminalreporter.write_line(line)
