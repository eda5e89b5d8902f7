"""What a recipe makes of the answers that are there: nobody is asked, and no answer is added.

The stream is the build's own, with nobody behind it, so a trial comes to the rows that a build
would come to. What no judge was asked yet is null, and counted: that is what a build would ask.
"""

import posixpath
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fsspec.core import url_to_fs

from prequery import judge_check, judging, models
from prequery.births import Written
from prequery.endpoint import Answer, Info
from prequery.errors import AcceptanceError, JournalError
from prequery.filters import Pick
from prequery.journal import Journal, Key, folder_for
from prequery.journal.journal import HEADER
from prequery.judging import Bench
from prequery.options import Options
from prequery.recipe import Recipe
from prequery.runner import run_async
from prequery.selection import Selection, Selector
from prequery.synthesis import Silent, Synthesis
from prequery.voices import Judging

UNASKED = Answer(error="not asked yet")


@dataclass(frozen=True)
class Trial:
    """What came of the answers that are there.

    Args:
        selection: As of a build; of all slots that are there where these are not enough.
        enough: Whether a build would ask for no further instruction or response.
        left_out: Filters that were not applied, because they read what no judge was asked yet.
        unasked: Judge column to the requests that a build would make about these slots, at least:
            a column that asks in rounds may go on from an answer.
        unchecked: Judge to the requests of its check.
    """

    selection: Selection
    enough: bool
    left_out: tuple[str, ...]
    unasked: Mapping[str, int]
    unchecked: Mapping[str, int]


def attempt(recipe: Recipe, options: Options, work: Path) -> Trial:
    """Apply a recipe's columns and filters to the answers of its journal.

    Args:
        recipe: Its generation decides whose answers these are; rows, columns and filters are free.
        options: Where the journals are.
        work: Folder of this process alone, for the rows; they are not kept.

    Raises:
        JournalError: There is no answer of this recipe, or its pairs rest on a judge who was not
            asked.
    """
    with _journals(recipe, options) as (answers, verdicts, unchecked):
        unknown = {n for n in judging.askers(recipe) if n not in verdicts}
        tried, left_out = _without(recipe, unknown, str(answers.folder))
        askers = judging.askers(tried).values()
        headers = {c.judge: verdicts[c.name].header for c in askers if c.name in verdicts}
        voices = models.noted(answers.header, headers)
        unmet = {
            name: Judging(Info(model_id=judge.model), None)
            for name, judge in tried.judges.items()
            if name not in voices.judges
        }
        voices = replace(voices, judges={**voices.judges, **unmet})
        kept = {name: _Kept(verdicts.get(name)) for name in judging.askers(tried)}
        selector = Selector(
            tried, Written(tried, voices), voices.judges, work, settles_for_less=True
        )
        benches = {name: Bench(one, None) for name, one in kept.items()}
        stream = Synthesis(
            tried, voices, answers, selector, Silent(), benches=benches, hopeful=True
        )
        try:
            enough = run_async(stream.run())
        except AcceptanceError:
            enough = False
        return Trial(
            selector.selection,
            enough,
            left_out,
            {name: one.unasked for name, one in kept.items() if one.unasked},
            unchecked,
        )


def _without(
    recipe: Recipe, unknown: Collection[str], where: str
) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe without the filters over what is not known, and these."""
    silent = [
        column
        for column in judging.judge_columns(recipe)
        if any(one.name in unknown for one in column.askers())
    ]
    fields = {name for column in silent for name in column.features}
    evidence = {name for column in silent for name in column.evidence}
    fields |= {
        name
        for column in recipe.columns
        if evidence.intersection(column.inputs())
        for name in column.features
    }
    if recipe.preference and recipe.preference.score in fields:
        raise JournalError(
            f"pairs are chosen by {recipe.preference.score!r}, and its judge was not asked yet",
            where,
            "build the recipe: it asks the judge alone, about the responses that are there",
        )
    steps = tuple(step for step in recipe.filters if step.reads.isdisjoint(fields))
    left_out = tuple(step.text for step in recipe.filters if step.reads & fields)
    chooses = any(isinstance(step, Pick) for step in steps)
    candidates = recipe.candidates if chooses else None
    return replace(recipe, filters=steps, candidates=candidates), left_out


@contextmanager
def _journals(
    recipe: Recipe, options: Options
) -> Iterator[tuple[Journal, dict[str, Journal], dict[str, int]]]:
    """Open the journals that are there: of answers, of verdicts; and tell which checks are not."""
    with ExitStack() as stack:

        def opened(name: str, fingerprint: str) -> Journal | None:
            folder = folder_for(name, fingerprint, options.journal)
            if not _is_there(folder):
                return None
            return stack.enter_context(Journal(folder, fingerprint))

        answers = opened(recipe.name, recipe.fingerprint)
        if answers is None:
            raise JournalError(
                f"there is no answer of this recipe, {recipe.name} {recipe.fingerprint[:12]}",
                str(folder_for(recipe.name, recipe.fingerprint, options.journal)),
                f"build it first: prequery build {recipe.source}; name, seed, models and "
                "sampling say whose answers are looked for",
            )
        verdicts = {
            name: journal
            for name, one in judging.journals(recipe).items()
            if (journal := opened(*one))
        }
        unchecked = {
            name: len(judge_check.labelled())
            for name, one in judge_check.journals(recipe).items()
            if not _is_there(folder_for(*one, options.journal))
        }
        yield answers, verdicts, unchecked


def _is_there(folder: Path | str) -> bool:
    """Say whether a journal was begun, without beginning it."""
    if isinstance(folder, Path) or "://" not in folder:
        return (Path(folder) / HEADER).is_file()
    fs, path = url_to_fs(folder)
    return bool(fs.exists(posixpath.join(path, HEADER)))


@dataclass
class _Kept:
    """A judge column's journal, that notes what it lacks."""

    journal: Journal | None
    unasked: int = 0

    def get(self, key: Key) -> Answer | None:
        """Return an answer, or that there is none yet."""
        held = self.journal.get(key) if self.journal else None
        if held is None:
            self.unasked += 1
            return UNASKED
        return held

    def record(self, key: Key, answer: Answer) -> None:
        """Nobody is asked, so nothing comes."""
        raise AssertionError(f"an answer to {key} without a question")

    def sync(self) -> None:
        """Nothing was written."""

    def refresh(self) -> None:
        """What others write meanwhile is not of this trial."""
