"""Prefixes over raw completions: BOS, wrapped prompts, and endpoints that show no ids."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from prequery.endpoint import Answer, Info, Rendering, Request, Token
from prequery.errors import EndpointError, PrefixError
from prequery.fleet import Fleet
from prequery.prefix import Prefix, derive, prove
from prequery.recipe import Sampling
from prequery.transport import Patience
from scripted_completions import ScriptedCompletions
from scripted_tgi import chatml, tokens

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0.05, request_s=5)
SAMPLED = Sampling(temperature=0.8, max_new_tokens=64)
BOS = "<bos>"

Messages = Sequence[Mapping[str, str]]


def with_bos(messages: Messages) -> str:
    return BOS + chatml([dict(one) for one in messages])


@dataclass
class Counting:
    """An endpoint that counts the tokens of a prompt and shows no ids.

    Args:
        adds: Text that it puts in front of every prompt.
    """

    adds: str = ""
    template: Callable[[Messages], str] = with_bos
    address: str = "http://counting"
    capacity: int = 1

    async def info(self) -> Info:
        return Info(model_id="acme/counting")

    async def tokenize(self, text: str) -> list[int] | None:
        return None

    async def render(self, messages: Messages) -> Rendering:
        text = self.template(messages)
        found = [Token(t["id"], t["text"], t["start"], t["stop"]) for t in tokens(text)]
        return Rendering(text, found)

    def check(self, request: Request) -> None:
        """Accept it."""

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        counted = len(tokens(self.adds + request.prompt))
        return Answer(text="Why?", finish_reason="eos_token", prompt_tokens=counted)


def derived(endpoint: Counting) -> Prefix:
    prefix = asyncio.run(derive(endpoint))
    asyncio.run(prove(endpoint, prefix, SAMPLED))
    return prefix


def test_bos_is_found_out_by_count_where_no_ids_are_shown() -> None:
    plain, adding = derived(Counting()), derived(Counting(adds=BOS))

    assert plain.text == BOS + adding.text
    assert plain.ids == adding.ids
    assert plain.bos == "the endpoint adds no token of its own, by its count"
    assert adding.bos == "the endpoint adds BOS, by its count; the template's is off"


@dataclass
class Silent(Counting):
    """An endpoint that counts the prompt of one token alone, and of no answer."""

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        answer = await Counting.generate(self, request, where, urgent)
        return answer if where == "prefix" else Answer(text="Why?", finish_reason="eos_token")


def test_where_no_prompt_tokens_are_counted_the_proof_says_that_it_is_none() -> None:
    counting, silent = Counting(), Silent()
    prefix = asyncio.run(derive(counting))

    sure, unsure = (asyncio.run(prove(one, prefix, SAMPLED)) for one in (counting, silent))

    said = "prompts go to the model as they are: the endpoint counts the"
    assert sure == (True, f"{said} {len(prefix.ids)} tokens sent")
    assert unsure == (
        False,
        "whether prompts go to the model as they are is not known for sure: the endpoint counts "
        "no prompt tokens; its answers do not greet in English",
    )


@pytest.mark.parametrize("adds", ["two words", "<a><b>"])
def test_tokens_that_the_template_does_not_explain_are_refused(adds: str) -> None:
    with pytest.raises(PrefixError) as caught:
        derived(Counting(adds=adds))

    assert "the template means" in caught.value.what


def test_an_endpoint_that_wraps_raw_prompts_is_refused() -> None:
    async def work(url: str) -> None:
        async with Fleet([url], patience=AT_ONCE) as fleet:
            prefix = Prefix.from_json(
                {
                    "text": "<|im_start|>user\n",
                    "suffix": "<|im_end|>\n<|im_start|>assistant\n",
                    "ids": [1, 2, 3],
                    "system_prompt": None,
                    "stop": ["<|im_end|>"],
                    "bos": "",
                }
            )
            await prove(fleet, prefix, SAMPLED)

    wrapping = ScriptedCompletions(owned_by="other", bos="<|im_start|>system\nBe brief.")
    greeting = ScriptedCompletions(say=lambda prompt, seed: "Hello! How can I help you today?")
    with wrapping.serving(), pytest.raises(EndpointError) as caught:
        asyncio.run(work(wrapping.url))
    assert "applies a chat template of its own to raw prompts: it counts" in caught.value.what

    with greeting.serving(), pytest.raises(EndpointError) as caught:
        asyncio.run(work(greeting.url))
    assert "4 of 4 answers greet" in caught.value.what
