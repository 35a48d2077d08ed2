"""The check against plans that are known to be broken, or good, from how they were made: its misses and its false alarms."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.errors import PlanError, ToolWeaverError
from orchestrator.models.access import Policy
from orchestrator.models.job import JobResult
from orchestrator.models.plan import MAX_MAP, MAX_PLAN_BYTES, MAX_STEPS, Plan
from orchestrator.planner.check import check_plan
from orchestrator.planner.fixes import apply_fixes, repair
from orchestrator.planner.read import MAX_DEPTH
from orchestrator.policy.store import PolicyStore
from tests.planner.good_plans import BASES
from tests.planner.lab import LAB, TENANT, facts
from tests.planner.mutants import KINDS, LONG_MAP, LONG_PLAN, MANY_STEPS, Mutant, broken, good
from tests.planner.rights import allowed_by, seen
from workers.testing import Engine, running_engine

pytestmark = pytest.mark.integration

BROKEN = broken(BASES, facts())
GOOD = good(BASES, facts())
SAMPLE = random.Random(8).sample([m for m in BROKEN if m.proof in ("fails", "answer")], 50)
LIMITS = [m for m in BROKEN if m.proof == "limit"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine(LAB) as running:
        yield running


Findings = tuple[list[dict[str, Any]], tuple[dict[str, Any], ...]]
_JUDGED: dict[int, Findings] = {}


def judged(mutant: Mutant) -> Findings:
    """Problems and warnings of a plan, which is judged once."""
    if id(mutant) not in _JUDGED:
        _JUDGED[id(mutant)] = _judge(mutant)
    return _JUDGED[id(mutant)]


def _judge(mutant: Mutant) -> Findings:
    try:
        return [], check_plan(mutant.plan, seen(), inputs=mutant.inputs, allowed=allowed_by(mutant.rules)).warnings
    except PlanError as error:
        return error.problems, ()


def problems(mutant: Mutant) -> list[dict[str, Any]]:
    return judged(mutant)[0]


def test_the_mutants_are_as_many_as_promised_all_different_and_always_the_same() -> None:
    assert Counter(m.kind for m in BROKEN) == dict.fromkeys(KINDS, 50)
    assert len(GOOD) == 300
    assert len({(m.base, m.what) for m in BROKEN}) == 300
    assert len({m.base for m in GOOD}) >= 8
    assert broken(BASES, facts(), each=5) == broken(BASES, facts(), each=5)


def test_of_300_broken_plans_at_most_6_pass_and_every_finding_has_an_example_and_a_next_move() -> None:
    missed = [m for m in BROKEN if not problems(m)]
    print(f"caught {len(BROKEN) - len(missed)} of {len(BROKEN)}; missed: {[(m.kind, m.base, m.what) for m in missed]}")
    assert len(missed) <= 6
    for mutant in BROKEN:
        for problem in problems(mutant):
            assert problem["example"]
            assert problem["message"].endswith((".", "?"))
            assert problem["next"].endswith((".", "?", "`"))
            assert "fix" not in problem or {"op", "path"} <= problem["fix"].keys()


def test_300_good_plans_pass_and_what_is_warned_of_is_counted() -> None:
    refused = [(m.base, m.what, problems(m)) for m in GOOD if problems(m)]
    warned = Counter(w["code"] for m in GOOD for w in judged(m)[1])
    print(f"false alarms: {len(refused)} of {len(GOOD)}; warnings: {dict(warned)}")
    assert not refused
    assert set(warned) <= {"may_be_null"}  # a list that a step with a condition makes may hold null
    assert sum(warned.values()) <= 15


@pytest.mark.parametrize("name", BASES)
def test_a_base_plan_passes_without_a_warning(name: str) -> None:
    assert check_plan(BASES[name], seen(), inputs={}).warnings == ()


def test_all_good_plans_run_to_their_end_and_those_that_mean_the_same_answer_the_same(engine: Engine) -> None:
    expected = {name: engine.run_plan(plan) for name, plan in BASES.items()}
    for mutant in GOOD:
        result = engine.run_plan(mutant.plan, mutant.inputs)
        assert (result.status, result.has_errors) == ("succeeded", False), (mutant.base, mutant.what, result.errors)
        if mutant.same_answer:
            assert result.output == expected[mutant.base].output, (mutant.base, mutant.what)


def test_50_broken_plans_that_run_unchecked_fail() -> None:
    with running_engine(LAB) as engine:  # one that has not looked for rules yet
        run_sample(engine)


def run_sample(engine: Engine) -> None:
    policies = PolicyStore(engine.store.redis, engine.store.settings)
    tenants = {id(m): f"tenant{n}" if m.rules else TENANT for n, m in enumerate(SAMPLE)}
    for mutant in SAMPLE:
        if mutant.rules is not None:  # all before the first call: a process looks for new rules once a second
            policies.put(tenants[id(mutant)], Policy.model_validate(mutant.rules))
    wrong = [m for m in SAMPLE if not fails_unchecked(engine, m, tenant=tenants[id(m)])]
    assert not wrong, [(m.kind, m.base, m.what) for m in wrong]


def fails_unchecked(engine: Engine, mutant: Mutant, *, tenant: str) -> bool:
    """Whether a plan cannot be entered, has a call that fails or never ends, or gives no answer."""
    try:
        result = run_unchecked(engine, mutant, tenant=tenant)
    except (ToolWeaverError, ValidationError, ValueError, KeyError):
        return True
    failed = result.status != "succeeded" or result.has_errors
    if mutant.proof != "answer":
        return failed
    return failed or result.output is None or "{{" in (result.answer or "") or (result.answer or "").endswith("null")


def run_unchecked(engine: Engine, mutant: Mutant, *, tenant: str) -> JobResult:
    plan = Plan.model_validate(mutant.plan)
    job, _ = engine.store.submit(plan, inputs=mutant.inputs, tenant=tenant)
    engine.start(job, {**plan.inputs, **mutant.inputs})
    while engine.drain() or engine.retry_now(job):
        pass
    found = engine.store.result(job, tenant=tenant)
    return engine.result(job) if tenant == TENANT and found.status.final else found


@pytest.mark.parametrize("mutant", LIMITS, ids=lambda m: f"{m.base}: {m.what}")
def test_what_breaks_a_documented_limit_does_so_by_count(mutant: Mutant) -> None:
    assert (LONG_MAP, LONG_PLAN, MANY_STEPS) == (MAX_MAP + 1, MAX_PLAN_BYTES + 1, MAX_STEPS + 1)
    values = {**mutant.plan["inputs"], **mutant.inputs}
    longest = (
        max(len(v) for v in values.values() if isinstance(v, list)) if any(isinstance(v, list) for v in values.values()) else 0
    )
    assert (
        len(mutant.plan["steps"]) > MAX_STEPS
        or len(json.dumps(mutant.plan)) > MAX_PLAN_BYTES
        or longest > MAX_MAP
        or depth(mutant.plan) > MAX_DEPTH
    )


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


def test_certain_fixes_repair_plans_without_a_model_and_never_bend_good_ones(engine: Engine) -> None:
    fixable = [m for m in BROKEN if any("fix" in p for p in problems(m))]
    mended = [m for m in fixable if m.rules is None and repaired(m) is not None]
    by_kind = Counter(m.kind for m in mended)
    print(f"repaired without a model: {len(mended)} of {len(BROKEN)}: {dict(by_kind)}")
    assert by_kind["missing tool"] >= 20
    assert len(mended) >= 45
    expected = {name: engine.run_plan(plan) for name, plan in BASES.items()}
    for mutant in mended[::3]:
        result = engine.run_plan(repaired(mutant) or {}, mutant.inputs)
        assert result.status == "succeeded"
        assert result.output == expected[mutant.base].output or mutant.kind == "size", (mutant.base, mutant.what)
    for mutant in GOOD[:20]:
        assert apply_fixes(mutant.plan, []) == mutant.plan


def repaired(mutant: Mutant) -> dict[str, Any] | None:
    try:
        return repair(mutant.plan, lambda plan: check_plan(plan, seen(), inputs=mutant.inputs))
    except PlanError:
        return None
