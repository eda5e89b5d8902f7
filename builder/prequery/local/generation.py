"""Engine tokens to TGI tokens: text, stop strings and the reason to finish."""

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from prequery.local.engine import Candidate, Engine, Generated
from prequery.local.tgi import FinishReason, TgiError, Token
from prequery.local.validation import Job


@dataclass
class Answer:
    """An answer, complete once it has a reason to have finished."""

    input_tokens: int
    seed: int | None
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[list[Token]] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @property
    def mean_logprob(self) -> float:
        """Mean natural log-probability of the tokens that have one."""
        known = [token.logprob for token in self.tokens if token.logprob is not None]
        return sum(known) / len(known) if known else float("-inf")


async def grow(job: Job, engine: Engine) -> AsyncGenerator[Answer, None]:
    """Yield the same answer after every token, until it is complete.

    Raises:
        EngineError: The engine broke off.
        RefusedError: The engine cannot serve this job.
        TgiError: The engine ended the answer for no reason that TGI knows.
    """
    answer = Answer(len(job.prompt), job.sampling.seed)
    # Bytes that never become a character show as U+FFFD.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tail = ""
    longest_stop = max((len(stop) for stop in job.stop), default=0)
    async with aclosing(engine.stream(job.prompt, job.sampling)) as stream:
        async for generated in stream:
            text = generated.special or decoder.decode(generated.bytes)
            tail = (tail + text)[-longest_stop - 1 :]
            answer.finish_reason = _finish_reason(job, len(answer.tokens) + 1, generated, tail)
            if answer.finish_reason is not None and generated.special is None:
                text += decoder.decode(b"", final=True)
            if generated.special is None:
                answer.text += text
            answer.tokens.append(_token(generated, text))
            answer.top_tokens.append([_token(one, _standalone(one)) for one in generated.top])
            yield answer
            if answer.finish_reason is not None:
                return
    raise TgiError(500, "incomplete_generation", "Incomplete generation")


async def complete(job: Job, engine: Engine) -> Answer:
    """Return the whole answer.

    Raises:
        EngineError: The engine broke off.
        RefusedError: The engine cannot serve this job.
        TgiError: The engine ended the answer for no reason that TGI knows.
    """
    async with aclosing(grow(job, engine)) as growing:
        async for answer in growing:
            if answer.finish_reason is not None:
                return answer
    raise AssertionError("grow() ends with a complete answer or raises")


def _finish_reason(job: Job, count: int, token: Generated, tail: str) -> FinishReason | None:
    """Tell why the answer ends with this token, in the order of TGI's checks."""
    if count >= job.sampling.max_new_tokens:
        return "length"
    if token.is_eos:
        return "eos_token"
    # TGI's check is the regular expression `stop$`, and `$` also matches before a last line break:
    # so the stop string "." ends an answer with the token ".\n".
    if any(tail.endswith((stop, stop + "\n")) for stop in job.stop):
        return "stop_sequence"
    return None


def _token(one: Candidate, text: str) -> Token:
    return Token(one.id, text, one.logprob, special=one.special is not None)


def _standalone(one: Candidate) -> str:
    return one.special or one.bytes.decode(errors="replace")
