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
    from prequery.columns.vectors import Targets, Whole

_FIX = (
    "annotate the reference set with {instruction_vector: {judge: NAME}}, by the model and "
    "revision that instruction_embedding asks, and name the Parquet file of that"
)


@dataclass(frozen=True)
class _Reference:
    """The texts of the file.

    Args:
        numbers: Of their rows.
        targets: Their vectors.
        dim: Numbers in a vector.
        model: model@revision whose vectors the file brings; null: they were made here.
    """

    numbers: list[int]
    targets: "Targets"
    dim: int
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Novelty(RowColumn):
    """Distance from each instruction to the nearest text of a reference file, and which that is.

    `novelty` is the squared L2 distance between unit vectors, in [0, 4]; 0: the same text, or by
    wordllama the same words. `novelty_source` is the first text at that distance, as file:row. Both
    are null where the instruction is empty.

    Every instruction is compared with every text: exact, in time and memory that grow with the
    file, 1 KB a text at 256 dimensions.

    An endpoint's embeddings are compared with vectors that the file brings, of the same model and
    revision: nobody is asked about its texts. The column `instruction_vector` makes such a file of
    any dataset.

    Args:
        file: Reference texts, relative to the recipe: jsonl, parquet, csv, or txt with a text a
            line, whose field is `line`.
        field: That holds a text.
        embedder: `wordllama`, MODEL@REVISION of a sentence-transformers model on the Hub, or
            `instruction_embedding`: what an endpoint gives, by the column of that name. The file
            then has `instruction_vector`, as the column of that name writes it or a list of
            numbers, and `instruction_vector_model`, and `field` is not read.

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

        check(self.embedder, recorded=True)
        reference.check(self.file)

    def reads_files(self) -> tuple[str, ...]:
        """Return the reference file."""
        return (self.file,)

    def inputs(self) -> tuple[str, ...]:
        """Return what it reads, and recorded embeddings where its parameter says so."""
        from prequery.columns.embedder import RECORDED, RECORDED_MODEL

        recorded = (RECORDED, RECORDED_MODEL) if self.embedder == RECORDED else ()
        return (*self.reads, *recorded)

    def compute(self, batch: Batch) -> Values:
        """Embed every instruction and compare it with every text."""
        import numpy as np

        from prequery.columns.vectors import SCALE, squares

        vectors = self._vectors(batch)
        own = squares(vectors).tolist()
        measurable = np.flatnonzero(vectors.any(axis=1))
        distances: list[float | None] = [None] * len(own)
        sources: list[str | None] = [None] * len(own)
        for block, squared in self._reference.targets.blocks(vectors[measurable]):
            nearest = squared.argmin(axis=1).tolist()
            least = squared.min(axis=1).tolist()
            for row, at, distance in zip(measurable[block].tolist(), nearest, least, strict=True):
                distances[row] = (distance + own[row]) / SCALE**2
                sources[row] = f"{self.file}:{self._reference.numbers[at]}"
        return {"novelty": distances, "novelty_source": sources}

    def pins(self) -> dict[str, str]:
        """Hash of the file, which is read by now, before anything is asked; and the embedder's."""
        _ = self._reference
        return self.file_hashes() | (self._embedder.pins() if self._embedder else {})

    def _vectors(self, batch: Batch) -> "Whole":
        """Return the vectors of the instructions.

        Raises:
            ColumnError: They are not of the model whose vectors the file has.
        """
        import numpy as np

        from prequery.columns.embedder import RECORDED_MODEL
        from prequery.columns.vectors import unpacked, whole

        if self._embedder is not None:
            return whole(self._embedder.embed(batch["instruction"]))
        known, place = self._reference, str(self.path(self.file))
        for model in batch[RECORDED_MODEL]:
            if model not in (None, known.model):
                what = (
                    f"the vectors of the file are of {known.model!r:.200}, ours of {model!r:.200}"
                )
                raise ColumnError(what, place, _FIX)
        vectors = unpacked([batch])
        if not vectors.any():
            return np.zeros((len(vectors), known.dim), np.int16)
        if vectors.shape[1] != known.dim:
            what = f"the vectors of the file have {known.dim} numbers, ours {vectors.shape[1]}"
            raise ColumnError(what, place, _FIX)
        return vectors

    @cached_property
    def _reference(self) -> _Reference:
        from prequery.columns.vectors import Targets, whole

        if self._embedder is None:
            return self._recorded()
        found = reference.texts(self.path(self.file), self.field)
        there = [(number, text) for number, text in found if text.strip()]
        if not there:
            what = f"the field {self.field!r} holds no text"
            raise ColumnError(what, str(self.path(self.file)), "name a field that holds texts")
        vectors = whole(self._embedder.embed([text for _, text in there]))
        return _Reference([number for number, _ in there], Targets(vectors), vectors.shape[1])

    def _recorded(self) -> _Reference:
        """Read the vectors that the file brings.

        Raises:
            ColumnError: There is none, or they are not of one model, or not vectors.
        """
        import numpy as np

        from prequery.columns.embedder import VECTOR, VECTOR_MODEL
        from prequery.columns.vectors import Targets, unpacked_one

        path = self.path(self.file)
        numbers, vectors = [], []
        models: set[str] = set()
        for number, row in reference.rows(path):
            if row.get(VECTOR) is None:
                continue
            if not isinstance(row.get(VECTOR_MODEL), str):
                what = f"row {number} does not say in {VECTOR_MODEL!r} whose its vector is"
                raise ColumnError(what, str(path), _FIX)
            try:
                vectors.append(unpacked_one(row[VECTOR]))
            except ValueError as error:
                what = f"the field {VECTOR!r} of row {number} cannot be read: {error}"
                raise ColumnError(what, str(path), _FIX) from None
            numbers.append(number)
            models.add(row[VECTOR_MODEL])
            if len(models) > 1 or len(vectors[-1]) != len(vectors[0]):
                what = f"row {number} has a vector of another model or length than those before it"
                raise ColumnError(what, str(path), _FIX)
        if not vectors:
            raise ColumnError(f"the file has no vector in a field {VECTOR!r}", str(path), _FIX)
        return _Reference(numbers, Targets(np.stack(vectors)), len(vectors[0]), models.pop())

    @cached_property
    def _embedder(self) -> "Embedder | None":
        from prequery.columns.embedder import RECORDED, embedder

        return None if self.embedder == RECORDED else embedder(self.embedder)
