"""llama.cpp's HTTP server: start it in this process, and the JSON that it speaks.

The only module that imports xllamacpp, and only when a model is loaded.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import aiohttp
import msgspec

from prequery.errors import LocalError
from prequery.local.weights import Weights

# Requests that wait inside llama.cpp, so that a slot that falls free finds the next one at once.
LOOKAHEAD = 2
# llama.cpp keeps back the tokens of an unfinished character; a few more tokens finish it.
OVERRUN = 4


class EngineError(Exception):
    """llama.cpp did not answer, or broke off."""


class RefusedError(Exception):
    """llama.cpp says that the request cannot be served."""


class Candidate(msgspec.Struct):
    """A token and its ``logprob`` before the samplers, or its ``prob`` after them."""

    id: int
    bytes: list[int]
    logprob: float | None = None
    prob: float | None = None


class Reported(Candidate):
    """A generated token, and the most likely ones of its position.

    Its ``bytes`` start with those of tokens that were kept back before it.
    """

    top_logprobs: list[Candidate] = []
    top_probs: list[Candidate] = []


class Completion(msgspec.Struct):
    """An answer of ``/completion``, or one event of its stream."""

    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    completion_probabilities: list[Reported] = []
    error: dict[str, Any] | None = None


class TokenizedPiece(msgspec.Struct):
    """A token of ``/tokenize``. Half a character is not a JSON string, so it comes as bytes."""

    id: int
    piece: str | list[int]


class Tokenized(msgspec.Struct):
    """An answer of ``/tokenize``."""

    tokens: list[TokenizedPiece]


@dataclass(frozen=True)
class Llama:
    """A running llama.cpp server."""

    http: aiohttp.ClientSession
    version: str

    async def ask(self, path: str, body: object = None) -> bytes:
        """Ask for a short answer: GET without a body, POST with one.

        Raises:
            EngineError: It did not answer.
            RefusedError: It says that the request is wrong.
        """
        method = "GET" if body is None else "POST"
        try:
            async with self.http.request(method, path, json=body) as response:
                answer = await response.read()
        except aiohttp.ClientError as error:
            raise EngineError(str(error) or type(error).__name__) from error
        _raise_for(response.status, answer)
        return answer

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[Completion, None]:
        """Yield the events of a completion. Closing the iterator makes llama.cpp stop.

        Streamed, because llama.cpp finishes what is not streamed even when nobody listens.

        Raises:
            EngineError: It did not answer, or broke off.
            RefusedError: It says that the request is wrong.
        """
        try:
            async with self.http.post("/completion", json={**body, "stream": True}) as response:
                if response.status != 200:
                    _raise_for(response.status, await response.read())
                async for line in response.content:
                    if line.startswith(b"data: "):
                        event = msgspec.json.decode(line.removeprefix(b"data: "), type=Completion)
                        if event.error is not None:
                            raise EngineError(str(event.error.get("message")))
                        yield event
        except (aiohttp.ClientError, msgspec.DecodeError) as error:
            raise EngineError(str(error) or type(error).__name__) from error


@asynccontextmanager
async def run(
    weights: Weights, *, slots: int, threads: int, max_total_tokens: int
) -> AsyncIterator[Llama]:
    """Load a model and serve it on a loopback port of llama.cpp's choice, guarded by a random key.

    Args:
        weights: The model.
        slots: How many answers are generated at the same time.
        threads: How many CPU threads generate them.
        max_total_tokens: Room in each slot, for the tokens of a prompt and its answer.

    Raises:
        LocalError: xllamacpp is not installed, or cannot load the weights.
    """
    # Threads that spin while they wait for each other starve on busy cores: 28 tokens/s instead of
    # 200. OpenMP reads this once, when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        import xllamacpp
    except ImportError as error:
        raise LocalError(
            f"the embedded engine cannot be imported: {error}",
            "package xllamacpp",
            'pip install "prequery[local]"',
        ) from error
    key = token_hex(16)
    params = xllamacpp.CommonParams()
    params.model.path = str(weights.path)
    params.n_parallel = slots
    params.n_ctx = slots * (max_total_tokens + OVERRUN)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = slots + LOOKAHEAD + 6  # the others: tokenize, health, props
    params.fit_params = False  # it would shrink the context instead of failing
    params.cache_ram_mib = 0  # the default keeps finished prompts and grows past 1 GB
    params.endpoint_slots = False  # shows everyone's prompts
    params.api_keys = [key]
    params.ui = False
    params.verbosity = -1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise LocalError(
            f"llama.cpp cannot load these weights: {error}",
            str(weights.path),
            "name a GGUF file of a text model, or leave it out for the embedded model",
        ) from error
    async with aiohttp.ClientSession(
        server.listening_address,
        headers={"Authorization": f"Bearer {key}"},
        # llama.cpp closes idle connections without a word, and the next request on one is lost.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None),
        # The last event of a stream repeats the prompt and the grammar in one line.
        read_bufsize=2**22,
    ) as http:
        yield Llama(http, xllamacpp.__version__)


def _raise_for(status: int, answer: bytes) -> None:
    if status == 200:
        return
    try:
        message = str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"llama.cpp answered {status}"
    raise (RefusedError if status == 400 else EngineError)(message)
