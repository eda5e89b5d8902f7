"""What a recipe is made of, and its fingerprint."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from prequery import draws
from prequery.columns.base import Column
from prequery.filters import Filter, Pick
from prequery.rows import Shape

LOCAL = "local"
TRANSFORMERS = "transformers"
"""Instead of a judge's address: it scores in the build's own process."""
EndpointProtocol = Literal["auto", "tgi", "completions", "tei"]
OWN = ("generator", "responder")
"""Names by which a column asks the recipe's own models, as if they were judges."""
DEFAULT = "default"
ITEM = "{item}"
"""Stands for a drawn item in the texts of a setting."""

Steering = Literal["hidden", "released"]
Think = Literal["keep", "strip", "split"]


@dataclass(frozen=True)
class Template:
    """Where a chat template is that the endpoint does not render; one of the first three.

    Args:
        tokenizer: Folder of tokenizer files; empty: the model's own, from the Hub.
        gguf: GGUF file.
        file: Jinja file.
        bos_token: What it writes as `bos_token`; only for a file, which does not tell.
        eos_token: The same of `eos_token`.
    """

    tokenizer: str | None = None
    gguf: str | None = None
    file: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None


@dataclass(frozen=True)
class Generator:
    """The model that writes both texts.

    Args:
        model: Its id, as the endpoint's `/info` names it.
        revision: Full commit hash, 40 hexadecimal digits.
        prefix: `auto`: derived from the model's own chat template.
        template: Where that is; null: the endpoint renders it.
        date: ISO date that the template writes as the date of the day.
        thinking: Whether the template lets the model think; null: as it does by itself.
    """

    model: str
    revision: str
    prefix: str = "auto"
    template: Template | None = None
    date: str | None = None
    thinking: bool | None = None


@dataclass(frozen=True)
class Sampling:
    """How one pass is decoded. Names and meanings are TGI's.

    Args:
        temperature: Over 0; null is greedy.
        top_p: In (0, 1]; 1 and null keep the whole vocabulary.
        top_k: 1 or more; null keeps the whole vocabulary.
        repetition_penalty: Over 0; null and 1 are none.
        max_new_tokens: At most this many tokens are written.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = 512


@dataclass(frozen=True)
class Setting(Sampling):
    """One of the weighted settings that slots choose from for their instruction.

    Args:
        weight: Its share is this over the sum of all weights.
        system: `default` is what the template itself puts there; another text steers: the
            instruction is asked for under it as system prompt. `{item}` stands for a drawn item.
        name: What rows made with this setting bear as `steering`; it changes no answer.
        items: Texts of which each slot draws one, equally likely.
        start: First words of the instruction, given to the model to go on from; may hold `{item}`.
        first_temperature: Of the first token alone, which is then a request of its own.
        heading: False forbids, by a grammar, that an instruction begins like a Markdown heading,
            a list or bold text.
    """

    weight: float = 1.0
    system: str = DEFAULT
    name: str | None = None
    items: tuple[str, ...] | None = None
    start: str | None = None
    first_temperature: float | None = None
    heading: bool | None = None


@dataclass(frozen=True)
class FollowUp:
    """How the model is asked for a user's second and later turns.

    Args:
        system: System prompt that reminds the model that it plays the user. Responses are not
            asked for under it, and `messages` never hold it.
        release: Whether rows tell it, as `follow_up_system`.
    """

    system: str
    release: bool = False


@dataclass(frozen=True)
class Preference:
    """How several responses to one instruction become a chosen and a rejected one.

    Args:
        responses: So many, 2 or more, each with a seed of its own.
        score: Field of a column that sees one row: a number, or a grade that has an order and
            counts by its place in it, from 0. The highest is chosen, the lowest rejected.
        min_margin: A smaller difference makes no row; one of 0 never does.
    """

    responses: int
    score: str
    min_margin: float = 0.0


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. No part of this can change a value, so it is in no fingerprint.

    Args:
        url: `local` starts the embedded endpoint; otherwise http(s) without credentials. Of a judge
            that scores also `transformers`.
        token_env: Name of the environment variable that holds the bearer token.
        concurrency: Rows in flight; null takes the endpoint's own limit.
        usd_per_million_prompt_tokens: For `--max-cost` and estimates.
        usd_per_million_generated_tokens: The same of what is written.
        protocol: `tgi`, `completions` (the raw `/v1/completions` of vLLM, SGLang, llama.cpp), or
            `auto`: asked of the endpoint.
    """

    url: str = LOCAL
    token_env: str | None = None
    concurrency: int | None = None
    usd_per_million_prompt_tokens: float = 0.0
    usd_per_million_generated_tokens: float = 0.0
    protocol: EndpointProtocol = "auto"


@dataclass(frozen=True)
class Other(Generator):
    """Another model than the one that writes instructions, with an endpoint of its own."""

    endpoint: Endpoint = Endpoint()


@dataclass(frozen=True)
class Release:
    """Where a release goes, and how it is described.

    Args:
        repo: owner/name on the Hub.
        license: The Hub's name of one; null: that of the models.
        template: Jinja file of the card, relative to the recipe; null: the bundled one.
    """

    repo: str | None = None
    license: str | None = None
    template: str | None = None


class Config(ABC):
    """One config of a dataset repository: what follows from what every recipe of one says."""

    # Each recipe has these as fields in its own order, which errors show to the user.
    name: str
    version: str
    rows: int
    candidates: int | None
    judges: Mapping[str, Other]
    columns: tuple[Column, ...]
    filters: tuple[Filter | Pick, ...]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what decides a row before it is measured, in hexadecimal.

        It begins every row id.
        """

    @cached_property
    def build_hash(self) -> str:
        """SHA-256 of what decides a released byte: the fingerprint and all that comes after."""
        return digest(self._decides())

    def _decides(self) -> dict[str, object]:
        return {
            "fingerprint": self.fingerprint,
            "name": self.name,
            "version": self.version,
            "rows": self.rows,
            "candidates": self.candidates,
            "judges": {name: asdict(one) | {"endpoint": None} for name, one in self.judges.items()}
            or None,
            "columns": [column.fingerprint() for column in self.columns],
            "filters": [step.text for step in self.filters],
        }

    @property
    def goal(self) -> int:
        """How many rows must pass before the build can end: `candidates`, or `rows`."""
        return self.candidates or self.rows

    @cached_property
    def leading(self) -> tuple[Filter, ...]:
        """The filters before the first that needs all rows: a row passes these, or does not."""
        return split(self.filters)[0]

    @property
    def following(self) -> tuple[Filter | Pick, ...]:
        """The first filter that needs all rows, and whatever comes behind it."""
        return split(self.filters)[1]

    @property
    def dtypes(self) -> dict[str, str]:
        """Field name to dtype, of all columns in order."""
        return column_dtypes(self.columns)


@dataclass(frozen=True)
class Recipe(Config):
    """What to build: one config of a dataset repository, checked.

    Args:
        rows: Accepted rows to release, not attempts.
        candidates: Rows that the first filter that needs all rows chooses from: the first slots,
            by number, that pass the filters before it. Null where no filter needs all rows.
        turns: User turns of every row, or the weights of 1, 2, 3 and more of them.
        follow_up: How later user turns are asked for; null asks as for the first.
        steering: `hidden`: a steering system prompt shapes the instruction alone. `released`: it
            stands in `messages` too, and the response is asked for under it.
        think: What becomes of a thinking model's think block: `keep` leaves it in the response,
            `strip` takes it out, `split` puts it into the field `thinking`.
        judges: Models that columns ask about rows, by the name that the columns use; among them
            those of `OWN` that a column asks.
        responder: Who writes the responses; null: the generator.
        preference: Makes rows of a chosen and a rejected response; null makes `messages`.
        max_attempts: Slots after which a build gives up; enters no fingerprint.
        source: File that it was read from.
        text: That file, letter by letter.
    """

    name: str
    version: str
    rows: int
    candidates: int | None
    seed: int
    generator: Generator
    instructions: tuple[Setting, ...]
    responses: Sampling
    turns: int | tuple[float, ...]
    follow_up: FollowUp | None
    steering: Steering
    think: Think
    responder: Other | None
    judges: Mapping[str, Other]
    preference: Preference | None
    columns: tuple[Column, ...]
    filters: tuple[Filter | Pick, ...]
    release: Release
    endpoint: Endpoint
    max_attempts: int
    source: str
    text: str

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides an answer, in hexadecimal.

        It names the journal and begins every row id. Rows, columns, filters and the release are
        left out: changing them asks for no answer again and renames no row.
        """
        return digest(
            {
                "draws": draws.SCHEME,
                "seed": self.seed,
                "generator": asdict(self.generator),
                "instructions": [asdict(setting) | {"name": None} for setting in self.instructions],
                "responses": asdict(self.responses),
                "turns": self.turns,
                "follow_up": self.follow_up and self.follow_up.system,
                "steering": None if self.steering == "hidden" else self.steering,
                "responder": self.responder and asdict(self.responder) | {"endpoint": None},
            }
        )

    def _decides(self) -> dict[str, object]:
        return super()._decides() | {
            "names": [one.name for one in self.instructions if one.name] or None,
            "follow_up": self.follow_up and (self.follow_up.release or None),
            "think": None if self.think == "keep" else self.think,
            "preference": self.preference and asdict(self.preference),
        }

    @property
    def shape(self) -> Shape:
        """What a row of this config is."""
        return "preference" if self.preference else "messages"


def column_dtypes(columns: Sequence[Column]) -> dict[str, str]:
    """Return field name to dtype, of all columns in order."""
    return {name: dtype for column in columns for name, dtype in column.features.items()}


def split(
    steps: tuple[Filter | Pick, ...],
) -> tuple[tuple[Filter, ...], tuple[Filter | Pick, ...]]:
    """Return the filters before the first that needs all rows, and those from it on."""
    first = next((at for at, step in enumerate(steps) if isinstance(step, Pick)), len(steps))
    return tuple(step for step in steps[:first] if isinstance(step, Filter)), steps[first:]


def digest(content: object) -> str:
    """Hash canonical JSON. Nulls are left out, so that a new optional key changes nothing."""
    text = json.dumps(_without_nulls(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_nulls(content: object) -> object:
    if isinstance(content, dict):
        return {key: _without_nulls(value) for key, value in content.items() if value is not None}
    if isinstance(content, list):
        return [_without_nulls(value) for value in content]
    return content
