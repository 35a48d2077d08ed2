"""The table of what the faults came to, at the end of a run."""

from __future__ import annotations

import pytest

from tests.faults import report
from tests.faults.platforms import LONG

collect_ignore = [] if LONG else ["test_soak.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, rows in (("nothing was committed or done twice", report.ROWS), ("no container stayed", report.KILLS)):
        if rows:
            terminalreporter.section(f"faults: every job ended well, {title}")
            for line in report.table(rows):
                terminalreporter.write_line(line)
