"""The graph of a plan: barriers, aligned steps, roots, circles."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import PlanError
from orchestrator.models.plan import Plan, Reference, Step
from orchestrator.publisher.graph import Graph, build_graph, find_cycles, find_roots


def step(name: str, input: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"id": name, "tool": "t", "input": input or {}, **rest}


def graph(*steps: dict[str, Any]) -> Graph:
    return build_graph(Plan.model_validate({"steps": list(steps)}))


def test_a_reference_adds_the_dependency() -> None:
    made = graph(step("b", {"x": {"deep": ["step:a.total"]}}), step("a"))
    assert list(made.nodes) == ["a", "b"]
    assert made.nodes["b"].barrier == ("a",)
    assert made.nodes["b"].index == 0
    assert made.successors == {"a": ("b",), "b": ()}
    assert made.leaves == ("b",)


def test_conditions_maps_and_depends_on_count_as_references_once() -> None:
    made = graph(
        step("a"),
        step("b"),
        step("c"),
        step("d", {"x": "step:a"}, map="step:b.items", when={"ref": "step:c.ok"}, depends_on=["a", "c"]),
    )
    assert set(made.nodes["d"].barrier) == {"a", "b", "c"}
    assert len(made.nodes["d"].barrier) == 3
    assert made.nodes["d"].aligned == ()


def test_a_literal_is_no_reference() -> None:
    assert graph(step("a", {"x": {"$literal": "step:nowhere"}})).nodes["a"].barrier == ()


def test_steps_that_map_over_one_list_follow_each_other_item_by_item() -> None:
    made = graph(
        step("ocr", {"image": "item"}, map="input:images"),
        step("parse", {"ocr": "item"}, map="step:ocr"),
        step("tax", {"amount": "item.total"}, map="step:parse"),
        step("merge", {"receipt": "item", "tax": "step:tax"}, map="step:parse", depends_on=["ocr"]),
        step("summary", {"receipts": "step:merge"}),
    )
    images = Reference("input", "images")
    assert [n.root for n in made.nodes.values()] == [images, images, images, images, None]
    assert made.nodes["merge"].aligned == ("parse", "tax", "ocr")
    assert made.nodes["merge"].barrier == ()
    assert made.nodes["summary"].barrier == ("merge",)
    assert made.nodes["summary"].aligned == ()
    assert made.aligned_successors["parse"] == ("tax", "merge")
    assert made.successors["merge"] == ("summary",)
    assert made.leaves == ("summary",)


def test_two_maps_over_the_same_input_are_aligned_without_naming_each_other_in_map() -> None:
    made = graph(step("a", map="input:xs"), step("b", {"x": "step:a.total"}, map="input:xs"))
    assert made.nodes["b"].aligned == ("a",)


def test_the_star_means_the_whole_list() -> None:
    made = graph(step("a", map="input:xs"), step("b", {"all": "step:a[*]", "mine": "step:a"}, map="step:a"))
    assert made.nodes["b"].barrier == ("a",)
    assert made.nodes["b"].aligned == ("a",)


def test_a_map_over_the_starred_list_has_a_root_of_its_own() -> None:
    made = graph(step("a", map="input:xs"), step("b", {"x": "item"}, map="step:a[*]"), step("c", {"x": "step:b"}, map="step:b"))
    assert made.nodes["b"].root == Reference("step", "a", (), whole=True)
    assert made.nodes["b"].barrier == ("a",)
    assert made.nodes["c"].root == made.nodes["b"].root
    assert set(made.nodes["c"].barrier) == {"a"}
    assert made.nodes["c"].aligned == ("b",)


def test_maps_over_different_lists_wait_for_the_whole() -> None:
    made = graph(step("a", map="input:xs"), step("b", {"x": "step:a"}, map="input:ys"))
    assert made.nodes["b"].barrier == ("a",)
    assert made.nodes["b"].aligned == ()


def test_the_step_that_gives_a_root_is_awaited_by_every_step_of_that_root() -> None:
    made = graph(step("s"), step("m", {"x": "item"}, map="step:s.items"), step("n", {"x": "item"}, map="step:m"))
    assert made.nodes["m"].barrier == ("s",)
    assert made.nodes["n"].barrier == ("s",)
    assert made.nodes["n"].aligned == ("m",)


def test_one_list_in_two_spellings_is_one_root() -> None:
    made = graph(step("s"), step("a", map="step:s"), step("b", {"x": "step:a"}, map="step:s[*]"))
    assert made.nodes["b"].aligned == ("a",)


def test_a_circle_is_named() -> None:
    with pytest.raises(PlanError, match=r"`a`.*`b`|`b`.*`a`"):
        graph(step("a", {"x": "step:b"}), step("b", depends_on=["a"]))


def test_maps_in_a_circle_do_not_hang() -> None:
    steps = [Step(id="a", tool="t", map="step:b"), Step(id="b", tool="t", map="step:a")]
    assert find_roots({s.id: s for s in steps}) == {"a": None, "b": None}
    with pytest.raises(PlanError):
        build_graph(Plan(steps=tuple(steps)))


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(PlanError, match="no step `b`"):
        graph(step("a", {"x": "step:b"}))


def test_separate_circles_are_all_found() -> None:
    edges = {"a": ["b"], "b": ["a"], "c": ["a", "d"], "d": ["e"], "e": ["d", "f"], "f": [], "g": ["g"]}
    assert sorted(sorted(c) for c in find_cycles(edges)) == [["a", "b"], ["d", "e"], ["g"]]


def test_a_circle_behind_a_circle_is_found_and_a_diamond_is_none() -> None:
    assert find_cycles({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []
    assert sorted(map(sorted, find_cycles({"x": ["y", "a"], "y": ["x"], "a": ["b"], "b": ["a"]}))) == [["a", "b"], ["x", "y"]]


def test_a_chain_of_five_thousand_maps_is_no_recursion() -> None:
    steps = [step("s0", map="input:xs")] + [step(f"s{n}", {"x": "item"}, map=f"step:s{n - 1}") for n in range(1, 5_000)]
    made = graph(*reversed(steps))
    assert made.leaves == ("s4999",)
    assert {n.root for n in made.nodes.values()} == {Reference("input", "xs")}
