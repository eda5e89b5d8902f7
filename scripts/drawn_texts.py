"""Texts for measurements, with the lengths that Magpie's releases have; no model wrote them.

A random walk over the words of Python's own manual: it compresses like English and repeats nothing.
"""

import itertools
import random
import re
from collections import defaultdict
from pydoc_data.topics import topics


class Texts:
    """Draws instructions and responses, always the same ones in the same order."""

    def __init__(self) -> None:
        self._words = re.findall(r"\S+", " ".join(topics.values()))
        self._follows = defaultdict(list)
        for one, other in itertools.pairwise(self._words):
            self._follows[one].append(other)
        self._chance = random.Random(1)

    def instruction(self) -> str:
        """Draw one of some 130 characters."""
        return self._walk(self._chance.lognormvariate(4.6, 0.7))

    def response(self) -> str:
        """Draw one of some 1,400 characters."""
        return self._walk(self._chance.lognormvariate(7.1, 0.5))

    def _walk(self, chars: float) -> str:
        chance = self._chance
        said, size = [chance.choice(self._words)], 0
        while size < int(chars):
            # One step in four starts anew: a walk alone would repeat the manual's own phrases.
            after = self._follows.get(said[-1]) if chance.random() < 0.75 else None
            said.append(chance.choice(after or self._words))
            size += len(said[-1]) + 1
        return " ".join(said)
