"""Which way in the API has: open on loopback, with keys beyond; which hosts and pages it serves; what needs which scope."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers

from orchestrator.api.auth import always_keyed, check_mode, needed_scope
from orchestrator.api.hosts import Hosts
from orchestrator.errors import RequestError
from orchestrator.settings import Settings, load_settings


def settings(**fields: Any) -> Settings:
    return load_settings(_env_file=None, **fields)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_on_loopback_keys_are_a_choice(host: str) -> None:
    check_mode(settings(api_host=host))
    check_mode(settings(api_host=host, auth="off"))
    assert not always_keyed(settings(api_host=host))
    assert always_keyed(settings(api_host=host, auth="required"))


SHARED: list[dict[str, Any]] = [
    *({"api_host": host} for host in ("0.0.0.0", "::", "192.168.1.5", "example.org")),
    {"api_hosts": "tools.example.org"},
    {"api_proxies": "10.0.0.2"},
    {"api_host": "0.0.0.0", "api_in_container": True, "api_hosts": "tools.example.org"},
]


@pytest.mark.parametrize("fields", SHARED)
def test_others_need_a_key_and_it_cannot_be_turned_off(fields: dict[str, Any]) -> None:
    assert always_keyed(settings(**fields))
    with pytest.raises(RequestError) as caught:
        check_mode(settings(**fields, auth="off"))
    assert caught.value.path == "TOOLWEAVER_AUTH"


def test_a_container_whose_port_is_on_loopback_counts_as_loopback() -> None:
    contained = settings(api_host="0.0.0.0", api_in_container=True)

    check_mode(contained)
    assert not always_keyed(contained)
    assert Hosts(contained).refusal(Headers({"host": "127.0.0.1:8400"})) is None
    assert Hosts(contained).refusal(Headers({"host": "192.168.1.5"})) is not None


SERVED = [
    ({}, {"host": "localhost"}, True),
    ({}, {"host": "127.0.0.1:8400"}, True),
    ({}, {"host": "[::1]:8400"}, True),
    ({}, {"host": "evil.example"}, False),
    ({}, {"host": "localhost.evil.example"}, False),
    ({}, {}, False),
    ({}, {"host": "localhost", "origin": "http://localhost:3000"}, True),
    ({}, {"host": "localhost", "origin": "https://evil.example"}, False),
    ({}, {"host": "localhost", "origin": "null"}, False),
    ({"api_hosts": "tools.example.org"}, {"host": "Tools.Example.org:443"}, True),
    ({"api_hosts": "tools.example.org"}, {"host": "tools.example.org."}, True),
    ({"api_hosts": "tools.example.org"}, {"host": "other.example.org"}, False),
    ({"api_hosts": "tools.example.org"}, {"host": "tools.example.org", "origin": "https://tools.example.org"}, True),
    ({"api_hosts": "tools.example.org"}, {"host": "tools.example.org", "origin": "https://evil.example"}, False),
    ({"api_host": "192.168.1.5"}, {"host": "192.168.1.5:8400"}, True),
    ({"api_host": "192.168.1.5"}, {"host": "192.168.1.6:8400"}, False),
    ({"api_host": "0.0.0.0"}, {"host": "192.168.1.5:8400"}, True),
    ({"api_host": "0.0.0.0"}, {"host": "192.168.1.5:8400", "origin": "https://evil.example"}, False),
    ({"api_host": "0.0.0.0", "api_hosts": "a.example"}, {"host": "192.168.1.5:8400"}, False),
]


@pytest.mark.parametrize(("fields", "headers", "served"), SERVED)
def test_which_hosts_and_pages_are_served(fields: dict[str, Any], headers: dict[str, str], served: bool) -> None:
    assert (Hosts(settings(**fields)).refusal(Headers(headers)) is None) is served


SCOPES = [
    ("GET", "/", None),
    ("GET", "/health", None),
    ("GET", "/openapi.json", None),
    ("GET", "/static-offline-docs/swagger-ui.css", None),
    ("POST", "/health", "write"),
    ("GET", "/v1/jobs", "read"),
    ("HEAD", "/v1/jobs", "read"),
    ("POST", "/v1/jobs", "write"),
    ("POST", "/v1/jobs/x/cancel", "write"),
    ("POST", "/v1/plans/check", "read"),
    ("POST", "/v1/plans/check/", "write"),
    ("DELETE", "/v1/files/x", "write"),
    ("GET", "/v1/keys", "admin"),
    ("GET", "/v1/keys/", "admin"),
    ("GET", "/v1/permissions/acme", "admin"),
    ("GET", "/v1/audit", "admin"),
    ("GET", "/metrics", "admin"),
    ("GET", "/whatever/comes", "read"),
    ("PATCH", "/whatever/comes", "write"),
    ("GET", "/healthy", "read"),
]


@pytest.mark.parametrize(("method", "path", "scope"), SCOPES)
def test_everything_needs_a_scope_but_what_is_named(method: str, path: str, scope: str | None) -> None:
    assert needed_scope(method, path) == scope
