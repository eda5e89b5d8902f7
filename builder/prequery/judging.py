"""Who judges rows, and what becomes of a column's question."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from prequery.columns.base import JudgeColumn, Question, Score
from prequery.endpoint import Asks, Request
from prequery.journal import Journal
from prequery.prefix import Prefix
from prequery.recipe import Recipe, Sampling


@dataclass(frozen=True)
class Bench:
    """A judge column at work.

    Args:
        journal: Of this column's answers alone, so that another column or another judge costs no
            answer that was paid for.
        endpoint: Of its judge; null: the journal alone answers.
    """

    journal: Journal
    endpoint: Asks | None


def judge_columns(recipe: Recipe) -> list[JudgeColumn]:
    """Return the columns that ask a judge, in the recipe's order."""
    return [column for column in recipe.columns if isinstance(column, JudgeColumn)]


def fingerprint(recipe: Recipe, column: JudgeColumn) -> str:
    """Return what decides a judge's answers: SHA-256 of rows, column and model, in hexadecimal."""
    judge = asdict(recipe.judges[column.judge]) | {"endpoint": None}
    content = [recipe.fingerprint, recipe.think, column.fingerprint(), column.pins(), judge]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def request(question: Question, prefix: Prefix | None) -> Request:
    """Return what the judge's endpoint is asked.

    Args:
        question: Of a column.
        prefix: Of a judge that writes; null of one that scores.
    """
    if isinstance(question, Score):
        kind = Request(prompt=question.text, pair=question.pair, sampling=Sampling(), scores=True)
        return replace(kind, logprobs=False)
    return Request(
        prompt=question.text if prefix is None else prefix.ask_response(question.text),
        sampling=Sampling(max_new_tokens=question.max_new_tokens),
        stop=() if prefix is None else prefix.stop,
        schema=question.schema,
        logprobs=False,
    )
