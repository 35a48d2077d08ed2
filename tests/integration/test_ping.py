"""The health check of containers: it tells a host with a living Celery process from one without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from orchestrator.broker.ping import answers, main
from orchestrator.settings import Settings
from orchestrator.state.connection import connect
from tests.support import wait_until

pytestmark = pytest.mark.integration


def ping(url: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"TOOLWEAVER_REDIS_URL": url}
    return subprocess.run([sys.executable, "-m", "orchestrator.broker.ping"], env=env, capture_output=True, text=True, timeout=60)


def test_a_planner_of_this_host_answers_and_one_of_another_host_does_not_count(settings: Settings) -> None:
    env = os.environ | {"TOOLWEAVER_REDIS_URL": settings.store_url, "TOOLWEAVER_LOG_LEVEL": "WARNING"}
    with subprocess.Popen([sys.executable, "-m", "orchestrator.tasks"], env=env, stdout=subprocess.DEVNULL) as planner:
        try:
            wait_until(lambda: answers(settings, timeout_s=0.5), description="the planner answers", timeout=60)

            assert ping(settings.store_url).returncode == 0
            assert not answers(settings, host="elsewhere", timeout_s=0.5)
        finally:
            planner.terminate()
    assert not answers(settings, timeout_s=0.5)
    left = list(connect(settings).scan_iter("*reply*"))
    assert left == [], "a check every half minute must leave nothing behind"


def test_nobody_and_no_broker_are_told_in_words(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orchestrator.broker.ping.TIMEOUT_S", 0.3)
    monkeypatch.setenv("TOOLWEAVER_REDIS_URL", settings.store_url)
    assert main() == 1
    assert capsys.readouterr().err == f"no Celery process of {socket.gethostname()} answers\n"

    monkeypatch.setenv("TOOLWEAVER_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main() == 1
    assert "the broker does not answer" in capsys.readouterr().err
