"""Which requests TGI refuses, in TGI's words and in TGI's order."""

import json
import secrets
from dataclasses import dataclass
from typing import Any, TypeVar

from prequery.local.engine import Engine, Sampling
from prequery.local.llamacpp import RefusedError
from prequery.local.tgi import GenerateParameters, GenerateRequest, Grammar, invalid

T = TypeVar("T")

DEFAULT_MAX_NEW_TOKENS = 1024
MAX_BEST_OF = 2
MAX_STOP_SEQUENCES = 4
MAX_TOP_N_TOKENS = 5


@dataclass(frozen=True)
class Limits:
    """What the server was started with."""

    max_input_tokens: int
    max_total_tokens: int


@dataclass(frozen=True)
class Job:
    """A request that will be served.

    Attributes:
        prompt: Token ids, truncated from the left where the request says so.
        sampling: How to draw.
        stop: Strings that end the answer.
    """

    prompt: list[int]
    sampling: Sampling
    stop: tuple[str, ...]


def check_route(request: GenerateRequest, *, streamed: bool) -> None:
    """Refuse what depends on the route alone.

    Raises:
        TgiError: The request cannot be served on this route.
    """
    parameters = request.parameters
    best_of = 1 if parameters.best_of is None else parameters.best_of
    if streamed and best_of != 1:
        raise invalid("`best_of` != 1 is not supported when streaming tokens")
    if streamed and parameters.decoder_input_details:
        raise invalid("`decoder_input_details` == true is not supported when streaming tokens")
    if not 0 < best_of <= MAX_BEST_OF:
        raise invalid(f"`best_of` must be > 0 and <= {MAX_BEST_OF}. Given: {best_of}")


async def validate(request: GenerateRequest, limits: Limits, engine: Engine) -> Job:
    """Check a request and turn it into what the engine needs.

    Raises:
        TgiError: TGI would refuse it, or it asks for what this server does not have.
    """
    parameters = request.parameters
    _check_supported(parameters)
    seed = _check_values(parameters)
    if not request.inputs:
        raise invalid("`inputs` cannot be empty")
    prompt, max_new_tokens = await _check_length(request, limits, engine)
    sampling = Sampling(
        max_new_tokens=max_new_tokens,
        seed=seed if _samples(parameters) else None,
        temperature=_or(parameters.temperature, 1.0),
        top_k=_or(parameters.top_k, 0),
        top_p=_or(parameters.top_p, 1.0),
        typical_p=_or(parameters.typical_p, 1.0),
        repetition_penalty=_or(parameters.repetition_penalty, 1.0),
        frequency_penalty=_or(parameters.frequency_penalty, 0.0),
        top_n_tokens=_or(parameters.top_n_tokens, 0),
        grammar=await _compile(parameters.grammar, engine),
    )
    return Job(prompt, sampling, tuple(parameters.stop))


def _samples(parameters: GenerateParameters) -> bool:
    """Tell whether tokens are drawn; ``temperature: 1.0`` alone is greedy."""
    return (
        parameters.do_sample
        or _or(parameters.temperature, 1.0) != 1.0
        or parameters.top_k is not None
        or parameters.top_p is not None
        or parameters.typical_p is not None
    )


def _check_supported(parameters: GenerateParameters) -> None:
    if parameters.adapter_id is not None:
        raise invalid("`adapter_id` is not supported by this endpoint")
    if parameters.decoder_input_details:
        raise invalid("`decoder_input_details` == true is not supported by this endpoint")
    if parameters.watermark:
        raise invalid("`watermark` == true is not supported by this endpoint")


def _check_values(parameters: GenerateParameters) -> int:
    """Refuse values out of range, in the order of TGI's checks; return the seed to use."""
    several = _or(parameters.best_of, 1) > 1
    # Here, unlike when drawing, a temperature of 1 counts as asking for sampling.
    if several and not (_samples(parameters) or parameters.temperature is not None):
        raise invalid("you must use sampling when `best_of` is > 1")
    if _or(parameters.temperature, 1.0) <= 0:
        raise invalid("`temperature` must be strictly positive")
    if _or(parameters.repetition_penalty, 1.0) <= 0:
        raise invalid("`repetition_penalty` must be strictly positive")
    if not -2 <= _or(parameters.frequency_penalty, 0.0) <= 2:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if parameters.top_p is not None and not 0 < parameters.top_p < 1:
        raise invalid("`top_p` must be > 0.0 and < 1.0")
    if parameters.typical_p is not None and not 0 < parameters.typical_p < 1:
        raise invalid("`typical_p` must be > 0.0 and < 1.0")
    if parameters.top_k is not None and parameters.top_k <= 0:
        raise invalid("`top_k` must be strictly positive")
    if parameters.max_new_tokens == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    if len(parameters.stop) > MAX_STOP_SEQUENCES:
        raise invalid(
            f"`stop` supports up to {MAX_STOP_SEQUENCES} stop sequences. "
            f"Given: {len(parameters.stop)}"
        )
    if several and parameters.seed is not None:
        raise invalid("`seed` must not be set when `best_of` > 1")
    if _or(parameters.top_n_tokens, 0) > MAX_TOP_N_TOKENS:
        raise invalid(
            f"`top_n_tokens` must be >= 0 and <= {MAX_TOP_N_TOKENS}. "
            f"Given: {parameters.top_n_tokens}"
        )
    # The seed that was drawn is reported, so that the answer can be asked for again.
    return secrets.randbits(63) if parameters.seed is None else parameters.seed


async def _check_length(
    request: GenerateRequest, limits: Limits, engine: Engine
) -> tuple[list[int], int]:
    """Tokenise the prompt; return its ids and how many tokens may follow."""
    truncate = request.parameters.truncate
    longest = limits.max_input_tokens
    if truncate is not None and not 0 < truncate <= longest:
        raise invalid(
            f"`truncate` must be strictly positive and less than {longest}. Given: {truncate}"
        )
    prompt = [piece.id for piece in await engine.tokenize(request.inputs, add_special=True)]
    prompt = prompt if truncate is None else prompt[-truncate:]
    room = max(0, limits.max_total_tokens - len(prompt))
    max_new_tokens = _or(request.parameters.max_new_tokens, min(room, DEFAULT_MAX_NEW_TOKENS))
    if len(prompt) + max_new_tokens > limits.max_total_tokens:
        raise invalid(
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
            f"Given: {len(prompt)} `inputs` tokens and {max_new_tokens} `max_new_tokens`"
        )
    if len(prompt) > longest:
        raise invalid(f"`inputs` must have less than {longest} tokens. Given: {len(prompt)}")
    return prompt, max_new_tokens


async def _compile(grammar: Grammar | None, engine: Engine) -> str | None:
    if grammar is None:
        return None
    try:
        if grammar.type == "regex":
            if not isinstance(grammar.value, str):
                raise RefusedError("a regex is a string")
            return await engine.regex_grammar(grammar.value)
        return await engine.json_grammar(_schema(grammar))
    except RefusedError as error:
        raise invalid(f"grammar is not valid: {error}") from error


def _schema(grammar: Grammar) -> dict[str, Any]:
    schema = grammar.value
    if grammar.type == "json_schema" and isinstance(schema, dict):
        schema = schema.get("schema")
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise RefusedError(str(error)) from error
    if not isinstance(schema, dict):
        raise RefusedError("a JSON schema is an object")
    if "properties" not in schema:
        raise RefusedError("Grammar must have a 'properties' field")
    return schema


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
