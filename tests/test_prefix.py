import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

import pytest

from prequery.endpoint import Info
from prequery.errors import BuildError, EndpointError, PrefixError
from prequery.fleet import Fleet
from prequery.prefix import Prefix, check_model, derive, prove
from prequery.recipe import Generator, Sampling
from prequery.transport import Patience
from scripted_tgi import ScriptedTgi, chatml

Messages = list[dict[str, str]]


def derived(server: ScriptedTgi) -> Prefix:
    async def run() -> Prefix:
        async with Fleet([server.url], None, Patience(tries=1)) as endpoint:
            return await derive(endpoint)

    with server.serving():
        return asyncio.run(run())


def llama3(messages: Messages) -> str:
    turns = [
        f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content'].strip()}<|eot_id|>"
        for m in messages
    ]
    return (
        "<|begin_of_text|>" + "".join(turns) + ("<|start_header_id|>assistant<|end_header_id|>\n\n")
    )


def gemma(messages: Messages) -> str:
    if messages[0]["role"] == "system":
        raise ValueError("System role not supported")
    turns = [f"<start_of_turn>{m['role']}\n{m['content']}<end_of_turn>\n" for m in messages]
    return "<bos>" + "".join(turns) + "<start_of_turn>model\n"


def vicuna(messages: Messages) -> str:
    return (
        "A chat. "
        + "".join(f"{m['role'].upper()}:\n{m['content']}" for m in messages)
        + ("\nASSISTANT:")
    )


def test_a_default_system_prompt_is_part_of_the_prefix() -> None:
    prefix = derived(ScriptedTgi())

    assert prefix.text == "<|im_start|>system\nYou are Scripted.<|im_end|>\n<|im_start|>user\n"
    assert prefix.suffix == "<|im_end|>\n<|im_start|>assistant\n"
    assert prefix.system_prompt == "You are Scripted."
    assert prefix.stop == ("<|im_end|>", "<|im_start|>")
    assert prefix.bos == "the endpoint adds no token of its own"
    assert prefix.ask_response("Why?").endswith("user\nWhy?<|im_end|>\n<|im_start|>assistant\n")


def test_bos_text_is_taken_off_where_the_endpoint_adds_bos_itself() -> None:
    prefix = derived(ScriptedTgi(template=llama3, bos="<|begin_of_text|>"))

    assert prefix.text == "<|start_header_id|>user<|end_header_id|>\n\n"
    assert prefix.suffix == "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    assert prefix.system_prompt is None
    assert prefix.bos.endswith("the template's own was taken off")


def test_bos_text_stays_where_the_endpoint_adds_none() -> None:
    prefix = derived(ScriptedTgi(template=gemma))

    assert prefix.text == "<bos><start_of_turn>user\n"
    assert prefix.system_prompt is None
    assert prefix.stop == ("<end_of_turn>", "<start_of_turn>")


def test_roles_that_are_words_stop_at_either_word() -> None:
    prefix = derived(ScriptedTgi(template=vicuna))

    assert (prefix.text, prefix.stop) == ("A chat. USER:\n", ("ASSISTANT:", "USER:"))


TURNS = [("Why?", " Because. "), ("How?", "So.")]


def test_prompts_of_later_turns_are_what_the_template_renders() -> None:
    prefix = derived(ScriptedTgi())
    said = [
        {"role": role, "content": words}
        for turn in TURNS
        for role, words in zip(("user", "assistant"), turn, strict=True)
    ]

    assert prefix.ask_instruction() == prefix.text
    assert prefix.ask_instruction(TURNS) + "Where?" + prefix.suffix == chatml(
        [*said, {"role": "user", "content": "Where?"}]
    )
    assert prefix.ask_response("Where?", TURNS) == chatml(
        [*said, {"role": "user", "content": "Where?"}]
    )
    assert prefix.ask_response("Where?", TURNS, "Be short.") == chatml(
        [
            {"role": "system", "content": "Be short."},
            *said,
            {"role": "user", "content": "Where?"},
        ]
    )


def test_words_are_trimmed_where_the_template_trims_them() -> None:
    prefix = derived(ScriptedTgi(template=llama3, bos="<|begin_of_text|>"))

    assert prefix.trims == ("user", "system", "assistant")
    assert prefix.ask_response(" Why? ", TURNS, " Short.\n") == (
        "<|start_header_id|>system<|end_header_id|>\n\nShort.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nBecause.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_template_without_a_system_role_says_so_when_asked() -> None:
    prefix = derived(ScriptedTgi(template=gemma))

    assert prefix.system is None
    with pytest.raises(PrefixError) as caught:
        prefix.ask_instruction(system="Be short.")
    assert caught.value.what == (
        "this model's chat template has no place for a system prompt: it refuses that: "
        "POST /chat_tokenize was refused: Template error: System role not supported"
    )


def mistral(messages: Messages) -> str:
    system = messages[0]["content"] + "\n\n" if messages[0]["role"] == "system" else ""
    said = messages[1:] if system else messages
    text = "<s>"
    for at, message in enumerate(said):
        if message["role"] == "user":
            text += f"[INST] {system if at == len(said) - 1 else ''}{message['content']} [/INST]"
        else:
            text += f" {message['content']}</s>"
    return text


def test_a_system_prompt_that_moves_to_the_last_turn_is_refused_over_several_turns() -> None:
    prefix = derived(ScriptedTgi(template=mistral))

    assert prefix.ask_instruction(system="Be short.") == "<s>[INST] Be short.\n\n"
    assert prefix.ask_instruction(TURNS[1:]) == "<s>[INST] How? [/INST] So.</s>[INST] "
    with pytest.raises(PrefixError) as caught:
        prefix.ask_instruction(TURNS, "Be short.")
    assert caught.value.what.endswith(
        "a system prompt over several turns: "
        "it moves or changes a system prompt when the conversation goes on"
    )


def single(messages: Messages) -> str:
    if len(messages) > 1:
        raise ValueError("one message only")
    return chatml(messages)


def test_a_template_of_one_turn_refuses_a_second() -> None:
    prefix = derived(ScriptedTgi(template=single))

    assert prefix.ask_response("Why?") == chatml([{"role": "user", "content": "Why?"}])
    with pytest.raises(PrefixError) as caught:
        prefix.ask_response("Why?", TURNS)
    assert caught.value.what.endswith("Template error: one message only")


def thinking(messages: Messages) -> str:
    shown = [
        {**m, "content": m["content"].split("</think>")[-1].lstrip("\n")}
        if m["role"] == "assistant"
        else m
        for m in messages
    ]
    return chatml(shown) + "<think>\n"


def test_thoughts_of_earlier_turns_are_left_out_where_the_template_leaves_them_out() -> None:
    prefix = derived(ScriptedTgi(template=thinking))
    turns = [("Why?", "hm\n</think>\n\nBecause.")]

    assert (prefix.think, prefix.think_open) == (("<think>", "</think>"), True)
    assert prefix.history == "trimmed"
    assert prefix.suffix == "<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert prefix.answer == (
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\n",
    )
    assert prefix.ask_instruction(turns) == prefix.text + (
        "Why?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>\n<|im_start|>user\n"
    )


def system_first(messages: Messages) -> str:
    if messages[0]["role"] != "system":
        raise ValueError("a system message comes first")
    return chatml(messages)


def test_a_template_that_wants_a_system_message_first_gets_an_empty_one() -> None:
    prefix = derived(ScriptedTgi(template=system_first))

    assert prefix.system_prompt == ""
    assert prefix.text == "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n"
    assert prefix.ask_instruction(TURNS[1:]).endswith("So.<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize("template", [chatml, llama3, gemma, mistral, thinking, single])
def test_a_prefix_survives_json(template: Callable[[Messages], str]) -> None:
    prefix = derived(ScriptedTgi(template=template))

    assert Prefix.from_json(json.loads(json.dumps(asdict(prefix)))) == prefix


def upper(messages: Messages) -> str:
    return "<|user|>" + messages[-1]["content"].upper() + "<|end|>"


def twice(messages: Messages) -> str:
    return f"<|user|>{messages[-1]['content']} again: {messages[-1]['content']}<|end|>"


def counting(messages: Messages) -> str:
    return f"<|user|>({len(messages[-1]['content'])} letters)\n{messages[-1]['content']}<|end|>"


def bare(messages: Messages) -> str:
    return messages[-1]["content"] + "\n"


def merging(messages: Messages) -> str:
    return "user" + messages[-1]["content"] + "<|end|>"


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (upper, "the chat template does not show the user's words as they are: 0 sentinels"),
        (twice, "the chat template repeats them: 2 sentinels"),
        (counting, "the chat template writes other text around other user messages"),
        (bare, "the chat template puts nothing before a user's words"),
        (merging, "the tokenizer merges the end of the prefix with the user's first word"),
    ],
)
def test_a_template_that_cannot_be_split_is_refused_with_the_reason(
    template: Callable[[Messages], str], what: str
) -> None:
    with pytest.raises(PrefixError) as caught:
        derived(ScriptedTgi(template=template))

    assert caught.value.what.startswith(what)


def test_control_tokens_that_the_endpoint_cannot_read_are_refused() -> None:
    def foreign(messages: Messages) -> str:
        return chatml(messages).replace("<|im_start|>", "<|im-start|>")

    with pytest.raises(PrefixError) as caught:
        derived(ScriptedTgi(template=foreign))

    assert caught.value.what == (
        "the control token '<|im-start|>' is not one token for this endpoint"
    )


def test_an_endpoint_that_adds_tokens_of_its_own_is_refused() -> None:
    with pytest.raises(PrefixError) as caught:
        derived(ScriptedTgi(bos="extra words "))

    assert "reads the prefix otherwise than the template means it" in caught.value.what


def test_a_model_without_a_chat_template_is_refused() -> None:
    def none(messages: Messages) -> str:
        raise ValueError("no chat template")

    with pytest.raises(PrefixError) as caught:
        derived(ScriptedTgi(template=none))

    assert caught.value.what == (
        "the chat template takes no user message: "
        "POST /chat_tokenize was refused: Template error: no chat template"
    )
    assert caught.value.fix == "use a chat model whose template takes one"


def proven(server: ScriptedTgi) -> None:
    async def run() -> None:
        async with Fleet([server.url], None, Patience(tries=1)) as endpoint:
            prefix = await derive(endpoint)
            await prove(endpoint, prefix, Sampling(temperature=1.0, max_new_tokens=64))

    with server.serving():
        asyncio.run(run())


def test_an_endpoint_that_continues_the_prefix_is_proven() -> None:
    proven(ScriptedTgi())


def test_an_endpoint_that_templates_raw_prompts_is_found_by_its_token_count() -> None:
    with pytest.raises(EndpointError) as caught:
        proven(ScriptedTgi(wrap=True))

    assert caught.value.what == (
        "the endpoint applies a chat template of its own to raw prompts: "
        "it counts 33 prompt tokens where 14 were sent"
    )


def test_an_endpoint_that_greets_is_found_by_its_words() -> None:
    with pytest.raises(EndpointError) as caught:
        proven(ScriptedTgi(say=lambda prompt, seed: "Hello! How can I help you today?"))

    assert caught.value.what.endswith("4 of 4 answers greet, as 'Hello! How can I help you today?'")


@pytest.mark.parametrize(
    ("model", "sha", "fits"),
    [("a/b", "1" * 40, True), ("a/b", None, True), ("a/b", "2" * 40, False), ("a/c", None, False)],
)
def test_another_model_or_revision_is_refused(model: str, sha: str | None, fits: bool) -> None:
    info = Info(model, 1, 1, 1, "3", sha)
    refused: BuildError | None = None

    try:
        check_model(info, Generator("a/b", "1" * 40), "http://h")
    except EndpointError as error:
        refused = error

    assert (refused is None) is fits
