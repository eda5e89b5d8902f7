"""The formats of xet: xorbs are packed chunks, shards say how files are made of them.

They are those of the public specification, version 1.1, and were compared with what hf_xet 1.8
sends: a xorb comes without its footer. One check that the specification asks for is left out, the
BLAKE3 name of a xorb: the SHA-256 of every file built from it must be the one its shard claims.
"""

import struct
import time
from dataclasses import dataclass, field

import pyarrow as pa

from hub.refusals import RefusalError

ENTRY_BYTES = 48
TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
END = b"\xff" * 32 + bytes(16)
WITH_VERIFICATION, WITH_SHA256 = 1 << 31, 1 << 30
WEEK_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Xorb:
    """A packed sequence of chunks.

    Args:
        packed: As it was sent, compressed.
        offsets: Where each chunk begins in `packed`, and where the last one ends.
        chunks: What the chunks hold.
    """

    packed: bytes
    offsets: list[int]
    chunks: list[bytes]


@dataclass(frozen=True)
class Term:
    """A run of chunks of one xorb, `start` to before `stop`, that is part of a file."""

    xorb: str
    start: int
    stop: int


@dataclass
class Xet:
    """What the storage knows.

    Args:
        xorbs: By name.
        files: What each file is made of, by name.
        described: The part of a shard that describes a xorb, by the names of its chunks: what
            another client needs to refer to them.
    """

    xorbs: dict[str, Xorb] = field(default_factory=dict)
    files: dict[str, list[Term]] = field(default_factory=dict)
    described: dict[str, bytes] = field(default_factory=dict)

    def content(self, terms: list[Term]) -> bytes:
        """Return the bytes of a file."""
        return b"".join(
            chunk
            for term in terms
            for chunk in self.xorbs[term.xorb].chunks[term.start : term.stop]
        )


def name(raw: bytes) -> str:
    """Return a hash as text: each 8 bytes are a little-endian number."""
    return "".join(raw[i : i + 8][::-1].hex() for i in range(0, 32, 8))


def unpack(packed: bytes) -> Xorb:
    """Read a xorb: 8 bytes of header before each chunk.

    Raises:
        RefusalError: A chunk is not as its header says.
    """
    offsets, chunks, at = [0], [], 0
    while at < len(packed):
        version, scheme = packed[at], packed[at + 4]
        stored = int.from_bytes(packed[at + 1 : at + 4], "little")
        size = int.from_bytes(packed[at + 5 : at + 8], "little")
        data = packed[at + 8 : at + 8 + stored]
        if version != 0 or scheme > 2 or len(data) != stored:
            raise RefusalError(400, "the xorb is not serialized as the format wants")
        if scheme:
            data = pa.Codec("lz4").decompress(data, size, asbytes=True)
        if scheme == 2:
            data = _ungrouped(data)
        if len(data) != size:
            raise RefusalError(400, "a chunk of the xorb has another size than its header says")
        chunks.append(data)
        at += 8 + stored
        offsets.append(at)
    return Xorb(packed, offsets, chunks)


def _ungrouped(data: bytes) -> bytes:
    """Undo the grouping of every fourth byte."""
    whole, rest = divmod(len(data), 4)
    found, at = bytearray(len(data)), 0
    for first in range(4):
        count = whole + (first < rest)
        found[first::4] = data[at : at + count]
        at += count
    return bytes(found)


@dataclass(frozen=True)
class Shard:
    """What a shard says: files of terms, each with its SHA-256, and the chunks of new xorbs."""

    files: dict[str, tuple[list[Term], str]]
    described: dict[str, bytes]


def read(shard: bytes) -> Shard:
    """Read a shard as it is uploaded, without a footer.

    Raises:
        RefusalError: It is not in the format, or a file lacks its SHA-256.
    """
    if shard[:32] != TAG or struct.unpack("<Q", shard[32:40]) != (2,):
        raise RefusalError(400, "this is no shard of version 2")
    files: dict[str, tuple[list[Term], str]] = {}
    at = ENTRY_BYTES
    while shard[at : at + ENTRY_BYTES] != END:
        head = shard[at : at + ENTRY_BYTES]
        flags, count = struct.unpack("<II", head[32:40])
        rows = [shard[at + i * ENTRY_BYTES :][:ENTRY_BYTES] for i in range(1, count + 1)]
        terms = [Term(name(row[:32]), *struct.unpack("<II", row[40:48])) for row in rows]
        at += (1 + count * (2 if flags & WITH_VERIFICATION else 1)) * ENTRY_BYTES
        if not flags & WITH_SHA256:
            raise RefusalError(400, "a file of the shard comes without its SHA-256")
        files[name(head[:32])] = (terms, name(shard[at : at + 32]))
        at += ENTRY_BYTES
    at += ENTRY_BYTES
    described: dict[str, bytes] = {}
    while shard[at : at + ENTRY_BYTES] != END:
        (count,) = struct.unpack("<I", shard[at + 36 : at + 40])
        block = shard[at : at + (1 + count) * ENTRY_BYTES]
        for i in range(1, count + 1):
            described[name(block[i * ENTRY_BYTES :][:32])] = block
        at += len(block)
    return Shard(files, described)


def write(block: bytes) -> bytes:
    """Return a shard that describes one xorb to a client that asked for a chunk of it."""
    header = TAG + struct.pack("<QQ", 2, 200)
    body = header + END + block + END
    now = int(time.time())
    footer = struct.pack("<QQQ", 1, len(header), len(header) + len(END))
    # The specification calls these 48 bytes reserved. They are offset and length of three tables,
    # here empty; hf_xet takes the first offset for the end of what it reads, and dies of a 0.
    footer += struct.pack("<Q8xQ8xQ8x", len(body), len(body), len(body)) + bytes(32)
    footer += struct.pack("<QQ", now, now + WEEK_S) + bytes(72)
    return body + footer + struct.pack("<Q", len(body))
