"""Ask a text-generation-inference endpoint, through its faults.

Names and meanings are those of huggingface_hub's TGI types; its AsyncInferenceClient itself costs
8 ms CPU for a detailed answer, so the requests go through aiohttp and msgspec reads only what is
used.
"""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import aiohttp
import msgspec

from prequery.errors import EndpointError
from prequery.recipe import Sampling

T = TypeVar("T")

MAX_BODY_BYTES = 32 << 20
MAX_TEXT_CHARS = 1 << 20
CONNECT_TIMEOUT_S = 10.0

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request brought.

    Args:
        text: Generated text, cut at the first stop string; no lone surrogates.
        finish_reason: `eos_token`, `stop_sequence` or `length`.
        generated_tokens: As the endpoint counts them, with the end-of-turn token.
        prompt_tokens: As the endpoint counts them; null when it does not say.
        seed: The seed that was sent; null for a greedy request.
        logprob_sum: Natural logarithm, over the tokens that came with one; null when none did.
        logprob_min: The least likely token's.
        logprob_count: How many tokens came with one.
        repaired: The text held lone surrogates, now U+FFFD.
        error: Why there is no text, in the endpoint's words; every other field is then empty.
        failed: All tries failed. Not set: the endpoint refuses this request for good.
    """

    text: str = ""
    finish_reason: str = ""
    generated_tokens: int = 0
    prompt_tokens: int | None = None
    seed: int | None = None
    logprob_sum: float | None = None
    logprob_min: float | None = None
    logprob_count: int = 0
    repaired: bool = False
    error: str | None = None
    failed: bool = False


class Token(msgspec.Struct, frozen=True):
    """One token of a text and the characters that it covers."""

    id: int
    text: str
    start: int
    stop: int


class Info(msgspec.Struct, frozen=True):
    """What `/info` says of the served model. `exact` is our embedded endpoint's own."""

    model_id: str
    max_concurrent_requests: int
    max_input_tokens: int
    max_total_tokens: int
    version: str
    model_sha: str | None = None
    max_stop_sequences: int = 4
    router: str = "text-generation-router"
    engine: str | None = None
    exact: bool | None = None
    slots: int | None = None
    weights_sha256: str | None = None


class Rendering(msgspec.Struct, frozen=True):
    """A conversation in the served model's own chat template, and its tokens."""

    templated_text: str
    tokenize_response: list[Token]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to continue."""

    prompt: str
    sampling: Sampling
    seed: int | None = None
    stop: Sequence[str] = ()

    def parameters(self) -> dict[str, Any]:
        """Return TGI's parameters.

        `top_p` must be inside (0, 1), so the whole vocabulary is said by leaving it out. Greedy
        means no sampling parameter at all, and a temperature of 1 alone would decode greedily.
        """
        sampled = {
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "top_k": self.sampling.top_k,
            "seed": self.seed,
        }
        both = {
            "repetition_penalty": self.sampling.repetition_penalty,
            "max_new_tokens": self.sampling.max_new_tokens,
            "stop": list(self.stop) or None,
        }
        greedy = self.sampling.temperature is None
        chosen = both if greedy else {"do_sample": True, **sampled, **both}
        return {"details": True} | {k: v for k, v in chosen.items() if v is not None}


class Asks(Protocol):
    """What a build needs of an endpoint. Tests and other clients are this."""

    @property
    def address(self) -> str:
        """Where it is, for messages; no credentials."""

    @property
    def capacity(self) -> int:
        """How many requests it takes at the same time, as far as it is known now."""

    async def info(self) -> Info:
        """Ask what is served."""

    async def tokenize(self, text: str) -> list[Token]:
        """Return the tokens that `generate` would see for this prompt."""

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template, with the generation prompt."""

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        """Continue a text; urgent requests go first where there is no room for all."""


@dataclass(frozen=True)
class Patience:
    """How long faults are borne. Waits are drawn between 0 and a doubling bound (full jitter).

    Args:
        tries: Faulty answers to one request before the build stops.
        first_wait_s: Bound of the first wait.
        longest_wait_s: No wait is longer.
        overloaded_s: An endpoint that answers 429 for so long stops the build. A 429 is no
            faulty answer: TGI sends it, without Retry-After, when it has enough to do.
        down_s: No endpoint works for so long: the build stops.
        request_s: A request without an answer after this time is a faulty one, unless measured
            latencies say so earlier.
    """

    tries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    overloaded_s: float = 900.0
    down_s: float = 600.0
    request_s: float = 600.0

    def wait_s(self, waits: int) -> float:
        """Draw how long to wait after so many earlier waits."""
        return random.uniform(0, min(self.first_wait_s * 2**waits, self.longest_wait_s))


class FaultError(Exception):
    """No answer, or one that cannot be used; asking again may help.

    Args:
        said: What came, in a few words.
        lost: The connection was lost or never made: the endpoint may be gone.
    """

    def __init__(self, said: str, lost: bool = False) -> None:
        super().__init__(said)
        self.lost = lost


class OverloadError(Exception):
    """429."""


class _RefusedError(Exception):
    """422: this request will never be answered."""


class _SpecialToken(msgspec.Struct):
    logprob: float | None = None


class _Details(msgspec.Struct):
    finish_reason: str
    generated_tokens: int
    tokens: list[_SpecialToken]  # ids and texts are skipped: half of the decoding time


class _Generated(msgspec.Struct):
    generated_text: str
    details: _Details


_read_generated = msgspec.json.Decoder(_Generated, strict=True)


@dataclass
class TgiEndpoint:
    """A client of one TGI endpoint; an async context manager.

    Args:
        address: http(s)://host[:port][/path], without credentials.
        token: Bearer token. It goes to this address only: redirects are not followed.
        patience: How long faults are borne.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    patience: Patience = Patience()
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        """Open the connections."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        # No limit here: how many requests are in flight is decided by who asks.
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(headers=headers, connector=connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def info(self) -> Info:
        """Ask what is served.

        Raises:
            EndpointError: Nothing answers, or what answers is not TGI.
        """
        return await self._ask_json("GET", "/info", None, Info, "before the first row")

    async def tokenize(self, text: str) -> list[Token]:
        """Return the tokens that `/generate` would see for this prompt.

        Raises:
            EndpointError: Nothing answers, or what answers is not TGI.
        """
        body = {"inputs": text}
        return await self._ask_json("POST", "/tokenize", body, list[Token], "prefix")

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template, with the generation prompt.

        Raises:
            EndpointError: Nothing answers, or the model has no chat template.
        """
        body = {"messages": list(messages)}
        return await self._ask_json("POST", "/chat_tokenize", body, Rendering, "prefix")

    async def is_healthy(self, timeout_s: float) -> bool:
        """Ask once whether it works."""
        try:
            await self._once("GET", "/health", None, timeout_s)
        except (FaultError, OverloadError, _RefusedError, EndpointError):
            return False
        return True

    async def generate(self, request: Request, timeout_s: float) -> Answer:
        """Continue a text: one try.

        Args:
            request: What to continue and how.
            timeout_s: Without an answer after this time the try is a faulty one.

        Returns:
            An answer; one with `error` when the endpoint refuses the request for good.

        Raises:
            FaultError: No answer, or one that cannot be used; asking again may help.
            OverloadError: It has enough to do.
            EndpointError: It will not answer any request: wrong token, or no TGI.
        """
        body = _encode({"inputs": request.prompt, "parameters": request.parameters()})
        try:
            raw, headers = await self._once("POST", "/generate", body, timeout_s)
            return read_answer(raw, request, headers.get("x-prompt-tokens"))
        except _RefusedError as refusal:
            return Answer(seed=request.seed, error=str(refusal))
        except (msgspec.DecodeError, ValueError, KeyError, TypeError):
            raise FaultError("a truncated or malformed answer") from None

    async def _ask_json(
        self, method: str, path: str, body: Mapping[str, Any] | None, kind: type[T], where: str
    ) -> T:
        payload = None if body is None else _encode(body)
        try:
            raw = await self._insist(method, path, payload, where)
            return msgspec.json.decode(raw, type=kind)
        except _RefusedError as refusal:
            raise EndpointError(
                f"{method} {path} was refused: {refusal}",
                f"{self.address}, {where}",
                "serve a chat model whose template takes a user message",
            ) from None
        except msgspec.DecodeError as error:
            raise EndpointError(
                f"{method} {path} answered with something that is not TGI's: {error}",
                self.address,
                "point the recipe's endpoint.url, or --endpoint, at text-generation-inference",
            ) from None

    async def _insist(self, method: str, path: str, body: bytes | None, where: str) -> bytes:
        """Ask until there is an answer, or the patience is at its end."""
        patience, started, faults, waits = self.patience, time.monotonic(), 0, 0
        while True:
            try:
                return (await self._once(method, path, body, patience.request_s))[0]
            except OverloadError:
                spent = time.monotonic() - started
                if spent > patience.overloaded_s:
                    raise self._gave_up("429", "every try", spent, where) from None
            except FaultError as fault:
                faults += 1
                if faults >= patience.tries:
                    tries = f"{faults} of {faults} tries"
                    spent = time.monotonic() - started
                    raise self._gave_up(str(fault), tries, spent, where) from None
            await asyncio.sleep(patience.wait_s(waits))
            waits += 1

    async def _once(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> tuple[bytes, Mapping[str, str]]:
        if self._session is None:
            raise RuntimeError("TgiEndpoint is used outside of `async with`")
        try:
            async with self._session.request(
                method,
                self.address + path,
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            ) as response:
                raw = await _bounded(response)
        except TimeoutError:
            raise FaultError("nothing in time") from None
        except aiohttp.ClientError as error:
            raise FaultError(_in_words(error), lost=True) from None
        status = response.status
        if status == 200:
            return raw, response.headers
        if status == 429:
            raise OverloadError
        if status == 422:
            raise _RefusedError(_error_text(raw))
        if status == 424 or status >= 500:
            raise FaultError(str(status))
        raise self._hopeless(status, method, path)

    def _hopeless(self, status: int, method: str, path: str) -> EndpointError:
        what = f"{method} {path} answered {status}"
        if status in (401, 403):
            fix = "export a valid token and name its variable in endpoint.token_env"
            return EndpointError(f"the endpoint does not let us in: {what}", self.address, fix)
        if 300 <= status < 400:
            fix = "use the address that it redirects to; a token must not follow a redirect"
            return EndpointError(f"the endpoint redirects: {what}", self.address, fix)
        fix = "point the recipe's endpoint.url, or --endpoint, at text-generation-inference"
        return EndpointError(f"this is no TGI endpoint: {what}", self.address, fix)

    def _gave_up(self, fault: str, tries: str, spent_s: float, where: str) -> EndpointError:
        return EndpointError(
            f"the endpoint answered {fault} to {tries} over {spent_s:.0f} s",
            f"{self.address}, {where}",
            "see that the endpoint is up, then run the same command: finished answers are kept",
        )


def read_answer(raw: bytes, request: Request, prompt_tokens: str | None) -> Answer:
    """Read the body of a `/generate` answer.

    The text is cut at the first stop string: TGI leaves the string in, and some of its backends
    ignore `stop`.
    """
    generated, repaired = _decode(raw)
    logprobs = [token.logprob for token in generated.details.tokens if token.logprob is not None]
    text = generated.generated_text[:MAX_TEXT_CHARS]
    cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=None)
    return Answer(
        text=text[:cut],
        finish_reason=generated.details.finish_reason if cut is None else "stop_sequence",
        generated_tokens=generated.details.generated_tokens,
        prompt_tokens=int(prompt_tokens) if prompt_tokens and prompt_tokens.isdigit() else None,
        seed=request.seed,
        logprob_sum=sum(logprobs) if logprobs else None,
        logprob_min=min(logprobs, default=None),
        logprob_count=len(logprobs),
        repaired=repaired,
    )


def _decode(raw: bytes) -> tuple[_Generated, bool]:
    """Decode an answer; the flag tells that its text held lone surrogates."""
    try:
        return _read_generated.decode(raw), False
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Strict UTF-8 is broken by an escaped half of a surrogate pair. json takes it, and what
        # cannot be encoded becomes U+FFFD. Any other damage raises again below.
        body = json.loads(raw.decode("utf-8", "replace"))
        text = body["generated_text"]
        body["generated_text"] = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for token in body["details"]["tokens"]:
            token.pop("text", None)
        return msgspec.convert(body, _Generated), body["generated_text"] != text


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise FaultError(f"more than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(body)


def _error_text(raw: bytes) -> str:
    """Return the endpoint's own words, short and printable."""
    try:
        said = json.loads(raw)["error"]
    except (ValueError, KeyError, TypeError):
        said = raw.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in str(said))[:300]


def _in_words(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or type(error.os_error).__name__})"
    return f"a broken connection ({type(error).__name__})"
