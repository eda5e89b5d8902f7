"""A release with every plot: rows as judges label them, made without a model."""

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from prequery import lock, recipe, rows
from prequery.columns.prompted import QUALITY
from prequery.endpoint import Info
from prequery.folder import Folder
from prequery.judge_check import Check
from prequery.prefix import Prefix
from prequery.recipe import Recipe
from prequery.selection import Selection
from prequery.voices import Judging, Voice, Voices

JUDGE = "meta-llama/Llama-3.3-70B-Instruct"
TEXT = f"""\
name: chat
version: 1.2.0
rows: 400
seed: 7
generator: {{model: google/gemma-2-9b-it, revision: "{"1" * 40}"}}
instructions:
  - {{weight: 3, temperature: [0.8, 1.0], top_p: 0.95, max_new_tokens: 512}}
responses: {{temperature: null, max_new_tokens: 2048}}
judges: {{judge: {{model: {JUDGE}, revision: "{"6" * 40}", endpoint: "http://judge:8080"}}}}
columns:
  - length
  - language
  - repetition
  - min_neighbor_distance
  - {{input_quality: {{judge: judge}}}}
  - {{difficulty: {{judge: judge}}}}
  - {{task_category: {{judge: judge}}}}
filters: [language == "en" or language == "de", not response_loop, min_neighbor_distance > 0]
release: {{repo: acme/chat}}
"""
RECIPE = recipe.read(TEXT, "chat.yaml")
PREFIX = Prefix(
    text="<bos><start_of_turn>user\n",
    suffix="<end_of_turn>\n<start_of_turn>model\n",
    ids=(2, 106, 1645, 108),
    system_prompt=None,
    stop=("<end_of_turn>", "<start_of_turn>"),
    bos="the prefix carries one, and the endpoint adds none",
)
CHECK = Check(48, 0, 0.91, 0.82, 1.0, {"clear": {"good": 12}, "nonsense": {"very poor": 12}})
CATEGORIES = ("Information seeking", "Coding & Debugging", "Math", "Creative writing", "Others")


def row(slot: int, **changed: Any) -> rows.Row:
    """Return one row whose values follow from its slot."""
    draw = Random(slot)
    instruction = f"How do {draw.choice(('rivers', 'maps', 'tides'))} and {slot} belong together?"
    response = f"They have {slot} things in common. " * draw.randint(1, 40)
    tokens, longer = round(draw.lognormvariate(3, 0.7)) + 4, round(draw.lognormvariate(5.8, 0.6))
    content: rows.Row = {
        **dict.fromkeys(rows.dtypes(RECIPE.dtypes)),
        "id": f"{RECIPE.fingerprint[:12]}-{slot}",
        "messages": rows.messages([(instruction, response)]),
        "instruction": instruction,
        "response": response,
        "generator": f"{RECIPE.generator.model}@{RECIPE.generator.revision}",
        "responder": f"{RECIPE.generator.model}@{RECIPE.generator.revision}",
        "turns": 1,
        "instruction_temperature": draw.choice((0.8, 1.0)),
        "instruction_top_p": 0.95,
        "instruction_seed": 2**62 + slot,
        "instruction_tokens": tokens,
        "response_tokens": min(longer, 2048),
        "instruction_finish_reason": "eos_token",
        "response_finish_reason": "eos_token" if longer < 2048 else "length",
        "instruction_chars": len(instruction),
        "instruction_words": len(instruction.split()),
        "response_chars": len(response),
        "response_words": len(response.split()),
        "language": "de" if draw.random() < 0.08 else "en",
        "language_score": 0.5 + draw.random() / 2,
        "instruction_repetition_ratio": 0.0,
        "instruction_loop": False,
        "response_repetition_ratio": draw.random() / 4,
        "response_loop": False,
        "min_neighbor_distance": draw.betavariate(4, 5) * 1.2,
        "repeat_count": 0,
        "input_quality": draw.choices(QUALITY, (1, 4, 10, 20, 8))[0],
        "quality_explanation": f"Because of {slot}.",
        "difficulty": draw.choices(
            ("very easy", "easy", "medium", "hard", "very hard"), (2, 9, 8, 3, 1)
        )[0],
        "intent": f"To know {slot}.",
        "knowledge": f"About {slot}.",
        "task_category": draw.choices(CATEGORIES, (20, 8, 6, 5, 1))[0],
        "other_task_category": [],
    }
    return content | changed


def table(released: list[rows.Row], built: Recipe = RECIPE) -> pa.Table:
    """Return rows in the released schema, without the fields of columns that are not there."""
    features = rows.features(built.dtypes, built.shape)
    kept = [{name: row[name] for name in row if name in features} for row in released]
    rows.check(kept, built.dtypes, built.shape)
    return pa.Table.from_pylist(kept, schema=features.arrow_schema)


def write(place: Path, released: list[rows.Row], built: Recipe = RECIPE) -> Folder:
    """Write a release of such rows into a folder, as a build does."""
    folder = Folder(LocalFileSystem(), str(place), built)
    (place / built.name).mkdir(parents=True)
    shard = place / built.name / "train-00000-of-00001.parquet"
    pq.write_table(table(released, built), shard, row_group_size=100)
    complete = finished(folder.files(), {"cut off at max_new_tokens": 20}, built)
    folder.write(f"{built.name}.yaml", built.text)
    folder.write(f"{built.name}.lock.json", lock.dump(complete))
    folder.write_card(complete)
    return folder


def finished(
    files: dict[str, dict[str, Any]], rejected: dict[str, int], built: Recipe = RECIPE
) -> lock.Lock:
    """Return the lock of a build of such rows."""
    accepted = sum(file["rows"] for file in files.values())
    info = Info(built.generator.model, 64, 1024, 2048, version="3.3.6")
    judge = Info(JUDGE, 64, 1024, 2048, version="3.3.6", model_sha="6" * 40)
    voice = Voice(info, PREFIX)
    pinned = lock.pin(built, Voices(voice, voice, {"judge": Judging(judge, PREFIX)}))
    selection = Selection(
        parts=[],
        accepted=accepted,
        attempts=accepted + sum(rejected.values()),
        rejected=rejected,
        ended={},
        requests=1_834,
        prompt_tokens=256_789,
        generated_tokens=998_765,
        seconds=12_600,
    )
    return lock.complete(lock.with_checks(pinned, {"judge": CHECK}), selection, files)
