"""A sequence classification model of this machine, by transformers: what it gives a text."""

import asyncio
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from prequery.endpoint import Answer, Info, Rendering, Request, refuse_texts, scored
from prequery.errors import EndpointError

T = TypeVar("T")

LIBRARIES = ("transformers", "torch")
WEIGHTS = "*.safetensors"
FILES = ["*.json", "*.txt", "*.model", WEIGHTS]
"""What a model is made of: its configuration, its tokenizer and its weights."""


@dataclass
class RewardModel:
    """Scores texts in this process, one at a time, in float32; an async context manager.

    It answers what text-embeddings-inference would: raw scores by label, and a refusal for a text
    that is longer than the model reads. Code that a model brings with it is not run, and weights
    are read from safetensors alone. Another machine or another version of PyTorch may give other
    last digits.

    Args:
        model: Hub id, or a folder, relative to `base`.
        revision: Commit of the model, 40 hex digits. Of a folder it is what the recipe says; a
            snapshot in the Hub's cache is named after its own, which is then compared.
        base: Folder of the recipe.
    """

    model: str
    revision: str
    base: Path = Path()
    capacity: int = 1
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "reward-model"), repr=False
    )
    _loaded: "tuple[Any, Any, str] | None" = field(default=None, repr=False)
    _named: str = field(default="", repr=False)
    _weights_sha256: str = field(default="", repr=False)

    async def __aenter__(self) -> Self:
        """Load the model.

        Raises:
            EndpointError: The libraries are not there, or the model cannot be had.
        """
        absent = [name for name in LIBRARIES if find_spec(name) is None]
        if absent:
            raise EndpointError(
                f"a reward model of this machine needs {absent[0]}, which is not installed",
                self.address,
                "pip install 'prequery[reward]', or name a TEI address as the judge's endpoint",
            )
        try:
            await self._run(self._load)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it."""
        self._thread.shutdown(cancel_futures=True)
        self._loaded = None

    @property
    def address(self) -> str:
        """What it is, for messages."""
        return f"transformers, {self.model}@{self.revision}"

    async def info(self) -> Info:
        """Return what is loaded."""
        assert self._loaded is not None
        return Info(
            model_id=self.model,
            model_sha=self._named if re.fullmatch("[0-9a-f]{40}", self._named) else None,
            version=version("transformers"),
            router="transformers",
            engine=f"torch {version('torch')}, {self._loaded[2]}, float32",
            weights_sha256=self._weights_sha256,
        )

    async def tokenize(self, text: str) -> list[int] | None:
        """Return nothing: what is scored is sent as text."""
        return None

    async def render(self, messages: Sequence[Mapping[str, str]]) -> Rendering:
        """Refuse: a model that scores has no chat template to write by.

        Raises:
            EndpointError: Always.
        """
        raise EndpointError(
            "this model scores texts, it writes none",
            self.address,
            "name it as a judge, and another one as the generator",
        )

    def check(self, request: Request) -> None:
        """Refuse what is to be continued.

        Raises:
            EndpointError: The request wants a text.
        """
        refuse_texts(request, self.address)

    async def generate(self, request: Request, where: str, urgent: bool = False) -> Answer:
        """Score a text or a pair.

        Returns:
            An answer whose text is the model's predictions as JSON, raw scores by label; one with
            `error` for a text that is too long.
        """
        return await self._run(partial(self._score, request))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _load(self) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        known: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            folder = self._folder()
            tokenizer = AutoTokenizer.from_pretrained(folder, **known)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, **known, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise EndpointError(
                f"the reward model cannot be had: {str(error)[:300]}",
                self.address,
                "check name, revision and network; HF_HUB_OFFLINE=1 takes what is in the cache",
            ) from None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._loaded = tokenizer, model.to(device).eval(), device
        self._named = folder.resolve().name
        self._weights_sha256 = _sha256(sorted(folder.glob(WEIGHTS)))

    def _score(self, request: Request) -> Answer:
        import torch

        assert self._loaded is not None
        tokenizer, model, device = self._loaded
        inputs = tokenizer(request.prompt, request.pair, return_tensors="pt").to(device)
        count = int(inputs["input_ids"].shape[1])
        most = min(
            tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", math.inf)
        )
        if count > most:
            return Answer(error=f"the text has {count} tokens, and the model reads {most}")
        with torch.inference_mode():
            scores = model(**inputs).logits[0].tolist()
        labels = model.config.id2label
        told = [score if math.isfinite(score) else None for score in scores]
        return scored([(labels[at], score) for at, score in enumerate(told)], count)

    def _folder(self) -> Path:
        """Return where the model's files are, brought from the Hub if they are nowhere here."""
        path = self.base / self.model
        if path.is_dir():
            return path
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.model, revision=self.revision, allow_patterns=FILES))


def _sha256(files: Sequence[Path]) -> str:
    """Return the hash of a file; of several, that of their hashes."""
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
