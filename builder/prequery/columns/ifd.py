"""How much an instruction helps a model to expect its response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.conditional import ConditionalColumn


@dataclass(frozen=True, kw_only=True)
class Ifd(ConditionalColumn):
    """Instruction-following difficulty: perplexity of the response with against without it.

    `ifd` is the ratio of `ifd_perplexity`, of the response behind the instruction, to
    `ifd_perplexity_alone`, of the response alone; over 0. Near 1 the instruction tells nothing of
    the response, which is hard to follow or does not fit; over 1 the two are at odds. Null: the
    endpoint does not tell how likely it finds a prompt, or refuses the row.

    Args:
        judge: Who reads: `generator`, `responder`, or one of the recipe's judges, whose endpoint
            tells log-probabilities of prompts.

    Source:
        Li et al., From Quantity to Quality, arXiv 2308.12032, as the ratio of perplexities of
        Superfiltering, arXiv 2402.00530. We differ: the instruction stands in the reader's own
        chat template.
    """

    name: ClassVar[str] = "ifd"
    version: ClassVar[int] = 1
    features: ClassVar[Mapping[str, str]] = {
        "ifd": "float64",
        "ifd_perplexity": "float64",
        "ifd_perplexity_alone": "float64",
    }

    def pair(self, instruction: str, response: str) -> tuple[str, str]:
        """Have the response read behind the instruction."""
        return response, instruction
