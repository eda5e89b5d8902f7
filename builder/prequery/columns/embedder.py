"""Which embedder a column's parameter names. Importing this imports no numerical library."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORDED = "instruction_embedding"
"""Name of the column whose evidence is the embedding of the instruction."""
RECORDED_MODEL = "instruction_embedding_model"
"""Its evidence of whose embedding that is: model@revision."""
VECTOR, VECTOR_MODEL = "instruction_vector", "instruction_vector_model"
"""Fields of a file, as of rows with the column `instruction_vector`: the same two, released."""

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}")


class Embedder(Protocol):
    """What makes vectors of texts."""

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""

    def embed(self, texts: Sequence[str | None]) -> "NDArray[np.float32]":
        """Return one vector a text.

        Returns:
            Shape (texts, dim). Each row has length 1, or is all 0 where there is no text: null,
            empty or only whitespace.
        """

    def pins(self) -> dict[str, str]:
        """What decides the vectors."""


def check(name: str, recorded: bool = False) -> None:
    """Refuse what names no embedder.

    Args:
        name: `wordllama`, or MODEL@REVISION of a sentence-transformers model on the Hub.
        recorded: It may also be `instruction_embedding`, the column.

    Raises:
        ValueError: It is neither.
    """
    if recorded and name == RECORDED:
        return
    if name != "wordllama" and not _HUB.fullmatch(name):
        raise ValueError(
            f"embedder is {name!r:.200}, neither wordllama nor MODEL@REVISION with 40 hex digits"
        )


def embedder(name: str) -> Embedder:
    """Return the embedder of that name; see `check`."""
    from prequery.columns.embedding import SentenceModel, WordLlama

    if name == "wordllama":
        return WordLlama()
    return SentenceModel(*name.split("@"))
