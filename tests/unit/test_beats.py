"""The table of running calls that a worker beats for."""

from __future__ import annotations

import os
import threading
import time

import pytest

from orchestrator.jobs.ledger import Claim, Queues
from workers.beats import COMMIT_PATIENCE_S, SLOT, BeatTable


def claim(call: str = "a#0", job: str = "job_1") -> Claim:
    return Claim(job, call, 1, "token", {}, 0, Queues(), {})


def test_the_longest_id_fits_its_slot() -> None:
    call = "\U0001d49c" * 64 + "#99999"  # a letter outside of the basic plane: the longest that an id's pattern allows
    table = BeatTable(1)
    with table.running(claim(call, "job_0123456789abcdef"), timeout_s=60):
        (running,) = table.calls()
        assert running.call == call
    assert table.calls() == []


def test_an_id_beyond_its_slot_is_refused_and_takes_no_slot() -> None:
    table = BeatTable(1)
    with pytest.raises(ValueError, match="the ids of a call take"):
        table.take(claim("x" * SLOT), timeout_s=60)
    table.take(claim(), timeout_s=60)


def test_threads_take_slots_of_their_own_and_give_them_back() -> None:
    table, rounds = BeatTable(8), 300
    wrong: list[str] = []

    def take_and_give(name: str) -> None:
        for n in range(rounds):
            beat = table.take(claim(f"{name}#{n}"), timeout_s=60)
            mine = [r for r in table.calls() if r.call.startswith(f"{name}#")]
            if [r.call for r in mine] != [f"{name}#{n}"] or beat.refused():
                wrong.append(f"{name}#{n}")
            beat.release()

    threads = [threading.Thread(target=take_and_give, args=(f"t{k}",)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert table.calls() == []
    assert len([table.take(claim(f"a#{n}"), timeout_s=60) for n in range(8)]) == 8, "no slot was lost"
    with pytest.raises(IndexError):
        table.take(claim("one#9"), timeout_s=60)


def test_only_the_call_that_was_refused_hears_of_it() -> None:
    table = BeatTable(2)
    first, second = table.take(claim("a#0"), timeout_s=60), table.take(claim("a#1"), timeout_s=60)
    table.refuse(next(r for r in table.calls() if r.call == "a#0"))
    assert first.refused()
    assert not second.refused()

    first.release()
    second.release()
    assert second.refused(), "what goes on although it is over may stop"
    assert not any(table.take(claim(f"b#{n}"), timeout_s=60).refused() for n in range(2)), "who comes next is not refused"


def test_a_tool_that_ended_has_time_to_commit() -> None:
    table = BeatTable(1)
    beat = table.take(claim(), timeout_s=0.01)
    (before,) = table.calls()
    beat.ended()
    (after,) = table.calls()
    assert (before.ended, after.ended) == (False, True)
    assert after.deadline > time.monotonic() + COMMIT_PATIENCE_S - 5


def test_a_child_writes_for_its_parent_and_a_dead_one_counts_for_nothing() -> None:
    table = BeatTable(2)
    go, said = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        table.take(claim("c#0"), timeout_s=60, slot=1)
        os.write(said[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(said[0], 1)
    (running,) = table.calls()
    assert (running.call, running.slot, running.pid, running.own) == ("c#0", 1, child, False)

    os.write(go[1], b"x")
    os.waitpid(child, 0)
    assert table.calls() == []
    table.take(claim("d#0"), timeout_s=60, slot=1)
    assert [r.call for r in table.calls()] == ["d#0"], "the next child has its number"
