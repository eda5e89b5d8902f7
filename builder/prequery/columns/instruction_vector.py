"""The instruction as a vector, in the row."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from prequery.columns.base import Embed, Inquiry, JudgeColumn, To
from prequery.columns.instruction_embedding import InstructionEmbedding


@dataclass(frozen=True, kw_only=True)
class InstructionVector(JudgeColumn):
    """The embedding of the instruction, released, and the model whose it is.

    What the column `instruction_embedding` records, by its journal: both together cost one answer.
    A dataset with it can be the reference set of `novelty`. `instruction_vector` is a unit vector,
    times 4,000 and rounded, 16 bits a number, low byte first, in base64; in Python
    `numpy.frombuffer(base64.b64decode(text), "<i2") / 4000`. `instruction_vector_model` is
    model@revision. Both are null where the instruction is empty, or the endpoint refuses it.

    Args:
        judge: One of the recipe's judges: text-embeddings-inference with an embedding model.
    """

    name: ClassVar[str] = "instruction_vector"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {
        "instruction_vector": "string",
        "instruction_vector_model": "string",
    }
    asks: ClassVar[type[Embed]] = Embed

    def askers(self) -> tuple[JudgeColumn, ...]:
        """Return the column that records the embedding."""
        return (self._embedding,)

    def inquire(self, row: Mapping[str, Any]) -> Inquiry:
        """Ask for the embedding, or read what was recorded."""
        question = self._embedding.ask(row)
        if question is not None:
            (said,) = yield [To(self._embedding, question)]
            if said is not None:
                return {"instruction_vector": said.text, "instruction_vector_model": said.model}
        return dict.fromkeys(self.features)

    @cached_property
    def _embedding(self) -> InstructionEmbedding:
        return InstructionEmbedding(judge=self.judge)
