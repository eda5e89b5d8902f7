"""How far an instruction is from the most similar other one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from prequery.columns.base import Batch, CorpusColumn, Values

if TYPE_CHECKING:
    from prequery.columns.embedding import WordLlama


@dataclass(frozen=True, kw_only=True)
class MinNeighborDistance(CorpusColumn):
    """Distance from each instruction to the nearest other candidate, and its near-duplicates.

    `min_neighbor_distance` is the squared L2 distance between unit vectors, in [0, 4]: 0 for the
    same text, 2 for unrelated ones; null where the instruction is empty or there is no other.
    `repeat_count` is how many other instructions are nearer than the threshold; null where the
    instruction is empty. `min_similar_id` is the `id` of the first of that group in slot order,
    its own where it is the first; null where `repeat_count` is 0 or null.

    Vectors are rounded to 1/4000 before they are compared, so that a distance is the same to the
    last bit however the work is cut up; see `neighbors.SCALE`. Two texts of the same words in
    another order have distance 0, so `min_neighbor_distance > 0` drops both.

    Args:
        threshold: Squared L2 distance in (0, 4]; 0.05 is a cosine similarity of 0.975.

    Source:
        Magpie, arXiv 2406.08464, and its `exp/gen_dis.py`. We differ: another embedder (theirs is
        all-mpnet-base-v2), and every other instruction counts (theirs stops at the 500 nearest).
    """

    name = "min_neighbor_distance"
    version = 1
    reads = ("id", "instruction")
    features: ClassVar[Mapping[str, str]] = {
        "min_neighbor_distance": "float64",
        "repeat_count": "int64",
        "min_similar_id": "string",
    }
    cost = "weights"

    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 4:
            raise ValueError(f"threshold is {self.threshold}, not over 0 and at most 4")

    def compute(self, batch: Batch) -> Values:
        """Embed every instruction and compare each with all others."""
        import numpy as np

        from prequery.columns.neighbors import nearest

        ids, row_count = batch["id"], len(batch["id"])
        vectors = self._embedder.embed(batch["instruction"])
        measurable = np.flatnonzero(vectors.any(axis=1))
        found = nearest(vectors[measurable], self.threshold)

        distances: list[float | None] = [None] * row_count
        counts: list[int | None] = [None] * row_count
        similar: list[str | None] = [None] * row_count
        for position, row in enumerate(measurable.tolist()):
            counts[row] = int(found.count[position])
            if len(measurable) > 1:
                distances[row] = float(found.distance[position])
            if counts[row]:
                similar[row] = ids[measurable[found.first[position]]]
        return {
            "min_neighbor_distance": distances,
            "repeat_count": counts,
            "min_similar_id": similar,
        }

    def pins(self) -> dict[str, str]:
        """What the embedder is made of."""
        return self._embedder.pins()

    @cached_property
    def _embedder(self) -> "WordLlama":
        from prequery.columns.embedding import WordLlama

        return WordLlama()
