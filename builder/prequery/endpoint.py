"""What a build asks of an endpoint and is told, and the client that speaks TGI's protocol.

Names and meanings are those of huggingface_hub's TGI types; its AsyncInferenceClient itself costs
8 ms CPU for a detailed answer, so the requests go through aiohttp and msgspec reads only what is
used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from prequery.errors import EndpointError
from prequery.likely import Likely, behind, summed
from prequery.recipe import Sampling
from prequery.transport import (
    AbsentError,
    Count,
    FaultError,
    HttpEndpoint,
    RefusedError,
    counted,
    encode,
)

MAX_TEXT_CHARS = 1 << 20


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one request brought.

    Args:
        text: Generated text, cut at the first stop string; no lone surrogates.
        finish_reason: `eos_token`, `stop_sequence` or `length`.
        generated_tokens: As the endpoint counts them, with the end-of-turn token.
        prompt_tokens: As the endpoint counts them; null when it does not say.
        seed: The seed that was sent; null for a greedy request.
        logprob_sum: Natural logarithm, over the tokens that came with one; null when none did. Of
            a text that was read: over its tokens, all of them.
        logprob_squares: Sum of their squares, for the spread; null in journals from before it.
        logprob_min: The least likely token's.
        logprob_count: How many tokens came with one.
        repaired: The text held lone surrogates, now U+FFFD.
        error: Why there is no text, in the endpoint's words; every other field is then empty.
        failed: All tries failed. Not set: the endpoint refuses this request for good.
        waited_ms: Time in which its builder waited for any answer, since the one that came before:
            over all answers of a journal that is how long was asked. Null where nobody took it.
            The last field: what else an answer says decides before it which of two counts.
    """

    text: str = ""
    finish_reason: str = ""
    generated_tokens: int = 0
    prompt_tokens: int | None = None
    seed: int | None = None
    logprob_sum: float | None = None
    logprob_squares: float | None = None
    logprob_min: float | None = None
    logprob_count: int = 0
    repaired: bool = False
    error: str | None = None
    failed: bool = False
    waited_ms: int | None = None


class Token(msgspec.Struct, frozen=True):
    """One token of a text and the characters that it covers."""

    id: int
    text: str
    start: int
    stop: int


class Info(msgspec.Struct, frozen=True):
    """What an endpoint says of itself; null where it does not say.

    Args:
        model_id: Of the served model.
        max_concurrent_requests: Running and queued, before it answers 429.
        max_input_tokens: Of a prompt.
        max_total_tokens: Of a prompt and its answer.
        version: Of the server.
        model_sha: Commit of the model; only TGI tells.
        max_stop_sequences: TGI's own limit.
        router: What answers.
        engine: What computes: the embedded endpoint tells, and llama.cpp how it is quantised.
        exact: One request at a time; only the embedded endpoint tells.
        slots: Answers that are decoded at the same time; TGI and vLLM do not tell.
        weights_sha256: Of the whole file; only the embedded endpoint tells.
    """

    model_id: str
    max_concurrent_requests: int | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    version: str | None = None
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
    """One text to continue.

    Args:
        prompt: The text, as it stands.
        sampling: How to continue it.
        seed: Of the sampling; null where decoding is greedy.
        stop: Strings that end the continuation.
        logprobs: Whether log-probabilities are read out of the answer. Those who never use them
            save half of what reading an answer costs.
        control: Control tokens in the middle of the answer stay in its text, because they mark
            where thoughts end.
        grammar: Regular expression that the whole continuation matches; null: anything.
        schema: JSON schema that the whole continuation follows; null: anything.
        scores: The text is to be scored, not continued; `pair` is scored with it.
        pair: Second text; null: there is none.
        embeds: The text is to be embedded, not continued.
        reads: Text behind the prompt, to be read: how likely is it there? Nothing is written.
        plain: The prompt is of no template, which would hold a BOS: the tokenizer's own special
            tokens go before it.
    """

    prompt: str
    sampling: Sampling
    seed: int | None = None
    stop: Sequence[str] = ()
    logprobs: bool = True
    control: bool = False
    grammar: str | None = None
    schema: Mapping[str, Any] | None = None
    scores: bool = False
    pair: str | None = None
    embeds: bool = False
    reads: str | None = None
    plain: bool = False

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
            "grammar": self._grammar(),
        }
        greedy = self.sampling.temperature is None
        chosen = both if greedy else {"do_sample": True, **sampled, **both}
        return {"details": True} | {k: v for k, v in chosen.items() if v is not None}

    def _grammar(self) -> dict[str, Any] | None:
        if self.schema is not None:
            return {"type": "json", "value": self.schema}
        return None if self.grammar is None else {"type": "regex", "value": self.grammar}


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

    async def tokenize(self, text: str) -> list[int] | None:
        """Return the ids that `generate` would see for this prompt; null: none can be had."""

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template, with the generation prompt.

        Raises:
            EndpointError: This endpoint cannot, or the template refuses the messages.
        """

    def check(self, request: Request) -> None:
        """Raise an `EndpointError` for what the endpoint would leave out in silence."""

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        """Continue a text; urgent requests go first where there is no room for all."""


class Client(Protocol):
    """One endpoint, whatever protocol it speaks; an async context manager. A fleet has several."""

    @property
    def address(self) -> str:
        """Where it is, for messages; no credentials."""

    async def __aenter__(self) -> Self:
        """Open the connections."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""

    async def info(self) -> Info:
        """Ask what is served."""

    async def tokenize(self, text: str) -> list[int] | None:
        """Return the ids that `generate` would see for this prompt; null: none can be had."""

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template, with the generation prompt.

        Raises:
            EndpointError: This endpoint cannot, or the template refuses the messages.
        """

    def check(self, request: Request) -> None:
        """Raise an `EndpointError` for what the endpoint would leave out in silence."""

    async def is_healthy(self, timeout_s: float) -> bool:
        """Ask once whether it works."""

    async def generate(self, request: Request, timeout_s: float | None) -> Answer:
        """Continue a text: one try. Faults raise `FaultError` or `OverloadError`."""


class _Ending(msgspec.Struct, gc=False):
    finish_reason: str
    generated_tokens: Count


class _Bare(msgspec.Struct, gc=False):
    """An answer without its tokens: msgspec skips them, which is half of the decoding time."""

    generated_text: str
    details: _Ending


class _Scored(msgspec.Struct, gc=False):
    logprob: float | None = None  # ids and texts are skipped


class _Details(_Ending):
    tokens: list[_Scored]


class _Whole(msgspec.Struct):
    generated_text: str
    details: _Details


class _Spelled(msgspec.Struct, gc=False):
    text: str
    special: bool = False
    logprob: float | None = None


class _SpelledDetails(_Ending):
    tokens: list[_Spelled]


class _SpelledOut(msgspec.Struct):
    generated_text: str
    details: _SpelledDetails


class _Prefilled(msgspec.Struct, gc=False):
    id: int
    logprob: float | None = None


class _PrefilledDetails(msgspec.Struct):
    generated_tokens: Count
    prefill: list[_Prefilled]


class _Read(msgspec.Struct):
    details: _PrefilledDetails


_read_tokens = msgspec.json.Decoder(list[Token]).decode
_read_prefilled = msgspec.json.Decoder(_Read).decode
_read_bare = msgspec.json.Decoder(_Bare, strict=True).decode
_read_whole = msgspec.json.Decoder(_Whole, strict=True).decode
_read_spelled_out = msgspec.json.Decoder(_SpelledOut, strict=True).decode


class TgiEndpoint(HttpEndpoint):
    """A client of one TGI endpoint."""

    protocol = "TGI"
    server = "text-generation-inference"
    refusals = frozenset({422})

    async def info(self) -> Info:
        """Ask what is served.

        Raises:
            EndpointError: Nothing answers, or what answers is not TGI.
        """
        return await self._ask_json("GET", "/info", None, Info, "before the first row")

    async def is_spoken(self) -> bool:
        """Tell TGI from another kind of server.

        Raises:
            EndpointError: Nothing answers, or it does not let us in.
        """
        try:
            raw = await self._insist("GET", "/info", None, "handshake")
            return _is_tgi(msgspec.json.decode(raw))
        except (AbsentError, RefusedError, msgspec.DecodeError):
            return False

    async def tokenize(self, text: str) -> list[int]:
        """Return the ids that `/generate` would see for this prompt.

        Raises:
            EndpointError: Nothing answers, or what answers is not TGI.
        """
        body = {"inputs": text}
        tokens = await self._ask_json("POST", "/tokenize", body, list[Token], "prefix")
        return [token.id for token in tokens]

    def check(self, request: Request) -> None:
        """Accept what is to be continued: TGI refuses by itself what it does not know.

        Raises:
            EndpointError: The request wants a score.
        """
        refuse_scores(request, self.address)

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template, with the generation prompt.

        Raises:
            EndpointError: Nothing answers, or the model has no chat template.
        """
        body = {"messages": list(messages)}
        return await self._ask_json("POST", "/chat_tokenize", body, Rendering, "prefix")

    async def generate(self, request: Request, timeout_s: float | None) -> Answer:
        """Continue a text: one try.

        Args:
            request: What to continue and how.
            timeout_s: Without an answer after this time the try is a faulty one. Null: whoever
                asks keeps the time.

        Returns:
            An answer; one with `error` when the endpoint refuses the request for good.

        Raises:
            FaultError: No answer, or one that cannot be used; asking again may help.
            OverloadError: It has enough to do.
            EndpointError: It will not answer any request: wrong token, or no TGI.
        """
        if request.reads is not None:
            return await self._read(request.prompt, request.reads, timeout_s)
        body = encode({"inputs": request.prompt, "parameters": request.parameters()})
        try:
            raw, headers = await self._once("POST", "/generate", body, timeout_s)
            return read_answer(raw, request, headers.get("x-prompt-tokens"))
        except RefusedError as refusal:
            return Answer(seed=request.seed, error=str(refusal))
        except (msgspec.DecodeError, ValueError, KeyError, TypeError):
            raise FaultError("a truncated or malformed answer") from None

    async def _read(self, prompt: str, text: str, timeout_s: float | None) -> Answer:
        """Ask how likely a text is behind a prompt: one try.

        Prefill log-probabilities are told by servers that were started with
        `--enable-prefill-logprobs`. Such a request is computed whole, past the prefix cache, whose
        tokens would come without one (backends/v3/src/queue.rs).
        """
        parameters = {"details": True, "decoder_input_details": True, "max_new_tokens": 1}
        body = encode({"inputs": prompt + text, "parameters": parameters})
        try:
            before: list[Token] = []
            if prompt:
                asked = encode({"inputs": prompt})
                before = _read_tokens((await self._once("POST", "/tokenize", asked, timeout_s))[0])
            raw, headers = await self._once("POST", "/generate", body, timeout_s)
            details = _read_prefilled(raw).details
            found = behind(
                [token.id for token in before],
                [token.id for token in details.prefill],
                [token.logprob for token in details.prefill],
            )
        except RefusedError as refusal:
            return Answer(error=str(refusal))
        except (msgspec.DecodeError, ValueError):
            raise FaultError("a truncated or malformed answer") from None
        return read_text(found, details.generated_tokens, counted(headers.get("x-prompt-tokens")))


def read_text(likely: Likely | None, generated_tokens: int, prompt_tokens: int | None) -> Answer:
    """Return the answer about a text that was read; an error where its likelihood is not told."""
    if likely is None:
        return Answer(error="the endpoint does not tell how likely it finds a text that it reads")
    return Answer(
        finish_reason="length",
        generated_tokens=generated_tokens,
        prompt_tokens=prompt_tokens,
        logprob_sum=likely.total,
        logprob_squares=likely.squares,
        logprob_min=likely.lowest,
        logprob_count=likely.tokens,
    )


def refuse_scores(request: Request, address: str) -> None:
    """Refuse a request for a score or a vector, at an endpoint that writes.

    Raises:
        EndpointError: The request wants one.
    """
    verb, model = ("embeds", "an embedding") if request.embeds else ("scores", "a reward")
    if request.scores or request.embeds:
        raise EndpointError(
            f"this endpoint writes texts, it {verb} none",
            address,
            f"point the judge at text-embeddings-inference with {model} model",
        )


def refuse_texts(request: Request, address: str) -> None:
    """Refuse a request for a text, of a model that scores.

    Raises:
        EndpointError: The request wants a text.
    """
    if not request.scores:
        raise EndpointError(
            "this endpoint scores texts, it writes none",
            address,
            "ask it by a column that wants a score, as instruct_reward does",
        )


def scored(scores: Sequence[tuple[str, float | None]], prompt_tokens: int | None) -> Answer:
    """Return the answer of a model that scores.

    Args:
        scores: Label and score; null: it was no number.
        prompt_tokens: Of the text; null where it is not told.
    """
    predictions = [{"score": score, "label": label} for label, score in sorted(scores, key=_label)]
    return Answer(
        text=encode(predictions).decode(), finish_reason="eos_token", prompt_tokens=prompt_tokens
    )


def _label(score: tuple[str, float | None]) -> str:
    return score[0]


def read_answer(raw: bytes, request: Request, prompt_tokens: str | None) -> Answer:
    """Read the body of a `/generate` answer.

    The text is cut at the first stop string: TGI leaves the string in, and some of its backends
    ignore `stop`.
    """
    generated, repaired = _decode(raw, request.logprobs)
    likely = Likely()
    if isinstance(generated, _Whole):
        likely = summed([token.logprob for token in generated.details.tokens])
    text = _spelled_out(raw, generated.generated_text) if request.control else ""
    text = (text or generated.generated_text)[:MAX_TEXT_CHARS]
    cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=None)
    return Answer(
        text=text[:cut],
        finish_reason=generated.details.finish_reason if cut is None else "stop_sequence",
        generated_tokens=generated.details.generated_tokens,
        prompt_tokens=counted(prompt_tokens),
        seed=request.seed,
        logprob_sum=likely.total,
        logprob_squares=likely.squares,
        logprob_min=likely.lowest,
        logprob_count=likely.tokens,
        repaired=repaired,
    )


def _spelled_out(raw: bytes, told: str) -> str:
    """Return an answer's text with the control tokens that TGI leaves out of `generated_text`.

    Empty where the tokens do not spell that text: then it is believed, and not they.
    """
    try:
        tokens = _read_spelled_out(raw).details.tokens
    except msgspec.DecodeError:
        return ""
    if "".join(token.text for token in tokens if not token.special).strip() != told.strip():
        return ""
    # The last one ends the turn.
    ended = len(tokens) - (bool(tokens) and tokens[-1].special)
    return "".join(token.text for token in tokens[:ended])


def _is_tgi(info: Any) -> bool:
    return isinstance(info, dict) and {"model_id", "max_concurrent_requests"} <= info.keys()


def _decode(raw: bytes, logprobs: bool) -> tuple[_Bare | _Whole, bool]:
    """Decode an answer; the flag tells that its text held lone surrogates."""
    try:
        return _read_whole(raw) if logprobs else _read_bare(raw), False
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
        found = msgspec.convert(body, _Whole) if logprobs else msgspec.convert(body, _Bare)
        return found, body["generated_text"] != text
