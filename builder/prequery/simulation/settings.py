"""What a simulated fleet is, and what it tells of itself."""

from typing import Literal

import msgspec

MODEL = "prequery/simulated"
REVISION = "0" * 40


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens an answer has: lognormal, so a few are many times the median.

    Args:
        instruction_median: Tokens, with the end-of-turn token.
        response_median: As above.
        sigma: Standard deviation of the logarithm; 0 makes every answer as long as the median.
    """

    instruction_median: float = 25.0
    response_median: float = 350.0
    sigma: float = 0.8


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """Share of requests to generate, in [0, 1], that end in each fault; together at most 1.

    Args:
        overloaded: 429 at once, though there is room.
        unhealthy: 503 at once.
        failed: 424, or 500 of raw completions, after the generation.
        reset: The connection is reset half-way through the generation.
        truncated: The connection ends in the middle of the answer.
        malformed: A 200 of the right length that is no JSON.
        stall: No answer for `stall_s`, and then a reset.
        drip: A whole answer, sent bit by bit over `drip_s`.
        stall_s: Seconds.
        drip_s: Seconds.
    """

    overloaded: float = 0.0
    unhealthy: float = 0.0
    failed: float = 0.0
    reset: float = 0.0
    truncated: float = 0.0
    malformed: float = 0.0
    stall: float = 0.0
    drip: float = 0.0
    stall_s: float = 60.0
    drip_s: float = 5.0

    def rates(self) -> dict[str, float]:
        """Return kind to share, in a fixed order."""
        return {kind: getattr(self, kind) for kind in KINDS}


KINDS = (
    "overloaded",
    "unhealthy",
    "failed",
    "reset",
    "truncated",
    "malformed",
    "stall",
    "drip",
)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of the fleet.

    A slot decodes one answer: `prefill_s`, then `token_s` for each token.

    Args:
        slots: Answers decoded at the same time; more requests wait in a queue.
        token_s: Seconds a token; 0 answers at once and never queues.
        prefill_s: Seconds before the first token.
        max_concurrent_requests: Running and queued; more get 429. Null: as many as slots, or
            without end where completions are spoken: llama.cpp's server queues them all.
        slowdown: Share of `token_s` by which a token takes longer for each answer that is decoded
            when it starts. A real server slows down a little as its batch grows.
        tells_limit: Over TGI's protocol: `/info` names `max_concurrent_requests`. vLLM never tells.
    """

    slots: int = 256
    token_s: float = 0.02
    prefill_s: float = 0.0
    max_concurrent_requests: int | None = None
    slowdown: float = 0.0
    tells_limit: bool = True

    @property
    def takes(self) -> int:
        """Requests that it has, running or queued, before it answers 429."""
        return self.max_concurrent_requests or self.slots

    def service_s(self, tokens: int) -> float:
        """Return how long a slot is busy with an answer of so many tokens."""
        return self.prefill_s + tokens * self.token_s


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated fleet.

    Args:
        machines: Its endpoints.
        seed: Other seeds give other words, lengths and faults.
        lengths: Of the answers.
        faults: Of every endpoint.
        model_id: That is served.
        model_sha: As above; raw completions tell none.
        protocol: TGI's, or raw completions as llama.cpp's server speaks them.
        template: Chat template that is served, as Jinja; null: ChatML.
        bos: Token that the tokenizer puts in front of every prompt, and the template's
            `bos_token`; empty: it has none.
        eos: The template's `eos_token`.
    """

    machines: tuple[Machine, ...] = (Machine(),)
    seed: int = 0
    lengths: Lengths = Lengths()
    faults: Faults = Faults()
    model_id: str = MODEL
    model_sha: str = REVISION
    protocol: Literal["tgi", "completions"] = "tgi"
    template: str | None = None
    bos: str = ""
    eos: str = ""


class Counters(msgspec.Struct, kw_only=True):
    """What one endpoint did so far. Times are on the server's own clock.

    Args:
        requests: To generate, that came.
        answered: Whole answers that were written.
        answered_again: Of them, those to a request that was answered before, by its
            `max_new_tokens`: the four requests that prove a prefix at every start ask for 32.
        refused: 429 for want of room.
        left: Requests whose client went away first.
        faults: Kind of fault to how often it was played.
        prompt_tokens: Of the whole answers.
        generated_tokens: Of the whole answers.
        busy_s: Slot seconds that were used.
        fed_busy_s: Of them, those until the last request came: what follows is the tail, when
            a build has nothing more to ask for.
        fed_until: When the last request came.
        service_s: Slot seconds that the whole answers need.
        peak: Most slots that were busy at the same time.
        crowd: Most requests that it had, decoded or queued, at the same time.
        first_at: When the first request came; 0 when none did.
        crowded_at: When two requests were first in work together: what comes before, one by one,
            is a build that looks at what it was given.
        last_at: When the last answer was written.
    """

    requests: int = 0
    answered: int = 0
    answered_again: dict[int, int] = {}
    refused: int = 0
    left: int = 0
    faults: dict[str, int] = {}
    prompt_tokens: int = 0
    generated_tokens: int = 0
    busy_s: float = 0.0
    fed_busy_s: float = 0.0
    fed_until: float = 0.0
    service_s: float = 0.0
    peak: int = 0
    crowd: int = 0
    first_at: float = 0.0
    crowded_at: float = 0.0
    last_at: float = 0.0

    def utilisation(self, slots: int) -> float:
        """Return the share of the slots' time in use, until the last answer."""
        began = self.crowded_at or self.first_at
        return self.busy_s / max(slots * (self.last_at - began), 1e-9)
