#!/usr/bin/env python3
"""What `prequery annotate` costs: scripts/bench_annotate.py [ROWS ...] prints a Markdown table.

Whole annotations of a Parquet file, from reading to the lock, with columns that see one row and
need no judge. Each is a process of its own; a peak is the most memory that it ever had, with all
imports. The texts are what all rows hold together.
"""

import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from drawn_texts import Texts
from prequery.annotation import Wish, annotate, completed, pinned
from prequery.options import Options
from prequery.progress import Progress
from prequery.recipe import read_annotation

COLUMNS = ["length", "language", "repetition", "format", "refusal", "personal_data"]
GROUP = 1_000
RESPONSES = 3_000


def write(path: Path, rows: int) -> int:
    """Write a file of that many rows, a group at a time; return the bytes of its texts."""
    texts, size = Texts(), 0
    responses = [texts.response() for _ in range(RESPONSES)]
    schema = pa.schema([("instruction", pa.string()), ("response", pa.string())])
    drawn = ([texts.instruction(), responses[n % RESPONSES]] for n in range(rows))
    with pq.ParquetWriter(path, schema) as file:
        while group := list(islice(drawn, GROUP)):
            size += sum(len(text.encode()) for row in group for text in row)
            columns = [pa.array(column) for column in zip(*group, strict=True)]
            file.write_table(pa.table(columns, schema))
    return size


def run(path: str, folder: str) -> None:
    """Annotate a file; print seconds and the peak in MiB."""
    fields = {"instruction": "instruction", "response": "response"}
    head = {"name": "bench", "version": "1.0.0", "dataset": pinned(Wish(path, fields=fields))}
    text = completed("", "bench.yaml", head | {"columns": COLUMNS})
    options = Options(journal=Path(folder) / "journal")
    began = time.perf_counter()
    annotate(read_annotation(text, "bench.yaml"), f"{folder}/out", options, Progress, path)
    seconds = time.perf_counter() - began
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(rows: list[int]) -> None:
    """Print the table."""
    print("| rows | texts, MB | seconds | rows/s | peak, MiB |\n|---:|---:|---:|---:|---:|")
    for count in rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "given.parquet"
            size = write(path, count)
            command = [sys.executable, __file__, "run", str(path), folder]
            told = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            seconds, peak = map(float, told.stdout.split()[-2:])
        print(
            f"| {count:,} | {size / 1e6:,.0f} | {seconds:,.1f} | {count / seconds:,.0f} | "
            f"{peak:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run(*sys.argv[2:])
    else:
        main([int(one) for one in sys.argv[1:]] or [10_000, 100_000])
