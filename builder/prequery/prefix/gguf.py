"""Read a GGUF file's metadata.

A reader of our own: the `gguf` package maps all tensors and brings requests and tqdm, where only
the keys in front of the tensors are wanted; and the file is a stranger's, so every length is
checked against the file before anything is read.

Source:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from prequery.errors import PrefixError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
CONTROL = 3
"""A token's type, of `tokenizer.ggml.token_type`, that marks a control token."""

_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LEAST_BYTES = {_STRING: 8, _ARRAY: 12}


@dataclass(frozen=True)
class Metadata:
    """What a GGUF says of its tokenizer.

    Args:
        template: Jinja.
        bos: Text of the BOS token; null: the model has none.
        eos: Text of the EOS token.
        adds_bos: Whether its tokenizer puts BOS before a text; null: it does not say.
        control: Id of each control token.
    """

    template: str
    bos: str | None
    eos: str | None
    adds_bos: bool | None
    control: dict[str, int] = field(default_factory=dict)


def read(path: Path) -> Metadata:
    """Read the metadata of a GGUF file.

    Raises:
        PrefixError: It is no GGUF, it is damaged, or it holds no chat template.
    """
    keys = read_keys(path)
    template = keys.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template:
        raise PrefixError(
            "the GGUF file holds no chat template",
            str(path),
            "name the model's tokenizer, or a template file, as generator.template",
        )
    tokens = keys.get("tokenizer.ggml.tokens")
    kinds = keys.get("tokenizer.ggml.token_type")
    tokens = tokens if isinstance(tokens, list) else []
    kinds = kinds if isinstance(kinds, list) else []

    def text(key: str) -> str | None:
        at = keys.get(key)
        return tokens[at] if isinstance(at, int) and 0 <= at < len(tokens) else None

    adds = keys.get("tokenizer.ggml.add_bos_token")
    return Metadata(
        template=template,
        bos=text("tokenizer.ggml.bos_token_id"),
        eos=text("tokenizer.ggml.eos_token_id"),
        adds_bos=adds if isinstance(adds, bool) else None,
        control={
            token: at
            for at, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
            if kind == CONTROL
        },
    )


def read_keys(path: Path) -> dict[str, Any]:
    """Return every key of a GGUF file's metadata.

    Raises:
        PrefixError: It is no GGUF, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path.stat().st_size).keys()
    except OSError as error:
        what = f"the GGUF file cannot be read: {error.strerror}"
        raise PrefixError(what, str(path), "correct generator.template.gguf") from None
    except (ValueError, struct.error) as error:
        what = f"this is no GGUF file that can be read: {error}"
        raise PrefixError(what, str(path), "bring the file anew, or name another one") from None


class _Reader:
    """Values one after the other, none of them longer than the rest of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def keys(self) -> dict[str, Any]:
        """Return all keys, with those values that are no tensors."""
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._scalar("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, known are 2 and 3")
        _tensors, count = self._scalar("Q"), self._scalar("Q")
        found = {}
        for _ in range(count):
            key = self._string()
            found[key] = self._value(self._scalar("I"))
        return found

    def _take(self, count: int) -> bytes:
        if count > self.size - self.file.tell():
            raise ValueError(f"it ends in the middle of a value, at byte {self.file.tell()}")
        return self.file.read(count)

    def _scalar(self, code: str) -> Any:
        form = "<" + code
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _string(self) -> str:
        return self._take(self._scalar("Q")).decode("utf-8", "replace")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth > 1:
            raise ValueError(f"it holds a value of the unknown type {kind}")
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner in _SCALARS:
            raw = self._take(count * struct.calcsize("<" + _SCALARS[inner]))
            return list(struct.unpack(f"<{count}{_SCALARS[inner]}", raw))
        if count * _LEAST_BYTES.get(inner, 1) > self.size:
            raise ValueError(f"it claims a list of {count} values, longer than the file")
        return [self._value(inner, depth + 1) for _ in range(count)]
