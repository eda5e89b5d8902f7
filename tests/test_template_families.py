"""Templates of many families, written down anew from what is known of them.

`templates/families.json` holds the strings that each must give, and which entries of
`facts/model_families.json` it stands for. Where the facts are at hand, their strings are compared
with what is derived; each difference is named here with its reason.
"""

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from prequery.errors import PrefixError
from prequery.prefix import Prefix
from prequery.prefix.derivation import unproven
from prequery.prefix.template import ChatTemplate
from prequery.recipe import Generator

TEMPLATES = Path(__file__).parent / "templates"
FACTS = Path(__file__).parents[2] / "shared" / "facts" / "model_families.json"
FAMILIES: dict[str, Any] = json.loads((TEMPLATES / "families.json").read_text())
MODEL = Generator("acme/model", "5" * 40)
ABSENT: dict[str, Any] = {
    "think": None,
    "think_open": False,
    "history": "whole",
    "trims": [],
    "refused": {},
}

TWO_BREAKS = "the config has two line breaks behind `user`, the model's template one"
OLD_SPACING = "the config has the spacing of version 1, the template that of version 3"
NOT_RENDERED = "the config puts a BOS that the template does not write"
DIFFERENCES = {
    "google/gemma-2-27b-it": TWO_BREAKS,
    "google/gemma-2-9b-it": TWO_BREAKS,
    "google/gemma-2-2b-it": TWO_BREAKS,
    "meta-llama/Llama-2-7b-chat-hf": OLD_SPACING,
    "mistralai/Mistral-7B-Instruct-v0.3": OLD_SPACING,
    "microsoft/Phi-3-mini-128k-instruct": NOT_RENDERED,
    "microsoft/Phi-3-small-128k-instruct": NOT_RENDERED,
    "microsoft/Phi-3-medium-128k-instruct": NOT_RENDERED,
    "microsoft/Phi-3.5-mini-instruct": NOT_RENDERED,
    "01-ai/Yi-1.5-34B-Chat": NOT_RENDERED,
}


def derived(name: str, **frozen: Any) -> Prefix:
    family = FAMILIES[name]
    text = (TEMPLATES / f"{name}.jinja").read_text()
    template = ChatTemplate(text, name, family.get("special", {}))
    model = replace(MODEL, **{"date": family.get("date"), **frozen})
    return asyncio.run(unproven(template, model))


def test_every_template_has_its_strings() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.jinja")} == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_pieces_are_derived(name: str) -> None:
    expected = ABSENT | FAMILIES[name]["pieces"]

    noted = json.loads(json.dumps(asdict(derived(name))))

    assert {piece: noted[piece] for piece in expected} == expected


def test_every_known_model_gets_its_strings() -> None:
    if not FACTS.exists():
        pytest.skip(f"{FACTS} is not here")
    known = {one["model_id"]: one for one in json.loads(FACTS.read_text())["models"]}
    family_of = {model: name for name, one in FAMILIES.items() for model in one["models"]}
    assert set(family_of) == set(known)
    prefixes = {name: derived(name) for name in set(family_of.values())}

    differing = {}
    for model, facts in known.items():
        prefix = prefixes[family_of[model]]
        special = FAMILIES[family_of[model]].get("special", {})
        if prefix.text != facts["pre_query"]:
            differing[model] = prefix.text
        if facts["assistant_prefix_post_query"] is not None:
            assert prefix.suffix == facts["assistant_prefix_post_query"], model
            assert prefix.answer is not None, model
            assert prefix.answer[1] == facts["mt_append_full_from_assistant_end"], model
        bare = prefix.text.removeprefix(special.get("bos_token", ""))
        if DIFFERENCES.get(model) != TWO_BREAKS and model != "microsoft/Phi-3-small-128k-instruct":
            assert bare == facts["pre_query_for_tgi_generate"], model

    assert set(differing) == set(DIFFERENCES)


def test_thinking_is_switched_by_the_recipe() -> None:
    on, off = derived("qwen3", thinking=True), derived("qwen3", thinking=False)

    assert on.suffix == "<|im_end|>\n<|im_start|>assistant\n"
    assert off.suffix == on.suffix + "<think>\n\n</think>\n\n"
    assert on.answer == off.answer
    assert derived("smollm3", thinking=False).text.count("/no_think") == 1


def test_a_template_that_writes_the_date_wants_one_frozen() -> None:
    with pytest.raises(PrefixError) as caught:
        derived("harmony", date=None)

    assert caught.value.what == (
        "the chat template writes the date of the day, so the prefix would change with it"
    )
    assert caught.value.fix == "freeze one in the recipe, as generator.date: 2026-01-31"
    assert "Today Date: 01 Feb 2027" in derived("llama3_1", date="2027-02-01").text


def test_thoughts_and_words_of_channels_are_told_apart() -> None:
    prefix = derived("harmony")

    # What ends the thoughts must not end the response.
    assert (prefix.stop, prefix.response_stop) == (("<|end|>", "<|message|>"), ())
    assert derived("qwen3").response_stop == derived("qwen3").stop
    assert prefix.ask_instruction([("Why?", "So.")], "Be short.") == (
        prefix.begin("Be short.")
        + "Why?<|end|><|start|>assistant<|channel|>final<|message|>So."
        + "<|end|><|start|>user<|message|>"
    )
