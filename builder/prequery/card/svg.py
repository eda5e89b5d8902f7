"""Bars and grids as SVG: a few kilobytes of text, the same on every machine.

A plotting library would add 97 MB to an install (matplotlib 3 with what it needs) for three shapes,
and its bytes change with its version and its fonts.
"""

from collections.abc import Sequence
from html import escape

from prequery.card import markdown

WIDTH = 760
INK, MUTED, LINE, BAR = "#1f2328", "#59636e", "#e4e7eb", "#3b76c4"
LABEL_CHARS = 28
"""A label is cut behind so many characters."""
_TOPS = (10, 12, 14, 16, 18, 20, 24, 30, 36, 40, 50, 60, 80, 100)
_POWERS = frozenset(float(2**power) for power in range(1, 40))
_SHADES = ((0xF1, 0xF5, 0xFB), (0x1D, 0x4E, 0x94))
"""Colour of the smallest and of the largest number of a grid."""


class Drawing:
    """A picture under construction, on a white ground of its own: readable on a dark page too.

    Args:
        height: In pixels; the width is `WIDTH`.
        title: What it shows, for those who cannot see it too.
    """

    def __init__(self, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            f"<title>{_text(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        ]

    def rect(self, x: float, y: float, width: float, height: float, fill: str, tip: str) -> None:
        """Add a filled box that tells `tip` under a pointer."""
        self._parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
            f'fill="{fill}"><title>{_text(tip)}</title></rect>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = LINE) -> None:
        """Add a thin line."""
        self._parts.append(
            f'<path d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}" stroke="{stroke}" stroke-width="1"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: int = 12,
        anchor: str = "start",
        fill: str = MUTED,
        weight: int = 400,
    ) -> None:
        """Add words on one line."""
        self._parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{fill}" font-weight="{weight}">{_text(words)}</text>'
        )

    def done(self) -> str:
        """Return the picture's text."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"


def bars(title: str, counts: Sequence[tuple[str, int]], whole: int) -> str:
    """Draw one bar a value, with its count and its share of the whole."""
    top, step, left = 50, 26, 200
    drawing = Drawing(top + step * len(counts) + 10, title)
    drawing.text(16, 28, title, 15, fill=INK, weight=600)
    longest = max((count for _, count in counts), default=0) or 1
    for place, (name, count) in enumerate(counts):
        y = top + step * place
        told = f"{count:,} · {markdown.share(count, whole)}"
        length = (WIDTH - left - 130) * count / longest
        drawing.text(left - 10, y + 14, _cut(name), anchor="end", fill=INK)
        drawing.rect(left, y, max(length, 1), step - 7, BAR, f"{name}: {told}")
        drawing.text(left + length + 8, y + 14, told)
    return drawing.done()


def histograms(title: str, panels: Sequence[tuple[str, Sequence[float], Sequence[int]]]) -> str:
    """Draw histograms side by side, each bin as wide as the others.

    Args:
        title: Of the picture.
        panels: Caption, edges and counts of each.
    """
    left, top, height, gap = 62, 74, 180, 70
    drawing = Drawing(top + height + 40, title)
    drawing.text(16, 28, title, 15, fill=INK, weight=600)
    width = (WIDTH - left - 20 - gap * (len(panels) - 1)) / len(panels)
    for place, (caption, edges, counts) in enumerate(panels):
        x0 = left + place * (width + gap)
        drawing.text(x0, 54, caption, fill=INK)
        highest = _round_up(max(counts))
        for mark in range(0, highest + 1, max(highest // 2, 1)):
            y = top + height * (1 - mark / highest)
            drawing.line(x0, y, x0 + width, y)
            drawing.text(x0 - 8, y + 4, f"{mark:,}", 11, "end")
        step = width / len(counts)
        for bin_, count in enumerate(counts):
            tall = height * count / highest
            low, high = f"{edges[bin_]:,.6g}", f"{edges[bin_ + 1]:,.6g}"
            tip = f"{low} to {high}: {count:,}"
            shown = max(step - 1.5, 0.5)
            drawing.rect(x0 + step * bin_ + 0.75, top + height - tall, shown, tall, BAR, tip)
        # As many labels as have room: powers of two, else round numbers, which are short.
        every = next(n for n in (1, 2, 4, 8, 16, 32, 64) if (len(edges) - 1) / n * 46 <= width)
        first = min(range(every), key=lambda at: _oddness(edges[at::every]))
        for place_, edge in enumerate(edges):
            if (place_ - first) % every == 0:
                x = x0 + step * place_
                drawing.line(x, top + height, x, top + height + 5, MUTED)
                drawing.text(x, top + height + 20, f"{edge:,.6g}", 11, "middle")
    return drawing.done()


def grid(
    title: str, rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]
) -> str:
    """Draw a table of numbers, the darker the larger."""
    top, left, tall = 84, 140, 40
    wide = (WIDTH - left - 20) / len(columns)
    drawing = Drawing(top + tall * len(rows) + 14, title)
    drawing.text(16, 28, title, 15, fill=INK, weight=600)
    largest = max(max(line) for line in counts) or 1
    for place, name in enumerate(columns):
        drawing.text(left + wide * (place + 0.5), top - 12, _cut(name, 16), anchor="middle")
    for y, (name, line) in enumerate(zip(rows, counts, strict=True)):
        drawing.text(left - 10, top + tall * y + 24, _cut(name, 18), anchor="end", fill=INK)
        for x, count in enumerate(line):
            depth = count / largest
            tip = f"{name}, {columns[x]}: {count:,}"
            box = (left + wide * x + 1, top + tall * y + 1, wide - 2, tall - 2)
            drawing.rect(*box, _shade(depth), tip)
            ink = "#ffffff" if depth > 0.5 else INK
            middle = left + wide * (x + 0.5)
            drawing.text(middle, top + tall * y + 24, f"{count:,}", anchor="middle", fill=ink)
    return drawing.done()


def _round_up(count: int) -> int:
    """Return a round number from `count` on, whose half is whole: the top of an axis."""
    if count <= 10:
        return max(count + count % 2, 2)
    tenth = int(10 ** (len(str(count)) - 2))
    return next(step * tenth for step in _TOPS if step * tenth >= count)


def _oddness(labels: Sequence[float]) -> tuple[int, int]:
    """Return how many labels are no power of two, and how long all of them are together."""
    texts = [f"{label:.6g}" for label in labels]
    return sum(label not in _POWERS for label in labels), sum(map(len, texts))


def _shade(depth: float) -> str:
    pale, deep = _SHADES
    mixed = (round(a + (b - a) * depth) for a, b in zip(pale, deep, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _cut(name: str, chars: int = LABEL_CHARS) -> str:
    return name if len(name) <= chars else name[: chars - 1] + "…"


def _text(words: str) -> str:
    """Return words as XML text: what cannot be seen, and what XML has no room for, written out."""
    shown = markdown.one_line(words)
    return escape("".join(c if c not in "\ufffe\uffff" else f"\\u{ord(c):04x}" for c in shown))


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
