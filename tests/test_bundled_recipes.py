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
from prequery.recipe import Generator, Recipe, Template, bundled_names, load
from prequery.rehearsal import SPOKEN
from prequery.runner import run_async
from prequery.simulation import Machine, Settings, simulate
from prequery.voices import Voices

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MODELS = json.loads((bundled("configs") / "models.json").read_text())
NAMES = [name for name in bundled_names() if name != "smollm2-demo"]  # which has its own tests
CONFIGS = ROOT / "configs"
TEMPLATES = Path(__file__).parent / "chat_templates"


class Family(NamedTuple):
    """What is known of models that share a chat template.

    Args:
        template: File with the least of it that prompts need, in our own words.
        bos: Text of BOS, where the tokenizer adds one.
        prefix: What pass 1 must send, without BOS.
    """

    template: Path
    bos: str
    prefix: str


def known(template: str, bos: str, *prefix: str, folder: Path = TEMPLATES) -> Family:
    return Family(folder / template, bos, "".join(prefix))


LLAMA_USER = "<|start_header_id|>user<|end_header_id|>\n\n"
LLAMA_SYSTEM = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
)
CHATML_USER = "<|im_start|>user\n"
QWEN25 = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
SMOLLM3 = (
    "## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 08 July 2025\n"
    "Reasoning Mode: /no_think\n\n## Custom Instructions\n\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n"
)
GPT_OSS = (
    "You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: 2025-08-05\n\nReasoning: low\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)
# Prefixes: magpie-align/magpie@b734a36, configs/model_configs.json, and huggingface/trl@f2cd577,
# trl/chat_templates. Where these differ, what the model's own template writes is right.
FAMILIES = {
    "meta-llama/Meta-Llama-3-": known("llama-3.jinja", "<|begin_of_text|>", LLAMA_USER),
    "meta-llama/Llama-3.": known("llama-3.1.jinja", "<|begin_of_text|>", LLAMA_SYSTEM, LLAMA_USER),
    "deepseek-ai/DeepSeek-R1": known(
        "deepseek-r1.jinja",
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "<\uff5cUser\uff5c>",
    ),
    "Qwen/Qwen2-": known(
        "qwen2.jinja",
        "",
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n",
        CHATML_USER,
    ),
    "Qwen/Qwen2.5-": known(
        "qwen2.5.jinja", "", f"<|im_start|>system\n{QWEN25}<|im_end|>\n", CHATML_USER
    ),
    "Qwen/Qwen3-": known("qwen3.jinja", "", CHATML_USER),
    "google/gemma-2-": known("gemma-2.jinja", "<bos>", "<start_of_turn>user\n"),
    "google/gemma-3-": known("gemma-3.jinja", "<bos>", "<start_of_turn>user\n"),
    "microsoft/Phi-3-": known("phi-3.jinja", "<s>", "<|user|>\n"),
    "microsoft/phi-4": known("phi-4.jinja", "", "<|im_start|>user<|im_sep|>"),
    "HuggingFaceTB/SmolLM3-": known(
        "smollm3.jinja", "", f"<|im_start|>system\n{SMOLLM3}<|im_end|>\n", CHATML_USER
    ),
    "openai/gpt-oss-": known(
        "gpt-oss-20b.jinja",
        "",
        f"<|start|>system<|message|>{GPT_OSS}<|end|><|start|>user<|message|>",
        folder=CONFIGS,
    ),
}


def family(model: Generator) -> Family:
    (found,) = (one for start, one in FAMILIES.items() if model.model.startswith(start))
    return found


def served(model: Generator) -> Settings:
    """Return an endpoint that serves this model, with its template and at once."""
    return Settings(
        machines=(Machine(token_s=0),),
        model_id=model.model,
        model_sha=model.revision,
        template=family(model).template.read_text(),
        bos=family(model).bos,
    )


def prepared(name: str, folder: Path) -> Recipe:
    """Return a recipe as it is planned here.

    The simulated words are English, whatever it asks; tokenizer files are not brought from the Hub.
    """
    recipe = load(name)
    recipe = replace(recipe, filters=tuple(f for f in recipe.filters if not f.reads & SPOKEN))
    model = recipe.generator
    if model.template and model.template.tokenizer is not None:
        said = {"chat_template": family(model).template.read_text(), "bos_token": family(model).bos}
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        model = replace(model, template=Template(tokenizer=str(folder)))
    return replace(recipe, generator=model)


def meet(recipe: Recipe, options: Options) -> Voices:
    """Return what the endpoints say of themselves."""

    async def run() -> Voices:
        async with models.asked(recipe, options, lambda line: None) as asked:
            return await models.meet(recipe, asked)

    return run_async(run())


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_recipe_plans_with_its_models_template(name: str, tmp_path: Path) -> None:
    recipe = prepared(name, tmp_path)
    with ExitStack() as running:
        asked = running.enter_context(simulate(served(recipe.generator)))
        options = Options(endpoints=tuple(asked.urls), journal=tmp_path / "journal")
        if recipe.responder:
            responding = running.enter_context(simulate(served(recipe.responder)))
            options = replace(options, responder_endpoints=tuple(responding.urls))

        voices = meet(recipe, options)
        with Progress(4) as shown:
            made = plan(recipe, options, 4, shown)

    assert voices.generator.prefix.text == family(recipe.generator).prefix
    assert voices.responder.prefix.text == family(recipe.responder or recipe.generator).prefix
    if recipe.think == "split":
        assert voices.responder.prefix.think
    if recipe.generator.thinking is False:
        assert "</think>" in voices.generator.prefix.suffix
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
