"""A real HTTP server with TEI's wire format, whose scores or vectors a test decides."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

REWARD_MODEL = "acme/reward"
REWARD_REVISION = "7" * 40

Json = Any


def by_length(inputs: Any) -> Json:
    """Score a pair by the words of its second text."""
    return [{"score": float(len(inputs[1].split())), "label": "LABEL_0"}]


@dataclass
class ScriptedTei:
    """What the server says.

    Args:
        predict: The field `inputs` to the body of the answer, or to a status and a body.
        embed: The same of `/embed`; null: the model is a classifier.
        held_after: Later requests than so many wait until it is null again.
        asked: The body of every request.
    """

    predict: Callable[[Any], Json] = by_length
    embed: Callable[[str], Json] | None = None
    model_id: str = REWARD_MODEL
    held_after: int | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def info(self) -> Json:
        """What text-embeddings-inference 1.8 answers to `/info`."""
        return {
            "model_id": self.model_id,
            "model_sha": REWARD_REVISION,
            "model_dtype": "float16",
            "model_type": {"embedding": {"pooling": "mean"}}
            if self.embed
            else {"classifier": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_concurrent_requests": 512,
            "max_input_length": 4096,
            "max_batch_tokens": 16384,
            "max_batch_requests": None,
            "max_client_batch_size": 32,
            "auto_truncate": False,
            "tokenization_workers": 4,
            "version": "1.8.2",
            "sha": None,
            "docker_label": None,
        }

    @contextmanager
    def serving(self) -> Iterator["ScriptedTei"]:
        """Serve on a free port of the loopback, from a thread of its own."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(script: ScriptedTei) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(200, script.info() if self.path == "/info" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            gives = {"/predict": script.predict, "/embed": script.embed}.get(self.path)
            if gives is None or bool(script.embed) != (self.path == "/embed"):
                self._say(404, {"error": "no such route"})
                return
            script.headers.append(dict(self.headers))
            script.asked.append(body)
            number = len(script.asked)
            while script.held_after is not None and number > script.held_after:
                time.sleep(0.005)
            said = gives(body["inputs"])
            self._say(*said) if isinstance(said, tuple) else self._say(200, said)

        def _say(self, status: int, said: Json) -> None:
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("x-compute-tokens", "11")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    return Handler
