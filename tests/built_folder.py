"""Output folders as a build leaves them, made from rows: no endpoint, no model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import config
from fsspec.implementations.local import LocalFileSystem

from prequery import lock, recipe, rows, shards
from prequery.endpoint import Info
from prequery.folder import Folder
from prequery.prefix import Prefix
from prequery.recipe import Recipe
from prequery.selection import Selection
from prequery.voices import Voice, Voices

PREFIX = Prefix(
    text="<|im_start|>user\n",
    suffix="<|im_end|>\n<|im_start|>assistant\n",
    ids=(1, 4093, 198),
    system_prompt="",
    stop=("<|im_end|>",),
    bos="the endpoint adds no token of its own",
)


@dataclass(frozen=True)
class Wanted:
    """What a folder is to hold: the same arguments give the same bytes."""

    name: str = "chat"
    version: str = "1.0.0"
    rows: int = 12
    rows_per_shard: int = 4
    words: str = "What is {} and one?"
    columns: str = "[length]"
    more: str = ""
    texts: Callable[[int], tuple[str, str]] | None = None
    seconds: int | None = 3600

    @property
    def recipe_text(self) -> str:
        return (
            f"name: {self.name}\nversion: {self.version}\nrows: {self.rows}\nseed: 7\n"
            "generator: {model: acme/model, revision: " + "ab" * 20 + "}\n"
            "instructions:\n  - {temperature: 0.8, top_p: 0.95, max_new_tokens: 256}\n"
            f"responses: {{max_new_tokens: 512}}\ncolumns: {self.columns}\n"
            f"release: {{license: apache-2.0}}\nendpoint: http://127.0.0.1:9\n{self.more}"
        )


def row(built: Recipe, wanted: Wanted, slot: int) -> dict[str, Any]:
    if wanted.texts:
        instruction, response = wanted.texts(slot)
    else:
        instruction, response = wanted.words.format(slot), f"It is {slot + 1}, of course."
    filled: dict[str, Any] = dict.fromkeys(rows.features(built.dtypes, built.shape))
    return filled | {
        "id": f"{built.fingerprint[:12]}-{slot}",
        "messages": rows.messages([(instruction, response)]),
        "instruction": instruction,
        "response": response,
        "generator": f"{built.generator.model}@{built.generator.revision}",
        "responder": f"{built.generator.model}@{built.generator.revision}",
        "turns": 1,
        "instruction_temperature": 0.8,
        "instruction_top_p": 0.95,
        "instruction_seed": 1 + slot,
        "instruction_tokens": 7,
        "response_tokens": 9,
        "instruction_finish_reason": "eos_token",
        "response_finish_reason": "eos_token",
        "instruction_chars": len(instruction),
        "instruction_words": len(instruction.split()),
        "response_chars": len(response),
        "response_words": len(response.split()),
    }


def build(out: Path, wanted: Wanted, checks: dict[str, Any] | None = None) -> Path:
    """Write a finished output folder, as `prequery build` does, and return it.

    Args:
        out: Where.
        wanted: What it holds.
        checks: What the lock says of judges.
    """
    built = recipe.read(wanted.recipe_text, str(out / f"{wanted.name}.yaml"))
    schema = rows.features(built.dtypes, built.shape).arrow_schema
    count = -(-wanted.rows // wanted.rows_per_shard)
    (out / wanted.name).mkdir(parents=True)
    for shard in range(count):
        slots = range(
            shard * wanted.rows_per_shard, min((shard + 1) * wanted.rows_per_shard, wanted.rows)
        )
        table = pa.Table.from_pylist([row(built, wanted, slot) for slot in slots], schema=schema)
        name = shards.released_name("train", shard, count)
        # As `datasets` writes: a change in the middle leaves the bytes around it as they were.
        pq.write_table(
            table,
            out / wanted.name / name,
            row_group_size=shards.ROWS_PER_GROUP,
            use_content_defined_chunking=config.DEFAULT_CDC_OPTIONS,
            write_page_index=True,
        )
    info = Info(
        model_id=built.generator.model,
        max_concurrent_requests=64,
        max_input_tokens=1024,
        max_total_tokens=2048,
    )
    voice = Voice(info, PREFIX)
    pinned = lock.pin(built, Voices(voice, voice)) | ({"judges": checks} if checks else {})
    selection = Selection(
        parts=[],
        accepted=wanted.rows,
        attempts=wanted.rows,
        rejected={},
        ended={},
        requests=2 * wanted.rows,
        prompt_tokens=20 * wanted.rows,
        generated_tokens=16 * wanted.rows,
        seconds=wanted.seconds,
    )
    Folder(LocalFileSystem(), str(out), built).finish(pinned, selection)
    return out
