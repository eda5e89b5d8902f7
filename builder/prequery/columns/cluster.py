"""Which instructions are about the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import TYPE_CHECKING, ClassVar

from prequery.columns.base import Batch, CorpusColumn, Values

if TYPE_CHECKING:
    from prequery.columns.embedder import Embedder


@dataclass(frozen=True, kw_only=True)
class Cluster(CorpusColumn):
    """The cluster that each instruction belongs to, and how far it is from its centre.

    `cluster` is a number from 0, the largest cluster; of two of one size the one with the earlier
    row comes first. `cluster_distance` is the squared L2 distance of unit vectors to the cluster's
    centroid, in [0, 4]. Both are null where the instruction is empty.

    The numbers mean nothing beyond one build: another row may move them all. Centroids are found
    by spherical k-means in whole numbers, the same on every machine; see `centroids`.

    Args:
        clusters: How many at most, 1 to 10,000; fewer where several come out empty. 0 takes the
            square root of the number of instructions.
        embedder: `wordllama`, MODEL@REVISION of a sentence-transformers model on the Hub, or
            `instruction_embedding`: what an endpoint gives, by the column of that name.

    Source:
        Dhillon and Modha, Concept decompositions for large sparse text data using clustering
        (2001), spherical k-means. We differ: it begins at evenly spaced rows instead of random
        ones, takes ten rounds over at most 64 rows a cluster, and rounds to whole numbers.
    """

    name = "cluster"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"cluster": "int32", "cluster_distance": "float64"}
    cost = "weights"

    clusters: int = 0
    embedder: str = "wordllama"

    def __post_init__(self) -> None:
        from prequery.columns.embedder import check

        check(self.embedder, recorded=True)
        if not 0 <= self.clusters <= 10_000:
            raise ValueError(f"clusters is {self.clusters}, not 0 to 10000")

    def compute(self, batches: Iterable[Batch]) -> Values:
        """Embed every instruction, find centroids, and number them by size."""
        import numpy as np

        from prequery.columns.centroids import assign, centroids
        from prequery.columns.vectors import SCALE, embedded

        vectors = embedded(self._embedder, batches)
        measurable = np.flatnonzero(vectors.any(axis=1))
        numbers: list[int | None] = [None] * len(vectors)
        distances: list[float | None] = [None] * len(vectors)
        if len(measurable):
            known = vectors[measurable]
            centres = centroids(known, self.clusters or isqrt(len(known)))
            nearest, squared = assign(known, centres)
            found, first, sizes = np.unique(nearest, return_index=True, return_counts=True)
            rank = np.zeros(len(centres), np.int64)
            rank[found[np.lexsort((first, -sizes))]] = np.arange(len(found))
            for row, number, distance in zip(
                measurable.tolist(), rank[nearest].tolist(), squared.tolist(), strict=True
            ):
                numbers[row], distances[row] = number, distance / SCALE**2
        return {"cluster": numbers, "cluster_distance": distances}

    def inputs(self) -> tuple[str, ...]:
        """Return what it reads, and recorded embeddings where its parameter says so."""
        from prequery.columns.embedder import RECORDED

        return (*self.reads, RECORDED) if self.embedder == RECORDED else self.reads

    def pins(self) -> dict[str, str]:
        """What the embedder is made of; one that is an endpoint is pinned as a judge."""
        return {} if self._embedder is None else self._embedder.pins()

    @cached_property
    def _embedder(self) -> "Embedder | None":
        from prequery.columns.embedder import RECORDED, embedder

        return None if self.embedder == RECORDED else embedder(self.embedder)
