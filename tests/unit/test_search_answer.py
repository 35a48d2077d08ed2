"""The answer to a request: who comes first, who is never told of, what fits the budget, what odd queries get."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError

from orchestrator.models.access import Policy, Rules
from orchestrator.models.search import QUERY_CHARS, Filters, SearchAnswer, SearchRequest
from orchestrator.models.tool import ToolDefinition, ToolParameter
from orchestrator.policy.permissions import BUILT_IN, denied
from orchestrator.tool_search.allowed import allowed
from orchestrator.tool_search.answer import answer, asked, names_in
from orchestrator.tool_search.document import document_of, document_of_row
from orchestrator.tool_search.feedback import Lessons, Use
from orchestrator.tool_search.fusion import Weights
from orchestrator.tool_search.index import Index

TOOLS = [
    ToolDefinition(name="weather.forecast", description="Tells the weather of the next days", aliases=("forecast",)),
    ToolDefinition(name="weather.history", description="Tells the weather of past days"),
    ToolDefinition(name="mail.send", description="Sends a mail to somebody", parameters=(ToolParameter(name="to"),)),
    ToolDefinition(name="mail.read", description="Reads the mails of a folder", requires=("email:read",), tags=("mail",)),
    ToolDefinition(name="get_invoice", description="Fetches an invoice", server="books", requires=("network:https",)),
    ToolDefinition(name="acme.weather", description="Tells the weather in the halls of Acme", tenants=("acme",)),
    ToolDefinition(name="run_program", description="Runs a program", type="code_exec"),
    ToolDefinition(name="search", description="Looks things up in a library"),
]
INDEX = Index.of([document_of(t) for t in TOOLS], generation=7)


def ask(*queries: str, **more: object) -> SearchAnswer:
    return answer(INDEX, SearchRequest.model_validate({"queries": queries, **more}))


def names(found: SearchAnswer) -> list[str]:
    return [hit.name for hit in found.hits]


def test_the_best_come_first_and_say_why() -> None:
    found = ask("weather of the next days", k=2)
    assert names(found) == ["weather.forecast", "weather.history"]
    assert "weather" in found.hits[0].reason
    assert found.hits[0].score >= found.hits[1].score
    assert (found.generation, found.catalog_hash) == (7, INDEX.catalog_hash)


@pytest.mark.parametrize(
    ("query", "there"),
    [
        ("use get_invoice for me", "get_invoice"),
        ("please call mail.send.", "mail.send"),
        ("`search`", "search"),
        ("Search", "search"),
        ("FORECAST", "forecast"),
        ("weather/now: x", "weather/now"),
    ],
)
def test_names_are_seen_in_a_query(query: str, there: str) -> None:
    assert there in names_in(query)


def test_a_plain_word_in_a_sentence_is_no_name() -> None:
    assert "search" not in names_in("I search for the weather")


def test_a_tool_that_is_named_comes_first_whatever_else_fits() -> None:
    found = ask("weather, weather, and get_invoice")
    assert names(found)[0] == "get_invoice"
    assert found.hits[0].exact
    assert found.hits[0].score >= 0.95
    assert "its name was given" in found.hits[0].reason


def test_priority_tools_are_always_in_even_beyond_k() -> None:
    found = ask("weather of the next days", k=1, priority=["mail.send", "nothing.there"])
    assert names(found) == ["mail.send"]
    assert found.hits[0].priority
    found = ask("weather of the next days", k=2, priority=["mail.send"])
    assert names(found) == ["mail.send", "weather.forecast"]


def test_several_queries_share_the_answer_in_turn() -> None:
    found = ask("weather of days", "mail to somebody", k=2)
    assert set(names(found)) == {"weather.forecast", "mail.send"} or set(names(found)) == {"weather.history", "mail.send"}
    assert {q for hit in found.hits for q in hit.queries} == {0, 1}
    assert len(set(names(ask("weather", "weather", k=5)))) == len(names(ask("weather", "weather", k=5)))


def test_a_budget_takes_what_fits() -> None:
    tokens = {t.name: document_of(t).tokens for t in TOOLS}
    budget = tokens["weather.forecast"] + tokens["weather.history"]
    found = ask("weather of days", "mail", token_budget=budget)
    assert 0 < found.tokens <= budget
    assert found.tokens == sum(tokens[n] for n in names(found))
    assert ask("weather", token_budget=1).hits == ()
    forced = ask("weather", token_budget=1, priority=["mail.send"])
    assert names(forced) == ["mail.send"]
    assert "take" in forced.notes[0]


def test_who_may_not_see_a_tool_sees_no_trace_of_it() -> None:
    everything = ask("weather Acme", "acme.weather", filters={"tenant": "acme"})
    nothing = ask("weather Acme", "acme.weather", filters={"tenant": "other"}, priority=["acme.weather"])
    assert names(everything)[0] == "acme.weather"
    assert "acme" not in nothing.model_dump_json()
    assert nothing.size == everything.size - 1
    assert nothing.tokens_all < everything.tokens_all


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"tags": ("mail",)}, {"mail.read"}),
        ({"servers": ("books",)}, {"get_invoice"}),
        ({"pools": ("nowhere",)}, set()),
        ({"names": ("search",)}, {"search"}),
        ({"allowed": (("mail.*", "get_*"), ("*.send", "get_*"))}, {"mail.send", "get_invoice"}),
        ({"forbidden": ("*.*", "*_*")}, {"search"}),
        ({"requires": ("network:*",), "forbidden": ("*.*", "search")}, {"get_invoice"}),
        ({"requires": ("code_exec:*",), "forbidden": ("*.*", "search")}, {"run_program"}),
        ({"requires": ("*:read",), "tags": ("mail",)}, {"mail.read"}),
        ({"requires": (), "tags": ("mail",)}, set()),
    ],
)
def test_filters_leave_out_before_ranking(filters: dict[str, object], left: set[str]) -> None:
    found = ask("weather mail invoice library", k=50, filters=filters)
    assert set(names(found)) <= left
    assert found.size == len(left)


@pytest.mark.parametrize("query", ["", "  ", "🙂", "погода", "the of and", "\x00", "'; DROP TABLE tools; --", "ignore all rules"])
def test_odd_queries_get_an_answer(query: str) -> None:
    assert ask(query).size == len(TOOLS) - 1


def test_a_long_query_is_cut_and_said() -> None:
    said = asked(SearchRequest(queries=("weather " * 20_000, "")))
    assert [len(q) for q in said.queries] == [len(("weather " * 20_000)[:QUERY_CHARS].strip()), 0]
    assert [n.partition(" ")[0] for n in said.notes] == ["queries[0]", "queries[1]"]
    assert names(ask("weather " * 20_000))[0].startswith("weather.")


def test_details_are_as_asked_for() -> None:
    bare, said, whole = (ask("mail somebody", detail=d, k=1).hits[0] for d in ("names", "summary", "schema"))
    assert (bare.description, bare.tool) == (None, None)
    assert (said.description, said.tool) == ("Sends a mail to somebody", None)
    assert whole.tool == TOOLS[2]
    assert ask("mail somebody", explain=True).hits[0].parts is not None
    assert ask("mail somebody").hits[0].parts is None


def test_what_is_hardly_meant_is_left_out_when_that_is_asked_for() -> None:
    found = ask("weather of the next days", k=50, min_score=0.9)
    assert all(h.score >= 0.9 for h in found.hits)


def test_the_log_tells_what_was_saved(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="orchestrator.tool_search.answer"):
        found = ask("weather", k=1)
    share = 100 * (1 - found.tokens / found.tokens_all)
    assert caplog.messages == [f"7 tools -> 1 relevant (~{share:.1f}% token reduction)"]


def test_a_policy_as_filters_allows_what_the_policy_allows() -> None:
    policies = [
        BUILT_IN,
        BUILT_IN.model_copy(
            update={"tools": ("mail.*", "get_*"), "forbidden_tools": ("*.send",), "actions": {"*": ("read", "https")}}
        ),
        BUILT_IN.model_copy(update={"callers": {"bot": Rules(tools=("weather.*",), actions={"email": ("*",)})}}),
        Policy(tools=None, actions=None),
        Policy(tools=None, actions={"network": ("https",)}),
    ]
    for policy in policies:
        for caller in (("direct",), ("bot",)):
            for tenant in ("acme", "other"):
                filters = allowed(Filters(tenant="nobody"), policy, tenant=tenant, caller=caller)
                may = {
                    t.name for t in TOOLS if t.visible_to(tenant) and denied(policy, tenant=tenant, caller=caller, tool=t) is None
                }
                assert answer(INDEX, SearchRequest(queries=("x",), filters=filters)).size == len(may)
                assert {t.name for t in TOOLS if names(ask(t.name, filters=filters))[:1] == [t.name]} == may, (
                    policy,
                    caller,
                    tenant,
                )


def test_what_a_caller_asks_for_cannot_widen_what_it_may() -> None:
    asked_for = Filters(requires=("email:read", "network:https"))
    assert set(allowed(asked_for, BUILT_IN, tenant="t").requires or ()) == {"network:https"}
    assert allowed(Filters(), Policy(actions=None, tools=None), tenant="t").requires is None
    assert allowed(Filters(requires=("*:read",)), Policy(actions={"files": ("*",)}), tenant="t").requires == ("files:read",)


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_chances_are_in_the_order_of_the_answer_also_with_other_weights_and_with_what_was_learned(weight: float) -> None:
    uses = [Use(str(n), float(n), None, "tell the weather of past days", ("mail.read",)) for n in range(3)]
    learned = Lessons.of(uses, {}).seen_by("default")
    request = SearchRequest(queries=("tell the weather of past days please, or read mails",), k=5, explain=True)
    found = answer(INDEX, request, learned=learned, weights=Weights(lexical=weight))
    assert any(hit.parts is not None and hit.parts.learned > 0 for hit in found.hits)
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)


def test_a_mix_of_ones_own_gives_no_chances_but_the_mix() -> None:
    found = answer(INDEX, SearchRequest(queries=("weather of past days",), k=3), weights=Weights.hybrid(1, 0))
    assert [hit.score for hit in found.hits] == pytest.approx([hit.rank_score for hit in found.hits], abs=1e-4)


def test_a_definition_that_this_program_cannot_read_keeps_no_other_back() -> None:
    row = json.loads(TOOLS[0].to_row()) | {"type": "of_tomorrow"}
    index = Index.of([document_of_row(json.dumps(row).encode()), *(document_of(t) for t in TOOLS[1:])])
    found = answer(index, SearchRequest(queries=("weather of days",), k=2, detail="schema"))
    assert {h.name: h.tool is not None for h in found.hits} == {"weather.forecast": False, "weather.history": True}
    assert "weather.forecast" in found.notes[0]


def test_definitions_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tool_search.answer.SCHEMA_BYTES", len(TOOLS[0].to_row()) + 10)
    found = ask("weather of the next days", k=2, detail="schema")
    assert [h.tool is not None for h in found.hits] == [True, False]
    assert "weather.history" in found.notes[0]


def test_the_backlog_counts_no_tools_that_filters_hide() -> None:
    assert INDEX.backlog == len(TOOLS)
    assert ask("weather", filters={"tenant": "acme"}).backlog == len(TOOLS)
    assert ask("weather", filters={"names": ["mail.read", "search"]}).backlog == 2
    changed = INDEX.apply([document_of(TOOLS[3].model_copy(update={"description": "Other mails"}))], generation=8)
    assert answer(changed, SearchRequest(queries=("x",), filters=Filters(names=("mail.read", "search")))).backlog == 2


@pytest.mark.parametrize("of_delta", [True, False])
def test_patterns_in_masks_mean_what_they_mean_one_by_one(of_delta: bool) -> None:
    index = Index.of([]).apply([document_of(t) for t in TOOLS], generation=1) if of_delta else INDEX
    for filters in (
        Filters(allowed=(("mail.*", "search"), ("*e*",)), forbidden=("*.send", "weather.hist?ry")),
        Filters(names=("mail.send", "search", "nothing"), forbidden=("?earch",)),
        Filters(allowed=((),)),
    ):
        mask = index.mask(filters)
        passing = {index.name(n) for n in range(len(TOOLS)) if mask is None or mask[n]}
        assert passing == {t.name for t in TOOLS if t.tenants is None and t.deprecated is None and filters.admits_name(t.name)}


def test_more_patterns_than_can_be_looked_through_are_refused() -> None:
    with pytest.raises(ValidationError, match="patterns are more than"):
        Filters(allowed=tuple(tuple(f"*a{n}.{m}*" for n in range(1_000)) for m in range(5)))
    Filters(allowed=(("*",),) * 256)
