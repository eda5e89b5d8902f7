"""Say whether a model writes its own instructions, from a few draws."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prequery import draws, gates
from prequery.endpoint import Answer, Asks, Request
from prequery.prefix import Prefix
from prequery.recipe import Sampling

DRAWS = 16

_REQUEST = re.compile(
    r"\?|"
    r"^\W*(can|could|would|will|please|i|i'm|i've|i'd|my|we|we're|our|you are|act as|"
    r"write|create|design|develop|explain|describe|give|provide|generate|list|find|suggest|"
    r"summari[sz]e|translate|rewrite|edit|compare|calculate|solve|help|tell|make|imagine|"
    r"consider|let's|given|how|what|why|when|where|which|who|is|are|do|does)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What the draws show.

    Args:
        drawn: Instructions drawn.
        finished: Of them, those that the model ended by itself.
        requests: Of them, those that also pass the gates and read as a request, by a rule: a
            question mark, or a first word that a user's turn begins with. English only.
        distinct: Different texts among those that finished.
    """

    drawn: int
    finished: int
    requests: int
    distinct: int

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


async def sample(endpoint: Asks, prefix: Prefix, sampling: Sampling) -> list[Answer]:
    """Draw instructions with fixed seeds, one after the other."""
    answers = []
    for slot in range(DRAWS):
        request = Request(
            prompt=prefix.text,
            sampling=sampling,
            seed=draws.draw("probe", slot, "instruction"),
            stop=prefix.stop,
            logprobs=False,
        )
        answers.append(await endpoint.generate(request, f"probe, draw {slot}"))
    return answers


def judge(answers: Sequence[Answer], prefix: Prefix) -> Verdict:
    """Count what the draws show."""
    finished = [a.text.strip() for a in answers if a.finish_reason not in ("", "length")]
    passing = [
        answer.text.strip()
        for answer in answers
        if gates.instruction_reason(answer, prefix.stop) is None
    ]
    requests = [text for text in passing if _REQUEST.search(text)]
    return Verdict(len(answers), len(finished), len(requests), len(set(finished)))
