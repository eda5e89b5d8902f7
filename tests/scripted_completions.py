"""A real HTTP server of raw completions that says what a test decides.

Each kind answers with the fields that its server adds, written down from that server's source.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from scripted_tgi import Json, chatml, tokens, words
from serving import serving

MODEL = "acme/raw"

Fault = Callable[[int], Awaitable[web.StreamResponse | None] | web.StreamResponse | None]
"""Given how many requests came before; null means no fault."""


def completion(
    text: str, prompt_tokens: int, reason: str | None = "stop", **choice: object
) -> Json:
    """Return the body of an answer; `choice` is what a server adds to it."""
    count = len(tokens(text)) + 1
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, **choice}
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": count,
            "total_tokens": prompt_tokens + count,
        },
    }


@dataclass
class ScriptedCompletions:
    """What the server says. Tests change the fields.

    Args:
        owned_by: The server's name for itself in `/v1/models`.
        models: All of `/v1/models`; null lists one model of `owned_by`.
        choice: Added to every choice of an answer.
        reason: `finish_reason`.
        say: Prompt and seed to a text, or to a whole answer body.
        tokenizes: Whether there is a `/tokenize`.
        bos: Text that the tokenizer adds in front by itself.
        fault: Looked at before every `/v1/completions`.
        routes: Other paths and what they answer.
        asked: Bodies of `/v1/completions`.
        health: Status of `/health`.
        models_fault: Answers `/v1/models` instead.
    """

    owned_by: str = "vllm"
    models: list[Json] | None = None
    choice: Json = field(default_factory=dict)
    reason: str | None = "stop"
    say: Callable[[str, int | None], str | Json] = words
    tokenizes: bool = True
    bos: str = ""
    fault: Fault | None = None
    routes: dict[str, Json] = field(default_factory=dict)
    asked: list[Json] = field(default_factory=list)
    health: int = 200
    models_fault: Callable[[web.Request], Awaitable[web.Response]] | None = None
    url: str = ""

    async def _models(self, request: web.Request) -> web.Response:
        if self.models_fault:
            return await self.models_fault(request)
        one = {"id": MODEL, "object": "model", "owned_by": self.owned_by, "max_model_len": 4096}
        return web.json_response({"object": "list", "data": self.models or [one]})

    async def _other(self, request: web.Request) -> web.Response:
        if request.path in self.routes:
            return web.json_response(self.routes[request.path])
        return web.json_response({"detail": "Not Found"}, status=404)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _tokenize(self, request: web.Request) -> web.Response:
        if not self.tokenizes:
            return await self._other(request)
        body = await request.json()
        bos = self.bos if body.get("add_special_tokens", True) else ""
        ids = [one["id"] for one in tokens(bos + body["prompt"])]
        return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": 4096})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        before = len(self.asked)
        self.asked.append(body)
        if self.fault:
            failed = self.fault(before)
            if isinstance(failed, Awaitable):
                failed = await failed
            if failed is not None:
                return failed
        said = self.say(body["prompt"], body.get("seed"))
        if isinstance(said, str):
            bos = self.bos if body.get("add_special_tokens", True) else ""
            counted = len(tokens(bos + body["prompt"]))
            said = completion(said, counted, self.reason, **self.choice)
        return web.json_response(said)

    @contextmanager
    def serving(self) -> Iterator["ScriptedCompletions"]:
        """Serve on a free port of the loopback, from a thread of its own."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_route("*", "/{other:.*}", self._other)
        with serving(app) as (self.url,):
            yield self


PREFIX = chatml([{"role": "user", "content": "@"}]).partition("@")[0]
