"""The lab that tests of programs share: one a group of files."""

from __future__ import annotations

import pytest

from orchestrator.errors import BackendError
from tests.sandbox.lab import Lab, opened, prepare
from tests.together import kept


@pytest.fixture(scope="session")
def sandbox_image() -> None:
    """The image, built; skips where there is no engine (under CI=true a skip is a failure)."""
    try:
        prepare()
    except BackendError as error:
        pytest.skip(f"no sandbox here: {error}")


@pytest.fixture(scope="module")
def lab(sandbox_image: None, request: pytest.FixtureRequest) -> Lab:
    """A running pool, and what runs programs in it. A pool that does not start where there is an engine is a failure."""
    return kept(request.session).get("lab", opened)
