"""The pool `http` with a real API: its own document and one written by hand, calls, errors, redirects, documents that change."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.store import CatalogStore
from orchestrator.jobs.events import EventReader
from orchestrator.models.catalog import ServerState
from orchestrator.models.job import JobStatus, JobView
from orchestrator.state.keys import breaker
from tests.processes import Platform, platform
from tests.services import free_port
from tests.support import wait_until

HERE = Path(__file__).parents[1]
SHOP = HERE / "data" / "openapi" / "shop.yaml"
SECRET = "sesame-and-street"


class Lab:
    """A platform, its servers file, and the API."""

    def __init__(self, p: Platform) -> None:
        self.p, self.port, self.entries = p, free_port(), dict[str, dict[str, Any]]()
        self.url, self.notes_file = f"http://127.0.0.1:{self.port}", p.folder / "notes"
        self.catalog = CatalogStore(p.client)
        self.notes_file.touch()

    def start(self) -> None:
        self.p.start(
            "lab-api", [sys.executable, "-P", str(HERE / "http_api.py"), str(self.port)], env={"NOTES": str(self.notes_file)}
        )

    def write(self, **entries: dict[str, Any] | None) -> None:
        """Changes entries of the servers file; None takes one out."""
        self.entries = {k: v for k, v in (self.entries | entries).items() if v is not None}
        draft = self.p.folder / "mcp.draft"
        draft.write_text(json.dumps({"openapi": self.entries}))
        draft.replace(self.p.folder / "mcp.json")

    def state(self, name: str) -> ServerState | None:
        return self.catalog.server_states().get(name)

    def wait_state(self, name: str, state: str = "up") -> ServerState:
        found = wait_until(
            lambda: (s := self.state(name)) and s.state == state and s, description=f"document {name} is {state}", timeout=40
        )
        assert found
        return found

    def submit(self, tool: str, *, step: dict[str, Any] | None = None, **input: Any) -> str:
        return self.p.submit([{"id": "s", "tool": tool, "input": input, **(step or {})}])

    def call(self, tool: str, *, step: dict[str, Any] | None = None, **input: Any) -> JobView:
        return self.p.wait(self.submit(tool, step=step, **input))

    def value(self, tool: str, *, step: dict[str, Any] | None = None, **input: Any) -> Any:
        job = self.submit(tool, step=step, **input)
        view = self.p.wait(job)
        assert view.error is None, view.error
        return self.p.store.result(job).steps["s"]

    def error(self, tool: str, *, step: dict[str, Any] | None = None, **input: Any) -> Any:
        found = self.call(tool, step={"retry": {"max": 0}, **(step or {})}, **input).error
        assert found is not None
        return found

    def notes(self, *words: str) -> list[list[str]]:
        rows = [line.split() for line in self.notes_file.read_text().splitlines()]
        return [row for row in rows if row[: len(words)] == list(words)]

    def forget_failures(self) -> None:
        """Closes the circuits, which a test opens that looks for something else."""
        if keys := list(self.p.client.scan_iter(match=breaker("openapi:*"))):
            self.p.client.delete(*keys)


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    with platform(lease_s=2.0, fetch_hosts="localhost", fetch_max_bytes=3 << 20) as p:
        p.start_planner()
        p.start_api()
        lab = Lab(p)
        lab.start()
        shop = p.folder / "shop.yaml"
        shutil.copy(SHOP, shop)
        headers = {"Authorization": "Bearer ${LAB_SECRET}"}
        lab.write(
            lab={"document": f"{lab.url}/openapi.json", "headers": headers, "private": True, "timeout_s": 20},
            shop={
                "document": "shop.yaml",
                "base_url": f"{lab.url}/raw?fixed=1",
                "headers": {"X-Shop-Key": "k-123"},
                "private": True,
            },
        )
        p.start_worker("http", pool="http", concurrency=30, env={"LAB_SECRET": SECRET})
        p.wait_announced("http")
        lab.wait_state("lab")
        lab.wait_state("shop")
        yield lab


@pytest.fixture
def at(running: Lab) -> Lab:
    running.forget_failures()
    return running


def test_operations_are_published_as_tools(at: Lab) -> None:
    tools = {t.name: t for t in at.catalog.all().tools}
    made = tools["lab.make_order"]
    assert (made.server, made.native_name, made.pool, made.effect) == ("lab", "make_order", "http", "once")
    assert made.requires == ("network:http",)
    assert tools["lab.list_orders"].effect == "none"
    state = at.wait_state("lab")
    assert (state.kind, state.version, state.protocol, state.error) == ("openapi", "2.1", "OpenAPI 3.1.0", None)
    assert state.tools == len([n for n in tools if n.startswith("lab.")])
    shop = at.wait_state("shop")
    assert {r.native_name for r in shop.refused} >= {"noGap", "outside", "badSchema"}
    assert [q.name for q in shop.quarantined] == ["shop.poisoned"]
    assert "shop.poisoned" not in tools
    assert at.catalog.owners()["lab.make_order"] == "openapi:lab"
    assert SECRET not in json.dumps([t.to_row() for t in tools.values()])


def test_a_plan_calls_operations(at: Lab) -> None:
    job = at.p.submit(
        [
            {"id": "one", "tool": "lab.make_order", "input": {"title": "tea", "part": {"name": "a", "parts": [{"name": "b"}]}}},
            {"id": "two", "tool": "lab.change_order", "input": {"number": "step:one.id", "title": "coffee", "count": 3}},
            {"id": "all", "tool": "lab.list_orders", "depends_on": ["two"], "input": {"tags": ["x", "y & z"], "x-trace": "t"}},
            {"id": "gone", "tool": "lab.drop_order", "input": {"number": "step:one.id"}, "depends_on": ["all"]},
        ]
    )  # fmt: skip
    assert at.p.wait(job).error is None
    steps = at.p.store.result(job).steps
    assert steps["one"]["part"] == {"name": "a", "parts": [{"name": "b", "parts": []}]}
    assert steps["two"] == {"id": steps["one"]["id"], "title": "coffee", "count": 3, "part": None}
    assert (steps["all"]["tags"], steps["all"]["limit"], steps["all"]["trace"]) == (["x", "y & z"], 10, "t")
    assert steps["gone"] is None


def test_what_would_change_anything_carries_a_key_of_its_own(at: Lab) -> None:
    job = at.submit("lab.make_order", title="keyed")
    at.p.wait(job)
    ((_, _, key),) = at.notes("order", "keyed")
    assert key.startswith(f"{job}/")
    assert "idempotency-key" in at.value("shop.addNote", body="x")["headers"]
    assert "idempotency-key" not in at.value("shop.get_again")["headers"]


@pytest.mark.parametrize(
    ("input", "query"),
    [
        ({}, ""),
        ({"page": 2}, "&page=2"),
        ({"tags": ["a b", "c&d", "ü"]}, "&tags=a%20b&tags=c%26d&tags=%C3%BC"),
        ({"tags": []}, ""),
        ({"ids": [1, 2, 3]}, "&ids=1%7C2%7C3"),
        ({"words": ["a", "b,c"]}, "&words=a%20b%2Cc"),
        ({"flat": ["a", "b,c"]}, "&flat=a,b%2Cc"),
        ({"filter": {"a": "1", "b c": "2"}}, "&filter[a]=1&filter[b%20c]=2"),
        ({"range": {"low": 1, "high": 9}}, "&low=1&high=9"),
        ({"where": {"a": [1, True, None]}}, "&where=%7B%22a%22%3A%5B1%2Ctrue%2Cnull%5D%7D"),
        ({"path": "a/b?c&d=e#f"}, "&path=a/b?c%26d%3De%23f"),
    ],
)
def test_parameters_are_written_as_the_document_says(at: Lab, input: dict[str, Any], query: str) -> None:
    assert at.value("shop.listItems", **input)["query"] == f"fixed=1{query}"


def test_paths_headers_and_cookies_are_written_as_the_document_says(at: Lab) -> None:
    got = at.value("shop.listItems", session="s1; x", **{"X-Trace": ["a", "b"]})
    assert (got["headers"]["x-trace"], got["headers"]["cookie"]) == ("a,b", "session=s1%3B%20x")
    assert got["headers"]["x-shop-key"] == "k-123"
    assert at.value("shop.matrix", path=["a/b", "c"], label={"x": "1"})["path"] == "/matrix/;path=a%2Fb;path=c/.x,1"
    got = at.value("shop.replaceItem", id=7, id_query="q", title="x")
    assert (got["path"], got["query"]) == ("/items/7", "fixed=1&id=q")
    bad = at.error("shop.listItems", **{"X-Trace": ["a\r\nX-Evil: 1"]})
    assert bad.code == "bad_input"
    assert "`X-Trace`" in bad.message


def test_bodies_are_written_as_the_document_says(at: Lab) -> None:
    note = at.value("shop.addNote", body="grüße")
    assert (note["headers"]["content-type"], note["body"].encode("latin-1").decode()) == ("text/plain; charset=utf-8", "grüße")
    assert json.loads(at.value("shop.createItem", title="Tea", note=None)["body"]) == {"title": "Tea", "note": None}
    patch = at.value("shop.changeItem", id=1, body={"id": 2})
    assert (patch["headers"]["content-type"], patch["body"]) == ("application/merge-patch+json", '{"id":2}')
    form = at.value("shop.login", user="a&b", scopes=["x", "y"], more={"k": 1})
    assert form["headers"]["content-type"] == "application/x-www-form-urlencoded"
    assert form["body"] == "user=a%26b&scopes=x&scopes=y&more%5Bk%5D=1"
    assert at.value("shop.setNotes", body=["a"])["body"] == '["a"]'
    empty = at.value("shop.setNotes")
    assert (empty["body"], empty["headers"].get("content-type")) == ("", None)
    assert at.value("lab.login", user="u", scopes=["a", "b"]) == {"user": "u", "scopes": ["a", "b"]}


def test_files_go_along_and_come_back(at: Lab) -> None:
    one, two = at.p.api.upload(b"12345", name="ä.png").ref, at.p.api.upload(b"67", name="b.txt").ref
    got = at.value("lab.upload", file=one, others=[two, two], title="t")
    assert got == {"name": "ä.png", "type": "image/png", "size": 5, "others": 2, "title": "t"}
    whole = at.value("shop.storePicture", body=one)
    assert (whole["body"], whole["headers"]["content-type"], whole["headers"]["content-length"]) == ("12345", "image/png", "5")
    parts = at.value("shop.addPicture", file=one, about={"title": "x"}, count=3)["body"]
    assert 'name="about"\r\nContent-Type: application/json\r\n\r\n{"title":"x"}' in parts
    assert 'name="count"\r\n\r\n3\r\n' in parts
    picture = at.value("lab.picture")
    assert (picture["type"], picture["media_type"]) == ("image", "image/png")
    out = io.BytesIO()
    at.p.api.download(picture["file"], out)
    assert out.getvalue() == bytes.fromhex("89504e470d0a1a0a") + b"rest"
    assert at.value("lab.words") == "grüße"


def test_bad_input_is_told_here_and_what_the_api_refuses_by_its_own_words(at: Lab) -> None:
    bad = at.error("lab.make_order", title="x" * 50, part={"nam": 1})
    assert bad.code == "bad_input"
    assert at.notes("order", "x" * 50) == []
    missing = at.error("lab.change_order", number=999, title="x")
    assert (missing.code, missing.family, missing.retryable) == ("http_error", "tool", False)
    assert "`lab.change_order` answered 404 Not Found: there is no such order" in missing.message


@pytest.mark.parametrize(
    ("tool", "code", "retryable"),
    [
        ("get_status", 400, False),
        ("get_status", 408, True),
        ("get_status", 429, True),
        ("get_status", 500, True),
        ("get_status", 501, False),
        ("get_status", 502, True),
        ("get_status", 503, True),
        ("post_status", 408, False),
        ("post_status", 429, True),
        ("post_status", 500, False),
        ("post_status", 503, True),
    ],
)
def test_a_status_says_whether_another_try_helps(at: Lab, tool: str, code: int, retryable: bool) -> None:
    found = at.error(f"lab.{tool}", code=code)
    assert (found.code, found.retryable) == ("http_error", retryable)
    assert str(code) in found.message
    assert SECRET not in found.model_dump_json()
    assert "no: ***" in found.message


def test_what_may_be_repeated_is_and_waits_as_long_as_it_is_told(at: Lab) -> None:
    assert at.value("lab.get_status", code=503, times=1, key="again", step={"retry": {"max": 2}}) == {"seen": 2}
    assert at.value("lab.post_status", code=429, times=1, key="later", step={"retry": {"max": 2}}) == {"seen": 2}
    at.error("lab.post_status", code=500, key="once", step={"retry": {"max": 2}})
    assert len(at.notes("status", "post", "500", "once")) == 1


def _unknown(at: Lab, job: str) -> None:
    wait_until(lambda: at.p.store.status(job) == JobStatus.WAITING, description="the job waits for a person")


def test_an_effect_that_nobody_knows_of_is_not_repeated(at: Lab) -> None:
    job = at.submit("lab.post_status", code=502, key="gate", step={"retry": {"max": 2}})
    _unknown(at, job)
    assert len(at.notes("status", "post", "502", "gate")) == 1
    job = at.submit("lab.slow", seconds=30, key="late", step={"timeout_s": 1, "retry": {"max": 2}})
    _unknown(at, job)
    assert len(at.notes("slow", "late")) == 1
    late = at.error("lab.slow_read", seconds=30, key="read", step={"timeout_s": 1})
    assert (late.code, late.retryable) == ("timeout", True)


def test_an_api_that_dies_in_the_middle(at: Lab) -> None:
    paid, read = at.submit("lab.slow", seconds=30, key="cut"), at.submit("lab.slow_read", seconds=0.1, key="cut2")
    wait_until(lambda: at.notes("slow", "cut"), description="the call is there")
    at.p.kill("lab-api")
    _unknown(at, paid)
    at.p.wait(read)
    gone = at.error("lab.make_order", title="unsent")
    assert (gone.code, gone.retryable) == ("unreachable", True), "nothing was sent, so it may be tried again"
    job = at.submit("lab.make_order", title="patient", step={"retry": {"max": 6, "backoff_s": 0.5, "max_backoff_s": 1}})
    at.start()
    at.forget_failures()
    assert at.p.wait(job).error is None
    assert len(at.notes("order", "patient")) == 1


def test_a_circuit_opens_for_what_keeps_failing_alone(at: Lab) -> None:
    for _ in range(5):
        at.error("lab.get_status", code=500, key="down")
    found = wait_until(
        lambda: (e := at.error("lab.get_status", code=500, key="down")).code == "circuit_open" and e, description="it opens"
    )
    assert found
    assert at.value("lab.words") == "grüße", "the rest of the API is called on"


def test_redirects_carry_the_headers_to_nobody_else(at: Lab) -> None:
    same = at.value("lab.away", to="/raw/x")
    assert same["headers"]["authorization"] == f"Bearer {SECRET}"
    other = at.value("lab.away", to=f"http://localhost:{at.port}/raw/x")  # another origin, which `fetch_hosts` trusts
    assert "authorization" not in other["headers"]
    assert at.error("lab.away", to=f"http://127.0.0.2:{at.port}/raw/x").code == "forbidden"
    assert at.error("lab.away", to="file:///etc/passwd").code == "redirected"
    assert at.error("lab.away", to="/away?to=/away").code in ("redirected", "http_error")
    assert at.value("lab.send_away", to="/raw/y")["method"] == "POST"
    assert at.value("lab.send_away", to="/raw/y", status=303)["method"] == "GET"
    assert at.error("lab.send_away", to=f"http://localhost:{at.port}/raw/y").code == "redirected"
    assert at.error("lab.send_away", to="/raw/y", status=302).code == "redirected"


def test_an_answer_may_be_too_large(at: Lab) -> None:
    assert len(at.value("lab.large", mib=2)) == 2 << 20
    assert at.error("lab.large", mib=4).code == "too_large"


def test_an_answer_that_the_document_does_not_promise_is_taken_and_noted(at: Lab) -> None:
    job = at.submit("lab.wrong")
    assert at.p.wait(job).error is None
    assert at.p.store.result(job).steps["s"] == {"count": "many"}
    told = [e.data for e in EventReader(at.p.settings).read(job) if e.type == "log"]
    assert any("title" in str(e.get("problems")) for e in told)


def test_a_path_is_never_left(at: Lab) -> None:
    at.write(odd={"document": str(at.p.folder / "odd.json"), "base_url": f"{at.url}/raw", "private": True})
    operation = {
        "operationId": "read",
        "parameters": [{"name": "n", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {},
    }
    (at.p.folder / "odd.json").write_text(json.dumps({"openapi": "3.1.0", "info": {}, "paths": {"/a/{n}/b": {"get": operation}}}))
    at.wait_state("odd")
    for value in ("..", ".", ""):
        assert at.error("odd.read", n=value).code == "bad_input"
    assert at.value("odd.read", n="../x?y#z%2e")["path"] == "/a/..%2Fx%3Fy%23z%252e/b"
    at.write(odd=None)


def test_a_private_address_is_called_only_where_the_entry_says_so(at: Lab) -> None:
    at.write(inner={"document": str(at.p.folder / "shop.yaml"), "base_url": f"{at.url}/raw"})
    at.wait_state("inner")
    refused = at.error("inner.addNote", body="x")
    assert (refused.code, refused.retryable) == ("forbidden", False)
    assert "`private`" in (refused.next or "")
    at.write(inner=None)
    wait_until(lambda: at.state("inner") is None, description="it is withdrawn")


def test_documents_are_followed(at: Lab) -> None:
    path = at.p.folder / "notes.yaml"

    def document(*names: str, version: str = "1") -> None:
        paths = {f"/{n}": {"get": {"operationId": n, "responses": {}}} for n in names}
        path.write_text(json.dumps({"openapi": "3.1.0", "info": {"version": version}, "paths": paths}))

    def offered() -> set[str]:
        return {t.name for t in at.catalog.all().tools if t.server == "notes"}

    document("a", "b")
    at.write(notes={"document": "notes.yaml", "base_url": f"{at.url}/raw", "private": True})
    wait_until(lambda: offered() == {"notes.a", "notes.b"}, description="its operations are there")
    document("b", "c", version="2")
    wait_until(lambda: offered() == {"notes.b", "notes.c"}, description="its operations are those of now")
    state = wait_until(lambda: (s := at.state("notes")) and s.version == "2" and s, description="its version is told")
    assert state
    assert state.diff is not None
    assert (state.diff.added, state.diff.removed) == (("notes.c",), ("notes.a",))

    path.write_text("openapi: [")
    down = at.wait_state("notes", "down")
    assert "cannot be read" in str(down.error)
    assert at.value("notes.b")["path"] == "/b", "what was read before is served on"
    document("b", "c", version="2")
    at.wait_state("notes")
    at.write(notes=None)
    wait_until(lambda: not offered() and at.state("notes") is None, description="it is withdrawn")
    assert at.error("lab.change_order", number=999, title="x").code == "http_error", "the others are called on"


def test_a_secret_that_is_not_there_is_named_and_nothing_is_called(at: Lab) -> None:
    at.write(keyed={"document": "shop.yaml", "base_url": f"{at.url}/raw", "headers": {"X-Key": "${NOT_THERE}"}, "private": True})
    down = at.wait_state("keyed", "down")
    assert "NOT_THERE" in str(down.error)
    assert not [t for t in at.catalog.all().tools if t.server == "keyed"]
    at.write(keyed=None)
    wait_until(lambda: at.state("keyed") is None, description="it is withdrawn")
