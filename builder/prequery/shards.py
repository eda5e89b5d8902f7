"""Write rows as Parquet parts, and name the files of a release.

One part is one shard of the release: where files are cut depends on the rows alone, never on
`num_proc` or on the sizes that a writer measures.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from prequery import rows
from prequery.errors import ShardError
from prequery.journal import home
from prequery.journal.locks import this_host

ROWS_PER_SHARD = 50_000
ROWS_PER_GROUP = 1_000


@dataclass
class Parts:
    """A folder of Parquet parts, written row by row in slot order.

    Args:
        folder: Emptied at the first row.
        schema: Of every part.
        check: Holds rows against their schema, a group at a time. Null: they are written as they
            are.
        rows_per_part: At most so many rows in a part.
    """

    folder: Path
    schema: pa.Schema
    check: Callable[[Sequence[rows.Row]], None] | None = None
    rows_per_part: int = ROWS_PER_SHARD
    count: int = 0
    paths: list[str] = field(default_factory=list)
    _waiting: list[rows.Row] = field(default_factory=list)
    _writer: pq.ParquetWriter | None = None
    _in_part: int = 0

    def append(self, row: rows.Row) -> None:
        """Add a row.

        Raises:
            ColumnError: The row does not fit the schema.
            ShardError: The folder cannot be written.
        """
        self._waiting.append(row)
        self.count += 1
        full = self._in_part + len(self._waiting) >= self.rows_per_part
        if full or len(self._waiting) >= ROWS_PER_GROUP:
            self._write()
        if full:
            self.close()

    def close(self) -> None:
        """Finish the part that is open.

        Raises:
            ColumnError: A row does not fit the schema.
            ShardError: The folder cannot be written.
        """
        self._write()
        if self._writer is not None:
            with _room(self.folder):
                self._writer.close()
            self._writer, self._in_part = None, 0

    def tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of all parts, closed, a row group at a time; of some fields or of all."""
        self.close()
        for path in self.paths:
            yield from read_part(path, names)

    def _write(self) -> None:
        if not self._waiting:
            return
        if self.check is not None:
            self.check(self._waiting)
        table = pa.Table.from_pylist(self._waiting, schema=self.schema)
        with _room(self.folder):
            if self._writer is None:
                self._open()
            assert self._writer is not None
            self._writer.write_table(table)
        self._in_part += len(self._waiting)
        self._waiting = []

    def _open(self) -> None:
        if not self.paths:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        path = self.folder / f"part-{len(self.paths):05d}.parquet"
        self._writer = pq.ParquetWriter(path, self.schema)
        self.paths.append(str(path))


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield a folder of this process alone; those of this machine's dead ones are cleared away.

    Raises:
        ShardError: It cannot be made.
    """
    # A home may be shared by machines, and a process id means something on its own one only.
    root = home() / "work" / this_host()
    with _room(root):
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.iterdir():
            pid = stale.name.partition("-")[0]
            if pid.isdigit() and not _is_running(int(pid)):
                shutil.rmtree(stale, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=root)
    with folder as name:
        yield Path(name)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    return True


def read_part(path: str, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield one part, a row group at a time; of some fields or of all."""
    # Opened here: `datasets` patches pyarrow for its builders so that a path stays open.
    with Path(path).open("rb") as file:
        yield from read(file, names)


def read(file: IO[bytes], names: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield a Parquet file a row group at a time, read in this thread.

    A shard of 50,000 rows is some 300 MB in memory, as often as somebody holds it.

    pyarrow's thread pools are not joined when a process ends: 2 of 43 command lines that had used
    them aborted behind their last line (pyarrow 26).
    """
    parquet = pq.ParquetFile(file, pre_buffer=False)
    for group in range(parquet.num_row_groups):
        yield parquet.read_row_group(group, columns=names, use_threads=False)


def rows_sha256(tables: Iterable[pa.Table]) -> str:
    """Return the SHA-256 of rows in their order, in hexadecimal: whatever files they stand in.

    A row is one line of JSON with sorted keys, so that neither shards nor compression nor the
    version of a Parquet writer have a say. What JSON has no form for is written as its text: a
    dataset that was annotated may have nanoseconds.
    """
    digest = hashlib.sha256()
    encode = msgspec.json.Encoder(order="sorted", enc_hook=str).encode
    for table in tables:
        for row in table.to_pylist():
            digest.update(encode(row))
            digest.update(b"\n")
    return digest.hexdigest()


def released_name(split: str, shard: int, shards: int) -> str:
    """Return a shard's name in a release, the one that the Hub's viewer knows."""
    return f"{split}-{shard:05d}-of-{shards:05d}.parquet"


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Name what went wrong when there is no room for rows."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"the rows cannot be written: {error.strerror or error}",
            str(folder),
            "make room or correct the permissions, then run the same command: nothing is lost",
        ) from None
