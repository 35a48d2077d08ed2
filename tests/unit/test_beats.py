"""The table of running calls that a worker beats for."""

from __future__ import annotations

from orchestrator.jobs.ledger import Claim, Queues
from workers.beats import BeatTable


def test_the_longest_id_fits_its_slot() -> None:
    call = "\U0001d49c" * 64 + "#99999"  # a letter outside of the basic plane: the longest that an id's pattern allows
    claim = Claim("job_0123456789abcdef", call, 1_000, "token", {}, 0, Queues(), {})
    table = BeatTable(1)
    with table.running(claim, timeout_s=60):
        (running,) = table.calls()
        assert running.call == call
    assert table.calls() == []
