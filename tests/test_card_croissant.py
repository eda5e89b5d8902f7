"""What a release says for machines: validated and read back by Croissant's own library."""

import json
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow.parquet as pq
import pytest

import judged_release as judged
from prequery import card, cards, recipe
from prequery.card import croissant
from test_card import DEMO, HOSTILE, finished, row, tables

# rdflib's own warnings about itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RAI = "http://mlcommons.org/croissant/RAI/1.0"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("release")
    judged.write(place, [judged.row(slot) for slot in range(30)])
    return place


def content(place: Path) -> dict[str, Any]:
    parsed = json.loads((place / "chat.croissant.json").read_text())
    assert isinstance(parsed, dict)
    return parsed


def test_it_is_valid_and_has_no_other_warning_than_the_missing_date(release: Path) -> None:
    dataset = mlcroissant.Dataset(jsonld=str(release / "chat.croissant.json"))

    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    assert len(issues.warnings) == 1
    assert "datePublished" in next(iter(issues.warnings))
    assert str(dataset.metadata.version) == "1.2.0"
    assert RAI in [str(one) for one in dataset.metadata.conforms_to]


def test_its_records_are_the_rows(release: Path) -> None:
    dataset = mlcroissant.Dataset(jsonld=str(release / "chat.croissant.json"))
    rows = pq.read_table(release / "chat/train-00000-of-00001.parquet").to_pylist()

    read = [plain(record) for record in dataset.records("chat")]

    assert read == rows


def plain(value: Any) -> Any:
    """Return a record as the files have it: names without their config, texts as text."""
    if isinstance(value, dict):
        return {key.rpartition("/")[2]: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def test_it_names_every_file_with_its_hash(release: Path) -> None:
    lock = json.loads((release / "chat.lock.json").read_text())

    objects = [one for one in content(release)["distribution"] if "sha256" in one]

    assert {one["contentUrl"]: one["sha256"] for one in objects} == {
        path: file["sha256"] for path, file in lock["files"].items()
    }


def test_it_says_how_the_data_was_made_and_what_is_wrong_with_it(release: Path) -> None:
    told = content(release)

    assert told["rai:dataPreprocessingProtocol"][0] == "30 of 50 attempts became rows."
    assert told["rai:dataPreprocessingProtocol"][2] == "A row passes the filter: not response_loop"
    assert "prequery column difficulty, version 1" in told["rai:machineAnnotationTools"]
    assert told["rai:machineAnnotationTools"][-1] == (
        f"judge judge: {judged.JUDGE}@{'6' * 40}, tells clear instructions from others "
        "(AUC 0.91, 95 % interval 0.82 to 1.00)"
    )
    assert "Rows without a value: min_similar_id 30." in told["rai:dataCollectionMissingData"]
    assert told["rai:personalSensitiveInformation"] == [
        "It was not measured whether the texts hold personal data."
    ]
    assert told["license"] == ["gemma", "llama3.3"]
    assert told["inLanguage"] == ["en", "de"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_out_of_the_json(text: str) -> None:
    released = [row(slot, instruction=text) | {"language": text} for slot in range(3)]
    lock = finished(DEMO, released, {text: 3})

    told = json.loads(croissant.describe(DEMO, lock, card.measure(tables(released))))

    assert told["license"] == "apache-2.0"
    assert "inLanguage" not in told
    assert told["rai:dataBiases"][1] == f"3 of 3 instructions are in one language, {text!r}."


def test_equal_rows_give_equal_bytes(release: Path, tmp_path: Path) -> None:
    judged.write(tmp_path, [judged.row(slot) for slot in range(30)])

    assert (tmp_path / "chat.croissant.json").read_bytes() == (
        release / "chat.croissant.json"
    ).read_bytes()


def test_a_preference_config_is_described_and_read_too(tmp_path: Path) -> None:
    text = judged.TEXT.replace("responses: {temperature: null,", "responses: {temperature: 0.8,")
    preference = "preference: {responses: 2, score: response_chars}\n"
    built = recipe.read(text + preference, "chat.yaml")
    said = {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    more = {"chosen_score": 3.0, "rejected_score": 2.5, "score_margin": 0.5, "rejected_seed": 2}
    released = []
    for slot in range(3):
        values = judged.row(slot) | said | more | {"scores": [3.0, 2.5]}
        del values["messages"]
        released.append(values)

    judged.write(tmp_path, released, built)

    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "chat.croissant.json"))
    assert dataset.metadata.ctx.issues.errors == set()
    read = [plain(record) for record in dataset.records("chat")]
    assert read == pq.read_table(tmp_path / "chat/train-00000-of-00001.parquet").to_pylist()
    assert [one.found for one in cards.check(str(tmp_path))] == [()]
