"""The container engine behind a small class: each call has a time limit, is repeated where harmless, and fails with the next move.

It speaks Docker's HTTP API by Docker's own package. Podman's socket offers the same API; nothing here was tried with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, ParamSpec, TypeVar

import docker
import docker.errors
import docker.utils
import requests

from orchestrator.errors import BackendError
from orchestrator.settings import Settings

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

CALL_S = 20.0  # one request
BUILD_S = 1_800.0
THREADS = 12  # requests at the same time; other work of the process has its own threads
PAUSES_S = (0.1, 0.4)  # before the second and the third try
OLDEST_API = (1, 41)  # private cgroup namespaces
SOCKET = "unix:///var/run/docker.sock"
BUILD = "run `toolweaver sandbox build`"
GONE = (404, 409)  # when something is removed: it is gone, or is about to be


@dataclass(frozen=True)
class Image:
    """An image that the engine has."""

    id: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Listed:
    """A container of the engine's list."""

    id: str
    labels: Mapping[str, str]
    created: float  # unix seconds
    state: str
    name: str = ""


@dataclass(frozen=True)
class About:
    """What the engine says of itself."""

    version: str
    api: str
    cgroups: str
    root: bool  # it runs as root, so that limits are there
    swap_limit: bool
    security: tuple[str, ...] = field(default=())


class Engine:
    """A container engine. Its methods block; `await engine.run(engine.inspect, id)` runs one in a thread of its own.

    Every method raises BackendError when the engine does not do what it is asked to.
    """

    def __init__(self, host: str | None = None, *, timeout_s: float = CALL_S) -> None:
        self.host = host or SOCKET
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._made: docker.APIClient | None = None

    @classmethod
    def of(cls, settings: Settings) -> Engine:
        """The engine that the settings name."""
        return cls(settings.docker_host)

    async def run(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Runs a blocking method in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **named))

    def drain(self) -> None:
        """Waits for the calls that run in threads; there will be no more of these."""
        self._threads.shutdown(wait=True)

    def close(self) -> None:
        """Waits for the calls that run, and lets go of the engine."""
        self.drain()
        if self._made is not None:
            self._made.close()

    # What it is

    def about(self) -> About:
        """Which engine this is.

        Raises:
            BackendError: nobody answers, this user may not use it, or it is too old.
        """
        client = self._client()
        info = self._do("asked about itself", client.info)
        return About(
            version=str(info.get("ServerVersion", "")),
            api=str(client.api_version),
            cgroups=str(info.get("CgroupVersion", "1")),
            root="name=rootless" not in (info.get("SecurityOptions") or ()),
            swap_limit=bool(info.get("SwapLimit")),
            security=tuple(info.get("SecurityOptions") or ()),
        )

    def image(self, name: str) -> Image | None:
        """The image of that name, or None."""
        client = self._client()
        try:
            found = self._do(f"asked for image `{name}`", client.inspect_image, name)
        except Missing:
            return None
        return Image(str(found["Id"]), dict((found.get("Config") or {}).get("Labels") or {}))

    # Containers

    def create(self, image: str, *, name: str, **config: Any) -> str:
        """Creates a container; its id. The name makes it safe to ask twice.

        Raises:
            BackendError: the image is not there, or the engine refuses.
        """
        client = self._client()
        try:
            made = self._do(f"asked to create `{name}`", client.create_container, image, name=name, **config)
        except Missing as missing:
            raise BackendError(f"the engine has no image `{image}`", next=f"On the machine of the engine, {BUILD}.") from missing
        except Conflicting:  # the first try was done, and its answer lost
            made = self.inspect(name)
        return str(made["Id"])

    def host_config(self, **config: Any) -> dict[str, Any]:
        """Docker's own form of the settings of a container."""
        return dict(self._client().create_host_config(**config))

    def start(self, container: str) -> None:
        """Starts a container that was created; one that fails to is removed by the engine, so that a second try helps nobody."""
        try:
            self._client().start(container)
        except docker.errors.APIError as error:
            raise self._translated(error, "asked to start a container") from error
        except (docker.errors.DockerException, requests.RequestException, OSError):
            self._do("asked to start a container", self._client().start, container)

    def inspect(self, container: str) -> dict[str, Any]:
        """All that the engine knows of a container."""
        return dict(self._do("asked about a container", self._client().inspect_container, container))

    def update(self, container: str, limits: Mapping[str, Any]) -> None:
        """Changes the limits of a running container: `Memory`, `MemorySwap`, `NanoCPUs`, `PidsLimit`."""
        client = self._client()

        def post() -> None:
            answer = client._post_json(client._url("/containers/{0}/update", container), data=dict(limits))
            client._raise_for_status(answer)

        self._do("asked to change the limits of a container", post)

    def remove(self, container: str) -> None:
        """Kills a container and removes it; one that is gone or about to be is fine."""
        try:
            self._do("asked to remove a container", self._client().remove_container, container, force=True, v=True)
        except (Missing, Conflicting):
            return

    def containers(self, *labels: str) -> list[Listed]:
        """The containers with these labels (`name` or `name=value`), in whatever state."""
        client = self._client()
        found = self._do("asked for its containers", client.containers, all=True, filters={"label": list(labels)})
        return [_listed(c) for c in found]

    def stats(self, container: str) -> dict[str, Any]:
        """The engine's own figures of a container, once; it takes some milliseconds."""
        return dict(self._do("asked for figures", self._client().stats, container, stream=False, one_shot=True))

    def was_out_of_memory(self, container: str, *, since: float) -> bool:
        """Whether the engine saw the kernel end a process of the container for want of memory, since a unix time."""
        client = self._client()
        which = {"since": int(since), "until": int(time.time()) + 1, "filters": {"container": [container], "event": ["oom"]}}
        return bool(self._do("asked for events", lambda: list(client.events(decode=True, **which))))

    # Images

    def build(self, context: IO[bytes], *, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
        """Builds an image from a tar of its folder; yields what the engine says meanwhile.

        Raises:
            BackendError: a step failed; the message ends with what it said.
        """
        client = self._fresh(BUILD_S)
        try:
            said = client.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs=dict(arguments),
                labels=dict(labels),
                rm=True,
                forcerm=True,
                decode=True,
                network_mode="host",  # a machine without a registry often has no NAT for containers either
            )
            for line in said:
                if "error" in line:
                    raise BackendError(f"the image was not built: {str(line['error']).strip()}")
                if text := str(line.get("stream") or line.get("status") or "").strip():
                    yield text
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise self._translated(error, "asked to build an image") from error
        finally:
            client.close()

    # The way to it

    def _client(self) -> docker.APIClient:
        if self._made is None:
            self._made = self._do("asked for its version", self._fresh, self._timeout_s)
        return self._made

    def _fresh(self, timeout_s: float) -> docker.APIClient:
        named = {**docker.utils.kwargs_from_env(), "base_url": self.host}  # its TLS variables are Docker's own
        client = docker.APIClient(**named, version="auto", timeout=timeout_s, max_pool_size=THREADS)
        if tuple(int(n) for n in str(client.api_version).split(".")[:2]) < OLDEST_API:
            raise BackendError(
                f"the engine at {self.host} speaks API {client.api_version}; programs need {'.'.join(map(str, OLDEST_API))}",
                next="Install Docker 20.10 or newer.",
            )
        return client

    def _do(self, what: str, function: Callable[..., T], *args: Any, **named: Any) -> T:
        for pause in (*PAUSES_S, None):
            try:
                return function(*args, **named)
            except (docker.errors.DockerException, requests.RequestException, OSError) as error:
                if pause is None or not _may_pass(error):
                    raise self._translated(error, what) from error
                log.info("the engine failed when %s; again in %s s: %s", what, pause, error, extra={"action": "engine_retry"})
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _translated(self, error: Exception, what: str) -> BackendError:
        text = str(getattr(error, "explanation", None) or error).strip()
        status = getattr(error, "status_code", None)
        if status in (404, 409):
            return (Missing if status == 404 else Conflicting)(f"the engine said, when {what}: {text}")
        for sign, (message, next) in self._known().items():
            if sign in text:
                return BackendError(message, next=next)
        if isinstance(error, docker.errors.APIError):
            return BackendError(f"the engine failed when {what}: {text}", next="Look at the engine's log, `journalctl -u docker`.")
        return BackendError(f"no engine answers at {self.host} ({text})", next="Start Docker, or set DOCKER_HOST.")

    def _known(self) -> dict[str, tuple[str, str]]:
        where = f"the engine's socket {self.host}"
        return {
            "no space left": ("the engine's disk is full", "Make room, for instance with `docker system prune`."),
            "FileNotFoundError": (
                f"there is no Docker engine: {where} does not exist",
                "Install and start Docker, or set DOCKER_HOST.",
            ),
            "PermissionError": (f"this user may not use {where}", "Add the user to the group `docker`, or set DOCKER_HOST."),
            "ConnectionRefusedError": (f"nobody listens at {where}", "Start Docker, for instance with `systemctl start docker`."),
            "timed out": (f"the engine did not answer within {self._timeout_s:g} s", "Look at its load and its log."),
        }


def _listed(found: Mapping[str, Any]) -> Listed:
    name = str(next(iter(found.get("Names") or ()), "")).removeprefix("/")
    labels, created = dict(found.get("Labels") or {}), float(found.get("Created") or 0)
    return Listed(str(found["Id"]), labels, created, str(found.get("State")), name)


class Missing(BackendError):
    """The engine does not have it."""

    code = "engine_has_none"


class Conflicting(BackendError):
    """It is there already, or is being removed."""

    code = "engine_conflict"


def _may_pass(error: Exception) -> bool:
    """Whether the same request may do better in a moment. What never came up or refuses this user will not."""
    if isinstance(error, docker.errors.APIError):
        return error.status_code is not None and error.status_code >= 500 and "no space left" not in str(error)
    return not any(sign in str(error) for sign in ("FileNotFoundError", "PermissionError", "timed out"))
