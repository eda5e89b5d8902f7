"""Unit vectors as whole numbers, so that what is computed from them is exact."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from prequery.columns.base import Batch
from prequery.columns.embedder import RECORDED, Embedder
from prequery.columns.kept import worked_out
from prequery.errors import ColumnError

# Vectors are rounded to whole numbers of this length. A product of two is then below 2**24, up
# to which float32 counts without rounding: the fast matrix product is exact in any order of
# adding, so block size, threads and BLAS library cannot change a distance. Twice the product is
# even, and so exact up to 2**25. A distance of 0.05 moves by less than 0.0003.
SCALE = 4000
_BLOCK_ENTRIES = 2**22
MOST_DIMENSIONS = 30_000

Whole = NDArray[np.int16]
"""Shape (rows, dim): vectors of length `SCALE`, rounded; all 0 where there is no text."""


def whole(vectors: NDArray[np.float32]) -> Whole:
    """Round vectors of length 1, or 0, to whole numbers.

    Args:
        vectors: Shape (rows, dim), dim at most `MOST_DIMENSIONS`.
    """
    rounded: Whole = np.rint(vectors * np.float32(SCALE)).astype(np.int16)
    return rounded


def squares(vectors: Whole) -> NDArray[np.int32]:
    """Return the squared length of each vector."""
    squared: NDArray[np.int32] = np.einsum("ij,ij->i", vectors, vectors, dtype=np.int32)
    return squared


class Targets:
    """Vectors that others are compared with.

    Args:
        vectors: At least one.
    """

    def __init__(self, vectors: Whole) -> None:
        self._doubled = (vectors.astype(np.float32) * -2).T
        self._squares = squares(vectors)

    def compare(self, others: Whole) -> NDArray[np.int32]:
        """Return each one's squared distance to each target, less its own square.

        Returns:
            Shape (others, targets), in units of 1 / `SCALE` ** 2.
        """
        distance: NDArray[np.int32] = (others.astype(np.float32) @ self._doubled).astype(np.int32)
        distance += self._squares
        return distance

    def blocks(
        self, others: Whole, block_rows: int | None = None
    ) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """Yield which of the others, and `compare` of these; a block's tables are 32 MiB."""
        step = block_rows or max(1, _BLOCK_ENTRIES // len(self._squares))
        for start in range(0, len(others), step):
            block = slice(start, min(start + step, len(others)))
            yield block, self.compare(others[block])


def embed_all(embedder: Embedder, batches: Iterable[Batch], field: str) -> Whole:
    """Embed one field of all rows; memory holds the texts of one batch, and 2 bytes a number.

    Where the batches keep what is worked out, rows that were embedded before are not once more.
    """
    made_of = json.dumps([field, embedder.dim, embedder.pins()], sort_keys=True)

    def work(batch: Batch) -> Whole:
        texts: Sequence[str | None] = batch[field]
        return whole(embedder.embed(texts))

    vectors: Whole = worked_out(f"vectors {made_of}", batches, work)
    return vectors if len(vectors) else np.zeros((0, embedder.dim), np.int16)


def embedded(embedder: Embedder | None, batches: Iterable[Batch]) -> Whole:
    """Return the vectors of all instructions.

    Args:
        embedder: Makes them; null: they were recorded, by the column `instruction_embedding`.
        batches: As of a `CorpusColumn`.
    """
    return unpacked(batches) if embedder is None else embed_all(embedder, batches, "instruction")


def packed(vector: Sequence[float]) -> str:
    """Write a vector down as text: its whole numbers, 16 bits each, low byte first, in base64.

    Args:
        vector: 1 to 30,000 numbers; it is brought to length 1.

    Raises:
        ValueError: It has no direction, or too many numbers.
    """
    numbers = np.array(vector, dtype=np.float64)
    with np.errstate(over="ignore"):
        length = float(np.linalg.norm(numbers))
    if not 0 < length < np.inf or len(numbers) > MOST_DIMENSIONS:
        raise ValueError("no vector that has a direction")
    unit = (numbers / length).astype(np.float32)
    return base64.b64encode(whole(unit).astype("<i2").tobytes()).decode()


def unpacked_one(written: object) -> Whole:
    """Return one vector, shape (dim,), that a file has as `packed` or as a list of numbers.

    Raises:
        ValueError: It is neither, or no unit vector.
    """
    if not isinstance(written, str):
        if not isinstance(written, list) or not all(isinstance(x, float | int) for x in written):
            raise ValueError(f"{written!r:.80} is no vector")
        written = packed(written)
    vector = np.frombuffer(base64.b64decode(written, validate=True), dtype="<i2")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    # Rounding moves each number by a half at most. A longer one would make products inexact.
    if not len(vector) or abs(length - SCALE) > len(vector) ** 0.5 / 2 + 1:
        raise ValueError(f"{written!r:.80} is no unit vector")
    return vector.astype(np.int16)


def unpacked(batches: Iterable[Batch]) -> Whole:
    """Return recorded vectors; memory holds the texts of one batch, and 2 bytes a number.

    Raises:
        ColumnError: They are not all of the same number of dimensions.
    """
    rows = sum(len(batch[RECORDED]) for batch in batches)
    vectors, row = np.zeros((rows, 0), dtype=np.int16), 0
    for batch in batches:
        for text in batch[RECORDED]:
            if text is not None:
                vector = np.frombuffer(base64.b64decode(text), dtype="<i2")
                if not vectors.shape[1]:
                    vectors = np.zeros((rows, len(vector)), dtype=np.int16)
                if len(vector) != vectors.shape[1]:
                    what = f"vectors of {vectors.shape[1]} and of {len(vector)} numbers"
                    fix = "serve one embedding model and its revision, and start a new journal"
                    raise ColumnError(what, f"column {RECORDED!r}", fix)
                vectors[row] = vector
            row += 1
    return vectors
