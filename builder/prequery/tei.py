"""Ask a text-embeddings-inference endpoint what a model gives a text: scores, or a vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from prequery.endpoint import Answer, Info, Rendering, Request, refuse_texts, scored
from prequery.errors import EndpointError
from prequery.transport import (
    AbsentError,
    FaultError,
    HttpEndpoint,
    RefusedError,
    counted,
    encode,
)


class _Info(msgspec.Struct):
    """What `/info` says.

    `model_type` tells TEI from TGI: it is a mapping of `classifier`, `embedding` or `reranker`.
    """

    model_id: str
    model_type: dict[str, msgspec.Raw] | str
    model_sha: str | None = None
    max_concurrent_requests: int | None = None
    max_input_length: int | None = None
    version: str | None = None


class _Prediction(msgspec.Struct):
    score: float | None  # JSON has no NaN: a model that gives one gives null
    label: str


_read_info = msgspec.json.Decoder(_Info).decode
_read_vectors = msgspec.json.Decoder(list[list[float]]).decode
_read_predictions = msgspec.json.Decoder(list[_Prediction]).decode


@dataclass
class TeiEndpoint(HttpEndpoint):
    """A client of one TEI endpoint: it scores or embeds texts and writes none."""

    protocol = "TEI"
    server = "text-embeddings-inference"
    # 413: a text that is longer than the model takes; we send one at a time.
    refusals = frozenset({413, 422})

    _embeds: bool | None = field(default=None, repr=False)

    async def info(self) -> Info:
        """Ask what is served.

        Raises:
            EndpointError: Nothing answers, or what answers is not TEI.
        """
        said = await self._ask_json("GET", "/info", None, _Info, "before the first row")
        self._embeds = "embedding" in said.model_type
        return Info(
            model_id=said.model_id,
            model_sha=said.model_sha,
            max_concurrent_requests=said.max_concurrent_requests,
            max_input_tokens=said.max_input_length,
            version=said.version,
            router="text-embeddings-router",
        )

    async def is_spoken(self) -> bool:
        """Tell TEI from another kind of server.

        Raises:
            EndpointError: Nothing answers, or it does not let us in.
        """
        try:
            _read_info(await self._insist("GET", "/info", None, "handshake"))
        except (AbsentError, RefusedError, msgspec.DecodeError):
            return False
        return True

    async def tokenize(self, text: str) -> list[int] | None:
        """Return nothing: what is scored is sent as text."""
        return None

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Refuse: a model that scores has no chat template to write by.

        Raises:
            EndpointError: Always.
        """
        raise EndpointError(
            "this endpoint scores texts, it writes none",
            self.address,
            "name it as the endpoint of a judge, and another one for the generator",
        )

    def check(self, request: Request) -> None:
        """Refuse what is to be continued, and what a model of this kind does not give.

        Raises:
            EndpointError: The request wants a text, a score of a model that embeds, or a vector of
                one that scores.
        """
        if request.embeds and self._embeds is False:
            raise EndpointError(
                "this endpoint scores texts, it embeds none",
                self.address,
                "serve an embedding model there, or name another endpoint",
            )
        if request.scores and self._embeds:
            raise EndpointError(
                "this endpoint embeds texts, it scores none",
                self.address,
                "serve a sequence classification model there, or name another endpoint",
            )
        if request.embeds:
            return
        refuse_texts(request, self.address)

    async def generate(self, request: Request, timeout_s: float | None) -> Answer:
        """Score a text or a pair, or embed a text: one try.

        Returns:
            An answer whose text is the model's predictions as JSON, raw scores by label, or the
            vector as `vectors.packed` writes it down; one with `error` when the endpoint refuses
            the text.

        Raises:
            FaultError: No answer, or one that cannot be used; asking again may help.
            OverloadError: It has enough to do.
            EndpointError: It will not answer any request: wrong token, or no TEI.
        """
        if request.embeds:
            return await self._embed(request.prompt, timeout_s)
        inputs = request.prompt if request.pair is None else [request.prompt, request.pair]
        body = encode({"inputs": inputs, "raw_scores": True, "truncate": False})
        try:
            raw, headers = await self._once("POST", "/predict", body, timeout_s)
            predictions = _read_predictions(raw)
        except RefusedError as refusal:
            return Answer(error=str(refusal))
        except msgspec.DecodeError:
            raise FaultError("a truncated or malformed answer") from None
        return scored(
            [(one.label, one.score) for one in predictions],
            counted(headers.get("x-compute-tokens")),
        )

    async def _embed(self, text: str, timeout_s: float | None) -> Answer:
        from prequery.columns.vectors import packed

        body = encode({"inputs": text, "normalize": True, "truncate": True})
        try:
            raw, headers = await self._once("POST", "/embed", body, timeout_s)
            [vector] = _read_vectors(raw)
            written = packed(vector)
        except RefusedError as refusal:
            return Answer(error=str(refusal))
        except (msgspec.DecodeError, ValueError):
            raise FaultError("a truncated or malformed answer") from None
        return Answer(
            text=written,
            finish_reason="eos_token",
            prompt_tokens=counted(headers.get("x-compute-tokens")),
        )
