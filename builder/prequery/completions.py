"""The client of servers that speak raw `/v1/completions`: vLLM, SGLang, llama.cpp's, TGI itself.

Never `/v1/chat/completions`: a server that applies a template of its own makes the model greet
instead of ask. What each server takes and says is in `dialects.py`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from prequery import dialects
from prequery.dialects import Completion, Dialect
from prequery.endpoint import (
    MAX_TEXT_CHARS,
    Answer,
    Info,
    Rendering,
    Request,
    Token,
    read_text,
    refuse_scores,
)
from prequery.errors import EndpointError
from prequery.likely import behind, summed
from prequery.transport import (
    AbsentError,
    FaultError,
    HttpEndpoint,
    OverloadError,
    RefusedError,
    counted,
    encode,
)

_read_completion = msgspec.json.Decoder(Completion).decode


class _Model(msgspec.Struct):
    """An entry of `/v1/models`. `owned_by` names the server; `root` is what vLLM was started on."""

    id: str
    owned_by: str = ""
    root: str | None = None
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Page(msgspec.Struct):
    """What vLLM's `/version` says, and SGLang's `/get_server_info`."""

    version: str | None = None
    max_running_requests: int | None = None
    enable_deterministic_inference: bool | None = None


class _Defaults(msgspec.Struct):
    n_ctx: int = 0


class _Props(msgspec.Struct):
    """What llama.cpp's `/props` says."""

    total_slots: int
    build_info: str | None = None
    model_ftype: str | None = None
    default_generation_settings: _Defaults = msgspec.field(default_factory=_Defaults)


class _Tokenized(msgspec.Struct):
    tokens: list[int]


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]  # half a character is no JSON string: it comes as bytes


class _Pieces(msgspec.Struct):
    tokens: list[_Piece]


class _Templated(msgspec.Struct):
    prompt: str


@dataclass
class CompletionsEndpoint(HttpEndpoint):
    """A client of one endpoint of raw completions.

    Args:
        address: As `HttpEndpoint`.
        token: As `HttpEndpoint`.
        patience: As `HttpEndpoint`.
        model: The one that is meant, where several are served; null takes the first.
    """

    protocol = "raw completions"
    server = "text-generation-inference, vLLM, SGLang or llama.cpp's server"
    # OpenAI's 400, FastAPI's 422, and a body that is too long.
    refusals = frozenset({400, 413, 422})

    model: str | None = None
    _dialect: Dialect = field(default_factory=Dialect, repr=False)
    _name: str = field(default="", repr=False)

    async def info(self) -> Info:
        """Ask what is served, and by what.

        Raises:
            EndpointError: Nothing answers, or no model is listed.
        """
        where = "before the first row"
        listed = (await self._ask_json("GET", "/v1/models", None, _Models, where)).data
        if not listed:
            raise EndpointError(
                "the endpoint serves no model: /v1/models is empty",
                self.address,
                "start it with the recipe's generator.model",
            )
        meant = (one for one in listed if self.model in (one.id, one.root))
        served = next(meant, listed[0])
        self._name = served.id
        return await self._server(served, self.model if served.root == self.model else served.id)

    async def tokenize(self, text: str) -> list[int] | None:
        """Return the ids that `generate` would see for this prompt; null where none can be had.

        Raises:
            EndpointError: The endpoint does not answer.
        """
        body = self._dialect.tokenize(text)
        if body is None:
            return None
        try:
            body = {"model": self._name} | body
            found = await self._ask_json("POST", "/tokenize", body, _Tokenized, "prefix")
        except AbsentError:
            return None
        return found.tokens

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Apply the served model's chat template: llama.cpp's server can.

        Raises:
            EndpointError: It is another server, or its template refuses the messages.
        """
        if not isinstance(self._dialect, dialects.LlamaCpp):
            raise EndpointError(
                f"{self._dialect.name} does not show its chat template as text",
                f"{self.address}, prefix",
                "name the template in the recipe: generator.template",
            )
        body: dict[str, Any] = {"messages": list(messages)}
        text = (await self._ask_json("POST", "/apply-template", body, _Templated, "prefix")).prompt
        body = {"content": text, "add_special": False, "parse_special": True, "with_pieces": True}
        pieces = (await self._ask_json("POST", "/tokenize", body, _Pieces, "prefix")).tokens
        return Rendering(text, _placed(pieces))

    async def is_healthy(self, timeout_s: float) -> bool:
        """Ask once whether it works; a gateway may have no `/health`."""
        for path in ("/health", "/v1/models"):
            try:
                await self._once("GET", path, None, timeout_s)
            except AbsentError:
                continue
            except (FaultError, OverloadError, RefusedError, EndpointError):
                return False
            return True
        return False

    def check(self, request: Request) -> None:
        """Refuse what this server would leave out in silence.

        Raises:
            EndpointError: Naming the field.
        """
        refuse_scores(request, self.address)
        self._dialect.check(request, self.address)

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
            EndpointError: It will not answer any request, or has no word for a part of this one.
        """
        self.check(request)
        if request.reads is not None:
            return await self._read(request, timeout_s)
        body = encode(self._dialect.parameters(request, self._name))
        try:
            raw, headers = await self._once("POST", "/v1/completions", body, timeout_s)
            answer = read_completion(raw, request, self._dialect, headers.get("x-prompt-tokens"))
        except RefusedError as refusal:
            return Answer(seed=self._dialect.seed(request), error=str(refusal))
        except (msgspec.DecodeError, ValueError, LookupError, TypeError):
            raise FaultError("a truncated or malformed answer") from None
        grammar, ended = request.grammar, answer.finish_reason == "eos_token"
        if grammar is not None and ended and not re.fullmatch(grammar, answer.text):
            raise EndpointError(
                f"{self._dialect.name} ignores the grammar that it was sent: {grammar!r}",
                f"{self.address}, /v1/completions, answer {answer.text[:40]!r}",
                "use a newer version of it, or remove heading from the recipe",
            )
        return answer

    async def _read(self, request: Request, timeout_s: float | None) -> Answer:
        """Ask how likely a text is behind a prompt: one try."""
        whole = replace(request, prompt=request.prompt + (request.reads or ""))
        reading = self._dialect.reading(whole, self._name)
        if reading is None:
            return Answer(error=f"{self._dialect.name} tells no log-probabilities of a prompt")
        try:
            before = await self._ids(request, timeout_s) if request.prompt else []
            ids = await self._ids(whole, timeout_s)
            raw, headers = await self._once("POST", "/v1/completions", encode(reading), timeout_s)
            completion = _decode(raw)[0]
            likely = behind(before, ids, self._dialect.read(completion))
        except RefusedError as refusal:
            return Answer(error=str(refusal))
        except (msgspec.DecodeError, ValueError, LookupError, TypeError):
            raise FaultError("a truncated or malformed answer") from None
        prompt_tokens = _prompt_tokens(completion, headers.get("x-prompt-tokens"))
        return read_text(likely, completion.usage.completion_tokens, prompt_tokens)

    async def _ids(self, request: Request, timeout_s: float | None) -> list[int]:
        asked = self._dialect.tokenize(request.prompt, request.plain) or {}
        body = {"model": self._name} | asked
        raw, _ = await self._once("POST", "/tokenize", encode(body), timeout_s)
        return msgspec.json.decode(raw, type=_Tokenized).tokens

    async def _server(self, served: _Model, model_id: str | None) -> Info:
        """Find out what serves the model; see `_Model.owned_by`."""
        version, slots, context, engine = None, None, served.max_model_len, None
        match served.owned_by:
            case "vllm":
                found = await self._own_page("/version")
                version = found.version
                self._dialect = dialects.Vllm()
            case "sglang":
                found = await self._own_page("/get_server_info")
                version, slots = found.version, found.max_running_requests
                self._dialect = dialects.Sglang(found.enable_deterministic_inference)
            case "llamacpp":
                props = await self._ask_json("GET", "/props", None, _Props, "before the first row")
                context = props.default_generation_settings.n_ctx
                self._dialect = dialects.LlamaCpp(context)
                version, slots = props.build_info, props.total_slots
                engine = props.model_ftype and f"llama.cpp, {props.model_ftype}"
            case owner if owner == served.id:
                self._dialect = dialects.TgiCompletions()
            case _:
                self._dialect = Dialect()
        return Info(
            model_id=model_id or served.id,
            max_total_tokens=context,
            version=version,
            router=self._dialect.name,
            engine=engine,
            slots=slots,
        )

    async def _own_page(self, path: str) -> _Page:
        """Return what a server says beyond `/v1`, which some gateways do not pass on."""
        try:
            return await self._ask_json("GET", path, None, _Page, "before the first row")
        except AbsentError:
            return _Page()


def read_completion(
    raw: bytes, request: Request, dialect: Dialect, prompt_tokens: str | None = None
) -> Answer:
    """Read the body of a `/v1/completions` answer.

    The text is cut at the first stop string: some servers leave it in, some ignore `stop`.

    Args:
        raw: The body.
        request: What was asked.
        dialect: Of the server.
        prompt_tokens: TGI's header, which is right where its body is not.

    Raises:
        FaultError: It was broken off.
        ValueError: It is damaged.
    """
    completion, repaired = _decode(raw)
    choice = completion.choices[0]
    likely = summed(dialects.logprobs(choice))
    text = choice.text[:MAX_TEXT_CHARS]
    cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=None)
    return Answer(
        text=text[:cut],
        finish_reason=dialect.finish(completion) if cut is None else "stop_sequence",
        generated_tokens=completion.usage.completion_tokens,
        prompt_tokens=_prompt_tokens(completion, prompt_tokens),
        seed=dialect.seed(request),
        logprob_sum=likely.total,
        logprob_squares=likely.squares,
        logprob_min=likely.lowest,
        logprob_count=likely.tokens,
        repaired=repaired,
    )


def _prompt_tokens(completion: Completion, header: str | None) -> int:
    """Return the tokens of the prompt: TGI's header is right where its body is not."""
    told = counted(header)
    return completion.usage.prompt_tokens if told is None else told


def _decode(raw: bytes) -> tuple[Completion, bool]:
    """Decode an answer; the flag tells that its text held lone surrogates."""
    try:
        return _read_completion(raw), False
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # As for TGI: json takes an escaped half of a surrogate pair, and it becomes U+FFFD.
        body = json.loads(raw.decode("utf-8", "replace"))
        choice = body["choices"][0]
        text = choice["text"]
        choice["text"] = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return msgspec.convert(body, Completion), choice["text"] != text


def _placed(pieces: Sequence[_Piece]) -> list[Token]:
    """Return tokens with the characters that they cover; those of one character share it."""
    tokens: list[Token] = []
    at, waiting, ids = 0, b"", []
    for one in pieces:
        ids.append(one.id)
        waiting += one.piece.encode() if isinstance(one.piece, str) else bytes(one.piece)
        try:
            text = waiting.decode()
        except UnicodeDecodeError:
            continue
        tokens += [Token(id_, text, at, at + len(text)) for id_ in ids]
        at, waiting, ids = at + len(text), b"", []
    return tokens
