"""Annotate a dataset, stage after stage: open, see its fields, judge, select, write."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fsspec.core import url_to_fs

from prequery import judge_check, judging, lock, models, shards
from prequery.annotation.given import Given
from prequery.annotation.source import Source, opened
from prequery.annotation.stream import Stream
from prequery.budget import Budget, check_priced
from prequery.endpoint import Asks
from prequery.errors import AcceptanceError, ShardError
from prequery.folder import Folder
from prequery.journal import Journal, folder_for
from prequery.judge_check import Check
from prequery.judging import Bench
from prequery.lock import Lock
from prequery.options import Options
from prequery.recipe import Annotation, read_annotation
from prequery.runner import cut_short, run_async, until_interrupted
from prequery.selection import Selection, Selector
from prequery.synthesis import Observer
from prequery.voices import Judging


@dataclass(frozen=True)
class Annotated:
    """A dataset that was annotated.

    Args:
        folder: Where it is.
        lock: What decided its values.
        reused: It was there already, complete and unchanged.
    """

    folder: Folder
    lock: Lock
    reused: bool


def annotate(
    recipe: Annotation,
    out: str,
    options: Options,
    show: Callable[[int | None], "_Shows"],
    place: str | None = None,
    rows_per_shard: int = shards.ROWS_PER_SHARD,
) -> Annotated:
    """Measure the rows of a dataset, and write those that stay as a release folder.

    Args:
        recipe: What to measure.
        out: Local folder or fsspec URL.
        options: What changes no value.
        show: Makes the progress display for a number of rows, null where it is not known.
        place: Where the files of the dataset are now; null: where the recipe says.
        rows_per_shard: At most so many rows in a file.

    Raises:
        BuildError: Naming what, where and what to do. Everything answered is in the journals.
    """
    source = opened(recipe.dataset, Path(recipe.source).parent, place)
    known = Given(recipe, source.features).dtypes
    recipe = read_annotation(recipe.text, recipe.source, known)
    given = Given(recipe, source.features)
    fs, root = url_to_fs(out)
    folder = Folder(fs, root, recipe)
    try:
        if folder.is_complete():
            return Annotated(folder, folder.read_lock(), reused=True)
        with (
            show(source.row_count) as shown,
            shards.work_folder() as work,
            _journals(recipe, options) as journals,
        ):
            running = _Running(
                recipe, source, given, options, journals, shown, work, rows_per_shard
            )
            pinned, selection = run_async(running.run())
            folder.clear()
            folder.put(selection.parts)
            made = folder.finish(pinned, selection)
    except OSError as error:
        raise ShardError(
            f"the output folder cannot be written: {error.strerror or error}",
            out,
            "make room or correct the permissions, then run the same command: "
            "answers are in the journal",
        ) from error
    return Annotated(folder, made, reused=False)


class _Shows(Observer, AbstractContextManager["_Shows"], Protocol):
    """An observer that is open while rows are annotated."""


@dataclass(frozen=True)
class _Journals:
    """One journal for each column that asks a judge, one for each judge's check."""

    verdicts: Mapping[str, Journal]
    checks: Mapping[str, Journal]


@contextmanager
def _journals(recipe: Annotation, options: Options) -> Iterator[_Journals]:
    with ExitStack() as stack:

        def opened_one(name: str, fingerprint: str) -> Journal:
            folder = folder_for(name, fingerprint, options.journal)
            return stack.enter_context(Journal(folder, fingerprint))

        yield _Journals(
            {name: opened_one(*one) for name, one in judging.journals(recipe).items()},
            {name: opened_one(*one) for name, one in judge_check.journals(recipe).items()},
        )


@dataclass
class _Running:
    """The part that may ask judges: it connects to them when the first answer is missing."""

    recipe: Annotation
    source: Source
    given: Given
    options: Options
    journals: _Journals
    observer: Observer
    work: Path
    rows_per_shard: int
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    judges: dict[str, Judging] = field(default_factory=dict)
    fleets: Mapping[str, Asks] = field(default_factory=dict)

    async def run(self) -> tuple[Lock, Selection]:
        """Take the rows through columns, judges and filters."""
        recipe, options = self.recipe, self.options
        budget = Budget(options.max_tokens, options.max_seconds, options.max_cost_usd)
        async with self.stack:
            checks = await self._checks()
            for name, check in checks.items():
                self.observer.said(f"judge {name}: {check.sentence()}")
            selector = Selector(
                recipe,
                self.given,
                self.judges,
                self.work,
                self.rows_per_shard,
                settles_for_less=True,
            )
            stream = Stream(
                self.source.batches(),
                selector,
                self.observer,
                self.journals.verdicts,
                self._connected,
                recipe.goal,
                budget,
                judging.prices(recipe),
            )
            done = await until_interrupted(stream, self.observer)
        if not done:
            raise cut_short("annotation", budget, recipe.dataset.path, options.resume)
        pinned = lock.pin_annotation(recipe, self._dataset(), self.judges)
        return lock.with_checks(pinned, checks), self._selected(selector)

    def _selected(self, selector: Selector) -> Selection:
        selection = selector.selection
        if not selection.accepted:
            top = "; ".join(f"{count} x {why}" for why, count in selection.rejected.items())
            raise AcceptanceError(
                f"none of {selection.attempts} rows stays, and there is nothing to release",
                f"{self.recipe.source}; rejected: {top}",
                "loosen the filters; all answers are kept",
            )
        return selection

    def _dataset(self) -> Lock:
        """Return what the lock tells of the dataset."""
        dataset, columns = self.recipe.dataset, self.recipe.dtypes
        return {
            "path": dataset.path,
            "config": dataset.config,
            "split": dataset.split,
            "revision": dataset.revision,
            "sha256": dataset.sha256,
            "files": dict(self.source.files),
            "fields": {key: name for key, name in vars(dataset.fields).items() if name},
            "kept": self.given.kept,
            "dtypes": self.given.dtypes,
            # A list, because the keys of a lock are sorted and fields have an order.
            "features": self.given.features(columns)._to_yaml_list(),
        }

    async def _checks(self) -> dict[str, Check]:
        """Measure the judges before the first row, or read what they once said."""
        self._note()
        benches = {name: Bench(held, None) for name, held in self.journals.checks.items()}
        if self.judges or not self.recipe.judges:
            checks = await judge_check.check_all(self.recipe, benches, self.judges)
            if checks is not None:
                return checks
        await self._connected()
        return await models.check_judges(
            self.recipe, self.journals.checks, self.fleets, self.judges
        )

    def _note(self) -> None:
        """Take the judges as the journals know them, where every journal does."""
        held = self.journals.verdicts
        if all(journal.header for journal in held.values()):
            for name, column in judging.askers(self.recipe).items():
                self.judges[column.judge] = models.noted_judge(held[name].header)

    async def _connected(self) -> dict[str, Asks]:
        """Connect to the judges, see that they are those of the journals; by column."""
        columns = judging.askers(self.recipe)
        if not self.fleets:
            where = f"{self.recipe.source}, judges, endpoint"
            prices = judging.prices(self.recipe).values()
            check_priced(self.options.max_cost_usd, prices, where)
            fleets = models.judge_fleets(self.recipe, self.options, self.observer.said)
            self.fleets = await self.stack.enter_async_context(fleets)
            self.judges |= await models.meet_judges(self.recipe, self.fleets)
            for name, column in columns.items():
                models.note_judge(self.journals.verdicts[name], self.judges[column.judge])
            await models.try_readings(self.recipe, self.fleets, self.observer.said)
        return {name: self.fleets[column.judge] for name, column in columns.items()}
