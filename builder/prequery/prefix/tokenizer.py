"""A model's tokenizer files: its chat template, its BOS, and the ids that it makes of a text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prequery.endpoint import Token
from prequery.errors import PrefixError

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that are read, and brought from the Hub."""


@dataclass(frozen=True)
class LocalTokenizer:
    """What the files say.

    Args:
        template: Jinja; of several named ones the one called `default`.
        special: Texts of the named special tokens, as `bos_token`.
        path: Of `tokenizer.json`; null where the folder has none.
    """

    template: str
    special: dict[str, str]
    path: Path | None

    def encode(self, text: str) -> list[Token] | None:
        """Return the tokens of a text with nothing added to it; null without `tokenizer.json`.

        Raises:
            PrefixError: That file is damaged.
        """
        if self.path is None:
            return None
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_file(str(self.path)).encode(text, add_special_tokens=False)
        except Exception as error:  # noqa: BLE001
            # The library raises bare exceptions for all that can be wrong with a file.
            what = f"tokenizer.json cannot be read: {error}"
            raise PrefixError(what[:400], str(self.path), "bring the file anew") from None
        placed = zip(found.ids, found.offsets, strict=True)
        return [Token(one, text[start:stop], start, stop) for one, (start, stop) in placed]


def read(folder: Path) -> LocalTokenizer:
    """Read a folder of tokenizer files.

    Raises:
        PrefixError: They are damaged, or hold no chat template.
    """
    config = _json(folder / "tokenizer_config.json")
    special = {**_json(folder / "special_tokens_map.json"), **config}
    template = _text(folder / "chat_template.jinja")
    if template is None:
        template = _default(_json(folder / "chat_template.json").get("chat_template"))
    if template is None:
        template = _default(config.get("chat_template"))
    if template is None:
        raise PrefixError(
            "the tokenizer has no chat template",
            str(folder),
            "use a chat model, or name its template: generator.template: {file: PATH}",
        )
    path = folder / "tokenizer.json"
    return LocalTokenizer(
        template=template,
        special={
            key: text
            for key, value in special.items()
            if key.endswith("_token") and (text := _special(value)) is not None
        },
        path=path if path.is_file() else None,
    )


def download(model: str, revision: str) -> Path:
    """Bring a model's tokenizer files from the Hub, or from its cache, and return their folder.

    A token comes from where huggingface_hub finds it, as `HF_TOKEN`.

    Raises:
        PrefixError: They cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # noqa: BLE001
        # Network, gate, cache and disk: what the Hub's client raises has no common base.
        raise PrefixError(
            f"the tokenizer cannot be had from the Hub: {type(error).__name__}",
            f"{model}@{revision}",
            "export HF_TOKEN for a gated model, or name a folder: generator.template: "
            "{tokenizer: PATH}",
        ) from None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise PrefixError(f"{path.name} cannot be read: {error}", str(path), "") from None


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PrefixError(
            f"{path.name} is no JSON: {error}", str(path), "bring the file anew"
        ) from None
    return found if isinstance(found, dict) else {}


def _default(found: object) -> str | None:
    """Return a template, or of several named ones the one that is called `default`."""
    if isinstance(found, list):
        found = {one["name"]: one["template"] for one in found if _is_named(one)}
    if isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None


def _is_named(one: object) -> bool:
    return isinstance(one, dict) and {"name", "template"} <= set(one)


def _special(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
