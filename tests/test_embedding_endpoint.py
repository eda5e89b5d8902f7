"""Columns over embeddings that a text-embeddings-inference endpoint gives."""

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from prequery import Magpie, annotation, columns
from prequery.annotation import Wish, annotate
from prequery.columns.embedding import WordLlama
from prequery.columns.run import measure
from prequery.columns.vectors import SCALE, packed, unpacked, whole
from prequery.endpoint import Answer, Request
from prequery.errors import BuildError, ColumnError, EndpointError, RecipeError
from prequery.fleet import Fleet
from prequery.options import Options
from prequery.recipe import Sampling, read, read_annotation
from prequery.rehearsal import unjudged
from prequery.transport import Patience
from scripted_tei import REWARD_REVISION, Json, ScriptedTei
from scripted_tgi import ScriptedTgi, recipe_text
from test_annotation import Silent

AT_ONCE = Patience(first_wait_s=0, longest_wait_s=0)
NOBODY = "http://127.0.0.1:9"
MODEL = "acme/embedder"
JUDGES = {
    "judges": f"{{embedder: {{model: {MODEL}, revision: '{REWARD_REVISION}', endpoint: {NOBODY}}}}}"
}
RECORDED = "{instruction_embedding: {judge: embedder}}"
NEAREST = "{min_neighbor_distance: {embedder: instruction_embedding}}"
DISTANCES = ("min_neighbor_distance", "repeat_count", "min_similar_id")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREQUERY_HOME", str(tmp_path / "home"))


def by_words() -> ScriptedTei:
    """A server whose vectors are WordLlama's, so that its values are known."""
    model = WordLlama()
    return ScriptedTei(
        embed=lambda text: [[float(one) for one in model.embed([text])[0]]], model_id=MODEL
    )


def build(
    folder: Path, url: str, embedder: str, named: str, changed: Mapping[str, str] = JUDGES
) -> list[Json]:
    """Build with these columns, and return the rows."""
    folder.mkdir()
    path = folder / "scripted.yaml"
    path.write_text(recipe_text(**{"columns": f"[length, {named}]"} | dict(changed)))
    judges = {"embedder": (embedder,)} if changed else {}
    options = Options(endpoints=(url,), judge_endpoints=judges, patience=AT_ONCE)
    Magpie(path, options=options).download_and_prepare(folder / "out", file_format="parquet")
    with next((folder / "out/scripted").glob("*.parquet")).open("rb") as file:
        rows: list[Json] = pq.read_table(file).to_pylist()
    return rows


def ask(server: ScriptedTei, request: Request) -> Answer:
    async def inside() -> Answer:
        async with Fleet([server.url], patience=AT_ONCE) as fleet:
            fleet.check(request)
            return await fleet.generate(request, "test")

    with server.serving():
        return asyncio.run(inside())


def embedding(text: str) -> Request:
    return Request(prompt=text, sampling=Sampling(), embeds=True)


def test_distances_are_measured_by_an_endpoints_vectors(tmp_path: Path) -> None:
    both = f"{RECORDED}, {NEAREST}"
    with ScriptedTgi().serving() as server, by_words().serving() as tei:
        rows = build(tmp_path / "first", server.url, tei.url, both)
        asked = len(tei.asked)
        known = build(tmp_path / "second", server.url, NOBODY, "min_neighbor_distance", {})
    more = build(tmp_path / "third", NOBODY, NOBODY, f"{both}, {{cluster: {{clusters: 2}}}}")

    assert rows == known  # and no row holds the vector
    assert "instruction_embedding" not in rows[0]
    assert [[row[name] for name in DISTANCES] for row in more] == [
        [row[name] for name in DISTANCES] for row in rows
    ]
    assert asked >= len(rows)
    assert tei.asked[0].keys() == {"inputs", "normalize", "truncate"}
    lock = json.loads((tmp_path / "first/out/scripted.lock.json").read_text())
    assert lock["judges"]["embedder"]["model"]["revision"] == REWARD_REVISION
    assert lock["columns"]["min_neighbor_distance"]["pins"] == {}


def test_clusters_are_found_by_an_endpoints_vectors(tmp_path: Path) -> None:
    recorded = f"{RECORDED}, {{cluster: {{clusters: 3, embedder: instruction_embedding}}}}"
    with ScriptedTgi().serving() as server, by_words().serving() as tei:
        rows = build(tmp_path / "first", server.url, tei.url, recorded)
        known = build(tmp_path / "second", server.url, NOBODY, "{cluster: {clusters: 3}}", {})

    assert rows == known


def test_what_the_endpoint_refuses_is_null(tmp_path: Path) -> None:
    def moody(text: str) -> Json:
        if "bread" in text.lower():
            return 413, {"error": "too long", "error_type": "Validation"}
        return [[float(len(text)), 1.0, 0.5]]

    with (
        ScriptedTgi().serving() as server,
        ScriptedTei(embed=moody, model_id=MODEL).serving() as tei,
    ):
        rows = build(tmp_path / "first", server.url, tei.url, f"{RECORDED}, {NEAREST}")

    refused = [row for row in rows if "bread" in row["instruction"].lower()]
    assert refused
    for row in rows:
        assert (row["min_neighbor_distance"] is None) == (row in refused)


def test_a_vector_is_written_down_in_whole_numbers() -> None:
    text = packed([3.0, 0.0, -4.0])

    assert base64.b64decode(text) == np.array([2400, 0, -3200], "<i2").tobytes()
    batches: list[dict[str, list[Any]]] = [
        {"instruction_embedding": [None, text]},
        {"instruction_embedding": [None]},
    ]
    assert unpacked(batches).tolist() == [[0, 0, 0], [2400, 0, -3200], [0, 0, 0]]
    assert unpacked([{"instruction_embedding": [None, None]}]).shape == (2, 0)
    vectors = WordLlama().embed(["How do I bake bread?"])
    one = unpacked([{"instruction_embedding": [packed(vectors[0].tolist())]}])
    assert (one == whole(vectors)).all()
    assert abs(float(np.linalg.norm(one)) - SCALE) < 16


def test_vectors_of_two_lengths_are_an_error() -> None:
    with pytest.raises(ColumnError) as error:
        unpacked([{"instruction_embedding": [packed([1.0, 0.0]), packed([1.0])]}])

    assert error.value.what == "vectors of 2 and of 1 numbers"


@pytest.mark.parametrize(
    "said",
    [[], [[]], [[0.0, 0.0]], [[1.0, None]], [[1.0], [1.0]], {"error": "?"}, [[1e308, 1e308]]],
)
def test_what_is_no_vector_is_a_fault(said: Json) -> None:
    answer = ask(ScriptedTei(embed=lambda text: said), embedding("Hi"))

    assert answer.failed


@pytest.mark.parametrize(
    ("server", "request_", "what"),
    [
        (ScriptedTei(), embedding("Hi"), "this endpoint scores texts, it embeds none"),
        (
            ScriptedTei(embed=lambda text: [[1.0]]),
            Request(prompt="Hi", sampling=Sampling(), scores=True),
            "this endpoint embeds texts, it scores none",
        ),
        (
            ScriptedTei(embed=lambda text: [[1.0]]),
            Request(prompt="Hi", sampling=Sampling()),
            "this endpoint scores texts, it writes none",
        ),
    ],
)
def test_a_server_is_asked_for_what_its_model_gives(
    server: ScriptedTei, request_: Request, what: str
) -> None:
    with pytest.raises(EndpointError) as error:
        ask(server, request_)

    assert error.value.what == what
    assert server.asked == []


def test_another_model_than_the_recipes_is_refused(tmp_path: Path) -> None:
    other = ScriptedTei(embed=lambda text: [[1.0]], model_id="acme/other")
    with (
        ScriptedTgi().serving() as server,
        other.serving() as tei,
        pytest.raises(BuildError) as error,
    ):
        build(tmp_path / "first", server.url, tei.url, f"{RECORDED}, {NEAREST}")

    assert error.value.what.startswith(f"the endpoint serves acme/other@{REWARD_REVISION}, ")
    assert other.asked == []


def test_the_token_goes_to_the_recipes_embedder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDER_TOKEN", "tei-secret")
    with ScriptedTgi().serving() as server, by_words().serving() as tei:
        endpoint = f"{{url: {tei.url}, token_env: EMBEDDER_TOKEN}}"
        judges = JUDGES["judges"].replace(NOBODY, endpoint)
        folder = tmp_path / "recipe.yaml"
        folder.write_text(recipe_text(columns=f"[length, {RECORDED}, {NEAREST}]", judges=judges))
        options = Options(endpoints=(server.url,), patience=AT_ONCE)
        out = tmp_path / "out"
        Magpie(folder, options=options).download_and_prepare(out, file_format="parquet")

    assert {headers["Authorization"] for headers in tei.headers} == {"Bearer tei-secret"}
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [content for content in written if b"tei-secret" in content]


def test_the_column_that_records_them_must_be_there() -> None:
    with pytest.raises(RecipeError) as error:
        read(recipe_text(columns=f"[length, {NEAREST}]"), "r.yaml")

    assert error.value.what == (
        "the column 'min_neighbor_distance' needs the column 'instruction_embedding', "
        "which is not there"
    )
    assert error.value.fix == "add {instruction_embedding: {judge: NAME}} to columns"


def test_a_rehearsal_embeds_by_itself() -> None:
    recipe = read(recipe_text(columns=f"[length, {RECORDED}, {NEAREST}]", **JUDGES), "r.yaml")

    rehearsed = unjudged(recipe)

    assert [column.name for column in rehearsed.columns] == ["length", "min_neighbor_distance"]
    assert all(column.inputs() == column.reads for column in rehearsed.columns)
    assert rehearsed.judges == {}


SEEN = [
    "How do engines and tides relate?",
    None,
    " ",
    "Could you explain how glass and moths relate, in 3 words?",
]
MODEL_REVISION = f"{MODEL}@{REWARD_REVISION}"


def with_vectors(folder: Path, url: str, named: str) -> Path:
    """Annotate the texts of `SEEN`, and return the Parquet file."""
    folder.mkdir()
    theirs = {"instruction": SEEN, "instruction_embedding": ["theirs"] * len(SEEN)}
    pq.write_table(pa.table(theirs), folder / "given.parquet")
    wish = Wish(str(folder / "given.parquet"), fields={"instruction": "instruction"})
    recipe = {"name": "seen", "version": "1.0.0", "dataset": annotation.pinned(wish)}
    text = f"{yaml.safe_dump(recipe)}columns: [{named}]\njudges: {JUDGES['judges']}\n"
    options = Options(judge_endpoints={"embedder": (url,)}, patience=AT_ONCE)
    out, place = str(folder / "out"), str(folder / "given.parquet")
    annotate(read_annotation(text, "seen.yaml"), out, options, Silent, place)
    (path,) = (folder / "out/seen").glob("*.parquet")
    return path


def test_novelty_is_measured_by_an_endpoints_vectors_against_those_of_a_file(
    tmp_path: Path,
) -> None:
    vector = "{instruction_vector: {judge: embedder}}"
    with ScriptedTgi().serving() as server, by_words().serving() as tei:
        file = with_vectors(tmp_path / "seen", tei.url, f"{RECORDED}, {vector}")
        asked = len(tei.asked)
        seen = pq.read_table(file).to_pylist()
        near = f"{{novelty: {{file: {file}, embedder: instruction_embedding}}}}"
        rows = build(tmp_path / "first", server.url, tei.url, f"{RECORDED}, {near}")
        texts = {one["inputs"] for one in tei.asked[asked:]}
        by_name = f"{{novelty: {{file: {file}}}}}"
        known = build(tmp_path / "second", server.url, NOBODY, by_name, {})

    assert asked == 2  # both columns are told one answer, and an empty text has none
    assert [one["instruction_vector_model"] for one in seen] == [
        MODEL_REVISION,
        None,
        None,
        MODEL_REVISION,
    ]
    assert {one["source_instruction_embedding"] for one in seen} == {"theirs"}
    unit = np.frombuffer(base64.b64decode(seen[0]["instruction_vector"]), "<i2") / SCALE
    assert np.allclose(unit, WordLlama().embed(SEEN[:1])[0], atol=1 / SCALE)
    assert rows == known
    assert {row["novelty_source"] for row in rows} == {f"{file}:1", f"{file}:4"}
    assert texts.isdisjoint(SEEN)


def test_a_filter_on_novelty_waits_for_what_the_endpoint_says(tmp_path: Path) -> None:
    with ScriptedTgi().serving() as server, by_words().serving() as tei:
        file = with_vectors(tmp_path / "seen", tei.url, "{instruction_vector: {judge: embedder}}")
        near = f"{{novelty: {{file: {file}, embedder: instruction_embedding}}}}"
        filtered = JUDGES | {"filters": "[novelty > 0.5, response_chars > 1]"}
        rows = build(tmp_path / "first", server.url, tei.url, f"{RECORDED}, {near}", filtered)

    assert len(rows) == 20
    assert min(row["novelty"] for row in rows) > 0.5


def measured_against(folder: Path, rows: list[Json], **batch: list[Any]) -> Json:
    """Measure `novelty` against a file of these rows, by vectors that were recorded."""
    pq.write_table(pa.Table.from_pylist(rows), folder / "seen.parquet")
    spec = {"novelty": {"file": "seen.parquet", "embedder": "instruction_embedding"}}
    column = columns.load(spec, "r.yaml", folder)
    column.pins()
    given: dict[str, list[Any]] = {
        "id": ["f00d-0", "f00d-1"],
        "instruction": ["a", None],
        "instruction_embedding": [packed([3.0, 4.0]), None],
        "instruction_embedding_model": ["acme/one@1", None],
    }
    return measure([column], given | batch)


def vector(numbers: Any, model: str | None = "acme/one@1") -> Json:
    return {"instruction_vector": numbers, "instruction_vector_model": model}


def test_a_file_may_bring_its_vectors_as_numbers(tmp_path: Path) -> None:
    rows = [vector([0.0, 1.0]), vector([30.0, 40.0]), vector(None, None)]

    assert measured_against(tmp_path, rows) == {
        "novelty": [0.0, None],
        "novelty_source": ["seen.parquet:2", None],
    }
    nobody = {"instruction_embedding": [None, None], "instruction_embedding_model": [None, None]}
    assert measured_against(tmp_path, rows, **nobody)["novelty"] == [None, None]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"instruction": "a"}], "the file has no vector in a field 'instruction_vector'"),
        ([vector(None, None)], "the file has no vector in a field 'instruction_vector'"),
        (
            [vector([1.0, 0.0], None)],
            "row 1 does not say in 'instruction_vector_model' whose its vector is",
        ),
        (
            [vector([1.0, 0.0]), vector([1.0, 0.0], "acme/two@1")],
            "row 2 has a vector of another model or length than those before it",
        ),
        (
            [vector([1.0, 0.0]), vector([1.0])],
            "row 2 has a vector of another model or length than those before it",
        ),
        (
            [vector([1.0, 0.0], "acme/two@1")],
            "the vectors of the file are of 'acme/two@1', ours of 'acme/one@1'",
        ),
        ([vector([1.0, 0.0, 0.0])], "the vectors of the file have 3 numbers, ours 2"),
        (
            [vector("AAAA")],
            "the field 'instruction_vector' of row 1 cannot be read: buffer size must be a "
            "multiple of element size",
        ),
        (
            [vector(base64.b64encode(b"\xff\x7f" * 4).decode())],
            "the field 'instruction_vector' of row 1 cannot be read: '/3//f/9//38=' is no unit "
            "vector",
        ),
        (
            [vector([0.0, 0.0])],
            "the field 'instruction_vector' of row 1 cannot be read: no vector that has a "
            "direction",
        ),
    ],
)
def test_vectors_that_cannot_be_compared_are_refused(
    tmp_path: Path, rows: list[Json], what: str
) -> None:
    with pytest.raises(ColumnError) as error:
        measured_against(tmp_path, rows)

    assert error.value.what == what
    assert error.value.where == str(tmp_path / "seen.parquet")
    assert "{instruction_vector: {judge: NAME}}" in error.value.fix
