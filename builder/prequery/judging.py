"""Who judges rows, and what becomes of a column's question."""

import hashlib
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

from prequery.budget import FREE, Price
from prequery.columns.base import (
    Continuation,
    Embed,
    Inquiry,
    JudgeColumn,
    Prompt,
    Question,
    Reading,
    Said,
    Score,
    To,
)
from prequery.conversation import Ask
from prequery.endpoint import Answer, Asks, Request
from prequery.journal import Key
from prequery.prefix import Prefix
from prequery.recipe import AnyRecipe, Recipe, Sampling
from prequery.voices import Judging


class Keeps(Protocol):
    """Where answers are kept; a `Journal` is."""

    def get(self, key: Key) -> Answer | None:
        """Return an answer; null when it is not held."""

    def record(self, key: Key, answer: Answer) -> None:
        """Add an answer."""

    def sync(self) -> None:
        """Bring what was added to the disk."""

    def refresh(self) -> None:
        """See what others added."""


@dataclass(frozen=True)
class Bench:
    """A judge column at work.

    Args:
        journal: Of this column's answers alone, so that another column or another judge costs no
            answer that was paid for.
        endpoint: Of its judge; null: the journal alone answers.
        price: Of its judge's tokens.
    """

    journal: Keeps
    endpoint: Asks | None
    price: Price = FREE


Place = tuple[str, int, int]
"""Column by whose journal, number of the question, and of the response that it is about."""


def judge_columns(recipe: AnyRecipe) -> list[JudgeColumn]:
    """Return the columns that ask a judge, in the recipe's order."""
    return [column for column in recipe.columns if isinstance(column, JudgeColumn)]


def askers(recipe: AnyRecipe) -> dict[str, JudgeColumn]:
    """Return the columns that have a journal, by name: the judge columns, and those they ask by."""
    return {one.name: one for column in judge_columns(recipe) for one in column.askers()}


def prices(recipe: AnyRecipe) -> dict[str, Price]:
    """Return what tokens cost at the judge of each column that asks one."""
    return {
        name: Price.at(recipe.judges[column.judge].endpoint)
        for name, column in askers(recipe).items()
    }


def journals(recipe: AnyRecipe) -> dict[str, tuple[str, str]]:
    """Return name and fingerprint of the journal of each column that asks a judge.

    A fingerprint is the SHA-256 of what decides a judge's answers, in hexadecimal: of column and
    models. The models that it asks by other columns too: what those wrote, this one's judge is
    shown. Of rows that are written also of what decides these; texts that are there already have
    one journal, whoever's they are.
    """
    named = {}
    for name, column in askers(recipe).items():
        content, owner = _decides(recipe, column), "annotate"
        if isinstance(recipe, Recipe):
            content, owner = [recipe.fingerprint, recipe.think, *content], recipe.name
        text = json.dumps(content, sort_keys=True)
        named[name] = f"{owner}-{name}", hashlib.sha256(text.encode()).hexdigest()
    return named


def _decides(recipe: AnyRecipe, column: JudgeColumn) -> list[object]:
    """Return the column and the models that answer it."""
    names = [column.judge, *(one.judge for one in column.askers() if one.judge != column.judge)]
    judges = [asdict(recipe.judges[name]) | {"endpoint": None} for name in names]
    others = [one.fingerprint() for one in column.askers() if one is not column]
    return [column.fingerprint(), column.pins(), *judges, *others]


def request(question: Question, prefix: Prefix | None) -> Request:
    """Return what the judge's endpoint is asked.

    Args:
        question: Of a column.
        prefix: Of a judge that writes; null of one that scores.
    """
    match question:
        case Score(text, pair):
            return _silent(Request(prompt=text, pair=pair, sampling=Sampling(), scores=True))
        case Reading(text, instruction):
            before = prefix.ask_response(instruction) if instruction is not None and prefix else ""
            one = Sampling(max_new_tokens=1)
            return _silent(Request(prompt=before, sampling=one, reads=text, plain=not before))
        case Continuation(text, stop, most):
            greedy = Sampling(max_new_tokens=most)
            return _silent(Request(prompt=text, sampling=greedy, stop=stop, plain=True))
        case Embed(text):
            return _silent(Request(prompt=text, sampling=Sampling(), embeds=True))
        case Prompt(text, schema, most):
            asked = Request(
                prompt=text if prefix is None else prefix.ask_response(text),
                sampling=Sampling(max_new_tokens=most),
                stop=() if prefix is None else prefix.stop,
                schema=schema,
            )
            return _silent(asked)


def hear(
    recipe: AnyRecipe,
    judges: Mapping[str, Judging],
    slot: int,
    inquiries: Iterable[tuple[Inquiry, int]],
) -> Generator[Sequence[Ask], Sequence[Answer], dict[Place, Answer]]:
    """Have inquiries about a slot answered, all at the same time, round after round.

    Args:
        recipe: Names the judges.
        judges: Their prefixes, by name.
        slot: That they are about.
        inquiries: Each with the number of the response that it is about.

    Returns:
        The answers. Whom a question of an earlier round was asked already is not asked again.
    """
    answers: dict[Place, Answer] = {}
    rounds = [(inquiry, choice, _next(inquiry, None)) for inquiry, choice in inquiries]
    while rounds := [one for one in rounds if one[2]]:
        asked = {place(to, choice): to for _, choice, questions in rounds for to in questions}
        new = {at: to for at, to in asked.items() if at not in answers}
        if new:
            found = yield [_ask(judges, slot, at, to) for at, to in new.items()]
            answers.update(zip(new, found, strict=True))
        rounds = [
            (inquiry, choice, _next(inquiry, [told(recipe, answers, to, choice) for to in asked]))
            for inquiry, choice, asked in rounds
        ]
    return answers


def place(to: To, choice: int) -> Place:
    """Return where the answer to a question about a response is kept.

    A column that reads the instruction alone is told the same of all of them: it asks once.
    """
    of_all = set(to.column.reads) <= {"instruction"}
    return to.column.name, to.number, 0 if of_all else choice


def told(recipe: AnyRecipe, answers: Mapping[Place, Answer], to: To, choice: int) -> Said | None:
    """Return what a column is told to its question; null where the judge gave no answer."""
    answer = answers.get(place(to, choice))
    if answer is None or answer.error is not None:
        return None
    judge = recipe.judges[to.column.judge]
    model = f"{judge.model}@{judge.revision}"
    return Said(answer.text, model, answer.logprob_sum, answer.logprob_count)


def _next(inquiry: Inquiry, said: Sequence[Said | None] | None) -> Sequence[To]:
    """Return what is asked next; nothing at the end."""
    try:
        return inquiry.send(said)  # type: ignore[arg-type]
    except StopIteration:
        return ()


def _ask(judges: Mapping[str, Judging], slot: int, at: Place, to: To) -> Ask:
    name, number, choice = at
    prefix = judges[to.column.judge].prefix
    return Ask(Key(slot, "verdict", number, choice), partial(request, to.question, prefix), name)


def _silent(request: Request) -> Request:
    """Nobody looks at the log-probabilities of what a judge writes."""
    return replace(request, logprobs=False)
