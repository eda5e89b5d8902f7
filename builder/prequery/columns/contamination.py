"""Whether an instruction holds a test item of a benchmark."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from prequery.columns import reference
from prequery.columns.base import Batch, RowColumn, Values

if TYPE_CHECKING:
    from prequery.columns.benchmarks import Benchmarks


@dataclass(frozen=True, kw_only=True)
class Contamination(RowColumn):
    """How much of a benchmark's test item an instruction holds, which one, and which words.

    `contamination_ratio` is the highest share, of all test items, of an item's tokens that lie in
    n-grams which the instruction holds too; 0: none; null: there is no instruction. `contaminated`
    is whether that is over `max_ratio`. `contamination_source` is the item, as file:row, and
    `contamination_span` the longest piece of the instruction that is in it; null where the share
    is 0.

    A token is a word without case, or one Chinese or Japanese character; punctuation plays no
    part. An item of fewer tokens than an n-gram has is never found.

    Args:
        files: Benchmark files, relative to the recipe, and the field that holds a test item: jsonl,
            parquet, csv, or txt with an item a line, whose field is `line`.
        ngram: Tokens of an n-gram, 1 to 100.
        max_ratio: 0 or more and below 1.

    Source:
        Tulu 3, arXiv 2411.15124, 3.2: 8-grams, more than half of a test item's tokens, prompts
        alone. We differ: words by a regular expression (theirs by spaCy), and no rule about the
        share of a benchmark that is found.
    """

    name = "contamination"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {
        "contamination_ratio": "float64",
        "contaminated": "bool",
        "contamination_source": "string",
        "contamination_span": "string",
    }

    files: Mapping[str, str]
    ngram: int = 8
    max_ratio: float = 0.5

    def __post_init__(self) -> None:
        given: object = self.files
        if not isinstance(given, Mapping) or not given:
            raise ValueError("files is no mapping of files to fields, as {gsm8k.jsonl: question}")
        for name, field in self.files.items():
            reference.check(str(name))
            if not isinstance(field, str):
                raise ValueError(f"the field of {name!r:.200} is {field!r:.80}, not a name")
        if not 1 <= self.ngram <= 100:
            raise ValueError(f"ngram is {self.ngram}, not 1 to 100")
        if not 0 <= self.max_ratio < 1:
            raise ValueError(f"max_ratio is {self.max_ratio}, not 0 or more and below 1")

    def reads_files(self) -> tuple[str, ...]:
        """Return the benchmark files."""
        return tuple(self.files)

    def compute(self, batch: Batch) -> Values:
        """Look every instruction up."""
        found: Values = {name: [] for name in self.features}
        for text in batch["instruction"]:
            overlap = self._benchmarks.overlap(text) if text is not None else None
            ratio = overlap.ratio if overlap else None if text is None else 0.0
            found["contamination_ratio"].append(ratio)
            found["contaminated"].append(None if ratio is None else ratio > self.max_ratio)
            found["contamination_source"].append(overlap and overlap.source)
            found["contamination_span"].append(overlap and overlap.span)
        return found

    def pins(self) -> dict[str, str]:
        """Hashes of the benchmark files, which are read by now: before anything is asked."""
        _ = self._benchmarks
        return self.file_hashes()

    @cached_property
    def _benchmarks(self) -> "Benchmarks":
        from prequery.columns.benchmarks import Benchmarks

        return Benchmarks(self._items(), self.ngram)

    def _items(self) -> Iterator[tuple[str, str]]:
        for name, field in self.files.items():
            for number, text in reference.texts(self.path(name), field):
                yield f"{name}:{number}", text
