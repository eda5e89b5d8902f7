"""How far an instruction is from the texts of a reference set."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from prequery.columns import reference
from prequery.columns.base import Batch, RowColumn, Values
from prequery.errors import ColumnError

if TYPE_CHECKING:
    from prequery.columns.embedder import Embedder
    from prequery.columns.vectors import Targets


@dataclass(frozen=True, kw_only=True)
class Novelty(RowColumn):
    """Distance from each instruction to the nearest text of a reference file, and which that is.

    `novelty` is the squared L2 distance between unit vectors, in [0, 4]; 0: the same text, or by
    wordllama the same words. `novelty_source` is the first text at that distance, as file:row. Both
    are null where the instruction is empty.

    Every instruction is compared with every text: exact, in time and memory that grow with the
    file, 1 KB a text at 256 dimensions.

    Args:
        file: Reference texts, relative to the recipe: jsonl, parquet, csv, or txt with a text a
            line, whose field is `line`.
        field: That holds a text.
        embedder: `wordllama`, or MODEL@REVISION of a sentence-transformers model on the Hub.

    Source:
        The measure is that of Magpie's minimum neighbor distance, arXiv 2406.08464, against another
        set instead of the rows themselves.
    """

    name = "novelty"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"novelty": "float64", "novelty_source": "string"}
    cost = "weights"

    file: str
    field: str = "instruction"
    embedder: str = "wordllama"

    def __post_init__(self) -> None:
        from prequery.columns.embedder import check

        check(self.embedder)
        reference.check(self.file)

    def reads_files(self) -> tuple[str, ...]:
        """Return the reference file."""
        return (self.file,)

    def compute(self, batch: Batch) -> Values:
        """Embed every instruction and compare it with every text."""
        import numpy as np

        from prequery.columns.vectors import SCALE, squares, whole

        numbers, targets = self._texts
        vectors = whole(self._embedder.embed(batch["instruction"]))
        own = squares(vectors).tolist()
        measurable = np.flatnonzero(vectors.any(axis=1))
        distances: list[float | None] = [None] * len(own)
        sources: list[str | None] = [None] * len(own)
        for block, squared in targets.blocks(vectors[measurable]):
            nearest = squared.argmin(axis=1).tolist()
            least = squared.min(axis=1).tolist()
            for row, at, distance in zip(measurable[block].tolist(), nearest, least, strict=True):
                distances[row] = (distance + own[row]) / SCALE**2
                sources[row] = f"{self.file}:{numbers[at]}"
        return {"novelty": distances, "novelty_source": sources}

    def pins(self) -> dict[str, str]:
        """Hash of the file, which is read by now, before anything is asked; and the embedder's."""
        _ = self._texts
        return self.file_hashes() | self._embedder.pins()

    @cached_property
    def _texts(self) -> "tuple[list[int], Targets]":
        """The texts' numbers in their file, and their vectors."""
        from prequery.columns.vectors import Targets, whole

        found = reference.texts(self.path(self.file), self.field)
        there = [(number, text) for number, text in found if text.strip()]
        if not there:
            what = f"the field {self.field!r} holds no text"
            raise ColumnError(what, str(self.path(self.file)), "name a field that holds texts")
        vectors = self._embedder.embed([text for _, text in there])
        return [number for number, _ in there], Targets(whole(vectors))

    @cached_property
    def _embedder(self) -> "Embedder":
        from prequery.columns.embedder import embedder

        return embedder(self.embedder)
