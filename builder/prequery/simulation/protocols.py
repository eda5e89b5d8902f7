"""What a simulated endpoint reads and writes: TGI's protocol, or that of llama.cpp's server.

The second stands for raw completions, because of their servers it alone renders its template: a
build needs nothing but its address.
"""

import math
from typing import Any, NamedTuple, Protocol

import msgspec

from prequery.simulation import words
from prequery.simulation.settings import Machine, Settings
from prequery.simulation.template import ChatTemplate
from prequery.simulation.words import Written

DEFAULT_NEW_TOKENS = 100
"""TGI's, where a request does not say."""

_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """A request to generate.

    Args:
        prompt: To be continued.
        seed: Of the draws.
        most: Tokens that may be written.
        details: With the tokens, or the text alone.
        listed: The answer is wanted in a list.
        reads: With the prompt's tokens.
    """

    prompt: str
    seed: int | None
    most: int
    details: bool
    listed: bool = False
    reads: bool = False


class Speaks(Protocol):
    """A protocol."""

    invalid: int
    """Status of a request that is wrong."""
    failed: int
    """Status of a generation that failed."""

    def route(self, method: bytes, path: bytes, body: bytes) -> bytes | Asked | None:
        """Return the body of a plain answer, or what to generate; null: there is no such route.

        Raises:
            msgspec.DecodeError: The request is wrong.
            RefusedError: The chat template refuses the messages.
        """

    def token(self, text: str, logprob: float, special: bool) -> bytes:
        """Return a token as it stands in an answer."""

    def answer(self, written: Written, asked: Asked, prompt_tokens: int) -> bytes:
        """Return the body of an answer."""

    def error(self, status: int, said: str, kind: str) -> bytes:
        """Return the body of an error."""


def speaking(settings: Settings, machine: Machine, template: ChatTemplate) -> Speaks:
    """Return the protocol that an endpoint of these settings speaks."""
    kind = Tgi if settings.protocol == "tgi" else LlamaCpp
    return kind(settings, machine, template)


class _Parameters(msgspec.Struct):
    max_new_tokens: int | None = None
    seed: int | None = None
    details: bool = False
    decoder_input_details: bool = False


class _Generate(msgspec.Struct):
    inputs: str
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Inputs(msgspec.Struct):
    inputs: str


class _Chat(msgspec.Struct):
    messages: list[dict[str, str]]


class _Completion(msgspec.Struct):
    prompt: str
    max_tokens: int = 16
    seed: int | None = None
    logprobs: int | None = None


class _Content(msgspec.Struct):
    content: str
    add_special: bool = False
    with_pieces: bool = False


_read_generate = msgspec.json.Decoder(_Generate).decode
_read_inputs = msgspec.json.Decoder(_Inputs).decode
_read_chat = msgspec.json.Decoder(_Chat).decode
_read_completion = msgspec.json.Decoder(_Completion).decode
_read_content = msgspec.json.Decoder(_Content).decode


class Tgi:
    """TGI's own protocol."""

    invalid = 422
    failed = 424

    def __init__(self, settings: Settings, machine: Machine, template: ChatTemplate) -> None:
        self.settings = settings
        self.machine = machine
        self.template = template

    def route(self, method: bytes, path: bytes, body: bytes) -> bytes | Asked | None:
        """See `Speaks`."""
        match method, path:
            case b"POST", b"/generate" | b"/":
                read = _read_generate(body)
                given = read.parameters
                most = given.max_new_tokens or DEFAULT_NEW_TOKENS
                reads = given.decoder_input_details
                return Asked(read.inputs, given.seed, most, given.details, path == b"/", reads)
            case b"GET", b"/info":
                return _encode(self._info())
            case b"POST", b"/tokenize":
                return _encode(self.template.tokens(_read_inputs(body).inputs, special=True))
            case b"POST", b"/chat_tokenize":
                text = self.template.render(_read_chat(body).messages)
                tokens = self.template.tokens(text)
                return _encode({"templated_text": text, "tokenize_response": tokens})
        return None

    def token(self, text: str, logprob: float, special: bool) -> bytes:
        """See `Speaks`."""
        flag = "true" if special else "false"
        id_ = self.template.token_id(text)
        return f'{{"id":{id_},"text":"{text}","logprob":{logprob:.7f},"special":{flag}}}'.encode()

    def answer(self, written: Written, asked: Asked, prompt_tokens: int) -> bytes:
        """See `Speaks`."""
        body = b'{"generated_text":"%b"}' % written.text
        if asked.details:
            body = (
                b'{"generated_text":"%b","details":{"finish_reason":"%b","generated_tokens":%d,'
                b'"seed":%b,"prefill":%b,"tokens":[%b]}}'
            ) % (
                written.text,
                b"length" if written.cut else b"eos_token",
                written.generated,
                b"null" if asked.seed is None else b"%d" % asked.seed,
                _encode(self._prefill(asked.prompt)) if asked.reads else b"[]",
                written.tokens,
            )
        return b"[" + body + b"]" if asked.listed else body

    def error(self, status: int, said: str, kind: str) -> bytes:
        """See `Speaks`."""
        return _encode({"error": said, "error_type": kind})

    def _prefill(self, prompt: str) -> list[dict[str, Any]]:
        """Return the tokens of a prompt, as TGI does where its log-probabilities are enabled."""
        found = self.template.tokens(prompt, special=True)
        surprise = words.surprise([one["text"] for one in found], self.settings.seed)
        return [
            {"id": one["id"], "text": one["text"], "logprob": logprob}
            for one, logprob in zip(found, surprise, strict=True)
        ]

    def _info(self) -> dict[str, Any]:
        return {
            "model_id": self.settings.model_id,
            "model_sha": self.settings.model_sha,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": self.machine.takes if self.machine.tells_limit else None,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": 32767,
            "max_total_tokens": 32768,
            "validation_workers": 2,
            "max_client_batch_size": 32,
            "router": "text-generation-router",
            "version": "3.3.6",
            "sha": None,
            "docker_label": "simulated by prequery",
        }


class LlamaCpp:
    """Raw completions, as llama.cpp's server speaks them."""

    invalid = 400
    failed = 500

    def __init__(self, settings: Settings, machine: Machine, template: ChatTemplate) -> None:
        self.settings = settings
        self.machine = machine
        self.template = template

    def route(self, method: bytes, path: bytes, body: bytes) -> bytes | Asked | None:
        """See `Speaks`."""
        match method, path:
            case b"POST", b"/v1/completions":
                read = _read_completion(body)
                return Asked(read.prompt, read.seed, read.max_tokens, read.logprobs is not None)
            case b"GET", b"/v1/models":
                model = {"id": self.settings.model_id, "object": "model", "owned_by": "llamacpp"}
                return _encode({"object": "list", "data": [model]})
            case b"GET", b"/props":
                return _encode(
                    {
                        "default_generation_settings": {"n_ctx": 32768},
                        "total_slots": self.machine.slots,
                        "build_info": "simulated by prequery",
                    }
                )
            case b"POST", b"/apply-template":
                return _encode({"prompt": self.template.render(_read_chat(body).messages)})
            case b"POST", b"/tokenize":
                asked = _read_content(body)
                found = self.template.tokens(asked.content, asked.add_special)
                if asked.with_pieces:
                    pieces = [{"id": one["id"], "piece": one["text"]} for one in found]
                    return _encode({"tokens": pieces})
                return _encode({"tokens": [one["id"] for one in found]})
        return None

    def token(self, text: str, logprob: float, special: bool) -> bytes:
        """See `Speaks`. An end-of-turn token has no text."""
        shown = "" if special else text
        covered = ",".join(map(str, shown.encode()))
        return (
            f'{{"id":{self.template.token_id(text)},"token":"{shown}","bytes":[{covered}],'
            f'"prob":{math.exp(logprob):.7f},"top_probs":[]}}'
        ).encode()

    def answer(self, written: Written, asked: Asked, prompt_tokens: int) -> bytes:
        """See `Speaks`."""
        listed = b'{"content":[%b]}' % written.tokens if asked.details else b"null"
        return (
            b'{"choices":[{"text":"%b","index":0,"logprobs":%b,"finish_reason":"%b"}],'
            b'"object":"text_completion","usage":{"completion_tokens":%d,"prompt_tokens":%d,'
            b'"total_tokens":%d},"__verbose":{"stop_type":"%b"}}'
        ) % (
            written.text,
            listed,
            b"length" if written.cut else b"stop",
            written.generated,
            prompt_tokens,
            written.generated + prompt_tokens,
            b"limit" if written.cut else b"eos",
        )

    def error(self, status: int, said: str, kind: str) -> bytes:
        """See `Speaks`."""
        return _encode({"error": {"code": status, "message": said, "type": kind}})
