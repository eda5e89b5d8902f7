"""The models of a build: connect to their endpoints, meet what is served there, and note it."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from prequery import instructions, judge_check, judging, responses
from prequery.columns.base import Continuation, Embed, Prompt, Question, Reading, Score
from prequery.endpoint import Asks, Info, Request
from prequery.errors import EndpointError, PrefixError, RecipeError
from prequery.fleet import Fleet, token_from
from prequery.journal import Journal
from prequery.judge_check import Check
from prequery.judging import Bench
from prequery.local.process import start
from prequery.options import Options
from prequery.prefix import Prefix, check_model, derive, prove
from prequery.prefix.template import find
from prequery.recipe import LOCAL, TRANSFORMERS, AnyRecipe, Endpoint, Generator, Recipe
from prequery.reward_model import RewardModel
from prequery.voices import Judging, Voice, Voices


@dataclass(frozen=True)
class Models:
    """Whom a build asks; no responder: the generator writes the responses too."""

    generator: Fleet
    responder: Fleet | None
    judges: Mapping[str, Asks]


@asynccontextmanager
async def asked(
    recipe: Recipe, options: Options, say: Callable[[str], None]
) -> AsyncIterator[Models]:
    """Connect to the endpoints of the recipe's models.

    Raises:
        EndpointError: One does not answer, or the environment variable of its token is empty.
        RecipeError: An address is given for a model that the recipe does not have.
    """
    if options.responder_endpoints and not recipe.responder:
        raise RecipeError(
            "an endpoint is given for a responder, and the recipe has none",
            "--responder-endpoint",
            "leave it out, or add a responder to the recipe",
        )
    async with AsyncExitStack() as stack:
        generator = await stack.enter_async_context(generator_fleet(recipe, options, say))
        responder = None
        if recipe.responder:
            place = _Place(
                recipe.responder.endpoint, options.responder_endpoints, options.responder_token_env
            )
            fleet = _fleet(recipe.responder.model, place, options, say)
            responder = await stack.enter_async_context(fleet)
        own = {"generator": generator, "responder": responder or generator}
        judges = await stack.enter_async_context(judge_fleets(recipe, options, say, own))
        yield Models(generator, responder, judges)


@asynccontextmanager
async def judge_fleets(
    recipe: AnyRecipe,
    options: Options,
    say: Callable[[str], None],
    own: Mapping[str, Fleet] | None = None,
) -> AsyncIterator[dict[str, Asks]]:
    """Connect to the endpoints of the recipe's judges, by name.

    Args:
        recipe: Names them.
        options: May say where they are.
        say: Is told what happens.
        own: The recipe's own models, where they are connected to; they judge too.

    Raises:
        EndpointError: One does not answer, or the environment variable of its token is empty.
        RecipeError: An address is given for a judge that the recipe does not have.
    """
    for name in options.judge_endpoints:
        if name not in recipe.judges:
            known = ", ".join(recipe.judges) or "it has none"
            raise RecipeError(
                f"an endpoint is given for the judge {name!r}, which the recipe does not have",
                "--judge-endpoint",
                f"write NAME=ADDRESS with a judge of the recipe: {known}",
            )
    async with AsyncExitStack() as stack:
        judges: dict[str, Asks] = {}
        for name, judge in recipe.judges.items():
            given = options.judge_endpoints.get(name, ())
            if own and name in own and not given:
                judges[name] = own[name]
                continue
            if judge.endpoint.url == TRANSFORMERS and not given:
                scores = RewardModel(judge.model, judge.revision, Path(recipe.source).parent)
                judges[name] = await stack.enter_async_context(scores)
                continue
            place = _Place(judge.endpoint, given, None)
            fleet = _fleet(judge.model, place, options, say)
            judges[name] = await stack.enter_async_context(fleet)
        yield judges


def generator_fleet(
    recipe: Recipe, options: Options, say: Callable[[str], None]
) -> AbstractAsyncContextManager[Fleet]:
    """Connect to the endpoints of the model that writes instructions."""
    place = _Place(recipe.endpoint, options.endpoints, options.token_env)
    return _fleet(recipe.generator.model, place, options, say)


@dataclass(frozen=True)
class _Place:
    """Where a model is: at the given addresses, else where the recipe says.

    The recipe's token is for the recipe's address alone.
    """

    endpoint: Endpoint
    given: tuple[str, ...]
    token_env: str | None


@asynccontextmanager
async def _fleet(
    model: str, place: _Place, options: Options, say: Callable[[str], None]
) -> AsyncIterator[Fleet]:
    """Yield a model's endpoints as one, with the token that is meant for them."""
    endpoint, given = place.endpoint, place.given
    token = token_from(place.token_env if given else endpoint.token_env)
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


async def meet(recipe: Recipe, models: Models) -> Voices:
    """See that the endpoints serve the recipe's models, and derive the prefixes from them."""
    base = Path(recipe.source).parent
    asking = [instructions.kind(setting) for setting in recipe.instructions]
    judges = await meet_judges(recipe, models.judges)
    generator = responder = await _voice(recipe.generator, models.generator, asking, base)
    if recipe.responder and models.responder:
        responder = await _voice(recipe.responder, models.responder, [], base)
    # What a response needs depends on the template: control tokens may mark its thoughts.
    answers = models.responder or models.generator
    answers.check(responses.kind(recipe, responder.prefix))
    return Voices(generator, responder, judges)


async def _voice(
    model: Generator, endpoint: Asks, requests: Sequence[Request], base: Path
) -> Voice:
    return Voice(await _info(model, endpoint, requests), await derive(endpoint, model, base))


async def meet_judges(recipe: AnyRecipe, judges: Mapping[str, Asks]) -> dict[str, Judging]:
    """See that the endpoints serve the recipe's judges, and can do what their columns want."""
    return {name: await _judge(recipe, name, endpoint) for name, endpoint in judges.items()}


async def _judge(recipe: AnyRecipe, name: str, endpoint: Asks) -> Judging:
    model = recipe.judges[name]
    askers = (one for one in judging.askers(recipe).values() if one.judge == name)
    kinds = {column.asks for column in askers}
    questions = [judging.request(_SAMPLES[kind], None) for kind in kinds]
    info = await _info(model, endpoint, questions)
    if kinds.isdisjoint(_IN_TEMPLATE):
        return Judging(info, None)
    return Judging(info, await derive(endpoint, model, Path(recipe.source).parent))


_SAMPLES: Mapping[type[Question], Question] = {
    Score: Score(""),
    Prompt: Prompt("", schema={}),
    Reading: Reading(""),
    Continuation: Continuation(""),
    Embed: Embed(""),
}
_IN_TEMPLATE = frozenset({Prompt, Reading})
"""Questions that are put into the judge's chat template."""


async def _info(model: Generator, endpoint: Asks, requests: Sequence[Request]) -> Info:
    """Meet one model, and see that its endpoint can honour what will be asked of it."""
    info = await endpoint.info()
    check_model(info, model, endpoint.address)
    for request in requests:
        endpoint.check(request)
    return info


async def prove_prefixes(
    recipe: Recipe, models: Models, voices: Voices, say: Callable[[str], None]
) -> None:
    """See that every endpoint that writes continues its prefix as it stands.

    Args:
        recipe: Samples the proof.
        models: Are asked.
        voices: Their prefixes.
        say: Is told what cannot be known for sure.

    Raises:
        EndpointError: One does not.
    """
    setting = recipe.instructions[0]
    proofs = [await prove(models.generator, voices.generator.prefix, setting)]
    if models.responder:
        proofs.append(await prove(models.responder, voices.responder.prefix, setting))
    for proof in proofs:
        if not proof.is_certain:
            say(proof.sentence)


async def try_readings(
    recipe: AnyRecipe, judges: Mapping[str, Asks], say: Callable[[str], None]
) -> None:
    """Have each judge that reads texts read one, and say where its endpoint tells nothing of it.

    Args:
        recipe: Names the columns that have texts read.
        judges: Are asked.
        say: Is told which columns will be null.
    """
    for name, endpoint in judges.items():
        askers = judging.askers(recipe).values()
        reading = [one.name for one in askers if one.judge == name and one.asks is Reading]
        if reading:
            request = judging.request(Reading("Hello there."), None)
            answer = await endpoint.generate(request, "before the first row", urgent=True)
            if answer.error is not None:
                say(f"{' and '.join(reading)} will be null: {name}: {answer.error}")


async def check_judges(
    recipe: AnyRecipe,
    journals: Mapping[str, Journal],
    asked: Mapping[str, Asks],
    judges: Mapping[str, Judging],
) -> dict[str, Check]:
    """Measure the judges before the first row, so that it is known what their labels are worth.

    Args:
        recipe: Names them.
        journals: Of their checks.
        asked: Their endpoints.
        judges: What is served there.

    Raises:
        EndpointError: One does not answer.
    """
    benches = {}
    for name, journal in journals.items():
        note_judge(journal, judges[name])
        benches[name] = Bench(journal, asked[name])
    checks = await judge_check.check_all(recipe, benches, judges)
    if checks is None:
        raise EndpointError(
            "a judge gave no answer to a labelled instruction, however often it was asked",
            ", ".join(asked[name].address for name in benches),
            "see that it works, then run the same command: its answers are kept",
        )
    return checks


def made_with(recipe: Recipe, voices: Voices) -> dict[str, Any]:
    """Return what decides an answer besides the recipe."""
    made = _of(voices.generator)
    return made | {"responder": _of(voices.responder)} if recipe.responder else made


def _of(voice: Voice) -> dict[str, Any]:
    info = voice.info
    return {
        "model_id": info.model_id,
        "model_sha": info.model_sha,
        "weights_sha256": info.weights_sha256,
        "exact": info.exact,
        "prefix": asdict(voice.prefix),
    }


def notes(recipe: Recipe, voices: Voices) -> dict[str, Any]:
    """Return what else a replay needs to know of the endpoints."""
    noted = msgspec.structs.asdict(voices.generator.info)
    responder = msgspec.structs.asdict(voices.responder.info)
    return noted | {"responder": responder} if recipe.responder else noted


def note_judge(journal: Journal, judge: Judging) -> None:
    """Note in a journal of a judge's answers what decides these besides the column.

    Raises:
        JournalError: Those that it holds are of another judge.
    """
    info = judge.info
    made: dict[str, Any] = {"model_id": info.model_id, "model_sha": info.model_sha}
    made |= {"weights_sha256": info.weights_sha256} if info.weights_sha256 else {}
    made |= {"prefix": asdict(judge.prefix)} if judge.prefix else {}
    journal.agree(made, msgspec.structs.asdict(info))


def templates_changed(recipe: Recipe, voices: Voices) -> bool:
    """Tell whether a template file that the recipe names is another than the recorded one.

    A file that is gone cannot tell; what was recorded stands without it.
    """
    base = Path(recipe.source).parent
    both = [(recipe.generator, voices.generator)]
    both += [(recipe.responder, voices.responder)] if recipe.responder else []
    for model, voice in both:
        if model.template is None or model.template.tokenizer == "":
            continue  # the endpoint's, or of a pinned revision
        try:
            now = find(model, base)
        except PrefixError:
            continue
        if now is not None and now.sha256 != voice.prefix.template_sha256:
            return True
    return False


def noted(header: Mapping[str, Any], judges: Mapping[str, Mapping[str, Any]]) -> Voices:
    """Return the models that a journal's answers were made with.

    Args:
        header: Of the journal.
        judges: Headers of the judges' journals, by the judge.
    """

    def voice(notes: Mapping[str, Any], made: Mapping[str, Any]) -> Voice:
        known = {name: value for name, value in notes.items() if name != "responder"}
        return Voice(Info(**known), Prefix.from_json(made["prefix"]))

    notes, made = header["notes"], header["made_with"]
    generator = responder = voice(notes, made)
    if "responder" in made:
        responder = voice(notes["responder"], made["responder"])

    return Voices(generator, responder, {name: noted_judge(one) for name, one in judges.items()})


def noted_judge(header: Mapping[str, Any]) -> Judging:
    """Return the judge that a journal's answers were made with, by its header."""
    prefix = header["made_with"].get("prefix")
    return Judging(Info(**header["notes"]), Prefix.from_json(prefix) if prefix else None)
