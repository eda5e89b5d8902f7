"""What the rows of a release say of themselves, measured in one pass over its Parquet files."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b, sha256
from heapq import nsmallest
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SAMPLE_ROWS = 10
MOST_VALUES = 1_000
"""A text field with more different values than this is not counted value by value."""

# Every value of these is meant to differ, so their distribution says nothing.
_UNMEASURED = frozenset(("id", "instruction", "response", "instruction_seed", "response_seed"))

Kind = Literal["number", "values", "unmeasured"]


@dataclass(frozen=True)
class Numbers:
    """The distribution of a field's numbers, nulls left out.

    `median` and `p90` interpolate linearly between the two nearest values.
    """

    minimum: float
    median: float
    mean: float
    p90: float
    maximum: float


@dataclass(frozen=True)
class Field:
    """One field over all rows.

    Args:
        name: Its name.
        kind: `number`; `values`: text or yes/no, counted by value; `unmeasured`: nulls only.
        nulls: Rows without a value.
        numbers: Null for other kinds, and where every row is null.
        values: Value and its rows, most frequent first; `true` and `false` for yes/no. Null for
            other kinds, and for more than `MOST_VALUES` different values.
    """

    name: str
    kind: Kind
    nulls: int
    numbers: Numbers | None = None
    values: tuple[tuple[str, int], ...] | None = None


@dataclass(frozen=True)
class SampleRow:
    """One row to show, whole."""

    id: str
    instruction: str
    response: str


@dataclass(frozen=True)
class Facts:
    """What a card tells of the rows.

    Args:
        rows: Rows in all files.
        num_bytes: Size of the rows in Arrow's memory format, as `datasets` counts it.
        fields: Every field, in the files' order.
        repeated_instructions: Rows whose instruction equals an earlier row's, letter by letter.
        repeated_responses: The same of responses.
        near_duplicates: Rows whose `repeat_count` is over 0; null without that field.
        sample: The `SAMPLE_ROWS` rows with the smallest SHA-256 of their id, in the files' order.
            An id begins with the recipe's fingerprint, so the draw is seeded by it: anybody can
            repeat it, and nobody can choose.
    """

    rows: int
    num_bytes: int
    fields: tuple[Field, ...]
    repeated_instructions: int
    repeated_responses: int
    near_duplicates: int | None
    sample: tuple[SampleRow, ...]

    def tally(self, field: str) -> dict[str, int] | None:
        """Return rows by value, most frequent first; null where the field is not counted so."""
        values = next((f.values for f in self.fields if f.name == field), None)
        return None if values is None else dict(values)


def measure(tables: Iterable[pa.Table]) -> Facts:
    """Measure the rows of a release.

    One table is in memory at a time. Every number, and 8 bytes for every instruction and response,
    waits in a temporary file, so that medians and repeats are exact: 0.1 GB for a million rows of
    the demo's recipe, of which 8 MB are in memory at a time.

    Args:
        tables: The rows in order, with the schema of `rows.features`.
    """
    with ExitStack() as files:
        return _measure(tables, lambda: _Numbers(files.enter_context(TemporaryFile())))


def _measure(tables: Iterable[pa.Table], numbers: Callable[[], "_Numbers"]) -> Facts:
    fields: dict[str, _FieldMeter] = {}
    instructions, responses = _RepeatMeter(numbers()), _RepeatMeter(numbers())
    drawn: list[_Drawn] = []
    row_count = num_bytes = 0
    near_duplicates: int | None = None
    for table in tables:
        for name in table.column_names:
            if name not in fields:
                fields[name] = _FieldMeter(name, numbers())
            fields[name].add(table[name])
        instructions.add(table["instruction"])
        responses.add(table["response"])
        if "repeat_count" in table.column_names:
            near = pc.sum(pc.greater(table["repeat_count"], 0)).as_py() or 0
            near_duplicates = (near_duplicates or 0) + near
        drawn = nsmallest(SAMPLE_ROWS, chain(drawn, _draw(table, row_count)), key=_drawn_order)
        row_count += table.num_rows
        num_bytes += table.nbytes
    return Facts(
        rows=row_count,
        num_bytes=num_bytes,
        fields=tuple(meter.field() for meter in fields.values()),
        repeated_instructions=instructions.repeated(),
        repeated_responses=responses.repeated(),
        near_duplicates=near_duplicates,
        sample=tuple(row for _, _, row in sorted(drawn, key=lambda found: found[1])),
    )


class _Numbers:
    """Numbers of one kind in a temporary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._dtype = np.dtype(np.float64)

    def add(self, numbers: NDArray[Any]) -> None:
        self._dtype = numbers.dtype
        self._file.write(numbers.tobytes())

    def all(self) -> NDArray[Any]:
        self._file.seek(0)
        return np.frombuffer(self._file.read(), dtype=self._dtype)


class _FieldMeter:
    """Gathers one field over the tables."""

    def __init__(self, name: str, numbers: _Numbers) -> None:
        self.name = name
        self.kind: Kind = "unmeasured"
        self.nulls = 0
        self.numbers = numbers
        self.values: Counter[str] | None = Counter()

    def add(self, column: pa.ChunkedArray) -> None:
        self.kind = "unmeasured" if self.name in _UNMEASURED else _kind(column.type)
        self.nulls += column.null_count
        if self.kind == "number":
            self.numbers.add(column.drop_null().to_numpy())
        elif self.kind == "values" and self.values is not None:
            # Yes and no become `true` and `false`.
            counts = column.drop_null().cast(pa.string()).value_counts()
            if len(counts) <= MOST_VALUES:
                self.values.update({e["values"]: e["counts"] for e in counts.to_pylist()})
            if max(len(counts), len(self.values)) > MOST_VALUES:
                self.values = None

    def field(self) -> Field:
        numbers = _describe(self.numbers.all()) if self.kind == "number" else None
        values = None
        if self.kind == "values" and self.values is not None:
            # Ties in alphabetical order, so that the order of rows does not show.
            values = tuple(sorted(self.values.items(), key=lambda item: (-item[1], item[0])))
        return Field(self.name, self.kind, self.nulls, numbers, values)


def _kind(dtype: pa.DataType) -> Kind:
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "number"
    if pa.types.is_boolean(dtype) or pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return "values"
    return "unmeasured"


def _describe(values: NDArray[Any]) -> Numbers | None:
    if not values.size:
        return None
    median, p90 = np.quantile(values, [0.5, 0.9])
    return Numbers(
        minimum=values.min().item(),
        median=float(median),
        mean=float(values.mean()),
        p90=float(p90),
        maximum=values.max().item(),
    )


class _RepeatMeter:
    """Counts texts that came before, by 64-bit hashes: no chance hit in a million is expected."""

    def __init__(self, hashes: _Numbers) -> None:
        self.hashes = hashes

    def add(self, column: pa.ChunkedArray) -> None:
        texts = column.drop_null().to_pylist()
        digests = (blake2b(text.encode(), digest_size=8).digest() for text in texts)
        self.hashes.add(np.frombuffer(b"".join(digests), dtype="<u8"))

    def repeated(self) -> int:
        seen = self.hashes.all()
        return int(seen.size - np.unique(seen).size)


_Drawn = tuple[bytes, int, SampleRow]
"""Hash of the id, position in the release, and the row."""


def _drawn_order(drawn: _Drawn) -> tuple[bytes, int]:
    return drawn[:2]


def _draw(table: pa.Table, start: int) -> list[_Drawn]:
    """Draw from one table; only the drawn rows become Python objects."""
    hashes = (sha256(row_id.encode()).digest() for row_id in table["id"].to_pylist())
    chosen = nsmallest(SAMPLE_ROWS, zip(hashes, range(table.num_rows), strict=True))
    texts = table.select(["id", "instruction", "response"]).take([index for _, index in chosen])
    return [
        (digest, start + index, SampleRow(**row))
        for (digest, index), row in zip(chosen, texts.to_pylist(), strict=True)
    ]
