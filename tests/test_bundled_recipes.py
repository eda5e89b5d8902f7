"""The bundled recipes: what they say of themselves, and a plan of each against its template."""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from prequery import models
from prequery.bundled import bundled
from prequery.options import Options
from prequery.planning import plan
from prequery.progress import Progress
from prequery.recipe import Generator, Recipe, bundled_names, load
from prequery.rehearsal import SPOKEN
from prequery.runner import run_async
from prequery.simulation import Machine, Settings, simulate
from prequery.voices import Voices

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MODELS = json.loads((bundled("configs") / "models.json").read_text())
NAMES = [name for name in bundled_names() if name != "smollm2-demo"]  # which has its own tests
TEMPLATES = Path(__file__).parent / "chat_templates"


class Family(NamedTuple):
    """What is known of models that share a chat template.

    Args:
        template: File with the least of it that prompts need, in our own words.
        bos: Text of BOS, where the tokenizer adds one.
        prefix: What pass 1 must send, without BOS.
    """

    template: str
    bos: str
    prefix: str


CHATML = "<|im_start|>user\n"
LLAMA = "<|start_header_id|>user<|end_header_id|>\n\n"
QWEN25 = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
# Prefixes: magpie-align/magpie@b734a36, configs/model_configs.json, and huggingface/trl@f2cd577,
# trl/chat_templates. Where they differ it is the model's own template that decides.
FAMILIES = {
    "meta-llama/Meta-Llama-3-": Family("llama-3", "<|begin_of_text|>", LLAMA),
    "Qwen/Qwen2-": Family(
        "qwen2", "", f"<|im_start|>system\nYou are a helpful assistant<|im_end|>\n{CHATML}"
    ),
    "Qwen/Qwen2.5-": Family("qwen2.5", "", f"<|im_start|>system\n{QWEN25}<|im_end|>\n{CHATML}"),
    "google/gemma-2-": Family("gemma-2", "<bos>", "<start_of_turn>user\n"),
    "google/gemma-3-": Family("gemma-3", "<bos>", "<start_of_turn>user\n"),
    "microsoft/Phi-3-": Family("phi-3", "<s>", "<|user|>\n"),
    "microsoft/phi-4": Family("phi-4", "", "<|im_start|>user<|im_sep|>"),
}


def family(model: Generator) -> Family:
    (found,) = (one for start, one in FAMILIES.items() if model.model.startswith(start))
    return found


def served(model: Generator) -> Settings:
    """Return an endpoint that serves this model, with its template and at once."""
    known = family(model)
    return Settings(
        machines=(Machine(token_s=0),),
        model_id=model.model,
        model_sha=model.revision,
        template=(TEMPLATES / f"{known.template}.jinja").read_text(),
        bos=known.bos,
    )


def prepared(name: str) -> Recipe:
    """Return a recipe as it is planned here: the simulated words are English, whatever it asks."""
    recipe = load(name)
    return replace(recipe, filters=tuple(f for f in recipe.filters if not f.reads & SPOKEN))


def meet(recipe: Recipe, options: Options) -> Voices:
    """Return what the endpoints say of themselves."""

    async def run() -> Voices:
        async with models.asked(recipe, options, lambda line: None) as asked:
            return await models.meet(recipe, asked)

    return run_async(run())


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_recipe_plans_with_its_models_template(name: str, tmp_path: Path) -> None:
    recipe = prepared(name)
    with ExitStack() as running:
        asked = running.enter_context(simulate(served(recipe.generator)))
        options = Options(endpoints=tuple(asked.urls), journal=tmp_path)
        if recipe.responder:
            responding = running.enter_context(simulate(served(recipe.responder)))
            options = replace(options, responder_endpoints=tuple(responding.urls))

        voices = meet(recipe, options)
        with Progress(4) as shown:
            made = plan(recipe, options, 4, shown)

    assert voices.generator.prefix.text == family(recipe.generator).prefix
    assert voices.responder.prefix.text == family(recipe.responder or recipe.generator).prefix
    assert made.accepted >= 4
    assert made.expected.requests >= 2 * recipe.rows


def lines(name: str) -> list[str]:
    return (bundled("configs") / f"{name}.yaml").read_text().splitlines()


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_recipe_is_named_as_its_file_and_pins_a_revision_that_was_seen(name: str) -> None:
    recipe = load(name)
    models = [recipe.generator, *([recipe.responder] if recipe.responder else [])]

    assert recipe.name == name
    for model in models:
        assert MODELS[model.model]["revision"] == model.revision
        assert ", " in MODELS[model.model]["seen_in"]
    assert recipe.release.license == MODELS[recipe.generator.model]["license"]


def test_no_model_is_pinned_for_nothing() -> None:
    recipes = [load(name) for name in bundled_names()]
    used = {recipe.generator.model for recipe in recipes}
    used |= {recipe.responder.model for recipe in recipes if recipe.responder}

    assert set(MODELS) == used


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_recipe_says_what_it_is_whence_its_numbers_are_and_how_it_differs(
    name: str,
) -> None:
    head = list(takewhile(lambda line: line.startswith("# "), lines(name)))
    parts = [line.split(":")[0] for line in head if re.match(r"# (Numbers|Differs):", line)]

    assert head[0].endswith(".")
    assert parts == ["# Numbers", "# Differs"]


def prompts(recipe: Recipe) -> Iterator[str]:
    """Yield every text of a recipe that a model reads."""
    for setting in recipe.instructions:
        yield from (setting.system, setting.start or "", *(setting.items or ()))
    if recipe.follow_up:
        yield recipe.follow_up.system


LEFTOVER = re.compile(r"\{(?!item\})|(?<!\{item)\}|<\||\|>|\[[A-Z_ ]+\]|<[a-z_ ]+>|\b(TBD|XXX)\b")
# A lower-case L for the I of AI, which was published in more than one place.
LOOK_ALIKE = re.compile(r"\bA[l1|]\b")


def alphabets(text: str) -> set[str]:
    """Return the first words of the letters' names, as LATIN or CYRILLIC."""
    return {unicodedata.name(letter).split()[0] for letter in text if letter.isalpha()}


@pytest.mark.parametrize("name", bundled_names())
def test_no_prompt_holds_look_alike_letters_or_what_a_template_left_behind(name: str) -> None:
    for prompt in prompts(load(name)):
        assert not LEFTOVER.search(prompt), prompt
        assert not LOOK_ALIKE.search(prompt), prompt
        assert len(alphabets(prompt)) <= 1, prompt
        assert not alphabets(prompt) - {"LATIN", "CJK"}, prompt


def test_the_checks_of_prompts_find_what_they_are_for() -> None:
    assert LOOK_ALIKE.search("You are an Al assistant.")
    assert not LOOK_ALIKE.search("You are an AI assistant; also call me Ally.")
    assert len(alphabets("You are an \u0410I assistant.")) == 2
    assert [
        bool(LEFTOVER.search(text)) for text in ("{{ x }}", "in {item}", "[TOPIC]", "a <b>")
    ] == [
        True,
        False,
        True,
        True,
    ]


def row(name: str) -> str:
    recipe, what = load(name), lines(name)[0].removeprefix("# ")
    return (
        f"| [{name}](configs/{name}.yaml) | {recipe.generator.model} | {recipe.rows:,} | {what} |"
    )


def test_the_readmes_table_is_what_the_files_say() -> None:
    table = README.split("| recipe | model | rows | what |\n|---|---|---|---|\n")[1].split("\n\n")[
        0
    ]

    assert table.splitlines() == [row(name) for name in bundled_names()]
