"""The lab that tests of programs share: one a session and process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.errors import BackendError
from tests.sandbox.lab import Lab, opened, prepare


@pytest.fixture(scope="session")
def sandbox_image() -> None:
    """The image, built; skips where there is no engine (under CI=true a skip is a failure)."""
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")


@pytest.fixture(scope="session")
def lab(sandbox_image: None) -> Iterator[Lab]:
    """A running pool, and what runs programs in it. A pool that does not start where there is an engine is a failure."""
    with opened() as made:
        yield made
