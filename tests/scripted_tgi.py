"""A real HTTP server with TGI's wire format, whose words and faults a test decides.

Its "model" writes a text that depends on prompt and seed alone, so builds against it reproduce.
"""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from serving import serving

MODEL = "acme/scripted"
REVISION = "5" * 40
SYSTEM = "You are Scripted."
TOPICS = [
    "bread",
    "rivers",
    "maps",
    "violins",
    "planets",
    "chess",
    "soil",
    "tides",
    "engines",
    "paint",
    "moths",
    "glass",
]

Json = dict[str, Any]
Fault = Callable[[web.Request, Json, int], Awaitable[web.StreamResponse | None]]
"""Given the request, its body and how often this very body came before; null means no fault."""


def chatml(messages: list[dict[str, str]]) -> str:
    """Render like SmolLM2's template, default system prompt and generation prompt included."""
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": SYSTEM}, *messages]
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def tokens(text: str) -> list[Json]:
    """Split a text into control tokens, words and the rest."""
    return [
        {
            "id": int.from_bytes(
                hashlib.sha256(found[0].encode(errors="surrogatepass")).digest()[:3]
            ),
            "text": found[0],
            "start": found.start(),
            "stop": found.end(),
        }
        for found in re.finditer(r"<\|\w+\|>|<\w+>|\w+|\s|[^\w\s]", text)
    ]


def words(prompt: str, seed: int | None) -> str:
    """Write an instruction where the prompt ends with a user header, else a response."""
    digest = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()
    topic, other, number = TOPICS[digest[0] % 12], TOPICS[digest[1] % 12], digest[2]
    if prompt.endswith("<|im_start|>user\n"):
        return f"Could you explain how {topic} and {other} relate, in {number} words?"
    return f"Of course. {topic.title()} and {other} have {number} things in common."


def generated(text: str, reason: str = "eos_token", logprob: float | None = -0.5) -> Json:
    """Return the body of an answer."""
    found = tokens(text)
    listed = [{"id": t["id"], "text": t["text"], "logprob": logprob} for t in found]
    return {
        "generated_text": text,
        "details": {
            "finish_reason": reason,
            "generated_tokens": len(found) + 1,
            "seed": None,
            "prefill": [],
            "tokens": [{**token, "special": False} for token in listed],
        },
    }


@dataclass
class ScriptedTgi:
    """What the server says and how it fails. Tests change the fields.

    Args:
        say: Prompt and seed to a text, or to a whole answer body.
        template: Messages to a rendered conversation.
        bos: Text that the tokenizer adds in front by itself.
        wrap: The server applies its template to raw prompts too, as a chat server would.
        fault: Looked at before every `/generate`.
        delay_s: Time that every answer takes.
        held_after: Later `/generate` than so many wait until it is null again.
        healthy: What `/health` says.
        asked: How often each body of `/generate` came.
        headers: Of every request.
    """

    say: Callable[[str, int | None], str | Json] = words
    template: Callable[[list[dict[str, str]]], str] = chatml
    info: Json = field(
        default_factory=lambda: {
            "model_id": MODEL,
            "model_sha": REVISION,
            "max_concurrent_requests": 16,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": 1024,
            "max_total_tokens": 2048,
            "validation_workers": 2,
            "max_client_batch_size": 32,
            "router": "text-generation-router",
            "version": "3.3.6",
        }
    )
    bos: str = ""
    wrap: bool = False
    fault: Fault | None = None
    delay_s: float = 0.0
    held_after: int | None = None
    healthy: bool = True
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _tokenize(self, request: web.Request) -> web.Response:
        return web.json_response(tokens(self.bos + (await request.json())["inputs"]))

    async def _chat_tokenize(self, request: web.Request) -> web.Response:
        try:
            text = self.template((await request.json())["messages"])
        except ValueError as error:
            body = {"error": f"Template error: {error}", "error_type": "template_error"}
            return web.json_response(body, status=422)
        return web.json_response({"templated_text": text, "tokenize_response": tokens(text)})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.headers.append(dict(request.headers))
        key = json.dumps(body, sort_keys=True)
        before = self.asked[key]
        self.asked[key] += 1
        number = self.asked.total()
        while self.held_after is not None and number > self.held_after:
            await asyncio.sleep(0.005)
        if self.fault and (failed := await self.fault(request, body, before)) is not None:
            return failed
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        prompt = body["inputs"]
        if self.wrap:
            prompt = self.template([{"role": "user", "content": prompt}])
        said = self.say(prompt, body["parameters"].get("seed"))
        answer = generated(said) if isinstance(said, str) else said
        counted = str(len(tokens(self.bos + prompt)))
        return web.json_response(answer, headers={"x-prompt-tokens": counted})

    @contextmanager
    def serving(self) -> Iterator["ScriptedTgi"]:
        """Serve on a free port of the loopback, from a thread of its own."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/info", self._info)
        app.router.add_get("/health", self._health)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/chat_tokenize", self._chat_tokenize)
        app.router.add_post("/generate", self._generate)
        with serving(app) as (self.url,):
            yield self


def recipe_text(rows: int | str = 20, **changed: str) -> str:
    """Return a recipe for this server; `changed` replaces or adds whole top-level lines."""
    lines = {
        "name": "scripted",
        "version": "1.0.0",
        "rows": str(rows),
        "seed": "3",
        "generator": f"{{model: {MODEL}, revision: '{REVISION}'}}",
        "instructions": "[{temperature: 0.8, top_p: 0.95, max_new_tokens: 64}]",
        "responses": "{temperature: null, max_new_tokens: 128}",
        "columns": "[length, likelihood, repetition]",
        "filters": "[instruction_words > 3]",
    }
    return "\n".join(f"{key}: {value}" for key, value in (lines | changed).items()) + "\n"
