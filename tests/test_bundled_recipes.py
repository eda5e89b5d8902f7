"""The bundled recipes: what they say of themselves, and a plan of each against its template."""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import pytest

from prequery import models
from prequery.bundled import bundled
from prequery.options import Options
from prequery.planning import plan
from prequery.progress import Progress
from prequery.recipe import Generator, Recipe, Template, bundled_names, load
from prequery.rehearsal import SPOKEN, unjudged
from prequery.runner import run_async
from prequery.simulation import Machine, Settings, simulate
from prequery.voices import Voices

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MODELS = json.loads((bundled("configs") / "models.json").read_text())
NAMES = [name for name in bundled_names() if name != "smollm2-demo"]  # which has its own tests
TEMPLATES = Path(__file__).parent / "templates"
KNOWN = json.loads((TEMPLATES / "families.json").read_text())


FAMILIES = {
    "meta-llama/Meta-Llama-3-": "llama3",
    "meta-llama/Llama-3.": "llama3_1",
    "deepseek-ai/DeepSeek-R1": "thinks_at_once",
    "Qwen/Qwen2-": "qwen2",
    "Qwen/Qwen2.5-": "qwen2_5",
    "Qwen/Qwen3-": "qwen3",
    "google/gemma-2-": "gemma",
    "google/gemma-3-": "gemma3",
    "microsoft/Phi-3-": "phi3",
    "microsoft/phi-4": "phi4",
    "HuggingFaceTB/SmolLM3-": "smollm3",
    "openai/gpt-oss-": "harmony",
}
"""What model ids begin with, and the template of such models."""
FROZEN = {
    "31 January 2026": "08 July 2025",  # SmolLM3's day, there and in the recipe
    "/think": "/no_think",
    "2026-01-31": "2025-08-05",  # gpt-oss's
}


def family(model: Generator) -> str:
    (found,) = (name for start, name in FAMILIES.items() if model.model.startswith(start))
    return found


def template(model: Generator) -> str:
    """Return the least of a model's template."""
    return (TEMPLATES / f"{family(model)}.jinja").read_text()


def special(model: Generator) -> dict[str, str]:
    """Return the special tokens that the template writes by their names."""
    known: dict[str, str] = KNOWN[family(model)].get("special", {})
    return {"bos_token": "", "eos_token": ""} | known


def prefix(model: Generator) -> str:
    """Return what pass 1 must send."""
    text: str = KNOWN[family(model)]["pieces"]["text"]
    for there, here in FROZEN.items():
        text = text.replace(there, here)
    return text.removeprefix(special(model)["bos_token"])


def served(model: Generator) -> Settings:
    """Return an endpoint that serves this model, with its template and at once."""
    return Settings(
        machines=(Machine(token_s=0),),
        model_id=model.model,
        model_sha=model.revision,
        template=template(model),
        bos=special(model)["bos_token"],
        eos=special(model)["eos_token"],
    )


def prepared(name: str, folder: Path) -> Recipe:
    """Return a recipe as it is planned here.

    The simulated words are English, whatever it asks, and nobody can judge them; tokenizer files
    are not brought from the Hub.
    """
    recipe = unjudged(load(name))
    recipe = replace(recipe, filters=tuple(f for f in recipe.filters if not f.reads & SPOKEN))
    model = recipe.generator
    if model.template and model.template.tokenizer is not None:
        said = {"chat_template": template(model), **special(model)}
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

    assert voices.generator.prefix.text == prefix(recipe.generator)
    assert voices.responder.prefix.text == prefix(recipe.responder or recipe.generator)
    if recipe.think == "split":
        assert voices.responder.prefix.think
    if recipe.generator.thinking is False:
        assert "</think>" in voices.generator.prefix.suffix
    assert made.accepted >= 4
    assert made.expected.requests >= 2 * recipe.rows


# Temperature and top_p to thousands of rows: arXiv 2406.08464, Table 7, and for Qwen2 and Phi-3
# magpie-align/magpie@b734a36, data_sft/data_concatenation.ipynb.
AIR = {
    (1.0, 1.0): 300,
    (1.0, 0.995): 300,
    (1.0, 0.99): 300,
    (1.1, 1.0): 300,
    (1.1, 0.995): 300,
    (1.1, 0.99): 300,
    (1.2, 1.0): 300,
    (1.2, 0.995): 300,
    (1.2, 0.99): 300,
    (1.25, 1.0): 100,
    (1.25, 0.995): 100,
    (1.25, 0.99): 100,
}
PRO = {(1.0, 1.0): 300, (1.1, 0.995): 300, (1.2, 0.995): 300, (1.25, 0.99): 100}
GRIDS = {
    "magpie-air-3m": AIR,
    "magpie-air-300k-filtered": AIR,
    "magpie-air-dpo-100k": AIR,
    "magpie-pro-1m": PRO,
    "magpie-pro-300k-filtered": PRO,
    "magpie-pro-dpo-100k": PRO,
    "magpie-pro-mt-300k": PRO,
    "magpie-qwen2-pro-1m": {(1.0, 1.0): 300, (1.1, 1.0): 400, (1.2, 0.99): 300},
    "magpie-phi3-pro-1m": {(1.0, 1.0): 300, (1.1, 1.0): 300, (1.2, 0.99): 300, (1.25, 0.99): 100},
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_published_grid_is_followed(name: str) -> None:
    settings = load(name).instructions

    grid = {(one.temperature, one.top_p or 1.0): round(one.weight) for one in settings}
    assert grid == GRIDS[name]


def test_the_topics_of_magpie_ultra_have_their_published_weights() -> None:
    settings = load("magpie-ultra-1m").instructions

    assert {one.name: one.weight / 100 for one in settings} == {
        "information-seeking": 0.05,
        "reasoning": 0.125,
        "planning": 0.05,
        "editing": 0.1,
        "coding": 0.125,
        "math": 0.125,
        "role-playing": 0.1,
        "data-analysis": 0.125,
        "creative-writing": 0.1,
        "advice-seeking": 0.05,
        "brainstorming": 0.05,
    }


def lines(name: str) -> list[str]:
    return (bundled("configs") / f"{name}.yaml").read_text().splitlines()


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_recipe_is_named_as_its_file_and_pins_a_revision_that_was_seen(name: str) -> None:
    recipe = load(name)
    models = [recipe.generator, *recipe.judges.values()]
    models += [recipe.responder] if recipe.responder else []

    assert recipe.name == name
    for model in models:
        assert MODELS[model.model]["revision"] == model.revision
        assert ", " in MODELS[model.model]["seen_in"]
    assert recipe.release.license == MODELS[recipe.generator.model]["license"]


def test_no_model_is_pinned_for_nothing() -> None:
    recipes = [load(name) for name in bundled_names()]
    used = {recipe.generator.model for recipe in recipes}
    used |= {recipe.responder.model for recipe in recipes if recipe.responder}
    used |= {judge.model for recipe in recipes for judge in recipe.judges.values()}

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
