"""Run columns over rows, and hold each to what it declares."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from prequery.columns.base import (
    Batch,
    Column,
    CorpusColumn,
    JudgeColumn,
    RowColumn,
    Said,
    To,
    Values,
)
from prequery.errors import ColumnError

if TYPE_CHECKING:
    from prequery.columns.kept import Kept

_DEFECT = "this is a defect of the column, not of the data: correct its code; the answers are kept"


def measure(columns: Sequence[Column], rows: Batch, batch_size: int = 1000) -> Values:
    """Measure every column over every row.

    Args:
        columns: What to measure. Each is given the fields that it reads and no other.
        rows: All candidate rows in slot order, with `id` and every field that a column reads.
        batch_size: Rows that a column sees at a time, at least 1. It changes no value.

    Returns:
        Field name to one value a row, in the order of the columns and of their features.

    Raises:
        ColumnError: A column reads what is not there, gives what it did not declare, gives a
            field that an earlier column gave, or asks a judge: `conclude` is for those.
    """
    measured: Values = {}
    for column in columns:
        _refuse_twice(column, measured)
        _refuse_missing(column, rows)
        if isinstance(column, CorpusColumn):
            measured |= survey([column], _Cut(rows, batch_size))
        else:
            measured |= _run(column, rows, batch_size)
    return measured


def survey(
    columns: Sequence[CorpusColumn], batches: Iterable[Batch], kept: "Kept | None" = None
) -> Values:
    """Measure what depends on all rows, without holding them.

    Args:
        columns: What to measure. Each is given the fields that it reads and no other.
        batches: All candidate rows in slot order, with `id` and every field that a column reads;
            may be gone through several times.
        kept: What was worked out of the first of these rows before; takes what is now.

    Returns:
        As `measure`.

    Raises:
        ColumnError: As `measure`.
    """
    measured: Values = {}
    ids = [row_id for batch in batches for row_id in batch["id"]]
    for column in columns:
        _refuse_twice(column, measured)
        given = column.compute(_Read(column, batches, kept))
        _check(column, given, ids)
        measured |= {name: given[name] for name in column.gives()}
    return measured


@dataclass(frozen=True)
class _Cut:
    """Rows in batches, as often as they are gone through."""

    rows: Batch
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows["id"]), self.batch_size):
            stop = start + self.batch_size
            yield {name: values[start:stop] for name, values in self.rows.items()}


@dataclass(frozen=True)
class _Read:
    """Batches of the fields that a column reads."""

    column: Column
    batches: Iterable[Batch]
    kept: "Kept | None" = None

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            _refuse_missing(self.column, batch)
            yield {name: batch[name] for name in self.column.inputs()}


def conclude(
    column: JudgeColumn,
    row: Mapping[str, Any],
    row_id: str,
    find: Callable[[To], Said | None],
) -> dict[str, Any]:
    """Return a judge column's values for one row.

    Args:
        column: That asked.
        row: The fields that it reads.
        row_id: Of the row, for errors.
        find: Returns the answer to a question; null: there is none.

    Raises:
        ColumnError: The column gives what it did not declare.
    """
    inquiry = column.inquire(row)
    said: list[Said | None] | None = None
    values: dict[str, Any] | None = None
    while values is None:
        try:
            asked = inquiry.send(said)  # type: ignore[arg-type]
            said = [find(one) for one in asked]
        except StopIteration as concluded:
            values = dict(concluded.value)
    _check(column, {name: [value] for name, value in values.items()}, [row_id])
    return values


def _refuse_twice(column: Column, measured: Mapping[str, Any]) -> None:
    twice = [name for name in column.gives() if name in measured]
    if twice:
        raise ColumnError(
            f"two columns give the field {twice[0]!r}",
            f"column {column.name!r}",
            "take one of them out of the recipe",
        )


def _refuse_missing(column: Column, rows: Batch) -> None:
    missing = [name for name in column.inputs() if name not in rows]
    if missing:
        raise ColumnError(
            f"column {column.name!r} reads {missing[0]!r}, which these rows do not have",
            f"column {column.name!r}",
            f"add that field to the rows; they have: {', '.join(rows)}",
        )


def _run(column: Column, rows: Batch, batch_size: int) -> Values:
    if not isinstance(column, RowColumn):
        raise ColumnError(
            f"column {column.name!r} asks a judge: its answers are read row by row",
            f"column {column.name!r}",
            "call prequery.columns.run.conclude with the judge's answers",
        )
    values: Values = {name: [] for name in column.gives()}
    for batch in _Cut(rows, batch_size):
        given = column.compute({name: batch[name] for name in column.inputs()})
        _check(column, given, batch["id"])
        for name, collected in values.items():
            collected += given[name]
    return values


def _check(column: Column, values: Values, ids: Sequence[str]) -> None:
    """Hold one answer against the declaration: fields, lengths and every value's type."""
    declared = column.gives()
    if values.keys() != declared.keys():
        raise ColumnError(
            f"column {column.name!r} gave the fields {sorted(values)} "
            f"where it declares {sorted(declared)}",
            f"column {column.name!r}",
            _DEFECT,
        )
    for name, dtype in declared.items():
        if len(values[name]) != len(ids):
            raise ColumnError(
                f"column {column.name!r} gave {len(values[name])} values for {len(ids)} rows",
                f"field {name!r}",
                _DEFECT,
            )
        if dtype not in _FITS:
            raise ColumnError(
                f"column {column.name!r} declares the dtype {dtype!r}",
                f"field {name!r}",
                f"declare one of {', '.join(_FITS)}",
            )
        fits = _FITS[dtype]
        for row_id, value in zip(ids, values[name], strict=True):
            if value is not None and not fits(value):
                raise ColumnError(
                    f"column {column.name!r} gave {value!r:.80} where it declares {dtype}",
                    f"field {name!r}, row {row_id!r}",
                    _DEFECT,
                )


# Exact types, because Arrow turns 1.5 into 1 and True into 1 without a word.
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "int32": lambda value: type(value) is int and -(2**31) <= value < 2**31,
    "int64": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "float64": lambda value: type(value) is float and isfinite(value),
    "string[]": lambda value: type(value) is list and all(type(one) is str for one in value),
}
