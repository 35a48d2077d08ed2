"""The API's process: `python -m orchestrator.api`. SIGTERM and Ctrl-C stop it in order, open streams included."""

from __future__ import annotations

import logging
import signal
import socket
import sys

import uvicorn

from orchestrator.api.app import create_app
from orchestrator.api.guard import is_loopback
from orchestrator.errors import BackendError, RequestError, ToolWeaverError
from orchestrator.settings import Settings, load_settings

STOP_WITHIN_S = 3
EXIT = {RequestError: 2, BackendError: 3}


def check_host(settings: Settings) -> None:
    """Refuses an address that others can reach: the API asks nobody who they are yet.

    A container's own loopback cannot be published, so there the host's loopback takes its place; requests must
    still name a loopback host.

    Raises:
        RequestError: it is not an address of this machine's loopback.
    """
    if not is_loopback(settings.api_host) and not settings.api_in_container:
        raise RequestError(
            f"The API has no sign-in yet and listens on loopback only, not on `{settings.api_host}`.",
            path="TOOLWEAVER_API_HOST",
            next="Use 127.0.0.1 and reach it from elsewhere through an SSH tunnel; in a container whose port is published on "
            "127.0.0.1 only, set TOOLWEAVER_API_IN_CONTAINER=true.",
        )


def listen(host: str, port: int) -> socket.socket:
    """The listening socket.

    Raises:
        BackendError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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
    check_host(settings)
    listener = listen(settings.api_host, settings.api_port)
    host, port = listener.getsockname()[:2]
    logging.getLogger(__name__).info("the API answers at http://%s:%d", host, port, extra={"action": "api_start"})
    config = uvicorn.Config(
        create_app(settings),
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=STOP_WITHIN_S,
        server_header=False,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    """Runs the process; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # before uvicorn listens to signals, and when it hands them on
    try:
        settings = load_settings()
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
