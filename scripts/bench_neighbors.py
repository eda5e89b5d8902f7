#!/usr/bin/env python3
"""What finding nearest neighbours costs: scripts/bench_neighbors.py [ROWS ...] prints a table.

Three kinds of vectors of 256 numbers: `texts`, wordllama's of texts whose words are drawn from one
of 2,000 topics and from all words; `groups`, normal around 2,000 centres; `flat`, normal around
nothing, the worst case that any index has. One vector in a hundred is another one's equal.

Each line is a process of its own: the search alone, and the most memory that the process had,
with the vectors. Recall is measured on 1,000 vectors, each compared with all: how many have the
distance to their true nearest neighbour, how much too far the others are on average, how many of
their neighbours nearer than 0.05 are counted, and of those who have an equal, how many have
distance 0.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prequery.columns.embedding import WordLlama
from prequery.columns.neighbors import EXACT_ROWS, nearest
from prequery.columns.vectors import Whole, whole

DIM = 256
TOPICS = 2_000
SAMPLED = 1_000
THRESHOLD = 0.05
KINDS = ("texts", "groups", "flat")
_CHUNK = 20_000


def made(kind: str, rows: int) -> Whole:
    """Return vectors of one kind."""
    random = np.random.default_rng(1)
    vectors = np.empty((rows, DIM), np.int16)
    embedder, topics = WordLlama(), random.normal(size=(TOPICS, DIM))
    words = np.array(sorted(_words(embedder)))
    topical = random.integers(len(words), size=(TOPICS, 30))
    for start in range(0, rows, _CHUNK):
        count = min(_CHUNK, rows - start)
        topic = random.integers(TOPICS, size=count)
        if kind == "texts":
            of_topic = topical[topic[:, np.newaxis], random.integers(30, size=(count, 8))]
            of_all = random.integers(len(words), size=(count, 4))
            drawn = words[np.concatenate([of_topic, of_all], axis=1)]
            unit = embedder.embed([" ".join(text) for text in drawn])
        else:
            normal = random.normal(size=(count, DIM))
            unit = _unit(topics[topic] + 0.7 * normal if kind == "groups" else normal)
        vectors[start : start + count] = whole(unit)
    copies = rows // 100
    vectors[random.permutation(rows)[:copies]] = vectors[random.integers(rows, size=copies)]
    return vectors


def _words(embedder: WordLlama) -> set[str]:
    vocabulary = embedder._tokenizer.get_vocab()
    return {word[1:] for word in vocabulary if word[0] == "▁" and word[1:].isalpha()}


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def measured(kind: str, rows: int, exact_rows: int) -> dict[str, float]:
    """Search, and compare a sample of what was found with the truth."""
    vectors = made(kind, rows)
    started = time.monotonic()
    found = nearest(vectors, THRESHOLD, exact_rows)
    seconds = time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sample = np.arange(SAMPLED) * rows // SAMPLED
    distance, count = _truth(vectors, sample)
    equal = distance == 0
    near, missed = int(count.sum()), found.distance[sample] > distance
    excess = (found.distance[sample] - distance)[missed]
    return {
        "seconds": seconds,
        "peak_mb": peak_mb,
        "recall": float((found.distance[sample] == distance).mean()),
        "excess": float(excess.mean()) if missed.any() else 0.0,
        "near": near,
        "near_found": int(found.count[sample].sum()),
        "equal": int(equal.sum()),
        "equal_found": int((found.distance[sample][equal] == 0).sum()),
    }


def _truth(
    vectors: Whole, sample: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distance and count of a few vectors by the plainest arithmetic."""
    from prequery.columns.vectors import SCALE

    least, count = np.full(len(sample), np.inf), np.full(len(sample), -1)
    chosen = vectors[sample].astype(np.float64)
    for start in range(0, len(vectors), _CHUNK):
        block = vectors[start : start + _CHUNK].astype(np.float64)
        squares = (chosen**2).sum(axis=1)[:, np.newaxis] + (block**2).sum(axis=1)
        distance = (squares - 2 * chosen @ block.T) / SCALE**2
        count += np.count_nonzero(distance < THRESHOLD, axis=1)
        inside = (sample >= start) & (sample < start + _CHUNK)
        distance[np.flatnonzero(inside), sample[inside] - start] = np.inf
        least = np.minimum(least, distance.min(axis=1))
    return least, count


def main(counts: Sequence[int]) -> None:
    """Print the table."""
    print(
        "| vectors | kind | search | s | peak | nearest found | others too far by "
        "| near found | equal found |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for rows in counts:
        for kind in KINDS:
            for exact_rows in (EXACT_ROWS, 0) if rows <= EXACT_ROWS else (EXACT_ROWS,):
                command = [sys.executable, __file__, kind, str(rows), str(exact_rows)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout)
                search = "exact" if rows <= exact_rows else "buckets"
                print(
                    f"| {rows:,} | {kind} | {search} | {found['seconds']:.1f} "
                    f"| {found['peak_mb']:,.0f} MB | {found['recall']:.3f} | {found['excess']:.3f} "
                    f"| {found['near_found']} of {found['near']} "
                    f"| {found['equal_found']} of {found['equal']} |",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in KINDS:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main([int(each) for each in sys.argv[1:]] or [10_000, 100_000, 1_000_000])
