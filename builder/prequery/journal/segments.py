"""Sealed segments: immutable Parquet files, each the answers of one log to one pass.

One pass in a segment, because then a name tells which slots are held without opening the file,
instructions compress beside instructions, and a reader of responses reads no instruction.

The name carries a SHA-256 of the file. Parquet's own page checksums let 45 of 600 flipped bits
through, so a file is hashed before a byte of it is believed.
"""

import hashlib
import itertools
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from prequery.endpoint import Answer
from prequery.journal.lines import PASSES, Key, Pass

SUFFIX = ".parquet"
# Text of 1,300 bytes takes 11 us at level 6 and 4 us at level 3, for a tenth less in bytes.
ZSTD_LEVEL = 6
# A map of which slots are held may cost so many times what a dense one would.
SPARSE = 64

_NAME = re.compile(
    rf"(?P<fingerprint>[0-9a-f]{{12}})-(?P<made>{'|'.join(PASSES)})-(?P<first>\d+)-(?P<last>\d+)"
    r"-(?P<rows>\d+)-(?P<writer>.+)-(?P<sha256>[0-9a-f]{64})\.parquet"
)
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


def _arrow_type(kind: Any) -> pa.DataType:
    scalars = [k for k in getattr(kind, "__args__", (kind,)) if k is not type(None)]
    return _TYPES[scalars[0]]


_ADDRESS = [("slot", pa.int64()), ("turn", pa.int32()), ("attempt", pa.int32())]
_FIELDS = {field.name: _arrow_type(field.type) for field in msgspec.structs.fields(Answer)}
_SCHEMA = pa.schema([*_ADDRESS, *_FIELDS.items()])
_INTEGERS = [name for name, kind in _FIELDS.items() if kind == pa.int64()]


class DamagedError(Exception):
    """The file is not what its name says."""


@dataclass(slots=True, eq=False)
class Segment:
    """What a segment's name says, and which slots it holds once that is known.

    Args:
        name: Of the file.
        made: The pass of all its answers.
        first: Its lowest slot.
        last: Its highest slot.
        rows: How many answers it holds.
        sha256: Of the file.
        slots: A bit for each slot from `first` on; null while unknown, or where they lie too far
            apart.
        listed: The slots in order, where they lie too far apart; else null.
    """

    name: str
    made: Pass
    first: int
    last: int
    rows: int
    sha256: str
    slots: bytes | None = None
    listed: "array[int] | None" = None

    def may_hold(self, slot: int) -> bool:
        """Say whether the slot can be in it; without opening it, as far as that is known."""
        if not self.first <= slot <= self.last:
            return False
        if self.listed is not None:
            at = bisect_left(self.listed, slot)
            return at < len(self.listed) and self.listed[at] == slot
        at = slot - self.first
        return self.slots is None or bool(self.slots[at >> 3] >> (at & 7) & 1)

    def know(self, keys: Iterable[Key]) -> None:
        """Remember which slots it holds, so that nobody opens it for one that it lacks."""
        width = (self.last - self.first >> 3) + 1
        if width * 8 > SPARSE * self.rows:
            self.listed = array("q", sorted({key.slot for key in keys}))
            return
        bits = bytearray(width)
        for key in keys:
            at = key.slot - self.first
            bits[at >> 3] |= 1 << (at & 7)
        self.slots = bytes(bits)


def parse(name: str, fingerprint: str) -> Segment | None:
    """Return the segment of this name; null when it is no segment of this journal."""
    found = _NAME.fullmatch(name)
    if found is None or found["fingerprint"] != fingerprint[:12]:
        return None
    made = next(one for one in PASSES if one == found["made"])
    first, last, rows = int(found["first"]), int(found["last"]), int(found["rows"])
    return Segment(name, made, first, last, rows, found["sha256"])


def pack(
    answers: Mapping[Key, Answer], made: Pass, fingerprint: str, log: str
) -> tuple[Segment, bytes]:
    """Return the segment of these answers, and its file.

    The same answers of the same log give the same name and bytes, so that sealing a log twice is
    sealing it once.

    Args:
        answers: Of one pass; at least one.
        made: The pass.
        fingerprint: Of the recipe.
        log: Name of the log that they come from, without suffix: who wrote them.
    """
    keys = sorted(answers)
    slots, _, turns, attempts = zip(*keys, strict=True)
    fields = zip(*(msgspec.structs.astuple(answers[key]) for key in keys), strict=True)
    columns = [slots, turns, attempts, *fields]
    table = pa.table(
        [pa.array(values, kind) for values, kind in zip(columns, _SCHEMA.types, strict=True)],
        schema=_SCHEMA,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["finish_reason", "error"],
        write_statistics=["slot"],
        data_page_size=16 << 20,
    )
    data = sink.getvalue().to_pybytes()
    sha256 = hashlib.sha256(data).hexdigest()
    first, last = slots[0], slots[-1]
    span = f"{made}-{first:010d}-{last:010d}-{len(keys):06d}"
    name = f"{fingerprint[:12]}-{span}-{log}-{sha256}{SUFFIX}"
    segment = Segment(name, made, first, last, len(keys), sha256)
    segment.know(keys)
    return segment, data


def unstorable(answer: Answer) -> str | None:
    """Return the field whose number no segment can hold; such an answer would stop every seal."""
    for name in _INTEGERS:
        if abs(getattr(answer, name) or 0) >> 63:
            return name
    return None


def is_whole(segment: Segment, data: bytes) -> bool:
    """Say whether a file is what its name says."""
    return hashlib.sha256(data).hexdigest() == segment.sha256


def unpack(segment: Segment, data: bytes) -> dict[Key, Answer]:
    """Return the answers of a segment's file.

    Raises:
        DamagedError: The file is not what its name says.
    """
    if not is_whole(segment, data):
        raise DamagedError
    # One thread: waking others costs more than decoding a segment does.
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    columns = {name: _values(table[name]) for name in table.column_names if name in _SCHEMA.names}
    slots, turns, attempts = (columns.pop(name) for name, _ in _ADDRESS)
    # A segment from before a field was added lacks it; the field's default stands.
    names = [name for name, values in columns.items() if values is not None]
    rows = zip(*(columns[name] for name in names), strict=True)
    fields = [dict(zip(names, values, strict=True)) for values in rows]
    answers = msgspec.convert(fields, list[Answer])
    made = segment.made
    keys = map(Key._make, zip(slots, itertools.repeat(made), turns, attempts, strict=False))
    return dict(zip(keys, answers, strict=True))


def _values(column: pa.ChunkedArray) -> Any:
    """Return a column as a list; null when every value is null.

    By way of numpy, which is four times as fast where it has a value for everything.
    """
    if column.null_count == len(column):
        return None
    if column.null_count == 0 or pa.types.is_string(column.type):
        return column.to_numpy(zero_copy_only=False).tolist()
    return column.to_pylist()
