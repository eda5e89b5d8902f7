"""A build, stage after stage: this module is the table of contents."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from prequery import lock, shards
from prequery.budget import Budget, Price
from prequery.endpoint import Asks, Info, Request
from prequery.errors import BudgetError, StoppedError
from prequery.fleet import Fleet, token_from
from prequery.journal import Journal, folder_for
from prequery.local.process import start
from prequery.lock import Lock
from prequery.prefix import Prefix, check_model, derive, prove
from prequery.recipe import LOCAL, Recipe
from prequery.runner import run_async, until_interrupted
from prequery.selection import Selection, Selector
from prequery.synthesis import Observer, Synthesis
from prequery.transport import Patience


@dataclass(frozen=True)
class Options:
    """What changes the speed or the place of a build, and no value.

    Args:
        endpoints: Addresses instead of the recipe's; none takes the recipe's. A token goes only
            to the recipe's own address: for others, name its variable here.
        token_env: Environment variable with the bearer token for `endpoints`.
        journal: Folder or, as text, fsspec URL of all journals; null takes the user's.
        resume: Command that carries on, for messages.
        max_tokens: Prompt and generated tokens that this run may spend.
        max_seconds: Time that it may take.
        max_cost_usd: What it may cost, by the prices in the recipe's endpoint.
        exact: The embedded endpoint answers one request at a time, so that greedy responses
            repeat too. The lock says so, and a journal is of one mode.
        patience: How long an endpoint's faults are borne.
    """

    endpoints: tuple[str, ...] = ()
    token_env: str | None = None
    journal: Path | str | None = None
    resume: str = "make the same call again"
    max_tokens: int | None = None
    max_seconds: float | None = None
    max_cost_usd: float | None = None
    exact: bool = False
    patience: Patience = field(default_factory=Patience)


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
    folder = folder_for(recipe.name, recipe.fingerprint, options.journal)
    with Journal(folder, recipe.fingerprint) as journal:
        if len(journal):
            observer.said(f"{len(journal)} answers are in the journal {journal.folder}")
        if journal.damaged:
            observer.said(f"{journal.damaged} damaged answers will be asked for again")
        rows = _Rows(recipe, work, rows_per_shard)
        pinned, selection = _replay(rows, journal) or run_async(
            _synthesize(rows, options, journal, observer)
        )
    return Build(selection, pinned)


@dataclass(frozen=True)
class _Rows:
    """Where the rows of a recipe go."""

    recipe: Recipe
    folder: Path
    rows_per_shard: int

    def selector(self, prefix: Prefix) -> Selector:
        return Selector(self.recipe, prefix.system_prompt, self.folder, self.rows_per_shard)


def _replay(rows: _Rows, journal: Journal) -> tuple[Lock, Selection] | None:
    """Return a build whose answers are all in the journal; null when some are missing."""
    recipe = rows.recipe
    if not journal.header or len(journal) < 2 * recipe.rows:
        return None  # every row has two answers
    prefix = Prefix.from_json(journal.header["made_with"]["prefix"])
    info = Info(**journal.header["notes"])
    selector = rows.selector(prefix)
    if not run_async(Synthesis(recipe, prefix, journal, selector, _Silent()).run()):
        return None
    pinned = lock.pin(recipe, prefix, info)
    lock.hold(recipe, pinned)
    return pinned, selector.selection


async def _synthesize(
    rows: _Rows, options: Options, journal: Journal, observer: Observer
) -> tuple[Lock, Selection]:
    """Ask an endpoint for what the journal lacks."""
    recipe = rows.recipe
    with serve(recipe, options, observer.said) as addresses:
        async with fleet(recipe, options, addresses, observer.said) as endpoint:
            info, prefix = await meet(recipe, endpoint)
            pinned = lock.pin(recipe, prefix, info)
            lock.hold(recipe, pinned)
            journal.agree(_made_with(info, prefix), msgspec.structs.asdict(info))
            await prove(endpoint, prefix, recipe.instructions[0])
            selector = rows.selector(prefix)
            limit = recipe.endpoint.concurrency
            budget = Budget(
                options.max_tokens, options.max_seconds, options.max_cost_usd, price(recipe)
            )
            stream = Synthesis(recipe, prefix, journal, selector, observer, endpoint, limit, budget)
            enough = await until_interrupted(stream, observer)
    spent = budget.spent()
    if not enough and spent:
        raise BudgetError(
            f"the budget of this run is at its end: {spent}; every finished answer is kept",
            str(journal.folder),
            f"carry on with another budget: {options.resume}",
        )
    if not enough:
        raise StoppedError(
            "the build was stopped; every finished answer is kept",
            str(journal.folder),
            f"carry on: {options.resume}",
        )
    return pinned, selector.selection


@contextmanager
def serve(
    recipe: Recipe, options: Options, say: Callable[[str], None]
) -> Iterator[tuple[str, ...]]:
    """Yield the endpoints' addresses; the embedded endpoint runs as long as it is needed."""
    addresses = options.endpoints or (recipe.endpoint.url,)
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(start(exact=options.exact, say=say)) if one == LOCAL else one
            for one in addresses
        )


def fleet(
    recipe: Recipe, options: Options, addresses: tuple[str, ...], say: Callable[[str], None]
) -> Fleet:
    """Return the endpoints as one, with the token that is meant for them.

    Raises:
        EndpointError: The token's environment variable is empty.
    """
    token_env = options.token_env if options.endpoints else recipe.endpoint.token_env
    return Fleet(
        addresses,
        token_from(token_env),
        options.patience,
        recipe.endpoint.concurrency,
        say,
        "auto" if options.endpoints else recipe.endpoint.protocol,
        recipe.generator.model,
    )


def price(recipe: Recipe) -> Price:
    """Return what tokens cost at the recipe's endpoint."""
    endpoint = recipe.endpoint
    return Price(endpoint.usd_per_million_prompt_tokens, endpoint.usd_per_million_generated_tokens)


async def meet(recipe: Recipe, endpoint: Asks) -> tuple[Info, Prefix]:
    """See that the endpoint serves the recipe's model, and derive the prefix from it."""
    info = await endpoint.info()
    check_model(info, recipe.generator, endpoint.address)
    for sampling in (*recipe.instructions, recipe.responses):
        endpoint.check(Request(prompt="", sampling=sampling))
    return info, await derive(endpoint)


def _made_with(info: Info, prefix: Prefix) -> dict[str, Any]:
    return {
        "model_id": info.model_id,
        "model_sha": info.model_sha,
        "weights_sha256": info.weights_sha256,
        "exact": info.exact,
        "prefix": asdict(prefix),
    }


class _Silent:
    """An observer that tells nobody."""

    def said(self, text: str) -> None:
        """Tell nobody."""

    def answered(self, made: object, answer: object) -> None:
        """Tell nobody."""

    def attempted(self, attempt: object, reason: object) -> None:
        """Tell nobody."""
