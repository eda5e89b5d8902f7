#!/usr/bin/env python3
"""What columns cost: scripts/bench_columns.py [ROWS ...] [COLUMN ...] prints a Markdown table.

Rows come a thousand at a time, as in a build: an instruction that no other row has, and one of
3,000 responses. Every line is a process of its own. Time is that of the column alone, CPU of all
its threads; a peak is what measuring added to the process that had imported everything and drawn
the responses, with a column's model and, of those that see every row, with what they keep of each.
Of a column that asks a judge it is what the column itself does, asking and reading: the answers are
at hand, as in a build from its journal, and what an endpoint takes comes on top.

scripts/bench_columns.py looks [ROWS] [COLUMN ...]: a build looks again and again at ever more rows,
here at 1/2, 3/4, 7/8 ... of them, as it does where filters over all rows reject half. What is
worked out of single rows is done anew at each look, or kept.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  a build has it in memory, whatever its columns

from drawn_texts import Texts
from prequery import columns
from prequery.columns.base import (
    Batch,
    Column,
    Continuation,
    CorpusColumn,
    Embed,
    JudgeColumn,
    Prompt,
    Question,
    Reading,
    RowColumn,
    Said,
    Score,
    To,
)
from prequery.columns.kept import Kept
from prequery.columns.run import conclude, survey
from prequery.columns.vectors import packed

BATCH = 1_000
RESPONSES = 3_000
ITEMS = 1_319  # of a benchmark or reference, as many as GSM8K tests with


class Rows:
    """Batches of rows, drawn anew each time they are gone through."""

    def __init__(self, count: int) -> None:
        self._count = count
        texts = Texts()
        self._responses = [texts.response() for _ in range(RESPONSES)]
        self.drawing_s, self.drawing_cpu_s = 0.0, 0.0

    def __iter__(self) -> Iterator[Batch]:
        texts = Texts()
        for start in range(0, self._count, BATCH):
            wall, cpu = time.perf_counter(), time.process_time()
            batch = self._batch(texts, range(start, min(start + BATCH, self._count)))
            self.drawing_s += time.perf_counter() - wall
            self.drawing_cpu_s += time.process_time() - cpu
            yield batch

    def _batch(self, texts: Texts, slots: range) -> dict[str, list[Any]]:
        instructions = [texts.instruction() for _ in slots]
        responses = [self._responses[slot % RESPONSES] for slot in slots]
        batch: dict[str, list[Any]] = {
            "id": [f"{'a' * 12}-{slot}" for slot in slots],
            "instruction": instructions,
            "response": responses,
        }
        for name in ("instruction", "response"):
            counts = [len(text) // 4 for text in batch[name]]
            batch[f"{name}_logprob_count"] = counts
            batch[f"{name}_logprob_sum"] = [-0.5 * count for count in counts]
            batch[f"{name}_logprob_squares"] = [0.7 * count for count in counts]
            batch[f"{name}_logprob_lowest"] = [-9.0 for _ in counts]
        return batch


def made(name: str, folder: Path) -> Column:
    """Return a column with its defaults, and with a benchmark or reference where it needs one."""
    texts, path = Texts(), folder / "items.jsonl"
    items = [json.dumps({"instruction": texts.response()[:240]}) for _ in range(ITEMS)]
    path.write_text("\n".join(items))
    judge = {"judge": "j"} if issubclass(columns.available()[name], JudgeColumn) else {}
    needed: dict[str, dict[str, Any]] = {
        "reward_difference": {"base": "b"},
        "contamination": {"files": {str(path): "instruction"}},
        "novelty": {"file": str(path)},
    }
    return columns.load({name: judge | needed.get(name, {})}, "bench")


def peak_mb() -> float:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, count: int) -> dict[str, float]:
    """Measure one column over so many rows; of the values nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        column, rows = made(name, Path(folder)), Rows(count)
        next(iter(rows))
        rows.drawing_s, rows.drawing_cpu_s = 0.0, 0.0
        before_mb, wall, cpu = peak_mb(), time.perf_counter(), time.process_time()
        if isinstance(column, CorpusColumn):
            column.compute(Read(column, rows))
        elif isinstance(column, RowColumn):
            for batch in Read(column, rows):
                column.compute(batch)
        elif isinstance(column, JudgeColumn):
            for batch in Read(column, rows):
                for values in zip(*batch.values(), strict=True):
                    conclude(column, dict(zip(batch, values, strict=True)), "row", answer)
    return {
        "seconds": time.perf_counter() - wall - rows.drawing_s,
        "cpu_s": time.process_time() - cpu - rows.drawing_cpu_s,
        "peak_mb": peak_mb() - before_mb,
    }


VECTOR = packed([1.0] * 768)
ANSWERS: dict[type[Question], Said] = {
    Score: Said('[{"score": 1.5, "label": "LABEL_0"}]', "m@r"),
    Prompt: Said('{"input_quality": "good", "quality_explanation": "It is clear."}', "m@r"),
    Reading: Said("", "m@r", -200.0, 180),
    Continuation: Said("An answer of some length. " * 40, "m@r"),
    Embed: Said(VECTOR, "m@r"),
}


def answer(to: To) -> Said:
    """Return a judge's answer to a question of this kind."""
    return ANSWERS[type(to.question)]


class Read:
    """Batches of the fields that a column reads."""

    def __init__(self, column: Column, rows: Rows) -> None:
        self._column, self._rows = column, rows

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._rows:
            yield {name: batch[name] for name in self._column.inputs()}


def looked(name: str, count: int, keeps: bool) -> dict[str, float]:
    """Measure a column at every look of a build that ends with so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        column, kept = made(name, Path(folder)), Kept(Path(folder, "kept")) if keeps else None
        assert isinstance(column, CorpusColumn)
        before_mb, taken_s = peak_mb(), 0.0
        for rows in looks(count):
            drawn = Rows(rows)
            next(iter(drawn))
            drawn.drawing_s, start = 0.0, time.perf_counter()
            survey([column], drawn, kept)
            taken_s += time.perf_counter() - start - drawn.drawing_s
    return {"seconds": taken_s, "peak_mb": peak_mb() - before_mb}


def looks(count: int) -> list[int]:
    """Return at how many rows a build looks: what is missing halves, down to a window's rows."""
    missing, found = count // 2, []
    while missing > count // 256:
        found.append(count - missing)
        missing //= 2
    return [*found, count]


def compare_looks(count: int, names: list[str]) -> None:
    """Print what all looks of a build take, anew and kept, beside a single look."""
    print("| column | rows | looks | anew s | kept s | peak anew | kept |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        anew, kept = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "looked", name, str(count), keeps],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout
            )
            for keeps in ("", "kept")
        )
        print(
            f"| `{name}` | {count:,} | {len(looks(count))} | {anew['seconds']:,.1f} "
            f"| {kept['seconds']:,.1f} | +{anew['peak_mb']:,.0f} MB | +{kept['peak_mb']:,.0f} MB |",
            flush=True,
        )


def main(counts: list[int], names: list[str]) -> None:
    """Print the table."""
    print("| column | rows | rows/s | CPU a row | peak |")
    print("|---|---|---|---|---|")
    for name in names:
        for count in counts:
            command = [sys.executable, __file__, "measure", name, str(count)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            print(
                f"| `{name}` | {count:,} | {count / found['seconds']:,.0f} "
                f"| {found['cpu_s'] / count * 1e6:,.0f} us | +{found['peak_mb']:,.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    corpus = [kind.name for kind in columns.ALL if issubclass(kind, CorpusColumn)]
    if sys.argv[1:2] == ["looked"]:
        print(json.dumps(looked(sys.argv[2], int(sys.argv[3]), bool(sys.argv[4]))))
    elif sys.argv[1:2] == ["looks"]:
        given = sys.argv[2:]
        sizes = [int(word) for word in given if word.isdigit()] or [20_000]
        for size in sizes:
            compare_looks(size, [word for word in given if not word.isdigit()] or corpus)
    elif sys.argv[1:2] == ["measure"]:
        print(json.dumps(measured(sys.argv[2], int(sys.argv[3]))))
    else:
        given = sys.argv[1:]
        all_names = [kind.name for kind in columns.ALL]
        main(
            [int(word) for word in given if word.isdigit()] or [10_000, 100_000],
            [word for word in given if not word.isdigit()] or all_names,
        )
