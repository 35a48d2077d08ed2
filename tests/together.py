"""Which files of tests run one after the other in one process, because they share what takes long to start, and which start first.

Two processes that take the next file when they are done end at the same time only if the long ones come first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from xdist.scheduler import LoadFileScheduling

T = TypeVar("T")
ROOT = Path(__file__).parents[1]

# The longest first; the order within a group counts too. Every file that is not named follows, those of `unit` at the end.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("tests/contract/test_dispatch.py", "tests/faults/test_faults.py"),  # a platform a broker
    ("tests/integration/test_brokers.py", "tests/contract/test_programs.py", "tests/integration/test_async_pool.py"),  # RabbitMQ
    (
        "tests/integration/test_docs.py",
        "tests/integration/test_reference_samples.py",
        "tests/integration/test_planner_samples.py",
    ),  # a platform with every pool
    (
        "tests/sandbox/test_hostile.py",
        "tests/sandbox/test_harmless.py",
        "tests/sandbox/test_pool.py",
        "tests/sandbox/test_wall.py",
    ),  # a pool of containers
    ("tests/integration/test_up_demo.py",),
    ("tests/integration/test_programs.py", "tests/integration/test_program_executor.py"),  # a platform of programs
    ("tests/integration/test_ocr_engines.py",),
    ("tests/integration/test_hostile_pictures.py",),
    ("tests/sandbox/test_direct.py",),
    ("tests/mcp/test_broken_servers.py",),
    ("tests/integration/test_mcp_commands.py",),
    ("tests/integration/test_execute_plan.py",),
    ("tests/faults/test_sandbox_kills.py",),
    ("tests/faults/test_scale_out.py",),
    ("tests/faults/test_calls.py",),
    ("tests/faults/test_requests.py",),
    ("tests/faults/test_planner_faults.py",),
    ("tests/integration/test_sentences.py",),
    ("tests/integration/test_api.py",),
    ("tests/integration/test_tenancy.py",),
)
_PLACES = {file: (rank, place) for rank, files in enumerate(GROUPS) for place, file in enumerate(files)}


class TogetherScheduling(LoadFileScheduling):
    """xdist's distribution by file, where a group of files counts as one."""

    def _split_scope(self, nodeid: str) -> str:
        return group(super()._split_scope(nodeid))


def group(file: str) -> str:
    """The first file of the group that a file (relative to the repository) belongs to: itself for most."""
    return GROUPS[_PLACES[file][0]][0] if file in _PLACES else file


def order(item: pytest.Item) -> tuple[int, int]:
    """For a stable sort of tests."""
    file = file_of(item)
    return _PLACES.get(file, (len(GROUPS) + file.startswith("tests/unit/"), 0))


def file_of(item: pytest.Item) -> str:
    """The file of a test, relative to the repository."""
    return item.path.relative_to(ROOT).as_posix()


class Kept:
    """What the files of a group share in one process: made when first asked for, ended after the last test of the group."""

    def __init__(self) -> None:
        self._stack, self._made = ExitStack(), dict[str, Any]()

    def get(self, name: str, make: Callable[[], AbstractContextManager[T]]) -> T:
        if name not in self._made:
            self._made[name] = self._stack.enter_context(make())
        made: T = self._made[name]
        return made

    def close(self) -> None:
        self._made.clear()
        self._stack.close()


KEPT = pytest.StashKey[Kept]()


def kept(session: pytest.Session) -> Kept:
    """What the group of files that runs now shares."""
    return session.stash.setdefault(KEPT, Kept())
