"""What goes over the wire: TGI 3.3's requests, answers and errors.

Types are strict and unknown fields are refused, where TGI ignores them: a misspelled parameter
would otherwise silently change a data set.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

NonNegative = Annotated[int, msgspec.Meta(ge=0)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Float32 = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]
FinishReason = Literal["length", "eos_token", "stop_sequence"]


class TgiError(Exception):
    """An answer that is not a 200.

    Args:
        status: Of the HTTP answer.
        error_type: TGI's short name, which clients branch on.
        error: For people.
    """

    def __init__(self, status: int, error_type: str, error: str) -> None:
        super().__init__(status, error_type, error)
        self.status = status
        self.error_type = error_type
        self.error = error

    def to_json(self) -> bytes:
        """Return TGI's ``ErrorResponse``."""
        return msgspec.json.encode({"error": self.error, "error_type": self.error_type})


def invalid(reason: str) -> TgiError:
    """Return the error for a request that will never be served."""
    return TgiError(422, "validation", f"Input validation error: {reason}")


class Grammar(msgspec.Struct, forbid_unknown_fields=True):
    """What an answer must look like."""

    type: Literal["json", "regex", "json_schema"]
    value: Any


class GenerateParameters(msgspec.Struct, forbid_unknown_fields=True):
    """How to generate. None is "not set", which is not always the same as a neutral value."""

    adapter_id: str | None = None
    best_of: NonNegative | None = None
    decoder_input_details: bool = False
    details: bool = False
    do_sample: bool = False
    frequency_penalty: Float32 | None = None
    grammar: Grammar | None = None
    max_new_tokens: NonNegative | None = None
    repetition_penalty: Float32 | None = None
    return_full_text: bool | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stop: list[str] = []
    temperature: Float32 | None = None
    top_k: Int32 | None = None
    top_n_tokens: NonNegative | None = None
    top_p: Float32 | None = None
    truncate: NonNegative | None = None
    typical_p: Float32 | None = None
    watermark: bool = False


class GenerateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request of ``/generate``, ``/generate_stream``, ``/tokenize`` or ``/``.

    Attributes:
        inputs: The raw prompt. No chat template is applied.
        parameters: How to generate.
        stream: Only ``/`` takes it; elsewhere the route decides.
    """

    inputs: str
    parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)
    stream: bool = False


class TextChunk(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: str
    content: str | list[TextChunk]

    def to_plain(self) -> dict[str, str]:
        """Return role and whole text."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": self.role, "content": text}


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request of ``/chat_tokenize``. ``model`` is unused, as in TGI."""

    messages: list[Message]
    model: str | None = None


class Token(msgspec.Struct):
    """A token of an answer.

    Attributes:
        id: In the model's vocabulary.
        text: Empty while a character is unfinished; joined, they are the generated text.
        logprob: After the warpers; None where it is not known.
        special: It is a control token, whose text is not part of the generated text.
    """

    id: int
    text: str
    logprob: float | None
    special: bool


class BestOfSequence(msgspec.Struct):
    """One whole answer."""

    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[Any]
    tokens: list[Token]
    top_tokens: list[list[Token]] | UnsetType = UNSET


class Details(msgspec.Struct):
    """How an answer came about. ``seed`` is None for a greedy one."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[Any]
    tokens: list[Token]
    best_of_sequences: list[BestOfSequence] | UnsetType = UNSET
    top_tokens: list[list[Token]] | UnsetType = UNSET


class GenerateResponse(msgspec.Struct):
    """The answer of ``/generate``."""

    generated_text: str
    details: Details | UnsetType = UNSET


class StreamDetails(msgspec.Struct):
    """How a streamed answer came about."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamResponse(msgspec.Struct):
    """One event of ``/generate_stream``; the last one has the text and the details."""

    index: int
    token: Token
    generated_text: str | None
    details: StreamDetails | None
    top_tokens: list[Token] | UnsetType = UNSET


class Info(msgspec.Struct):
    """The answer of ``/info``. The last four fields are not TGI's.

    Attributes:
        engine: Name and version.
        exact: Whether the same request gives the same greedy answer whatever else is served.
        slots: How many answers are generated at the same time.
        weights_sha256: Of the whole GGUF file.
    """

    model_id: str
    model_sha: str
    model_pipeline_tag: str
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    engine: str
    exact: bool
    slots: int
    weights_sha256: str
