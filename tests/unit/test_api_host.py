"""Which addresses the API listens on: loopback, and any address in a container that says so."""

from __future__ import annotations

import pytest

from orchestrator.api.__main__ import check_host
from orchestrator.errors import RequestError
from orchestrator.settings import load_settings


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_is_fine(host: str) -> None:
    check_host(load_settings(_env_file=None, api_host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_another_address_needs_the_word_of_a_container(host: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_host(load_settings(_env_file=None, api_host=host))

    assert caught.value.path == "TOOLWEAVER_API_HOST"
    assert "TOOLWEAVER_API_IN_CONTAINER" in (caught.value.next or "")
    check_host(load_settings(_env_file=None, api_host=host, api_in_container=True))
