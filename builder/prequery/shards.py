"""Hand accepted rows over to `datasets`, and name the files it writes.

One part is one shard of the release: where files are cut depends on the rows alone, never on
`num_proc` or on the sizes that a writer measures.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prequery import rows
from prequery.errors import ShardError

ROWS_PER_SHARD = 50_000


def write_parts(
    accepted: Sequence[rows.Row],
    columns: Mapping[str, str],
    folder: Path,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> list[str]:
    """Write accepted rows as Parquet parts, in slot order.

    Args:
        accepted: Complete rows.
        columns: Field name to dtype, of the recipe's columns.
        folder: Emptied first; inside the journal's folder.
        rows_per_shard: At most so many rows in a part.

    Returns:
        Paths of the parts. Each becomes one shard.

    Raises:
        ColumnError: A row does not fit the schema.
        ShardError: The folder cannot be written.
    """
    rows.check(accepted, columns)
    schema = rows.features(columns).arrow_schema
    paths: list[str] = []
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for start in range(0, len(accepted), rows_per_shard):
            table = pa.Table.from_pylist(accepted[start : start + rows_per_shard], schema=schema)
            path = folder / f"part-{len(paths):05d}.parquet"
            pq.write_table(table, path)
            paths.append(str(path))
    except OSError as error:
        raise ShardError(
            f"the accepted rows cannot be written: {error.strerror}",
            str(folder),
            "make room or correct the permissions, then run the same command: nothing is lost",
        ) from None
    return paths


def read_part(path: str) -> pa.Table:
    """Return one part as a table."""
    # Opened here: `datasets` patches pyarrow for its builders so that a path stays open.
    with Path(path).open("rb") as file:
        return pq.read_table(file)


def released_name(split: str, shard: int, shards: int) -> str:
    """Return a shard's name in a release, the one that the Hub's viewer knows."""
    return f"{split}-{shard:05d}-of-{shards:05d}.parquet"
