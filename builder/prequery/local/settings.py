"""What a server of the embedded endpoint is started with."""

from dataclasses import dataclass

import msgspec

from prequery.local.weights import Weights

DEFAULT_SLOTS = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is started with.

    Attributes:
        weights: The model.
        port: 0 takes any free one.
        slots: How many answers are generated at the same time. Measured with 4, 8, 12, 16 and 32 on
            two cores: 207, 257, 245, 249, 214 tokens/s and 0.5, 0.7, 0.9, 1.1, 1.9 GB.
        threads: How many CPU threads generate them; None takes every core.
        exact: One slot, and no computation is reused between requests: the same request then has
            the same answer whatever else is served, at two to three times the time.
        max_concurrent_requests: How many requests are accepted at the same time.
        max_input_tokens: Of a prompt.
        max_total_tokens: Of a prompt and its answer.
    """

    weights: Weights
    port: int = 0
    slots: int = DEFAULT_SLOTS
    threads: int | None = None
    exact: bool = False
    max_concurrent_requests: int = 128
    max_input_tokens: int = 2047
    max_total_tokens: int = 2048


def settings_to_json(settings: Settings) -> str:
    """Write settings as the argument that a server process takes."""
    return msgspec.json.encode(settings, enc_hook=str).decode()


def settings_from_json(text: str) -> Settings:
    """Read what :func:`settings_to_json` wrote."""
    return msgspec.json.decode(text, type=Settings, dec_hook=lambda type_, value: type_(value))
