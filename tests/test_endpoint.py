import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import msgspec
import pytest
from aiohttp import web
from huggingface_hub.inference._generated.types import text_generation as hub_types

from prequery.endpoint import Answer, Request, TgiEndpoint, read_answer
from prequery.errors import EndpointError
from prequery.fleet import Fleet, token_from
from prequery.likely import summed
from prequery.recipe import Sampling
from prequery.transport import Patience
from scripted_tgi import Json, ScriptedTgi, generated

T = TypeVar("T")

AT_ONCE = Patience(
    first_wait_s=0, longest_wait_s=0, overloaded_s=5, down_s=0.2, request_s=2, look_s=0
)
SAMPLED = Sampling(temperature=1.0, max_new_tokens=9)
ASKED = Request(prompt="<|im_start|>user\n", sampling=SAMPLED, seed=4, stop=("<|im_end|>",))


def ask(server: ScriptedTgi, token: str | None = None) -> Answer:
    async def run() -> Answer:
        async with Fleet([server.url], token, AT_ONCE) as endpoint:
            return await endpoint.generate(ASKED, "slot 0, instruction")

    with server.serving():
        return asyncio.run(run())


def failing(times: int, make: Callable[[web.Request], web.StreamResponse]) -> ScriptedTgi:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        return make(request) if before < times else None

    return ScriptedTgi(fault=fault)


def status(code: int, text: str = "") -> Callable[[web.Request], web.StreamResponse]:
    return lambda request: web.Response(status=code, text=text)


def counting(generated_tokens: int) -> Json:
    body = generated("some words")
    body["details"]["generated_tokens"] = generated_tokens
    return body


def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def short(request: web.Request) -> web.StreamResponse:
    """End a body before the length that its head promised."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
    request.transport.close()
    return web.Response()


@pytest.fixture(scope="module")
def well() -> Answer:
    """The answer of a server without faults."""
    return ask(ScriptedTgi())


def test_an_answer_has_what_the_columns_need(well: Answer) -> None:
    assert well.finish_reason == "eos_token"
    assert well.text.startswith("Could you explain how")
    assert well.logprob_count == well.generated_tokens - 1
    assert well.logprob_sum == -0.5 * well.logprob_count
    assert well.logprob_squares == 0.25 * well.logprob_count
    assert (well.logprob_min, well.seed, well.prompt_tokens) == (-0.5, 4, 3)


@pytest.mark.parametrize(
    "make",
    [
        status(424, '{"error":"Request failed during generation","error_type":"generation"}'),
        status(500, '{"error":"Incomplete generation","error_type":"incomplete_generation"}'),
        status(502, "<html>Bad gateway</html>"),
        status(503),
        status(504, "<html>"),
        status(200, '{"generated_text": "cut'),
        status(200, "null"),
        status(200, '{"generated_text": 5, "details": {}}'),
        status(200, json.dumps(counting(10**20))),
        status(200, json.dumps(counting(-1))),
        reset,
        short,
    ],
)
def test_a_passing_fault_is_tried_again_with_the_same_seed(
    make: Callable[[web.Request], web.StreamResponse], well: Answer
) -> None:
    server = failing(3, make)

    assert ask(server) == well
    assert list(server.asked.values()) == [4]


def test_being_overloaded_is_not_charged_to_the_tries(well: Answer) -> None:
    server = failing(50, status(429, '{"error":"Model is overloaded","error_type":"overloaded"}'))

    assert ask(server) == well


def test_a_refused_request_is_never_sent_again() -> None:
    said = '{"error":"Input validation error: `top_p` must be > 0.0 and < 1.0","error_type":"v"}'
    server = failing(99, status(422, said))

    answer = ask(server)

    assert answer == Answer(seed=4, error="Input validation error: `top_p` must be > 0.0 and < 1.0")
    assert list(server.asked.values()) == [1]


def test_a_request_that_fails_every_try_is_a_failed_answer() -> None:
    server = failing(99, status(503))

    assert ask(server) == Answer(seed=4, error="503", failed=True)
    assert list(server.asked.values()) == [6]


def test_a_generation_that_fails_is_tried_again_three_times_only() -> None:
    server = failing(99, status(424, '{"error":"Request failed during generation"}'))

    answer = ask(server)

    assert (answer.failed, list(server.asked.values())) == (True, [4])


def test_an_endpoint_that_stays_down_ends_the_build_with_what_where_and_fix() -> None:
    server = failing(99, status(503))
    server.healthy = False

    with pytest.raises(EndpointError) as caught:
        ask(server)

    assert caught.value.args == (
        "the endpoint answered nothing that can be used for 0 s",
        f"{server.url}, all endpoints",
        "see that it is up, then run the same command: finished answers are kept",
    )


def test_an_endpoint_that_is_not_there_is_named() -> None:
    async def run() -> None:
        async with TgiEndpoint("http://127.0.0.1:9", None, AT_ONCE) as endpoint:
            await endpoint.info()

    with pytest.raises(EndpointError) as caught:
        asyncio.run(run())

    assert "no connection (Connect" in caught.value.what
    assert caught.value.where == "http://127.0.0.1:9, before the first row"


def test_a_server_that_is_no_tgi_is_named() -> None:
    server = ScriptedTgi(info={"name": "nginx"})

    async def run() -> None:
        async with TgiEndpoint(server.url, None, AT_ONCE) as endpoint:
            await endpoint.info()

    with server.serving(), pytest.raises(EndpointError) as caught:
        asyncio.run(run())

    assert caught.value.what.startswith("GET /info answered with something foreign to TGI: ")


def test_an_endless_body_is_cut_off(well: Answer) -> None:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        if before:
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * (1 << 20))
        except ConnectionError:
            return response

    assert ask(ScriptedTgi(fault=fault)) == well


def test_an_answer_that_drips_is_given_up_and_asked_for_again(well: Answer) -> None:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        if before:
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        except ConnectionError:
            return response

    assert ask(ScriptedTgi(fault=fault)) == well


def test_a_request_that_hangs_is_given_up_and_sent_again(well: Answer) -> None:
    async def fault(request: web.Request, body: Json, before: int) -> web.StreamResponse | None:
        if not before:
            await asyncio.sleep(30)
        return None

    assert ask(ScriptedTgi(fault=fault)) == well


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_goes_out_only_to_its_own_address_and_stands_in_no_error(
    code: int, host: str
) -> None:
    elsewhere = ScriptedTgi()
    with elsewhere.serving():
        target = elsewhere.url.replace("127.0.0.1", host) + "/generate"

        def redirect(request: web.Request) -> web.StreamResponse:
            return web.Response(status=code, headers={"Location": target})

        server = failing(99, redirect)
        with pytest.raises(EndpointError) as caught:
            ask(server, "canary-token")

    assert server.headers[0]["Authorization"] == "Bearer canary-token"
    assert elsewhere.headers == []
    assert "canary-token" not in str(caught.value) + repr(TgiEndpoint("http://h", "canary-token"))


def test_a_wrong_token_stops_at_once() -> None:
    server = failing(99, status(401))

    with pytest.raises(EndpointError) as caught:
        ask(server, "wrong")

    assert caught.value.what == "the endpoint does not let us in: POST /generate answered 401"
    assert list(server.asked.values()) == [1]


def test_a_token_is_read_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TGI", " t ")

    assert token_from("MY_TGI") == "t"
    assert token_from(None) is None

    monkeypatch.delenv("MY_TGI")
    with pytest.raises(EndpointError) as caught:
        token_from("MY_TGI")
    assert caught.value.what == "the environment variable 'MY_TGI' is empty"


@pytest.mark.parametrize(
    ("sampling", "seed", "sent"),
    [
        (
            Sampling(temperature=1.0, top_p=None, max_new_tokens=9),
            4,
            {"do_sample": True, "temperature": 1.0, "seed": 4, "max_new_tokens": 9},
        ),
        (
            Sampling(temperature=0.8, top_p=0.95, top_k=40, max_new_tokens=9),
            2**63 - 1,
            {
                "do_sample": True,
                "temperature": 0.8,
                "top_p": 0.95,
                "top_k": 40,
                "seed": 2**63 - 1,
                "max_new_tokens": 9,
            },
        ),
        (
            Sampling(temperature=None, repetition_penalty=1.1, max_new_tokens=9),
            None,
            {"repetition_penalty": 1.1, "max_new_tokens": 9},
        ),
    ],
)
def test_parameters_say_what_tgi_understands_and_nothing_else(
    sampling: Sampling, seed: int | None, sent: Json
) -> None:
    parameters = Request(prompt="p", sampling=sampling, seed=seed).parameters()

    assert parameters == {"details": True} | sent
    known = hub_types.TextGenerationInputGenerateParameters.__dataclass_fields__
    assert parameters.keys() <= known.keys()


def test_the_text_is_cut_at_the_first_stop_string_whatever_the_endpoint_does() -> None:
    raw = json.dumps(generated("one<|im_end|>two", "length")).encode()

    answer = read_answer(raw, ASKED, None)

    assert (answer.text, answer.finish_reason) == ("one", "stop_sequence")


def test_lone_surrogates_are_replaced_and_flagged() -> None:
    raw = json.dumps(generated("pair \U0001f600 lone \ud83d end")).encode()

    answer = read_answer(raw, ASKED, None)

    assert answer.text == "pair \U0001f600 lone \ufffd end"
    assert answer.repaired


def test_missing_log_probabilities_are_null_and_not_zero() -> None:
    raw = json.dumps(generated("some words", logprob=None)).encode()

    answer = read_answer(raw, ASKED, None)

    assert (answer.logprob_sum, answer.logprob_min, answer.logprob_count) == (None, None, 0)
    assert answer.logprob_squares is None


def test_some_missing_log_probabilities_count_as_missing() -> None:
    body = generated("some words")
    body["details"]["tokens"][0]["logprob"] = None
    del body["details"]["tokens"][1]["logprob"]

    answer = read_answer(json.dumps(body).encode(), ASKED, None)

    assert (answer.logprob_sum, answer.logprob_min, answer.logprob_count) == (-0.5, -0.5, 1)
    assert answer.logprob_squares == 0.25


@pytest.mark.parametrize("one", [-1e308, -1.2e154, float("nan"), float("-inf")])
def test_log_probabilities_that_no_model_gives_are_a_malformed_answer(one: float) -> None:
    with pytest.raises(ValueError, match="that no model gives"):
        summed([one, one])


@pytest.mark.parametrize("header", [None, "", "many", "-1", "\u00b2", "9" * 5000])
def test_a_header_that_is_no_count_leaves_the_tokens_of_the_prompt_unknown(
    header: str | None,
) -> None:
    raw = json.dumps(generated("some words")).encode()

    assert read_answer(raw, ASKED, header).prompt_tokens is None


@pytest.mark.parametrize("text", ["some words", "lone \ud83d end"])
def test_an_answer_without_log_probabilities_is_the_same_otherwise(text: str) -> None:
    raw = json.dumps(generated(text)).encode()

    bare = read_answer(raw, replace(ASKED, logprobs=False), "3")

    whole = read_answer(raw, ASKED, "3")
    none = {"logprob_sum": None, "logprob_squares": None, "logprob_min": None, "logprob_count": 0}
    assert whole.logprob_count > 0
    assert bare == msgspec.structs.replace(whole, **none)
