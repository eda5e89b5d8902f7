"""Who writes: the model of the instructions, and the model of the responses, often the same."""

from dataclasses import dataclass

from prequery.endpoint import Info
from prequery.prefix import Prefix
from prequery.thinking import Markers, Reply, split, whole


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
        return split(text, self._markers, self._thinks_at_once)

    def whole(self, text: str) -> str:
        """Return a response with its think block, also where the prompt opened it."""
        return whole(text, self._markers, self._thinks_at_once)

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Strings of the template that no instruction may hold."""
        return (*self.prefix.stop, *(self._markers or ()))

    @property
    def _markers(self) -> Markers | None:
        return self.prefix.think

    @property
    def _thinks_at_once(self) -> bool:
        markers = self._markers
        return markers is not None and self.prefix.suffix.rstrip().endswith(markers[0])


@dataclass(frozen=True)
class Voices:
    """Both models.

    Args:
        generator: Writes instructions, and later user turns.
        responder: Writes responses; the generator itself where the recipe names no other.
    """

    generator: Voice
    responder: Voice
