"""Texts of a file that a recipe names: jsonl, parquet, csv or txt."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prequery.errors import ColumnError

SUFFIXES = (".jsonl", ".parquet", ".csv", ".txt")
LINE = "line"
"""The field of a text file: each of its lines."""


def check(name: str) -> None:
    """Refuse a file of another kind.

    Raises:
        ValueError: Its name says that it is none of the four.
    """
    if not name.endswith(SUFFIXES):
        raise ValueError(f"{name!r:.200} is no file of texts: {', '.join(SUFFIXES)}")


def texts(path: Path, field: str) -> Iterator[tuple[int, str]]:
    """Yield the texts of a file with their numbers, from 1; nulls are left out.

    Args:
        path: Of a file that `check` lets pass.
        field: Whose values these are; of a text file `line`.

    Raises:
        ColumnError: The file is not there or is not what its name says, or a row has no such field
            or no text in it.
    """
    for number, row in rows(path):
        if field not in row:
            raise ColumnError(
                f"row {number} has no field {field!r}",
                str(path),
                f"name one that it has: {', '.join(row)[:300] or 'none'}",
            )
        value = row[field]
        if value is not None and not isinstance(value, str):
            what = f"the field {field!r} of row {number} is {value!r:.80}, not a text"
            raise ColumnError(what, str(path), "name a field that holds texts")
        if value is not None:
            yield number, value


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a file with their numbers, from 1.

    Args:
        path: Of a file that `check` lets pass.

    Raises:
        ColumnError: The file is not there or is not what its name says.
    """
    try:
        yield from enumerate(_READERS[path.suffix](path), start=1)
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise ColumnError(what, str(path), "put it there, or correct the recipe") from None
    except (ValueError, csv.Error) as error:
        what = f"the file is not what its name says: {str(error)[:200]}"
        raise ColumnError(what, str(path), "correct the file, or its name") from None


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow.parquet import ParquetFile

    # Opened here, and read in this thread, as `shards` does and for the same reasons.
    with path.open("rb") as file:
        parquet = ParquetFile(file, pre_buffer=False)
        for group in range(parquet.num_row_groups):
            yield from parquet.read_row_group(group, use_threads=False).to_pylist()


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: value for name, value in row.items() if name is not None}


def _txt(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield {LINE: line.rstrip("\n")}


_READERS = {".jsonl": _jsonl, ".parquet": _parquet, ".csv": _csv, ".txt": _txt}
