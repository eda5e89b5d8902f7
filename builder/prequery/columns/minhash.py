"""Signatures of texts that tell how many n-grams two of them share."""

import hashlib
import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prequery.columns.ngrams import hashes, mix

_CHUNK = 4096


class MinHash:
    """Signatures: for each of some hash functions, the least hash among a text's n-grams.

    The share of places where two signatures agree estimates the Jaccard similarity of the two sets
    of n-grams, with a standard deviation of at most 1 / (2 sqrt(length)).

    A text is compared as it reads: NFKC, without case, each run of whitespace one space. An n-gram
    is of code points, so that it needs no word boundary; a text that is shorter is one n-gram.

    Args:
        ngram: Code points of an n-gram, at least 1.
        length: Of a signature: how many hash functions.
    """

    def __init__(self, ngram: int, length: int) -> None:
        self._ngram = ngram
        drawn = (_draw(f"{part}-{at}") for at in range(length) for part in ("factor", "term"))
        pairs = np.fromiter(drawn, np.uint64, 2 * length).reshape(length, 2)
        self._factors = (pairs[:, 0] | np.uint64(1))[:, np.newaxis]
        self._terms = pairs[:, 1][:, np.newaxis]

    def sign(self, text: str) -> NDArray[np.uint32] | None:
        """Return a text's signature; null where it is empty or only whitespace."""
        plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        if not plain:
            return None
        least = np.full(len(self._factors), np.iinfo(np.uint32).max, np.uint32)
        for grams in self._grams(plain):
            hashed = (grams * self._factors + self._terms) >> np.uint64(32)
            least = np.minimum(least, hashed.min(axis=1).astype(np.uint32))
        return least

    def _grams(self, text: str) -> Iterator[NDArray[np.uint64]]:
        """Yield hashes of the n-grams, few thousand at a time: 1 MB of text takes as little."""
        encoded = text.encode("utf-32-le", "surrogatepass")
        points = np.frombuffer(encoded, np.uint32).astype(np.uint64)
        width = min(self._ngram, len(points))
        for start in range(0, len(points) - width + 1, _CHUNK):
            yield np.unique(hashes(points[start : start + _CHUNK + width - 1], width))


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def groups(signatures: NDArray[np.uint32], bands: int, min_similarity: float) -> NDArray[np.int64]:
    """Put texts into groups of near duplicates.

    Two texts are compared when they agree in all places of at least one band. In each band the
    first text of those that agree takes to its group all whose signature is similar enough to its
    own; the first of the rest does the same, and so on. What several bands join is one group.

    Args:
        signatures: Shape (texts, hashes).
        bands: Into how many parts of equal length a signature is cut.
        min_similarity: Share of places that agree.

    Returns:
        For each text the lowest position in its group, its own where it is alone.
    """
    parents = np.arange(len(signatures))
    wanted = int(np.ceil(min_similarity * signatures.shape[1]))
    for band in np.split(signatures, bands, axis=1):
        for members in _alike(band):
            left = members
            while len(left) > 1:
                agreeing = np.count_nonzero(signatures[left] == signatures[left[0]], axis=1)
                similar = agreeing >= wanted
                _join(parents, left[similar])
                left = left[~similar]
    return np.fromiter((_root(parents, at) for at in range(len(parents))), np.int64, len(parents))


def _alike(band: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """Yield the positions, ascending, of texts that agree in a whole band, where two do."""
    # Two bands that only share a hash meet in vain: their whole signatures are compared.
    places = np.zeros(len(band), np.uint64)
    for part in band.T:
        places = mix(places + part)
    order = np.argsort(places, kind="stable")
    changes = np.flatnonzero(places[order][1:] != places[order][:-1]) + 1
    return (members for members in np.split(order, changes) if len(members) > 1)


def _join(parents: NDArray[np.int64], members: NDArray[np.int64]) -> None:
    """Make one group of all groups that these are in; its lowest position stands for it."""
    roots = {_root(parents, int(at)) for at in members}
    lowest = min(roots)
    for root in roots:
        parents[root] = lowest


def _root(parents: NDArray[np.int64], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = int(parents[at])
    return at
