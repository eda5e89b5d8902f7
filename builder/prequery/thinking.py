"""Take the think block out of what a thinking model writes."""

from typing import NamedTuple

Markers = tuple[str, str]
"""What opens a think block and what closes it."""


class Reply(NamedTuple):
    """A response in its two parts, without white space around them.

    Args:
        thought: What stood in the think block; null where there is none.
        words: What follows it, the reply proper; empty where the block was never closed.
    """

    thought: str | None
    words: str


def split(text: str, markers: Markers | None, is_open: bool = False) -> Reply:
    """Split a response at the end of its think block.

    Only a block at the beginning is one: a model that writes about the markers later keeps them.

    Args:
        text: Of the response.
        markers: Of the model's template; null: the model does not think.
        is_open: The prompt ends with the opening marker, so the text begins inside of the block.
    """
    text = text.strip()
    if markers is None:
        return Reply(None, text)
    opening, closing = markers
    begins = text.startswith(opening)
    if not begins and not is_open:
        return Reply(None, text)
    inside = text.removeprefix(opening)
    thought, _, words = inside.partition(closing)
    return Reply(thought.strip(), words.strip())


def whole(text: str, markers: Markers | None, is_open: bool = False) -> str:
    """Return a response with its think block as the model would have written it all by itself."""
    text = text.strip()
    if markers is None or not is_open or text.startswith(markers[0]):
        return text
    return f"{markers[0]}\n{text}"
