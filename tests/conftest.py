"""Fixtures that several test files share."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub.utils import _xet

from hub import TOKEN_VARIABLE, Hub, Place, RealHub
from prequery.local import process


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine, but for tests of the real Hub."""
    if request.node.get_closest_marker("hub"):
        return
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        # Connecting a datagram socket sends nothing.
        if self.family != socket.AF_UNIX and self.type == socket.SOCK_STREAM:
            assert address[0] in ("127.0.0.1", "::1"), f"a test connects to {address!r}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def local_url() -> Iterator[str]:
    """Address of the embedded endpoint: one real server with the real model for all tests."""
    with process.start(say=lambda line: None) as url:
        yield url


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub of its own for a test; the clients' endpoint, token and caches are set to it.

    `HF_ENDPOINT` and the like are read once, when huggingface_hub is imported. So they are set in
    the environment, for processes that a test starts, and again where they were read. Clients of
    this process must be made after this fixture, and `load_dataset` runs in another process.
    Large files go over LFS; the fixture `xet` changes that.
    """
    with Hub().serving() as hub:
        home = tmp_path / "hf"
        for name, value in hub.environment(home).items():
            monkeypatch.setenv(name, value)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield hub
        close_session()
        assert hub.mistakes == []


@pytest.fixture(params=["test", pytest.param("real", marks=pytest.mark.hub)])
def place(request: pytest.FixtureRequest) -> Place:
    """The Hub of the tests and, with `pytest -m hub`, the real one."""
    if request.param == "test":
        hub: Hub = request.getfixturevalue("hub")
        return hub
    token = os.environ.get(TOKEN_VARIABLE)
    assert token, f"export {TOKEN_VARIABLE}: a token of the real Hub that may write"
    return RealHub(token)


@pytest.fixture
def repo_id(place: Place) -> Iterator[str]:
    """A new private dataset repo, deleted after the test."""
    name = f"{place.namespace}/prequery-test-{uuid.uuid4().hex[:12]}"
    place.api().create_repo(name, repo_type="dataset", private=True)
    yield name
    place.api().delete_repo(name, repo_type="dataset", missing_ok=True)


@pytest.fixture
def xet(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub of the test, with large files over xet, as clients do where hf_xet is installed."""
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    # Between two tries hf_xet waits for seconds.
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    # Its cache is where the environment said when the session began.
    monkeypatch.setattr(_xet, "_GLOBAL_XET_HOLDER", _xet.XetSessionHolder())
    return hub
