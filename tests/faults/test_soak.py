"""The soak in a short form, with the long form of the faults: see `tests/soak.py` and `make soak`."""

from __future__ import annotations

import pytest

from tests.soak import book, left_over, let_all_go, soaked

pytestmark = pytest.mark.chaos


def test_twenty_seconds_of_faults_leave_nothing_behind() -> None:
    with soaked(seconds=20, broker="direct") as (soak, before):
        soak.run()
        let_all_go(soak.p)
        assert left_over(before, book(soak.p)) == []
        assert soak.memory.grown() == []
        assert soak.ended.total() > 20
        assert soak.struck.total() > 1
