"""A build, stage after stage: this module is the table of contents."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from prequery import instructions, lock, shards
from prequery.budget import Budget, Price
from prequery.endpoint import Asks, Info, Request
from prequery.errors import BudgetError, StoppedError
from prequery.fleet import Fleet, token_from
from prequery.journal import Journal, folder_for
from prequery.local.process import start
from prequery.lock import Lock
from prequery.prefix import Prefix, check_model, derive, prove
from prequery.recipe import LOCAL, Endpoint, Generator, Recipe
from prequery.runner import run_async, until_interrupted
from prequery.selection import Selection, Selector
from prequery.synthesis import Observer, Synthesis
from prequery.transport import Patience
from prequery.voices import Voice, Voices


@dataclass(frozen=True)
class Options:
    """What changes the speed or the place of a build, and no value.

    Args:
        endpoints: Addresses instead of the recipe's; none takes the recipe's. A token goes only
            to the recipe's own address: for others, name its variable here.
        token_env: Environment variable with the bearer token for `endpoints`.
        responder_endpoints: The same of the recipe's responder.
        responder_token_env: The same of the recipe's responder.
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
    responder_endpoints: tuple[str, ...] = ()
    responder_token_env: str | None = None
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

    def selector(self, voices: Voices) -> Selector:
        return Selector(self.recipe, voices, self.folder, self.rows_per_shard)


def _replay(rows: _Rows, journal: Journal) -> tuple[Lock, Selection] | None:
    """Return a build whose answers are all in the journal; null when some are missing."""
    recipe = rows.recipe
    if not journal.header or len(journal) < 2 * recipe.rows:
        return None  # every row has two answers
    voices = _noted(journal.header)
    selector = rows.selector(voices)
    if not run_async(Synthesis(recipe, voices, journal, selector, _Silent()).run()):
        return None
    pinned = lock.pin(recipe, voices)
    lock.hold(recipe, pinned)
    return pinned, selector.selection


async def _synthesize(
    rows: _Rows, options: Options, journal: Journal, observer: Observer
) -> tuple[Lock, Selection]:
    """Ask an endpoint for what the journal lacks."""
    recipe = rows.recipe
    budget = Budget(options.max_tokens, options.max_seconds, options.max_cost_usd, price(recipe))
    async with asked(recipe, options, observer.said) as models:
        voices = await meet(recipe, models)
        pinned = lock.pin(recipe, voices)
        lock.hold(recipe, pinned)
        journal.agree(_made_with(recipe, voices), _notes(recipe, voices))
        await prove(models.generator, voices.generator.prefix, recipe.instructions[0])
        if models.responder:
            await prove(models.responder, voices.responder.prefix, recipe.instructions[0])
        selector = rows.selector(voices)
        limit = recipe.endpoint.concurrency
        stream = Synthesis(
            recipe,
            voices,
            journal,
            selector,
            observer,
            models.generator,
            models.responder,
            limit,
            budget,
        )
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


@dataclass(frozen=True)
class Models:
    """Whom a build asks; no responder: the generator writes the responses too."""

    generator: Fleet
    responder: Fleet | None


@asynccontextmanager
async def asked(
    recipe: Recipe, options: Options, say: Callable[[str], None]
) -> AsyncIterator[Models]:
    """Connect to the endpoints of the recipe's models.

    Raises:
        EndpointError: One does not answer, or the environment variable of its token is empty.
    """
    async with AsyncExitStack() as stack:
        generator = await stack.enter_async_context(generator_fleet(recipe, options, say))
        responder = None
        if recipe.responder:
            given, token_env = options.responder_endpoints, options.responder_token_env
            fleet = _fleet(
                recipe.responder.model, recipe.responder.endpoint, given, token_env, options, say
            )
            responder = await stack.enter_async_context(fleet)
        yield Models(generator, responder)


def generator_fleet(
    recipe: Recipe, options: Options, say: Callable[[str], None]
) -> AbstractAsyncContextManager[Fleet]:
    """Connect to the endpoints of the model that writes instructions."""
    return _fleet(
        recipe.generator.model,
        recipe.endpoint,
        options.endpoints,
        options.token_env,
        options,
        say,
    )


@asynccontextmanager
async def _fleet(
    model: str,
    endpoint: Endpoint,
    given: tuple[str, ...],
    token_env: str | None,
    options: Options,
    say: Callable[[str], None],
) -> AsyncIterator[Fleet]:
    """Yield the given endpoints as one, or the recipe's, with the token that is meant for them."""
    token = token_from(token_env if given else endpoint.token_env)
    with _serve(given or (endpoint.url,), options, say) as addresses:
        protocol = "auto" if given else endpoint.protocol
        async with Fleet(
            addresses, token, options.patience, endpoint.concurrency, say, protocol, model
        ) as fleet:
            yield fleet


@contextmanager
def _serve(
    addresses: tuple[str, ...], options: Options, say: Callable[[str], None]
) -> Iterator[tuple[str, ...]]:
    """Yield the endpoints' addresses; the embedded endpoint runs as long as it is needed."""
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(start(exact=options.exact, say=say)) if one == LOCAL else one
            for one in addresses
        )


def price(recipe: Recipe) -> Price:
    """Return what tokens cost at the recipe's endpoint."""
    endpoint = recipe.endpoint
    return Price(endpoint.usd_per_million_prompt_tokens, endpoint.usd_per_million_generated_tokens)


async def meet(recipe: Recipe, models: Models) -> Voices:
    """See that the endpoints serve the recipe's models, and derive the prefixes from them."""
    base = Path(recipe.source).parent
    asking = [instructions.kind(setting) for setting in recipe.instructions]
    answering = [Request(prompt="", sampling=recipe.responses)]
    if recipe.responder is None or models.responder is None:
        both = await _voice(recipe.generator, models.generator, asking + answering, base)
        return Voices(both, both)
    return Voices(
        await _voice(recipe.generator, models.generator, asking, base),
        await _voice(recipe.responder, models.responder, answering, base),
    )


async def _voice(
    model: Generator, endpoint: Asks, requests: Sequence[Request], base: Path
) -> Voice:
    """Meet one model, and see that its endpoint can honour what will be asked of it."""
    info = await endpoint.info()
    check_model(info, model, endpoint.address)
    for request in requests:
        endpoint.check(request)
    return Voice(info, await derive(endpoint, model, base))


def _made_with(recipe: Recipe, voices: Voices) -> dict[str, Any]:
    """Return what decides an answer besides the recipe."""
    made_with = _of(voices.generator)
    return made_with | {"responder": _of(voices.responder)} if recipe.responder else made_with


def _of(voice: Voice) -> dict[str, Any]:
    info = voice.info
    return {
        "model_id": info.model_id,
        "model_sha": info.model_sha,
        "weights_sha256": info.weights_sha256,
        "exact": info.exact,
        "prefix": asdict(voice.prefix),
    }


def _notes(recipe: Recipe, voices: Voices) -> dict[str, Any]:
    """Return what else a replay needs to know of the endpoints."""
    notes = msgspec.structs.asdict(voices.generator.info)
    responder = msgspec.structs.asdict(voices.responder.info)
    return notes | {"responder": responder} if recipe.responder else notes


def _noted(header: Mapping[str, Any]) -> Voices:
    """Return the models that a journal's answers were made with."""

    def voice(notes: Mapping[str, Any], made_with: Mapping[str, Any]) -> Voice:
        known = {name: value for name, value in notes.items() if name != "responder"}
        return Voice(Info(**known), Prefix.from_json(made_with["prefix"]))

    notes, made_with = header["notes"], header["made_with"]
    generator = voice(notes, made_with)
    if "responder" not in made_with:
        return Voices(generator, generator)
    return Voices(generator, voice(notes["responder"], made_with["responder"]))


class _Silent:
    """An observer that tells nobody."""

    def said(self, text: str) -> None:
        """Tell nobody."""

    def answered(self, made: object, answer: object) -> None:
        """Tell nobody."""

    def attempted(self, attempt: object, reason: object) -> None:
        """Tell nobody."""
