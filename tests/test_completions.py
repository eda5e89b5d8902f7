"""The client of raw completions: every dialect, over sockets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from aiohttp import web

from prequery.completions import CompletionsEndpoint
from prequery.draws import fold
from prequery.endpoint import Answer, Info, Request, TgiEndpoint
from prequery.errors import EndpointError
from prequery.fleet import Fleet
from prequery.handshake import connect
from prequery.recipe import EndpointProtocol, Sampling
from prequery.transport import Patience
from scripted_completions import MODEL, PREFIX, ScriptedCompletions, completion
from scripted_tgi import Json, ScriptedTgi, tokens, words

T = TypeVar("T")

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0.05, request_s=5)
SAMPLED = Sampling(temperature=0.8, max_new_tokens=64)
REQUEST = Request(prompt=PREFIX, sampling=SAMPLED, seed=2**62 + 5, stop=("<|im_end|>",))
NAMED = {"vllm": "vllm", "sglang": "sglang", "tgi": MODEL, "other": "lmdeploy"}


def run(url: str, work: Callable[[Fleet], Awaitable[T]], model: str | None = None) -> T:
    async def inside() -> T:
        async with Fleet([url], patience=AT_ONCE, model=model) as fleet:
            return await work(fleet)

    return asyncio.run(inside())


def ask(server: ScriptedCompletions, request: Request = REQUEST) -> Answer:
    with server.serving():
        return run(server.url, lambda fleet: fleet.generate(request, "test"))


def sent(kind: str, request: Request = REQUEST) -> Json:
    """Return the fields that a kind of server is sent, the prompt apart."""
    server = ScriptedCompletions(owned_by=NAMED[kind])
    ask(server, request)
    [body] = server.asked
    assert body.pop("prompt") == request.prompt
    # TGI takes a model's name for an adapter's.
    assert body.pop("model", None) == (None if kind == "tgi" else MODEL)
    return body


def refusal(kind: str, request: Request) -> EndpointError:
    """Return why a kind of server is not asked this."""

    async def work(fleet: Fleet) -> None:
        fleet.check(request)

    with (
        ScriptedCompletions(owned_by=NAMED[kind]).serving() as server,
        pytest.raises(EndpointError) as caught,
    ):
        run(server.url, work)
    return caught.value


def client(url: str, protocol: EndpointProtocol = "auto") -> type:
    async def inside() -> type:
        async with connect(url, None, AT_ONCE, protocol) as found:
            return type(found)

    return asyncio.run(inside())


def test_tgis_own_protocol_is_taken_where_it_is_spoken() -> None:
    with ScriptedTgi().serving() as tgi, ScriptedCompletions().serving() as raw:
        assert client(tgi.url) is TgiEndpoint
        assert client(raw.url) is CompletionsEndpoint


def test_the_recipe_may_name_the_protocol() -> None:
    info = {"model_id": MODEL, "max_concurrent_requests": 4}
    with ScriptedCompletions(owned_by=MODEL, routes={"/info": info}).serving() as both:
        assert client(both.url) is TgiEndpoint
        assert client(both.url, "tgi") is TgiEndpoint
        assert client(both.url, "completions") is CompletionsEndpoint


def test_an_address_where_neither_is_spoken_is_an_error_with_a_fix() -> None:
    with (
        ScriptedTgi(info={"name": "nginx"}).serving() as server,
        pytest.raises(EndpointError) as caught,
    ):
        client(server.url)

    assert caught.value.what == (
        "neither TGI's protocol nor that of raw completions is spoken here: no GET /info, "
        "and GET /v1/models answered 404"
    )


def test_what_a_server_does_not_tell_is_null() -> None:
    with ScriptedCompletions(routes={"/version": {"version": "0.28.0"}}).serving() as server:
        info = run(server.url, lambda fleet: fleet.info())

    assert info == Info(model_id=MODEL, max_total_tokens=4096, version="0.28.0", router="vllm")


def test_of_several_models_the_recipes_is_asked() -> None:
    models = [
        {"id": "first", "owned_by": "vllm"},
        {"id": "alias", "root": "acme/second", "owned_by": "vllm"},
    ]
    server = ScriptedCompletions(models=models)
    with server.serving():
        for wanted, found in ((None, "first"), ("alias", "alias"), ("acme/second", "acme/second")):
            info = run(server.url, lambda fleet: fleet.info(), wanted)
            assert info.model_id == found
        run(server.url, lambda fleet: fleet.generate(REQUEST, "test"), "acme/second")

    assert server.asked[-1]["model"] == "alias"


def test_vllm_is_sent_everything_that_changes_a_distribution() -> None:
    assert sent("vllm") == {
        "max_tokens": 64,
        "temperature": 0.8,
        "top_p": 1,
        "seed": 2**62 + 5,
        "stop": ["<|im_end|>"],
        "logprobs": 1,
        "top_k": -1,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


def test_sglang_is_sent_what_it_takes() -> None:
    sampling = Sampling(
        temperature=1.0, top_p=0.9, top_k=40, repetition_penalty=1.1, max_new_tokens=8
    )

    assert sent("sglang", Request(prompt=PREFIX, sampling=sampling, seed=7)) == {
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 0.9,
        "seed": 7,
        "logprobs": 1,
        "top_k": 40,
        "min_p": 0,
        "repetition_penalty": 1.1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "skip_special_tokens": False,
    }


@pytest.mark.parametrize(
    ("page", "seed"),
    [
        ({}, 7),
        ({"/get_server_info": {"enable_deterministic_inference": True}}, 7),
        ({"/get_server_info": {"enable_deterministic_inference": False}}, None),
    ],
)
def test_a_seed_that_sglang_would_ignore_is_neither_sent_nor_recorded(
    page: dict[str, Json], seed: int | None
) -> None:
    server = ScriptedCompletions(owned_by="sglang", routes=page)

    answer = ask(server, replace(REQUEST, seed=7))

    assert answer.seed == server.asked[0].get("seed") == seed


def test_sglang_tells_how_many_requests_it_decodes_where_it_was_limited() -> None:
    page = {"version": "0.5.9", "max_running_requests": 48}
    server = ScriptedCompletions(owned_by="sglang", routes={"/get_server_info": page})
    with server.serving():
        info = run(server.url, lambda fleet: fleet.info())

    assert (info.version, info.slots, info.router) == ("0.5.9", 48, "sglang")


def test_tgi_is_not_sent_what_it_refuses() -> None:
    assert sent("tgi") == {
        "max_tokens": 64,
        "temperature": 0.8,
        "seed": 2**62 + 5,
        "stop": ["<|im_end|>"],
    }


def test_an_unknown_server_is_sent_openais_fields_alone() -> None:
    greedy = Request(prompt=PREFIX, sampling=Sampling(max_new_tokens=8), logprobs=False)

    assert sent("other", greedy) == {"max_tokens": 8, "temperature": 0, "top_p": 1}


def test_llama_cpp_is_sent_a_folded_seed_which_is_recorded() -> None:
    props = {"total_slots": 3, "default_generation_settings": {"n_ctx": 512}}
    server = ScriptedCompletions(owned_by="llamacpp", routes={"/props": props})

    answer = ask(server)

    assert server.asked[0]["seed"] == answer.seed == fold(2**62 + 5)
    assert (server.asked[0]["repeat_last_n"], server.asked[0]["top_k"]) == (512, 0)


@pytest.mark.parametrize(
    ("kind", "sampling", "field"),
    [
        ("other", replace(SAMPLED, top_k=5), "top_k"),
        ("other", replace(SAMPLED, repetition_penalty=1.1), "repetition_penalty"),
        ("tgi", replace(SAMPLED, top_k=5), "top_k"),
    ],
)
def test_what_a_server_has_no_word_for_is_refused_before_the_first_row(
    kind: str, sampling: Sampling, field: str
) -> None:
    error = refusal(kind, replace(REQUEST, sampling=sampling))

    assert error.what.endswith(f"cannot be told {field}: it would be left out in silence")
    assert field in error.fix


def test_a_request_that_was_not_checked_before_is_not_sent_either() -> None:
    server = ScriptedCompletions(owned_by="lmdeploy")

    with pytest.raises(EndpointError):
        ask(server, replace(REQUEST, sampling=replace(SAMPLED, top_k=5)))

    assert server.asked == []


def test_a_grammar_is_sent_in_the_servers_words_or_refused() -> None:
    request = replace(REQUEST, grammar="[A-Z][^#]*")

    assert sent("vllm", request)["structured_outputs"] == {"regex": "[A-Z][^#]*"}
    assert sent("sglang", request)["regex"] == "[A-Z][^#]*"
    for kind in ("tgi", "other"):
        assert "cannot be told grammar" in refusal(kind, request).what


def test_a_grammar_that_is_ignored_stops_the_build() -> None:
    server = ScriptedCompletions(say=lambda prompt, seed: "# Heading")

    with pytest.raises(EndpointError) as caught:
        ask(server, replace(REQUEST, grammar="[^#]+"))

    assert caught.value.what == "vllm ignores the grammar that it was sent: '[^#]+'"


def test_a_penalty_of_one_needs_no_word() -> None:
    sampling = replace(SAMPLED, repetition_penalty=1.0)

    assert "repetition_penalty" not in sent("other", replace(REQUEST, sampling=sampling))


@pytest.mark.parametrize(
    ("kind", "choice", "reason"),
    [
        ("vllm", {"stop_reason": None}, "eos_token"),
        ("vllm", {"stop_reason": 128009}, "eos_token"),
        ("vllm", {"stop_reason": "<|im_end|>"}, "stop_sequence"),
        ("sglang", {"matched_stop": 2}, "eos_token"),
        ("sglang", {"matched_stop": "<|im_end|>"}, "stop_sequence"),
        ("tgi", {"finish_reason": "stop_sequence"}, "stop_sequence"),
        ("tgi", {}, "eos_token"),
        ("other", {}, "eos_token"),
        ("other", {"finish_reason": "length"}, "length"),
    ],
)
def test_reasons_to_finish_are_said_in_tgis_words(kind: str, choice: Json, reason: str) -> None:
    server = ScriptedCompletions(owned_by=NAMED[kind], choice=choice)

    assert ask(server).finish_reason == reason


def test_llama_cpp_without_verbose_tells_by_its_tokens() -> None:
    def said(*entries: Json) -> str:
        listed = {"content": list(entries)} if entries else None
        props = {"total_slots": 3}
        server = ScriptedCompletions(
            owned_by="llamacpp", routes={"/props": props}, choice={"logprobs": listed}
        )
        return ask(server).finish_reason

    word = {"id": 9, "token": "a", "bytes": [97], "logprob": -0.5}
    end = {"id": 2, "token": "", "bytes": [], "logprob": -0.1}

    assert said(word, end) == "eos_token"
    assert said(word) == said() == "stop_sequence"


def test_a_text_is_cut_at_the_first_stop_string_whatever_the_server_did() -> None:
    server = ScriptedCompletions(say=lambda prompt, seed: "Why?<|im_end|>\n<|im_start|>assistant")

    answer = ask(server)

    assert (answer.text, answer.finish_reason) == ("Why?", "stop_sequence")


def test_log_probabilities_are_summed_over_the_tokens_that_have_one() -> None:
    listed = {"tokens": ["a", "b", "c"], "token_logprobs": [None, -0.25, -1.5], "top_logprobs": []}

    answer = ask(ScriptedCompletions(choice={"logprobs": listed}))

    assert (answer.logprob_sum, answer.logprob_min, answer.logprob_count) == (-1.75, -1.5, 2)
    assert answer.logprob_squares == 0.25**2 + 1.5**2


def test_tokens_are_counted_by_the_server() -> None:
    answer = ask(ScriptedCompletions(say=lambda prompt, seed: completion("Why not?", 77)))

    assert (answer.prompt_tokens, answer.generated_tokens) == (77, 5)


def test_tgi_counts_the_tokens_of_a_prompt_in_a_header() -> None:
    async def counted(before: int) -> web.Response:
        return web.json_response(completion("Why not?", 0), headers={"x-prompt-tokens": "24"})

    answer = ask(ScriptedCompletions(owned_by=MODEL, fault=counted))

    assert (answer.prompt_tokens, answer.generated_tokens) == (24, 5)


def test_lone_surrogates_become_replacement_characters_and_are_flagged() -> None:
    async def broken(before: int) -> web.Response:
        body = json.dumps(completion("half \ud83d here", 5))
        return web.Response(text=body, content_type="application/json")

    answer = ask(ScriptedCompletions(fault=broken))

    assert (answer.text, answer.repaired) == ("half � here", True)


def error(status: int, body: Json) -> Callable[[int], web.Response | None]:
    """Fail once."""

    def fault(before: int) -> web.Response | None:
        return None if before else web.json_response(body, status=status)

    return fault


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}},
        {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
        {"error": "too long", "error_type": "validation"},
        {"detail": "too long"},
    ],
)
def test_a_request_that_is_refused_is_never_sent_again(body: Json) -> None:
    server = ScriptedCompletions(fault=error(400, body))

    answer = ask(server)

    assert (answer.error, answer.failed) == ("too long", False)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_fault_is_retried_with_the_same_seed(status: int) -> None:
    loading = {"error": {"message": "Loading model", "type": "unavailable_error", "code": status}}
    server = ScriptedCompletions(fault=error(status, loading))

    answer = ask(server)

    assert answer.text == words(PREFIX, REQUEST.seed)
    assert server.asked[0] == server.asked[1]


@pytest.mark.parametrize("reason", [None, "abort", "content_filter"])
def test_an_answer_that_was_broken_off_is_a_fault(reason: str | None) -> None:
    server = ScriptedCompletions(reason=reason)

    answer = ask(server)

    assert (answer.error, answer.failed) == (f"finish_reason {reason!r}", True)
    assert len(server.asked) == AT_ONCE.tries


def test_a_model_that_is_gone_stops_the_build_in_the_servers_words() -> None:
    gone = {"error": {"message": "The model `acme/raw` does not exist.", "code": 404}}

    with pytest.raises(EndpointError) as caught:
        ask(ScriptedCompletions(fault=error(404, gone)))

    assert "answered 404 (The model `acme/raw` does not exist.)" in caught.value.what


def test_ids_are_those_of_the_prompt_as_it_will_be_read() -> None:
    text, bos = "<|im_start|>user\n", "<bos>"

    def ids(kind: str, tokenizes: bool = True) -> list[int] | None:
        server = ScriptedCompletions(owned_by=NAMED[kind], bos=bos, tokenizes=tokenizes)
        with server.serving():
            return run(server.url, lambda fleet: fleet.tokenize(text))

    own = [one["id"] for one in tokens(text)]
    assert ids("vllm") == own
    assert ids("sglang") == [tokens(bos)[0]["id"], *own]
    assert ids("other") is None
    assert ids("vllm", tokenizes=False) is None


def test_a_template_that_the_server_does_not_show_is_asked_of_the_recipe() -> None:
    messages = [{"role": "user", "content": "Hello"}]
    with (
        ScriptedCompletions().serving() as server,
        pytest.raises(EndpointError) as caught,
    ):
        run(server.url, lambda fleet: fleet.render(messages))

    assert caught.value.what == "vllm does not show its chat template as text"
    assert caught.value.fix == "name the template in the recipe: generator.template"


@pytest.mark.parametrize(("health", "healthy"), [(200, True), (404, True), (503, False)])
def test_a_gateway_without_a_health_route_can_be_healthy(health: int, healthy: bool) -> None:
    async def work(url: str) -> bool:
        async with connect(url, None, AT_ONCE) as endpoint:
            return await endpoint.is_healthy(1.0)

    with ScriptedCompletions(health=health).serving() as server:
        assert asyncio.run(work(server.url)) is healthy


def test_a_server_that_does_not_say_how_many_requests_it_takes_is_given_few_at_first() -> None:
    async def capacity(fleet: Fleet) -> int:
        return fleet.capacity

    with ScriptedCompletions().serving() as server:
        assert run(server.url, capacity) == 16


def test_a_model_that_is_still_loading_is_told_in_the_servers_words() -> None:
    async def loading(request: web.Request) -> web.Response:
        body = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
        return web.json_response(body, status=503)

    server = ScriptedCompletions()
    server.models_fault = loading

    with server.serving(), pytest.raises(EndpointError) as caught:
        run(server.url, lambda fleet: fleet.info())

    assert caught.value.what == (
        "the endpoint answered 503 (Loading model) to 3 of 3 tries over 0 s"
    )


def test_two_kinds_of_server_are_no_fleet() -> None:
    async def work(urls: list[str]) -> None:
        async with Fleet(urls, patience=AT_ONCE):
            pass

    with (
        ScriptedCompletions(owned_by="vllm").serving() as one,
        ScriptedCompletions(owned_by="sglang").serving() as other,
        pytest.raises(EndpointError) as caught,
    ):
        asyncio.run(work([one.url, other.url]))

    assert caught.value.what == "two endpoints are two kinds of server: vllm and sglang"
