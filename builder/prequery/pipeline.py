"""A build, stage after stage: this module is the table of contents."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prequery import judge_check, judging, lock, models, shards
from prequery.births import Written
from prequery.budget import Budget, Price, check_priced
from prequery.errors import JournalError, RecipeError
from prequery.journal import Journal, folder_for
from prequery.judge_check import Check
from prequery.judging import Bench
from prequery.lock import Lock
from prequery.options import Options
from prequery.recipe import Recipe
from prequery.runner import cut_short, run_async, until_interrupted
from prequery.selection import Selection, Selector
from prequery.synthesis import Observer, Silent, Synthesis
from prequery.voices import Voices


@dataclass(frozen=True)
class Build:
    """What a build made: rows in Parquet parts, and the lock that explains them."""

    selection: Selection
    pinned: Lock


def build(
    recipe: Recipe,
    options: Options,
    observer: Observer,
    work: Path,
    rows_per_shard: int = shards.ROWS_PER_SHARD,
) -> Build:
    """Build the rows of a recipe.

    Answers that the journal holds are not asked for again; when it holds them all, no endpoint is
    needed.

    Args:
        recipe: What to build.
        options: What changes no value.
        observer: Is told how it gets on.
        work: Folder of this process alone, for the rows until they are shards.
        rows_per_shard: At most so many rows in a shard.

    Raises:
        BuildError: Naming what, where and what to do. Everything answered is in the journal.
    """
    with journals_of(recipe, options) as journals:
        journal = journals.answers
        if len(journal):
            observer.said(f"{len(journal)} answers are in the journal {journal.folder}")
        if journal.damaged:
            observer.said(f"{journal.damaged} damaged answers will be asked for again")
        rows = _Rows(recipe, work, rows_per_shard)
        replayed = _replay(rows, journals, hopeful=options.recorded)
        if options.recorded and not replayed:
            raise JournalError(
                "the recorded answers are not all that the recipe needs",
                str(journal.folder),
                "name an endpoint to ask for the others, or the journal that has them",
            )
        pinned, selection = replayed or run_async(_synthesize(rows, options, journals, observer))
    return Build(selection, pinned)


@dataclass(frozen=True)
class Journals:
    """The journal of the answers, one for each column that asks a judge, one for each judge."""

    answers: Journal
    verdicts: Mapping[str, Journal]
    checks: Mapping[str, Journal]


@contextmanager
def journals_of(recipe: Recipe, options: Options) -> Iterator[Journals]:
    """Open the journals of a recipe; those that are not there yet are made."""
    with ExitStack() as stack:

        def opened(name: str, fingerprint: str) -> Journal:
            folder = folder_for(name, fingerprint, options.journal)
            return stack.enter_context(Journal(folder, fingerprint))

        answers = opened(recipe.name, recipe.fingerprint)
        verdicts = {name: opened(*one) for name, one in judging.journals(recipe).items()}
        checks = {name: opened(*one) for name, one in judge_check.journals(recipe).items()}
        yield Journals(answers, verdicts, checks)


@dataclass(frozen=True)
class _Rows:
    """Where the rows of a recipe go."""

    recipe: Recipe
    folder: Path
    rows_per_shard: int

    def selector(self, voices: Voices) -> Selector:
        births = Written(self.recipe, voices)
        return Selector(self.recipe, births, voices.judges, self.folder, self.rows_per_shard)


def replay(recipe: Recipe, journals: Journals, work: Path) -> Build | None:
    """Build from the journals alone; null when they lack answers.

    Args:
        recipe: What to build.
        journals: Its open journals.
        work: As for `build`.
    """
    replayed = _replay(_Rows(recipe, work, shards.ROWS_PER_SHARD), journals, hopeful=True)
    return Build(replayed[1], replayed[0]) if replayed else None


def _replay(rows: _Rows, journals: Journals, hopeful: bool) -> tuple[Lock, Selection] | None:
    """Return a build whose answers are all in the journals; null when some are missing."""
    recipe, journal = rows.recipe, journals.answers
    if not journal.header or len(journal) < 2 * recipe.goal:
        return None  # every row has two answers
    if not all(held.header for held in journals.verdicts.values()):
        return None
    askers = judging.askers(recipe).values()
    headers = {column.judge: journals.verdicts[column.name].header for column in askers}
    voices = models.noted(journal.header, headers)
    if models.templates_changed(recipe, voices):
        return None  # the endpoint is asked, and the journal then says what it was made with
    selector = rows.selector(voices)
    benches = {name: Bench(held, None) for name, held in journals.verdicts.items()}
    stream = Synthesis(
        recipe, voices, journal, selector, Silent(), benches=benches, hopeful=hopeful
    )
    if not run_async(stream.run()):
        return None
    pinned = lock.pin(recipe, voices)
    lock.hold(recipe, pinned)
    unasked = {name: Bench(held, None) for name, held in journals.checks.items()}
    checks = run_async(judge_check.check_all(recipe, unasked, voices.judges))
    if checks is None:
        return None
    return lock.with_checks(pinned, checks), selector.selection


async def _synthesize(
    rows: _Rows, options: Options, journals: Journals, observer: Observer
) -> tuple[Lock, Selection]:
    """Ask the endpoints for what the journals lack."""
    recipe, journal = rows.recipe, journals.answers
    writers = [Price.at(one.endpoint) for one in (recipe, recipe.responder) if one]
    prices = [*writers, *judging.prices(recipe).values()]
    check_priced(options.max_cost_usd, prices, f"{recipe.source}, endpoint")
    budget = Budget(options.max_tokens, options.max_seconds, options.max_cost_usd)
    async with models.asked(recipe, options, observer.said) as asked:
        voices = await models.meet(recipe, asked)
        pinned = lock.pin(recipe, voices)
        lock.hold(recipe, pinned)
        journal.agree(models.made_with(recipe, voices), models.notes(recipe, voices))
        await models.prove_prefixes(recipe, asked, voices, observer.said)
        await models.try_readings(recipe, asked.judges, observer.said)
        checks = await models.check_judges(recipe, journals.checks, asked.judges, voices.judges)
        for name, check in checks.items():
            observer.said(f"judge {name}: {check.sentence()}")
        selector = rows.selector(voices)
        stream = Synthesis(
            recipe,
            voices,
            journal,
            selector,
            observer,
            asked.generator,
            asked.responder,
            _benches(recipe, journals, asked, voices),
            recipe.endpoint.concurrency,
            budget,
        )
        enough = await until_interrupted(stream, observer)
    if not enough:
        raise cut_short("build", budget, str(journal.folder), options.resume)
    return lock.with_checks(pinned, checks), selector.selection


def check_judges(recipe: Recipe, options: Options, say: Callable[[str], None]) -> dict[str, Check]:
    """Measure a recipe's judges and do nothing else; its generator is not needed.

    Raises:
        RecipeError: No judge answers prompts.
        BuildError: A judge does not answer.
    """
    if not judge_check.checkable(recipe):
        raise RecipeError(
            "no judge of this recipe answers prompts",
            f"{recipe.source}, judges",
            "add a judge, and a column that asks it: {input_quality: {judge: NAME}}",
        )

    async def run(journals: Journals) -> dict[str, Check]:
        async with models.judge_fleets(recipe, options, say) as asked:
            judges = await models.meet_judges(recipe, asked)
            return await models.check_judges(recipe, journals.checks, asked, judges)

    with journals_of(recipe, options) as journals:
        return run_async(run(journals))


def _benches(
    recipe: Recipe, journals: Journals, asked: models.Models, voices: Voices
) -> dict[str, Bench]:
    """Return the judge columns at work."""
    benches, prices = {}, judging.prices(recipe)
    for name, column in judging.askers(recipe).items():
        journal = journals.verdicts[name]
        models.note_judge(journal, voices.judges[column.judge])
        benches[name] = Bench(journal, asked.judges[column.judge], prices[name])
    return benches
