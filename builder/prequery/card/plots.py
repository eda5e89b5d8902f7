"""Which plots a release has, drawn from its facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prequery.card import svg
from prequery.card.facts import CROSSED, Facts

MOST_BARS = 14
"""So many values have a bar of their own; the others share one."""


@dataclass(frozen=True)
class Plot:
    """One picture.

    Args:
        name: File name without `.svg`.
        caption: What it shows.
        drawing: The SVG file's text.
    """

    name: str
    caption: str
    drawing: str


def draw(facts: Facts, orders: Mapping[str, Sequence[str]]) -> tuple[Plot, ...]:
    """Draw what was measured: lengths, distances, languages, categories, difficulty by quality.

    Args:
        facts: Of the rows.
        orders: The labels of fields that have an order, by field.
    """
    found = [
        _histogram(facts, "lengths", "Tokens of instructions and of responses", _LENGTHS),
        _histogram(facts, "distance", "Distance to the nearest other instruction", _DISTANCE),
        _bars(facts, "languages", "Languages of the instructions", "language"),
        _bars(facts, "categories", "Categories of the instructions", "task_category"),
        _crossed(facts, orders),
    ]
    return tuple(plot for plot in found if plot is not None)


_LENGTHS = {"instruction_tokens": "instructions, tokens", "response_tokens": "responses, tokens"}
_DISTANCE = {"min_neighbor_distance": "squared L2 between unit embeddings"}


def _histogram(facts: Facts, name: str, caption: str, fields: Mapping[str, str]) -> Plot | None:
    panels = []
    for field, label in fields.items():
        found = facts.field(field)
        if found and found.histogram:
            panels.append((label, found.histogram.edges, found.histogram.counts))
    return Plot(name, caption, svg.histograms(caption, panels)) if panels else None


def _bars(facts: Facts, name: str, caption: str, field: str) -> Plot | None:
    values = list((facts.tally(field) or {}).items())
    if len(values) < 2:
        return None  # one bar shows nothing
    shown, others = values[:MOST_BARS], values[MOST_BARS:]
    if others:
        shown.append((f"{len(others)} others", sum(count for _, count in others)))
    found = facts.field(field)
    if found and found.nulls:
        shown.append(("null", found.nulls))
    return Plot(name, caption, svg.bars(caption, shown, facts.rows))


def _crossed(facts: Facts, orders: Mapping[str, Sequence[str]]) -> Plot | None:
    if not facts.crossed:
        return None
    sides = []
    for side, field in enumerate(CROSSED):
        known = list(orders.get(field, ()))
        held = {pair[side] for pair in facts.crossed}
        sides.append([*known, *sorted(held - set(known))][:MOST_BARS])
    difficulties, qualities = sides
    counts = [
        [facts.crossed.get((difficulty, quality), 0) for quality in qualities]
        for difficulty in difficulties
    ]
    caption = "Difficulty, downwards, by quality of the instruction"
    return Plot("difficulty_quality", caption, svg.grid(caption, difficulties, qualities, counts))
