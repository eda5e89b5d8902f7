"""What a release says for machines: validated and read back by Croissant's own library."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import judged_release as judged
from prequery import card, cards, recipe
from prequery.card import croissant
from test_annotation import parquet, rows_of, run
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


@pytest.fixture
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def annotated(place: Path) -> tuple[mlcroissant.Dataset, dict[str, Any]]:
    """Return the Croissant file of an annotated dataset, as the library and as JSON have it."""
    path = place / "out/given.croissant.json"
    return mlcroissant.Dataset(jsonld=str(path)), json.loads(path.read_text())


@pytest.mark.usefixtures("_own_folders")
def test_an_annotated_dataset_is_described_as_what_it_is_based_on(tmp_path: Path) -> None:
    rows, lock = run(
        tmp_path,
        parquet(tmp_path, rows_of(12)),
        columns=["length", "language"],
        filters=["level > 1"],
        release={"repo": "acme/measured", "license": "cc-by-4.0"},
    )

    dataset, told = annotated(tmp_path)

    assert dataset.metadata.ctx.issues.errors == set()
    # How the dataset is cited nobody told.
    warnings = sorted(dataset.metadata.ctx.issues.warnings)
    assert [one.rpartition("/")[2].partition('"')[0] for one in warnings] == [
        "citeAs",
        "datePublished",
    ]
    assert RAI in [str(one) for one in dataset.metadata.conforms_to]
    assert [plain(record) for record in dataset.records("given")] == rows
    path, sha256 = lock["dataset"]["path"], lock["dataset"]["sha256"]
    assert told["isBasedOn"] == {
        "@type": "sc:CreativeWork",
        "name": path,
        "identifier": f"sha256:{sha256}",
    }
    assert told["license"] == "cc-by-4.0"
    assert told["publisher"] == {"@type": "sc:Organization", "name": "acme"}
    assert told.keys().isdisjoint({"creator", "citeAs"})
    assert told["rai:dataCollection"] == (
        f"The rows were not written or collected for this release: they were read from the dataset "
        f"{path!r}, and how they came to be is for that dataset to say. A program measured them. "
        "The texts are as they were there."
    )
    assert told["rai:dataCollectionType"] == ["Secondary Data Analysis"]
    assert told["rai:dataCollectionRawData"] == (
        f"Dataset {path!r}, split 'train', SHA-256 of its files {sha256}."
    )
    assert told["rai:dataPreprocessingProtocol"] == [
        "10 of 12 rows that were read stay.",
        "A row passes the filter: level > 1",
        "instruction is the dataset's field 'prompt'.",
        "response is the dataset's field 'output'.",
    ]
    assert "prequery column language, version 1" in told["rai:machineAnnotationTools"]
    said = json.dumps(told)
    assert not [word for word in ("MAGPIE", "synthetic", "attempts", "generator") if word in said]


@pytest.mark.usefixtures("_own_folders")
def test_fields_of_an_annotated_dataset_are_read_back_where_the_format_has_their_type(
    tmp_path: Path,
) -> None:
    text, number = "What is bread?", 2**40
    given = pa.table(
        {
            "prompt": [text, text],
            'a name/of" theirs': ["x", None],
            "half": pa.array([1.5, 2.5], pa.float32()),
            "small": pa.array([1, 2], pa.uint8()),
            "tags": [["a", "b"], ["c"]],
            "whole": [{"a": number, "b": "x"}, {"a": 2, "b": "y"}],
            "list": [[{"a": 1}, {"a": 2}], [{"a": 3}]],
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(8, 2)),
            "deep": [{"a": {"b": 1}}, None],
            "odd": [{"a b": 1}, None],
            "bytes": [b"x", b"y"],
        }
    )
    pq.write_table(given, tmp_path / "data.parquet")

    rows, _ = run(tmp_path, str(tmp_path / "data.parquet"), fields={"instruction": "prompt"})

    dataset, told = annotated(tmp_path)
    assert dataset.metadata.ctx.issues.errors == set()
    left_out = {"price", "deep", "odd", "bytes"}
    read = [plain(record) for record in dataset.records("given")]
    named = "a%20name%2Fof%22%20theirs"
    for one in rows:
        one[named] = one.pop('a name/of" theirs')
    assert read == [{key: one[key] for key in one if key not in left_out} for one in rows]
    (record_set,) = told["recordSet"]
    assert record_set["description"] == (
        "Without 'price', 'deep', 'odd', 'bytes': the format has no such type."
    )
    meanings = {one["name"]: one["description"] for one in record_set["field"]}
    assert meanings['a name/of" theirs'] == "the dataset's field 'a name/of\" theirs'"
    assert meanings["turns"] == "how often the user speaks"


@pytest.mark.usefixtures("_own_folders")
def test_the_check_of_an_annotated_datasets_card_sees_its_croissant_file(tmp_path: Path) -> None:
    run(tmp_path, parquet(tmp_path, rows_of(12)))
    path = tmp_path / "out/given.croissant.json"
    kept = path.read_text()

    path.write_text(kept.replace("12 of 12 rows", "13 of 12 rows"))
    (edited,) = cards.check(str(tmp_path / "out"))
    path.unlink()
    (missing,) = cards.check(str(tmp_path / "out"))
    cards.rewrite(str(tmp_path / "out"))

    assert [one.place for one in edited.found] == ["given.croissant.json"]
    assert [one.place for one in missing.found] == ["given.croissant.json"]
    assert path.read_text() == kept
