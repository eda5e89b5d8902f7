"""Say whether a model writes its own instructions, from a few draws."""

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prequery import draws, gates
from prequery.endpoint import Answer, Asks, Request
from prequery.errors import EndpointError
from prequery.prefix import Prefix
from prequery.recipe import Sampling

DRAWS = 16

REQUEST_RULE = (
    "a request is a finished text that passes the gates and has a question mark, or says can you, "
    "could you, help me, I need, I want or I would like, or begins with a word that asks: please, "
    "write, explain, how, ...; English only"
)
# Statements such as "You are an assistant" or "I am a student" ask for nothing. A base model that
# imitates the system prompt before them writes many of these.
_REQUEST = re.compile(
    r"\?|"
    r"\b(can|could) you\b|\bhelp me\b|\bi (need|want|would like)\b|\bi'd like\b|"
    r"^\W*(can|could|would|will|please|act as|"
    r"write|create|design|develop|explain|describe|give|provide|generate|list|find|suggest|"
    r"summari[sz]e|translate|rewrite|edit|compare|calculate|solve|help|tell|make|"
    r"how|what|why|when|where|which|who)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What the draws show.

    Args:
        drawn: Instructions drawn.
        finished: Of them, those that the model ended by itself.
        requests: Of them, those that also pass the gates and read as a request, by
            `REQUEST_RULE`.
        distinct: Different texts among those that finished.
        logprob_mean: Mean natural log-probability of a token, over all draws, as the endpoint
            reports it; null where it reports none.
    """

    drawn: int
    finished: int
    requests: int
    distinct: int
    logprob_mean: float | None = None

    @property
    def self_synthesizes(self) -> bool:
        """Whether at least half of the draws are requests, and no two of ten are the same."""
        return self.requests * 2 >= self.drawn and self.distinct * 10 >= self.finished * 9

    def sentence(self, model: str) -> str:
        """Return the verdict in one line."""
        verb = "self-synthesizes" if self.self_synthesizes else "does NOT self-synthesize"
        return (
            f"{model} {verb}: {self.finished} of {self.drawn} draws finished, "
            f"{self.requests} read as requests, {self.distinct} are distinct"
        )


async def sample(
    endpoint: Asks,
    prefix: Prefix,
    sampling: Sampling,
    count: int = DRAWS,
    logprobs: bool = False,
    drawn: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Draw instructions with fixed seeds, as many at a time as the endpoint takes.

    Args:
        endpoint: Whom to ask.
        prefix: What to send.
        sampling: How to decode.
        count: Instructions to draw. Draw n has the same seed whatever the count.
        logprobs: Whether log-probabilities are read.
        drawn: Called after each draw.

    Raises:
        EndpointError: A draw got no answer.
    """

    async def draw(number: int) -> Answer:
        request = Request(
            prompt=prefix.text,
            sampling=sampling,
            seed=draws.draw("probe", number, "instruction"),
            stop=prefix.stop,
            logprobs=logprobs,
        )
        answer = await endpoint.generate(request, f"probe, draw {number}")
        if answer.error is not None:
            raise EndpointError(
                f"draw {number} of {count} got no answer: {answer.error}",
                f"{endpoint.address}, probe",
                "correct what the endpoint says and run the same command; nothing is kept",
            )
        drawn()
        return answer

    tasks = [asyncio.create_task(draw(number)) for number in range(count)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        # The first error is what the user can act on; nobody waits for the others.
        for task in tasks:
            task.cancel()


def is_request(answer: Answer, prefix: Prefix) -> bool:
    """Tell whether a draw passes the gates and reads as a request, by `REQUEST_RULE`."""
    passes = gates.instruction_reason(answer, prefix.stop) is None
    return passes and _REQUEST.search(answer.text.strip()) is not None


def is_finished(answer: Answer) -> bool:
    """Tell whether the model ended a draw by itself."""
    return answer.finish_reason not in ("", "length")


def judge(answers: Sequence[Answer], prefix: Prefix) -> Verdict:
    """Count what the draws show."""
    finished = [answer.text.strip() for answer in answers if is_finished(answer)]
    tokens = sum(answer.logprob_count for answer in answers)
    logprobs = math.fsum(answer.logprob_sum or 0.0 for answer in answers)
    return Verdict(
        drawn=len(answers),
        finished=len(finished),
        requests=sum(is_request(answer, prefix) for answer in answers),
        distinct=len(set(finished)),
        logprob_mean=logprobs / tokens if tokens else None,
    )
