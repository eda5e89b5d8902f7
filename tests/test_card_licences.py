"""The licence on a card follows from recipe and models, and what it asks is there in words."""

import json

import pytest
import yaml

import judged_release as judged
from prequery import card, recipe
from prequery.bundled import bundled
from prequery.recipe import Recipe

TERMS = json.loads((bundled("dataset_cards") / "licenses.json").read_text())
MODELS = json.loads((bundled("configs") / "models.json").read_text())


def written_by(model: str, licence: str | None = None) -> Recipe:
    text = judged.TEXT.replace("google/gemma-2-9b-it", model).replace(judged.JUDGE, model)
    if licence:
        text = text.replace("release: {", f"release: {{license: {licence}, ")
    return recipe.read(text, "chat.yaml")


def rendered(built: Recipe) -> str:
    lock = judged.finished({"f": {"bytes": 1, "rows": 2, "sha256": ""}}, {}, built)
    told = json.loads(json.dumps(lock).replace(judged.JUDGE, built.generator.model))
    rows = [judged.row(slot) for slot in range(2)]
    return card.render(built, told, card.measure([judged.table(rows, built)]))


def block(text: str) -> dict[str, object]:
    parsed = yaml.safe_load(text.split("---\n", 2)[1])
    assert isinstance(parsed, dict)
    return {key: value for key, value in parsed.items() if key.startswith("license")}


@pytest.mark.parametrize("model", [name for name, entry in MODELS.items() if entry["license"]])
def test_every_model_that_comes_with_us_has_its_terms(model: str) -> None:
    text = rendered(written_by(model))

    terms = TERMS[MODELS[model].get("license_name", MODELS[model]["license"])]
    assert block(text)["license"] == MODELS[model]["license"]
    assert f"[{terms['name']}]({terms['url']})" in text
    for duty in terms["duties"]:
        assert f"- {terms['name']}: {duty}" in text


def test_a_licence_without_a_name_on_the_hub_is_other_with_a_link() -> None:
    assert block(rendered(written_by("Qwen/Qwen2.5-72B-Instruct"))) == {
        "license": "other",
        "license_name": "qwen",
        "license_link": "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
    }


@pytest.mark.parametrize("model", ["acme/unknown", "sfairXC/FsfairX-LLaMA3-RM-v0.1"])
def test_no_licence_is_claimed_for_a_model_whose_terms_are_not_known(model: str) -> None:
    text = rendered(written_by(model))

    assert block(text) == {}
    assert text.count("not known here: see the model's page") == 2


def test_the_recipes_licence_is_the_datas_and_the_models_terms_stay() -> None:
    text = rendered(written_by("meta-llama/Llama-3.3-70B-Instruct", "cc-by-4.0"))

    assert block(text) == {"license": "cc-by-4.0"}
    assert "The recipe releases the data under `cc-by-4.0`." in text
    assert "says prominently: Built with Llama" in text
