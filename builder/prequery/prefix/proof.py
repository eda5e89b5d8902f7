"""Prove, before the first row, that the endpoint serves the model and continues raw prompts."""

import re
from typing import NamedTuple

from prequery.endpoint import Asks, Info, Request
from prequery.errors import EndpointError
from prequery.prefix.shape import Prefix
from prequery.recipe import Generator, Sampling

_GREETING = re.compile(
    r"how (can|may) i (help|assist)|i('m| am) (here|ready) to (help|assist)|"
    r"what can i (do|help)|i('m| am) an ai",
    re.IGNORECASE,
)


def check_model(info: Info, generator: Generator, address: str) -> None:
    """Refuse an endpoint that serves another model than the recipe names.

    Raises:
        EndpointError: The id differs, or the revision where the endpoint tells one.
    """
    served = f"{info.model_id}@{info.model_sha or 'unknown revision'}"
    wanted = f"{generator.model}@{generator.revision}"
    same_revision = info.model_sha in (None, generator.revision)
    if info.model_id != generator.model or not same_revision:
        raise EndpointError(
            f"the endpoint serves {served}, the recipe asks for {wanted}",
            address,
            "point --endpoint at the right model, or change generator.model and .revision",
        )


class Proof(NamedTuple):
    """What was proven.

    Args:
        is_certain: The endpoint counts prompt tokens, and as many as were sent.
        sentence: The same in words.
    """

    is_certain: bool
    sentence: str


async def prove(endpoint: Asks, prefix: Prefix, sampling: Sampling) -> Proof:
    """Ask the endpoint four times, and see that it continues the prefix as it stands.

    An endpoint that puts raw prompts into a chat template of its own counts more prompt tokens
    than were sent, and makes the model greet instead of ask. The count tells for sure, in every
    language; greetings are known in English only and are the sign where nothing is counted.

    Raises:
        EndpointError: It does one of both.
    """
    short = Sampling(sampling.temperature, sampling.top_p, sampling.top_k, None, 32)
    answers = []
    for seed in range(1, 5):
        request = Request(
            prompt=prefix.text, sampling=short, seed=seed, stop=prefix.stop, logprobs=False
        )
        answer = await endpoint.generate(request, "proof of the prefix")
        if answer.error is not None:
            raise EndpointError(
                f"the endpoint refuses the prefix: {answer.error}",
                f"{endpoint.address}, pass 1",
                "lower max_new_tokens or correct the sampling of the recipe's instructions",
            )
        answers.append(answer)
    counts = {answer.prompt_tokens for answer in answers if answer.prompt_tokens is not None}
    sent = len(prefix.ids)
    greetings = sum(bool(_GREETING.search(answer.text)) for answer in answers)
    if counts - {sent} or greetings >= 2:
        why = (
            f"it counts {max(counts - {sent})} prompt tokens where {sent} were sent"
            if counts - {sent}
            else f"{greetings} of 4 answers greet, as {answers[0].text[:60]!r}"
        )
        raise EndpointError(
            f"the endpoint applies a chat template of its own to raw prompts: {why}",
            f"{endpoint.address}, /generate",
            "use an endpoint with raw completions; a greeting is no instruction",
        )
    if counts:
        said = f"prompts go to the model as they are: the endpoint counts the {sent} tokens sent"
        return Proof(True, said)
    return Proof(
        False,
        "whether prompts go to the model as they are is not known for sure: the endpoint counts "
        "no prompt tokens; its answers do not greet in English",
    )
