"""The instruction as a vector, by an endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prequery.columns.base import Embed, QuestionColumn


@dataclass(frozen=True, kw_only=True)
class InstructionEmbedding(QuestionColumn):
    """Embedding of the instruction, for columns whose `embedder` is `instruction_embedding`.

    It is released in no row: it is kept in the column's journal, rounded to 1/4000 as those columns
    round every vector. A model on a GPU may give the same text other last digits in another batch,
    and so may a distance be another by about 0.0003. Null, and with it what is measured by it: the
    instruction is empty, or the endpoint refuses it.

    Args:
        judge: One of the recipe's judges: text-embeddings-inference with an embedding model.
    """

    name: ClassVar[str] = "instruction_embedding"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {}
    evidence: ClassVar[Mapping[str, str]] = {
        "instruction_embedding": "string",
        "instruction_embedding_model": "string",
    }
    asks: ClassVar[type[Embed]] = Embed

    def ask(self, row: Mapping[str, Any]) -> Embed | None:
        """Return the instruction."""
        instruction = row["instruction"]
        return Embed(instruction) if (instruction or "").strip() else None

    def read(self, said: str, model: str) -> dict[str, Any]:
        """Return the vector as it was recorded, and whose it is."""
        return {"instruction_embedding": said, "instruction_embedding_model": model}
