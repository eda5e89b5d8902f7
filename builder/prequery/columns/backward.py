"""How much a response helps a model to expect its instruction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prequery.columns.conditional import ConditionalColumn
from prequery.columns.prompted import PromptFile, pinned


@dataclass(frozen=True, kw_only=True)
class Backward(ConditionalColumn, PromptFile):
    """Perplexity of the instruction with against without its response.

    `backward` is the ratio of `backward_perplexity`, of the instruction behind a request to guess
    it from the response, to `backward_perplexity_alone`, of the instruction alone; over 0. Low: the
    response gives the instruction away. Near 1 it could be the answer to anything. Null: as `ifd`.

    Args:
        judge: As of `ifd`.

    Source:
        Li et al., Selective Reflection-Tuning, arXiv 2402.10110, reversed IFD. We differ: a request
        of our own, in the reader's own chat template.
    """

    name: ClassVar[str] = "backward"
    version: ClassVar[int] = 1
    features: ClassVar[Mapping[str, str]] = {
        "backward": "float64",
        "backward_perplexity": "float64",
        "backward_perplexity_alone": "float64",
    }

    def pair(self, instruction: str, response: str) -> tuple[str, str]:
        """Have the instruction read behind a request to guess it."""
        return instruction, f"{self.prompt}\n\n{response}"

    def pins(self) -> dict[str, str]:
        """Hash of the request."""
        return pinned("backward.txt", self.prompt)
