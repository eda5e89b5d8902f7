"""Which rows say nearly the same in nearly the same words."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prequery.columns.base import Batch, CorpusColumn, Values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class NearDuplicate(CorpusColumn):
    """Whether an earlier row has nearly the same wording, and which one.

    `near_duplicate` is true for all of a group of near duplicates but the first in slot order, so
    that `not near_duplicate` keeps one of each. `duplicate_of` is the `id` of that first one; null
    where it is the row itself. `duplicate_count` is how many others are in the group. All three are
    null where there is no text.

    Two rows are compared where one of `bands` bands of `band_hashes` MinHash values agrees: at the
    defaults pairs of Jaccard similarity s meet with probability 1 - (1 - s ** 8) ** 14, which
    is 0.05 at 0.5, 0.77 at 0.75, 0.92 at 0.8 and 0.9996 at 0.9. They are near duplicates where the
    whole signatures agree in a share of `min_similarity`, an estimate of s within about 0.04.

    Word order counts here, unlike in `min_neighbor_distance`, and meaning does not.

    Args:
        response: Whether the response counts as well, as one text with the instruction.
        ngram: Code points of an n-gram, 1 to 100.
        bands: 1 to 1,000.
        band_hashes: 1 to 100.
        min_similarity: Over 0 and at most 1.

    Source:
        Broder, On the resemblance and containment of documents (1997); bands and hashes are those
        of FineWeb, arXiv 2406.17557. We differ: n-grams of 8 code points (theirs are of 5 words,
        too many for a short instruction, and none in a script without spaces), and a pair is
        checked by its whole signatures.
    """

    name = "near_duplicate"
    version = 1
    reads = ("id", "instruction", "response")
    features: ClassVar[Mapping[str, str]] = {
        "near_duplicate": "bool",
        "duplicate_of": "string",
        "duplicate_count": "int64",
    }

    response: bool = False
    ngram: int = 8
    bands: int = 14
    band_hashes: int = 8
    min_similarity: float = 0.75

    def __post_init__(self) -> None:
        for name, high in (("ngram", 100), ("bands", 1000), ("band_hashes", 100)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, not 1 to {high}")
        if not 0 < self.min_similarity <= 1:
            raise ValueError(f"min_similarity is {self.min_similarity}, not over 0 and at most 1")

    def compute(self, batches: Iterable[Batch]) -> Values:
        """Sign every text, and compare those that agree in a band."""
        import numpy as np

        from prequery.columns.kept import worked_out
        from prequery.columns.minhash import MinHash, groups

        ids: list[str] = [row_id for batch in batches for row_id in batch["id"]]
        hashes = self.bands * self.band_hashes
        signer = MinHash(self.ngram, hashes)

        def work(batch: Batch) -> "NDArray[np.uint32]":
            # The last number says whether there is a text.
            signed = np.zeros((len(batch["id"]), hashes + 1), np.uint32)
            for row, texts in enumerate(zip(batch["instruction"], batch["response"], strict=True)):
                told = texts if self.response else texts[:1]
                signature = signer.sign("\n".join(text for text in told if text is not None))
                if signature is not None:
                    signed[row, :hashes], signed[row, hashes] = signature, 1
            return signed

        signed = worked_out(f"signatures {self.fingerprint()}", batches, work)
        measurable = np.flatnonzero(signed[:, hashes]).tolist() if len(signed) else []
        signatures = signed[measurable, :hashes] if measurable else np.zeros((0, hashes), np.uint32)
        firsts = groups(signatures, self.bands, self.min_similarity).tolist()
        sizes = Counter(firsts)

        repeats: list[bool | None] = [None] * len(ids)
        originals: list[str | None] = [None] * len(ids)
        counts: list[int | None] = [None] * len(ids)
        for position, (row, first) in enumerate(zip(measurable, firsts, strict=True)):
            repeats[row] = first != position
            originals[row] = ids[measurable[first]] if first != position else None
            counts[row] = sizes[first] - 1
        return {
            "near_duplicate": repeats,
            "duplicate_of": originals,
            "duplicate_count": counts,
        }
