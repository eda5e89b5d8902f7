"""Token ids and their bytes, in both directions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One token of a tokenised text: its id and the bytes it stands for."""

    id: int
    bytes: bytes


@dataclass(frozen=True)
class Span:
    """One token of a tokenised text, and the characters [start, stop) it touches."""

    id: int
    text: str
    start: int
    stop: int


class Vocabulary:
    """Every token of the model.

    Args:
        pieces: Id and bytes of every token. Control tokens, which never show in text, have none.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._bytes = {piece.id: piece.bytes for piece in pieces}
        self._ids = {raw: id_ for id_, raw in self._bytes.items() if raw}

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text; none for a control token."""
        return self._bytes[token]

    def split(self, raw: bytes, count: int) -> list[int] | None:
        """Find ``count`` tokens that spell ``raw``, with the longest first.

        For parts of one character only, so a handful of bytes. Two tokens or more may spell them in
        several ways; the longest first is the way of every model seen here.

        Returns:
            Token ids, or None when no ``count`` tokens spell it.
        """
        if count == 0:
            return None if raw else []
        for length in range(len(raw) - count + 1, 0, -1):
            head = self._ids.get(raw[:length])
            if head is not None and (tail := self.split(raw[length:], count - 1)) is not None:
                return [head, *tail]
        return None


def spans(text: str, pieces: Sequence[Piece], bos: int | None) -> list[Span]:
    """Say which characters each token of a text touches, as TGI's ``/tokenize`` does.

    A character of several tokens belongs to each of them. A BOS token that the tokenizer added
    touches none. Where the bytes do not spell the text (a tokenizer that normalises), no token
    touches any, which is TGI's answer too.
    """
    aligned = _align(text, pieces)
    if aligned is None and pieces and pieces[0].id == bos:
        rest = _align(text, pieces[1:])
        aligned = None if rest is None else [(0, 0), *rest]
    if aligned is None:
        aligned = [(0, 0)] * len(pieces)
    return [
        Span(piece.id, text[start:stop], start, stop)
        for piece, (start, stop) in zip(pieces, aligned, strict=True)
    ]


def _align(text: str, pieces: Sequence[Piece]) -> list[tuple[int, int]] | None:
    # The character that each byte belongs to.
    owner = [index for index, char in enumerate(text) for _ in char.encode()]
    raw = text.encode()
    at = 0
    aligned = []
    for piece in pieces:
        spelled = piece.bytes
        if not raw.startswith(spelled, at):
            # Tokenizers of the SentencePiece family put one space before the text.
            spelled = spelled.removeprefix(b" ") if at == 0 else b""
        if not spelled or not raw.startswith(spelled, at):
            return None
        aligned.append((owner[at], owner[at + len(spelled) - 1] + 1))
        at += len(spelled)
    return aligned if at == len(raw) else None
