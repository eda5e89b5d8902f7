"""Run columns over rows, and hold each to what it declares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from prequery.columns.base import (
    Batch,
    Column,
    CorpusColumn,
    JudgeColumn,
    RowColumn,
    Values,
)
from prequery.errors import ColumnError

_DEFECT = "this is a defect of the column, not of the data: correct its code; the answers are kept"


def measure(columns: Sequence[Column], rows: Batch, batch_size: int = 1000) -> Values:
    """Measure every column over every row.

    Args:
        columns: What to measure. Each is given the fields that it reads and no other.
        rows: All candidate rows in slot order, with `id` and every field that a column reads.
        batch_size: Rows that a `RowColumn` sees at a time, at least 1. It changes no value.

    Returns:
        Field name to one value a row, in the order of the columns and of their features.

    Raises:
        ColumnError: A column reads what is not there, gives what it did not declare, gives a
            field that an earlier column gave, or asks a judge: `read` is for those.
    """
    measured: Values = {}
    for column in columns:
        _refuse_twice(column, measured)
        missing = [name for name in column.reads if name not in rows]
        if missing:
            raise ColumnError(
                f"column {column.name!r} reads {missing[0]!r}, which these rows do not have",
                f"column {column.name!r}",
                f"add that field to the rows; they have: {', '.join(rows)}",
            )
        measured |= _run(column, rows, batch_size)
    return measured


def read(column: JudgeColumn, row_id: str, said: str | None, model: str) -> dict[str, Any]:
    """Return a judge column's values for one row.

    Args:
        column: That asked.
        row_id: Of the row, for errors.
        said: The judge's answer; null: it gave none.
        model: Who said it: model@revision.

    Raises:
        ColumnError: The column gives what it did not declare.
    """
    if said is None:
        return dict.fromkeys(column.features)
    values = column.read(said, model)
    _check(column, {name: [value] for name, value in values.items()}, [row_id])
    return values


def _refuse_twice(column: Column, measured: Mapping[str, Any]) -> None:
    twice = [name for name in column.features if name in measured]
    if twice:
        raise ColumnError(
            f"two columns give the field {twice[0]!r}",
            f"column {column.name!r}",
            "take one of them out of the recipe",
        )


def _run(column: Column, rows: Batch, batch_size: int) -> Values:
    ids = rows["id"]
    values: Values = {name: [] for name in column.features}
    for start, stop, compute in _calls(column, len(ids), batch_size):
        given = compute({name: rows[name][start:stop] for name in column.reads})
        _check(column, given, ids[start:stop])
        for name, collected in values.items():
            collected += given[name]
    return values


def _calls(
    column: Column, row_count: int, batch_size: int
) -> Iterator[tuple[int, int, Callable[[Batch], Values]]]:
    """Yield which rows the column sees together, from and to, and what to call with them."""
    if isinstance(column, CorpusColumn):
        yield 0, row_count, column.compute
    elif isinstance(column, RowColumn):
        for start in range(0, row_count, batch_size):
            yield start, min(start + batch_size, row_count), column.compute
    else:
        raise ColumnError(
            f"column {column.name!r} asks a judge: its answers are read one by one",
            f"column {column.name!r}",
            "call prequery.columns.run.read with the judge's answer",
        )


def _check(column: Column, values: Values, ids: Sequence[str]) -> None:
    """Hold one answer against the declaration: fields, lengths and every value's type."""
    if values.keys() != column.features.keys():
        raise ColumnError(
            f"column {column.name!r} gave the fields {sorted(values)} "
            f"where it declares {sorted(column.features)}",
            f"column {column.name!r}",
            _DEFECT,
        )
    for name, dtype in column.features.items():
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
