"""How far an instruction is from the most similar other one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from prequery.columns.base import Batch, CorpusColumn, Values

if TYPE_CHECKING:
    from prequery.columns.embedder import Embedder


@dataclass(frozen=True, kw_only=True)
class MinNeighborDistance(CorpusColumn):
    """Distance from each instruction to the nearest other candidate, and its near-duplicates.

    `min_neighbor_distance` is the squared L2 distance between unit vectors, in [0, 4]: 0 for the
    same text, 2 for unrelated ones; null where the instruction is empty or there is no other.
    `repeat_count` is how many other instructions are nearer than the threshold; null where the
    instruction is empty. `min_similar_id` is the `id` of the first of that group in slot order,
    its own where it is the first; null where `repeat_count` is 0 or null.

    Vectors are rounded to 1/4000 before they are compared, so that a distance is the same to the
    last bit however the work is cut up; see `vectors.SCALE`. By wordllama two texts of the same
    words in another order have distance 0, so `min_neighbor_distance > 0` drops both.

    Up to `exact_rows` candidates every instruction is compared with every other. Above, each is
    compared with those in the 64 of 2 sqrt(rows) buckets that are nearest to it: equal texts always
    meet, but a nearest neighbour may be missed, and the distance is then that of a farther one. How
    many are missed is in the README.

    Args:
        threshold: Squared L2 distance in (0, 4]; 0.05 is a cosine similarity of 0.975.
        embedder: `wordllama`, MODEL@REVISION of a sentence-transformers model on the Hub, or
            `instruction_embedding`: what an endpoint gives, by the column of that name.
        exact_rows: Candidates up to which the search is exact; its time grows with the square.

    Source:
        Magpie, arXiv 2406.08464, and its `exp/gen_dis.py`. We differ: another embedder (theirs is
        all-mpnet-base-v2), every other instruction counts (theirs stops at the 500 nearest), and
        the search for many is an own one that gives the same on every machine (theirs is faiss).
    """

    name = "min_neighbor_distance"
    version = 2
    reads = ("id", "instruction")
    features: ClassVar[Mapping[str, str]] = {
        "min_neighbor_distance": "float64",
        "repeat_count": "int64",
        "min_similar_id": "string",
    }
    cost = "weights"

    threshold: float = 0.05
    embedder: str = "wordllama"
    exact_rows: int = 100_000

    def __post_init__(self) -> None:
        from prequery.columns.embedder import check

        check(self.embedder, recorded=True)
        if self.exact_rows < 0:
            raise ValueError(f"exact_rows is {self.exact_rows}, not 0 or more")
        if not 0 < self.threshold <= 4:
            raise ValueError(f"threshold is {self.threshold}, not over 0 and at most 4")

    def compute(self, batches: Iterable[Batch]) -> Values:
        """Embed every instruction and compare each with all others."""
        import numpy as np

        from prequery.columns.kept import kept_by
        from prequery.columns.neighbors import Begun, nearest, recall
        from prequery.columns.vectors import embedded

        ids: list[str] = [row_id for batch in batches for row_id in batch["id"]]
        vectors, row_count = embedded(self._embedder, batches), len(ids)
        measurable = np.flatnonzero(vectors.any(axis=1))
        known, kept = vectors[measurable], kept_by(batches)
        begun = kept.state(f"neighbors {self.fingerprint()}", Begun) if kept else None
        found = nearest(known, self.threshold, self.exact_rows, begun=begun)
        if kept:
            is_exact = len(known) <= self.exact_rows
            # A build looks again while rows are missing; what is told is of its last look.
            shares = {} if is_exact else {"recall": recall(known, found)}
            kept.told[self.name] = {"exact": is_exact, "rows": len(known), **shares}

        distances: list[float | None] = [None] * row_count
        counts: list[int | None] = [None] * row_count
        similar: list[str | None] = [None] * row_count
        for position, row in enumerate(measurable.tolist()):
            counts[row] = int(found.count[position])
            if not np.isnan(found.distance[position]):
                distances[row] = float(found.distance[position])
            if counts[row]:
                similar[row] = ids[measurable[found.first[position]]]
        return {
            "min_neighbor_distance": distances,
            "repeat_count": counts,
            "min_similar_id": similar,
        }

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
