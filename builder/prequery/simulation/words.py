"""Words without meaning: English sentences from lists, and answers made of them.

An answer is put together from parts that are encoded once, because the benchmarks share their
cores with this server: 34 KB of JSON cost some ten microseconds.
"""

import math
import random
import re
import zlib
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from prequery.simulation.settings import Lengths

SENTENCES = 1021
"""Of each kind. A prime: any stride visits all of them before one comes again."""

_normal = NormalDist().inv_cdf
_TOKEN = re.compile(r" ?\w+|\s|[^\w\s]")


def _split(text: str, at: str = " ") -> list[str]:
    return text.split(at)


_DETERMINERS = _split("the a this every another that one each our their")
_ADJECTIVES = _split(
    "small bright early quiet modern simple careful local hidden gentle rapid steady ancient "
    "useful common clever narrow patient honest fresh warm distant heavy smooth broken formal "
    "curious golden hollow brief"
)
_NOUNS = _split(
    "river teacher market garden engine letter village window student bridge recipe planet "
    "doctor story machine harbor lesson forest budget number painter valley signal library "
    "kitchen captain question mirror farmer journey theory sailor winter contract melody island "
    "builder summer pattern orchard circuit lantern compass ticket museum railway"
)
_VERBS = _split(
    "follows changes supports reaches explains watches carries improves remembers measures "
    "protects describes crosses answers collects repairs inspires balances joins divides"
)
_LINKS = _split("because while although until before after since when whenever where")
_PLACES = _split("near behind above under across beside within beyond toward around")
_ASKING = _split(
    "How|Why|When|What|Explain|Describe|Could you|Please tell me|Can you|I wonder|Write about|"
    "Help me see|Summarize|Compare",
    "|",
)
_ANSWERING = _split("Sure|Certainly|In short|Yes|Of course|Well|Here it is|To begin", "|")


Encode = Callable[[str, float, bool], bytes]
"""Makes a token's JSON of its text, its log-probability and whether it is a control token."""


class Written(NamedTuple):
    """An answer before it has a form.

    Args:
        text: UTF-8.
        tokens: JSON, separated by commas.
        generated: How many tokens, with the end-of-turn token.
        cut: It has no end-of-turn token.
    """

    text: bytes
    tokens: bytes
    generated: int
    cut: bool


class _Sentence:
    """Tokens of a sentence, encoded: their texts, and their JSON."""

    def __init__(self, texts: Sequence[str], chance: random.Random, encode: Encode) -> None:
        self.texts = tuple(texts)
        self.encoded = tuple(encode(text, -chance.expovariate(1.5), False) for text in texts)
        self.text = "".join(texts)
        self.whole = b",".join(self.encoded)


class Writer:
    """Writes answers. The same draw, length and pass give the same bytes.

    Args:
        seed: Other seeds give other sentences.
        encode: How a token is written down.
        end: Token at which a turn is over.
        thought_end: Token at which thoughts are over, where every response begins with some.
    """

    def __init__(self, seed: int, encode: Encode, end: str, thought_end: str = "") -> None:
        chance = random.Random(seed)

        def response() -> list[str]:
            words = _sentence(chance.choice(_ANSWERING), chance)
            return [*_sentence("Hm", chance), ".", thought_end, *words] if thought_end else words

        self._more = [_Sentence(_sentence("", chance), chance, encode) for _ in range(SENTENCES)]
        self._first = {
            True: [
                _Sentence(_sentence(chance.choice(_ASKING), chance), chance, encode)
                for _ in range(SENTENCES)
            ],
            False: [_Sentence(response(), chance, encode) for _ in range(SENTENCES)],
        }
        self._ends = {
            True: (encode("?", -0.2, False) + b"," + encode(end, -0.01, True), "?"),
            False: (encode(".", -0.1, False) + b"," + encode(end, -0.01, True), "."),
        }

    def write(self, draw: int, length: int, most: int, asking: bool) -> Written:
        """Write an answer.

        Args:
            draw: Decides on the words; 64 bits.
            length: Tokens that the model would write, with the end-of-turn token; 3 or more.
            most: Tokens that it may write.
            asking: Pass 1: an instruction.
        """
        cut = length > most
        left = most if cut else length - 2  # the full stop and the end-of-turn token
        at, stride = draw % SENTENCES, 1 + (draw >> 16) % (SENTENCES - 1)
        texts, encoded = [], []
        sentences = self._first[asking]
        while left > 0:
            sentence = sentences[at]
            if len(sentence.texts) <= left:
                texts.append(sentence.text)
                encoded.append(sentence.whole)
            else:
                texts.extend(sentence.texts[:left])
                encoded.extend(sentence.encoded[:left])
            left -= len(sentence.texts)
            sentences, at = self._more, (at + stride) % SENTENCES
        if not cut:
            end, mark = self._ends[asking]
            texts.append(mark)
            encoded.append(end)
        text = "".join(texts).encode()
        return Written(text, b",".join(encoded), most if cut else length, cut)


def length(draw: int, asking: bool, lengths: Lengths) -> int:
    """Draw the length of an answer.

    Args:
        draw: 64 bits.
        asking: Pass 1.
        lengths: How they are distributed.

    Returns:
        Tokens with the end-of-turn token: 4 or more.
    """
    median = lengths.instruction_median if asking else lengths.response_median
    return max(4, round(median * math.exp(lengths.sigma * _normal((draw + 0.5) / 2**64))))


def surprise(tokens: Sequence[str], seed: int) -> list[float | None]:
    """Return how likely each token of a prompt is, as log-probability; the first follows on none.

    A word that stood there before is half as surprising, so what comes before a text matters.
    """
    found: list[float | None] = [None]
    before = set(tokens[:1])
    for token in tokens[1:]:
        share = (1 + zlib.crc32(f"{seed}|{token}".encode("utf-8", "replace"))) / (2**32 + 1)
        found.append(round(math.log(share) * (0.5 if token in before else 1.0), 6))
        before.add(token)
    return found[: len(tokens)]


def _sentence(opening: str, chance: random.Random) -> list[str]:
    """Return the tokens of one sentence; without an opening it follows on another one."""
    pick = chance.choice

    def thing() -> str:
        return f"{pick(_DETERMINERS)} {pick(_ADJECTIVES)} {pick(_NOUNS)}"

    told = (
        f"{thing()} {pick(_VERBS)} {thing()} {pick(_PLACES)} {thing()} "
        f"{pick(_LINKS)} {thing()} {pick(_VERBS)} {thing()}"
    )
    if opening:
        comma = "," if opening in _ANSWERING else ""
        text = f"{opening}{comma} {told}"
    else:
        text = f". {told.capitalize()}"
    return _TOKEN.findall(text)
