"""What the rows of a release say of themselves, measured in one pass over its Parquet files."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
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

LANGUAGE_RATIO = 0.01
"""A language is named from this share of the rows on."""
HISTOGRAMS: Mapping[str, bool] = {
    "instruction_tokens": True,
    "response_tokens": True,
    "min_neighbor_distance": False,
}
"""Fields with a histogram, and whether its bins grow with the value."""
BINS = 32
"""At most so many bins of equal width."""
CROSSED = ("difficulty", "input_quality")
"""Two fields whose values are counted together."""

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
class Histogram:
    """How often values fall into bins, nulls left out.

    Args:
        edges: One more than counts, growing. A bin holds its lower edge, the last one both.
        counts: Values in each bin.
        grows: Each bin is wider than the one before, so a picture has a logarithmic axis.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    grows: bool


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
        histogram: Of the fields in `HISTOGRAMS`; null where every row is null.
    """

    name: str
    kind: Kind
    nulls: int
    numbers: Numbers | None = None
    values: tuple[tuple[str, int], ...] | None = None
    histogram: Histogram | None = None


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
        crossed: Values of the two fields in `CROSSED` to their rows; null where one is missing,
            or has more than `MOST_VALUES` pairs with the other.
    """

    rows: int
    num_bytes: int
    fields: tuple[Field, ...]
    repeated_instructions: int
    repeated_responses: int
    near_duplicates: int | None
    sample: tuple[SampleRow, ...]
    crossed: Mapping[tuple[str, str], int] | None = None

    def languages(self) -> tuple[str, ...]:
        """Return ISO codes in the data from `LANGUAGE_RATIO` of the rows on, frequent ones first.

        The Hub refuses anything else than a code.
        """
        return tuple(
            code
            for code, count in (self.tally("language") or {}).items()
            if count >= LANGUAGE_RATIO * self.rows and re.fullmatch("[a-z]{2,3}", code)
        )

    def field(self, name: str) -> Field | None:
        """Return a field by its name; null where there is none."""
        return next((field for field in self.fields if field.name == name), None)

    def tally(self, field: str) -> dict[str, int] | None:
        """Return rows by value, most frequent first; null where the field is not counted so."""
        found = self.field(field)
        return None if found is None or found.values is None else dict(found.values)


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
    crossed = _CrossMeter()
    for table in tables:
        for name in table.column_names:
            if name not in fields:
                fields[name] = _FieldMeter(name, numbers())
            fields[name].add(table[name])
        crossed.add(table)
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
        crossed=crossed.counts,
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
            self.numbers.add(_finite(column.drop_null()).to_numpy())
        elif self.kind == "values" and self.values is not None:
            # Yes and no become `true` and `false`.
            counts = column.drop_null().cast(pa.string()).value_counts()
            if len(counts) <= MOST_VALUES:
                self.values.update({e["values"]: e["counts"] for e in counts.to_pylist()})
            if max(len(counts), len(self.values)) > MOST_VALUES:
                self.values = None

    def field(self) -> Field:
        numbers = histogram = None
        if self.kind == "number":
            found = self.numbers.all()
            numbers = _describe(found)
            if self.name in HISTOGRAMS:
                histogram = _histogram(found, grows=HISTOGRAMS[self.name])
        values = None
        if self.kind == "values" and self.values is not None:
            # Ties in alphabetical order, so that the order of rows does not show.
            values = tuple(sorted(self.values.items(), key=lambda item: (-item[1], item[0])))
        return Field(self.name, self.kind, self.nulls, numbers, values, histogram)


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers without infinity and "not a number", of which no distribution is told."""
    if not pa.types.is_floating(column.type):
        return column
    column = column.cast(pa.float64())
    return column.filter(pc.is_finite(column))


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


def _histogram(values: NDArray[Any], *, grows: bool) -> Histogram | None:
    """Count values in bins whose edges are round numbers, so that a reader can name them."""
    if not values.size or not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    if grows:
        edges = [0.0, 1.0, 2.0]
        while edges[-1] <= high:
            # Two bins to a doubling: 1, 2, 3, 4, 6, 8, 12, 16 ...
            edges += [edges[-1] * 1.5, edges[-1] * 2]
        while len(edges) > 2 and edges[1] <= low:
            del edges[0]
        while len(edges) > 2 and edges[-2] > high:
            del edges[-1]
    else:
        width = _round_up((high - low) / BINS or abs(high) / BINS or 1.0)
        first = math.floor(low / width)
        count = max(1, math.floor(high / width) - first + 1)
        edges = [(first + step) * width for step in range(count + 1)]
    counts, _ = np.histogram(values, bins=np.array(edges))
    return Histogram(tuple(edges), tuple(int(count) for count in counts), grows)


def _round_up(width: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9))


class _CrossMeter:
    """Counts the rows of each pair of values in the two fields of `CROSSED`."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] | None = Counter()

    def add(self, table: pa.Table) -> None:
        if self.counts is None:
            return
        if not set(CROSSED) <= set(table.column_names):
            self.counts = None
            return
        one, other = (table[name].to_pylist() for name in CROSSED)
        pairs = (p for p in zip(one, other, strict=True) if None not in p)
        self.counts.update(pairs)
        if len(self.counts) > MOST_VALUES:
            self.counts = None


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
