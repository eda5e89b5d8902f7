"""Fixtures that several test files share."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from prequery.local import process


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
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
