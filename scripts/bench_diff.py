#!/usr/bin/env python3
"""What comparing two releases costs: scripts/bench_diff.py [ROWS] prints a table.

Two releases are written into a temporary folder, with a row's real fields and texts of about 1,300
characters: the later one lacks every tenth row, which a filter rejects, has as many new ones at its
end, and a value of every hundredth row is another. Time is that of `versions.compare`, in a process
of its own, and so is the most memory that it had.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prequery import lock, recipe, rows, shards
from prequery.released import open_release
from prequery.versions import compare

WORDS = [f"word{number}" for number in range(5_000)]
MODEL = "{model: acme/bench, revision: '0000000000000000000000000000000000000000'}"


def text(version: str, count: int, filters: str) -> str:
    """Return a recipe."""
    return (
        f"name: bench\nversion: {version}\nrows: {count}\nseed: 1\ngenerator: {MODEL}\n"
        "instructions: [{temperature: 1.0, max_new_tokens: 64}]\nresponses: {max_new_tokens: 512}\n"
        f"columns: [length]\nfilters: {filters}\n"
    )


def made(slots: range, later: bool, fingerprint: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of some slots."""
    for slot in slots:
        if later and slot % 10 == 0:
            continue
        drawn = random.Random(slot)
        said = " ".join(drawn.choices(WORDS, k=12)), " ".join(drawn.choices(WORDS, k=160))
        flat: dict[str, Any] = dict.fromkeys((*rows.FIELDS, "instruction_words", "response_words"))
        yield flat | {
            "id": f"{fingerprint[:12]}-{slot}",
            "messages": rows.messages([said]),
            "instruction": said[0],
            "response": said[1],
            "generator": "acme/bench",
            "turns": 1,
            "instruction_seed": slot + 1,
            "instruction_chars": len(said[0]),
            "response_chars": -1 if later and slot % 100 == 1 else len(said[1]),
            "instruction_tokens": 0 if slot % 10 == 0 else 40,
        }


def write(root: Path, count: int, later: bool) -> None:
    """Write a release."""
    filters = "['instruction_tokens > 0']" if later else "[]"
    held = recipe.read(text("2.0.0" if later else "1.0.0", count, filters), "bench.yaml")
    schema = rows.features(held.dtypes).arrow_schema
    slots = range(count // 9 * 10 if later else count)
    (root / "bench").mkdir(parents=True)
    (root / "bench.yaml").write_text(held.text)
    path, total = root / "bench" / shards.released_name("train", 0, 1), 0
    with pq.ParquetWriter(path, schema) as writer:
        waiting = []
        for row in made(slots, later, held.fingerprint):
            waiting.append(row)
            if len(waiting) == shards.ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                total, waiting = total + len(waiting), []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
            total += len(waiting)
    config = {
        "name": "bench",
        "version": held.version,
        "fingerprint": held.fingerprint,
        "build_hash": held.build_hash,
    }
    build = {"accepted": total, "attempts": len(slots), "rejected": {}}
    files = {f"bench/{path.name}": {"rows": total, "sha256": ""}}
    content = {"config": config, "build": build, "files": files}
    (root / "bench.lock.json").write_text(lock.dump(content))


def measure(root: Path) -> None:
    """Compare the two, and print one line of JSON."""
    began = time.perf_counter()
    changes = compare(open_release(str(root / "one")), open_release(str(root / "two")))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(changes.to_json() | {"seconds": seconds, "peak_mib": peak}))


def main() -> None:
    """Write both, compare in a process of its own, print the figures."""
    if sys.argv[1:2] == ["--measure"]:
        return measure(Path(sys.argv[2]))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "one", count, later=False)
        write(root / "two", count, later=True)
        size = sum(path.stat().st_size for path in root.rglob("*.parquet")) / 2**20
        command = [sys.executable, __file__, "--measure", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    print(
        f"rows            {told['rows'][0]:,} and {told['rows'][1]:,}, {size:,.0f} MiB of Parquet"
    )
    print(f"removed         {told['removed']}")
    print(f"added           {told['added']}")
    print(f"values changed  {told['values']}")
    print(f"time            {told['seconds']:.1f} s")
    print(f"most memory     {told['peak_mib']:,.0f} MiB")
    return None


if __name__ == "__main__":
    main()
