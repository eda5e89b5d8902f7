"""Texts as vectors: by a package that carries its weights, or by a model of the Hub."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from prequery.errors import ColumnError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_BATCH = 32


class WordLlama:
    """WordLlama's 256 dimensions: the mean of a text's token vectors, of length 1.

    The package's two files are read here and the package itself is not imported: importing it
    sets up the root logger, its loader can download, and it pads a whole batch to its longest
    text, which for one text of 1 MB takes 20 GB. Texts are tokenized one by one, so that no
    thread pool is left behind to hang in a forked worker.

    The order of words plays no part: "man bites dog" is "dog bites man". The vocabulary is
    Llama 2's, so a script that it knows only byte by byte is told apart badly.

    Args:
        folder: Where the package's `weights` and `tokenizers` are; null finds the installed one.

    Raises:
        ColumnError: A file is not there.
    """

    dim = 256

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or _installed()
        self._files = [_existing(folder / _WEIGHTS), _existing(folder / _TOKENIZER)]
        weights, tokenizer = self._files
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._table = load_file(weights)["embedding.weight"]

    def embed(self, texts: Sequence[str | None]) -> NDArray[np.float32]:
        """Return one vector a text.

        Returns:
            Shape (texts, 256). Each row has length 1, or is all 0 where there is no text: null,
            empty or only whitespace.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            if text is not None and text.strip():
                total = self._sum(text)
                vectors[row] = total / (np.linalg.norm(total) or 1.0)
        return vectors

    def _sum(self, text: str) -> NDArray[np.float64]:
        """Add up the vectors of a text's tokens.

        The table is float16 and all below 16, so up to 2**25 tokens add up in float64 without
        rounding: no order of adding, and so no CPU and no library, can change the sum.
        """
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        distinct, counts = np.unique(np.array(tokens, dtype=np.int64), return_counts=True)
        total: NDArray[np.float64] = counts.astype(np.float64) @ self._table[distinct].astype(
            np.float64
        )
        return total

    def pins(self) -> dict[str, str]:
        """Version of the package, and hashes of its weights and tokenizer."""
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files}
        return {
            "wordllama": package_version("wordllama"),
            **{name: f"sha256:{digest}" for name, digest in hashes.items()},
        }


class SentenceModel:
    """A sentence-transformers model of the Hub, at a revision; the extra `sentence-transformers`.

    Code that a model brings with it is not run. A text is cut where the model stops reading.

    Its vectors come out of a neural network in float32: another machine, another batch or another
    version of PyTorch gives others in the last digits, and so may a distance, by about 0.0003.

    Args:
        model: Hub id.
        revision: 40 hex digits.

    Raises:
        ColumnError: The library is not there, or the model cannot be had.
    """

    def __init__(self, model: str, revision: str) -> None:
        self._name, self._revision = model, revision

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self._model.encode(["x"], show_progress_bar=False).shape[1])

    def embed(self, texts: Sequence[str | None]) -> NDArray[np.float32]:
        """Return one vector a text, as `embedder.Embedder` says."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        there = [row for row, text in enumerate(texts) if text is not None and text.strip()]
        if there:
            given = self._model.encode(
                [texts[row] for row in there], batch_size=_BATCH, show_progress_bar=False
            )
            lengths = np.linalg.norm(given, axis=1, keepdims=True)
            vectors[there] = given / np.where(lengths > 0, lengths, 1)
        return vectors

    def pins(self) -> dict[str, str]:
        """Versions of the libraries; the recipe names model and revision."""
        _require_library()
        return {name: package_version(name) for name in ("sentence-transformers", "torch")} | {
            self._name: self._revision
        }

    @cached_property
    def _model(self) -> "SentenceTransformer":
        _require_library()
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(self._name, revision=self._revision, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ColumnError(
                f"the embedding model cannot be had: {str(error)[:300]}",
                f"{self._name}@{self._revision}",
                "check name, revision and network; HF_HUB_OFFLINE=1 takes what is in the cache",
            ) from None


def _require_library() -> None:
    if find_spec("sentence_transformers") is None:
        raise ColumnError(
            "this embedder needs sentence-transformers, which is not installed",
            "a column's parameter 'embedder'",
            "pip install 'prequery[sentence-transformers]', or leave it out for wordllama",
        )


def _installed() -> Path:
    """Locate the package without importing it."""
    spec = find_spec("wordllama")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else Path("wordllama")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ColumnError(
            f"the embedding model's file {path.name!r} is not there",
            str(path),
            "install the package that carries it: pip install --force-reinstall wordllama",
        )
    return path
