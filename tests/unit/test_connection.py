"""Which errors of Redis pass by themselves, and how URLs reach the libraries that speak to a broker."""

from __future__ import annotations

import ssl

import pytest
from redis import exceptions

from orchestrator.broker.app import make_app
from orchestrator.broker.rabbitmq import split_tls
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import STORE_AWAY, connect, connect_async, transient

CA = "/etc/ca.pem"


def settings(**urls: str) -> Settings:
    return load_settings(_env_file=None, **urls)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionError("reset"),
        exceptions.TimeoutError("slow"),
        exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        exceptions.ReadOnlyError("You can't write against a read only replica."),
        exceptions.MasterDownError("Link with MASTER is down"),
        exceptions.ClusterDownError("CLUSTERDOWN The cluster is down"),
        exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        exceptions.ResponseError("BUSY Redis is busy running a script."),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
)
def test_an_outage_passes(error: Exception) -> None:
    assert transient(error)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        exceptions.ResponseError("user_script:1: attempt to index a nil value, BUSY is only part of the text"),
        exceptions.NoPermissionError("this user has no permissions to run the 'eval' command"),
        exceptions.DataError("invalid input"),
        ValueError("BUSY"),
    ],
)
def test_a_defect_does_not_pass(error: Exception) -> None:
    assert not transient(error)


def test_what_passes_can_be_caught_by_class() -> None:
    assert all(transient(kind("away")) for kind in STORE_AWAY)


def test_both_clients_keep_their_connections_alive_and_wait_no_longer_than_said() -> None:
    made = settings(redis_url="rediss://user:secret@redis.example:6380/2?ssl_ca_certs=" + CA)
    for client in (connect(made, timeout_s=7), connect_async(made, timeout_s=7)):
        options = client.connection_pool.connection_kwargs
        assert options["ssl_ca_certs"] == CA
        assert options["username"] == "user"
        assert options["socket_keepalive"]
        assert options["socket_timeout"] == 7
    local = connect(settings(redis_url="unix:///tmp/redis.sock?db=0")).connection_pool.connection_kwargs
    assert "socket_keepalive" not in local, "a unix socket knows none"


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs=/etc/ca.pem"])
def test_the_broker_checks_certificates_like_the_store(query: str) -> None:
    """kombu alone would take any certificate where the URL does not say otherwise."""
    broker = make_app(settings(redis_url=f"rediss://user:secret@redis.example:6380/2{query}")).connection_for_write()
    assert broker.ssl["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert broker.ssl.get("ssl_ca_certs") == (CA if query else None)
    lax = make_app(settings(redis_url="rediss://redis.example:6380/0?ssl_cert_reqs=none")).connection_for_write()
    assert lax.ssl["ssl_cert_reqs"] is ssl.CERT_NONE, "who says so in so many words gets it"


def test_the_tls_of_a_rabbitmq_url() -> None:
    assert split_tls("amqp://u:p@rabbit.example//") == ("amqp://u:p@rabbit.example//", None)
    url, tls = split_tls(f"amqps://u:p@rabbit.example/jobs?ssl_ca_certs={CA}&ssl_certfile=/c&ssl_keyfile=/k&login_method=PLAIN")
    assert url == "amqps://u:p@rabbit.example/jobs?login_method=PLAIN"
    assert tls == {
        "ca_certs": CA, "certfile": "/c", "keyfile": "/k", "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "rabbit.example",
    }  # fmt: skip
    assert split_tls("amqps://rabbit.example//?ssl_cert_reqs=none&ssl_check_hostname=false")[1] == {"cert_reqs": ssl.CERT_NONE}


def test_no_password_in_what_celery_shows() -> None:
    for url in ("amqp://user:secret@rabbit.example/jobs", "rediss://user:secret@redis.example/0"):
        app = make_app(settings(redis_url="redis://redis.example/0", broker_url=url))
        assert "secret" not in app.connection_for_write().as_uri()
        assert "user:**@" in app.connection_for_write().as_uri()
