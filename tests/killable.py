"""A real build in a process of its own."""

import os
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from prequery import Magpie, recipe
from prequery.options import Options
from prequery.simulation import Machine
from prequery.simulation.settings import MODEL, REVISION

ROWS = 80
SLOTS = 16
MACHINES = (Machine(slots=SLOTS, token_s=0.0005, max_concurrent_requests=4 * SLOTS),) * 2
TEXT = f"""
name: killed
version: 1.0.0
rows: {ROWS}
seed: 1
generator: {{model: {MODEL}, revision: '{REVISION}'}}
instructions: [{{temperature: 1.0, max_new_tokens: 256}}]
responses: {{temperature: null, max_new_tokens: 1024}}
columns: [length, likelihood, repetition]
filters: [instruction_words > 3]
endpoint: {{url: 'http://127.0.0.1', concurrency: {2 * SLOTS}}}
"""

# Choices among all rows, made of every slot at the end of whichever builder finishes.
CHOOSING = TEXT.replace(f"rows: {ROWS}", f"rows: {ROWS // 2}\ncandidates: {ROWS}")
TOP = CHOOSING.replace("> 3]", "> 3, {top: {by: response_chars}}]")
BALANCE = CHOOSING.replace(
    "> 3]", "> 3, {balance: {by: response_finish_reason, best: response_chars}}]"
).replace("max_new_tokens: 1024", "max_new_tokens: 400")

PRELOAD = ("prequery.magpie", "prequery.simulation", "aiohttp")
"""What a fork server imports, so that a build starts at once."""


def build(home: Path, urls: list[str], out: Path, text: str) -> None:
    """Build in this process; its output is nobody's."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    os.environ["PREQUERY_HOME"] = str(home)
    options = Options(endpoints=tuple(urls), journal=home / "journal")
    builder = Magpie(recipe.read(text, "killed.yaml"), options=options)
    builder.download_and_prepare(out, file_format="parquet")


def start(
    processes: ForkServerContext, home: Path, urls: list[str], out: Path, text: str = TEXT
) -> ForkServerProcess:
    process = processes.Process(target=build, args=(home, urls, out, text))
    process.start()
    return process
