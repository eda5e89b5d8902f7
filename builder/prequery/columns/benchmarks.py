"""Test items of benchmarks, and how much of one a text holds."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from prequery.columns import ngrams

# Han, Hiragana and Katakana have no spaces between words: each character is a token there.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(f"[{_SIGNS}]|[^\\W{_SIGNS}]+")


@dataclass(frozen=True)
class Overlap:
    """The test item of which a text holds most.

    Args:
        ratio: Share of its tokens that are in n-grams which the text holds too, over 0, at most 1.
        source: Where the item is.
        span: The longest piece of the text that is made of such n-grams.
    """

    ratio: float
    source: str
    span: str


class Benchmarks:
    """Test items, searchable by their n-grams.

    Args:
        items: Where each is, and its text.
        width: Tokens of an n-gram. An item that has fewer is never found.
    """

    def __init__(self, items: Iterable[tuple[str, str]], width: int) -> None:
        self._width, self._sources = width, list[str]()
        self._known: dict[str, int] = {}
        parts: list[NDArray[np.int32]] = []
        for source, text in items:
            words = (match[0].casefold() for match in _TOKEN.finditer(text))
            ids = [self._known.setdefault(word, len(self._known)) for word in words]
            if len(ids) >= width:
                parts.append(np.array(ids, np.int32))
                self._sources.append(source)
        self._lengths = np.array([len(part) for part in parts], np.int64)
        self._ends = np.cumsum(self._lengths)
        self._tokens = np.concatenate([np.zeros(0, np.int32), *parts])
        hashed = ngrams.hashes(self._tokens.astype(np.uint64), width)
        begins = np.arange(len(hashed))
        inside = begins + width <= self._ends[self._items(begins)] if len(parts) else begins < 0
        order = np.argsort(hashed[inside], kind="stable")
        self._hashes, self._begins = hashed[inside][order], begins[inside][order]

    def _items(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return in which item each token is."""
        return np.searchsorted(self._ends, positions, side="right")

    def overlap(self, text: str) -> Overlap | None:
        """Return the item of which a text holds most, the first of several; null: none at all."""
        words = list(_TOKEN.finditer(text))
        ids = np.array([self._known.get(word[0].casefold(), -1) for word in words], np.int32)
        if len(ids) < self._width:
            return None
        ours, theirs = self._matches(ids)
        if not len(ours):
            return None
        covered = np.unique((theirs[:, np.newaxis] + np.arange(self._width)).ravel())
        items, counts = np.unique(self._items(covered), return_counts=True)
        ratios = counts / self._lengths[items]
        best = int(ratios.argmax())
        grams = np.unique(ours[self._items(theirs) == items[best]])
        start, stop = self._longest(ids, grams)
        span = text[words[start].start() : words[stop - 1].end()]
        return Overlap(float(ratios[best]), self._sources[items[best]], span)

    def _matches(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where n-grams begin here, and where the same ones begin among the items.

        An n-gram that the text repeats is looked up once.
        """
        hashed = ngrams.hashes(ids.astype(np.uint64), self._width)
        distinct, first = np.unique(hashed, return_index=True)
        low = np.searchsorted(self._hashes, distinct, side="left")
        many = np.searchsorted(self._hashes, distinct, side="right") - low
        ours = np.repeat(first, many)
        ahead = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        theirs = self._begins[np.repeat(low, many) + ahead]
        if not len(ours):
            return ours, theirs
        here, there = (sliding_window_view(each, self._width) for each in (ids, self._tokens))
        same = (here[ours] == there[theirs]).all(axis=1)
        return ours[same], theirs[same]

    def _longest(self, ids: NDArray[np.int32], grams: NDArray[np.int64]) -> tuple[int, int]:
        """Return the longest run of tokens, from and to, that is made of these n-grams."""
        hashed = ngrams.hashes(ids.astype(np.uint64), self._width)
        begins = np.flatnonzero(np.isin(hashed, hashed[grams]))
        breaks = np.flatnonzero(np.diff(begins) > self._width)
        starts = begins[np.concatenate([[0], breaks + 1])]
        stops = begins[np.concatenate([breaks, [len(begins) - 1]])] + self._width
        at = int((stops - starts).argmax())
        return int(starts[at]), int(stops[at])
