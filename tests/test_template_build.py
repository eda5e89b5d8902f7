"""Builds whose recipe names the chat template, against an endpoint that shows none."""

import json
from pathlib import Path

import pytest

from prequery.errors import BuildError
from prequery.magpie import Magpie
from prequery.options import Options
from scripted_tgi import MODEL, REVISION, ScriptedTgi, recipe_text

TEMPLATE = (Path(__file__).parent / "templates" / "smollm2.jinja").read_text()


def hides_its_template(messages: object) -> str:
    raise ValueError("this server shows no template")


def written(folder: Path, keys: str) -> Path:
    recipe = folder / "scripted.yaml"
    generator = f"{{model: {MODEL}, revision: '{REVISION}', {keys}}}"
    recipe.write_text(recipe_text(6, generator=generator))
    return recipe


def built(server: ScriptedTgi, recipe: Path, out: str) -> dict[str, object]:
    folder = recipe.parent
    options = Options(endpoints=(server.url,), journal=folder / "journal")
    Magpie(recipe, options=options).download_and_prepare(folder / out, file_format="parquet")
    lock: dict[str, object] = json.loads((folder / out / "scripted.lock.json").read_text())
    return lock


def test_a_build_takes_its_template_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    recipe = written(tmp_path, "template: {file: chat.jinja}")

    with ScriptedTgi(template=hides_its_template).serving() as server:
        lock = built(server, recipe, "out")
        (tmp_path / "chat.jinja").write_text(TEMPLATE.replace("SmolLM", "another"))
        with pytest.raises(BuildError) as caught:
            built(server, recipe, "again")

    prefix = lock["prefix"]
    assert isinstance(prefix, dict)
    assert prefix["source"] == "file chat.jinja"
    assert len(prefix["template_sha256"]) == 64
    assert prefix["text"].endswith("Hugging Face<|im_end|>\n<|im_start|>user\n")
    assert caught.value.what.startswith("the answers in this journal were made with something else")


def test_an_endpoint_that_shows_no_template_stops_a_build_that_names_none(tmp_path: Path) -> None:
    recipe = written(tmp_path, "template: endpoint")

    with (
        ScriptedTgi(template=hides_its_template).serving() as server,
        pytest.raises(BuildError) as caught,
    ):
        built(server, recipe, "out")

    assert "this server shows no template" in caught.value.what
