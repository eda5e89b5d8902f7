"""What columns keep between two looks: the same values, and each row worked out once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prequery.columns.base import Batch, CorpusColumn
from prequery.columns.cluster import Cluster
from prequery.columns.embedding import WordLlama
from prequery.columns.kept import Kept
from prequery.columns.min_neighbor_distance import MinNeighborDistance
from prequery.columns.near_duplicate import NearDuplicate
from prequery.columns.neighbors import Begun, nearest, recall
from prequery.columns.run import survey
from prequery.columns.vectors import Whole, whole

WORDS = ["rain", "bread", "tax", "moon", "river", "code", "piano", "goat", "law", "salt"]


def texts(count: int) -> list[str]:
    drawn = np.random.default_rng(5)
    found = [" ".join(drawn.choice(WORDS, drawn.integers(1, 6))) for _ in range(count)]
    found[3::17] = [" "] * len(found[3::17])
    return found


class Batches:
    """Rows on disk, of which there are ever more."""

    def __init__(self, rows: Sequence[str], cut: int) -> None:
        self.rows, self.cut = rows, cut

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows), self.cut):
            here = self.rows[start : start + self.cut]
            ids = [f"a-{start + at}" for at in range(len(here))]
            yield {"id": ids, "instruction": here, "response": here}


@pytest.mark.parametrize("column", [MinNeighborDistance(), Cluster(), NearDuplicate()])
@pytest.mark.parametrize("cuts", [(7, 7, 7), (7, 11, 300)])
def test_looking_at_ever_more_rows_measures_what_one_look_measures(
    column: CorpusColumn, cuts: tuple[int, int, int], tmp_path: Path
) -> None:
    rows, kept = texts(120), Kept(tmp_path)
    for count, cut in zip((0, 40, 41), cuts, strict=True):
        survey([column], Batches(rows[:count], cut), kept)

    found = survey([column], Batches(rows, 13), kept)

    assert found == survey([column], Batches(rows, 13))


@dataclass(frozen=True, kw_only=True)
class Counting(MinNeighborDistance):
    """Notes what it embeds."""

    name = "counting"

    @cached_property
    def _embedder(self) -> Any:
        return Noting()


class Noting(WordLlama):
    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str | None] = []

    def embed(self, given: Sequence[str | None]) -> NDArray[np.float32]:
        self.embedded += given
        return super().embed(given)


def test_a_row_is_embedded_once_however_often_a_build_looks(tmp_path: Path) -> None:
    rows, kept, column = texts(60), Kept(tmp_path), Counting()
    for count in (20, 45, 45, 60):
        survey([column], Batches(rows[:count], 10), kept)

    assert column._embedder.embedded == rows
    assert kept.told == {"counting": {"exact": True, "rows": 56}}


def test_two_columns_of_one_embedder_share_its_work(tmp_path: Path) -> None:
    rows, kept, first, second = texts(30), Kept(tmp_path), Counting(), Counting(threshold=0.2)
    survey([first], Batches(rows, 10), kept)
    survey([second], Batches(rows, 10), kept)

    assert first._embedder.embedded == rows
    assert second._embedder.embedded == []


def drawn(count: int) -> Whole:
    numbers = np.random.default_rng(3).normal(size=(count, 8)).astype(np.float32)
    numbers[count // 2 :: 3] = numbers[0]
    return whole(numbers / np.linalg.norm(numbers, axis=1, keepdims=True))


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_an_exact_search_goes_on_where_it_was(block_rows: int) -> None:
    vectors, begun = drawn(90), Begun()
    for count in (0, 1, 30, 30, 71):
        nearest(vectors[:count], 0.1, block_rows=block_rows, begun=begun)

    found = nearest(vectors, 0.1, block_rows=block_rows, begun=begun)

    whole_search = nearest(vectors, 0.1)
    assert np.array_equal(found.distance, whole_search.distance, equal_nan=True)
    assert np.array_equal(found.count, whole_search.count)
    assert np.array_equal(found.first, whole_search.first)


def test_recall_is_the_share_of_nearest_neighbors_that_were_found() -> None:
    vectors = drawn(400)
    exact = nearest(vectors, 0.1)
    missed = nearest(vectors, 0.1)
    missed.distance[:100] += 1

    assert recall(vectors, exact) == 1.0
    assert recall(vectors, missed) == 0.75
    assert 0.9 < recall(vectors, nearest(vectors, 0.1, exact_rows=10), sample=100) <= 1


def test_a_search_by_buckets_says_so_and_what_it_found(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    survey([MinNeighborDistance(exact_rows=10)], Batches(texts(60), 10), kept)

    told = kept.told["min_neighbor_distance"]
    assert told["exact"] is False
    assert told["rows"] == 56
    assert 0 <= told["recall"] <= 1
