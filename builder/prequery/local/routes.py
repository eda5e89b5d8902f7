"""The HTTP routes of the embedded endpoint."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET

from prequery.local import tgi, validation
from prequery.local.engine import Engine
from prequery.local.generation import Answer, complete, grow
from prequery.local.llamacpp import EngineError, RefusedError
from prequery.local.metrics import Metrics
from prequery.local.settings import Settings
from prequery.local.tgi import TgiError, invalid
from prequery.local.validation import Job, Limits
from prequery.local.vocabulary import Piece, spans

# TGI's own limit for a body. Texts of max_total_tokens are far below it.
MAX_BODY_BYTES = 2_000_000

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Routes:
    """The routes. One instance serves one engine.

    Args:
        engine: What generates.
        settings: What the server was started with, with the values that hold.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._limits = Limits(settings.max_input_tokens, settings.max_total_tokens)
        self._metrics = Metrics()
        self._admitted = 0

    def app(self) -> web.Application:
        """Return the application that serves the routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._answer_errors])
        app.router.add_post("/", self._compat_generate)
        app.router.add_post("/generate", self._generate)
        app.router.add_post("/generate_stream", self._generate_stream)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/chat_tokenize", self._chat_tokenize)
        app.router.add_get("/info", self._info)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    @web.middleware
    async def _answer_errors(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            error = TgiError(413, "validation", f"the body is over {MAX_BODY_BYTES} bytes")
        except (TgiError, EngineError, RefusedError) as raised:
            error = self._count_failure(raised)
        return web.Response(
            status=error.status, body=error.to_json(), content_type="application/json"
        )

    def _count_failure(self, raised: TgiError | EngineError | RefusedError) -> TgiError:
        error = (
            raised
            if isinstance(raised, TgiError)
            else TgiError(424, "generation", f"Request failed during generation: {raised}")
        )
        self._metrics.count("tgi_request_failure", err=error.error_type)
        return error

    @asynccontextmanager
    async def _admit(self) -> AsyncIterator[None]:
        """Hold one of the places for requests, or refuse."""
        if self._admitted >= self._settings.max_concurrent_requests:
            raise TgiError(429, "overloaded", "Model is overloaded")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def _compat_generate(self, http: web.Request) -> web.StreamResponse:
        request = await _read(http, tgi.GenerateRequest)
        if request.stream:
            return await self._respond_streaming(http, request)
        return await self._respond(request, in_list=True)

    async def _generate(self, http: web.Request) -> web.StreamResponse:
        request = await _read(http, tgi.GenerateRequest)
        if request.stream:
            raise invalid("`stream` is not supported by /generate: ask /generate_stream")
        return await self._respond(request, in_list=False)

    async def _generate_stream(self, http: web.Request) -> web.StreamResponse:
        return await self._respond_streaming(http, await _read(http, tgi.GenerateRequest))

    async def _respond(self, request: tgi.GenerateRequest, *, in_list: bool) -> web.Response:
        self._metrics.count("tgi_request_count")
        started = time.monotonic()
        validation.check_route(request, streamed=False)
        runs = [self._complete(request) for _ in range(request.parameters.best_of or 1)]
        answers = await _gather(runs)
        best = max(answers, key=lambda answer: answer.mean_logprob)
        others = [answer for answer in answers if answer is not best]
        prefix = request.inputs if request.parameters.return_full_text else ""
        response = tgi.GenerateResponse(prefix + best.text)
        if request.parameters.details:
            top = bool(request.parameters.top_n_tokens)
            response.details = tgi.Details(
                **_details(best, top=top),
                best_of_sequences=[
                    tgi.BestOfSequence(prefix + other.text, **_details(other, top=top))
                    for other in others
                ]
                or UNSET,
            )
        self._count_success(best, time.monotonic() - started)
        return _json(
            [response] if in_list else response,
            headers={
                "x-prompt-tokens": str(best.input_tokens),
                "x-generated-tokens": str(len(best.tokens)),
            },
        )

    async def _complete(self, request: tgi.GenerateRequest) -> Answer:
        async with self._admit():
            return await complete(await self._validate(request), self._engine)

    async def _respond_streaming(
        self, http: web.Request, request: tgi.GenerateRequest
    ) -> web.StreamResponse:
        self._metrics.count("tgi_request_count")
        started = time.monotonic()
        validation.check_route(request, streamed=True)
        async with self._admit():
            # A request that is refused is not a stream yet: it gets its status, where TGI itself
            # answers 200 and streams the error.
            job = await self._validate(request)
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
            )
            await response.prepare(http)
            try:
                async with aclosing(grow(job, self._engine)) as growing:
                    async for answer in growing:
                        await response.write(_event(_last_token(answer, request)))
                        if answer.finish_reason is not None:
                            self._count_success(answer, time.monotonic() - started)
            except (TgiError, EngineError, RefusedError) as raised:
                error = self._count_failure(raised)
                await response.write(b"data:" + error.to_json() + b"\n\n")
        await response.write_eof()
        return response

    async def _validate(self, request: tgi.GenerateRequest) -> Job:
        job = await validation.validate(request, self._limits, self._engine)
        self._metrics.observe("tgi_request_input_length", len(job.prompt))
        self._metrics.observe("tgi_request_max_new_tokens", job.sampling.max_new_tokens)
        return job

    def _count_success(self, answer: Answer, duration_s: float) -> None:
        self._metrics.count("tgi_request_success")
        self._metrics.observe("tgi_request_duration", duration_s)
        self._metrics.observe("tgi_request_generated_tokens", len(answer.tokens))

    async def _tokenize(self, http: web.Request) -> web.Response:
        request = await _read(http, tgi.GenerateRequest)
        pieces = await self._engine.tokenize(request.inputs, add_special=True)
        return _json(self._spans(request.inputs, pieces))

    async def _chat_tokenize(self, http: web.Request) -> web.Response:
        request = await _read(http, tgi.ChatRequest)
        try:
            text = await self._engine.apply_template([one.to_plain() for one in request.messages])
        except RefusedError as error:
            raise TgiError(422, "template_error", f"Template error: {error}") from error
        # The template has written the special tokens itself.
        pieces = await self._engine.tokenize(text, add_special=False)
        return _json({"tokenize_response": self._spans(text, pieces), "templated_text": text})

    def _spans(self, text: str, pieces: list[Piece]) -> list[Any]:
        return list(spans(text, pieces, self._engine.bos))

    async def _info(self, _: web.Request) -> web.Response:
        settings = self._settings
        return _json(
            tgi.Info(
                model_id=settings.weights.model_id,
                model_sha=settings.weights.model_sha,
                model_pipeline_tag="text-generation",
                max_concurrent_requests=settings.max_concurrent_requests,
                max_best_of=validation.MAX_BEST_OF,
                max_stop_sequences=validation.MAX_STOP_SEQUENCES,
                max_input_tokens=settings.max_input_tokens,
                max_total_tokens=settings.max_total_tokens,
                validation_workers=1,
                max_client_batch_size=1,
                router="prequery-local",
                version="3.3.6",
                engine=f"xllamacpp {self._engine.version}",
                exact=settings.exact,
                slots=settings.slots,
                weights_sha256=settings.weights.sha256,
            )
        )

    async def _health(self, _: web.Request) -> web.Response:
        if not await self._engine.is_healthy():
            raise TgiError(503, "healthcheck", "unhealthy")
        return web.Response()

    async def _show_metrics(self, _: web.Request) -> web.Response:
        busy = min(self._engine.running, self._settings.slots)
        return web.Response(
            text=self._metrics.render(
                {
                    "tgi_batch_current_size": busy,
                    "tgi_queue_size": self._engine.waiting + self._engine.running - busy,
                }
            )
        )


async def _read(http: web.Request, type_: type[Struct]) -> Struct:
    try:
        return msgspec.json.decode(await http.read(), type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(str(error)) from error


async def _gather(runs: list[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Wait for all; when one fails, stop the others, as nobody will read them."""
    tasks = [asyncio.create_task(run) for run in runs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _details(answer: Answer, *, top: bool) -> dict[str, Any]:
    return {
        "finish_reason": answer.finish_reason,
        "generated_tokens": len(answer.tokens),
        "seed": answer.seed,
        "prefill": [],
        "tokens": answer.tokens,
        "top_tokens": answer.top_tokens if top else UNSET,
    }


def _last_token(answer: Answer, request: tgi.GenerateRequest) -> tgi.StreamResponse:
    """Return the event of the newest token; the one that completes the answer tells the rest."""
    parameters = request.parameters
    event = tgi.StreamResponse(
        index=len(answer.tokens),
        token=answer.tokens[-1],
        generated_text=None,
        details=None,
        top_tokens=answer.top_tokens[-1] if parameters.top_n_tokens else UNSET,
    )
    if answer.finish_reason is None:
        return event
    event.generated_text = (request.inputs if parameters.return_full_text else "") + answer.text
    if parameters.details:
        event.details = tgi.StreamDetails(
            answer.finish_reason, len(answer.tokens), answer.seed, answer.input_tokens
        )
    return event


def _event(value: msgspec.Struct) -> bytes:
    return b"data:" + msgspec.json.encode(value) + b"\n\n"


def _json(value: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), content_type="application/json", headers=headers
    )
