"""Columns over embeddings: clusters, distance to a reference set, and other embedders."""

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from prequery import columns
from prequery.columns.base import Values
from prequery.columns.centroids import assign, centroids
from prequery.columns.run import measure
from prequery.columns.vectors import SCALE, whole
from prequery.errors import ColumnError, RecipeError

BREAD = [f"How do I bake {kind} bread at home?" for kind in ("rye", "white", "flat", "corn")]
TAXES = [f"Which tax forms does a freelance {job} file?" for job in ("writer", "painter")]


def measured(spec: object, *instructions: str | None, folder: Path = Path()) -> Values:
    ids = [str(slot) for slot in range(len(instructions))]
    column = columns.load(spec, "r.yaml", folder)
    return measure([column], {"id": ids, "instruction": list(instructions)})


def test_clusters_are_numbered_by_size_and_each_row_knows_its_distance() -> None:
    rows = [TAXES[0], *BREAD, "", TAXES[1], None]

    values = measured({"cluster": {"clusters": 2}}, *rows)

    assert values["cluster"] == [1, 0, 0, 0, 0, None, 1, None]
    distances = values["cluster_distance"]
    assert (distances[5], distances[7]) == (None, None)
    assert distances[0] == pytest.approx(distances[6], abs=1e-3)
    assert all(0 < each < 1 for each in distances if each is not None)


def test_without_a_number_there_are_as_many_clusters_as_the_square_root_of_the_rows() -> None:
    texts = [f"{word} {number}" for word in ("rain", "gold", "fish") for number in range(3)]

    values = measured("cluster", *texts)

    assert sorted(set(values["cluster"])) == [0, 1, 2]


def test_equal_instructions_are_one_cluster_without_a_distance() -> None:
    values = measured({"cluster": {"clusters": 5}}, *["Plan a trip to Oslo"] * 4)

    assert values["cluster"] == [0] * 4
    assert values["cluster_distance"] == pytest.approx([0] * 4, abs=1e-6)


def test_a_centroid_is_the_direction_of_its_members_mean() -> None:
    random = np.random.default_rng(3)
    parts = [centre + random.normal(size=(50, 8)) for centre in 9 * np.eye(8)[:2]]
    unit = np.concatenate(parts)[random.permutation(100)]
    vectors = whole((unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32))

    centres = centroids(vectors, 2)
    nearest, squared = assign(vectors, centres)

    wide = vectors.astype(np.int64)
    for number, centre in enumerate(centres):
        mean = wide[nearest == number].mean(axis=0)
        assert np.abs(centre - mean * SCALE / np.linalg.norm(mean)).max() < 1
    true = ((wide[:, None] - centres.astype(np.int64)) ** 2).sum(axis=2)
    assert nearest.tolist() == true.argmin(axis=1).tolist()
    assert squared.tolist() == true.min(axis=1).tolist()


def test_novelty_is_the_distance_to_the_nearest_text_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "seen.txt").write_text("\n".join(["", BREAD[0], TAXES[0], TAXES[0]]))
    spec = {"novelty": {"file": "seen.txt", "field": "line"}}

    values = measured(spec, TAXES[0], BREAD[1], None, " ", folder=tmp_path)

    assert values["novelty_source"] == ["seen.txt:3", "seen.txt:2", None, None]
    assert values["novelty"][0] == 0.0
    assert 0 < values["novelty"][1] < 0.5
    assert values["novelty"][2:] == [None, None]


def test_novelty_is_the_neighbour_distance_of_the_same_two_texts(tmp_path: Path) -> None:
    (tmp_path / "seen.txt").write_text(BREAD[0])
    spec = {"novelty": {"file": "seen.txt", "field": "line"}}

    novelty = measured(spec, BREAD[1], folder=tmp_path)["novelty"][0]

    assert novelty == measured("min_neighbor_distance", *BREAD[:2])["min_neighbor_distance"][0]


def test_a_reference_set_without_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seen.jsonl").write_text('{"instruction": null}\n{"instruction": " "}\n')
    column = columns.load({"novelty": {"file": "seen.jsonl"}}, "r.yaml", tmp_path)

    with pytest.raises(ColumnError) as error:
        column.pins()

    assert error.value.args == (
        "the field 'instruction' holds no text",
        str(tmp_path / "seen.jsonl"),
        "name a field that holds texts",
    )


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"cluster": {"clusters": -1}}, "column 'cluster': clusters is -1, not 0 to 10000"),
        ({"novelty": {}}, "column 'novelty' needs the parameter 'file'"),
        (
            {"novelty": {"file": "seen.txt"}},
            "column 'novelty' reads the file 'seen.txt', which is not there",
        ),
        (
            {"cluster": {"embedder": "minilm"}},
            "column 'cluster': embedder is 'minilm', neither wordllama nor MODEL@REVISION with "
            "40 hex digits",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(spec: object, what: str) -> None:
    with pytest.raises(RecipeError) as error:
        columns.load(spec, "here")

    assert error.value.what == what


HUB_MODEL = f"acme/static@{'ab' * 20}"
MAKE_MODEL = """
import sys
from pathlib import Path
import numpy as np
from prequery.columns.embedding import WordLlama
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
words = WordLlama()
table = words._table.astype(np.float32)
model = SentenceTransformer(modules=[StaticEmbedding(words._tokenizer, embedding_weights=table)])
model.save_pretrained(sys.argv[1])
"""


@pytest.mark.train
@pytest.mark.skipif(not find_spec("sentence_transformers"), reason="needs sentence-transformers")
def test_a_model_of_the_hub_measures_as_the_same_weights_of_the_package_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = HUB_MODEL.partition("@")[2]
    snapshot = tmp_path / "hub/models--acme--static/snapshots" / revision
    snapshot.mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    subprocess.run([sys.executable, "-c", MAKE_MODEL, str(snapshot)], check=True)
    script = f"""
from prequery import columns
from prequery.columns.run import measure
found = []
for name in ("wordllama", {HUB_MODEL!r}):
    column = columns.load({{"min_neighbor_distance": {{"embedder": name}}}}, "x")
    texts = {[*BREAD, "", None, *TAXES]!r}
    rows = {{"id": [str(n) for n in range(len(texts))], "instruction": texts}}
    found.append(measure([column], rows))
assert found[0].pop("min_neighbor_distance")[0] - found[1].pop("min_neighbor_distance")[0] < 1e-6
assert found[0] == found[1]
pins = column.pins()
assert pins["acme/static"] == {revision!r} and "sentence-transformers" in pins, pins
"""

    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


@pytest.mark.skipif(bool(find_spec("sentence_transformers")), reason="the library is there")
def test_without_its_library_an_embedder_says_what_to_install() -> None:
    column = columns.load({"min_neighbor_distance": {"embedder": HUB_MODEL}}, "x")

    with pytest.raises(ColumnError) as error:
        column.pins()

    assert error.value.args == (
        "this embedder needs sentence-transformers, which is not installed",
        "a column's parameter 'embedder'",
        "pip install 'prequery[sentence-transformers]', or leave it out for wordllama",
    )


def test_wordllama_is_the_embedder_where_none_is_named() -> None:
    for spec in ("cluster", {"cluster": {"embedder": "wordllama"}}):
        assert columns.load(spec, "x").pins()["wordllama"] == version("wordllama")
