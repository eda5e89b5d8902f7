"""One answer as one line: JSON, with the CRC-32 of all before it as last member.

Every line is verified alone, so damage costs the answers on the damaged lines and no other.
"""

import zlib
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import msgspec

from prequery.endpoint import Answer

Pass = Literal["opening", "instruction", "response", "verdict"]
"""`opening` is the first token of an instruction, where that is a request of its own; `verdict` is
what a judge says of a row."""
PASSES: tuple[Pass, ...] = get_args(Pass)

_CHECKSUM = b',"crc":"%08x"}\n'
_CHECKSUM_BYTES = len(_CHECKSUM % 0)


class Key(NamedTuple):
    """What an answer is for."""

    slot: int
    made: Pass
    turn: int = 0
    attempt: int = 0


class _Line(msgspec.Struct):
    slot: int
    made: Pass
    turn: int
    attempt: int
    answer: Answer


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def encode(key: Key, answer: Answer) -> bytes:
    """Return the line of an answer, with its line end."""
    body = _encode(_Line(key.slot, key.made, key.turn, key.attempt, answer))[:-1]
    return body + _CHECKSUM % zlib.crc32(body)


def verified(line: bytes) -> tuple[Key, Answer] | None:
    """Return the line's content, or nothing if one bit of it is not as it was written."""
    body = line[:-_CHECKSUM_BYTES]
    if line[len(body) :] != _CHECKSUM % zlib.crc32(body):
        return None
    try:
        found = _decode(body + b"}")
    except msgspec.DecodeError:
        return None
    return Key(found.slot, found.made, found.turn, found.attempt), found.answer


def decoded(line: bytes) -> Answer:
    """Return the answer of a line that was verified, or written by this process."""
    return _decode(line).answer


def the_one(answers: Iterable[Answer]) -> Answer:
    """Return the answer that counts among several to one key.

    Two builders can have answered the same request. Which answer counts must not depend on the
    names of files or on the order in which they are read.
    """
    return min(answers, key=_encode)
