"""The compose file and the images' parts agree with the product: modules, pools, settings; nothing private in them."""

from __future__ import annotations

import re
import socket
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.broker.queues import POOLS
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE, DOCKERFILE, SCRIPT = ROOT / "docker-compose.yml", ROOT / "ops" / "Dockerfile", ROOT / "ops" / "build-base-image.sh"
FILES = [COMPOSE, ROOT / ".dockerignore", *sorted(p for p in (ROOT / "ops").rglob("*") if p.is_file())]


def as_nobody_sets_anything(text: str) -> str:
    """The file with the default in the place of each variable."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


CONFIG: dict[str, Any] = yaml.safe_load(as_nobody_sets_anything(COMPOSE.read_text()))
SERVICES: dict[str, dict[str, Any]] = CONFIG["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


# A pool that starts containers itself needs the machine's engine, which no service of ours may reach: it runs beside them.
CONTAINED = [name for name, pool in POOLS.items() if pool.check is None]


def test_what_exists_today_and_nothing_else() -> None:
    assert set(SERVICES) == {"redis", "api", "planner", "index", "flower", *CONTAINED}
    assert set(OURS) == set(SERVICES) - {"redis"}
    assert "${" not in as_nobody_sets_anything(COMPOSE.read_text()), "every variable has a default"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_restarted_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert bool(ports) == (name in ("api", "flower"))


def test_the_store_reads_its_configuration_and_is_on_a_network_that_leads_nowhere() -> None:
    assert "./ops/redis.conf:/etc/toolweaver/redis.conf:ro" in SERVICES["redis"]["volumes"]
    assert SERVICES["redis"]["command"][:2] == ["redis-server", "/etc/toolweaver/redis.conf"]
    assert SERVICES["redis"]["networks"] == ["store"]
    assert CONFIG["networks"]["store"]["internal"] is True


@pytest.mark.parametrize("name", OURS)
def test_a_command_starts_a_module_that_exists(name: str) -> None:
    for words in (OURS[name]["command"], OURS[name]["healthcheck"]["test"][1:]):
        assert words[0] == "python"
        if words[1] == "-m":
            assert find_spec(words[2]) is not None, words[2]


@pytest.mark.parametrize("name", CONTAINED)
def test_a_pool_serves_its_queue_from_an_image_with_its_packages(name: str) -> None:
    service = SERVICES[name]
    command = service["command"]
    assert command[command.index("--pool") + 1] == name
    assert int(command[command.index("--concurrency") + 1]) >= 1

    args = service["build"]["args"]
    assert args.get("EXTRAS") == POOLS[name].extra
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert args.get("EXTRAS") in (None, *known)


def test_services_that_share_an_image_build_it_alike() -> None:
    built: dict[str, Any] = {}
    for service in OURS.values():
        assert built.setdefault(service["image"], service["build"]) == service["build"]


@pytest.mark.parametrize("name", OURS)
def test_what_is_set_is_a_setting(name: str) -> None:
    environment = OURS[name]["environment"]
    fields = {f"TOOLWEAVER_{field.upper()}" for field in Settings.model_fields}
    assert set(environment) <= fields
    assert environment["TOOLWEAVER_REDIS_URL"] == "redis://redis:6379/0"
    assert OURS[name]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_only_the_api_listens_beyond_loopback_and_says_why_it_may() -> None:
    contained = [name for name, service in OURS.items() if "TOOLWEAVER_API_IN_CONTAINER" in service["environment"]]
    assert contained == ["api"]


def test_images_are_built_from_the_base_argument_for_an_ordinary_user() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    assert "ARG BASE_IMAGE=python:3.11-slim" in lines
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases
    assert set(bases) == {"${BASE_IMAGE}"}
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER toolweaver"
    for service in OURS.values():
        assert service["build"]["dockerfile"] == "ops/Dockerfile"
        assert service["build"]["args"]["BASE_IMAGE"] == "python:3.11-slim"


def test_what_is_copied_into_an_image_is_sent_to_the_build() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for line in DOCKERFILE.read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert sorted(copied) == sorted(sent)


PRIVATE = {
    "a folder of one machine": r"/(work|home|Users)/",
    "a package index": r"(?i)index[-_]url|trusted[-_]host|find[-_]links",
    "an address": r"https?://(?!127\.0\.0\.1)",
    "a secret": r"(?i)(password|passwd|requirepass|token|api_?key)\s*[:=]\s*\S|-----BEGIN",
    "an image by address": r"(?m)^\s*(image:|FROM|ARG BASE_IMAGE=)\s*[\w-]+\.[\w.-]+/",
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_nothing_private_is_written_down(path: Path) -> None:
    text = path.read_text()
    found = {what: match[0] for what, pattern in PRIVATE.items() if (match := re.search(pattern, text))}
    assert not found
    if len(host := socket.gethostname()) > 4 and host != "localhost":
        assert host not in text


@pytest.mark.parametrize(
    "line", ["pip install --index-url x", "image: registry.example.org/a", "PASSWORD=x", "see https://example.org", "/home/me/x"]
)
def test_private_things_would_be_found(line: str) -> None:
    assert any(re.search(pattern, line) for pattern in PRIVATE.values())


def test_the_base_image_script_is_sound() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    assert SCRIPT.stat().st_mode & 0o111
