"""Fixtures that several test files share."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from prequery.local import process

# Read by huggingface_hub and datasets when they are imported, so it is set before.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert address[0] in ("127.0.0.1", "::1"), f"a test connects to {address!r}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def local_url() -> Iterator[str]:
    """Address of the embedded endpoint: one real server with the real model for all tests."""
    with process.start(say=lambda line: None) as url:
        yield url
