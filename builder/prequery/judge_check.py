"""Measure a judge before its labels are believed: can it tell clear instructions from others?

A judge that cannot tell them apart gives labels that mean nothing, however well they parse. The
set is small and in the repository, so that anybody can read it and judge it too.
"""

import asyncio
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files

from prequery import judging
from prequery.columns.input_quality import InputQuality
from prequery.columns.prompted import QUALITY, PromptColumn
from prequery.endpoint import Answer
from prequery.journal import Key
from prequery.judging import Bench
from prequery.recipe import AnyRecipe
from prequery.strict_yaml import parse
from prequery.voices import Judging

CLEAR = "clear"
SOURCE = "judge-check.yaml"


@dataclass(frozen=True)
class Check:
    """What a judge made of the labelled instructions.

    Args:
        asked: Instructions.
        nulls: Of them, those without a label that can be read.
        auc: Share of pairs of a clear and another instruction in which the clear one has the
            better label; half of those with equal labels. 0.5 is chance. Null: too few labels.
        low: Lower end of its 95 % interval.
        high: Upper end.
        labels: Kind to label to how often it was given.
    """

    asked: int
    nulls: int
    auc: float | None
    low: float | None
    high: float | None
    labels: Mapping[str, Mapping[str, int]]

    @property
    def is_at_chance(self) -> bool:
        """Whether the judge may as well have guessed."""
        return self.low is None or self.low <= 0.5

    def sentence(self) -> str:
        """Return the verdict in one line."""
        if self.auc is None:
            return f"no verdict: {self.nulls} of {self.asked} answers could not be read"
        told = f"AUC {self.auc:.2f}, 95 % interval {self.low:.2f} to {self.high:.2f}"
        if self.is_at_chance:
            return f"at chance: its labels mean nothing ({told})"
        return f"tells clear instructions from others ({told})"


@cache
def labelled() -> tuple[tuple[str, str], ...]:
    """Return kind and text of every labelled instruction."""
    source = files("prequery.columns") / "prompts" / SOURCE
    top = parse(source.read_text(encoding="utf-8"), SOURCE).plain()
    assert isinstance(top, dict)
    return tuple((kind, text) for kind, texts in top.items() for text in texts)


def checkable(recipe: AnyRecipe) -> dict[str, InputQuality]:
    """Return the judges that answer prompts of ours, each with the column that checks it."""
    names = {
        column.judge
        for column in judging.judge_columns(recipe)
        if isinstance(column, PromptColumn) and not getattr(column, "guard", False)
    }
    return {name: InputQuality(judge=name) for name in sorted(names)}


def journals(recipe: AnyRecipe) -> dict[str, tuple[str, str]]:
    """Return name and fingerprint of the journal of each judge's check.

    The fingerprint is the SHA-256 of what decides a judge's answers to the set, in hexadecimal:
    the same for every recipe of that judge.
    """
    named = {}
    for name, column in checkable(recipe).items():
        judge = asdict(recipe.judges[name]) | {"endpoint": None}
        content = [column.fingerprint(), column.pins(), judge, labelled()]
        text = json.dumps(content, sort_keys=True)
        named[name] = f"judge-check-{name}", hashlib.sha256(text.encode()).hexdigest()
    return named


async def check_all(
    recipe: AnyRecipe, benches: Mapping[str, Bench], judges: Mapping[str, Judging]
) -> dict[str, Check] | None:
    """Check every judge that answers prompts of ours.

    Returns:
        By the judge's name; null where a journal lacks an answer and there is nobody to ask.
    """
    checks = {}
    for name, column in checkable(recipe).items():
        found = await check(column, benches[name], judges[name])
        if found is None:
            return None
        checks[name] = found
    return checks


async def check(column: InputQuality, bench: Bench, judge: Judging) -> Check | None:
    """Ask a judge about every labelled instruction, or read what it said before.

    Returns:
        Null where the journal lacks an answer and there is nobody to ask.
    """
    items = labelled()
    answers = await asyncio.gather(
        *(_answer(column, bench, judge, number, text) for number, (_, text) in enumerate(items))
    )
    known = [answer for answer in answers if answer is not None]
    return _check(column, items, known) if len(known) == len(items) else None


async def _answer(
    column: InputQuality, bench: Bench, judge: Judging, number: int, text: str
) -> Answer | None:
    key = Key(number, "verdict")
    held = bench.journal.get(key)
    if held is not None or bench.endpoint is None:
        return held
    question = column.ask({"instruction": text})
    assert question is not None
    asked = replace(judging.request(question, judge.prefix), stop=())
    answer = await bench.endpoint.generate(asked, f"judge-check, {number}", urgent=True)
    if not answer.failed:
        bench.journal.record(key, answer)
    return answer


def _check(
    column: InputQuality, items: Sequence[tuple[str, str]], answers: Sequence[Answer]
) -> Check:
    labels: dict[str, Counter[str]] = {kind: Counter() for kind, _ in items}
    grades: dict[bool, list[int]] = {True: [], False: []}
    nulls = 0
    for (kind, _), answer in zip(items, answers, strict=True):
        label = None
        if answer.error is None:
            label = column.read(answer.text, "")["input_quality"]
        if label is None:
            nulls += 1
            continue
        labels[kind][label] += 1
        grades[kind == CLEAR].append(QUALITY.index(label))
    auc, low, high = _auc(grades[True], grades[False])
    ordered = {
        kind: {label: counts[label] for label in QUALITY if counts[label]}
        for kind, counts in labels.items()
    }
    return Check(len(items), nulls, auc, low, high, ordered)


def _auc(
    better: Sequence[int], worse: Sequence[int]
) -> tuple[float | None, float | None, float | None]:
    """Return the area under the ROC curve with its 95 % interval.

    Source:
        Hanley and McNeil 1982, The meaning and use of the area under a ROC curve, for the
        standard error.
    """
    if len(better) < 5 or len(worse) < 5:
        return None, None, None
    pairs = [(x > y) + (x == y) / 2 for x in better for y in worse]
    auc = sum(pairs) / len(pairs)
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc)
        + (len(better) - 1) * (first - auc**2)
        + (len(worse) - 1) * (second - auc**2)
    ) / (len(better) * len(worse))
    spread = 1.96 * math.sqrt(max(variance, 0.0))
    return auc, max(0.0, auc - spread), min(1.0, auc + spread)
