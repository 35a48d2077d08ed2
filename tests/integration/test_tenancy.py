"""Tenants that share an API: what one may see of another, which is nothing, and how much one may use, which is its own share."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import trustme
import uvicorn
from typer.testing import CliRunner, Result

from orchestrator.api.__main__ import server_config, tls_options
from orchestrator.api.app import create_app
from orchestrator.api.protocol import PatientNoMore
from orchestrator.api.services import Services
from orchestrator.catalog.register import ToolRegistry, register_function
from orchestrator.catalog.store import CatalogStore
from orchestrator.cli.app import app as cli
from orchestrator.client import AsyncClient, Client
from orchestrator.errors import (
    BackendError,
    Conflict,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    RequestError,
    Unauthorized,
)
from orchestrator.models.access import AuditEntry, Caller, CreateKeyRequest, KeyInfo, Limits, NewKey, Policy, Rules, Scope
from orchestrator.models.plan import Plan
from orchestrator.policy import audit as audit_room
from orchestrator.policy.audit import AuditLog, Detail
from orchestrator.policy.keys import KeyStore
from orchestrator.policy.store import FRESH_S, PolicyStore
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from tests.engine import Engine
from tests.support import wait_until

pytestmark = pytest.mark.integration

JSON = {"content-type": "application/json"}
ADD = {"steps": [{"id": "sum", "tool": "add", "input": {"a": "input:a", "b": 2}}], "inputs": {"a": 1}}
EFFECTIVE_S = 2.0  # a revoked key is refused after this


TOOLS = ToolRegistry()


@register_function(effect="none", registry=TOOLS)
def add(a: float, b: float = 0.0) -> float:
    return a + b


@register_function(effect="none", requires=("filesystem:write",), registry=TOOLS)
def write_file(text: str) -> str:
    return text


@register_function(effect="once", timeout_s=0.05, registry=TOOLS)
def pay(amount: float) -> float:
    time.sleep(1)
    return amount


class Served:
    """The API with keys, in a thread, and the engine behind it, whose calls run when the test says so."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(server_config(settings.model_copy()))
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        wait_until(lambda: self.server.started, description="the API starts")
        self.services: Services = self.server.config.app.state.services  # type: ignore[union-attr]
        self.begin()

    def begin(self) -> None:
        """Begins anew over the store, which may have been emptied."""
        self.redis = connect(self.settings)
        self.keys = KeyStore(self.redis)
        self.policies = self.services.policies
        self.policies.view(None)  # what the API kept from before is gone
        self._engine: Engine | None = None
        CatalogStore(self.redis).announce(TOOLS.definitions())

    @property
    def engine(self) -> Engine:
        """The workers, as they would start now."""
        if self._engine is None:
            self._engine = Engine(self.settings.model_copy(), TOOLS)  # ours stays as it is: it remembers what was asked of it
        return self._engine

    def key(self, tenant: str, *scopes: Scope, name: str = "key", expires_s: float | None = None) -> NewKey:
        request = CreateKeyRequest(tenant=tenant, name=name, scopes=scopes or ("read", "write"), expires_s=expires_s)
        return self.keys.create(request)

    def run(self, job: str) -> None:
        self.engine.start(job, self.engine.store.inputs(job))
        self.engine.drain()

    def set_policy(self, tenant: str | None, **fields: Any) -> None:
        """Sets a policy as the API does, which sees it at once; workers here begin after that."""
        self.policies.put(tenant, Policy(**fields))

    def audit(self, **filter: Any) -> list[AuditEntry]:
        return list(AuditLog(self.redis, self.settings).page(limit=1_000, **filter).entries)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive(), "the API stops"


@contextmanager
def serving(settings: Settings, **changes: Any) -> Iterator[Served]:
    api = Served(settings.model_copy(update={"auth": "required", "log_level": "WARNING", **changes}))
    try:
        yield api
    finally:
        api.stop()


@pytest.fixture(scope="module")
def one_api(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    with serving(load_settings(_env_file=None, home=home, redis_url=server, lease_s=1.0, grace_s=0.6, reconcile_s=0.1)) as api:
        yield api


@pytest.fixture
def served(one_api: Served, settings: Settings) -> Served:
    """The API of this module over the store that `settings` has emptied."""
    one_api.begin()
    return one_api


class Tenants:
    """Acme, with a job of its own, and Mallory, who wants to know about it."""

    def __init__(self, served: Served, stack: ExitStack) -> None:
        self.served = served
        self.acme_key, self.mallory_key = served.key("acme"), served.key("mallory")
        self.acme = stack.enter_context(Client(served.url, api_key=self.acme_key.key, timeout=10))
        self.mallory = stack.enter_context(Client(served.url, api_key=self.mallory_key.key, timeout=10))
        self.http = stack.enter_context(httpx.Client(base_url=served.url, timeout=10, headers=bearer(self.mallory_key)))
        self.job = self.acme.submit(ADD, inputs={"a": 40}, idempotency_key="order 7").id


@pytest.fixture
def tenants(served: Served) -> Iterator[Tenants]:
    with ExitStack() as stack:
        yield Tenants(served, stack)


def bearer(key: NewKey | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key.key}"}


RESOLVE = {"call": "sum#0", "happened": True, "result": 1}

# What one tenant may try with the id of another's job: each must look as if there were no such job.
ATTEMPTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "look at it": ("GET", "/v1/jobs/{job}", {}),
    "read its result": ("GET", "/v1/jobs/{job}/result", {}),
    "read its plan": ("GET", "/v1/jobs/{job}/plan", {}),
    "read its calls": ("GET", "/v1/jobs/{job}/calls", {}),
    "read its calls from a cursor": ("GET", "/v1/jobs/{job}/calls?cursor=sum%230", {}),
    "read the calls of a step": ("GET", "/v1/jobs/{job}/calls?step=sum", {}),
    "list its files": ("GET", "/v1/jobs/{job}/artifacts", {}),
    "stream it": ("GET", "/v1/jobs/{job}/events", {}),
    "stream it from an event": ("GET", "/v1/jobs/{job}/events", {"headers": {"Last-Event-ID": "1-0"}}),
    "stream it for a moment": ("GET", "/v1/jobs/{job}/events?for_s=0", {}),
    "cancel it": ("POST", "/v1/jobs/{job}/cancel", {}),
    "retry it": ("POST", "/v1/jobs/{job}/retry", {}),
    "say that a call happened": ("POST", "/v1/jobs/{job}/resolve", {"json": RESOLVE}),
    "have a call run again": ("POST", "/v1/jobs/{job}/resolve", {"json": {"call": "sum#0", "retry": True}}),
    "name the tenant in a header": ("GET", "/v1/jobs/{job}", {"headers": {"X-Tenant": "acme", "Tenant": "acme"}}),
    "spell its id otherwise": ("GET", "/v1/jobs/%6aob_{tail}", {}),
    "come by a detour": ("GET", "/v1/jobs/x%2F..%2F{job}", {}),
    "override the method": ("GET", "/v1/jobs/{job}", {"headers": {"X-HTTP-Method-Override": "DELETE"}}),
    "rewrite the address": ("GET", "/v1/jobs/{job}", {"headers": {"X-Original-URL": "/v1/keys", "X-Rewrite-URL": "/v1/keys"}}),
}


def told(response: httpx.Response, job: str) -> tuple[Any, ...]:
    headers = {k: v for k, v in response.headers.items() if k not in ("date", "content-length")}
    return response.status_code, headers, response.text.replace(job, "JOB").replace(job.removeprefix("job_"), "TAIL")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_job_of_another_looks_like_none(tenants: Tenants, name: str) -> None:
    method, address, more = ATTEMPTS[name]
    made_up = f"job_{'0' * 16}"
    before = tenants.acme.job(tenants.job).view()

    answers = [
        tenants.http.request(method, address.format(job=job, tail=job.removeprefix("job_")), **more)
        for job in (tenants.job, made_up)
    ]

    assert answers[0].status_code == 404
    assert told(answers[0], tenants.job) == told(answers[1], made_up)
    assert "acme" not in answers[0].text
    assert tenants.acme.job(tenants.job).view() == before, "nothing changed"


def test_an_ended_job_of_another_looks_like_none_too(tenants: Tenants) -> None:
    tenants.served.run(tenants.job)
    assert tenants.acme.job(tenants.job).result(timeout=5) == 42

    for attempt in (
        lambda j: j.result(1),
        lambda j: j.retry(),
        lambda j: j.cancel(),
        lambda j: list(j.events()),
        lambda j: j.view(),
    ):
        with pytest.raises(NotFound):
            attempt(tenants.mallory.job(tenants.job))


def test_a_waiting_call_of_another_cannot_be_settled(tenants: Tenants) -> None:
    job = tenants.acme.submit({"steps": [{"id": "p", "tool": "pay", "input": {"amount": 5}}]})
    tenants.served.run(job.id)
    before = job.view()

    for verdict in ({"happened": True, "result": 1}, {"happened": False}, {"retry": True}):
        assert tenants.http.post(f"/v1/jobs/{job.id}/resolve", json={"call": "p#0", **verdict}).status_code == 404
    assert job.view() == before


def test_lists_hold_ones_own_jobs_only(tenants: Tenants) -> None:
    own = tenants.mallory.submit(ADD)
    acme_page = tenants.served.engine.store.list(tenant="acme", limit=1)
    cursor = f"{int(acme_page.jobs[0].created_at.timestamp() * 1000) + 1}-{tenants.job}"

    assert [j.id for j in tenants.mallory.jobs()] == [own.id]
    for query in ({"status": "planning"}, {"name": ""}, {"cursor": cursor}):
        assert tenants.job not in tenants.http.get("/v1/jobs", params=query).text
    for query in ({"tenant": "acme"}, {"tenant": ""}):
        assert tenants.http.get("/v1/jobs", params=query).status_code == 422


def test_anothers_idempotency_key_is_a_key_like_any_other(tenants: Tenants) -> None:
    same = tenants.mallory.submit(ADD, inputs={"a": 40}, idempotency_key="order 7")
    assert same.id != tenants.job, "the same key and body gave a job of one's own"

    other = tenants.http.post("/v1/tools/add/run", json={"input": {"a": 1}}, headers={"Idempotency-Key": "order 8"})
    assert other.status_code == 201
    tenants.acme.submit(ADD, idempotency_key="order 8")
    with pytest.raises(Conflict):
        tenants.mallory.submit(ADD, inputs={"a": 41}, idempotency_key="order 7")


@pytest.mark.parametrize(
    "body",
    [
        {"plan": ADD, "tenant": "acme"},
        {"plan": {**ADD, "tenant": "acme"}},
        {"plan": ADD, "caller": "admin"},
        {"plan": ADD, "by": "x"},
    ],
)
def test_the_tenant_comes_from_the_key_alone(tenants: Tenants, body: dict[str, Any]) -> None:
    assert tenants.http.post("/v1/jobs", json=body).status_code == 422
    assert [j.id for j in tenants.acme.jobs()] == [tenants.job]


def test_a_file_of_another_looks_like_none(tenants: Tenants) -> None:
    with httpx.Client(base_url=tenants.served.url, headers=bearer(tenants.acme_key)) as acme:
        made = acme.post("/v1/files", content=b"secret of acme", headers={"content-type": "text/plain"}).json()
        known, made_up = made["ref"], f"blob:sha256:{'0' * 64}"
        for method in ("GET", "HEAD", "DELETE"):
            answers = [tenants.http.request(method, f"/v1/files/{ref}") for ref in (known, made_up)]
            assert [a.status_code for a in answers] == [404, 404]
            assert "secret" not in answers[0].text
        assert known not in tenants.http.get("/v1/files").text
        assert tenants.http.get(f"/v1/blobs/acme/{known.removeprefix('blob:sha256:')}").status_code == 403, "that is for workers"
        assert tenants.http.post("/v1/blobs/acme", content=b"x").status_code == 403
        assert acme.get(f"/v1/files/{known}").content == b"secret of acme"


# Who is not let in, by what comes in the header.
STRANGERS: dict[str, Callable[[Tenants], dict[str, str]]] = {
    "no key": lambda t: {},
    "an empty key": lambda t: {"Authorization": "Bearer", "X-API-Key": ""},
    "another scheme": lambda t: {"Authorization": "Basic YWNtZTphY21l"},
    "no scheme": lambda t: {"Authorization": t.acme_key.key},
    "words": lambda t: bearer("let me in"),
    "a key without its secret": lambda t: bearer(f"tw_{t.acme_key.id}_"),
    "the id of one key, the secret of another": lambda t: bearer(f"tw_{t.acme_key.id}_{t.mallory_key.key.split('_', 2)[2]}"),
    "a secret with one letter changed": lambda t: bearer(t.acme_key.key[:-1] + ("A" if t.acme_key.key[-1] != "A" else "B")),
    "a key in capitals": lambda t: bearer(t.acme_key.key.upper()),
    "the hash of a secret": lambda t: bearer(f"tw_{t.acme_key.id}_{stored(t, 'hash')[:43]}"),
    "a key with a blank": lambda t: bearer(t.acme_key.key + " x"),
    "a star": lambda t: bearer(f"tw_*_{'x' * 43}"),
    "a very long key": lambda t: bearer("tw_" + "a" * 20_000),
    "an id that is made up": lambda t: {"X-API-Key": f"tw_{'0' * 12}_{'x' * 43}"},
}


def stored(tenants: Tenants, field: str) -> str:
    raw: Any = tenants.served.redis.hget(f"tw:apikey:{tenants.acme_key.id}", field)
    return str(raw.decode())


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_told_nothing_but_to_bring_a_key(tenants: Tenants, name: str) -> None:
    headers = STRANGERS[name](tenants)

    with httpx.Client(base_url=tenants.served.url) as http:
        for method, address in (
            ("GET", f"/v1/jobs/{tenants.job}"),
            ("POST", "/v1/jobs"),
            ("GET", "/v1/nothing"),
            ("GET", "/v1/tools"),
        ):
            response = http.request(method, address, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert response.json()["code"] == "unauthorized"
            assert response.json()["next"]
            assert "acme" not in response.text


def test_a_key_in_the_address_is_none(tenants: Tenants) -> None:
    with httpx.Client(base_url=tenants.served.url) as http:
        for name in ("key", "api_key", "access_token", "token"):
            assert http.get("/v1/jobs", params={name: tenants.acme_key.key}).status_code == 401


def test_both_headers_carry_a_key(tenants: Tenants) -> None:
    with httpx.Client(base_url=tenants.served.url) as http:
        assert http.get("/v1/jobs", headers={"X-API-Key": tenants.acme_key.key}).status_code == 200
        assert http.get("/v1/jobs", headers={"authorization": f"bearer {tenants.acme_key.key}"}).status_code == 200


def test_what_needs_no_key_tells_nothing_of_what_lies_within(tenants: Tenants) -> None:
    with httpx.Client(base_url=tenants.served.url) as http:
        health = http.get("/health").json()
        assert {c["detail"] for c in health["checks"].values()} == {""}
        assert http.get("/openapi.json").json()["components"]["securitySchemes"]
        for address in ("/", "/docs", "/openapi.json", "/health"):
            assert "acme" not in http.get(address).text


# The admins' addresses, as someone without that scope tries them.
ADMINS = {
    "read the figures": ("GET", "/v1/metrics/report", None),
    "list keys": ("GET", "/v1/keys", None),
    "list keys of another": ("GET", "/v1/keys?tenant=acme", None),
    "look at a key": ("GET", "/v1/keys/{key}", None),
    "make a key": ("POST", "/v1/keys", {"tenant": "acme", "scopes": ["admin"]}),
    "make a key for oneself": ("POST", "/v1/keys", {"tenant": "mallory", "scopes": ["admin"]}),
    "rotate a key": ("POST", "/v1/keys/{key}/rotate", {"grace_s": 0}),
    "revoke a key": ("POST", "/v1/keys/{key}/revoke", {}),
    "read the default rules": ("GET", "/v1/permissions", None),
    "read rules": ("GET", "/v1/permissions/acme", None),
    "change rules": ("PUT", "/v1/permissions/mallory", {"actions": {"*": ["*"]}}),
    "change the default rules": ("PUT", "/v1/permissions", {"actions": {"*": ["*"]}}),
    "take rules away": ("DELETE", "/v1/permissions/acme", None),
    "read the log": ("GET", "/v1/audit", None),
    "read the log of another": ("GET", "/v1/audit?tenant=acme", None),
    "come by a slash": ("GET", "/v1/keys/", None),
    "delete all of another": ("DELETE", "/v1/tenants/acme", None),
}


@pytest.mark.parametrize("name", ADMINS)
def test_the_rooms_of_admins_are_closed(tenants: Tenants, name: str) -> None:
    method, address, body = ADMINS[name]
    worker = tenants.served.key("mallory", "read", "write", "worker")
    before = tenants.served.keys.list()

    for key in (tenants.mallory_key, worker):
        response = tenants.http.request(method, address.format(key=tenants.acme_key.id), json=body, headers=bearer(key))
        assert response.status_code == 403
        assert response.json()["code"] == "missing_scope"
        assert "`admin`" in response.json()["detail"]
    assert [k.model_copy(update={"used": None}) for k in tenants.served.keys.list()] == [
        k.model_copy(update={"used": None}) for k in before
    ]
    assert tenants.served.policies.view("mallory").own is None


@pytest.mark.parametrize(
    ("scopes", "method", "address"),
    [
        (("read",), "POST", "/v1/jobs"),
        (("read",), "POST", "/v1/jobs/{job}/cancel"),
        (("read",), "POST", "/v1/jobs/{job}/retry"),
        (("read",), "POST", "/v1/tools/add/run"),
        (("read",), "POST", "/v1/files"),
        (("read",), "DELETE", "/v1/files/x"),
        (("write",), "GET", "/v1/jobs/{job}"),
        (("write",), "GET", "/v1/jobs/{job}/events"),
        (("write",), "GET", "/v1/files/x"),
        (("admin",), "GET", "/v1/jobs/{job}"),
        (("admin",), "POST", "/v1/jobs/{job}/cancel"),
        (("worker",), "GET", "/v1/jobs/{job}"),
        (("worker",), "POST", "/v1/jobs"),
    ],
)
def test_a_key_opens_what_its_scopes_say(tenants: Tenants, scopes: tuple[Scope, ...], method: str, address: str) -> None:
    key = tenants.served.key("acme", *scopes)
    before = tenants.acme.job(tenants.job).view()

    response = tenants.http.request(method, address.format(job=tenants.job), headers=bearer(key))

    assert response.status_code == 403
    assert response.json()["code"] == "missing_scope"
    assert tenants.acme.job(tenants.job).view() == before


def test_an_admin_sees_no_jobs_and_manages_keys(served: Served) -> None:
    with Client(served.url, api_key=served.key("ops", "admin").key) as admin:
        made = admin.access.create_key(CreateKeyRequest(tenant="acme", name="nightly"))
        assert made.key.startswith(f"tw_{made.id}_")
        assert [k.id for k in admin.access.keys("acme")] == [made.id]
        with pytest.raises(PermissionDenied, match="`read`"):
            list(admin.jobs())
        with Client(served.url, api_key=made.key) as acme:
            assert list(acme.jobs()) == []


@pytest.mark.parametrize("tenant", ["Acme", "a b", "a:b", "../x", "", "-a", "a" * 64, "acme\n", "ümlaut", "*"])
def test_a_tenants_name_is_checked(served: Served, tenant: str) -> None:
    headers = bearer(served.key("ops", "admin"))
    with httpx.Client(base_url=served.url, headers=headers) as http:
        assert http.post("/v1/keys", json={"tenant": tenant}).status_code == 422
        assert http.get("/v1/keys", params={"tenant": tenant}).status_code == 422
        assert http.get("/v1/audit", params={"tenant": tenant}).status_code == 422


@pytest.mark.parametrize(
    "policy",
    [
        {"actions": {"filesystem": ["WRITE"]}}, {"actions": {"a b": ["x"]}}, {"tools": ["x" * 129]}, {"tools": ["a\nb"]},
        {"tools": ["x"] * 257}, {"limits": {"jobs": -2}}, {"limits": {"cpu": 1}}, {"nonsense": 1},
        {"callers": {"k": {"limits": {}}}},
        {"actions": {f"c{i}": ["x"] for i in range(257)}},
    ],
)  # fmt: skip
def test_a_policy_is_checked(served: Served, policy: dict[str, Any]) -> None:
    with httpx.Client(base_url=served.url, headers=bearer(served.key("ops", "admin"))) as http:
        assert http.put("/v1/permissions/acme", json=policy).status_code == 422


# Keys from their making to their end.


def test_a_revoked_key_is_refused_within_two_seconds_and_its_streams_end(tenants: Tenants) -> None:
    with closing(iter(tenants.acme.job(tenants.job).events())) as events:
        assert next(events).type == "job.accepted"
        ended = threading.Event()
        raised: list[BaseException] = []

        def read_on() -> None:
            try:
                list(events)
            except Unauthorized as error:
                raised.append(error)
            ended.set()

        reader = threading.Thread(target=read_on)
        reader.start()
        revoked = time.monotonic()
        tenants.served.keys.revoke(tenants.acme_key.id)

        wait_until(lambda: refused(tenants.acme), description="the key is refused", timeout=EFFECTIVE_S)
        assert ended.wait(EFFECTIVE_S + 2.0), "the stream ends, and its reader is refused when it comes back"
        assert time.monotonic() - revoked < EFFECTIVE_S + 2.0
        reader.join()
    assert raised
    assert not refused(tenants.mallory)


def refused(client: Client) -> bool:
    try:
        list(client.jobs(limit=1))
    except Unauthorized:
        return True
    return False


def test_an_expired_key_is_refused(served: Served) -> None:
    with Client(served.url, api_key=served.key("acme", expires_s=1.5).key) as client:
        assert not refused(client)
        wait_until(lambda: refused(client), description="the key ends", timeout=1.5 + EFFECTIVE_S)


def test_after_a_rotation_both_secrets_are_valid_for_a_while(served: Served) -> None:
    old = served.key("acme")
    new = served.keys.rotate(old.id, grace_s=2.0)
    with Client(served.url, api_key=old.key) as before, Client(served.url, api_key=new.key) as after:
        assert not refused(before)
        assert not refused(after)
        wait_until(lambda: refused(before), description="the old secret ends", timeout=2.0 + EFFECTIVE_S)
        assert not refused(after)
    served.keys.revoke(old.id)
    with pytest.raises(Conflict):
        served.keys.rotate(old.id, grace_s=0)


def test_a_secret_is_nowhere_but_with_its_owner(served: Served, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("DEBUG")
    key = served.key("acme", "read", "write", "admin")
    secret = key.key.split("_", 2)[2]
    with Client(served.url, api_key=key.key) as client:
        client.submit(ADD)
        second = client.access.rotate_key(key.id)
        known = client.access.keys()
        assert secret not in "".join(k.model_dump_json() for k in known)
        assert secret not in repr(client) + repr(vars(client)) + repr(key)
    everything = b"".join(whole(served.redis, name) for name in served.redis.scan_iter())
    for text in (secret, second.key.split("_", 2)[2]):
        assert text.encode() not in everything
        assert text not in caplog.text
    assert served.keys.info(key.id).used is not None


def whole(client: redis.Redis, name: Any) -> bytes:
    """All that a key of Redis holds."""
    return bytes(client.dump(name) or b"") + repr(_readable(client, name)).encode()


def _readable(client: redis.Redis, name: Any) -> Any:
    kind: Any = client.type(name)
    read: dict[bytes, Callable[[Any], Any]] = {
        b"hash": client.hgetall, b"string": client.get, b"set": client.smembers, b"stream": client.xrange,
    }  # fmt: skip
    return read[kind](name) if kind in read else client.zrange(name, 0, -1) if kind == b"zset" else client.lrange(name, 0, -1)


def test_once_there_was_a_key_the_door_stays_shut(settings: Settings) -> None:
    with serving(settings, auth="auto") as api, httpx.Client(base_url=api.url) as http:
        assert http.get("/v1/jobs").status_code == 200
        assert http.get("/v1/jobs", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 403, "it came through a proxy"

        key = api.key("acme")

        wait_until(lambda: http.get("/v1/jobs").status_code == 401, description="a key is asked for", timeout=EFFECTIVE_S)
        api.keys.revoke(key.id)
        time.sleep(EFFECTIVE_S)
        assert http.get("/v1/jobs").status_code == 401, "revoking the last key lets nobody in"


# What one tenant may use up.


def test_a_flood_of_requests_is_its_own_tenants_trouble(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(requests=6))

    answers = [tenants.http.get("/v1/jobs") for _ in range(40)]

    limited = [a for a in answers if a.status_code == 429]
    assert len(limited) > 20
    assert limited[0].json()["code"] == "rate_limited"
    assert limited[0].json()["retryable"] is True
    assert int(limited[0].headers["retry-after"]) >= 1
    assert all(not refused(tenants.acme) for _ in range(20))
    other = tenants.served.key("mallory")
    assert tenants.http.get("/v1/jobs", headers=bearer(other)).status_code == 429, "another key is the same tenant"
    with pytest.raises(RateLimited):
        tenants.mallory.job(tenants.job).retry()  # is not sent again by itself


def test_refused_requests_count_and_open_addresses_do_not(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(requests=0))

    assert tenants.http.get("/v1/jobs").status_code == 429
    assert tenants.http.post("/v1/jobs", content=b"{", headers=JSON).status_code == 429
    assert tenants.http.get("/health").status_code == 200


def test_active_jobs_have_a_limit_and_ended_ones_give_way(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(jobs=2))
    jobs = [tenants.mallory.submit(ADD) for _ in range(2)]

    with pytest.raises(QuotaExceeded, match="2 jobs"):
        tenants.mallory.submit(ADD)
    with pytest.raises(QuotaExceeded):
        tenants.mallory.submit_tool("add", {"a": 1})
    tenants.acme.submit(ADD)

    tenants.served.run(jobs[0].id)
    third = wait_until(lambda: submitted(tenants.mallory), description="an ended job gives way", timeout=5)
    tenants.mallory.job(third).cancel()
    wait_until(lambda: submitted(tenants.mallory), description="a cancelled job gives way", timeout=5)
    with pytest.raises(QuotaExceeded):
        tenants.mallory.job(third).retry()


def submitted(client: Client) -> str | None:
    try:
        return client.submit(ADD).id
    except QuotaExceeded:
        return None


def test_many_at_once_do_not_slip_past_the_limit_of_jobs(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(jobs=5))
    made: list[str | None] = []
    threads = [threading.Thread(target=lambda: made.append(submitted(tenants.mallory))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([m for m in made if m]) == 5


def test_open_streams_have_a_limit_and_closed_ones_give_way(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(streams=2))
    job = tenants.mallory.submit(ADD)
    address = f"/v1/jobs/{job.id}/events"

    with ExitStack() as stack:
        open_ones = [stack.enter_context(tenants.http.stream("GET", address)).iter_raw() for _ in range(2)]
        assert all(next(stream) for stream in open_ones)
        refusal = tenants.http.get(address)
        assert refusal.status_code == 429
        assert refusal.json()["code"] == "quota_exceeded"
        assert next(iter(tenants.acme.job(tenants.job).events())).type == "job.accepted"

    def streams_again() -> bool:
        with tenants.http.stream("GET", address, params={"for_s": 0.1}) as response:
            return response.status_code == 200

    wait_until(streams_again, description="closed streams give their places back", timeout=10)


def test_stored_bytes_have_a_limit(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(file_bytes=1_000))

    assert tenants.http.post("/v1/files", content=b"x" * 800).status_code == 201
    refusal = tenants.http.post("/v1/files", content=b"y" * 800)
    assert refusal.status_code == 429
    assert refusal.json()["code"] == "quota_exceeded"
    with httpx.Client(base_url=tenants.served.url, headers=bearer(tenants.acme_key)) as acme:
        assert acme.post("/v1/files", content=b"y" * 800).status_code == 201


def test_in_a_full_store_one_may_look_and_cancel_and_keys_can_be_revoked(tenants: Tenants) -> None:
    client = tenants.served.redis
    client.config_set("maxmemory", "1mb")
    try:
        assert tenants.http.post("/v1/jobs", json={"plan": ADD}).status_code == 503
        assert not refused(tenants.acme)
        assert tenants.acme.job(tenants.job).cancel().status == "cancelled"
        tenants.served.keys.revoke(tenants.mallory_key.id)
        wait_until(lambda: refused(tenants.mallory), description="the key is refused", timeout=EFFECTIVE_S)
    finally:
        client.config_set("maxmemory", "0")


def test_a_tenant_may_be_kept_from_going_first(tenants: Tenants) -> None:
    tenants.served.set_policy("mallory", limits=Limits(priority="batch"))

    for priority in ("interactive", "normal"):
        response = tenants.http.post("/v1/jobs", json={"plan": ADD, "priority": priority})
        assert response.status_code == 403
        assert response.json()["path"] == "priority"
    assert tenants.http.post("/v1/jobs", json={"plan": ADD, "priority": "batch"}).status_code == 201
    assert tenants.http.post("/v1/tools/add/run", json={"input": {"a": 1}}).status_code == 403, "interactive by default"


def test_huge_headers_are_cut_off(tenants: Tenants) -> None:
    with socket.create_connection(("127.0.0.1", tenants.served.port), timeout=10) as connection:
        connection.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            send_forever(connection)
    assert not refused(tenants.acme)


def send_forever(connection: socket.socket) -> None:
    for _ in range(10_000):
        connection.sendall(b"x" * 65_536)


def test_whoever_says_nothing_is_let_go(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientNoMore, "headers_s", 0.5)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", tenants.served.port), timeout=10)) for _ in range(3)]
        slow[1].sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: loc")
        slow[2].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")  # the first request is whole, the second is not
        assert slow[2].recv(1_000).startswith(b"HTTP/1.1 200")
        slow[2].sendall(b"GET /health HTT")
        for connection in slow:
            while connection.recv(65_536):
                pass
    assert not refused(tenants.acme)


def test_a_slow_body_does_not_hold_a_place_for_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_app, "__kwdefaults__", {**create_app.__kwdefaults__, "body_s": 0.5})
    with serving(settings) as api:
        key = api.key("mallory")
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
            head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key.key}\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"{")
            answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_stranger_cannot_make_us_read_a_body(tenants: Tenants) -> None:
    with socket.create_connection(("127.0.0.1", tenants.served.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401"), "refused before the first byte of the body"


# Permissions.


def test_a_forbidden_step_is_refused_before_anything_is_stored(tenants: Tenants) -> None:
    plan = {
        "steps": [
            {"id": "a", "tool": "add", "input": {"a": 1}},
            {"id": "w", "tool": "write_file", "input": {"text": "x"}},
            {"id": "v", "tool": "write_file", "input": {"text": "y"}},
        ]
    }

    response = tenants.http.post("/v1/jobs", json={"plan": plan})

    problem = response.json()
    assert response.status_code == 403
    assert problem["code"] == "permission_denied"
    assert [p["path"] for p in problem["problems"]] == ["steps[1].tool", "steps[2].tool"]
    assert {p["message"] for p in problem["problems"]} == {"Permission denied: write not allowed"}
    assert "toolweaver permissions set mallory --allow filesystem:write" in problem["problems"][0]["next"]
    assert not list(tenants.mallory.jobs())
    with pytest.raises(PermissionDenied) as caught:
        tenants.mallory.submit_tool("write_file", {"text": "x"})
    assert (caught.value.message, caught.value.path) == ("Permission denied: write not allowed", "name")


def test_the_check_of_a_plan_asks_for_the_permissions_of_its_caller(tenants: Tenants) -> None:
    steps = [{"id": "a", "tool": "add", "input": {"a": 1}}, {"id": "w", "tool": "write_file", "input": {"text": "step:a"}}]

    response = tenants.http.post("/v1/plans/check", json={"plan": {"steps": steps}})

    found = {p["code"]: p for p in response.json()["problems"]}
    assert response.status_code == 422
    assert set(found) == {"permission_denied", "wrong_type"}, "with all other problems"
    assert found["permission_denied"]["path"] == "steps[1].tool"
    assert "toolweaver permissions set mallory --allow filesystem:write" in found["permission_denied"]["message"]
    assert found["wrong_type"]["example"].startswith("`step:a` may give")
    assert tenants.http.post("/v1/plans/check", json={"plan": {"steps": steps[:1]}}).status_code == 200


def test_a_message_that_went_round_the_api_is_refused_by_the_worker(served: Served) -> None:
    plan = Plan.model_validate({"steps": [{"id": "w", "tool": "write_file", "input": {"text": "x"}}]})
    job, _ = served.engine.store.submit(plan, inputs={}, tenant="mallory")

    served.run(job)

    result = served.engine.store.result(job, tenant="mallory")
    (error,) = result.errors
    assert result.status == "failed"
    assert (error.code, error.family) == ("permission_denied", "policy")
    assert error.message == "Permission denied: write not allowed"
    assert error.next is not None
    assert "filesystem:write" in error.next
    assert error.attempt == 1, "it is not tried again"


def test_what_is_allowed_for_one_tenant_runs_for_that_one(tenants: Tenants) -> None:
    tenants.served.set_policy("acme", actions={"filesystem": ("read", "write")})

    job = tenants.acme.submit_tool("write_file", {"text": "x"})
    tenants.served.run(job.id)

    assert job.result(timeout=5) == "x"
    with pytest.raises(PermissionDenied):
        tenants.mallory.submit_tool("write_file", {"text": "x"})


def test_a_permission_that_is_taken_back_holds_for_jobs_that_wait(tenants: Tenants) -> None:
    tenants.served.set_policy("acme", actions={"filesystem": ("write",)})
    job = tenants.acme.submit_tool("write_file", {"text": "x"})

    tenants.served.set_policy("acme", actions={"filesystem": ("read",)})
    tenants.served.run(job.id)

    assert job.view().status == "failed"


def test_a_change_of_rules_is_seen_by_every_process(served: Served) -> None:
    elsewhere = PolicyStore(served.redis, served.settings)
    assert elsewhere.of("acme").tools == ("*",)

    served.set_policy(None, tools=("add",))

    wait_until(lambda: elsewhere.of("acme").tools == ("add",), description="the new rules hold", timeout=FRESH_S + 0.5)


def test_rules_name_tools_and_callers(tenants: Tenants) -> None:
    nightly = tenants.served.key("acme", name="nightly")
    tenants.served.set_policy("acme", forbidden_tools=("pay",), callers={"night*": Rules(forbidden_tools=("add",))})
    night = Client(tenants.served.url, api_key=nightly.key)
    with night, pytest.raises(PermissionDenied, match="tool add not allowed"):
        night.submit(ADD)
    with pytest.raises(PermissionDenied, match="tool pay not allowed"):
        tenants.acme.submit_tool("pay", {"amount": 1})
    tenants.acme.submit(ADD)

    plan = Plan.model_validate({"steps": [{"id": "s", "tool": "add", "input": {"a": 1}}]})
    job, _ = tenants.served.engine.store.submit(plan, inputs={}, tenant="acme", caller=f"{nightly.id} nightly")
    tenants.served.run(job)
    assert tenants.served.engine.store.result(job, tenant="acme").errors[0].message == "Permission denied: tool add not allowed"


# The log.


def test_the_log_says_who_did_what(tenants: Tenants) -> None:
    tenants.acme.job(tenants.job).cancel()
    tenants.http.get(f"/v1/jobs/{tenants.job}")
    with httpx.Client(base_url=tenants.served.url) as http:
        http.get("/v1/jobs", headers=bearer("tw_nothing"))
    admin = tenants.served.key("ops", "admin")
    with Client(tenants.served.url, api_key=admin.key) as client:
        client.access.set_permissions("acme", Policy(tools=("add",)))
        tenants.http.get("/v1/keys")

        entries = wait_until(lambda: _enough(list(client.access.audit())), description="all is in the log", timeout=5)

    rows = {(e.tenant, e.action, e.object, e.verdict) for e in entries}
    assert {
        ("acme", "jobs.submit", tenants.job, "ok"),
        ("acme", "jobs.cancel", tenants.job, "ok"),
        ("mallory", "jobs.view", tenants.job, "not_found"),
        ("-", "GET /v1/jobs", "", "unauthorized"),
        ("ops", "permissions.set_permissions", "acme", "ok"),
        ("mallory", "GET /v1/keys", "", "denied"),
    } <= rows
    submit = next(e for e in entries if e.action == "jobs.submit")
    assert (submit.key, submit.name, submit.address, submit.status) == (tenants.acme_key.id, "key", "127.0.0.1", 201)
    assert [e.id for e in entries] == sorted((e.id for e in entries), key=_order, reverse=True), "newest first"


def _enough(entries: list[AuditEntry]) -> list[AuditEntry] | None:
    return entries if any(e.verdict == "denied" for e in entries) else None


def _order(id: str) -> tuple[int, int]:
    ms, _, number = id.partition("-")
    return int(ms), int(number)


def test_one_tenants_flood_does_not_wash_out_what_is_known_of_another(settings: Settings, client: redis.Redis) -> None:
    log = AuditLog(client, settings.model_copy(update={"audit_max": 100}))
    log.write(Caller(tenant="acme", key="k"), "jobs.cancel", "job_1")
    for _ in range(500):
        log.write(Caller(tenant="mallory", key="m"), "jobs.submit")

    assert [e.object for e in log.page(tenant="acme").entries] == ["job_1"]
    assert len(log.page(tenant="mallory", limit=1_000).entries) < 300


def test_pages_of_the_log_are_whole(settings: Settings, client: redis.Redis) -> None:
    log = AuditLog(client, settings)
    for i in range(53):
        log.write(Caller(tenant=f"t{i % 3}", key="k"), "jobs.submit", f"job_{i}")
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = log.page(limit=10, cursor=cursor)
        found += [e.object for e in page.entries]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(found) == sorted(f"job_{i}" for i in range(53))
    for bad in ("x", "1", "1-2", "1-x-acme", "9" * 20 + "-0-acme", "-1-0-acme"):
        with pytest.raises(Exception, match="cursor"):
            log.page(cursor=bad)


def test_the_file_of_the_log_is_private_and_holds_no_secret(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with serving(settings, audit_file=path) as api:
        key = api.key("acme")
        with Client(api.url, api_key=key.key) as client:
            job = client.submit({**ADD, "inputs": {"a": 987654321}})
            job.cancel()
        wait_until(lambda: path.exists() and path.read_text().count("\n") >= 2, description="the log is written")
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [(e["tenant"], e["action"], e["object"]) for e in lines] == [
        ("acme", "jobs.submit", job.id), ("acme", "jobs.cancel", job.id),
    ]  # fmt: skip
    assert key.key.split("_", 2)[2] not in path.read_text()
    assert "987654321" not in path.read_text()


def test_the_address_in_the_log_cannot_be_made_up(settings: Settings) -> None:
    for known, (proxies, expected) in enumerate((((), "127.0.0.1"), (("127.0.0.1",), "203.0.113.7"))):
        with serving(settings, api_proxies=proxies) as api, httpx.Client(base_url=api.url, headers=bearer(api.key("acme"))) as http:
            forwarded = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7", "Idempotency-Key": f"k{len(proxies)}"}
            assert http.post("/v1/jobs", json={"plan": ADD}, headers=forwarded).status_code == 201
            entries = wait_until(lambda n=known: api.audit(tenant="acme")[: -n or None], description="the log has it")
            assert entries[0].address == expected


# The way in, from start to command.


def test_a_key_does_not_follow_a_redirect(served: Served) -> None:
    seen: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    thief = HTTPServer(("127.0.0.1", 0), Thief)
    target = f"http://127.0.0.1:{thief.server_port}/"

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("Location", target)
            self.end_headers()

        log_message = Thief.log_message

    redirecting = HTTPServer(("127.0.0.1", 0), Redirecting)
    for server in (thief, redirecting):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        client = Client(f"http://127.0.0.1:{redirecting.server_port}", api_key=served.key("acme").key)
        with client, pytest.raises(BackendError):
            client.tools()
    finally:
        for server in (thief, redirecting):
            server.shutdown()
            server.server_close()
    assert seen == []


async def test_the_async_client_sends_its_key_too(served: Served) -> None:
    async with AsyncClient(served.url, api_key=served.key("acme", "read", "admin").key) as client:
        assert [j async for j in client.jobs()] == []
        assert [k.tenant for k in await client.access.keys()] == ["acme"]
    async with AsyncClient(served.url, api_key="tw_wrong_key") as client:
        with pytest.raises(Unauthorized):
            await client.tools()


def command(*words: str, **env: str) -> Result:
    gone = {k: None for k in os.environ if k.startswith("TOOLWEAVER_")}
    return CliRunner().invoke(cli, list(words), env={**gone, **env})


def first_key(served: Served) -> str:
    """The first key, as it is made on a shell: that command becomes another process."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("TOOLWEAVER_")}
    store = {"TOOLWEAVER_REDIS_URL": str(served.settings.redis_url), "TOOLWEAVER_HOME": str(served.settings.home)}
    words = [sys.executable, "-m", "orchestrator.cli", "keys", "create", "--admin", "--local"]
    done = subprocess.run(words, env=own | store, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() not in done.stderr
    return done.stdout.strip()


def test_the_commands_from_the_first_key_to_the_log(served: Served) -> None:
    key = first_key(served)
    at = {"TOOLWEAVER_URL": served.url, "TOOLWEAVER_HOME": str(served.settings.home)}
    admin = at | {"TOOLWEAVER_API_KEY": key}

    made = command("keys", "create", "--tenant", "acme", "--name", "nightly", "--expires", "90d", **admin).stdout.strip()
    acme = at | {"TOOLWEAVER_API_KEY": made}
    assert command("jobs", **acme).exit_code == 0
    for words, env, says in (
        (("jobs",), at, "TOOLWEAVER_API_KEY"),
        (("jobs",), at | {"TOOLWEAVER_API_KEY": "tw_wrong_key"}, "not valid"),
        (("keys", "list"), acme, "`admin`"),
    ):
        failed = command(*words, **env)
        assert failed.exit_code == 2
        assert says in failed.stderr
        assert "Traceback" not in failed.stderr
    assert "***" in command("config", **acme).stdout
    assert made not in command("config", **acme).stdout

    shown = json.loads(
        command("permissions", "set", "acme", "--allow", "filesystem:write", "--limit", "jobs=5", "--json", **admin).stdout
    )
    assert shown["own"]["limits"]["jobs"] == 5
    assert "write" in shown["effective"]["actions"]["filesystem"]
    assert "read" in shown["effective"]["actions"]["filesystem"], "what was allowed stays"
    assert "filesystem" in command("permissions", "show", "acme", **admin).stdout
    shown = json.loads(command("permissions", "set", "acme", "--forbid", "network:*", "--json", **admin).stdout)
    assert "network" not in shown["effective"]["actions"]
    assert json.loads(command("permissions", "set", "acme", "--reset", "--json", **admin).stdout)["own"] is None

    assert command("purge", "acme", "--yes", **acme).exit_code == 2
    assert json.loads(command("purge", "acme", "--yes", "--json", **admin).stdout) == {
        "tenant": "acme", "jobs": 0, "cancelled": 0, "files": 0,
    }  # fmt: skip

    rotated = json.loads(command("keys", "rotate", made.split("_")[1], "--json", **admin).stdout)
    assert rotated["key"] != made
    assert command("keys", "revoke", made.split("_")[1], **admin).exit_code == 0
    assert "revoked" in command("keys", "list", **admin).stdout
    log = command("audit", **admin).stdout
    for word in ("shell", "keys.create_key", "permissions.set_permissions", "keys.revoke_key", "denied"):
        assert word in log
    assert key.split("_", 2)[2] not in log + command("keys", "list", "--json", **admin).stdout


def test_the_log_shows_programs_in_a_line_and_whole_as_json(served: Served) -> None:
    detail = Detail(
        {"execution_id": "code_exec_1", "calls": 46, "execution_time": 2.31, "cpu_s": 0.12}, {"tool_calls": [{"tool": "add"}]}
    )
    AuditLog(served.redis, served.settings).write(
        Caller(tenant="acme", key="k", name="nightly"), "program.run", "job_1/run#0", verdict="timeout", detail=detail
    )
    admin = {"TOOLWEAVER_URL": served.url, "TOOLWEAVER_API_KEY": served.key("ops", "admin").key}

    (line,) = [row for row in command("audit", "--tenant", "acme", **admin).stdout.splitlines() if "program.run" in row]
    for word in ("nightly", "job_1/run#0", "timeout", "code_exec_1 · 46 calls · 2.31 s · cpu 0.12 s"):
        assert word in line
    (entry,) = json.loads(command("audit", "--tenant", "acme", "--json", **admin).stdout)
    assert entry["detail"] == {**detail.figures, **detail.rest}


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "create", "--tenant", "A B"), ("keys", "create", "--expires", "soon"), ("keys", "create", "--scope", "root"),
        ("permissions", "set", "acme", "--allow", "write"), ("permissions", "set", "acme", "--limit", "cpu=1"),
    ],
)  # fmt: skip
def test_what_a_command_cannot_take(served: Served, words: tuple[str, ...]) -> None:
    key = served.key("ops", "admin").key
    failed = command(*words, TOOLWEAVER_URL=served.url, TOOLWEAVER_API_KEY=key, TOOLWEAVER_HOME=str(served.settings.home))

    assert failed.exit_code == 2
    assert "Traceback" not in failed.stderr


def test_beyond_loopback_with_tls(settings: Settings, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    ca, cert, private = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(str(ca))
    issued.private_key_pem.write_to_path(str(private))
    cert.write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
    env = {k: v for k, v in os.environ.items() if not k.startswith("TOOLWEAVER_")} | {
        "TOOLWEAVER_REDIS_URL": str(settings.redis_url), "TOOLWEAVER_HOME": str(settings.home), "TOOLWEAVER_API_HOST": "0.0.0.0",
        "TOOLWEAVER_API_PORT": "0", "TOOLWEAVER_API_TLS_CERT": str(cert), "TOOLWEAVER_API_TLS_KEY": str(private),
    }  # fmt: skip
    api = [sys.executable, "-m", "orchestrator.api"]
    none_yet = subprocess.run(api, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert none_yet.returncode == 2
    assert "toolweaver keys create --admin --local" in none_yet.stderr
    key = KeyStore(redis.Redis.from_url(str(settings.redis_url))).create(CreateKeyRequest(tenant="acme"))
    for bad in ({"api_tls_key": ca}, {"api_tls_key": tmp_path / "none"}, {"api_tls_key": None}):
        with pytest.raises(RequestError) as caught:
            tls_options(settings.model_copy(update={"api_tls_cert": cert, **bad}))
        assert caught.value.path == "TOOLWEAVER_API_TLS_CERT"

    with subprocess.Popen(api, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "answers at" in line), "")
        try:
            assert "https://" in line
            url = f"https://127.0.0.1:{line.strip().rsplit(':', 1)[1]}"
            trusting = load_settings(_env_file=None, home=settings.home, api_ca=ca)
            with Client(url, api_key=key.key, settings=trusting) as client:
                assert list(client.jobs()) == []
            wary = Client(url, api_key=key.key, settings=load_settings(_env_file=None, home=settings.home))
            with wary, pytest.raises(BackendError, match="certificate"):
                list(wary.jobs())
            with Client(url, settings=trusting) as client:
                assert refused(client)
        finally:
            process.kill()


def test_who_is_refused_a_thousand_times_is_told_of_once(settings: Settings, client: redis.Redis) -> None:
    log = AuditLog(client, settings)
    for _ in range(1_000):
        log.write(None, "GET /v1/jobs", verdict="unauthorized", status=401, address="203.0.113.7")

    assert len(log.page(tenant=audit_room.NOBODY, limit=1_000).entries) <= 5


def test_a_worker_is_not_told_apart_by_tenants(tenants: Tenants) -> None:
    info: list[KeyInfo] = tenants.served.keys.list()
    assert {k.tenant for k in info} == {"acme", "mallory"}
    worker = tenants.served.key("ops", "worker")
    tenants.served.set_policy("ops", limits=Limits(requests=1))
    for _ in range(20):
        response = tenants.http.get(f"/v1/blobs/acme/{'0' * 64}", headers=bearer(worker))
        assert response.status_code == 404, "a worker is not limited"
