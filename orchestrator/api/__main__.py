"""The API's process: `python -m orchestrator.api`. SIGTERM and Ctrl-C stop it in order, open streams included.

`python -m orchestrator.api keys create --admin` makes the first key, right in the store.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # while modules are loaded, of which nothing is garbage: looking for it took a fifth of the start

import argparse
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Sequence

import uvicorn
from pydantic import ValidationError
from redis.exceptions import RedisError

from orchestrator.api.app import create_app
from orchestrator.api.auth import HOW_TO_MAKE, always_keyed, check_mode, shared
from orchestrator.api.hosts import is_loopback
from orchestrator.api.protocol import HEADER_BYTES, PatientNoMore
from orchestrator.errors import BackendError, RequestError, ToolWeaverError
from orchestrator.loaded import settle
from orchestrator.models.access import Caller, CreateKeyRequest
from orchestrator.policy.audit import AuditLog
from orchestrator.policy.keys import KeyStore
from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect

log = logging.getLogger(__name__)

STOP_WITHIN_S = 3
EXIT = {RequestError: 2, BackendError: 3}
SHELL = "shell"  # what the audit log calls whoever makes a key right in the store


def check_access(settings: Settings, keys: KeyStore) -> None:
    """Refuses to serve others than this machine's users without keys.

    Raises:
        RequestError: keys are off, or required and there is none.
    """
    check_mode(settings)
    if not always_keyed(settings):
        return
    try:
        there = any(k.valid for k in keys.list())
    except RedisError as error:
        log.warning("whether there is a key is not known yet: %s", error, extra={"action": "keys_unknown"})
        return  # no request gets in without one either
    if not there:
        raise RequestError("Requests need a key here, and there is no valid one.", path="TOOLWEAVER_AUTH", next=HOW_TO_MAKE)


def tls_options(settings: Settings) -> dict[str, str]:
    """What uvicorn needs for https; empty for http.

    Raises:
        RequestError: certificate or key cannot be used.
    """
    if settings.api_tls_cert is None and settings.api_tls_key is None:
        return {}
    if settings.api_tls_cert is None or settings.api_tls_key is None:
        raise RequestError(
            "For https a certificate and its key are needed; one of them is not set.",
            path="TOOLWEAVER_API_TLS_CERT",
            next="Set TOOLWEAVER_API_TLS_CERT and TOOLWEAVER_API_TLS_KEY, or neither.",
        )
    cert, key = str(settings.api_tls_cert), str(settings.api_tls_key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise RequestError(
            f"`{cert}` and `{key}` cannot be used for https: {error}.",
            path="TOOLWEAVER_API_TLS_CERT",
            next="Give PEM files that fit.",
        ) from None
    return {"ssl_certfile": cert, "ssl_keyfile": key}


def listen(host: str, port: int) -> socket.socket:
    """The listening socket.

    Raises:
        BackendError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle on: 40 ms an answer
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # who comes before the app is ready waits instead of being refused
    except OSError as error:
        listener.close()
        raise BackendError(
            f"cannot listen on {host}:{port}: {error.strerror}", next="Set TOOLWEAVER_API_PORT to a free port."
        ) from None
    return listener


def serve(settings: Settings) -> None:
    """Serves until a signal comes; open streams end within a second, other requests within three."""
    check_access(settings, KeyStore(connect(settings, retries=1, timeout_s=5.0)))
    config = server_config(settings)
    listener = listen(settings.api_host, settings.api_port)
    host, port = listener.getsockname()[:2]
    scheme = "https" if config.is_ssl else "http"
    log.info("the API answers at %s://%s:%d", scheme, host, port, extra={"action": "api_start"})
    if shared(settings) and not config.is_ssl and not settings.api_proxies and not is_loopback(settings.api_host):
        log.warning(
            "keys travel unencrypted: set TOOLWEAVER_API_TLS_CERT, or put a proxy with TLS in front", extra={"action": "api_clear"}
        )
    settle()
    uvicorn.Server(config).run(sockets=[listener])


def server_config(settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        create_app(settings),
        http=PatientNoMore,
        h11_max_incomplete_event_size=HEADER_BYTES,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=STOP_WITHIN_S,
        server_header=False,
        lifespan="on",
        proxy_headers=bool(settings.api_proxies),  # else anybody could claim any address
        forwarded_allow_ips=list(settings.api_proxies),
        **tls_options(settings),  # type: ignore[arg-type]
    )


def create_key(settings: Settings, words: Sequence[str]) -> None:
    """Makes a key right in the store, for whoever can reach it: its text is printed, and nowhere else.

    Raises:
        RequestError: tenant, name or scopes are none.
    """
    parser = argparse.ArgumentParser(prog="python -m orchestrator.api keys create", description=create_key.__doc__)
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--name", default="admin")
    parser.add_argument("--admin", action="store_true", help="with the scope `admin` too")
    parser.add_argument("--scope", action="append", help="read, write, admin or worker; may be repeated; default: read and write")
    parser.add_argument("--expires-s", type=float, default=None, help="seconds until it ends; default: never")
    parser.add_argument("--json", action="store_true", help="print all that is known of it as JSON")
    given = parser.parse_args(words)
    scopes = [*(given.scope or ("read", "write")), *(("admin",) if given.admin else ())]
    try:
        request = CreateKeyRequest.model_validate(
            {"tenant": given.tenant, "name": given.name, "scopes": list(dict.fromkeys(scopes)), "expires_s": given.expires_s}
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise RequestError(first["msg"], path=place, next="A tenant is lower-case letters, digits, `-` and `_`.") from None
    client = connect(settings, retries=1, timeout_s=5.0)
    try:
        made = KeyStore(client).create(request)
    except RedisError as error:
        raise BackendError(
            f"The store does not answer: {error}", next="Set TOOLWEAVER_REDIS_URL, or start `toolweaver up`."
        ) from None
    AuditLog(client, settings).write(Caller(tenant=made.tenant, key=SHELL, name=SHELL), "keys.create_key", made.id)
    sys.stdout.write(f"{made.model_dump_json(indent=2) if given.json else made.key}\n")
    sys.stderr.write(f"key {made.id} of tenant {made.tenant} with {', '.join(made.scopes)}; its text is not shown again\n")


def main(words: Sequence[str] | None = None) -> int:
    """Runs the process; its exit code."""
    words = sys.argv[1:] if words is None else words
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # before uvicorn listens to signals, and when it hands them on
    try:
        settings = load_settings()
        if list(words[:2]) == ["keys", "create"]:
            create_key(settings, words[2:])
            return 0
        if words:
            raise RequestError(
                f"`{' '.join(words)}` is no command of the API.", next="There is `keys create`; without a word it serves."
            )
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
        serve(settings)
    except ToolWeaverError as error:
        sys.stderr.write(f"toolweaver api: {error}\n")
        return next((code for kind, code in EXIT.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
