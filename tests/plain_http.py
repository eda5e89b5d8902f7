"""Ask a server over HTTP with nothing but the standard library."""

import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """Status, headers and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The body of an event stream, decoded."""
        chunks = self.body.decode().split("\n\n")
        assert chunks.pop() == ""
        return [json.loads(chunk.removeprefix("data:")) for chunk in chunks]


def get(url: str) -> Reply:
    """GET an address."""
    return _ask(urllib.request.Request(url))


def post(url: str, body: object) -> Reply:
    """POST a JSON body, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _ask(urllib.request.Request(url, data, {"Content-Type": "application/json"}))


def generate(url: str, inputs: str, **parameters: object) -> Any:
    """Ask ``/generate`` for an answer with details."""
    body = {"inputs": inputs, "parameters": {"details": True, **parameters}}
    reply = post(f"{url}/generate", body)
    assert reply.status == 200, reply.body
    return reply.json


def _ask(request: urllib.request.Request) -> Reply:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Reply(response.status, _lower(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, _lower(error.headers), error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
