"""Who writes, the model of instructions and that of responses, often the same; and who judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prequery.endpoint import Info
from prequery.prefix import Prefix
from prequery.thinking import Reply, split, whole


@dataclass(frozen=True)
class Voice:
    """A served model.

    Args:
        info: What its endpoint says of it.
        prefix: What its chat template gives.
    """

    info: Info
    prefix: Prefix

    def reply(self, text: str) -> Reply:
        """Return the thought and the words of a response."""
        return split(text, self.prefix.think, self.prefix.think_open)

    def whole(self, text: str) -> str:
        """Return a response with its think block, also where the prompt opened it."""
        return whole(text, self.prefix.think, self.prefix.think_open)

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Strings of the template that no instruction may hold."""
        return (*self.prefix.stop, *(self.prefix.think or ()))


@dataclass(frozen=True)
class Judging:
    """A served model that judges.

    Args:
        info: What its endpoint says of it.
        prefix: What its chat template gives; null: it scores and writes nothing.
    """

    info: Info
    prefix: Prefix | None


@dataclass(frozen=True)
class Voices:
    """Both models.

    Args:
        generator: Writes instructions, and later user turns.
        responder: Writes responses; the generator itself where the recipe names no other.
        judges: By name.
    """

    generator: Voice
    responder: Voice
    judges: Mapping[str, Judging] = field(default_factory=dict)
