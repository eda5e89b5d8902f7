#!/usr/bin/env python3
"""Count the bytes that an upload sends after rows were appended: scripts/bench_upload.py [ROWS].

Builds ROWS rows and a tenth more against a scripted endpoint, uploads both to the Hub of the tests,
each from a process with caches of its own, over LFS and over xet, and prints what was sent. It
needs a checkout: the Hub is in tests/.
"""

import hashlib
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPO = "acme/rows"
UPLOAD = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
operation = CommitOperationAdd(sys.argv[1], sys.argv[2])
HfApi().create_commit("acme/rows", [operation], repo_type="dataset", commit_message="rows")
"""
VOCABULARY = [hashlib.sha256(str(n).encode()).hexdigest()[:6] for n in range(5000)]


def say(prompt: str, seed: int | None) -> str:
    """Write an instruction of some 50 words, or a response of some 100, that compress little."""
    draw = random.Random(f"{prompt}|{seed}")
    count = 40 if prompt.endswith("<|im_start|>user\n") else 90
    return f"Could you explain {' '.join(draw.choice(VOCABULARY) for _ in range(count))}?"


def build(work: Path, rows: int) -> Path:
    """Build so many rows, and return their one file of Parquet."""
    from prequery import Magpie
    from prequery.options import Options
    from scripted_tgi import ScriptedTgi, recipe_text

    recipe = work / f"{rows}.yaml"
    recipe.write_text(recipe_text(rows, responses="{temperature: null, max_new_tokens: 512}"))
    with ScriptedTgi(say=say).serving() as server:
        builder = Magpie(recipe, options=Options(endpoints=(server.url,)))
        builder.download_and_prepare(work / str(rows), file_format="parquet")
    (shard,) = (work / str(rows)).glob("scripted/*.parquet")
    return shard


def main(rows: int) -> None:
    """Build, upload, print."""
    from hub import Hub

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["PREQUERY_HOME"] = str(work / "home")
        shards = [build(work, rows), build(work, rows + rows // 10)]
        for way in ("lfs", "xet"):
            with Hub().serving() as hub:
                hub.api().create_repo(REPO, repo_type="dataset")
                for number, shard in enumerate(shards):
                    before, home = len(hub.calls), work / f"{way}{number}"
                    subprocess.run(
                        [sys.executable, "-c", UPLOAD, shard.name, str(shard)],
                        env={**os.environ, **hub.environment(home, xet=way == "xet")},
                        check=True,
                        capture_output=True,
                    )
                    size, sent = shard.stat().st_size, hub.received(since=before)
                    print(f"{way}: {size:,} bytes of Parquet, {sent:,} sent")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6000)
