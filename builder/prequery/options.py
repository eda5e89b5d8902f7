"""What changes the speed or the place of a build, and no value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prequery.transport import Patience


@dataclass(frozen=True)
class Options:
    """What changes the speed or the place of a build, and no value.

    Args:
        endpoints: Addresses instead of the recipe's; none takes the recipe's. A token goes only
            to the recipe's own address: for others, name its variable here.
        token_env: Environment variable with the bearer token for `endpoints`.
        responder_endpoints: The same of the recipe's responder.
        responder_token_env: The same of the recipe's responder.
        judge_endpoints: Addresses of judges by name, instead of the recipe's; with the recipe's
            token variable, for the same host alone.
        journal: Folder or, as text, fsspec URL of all journals; null takes the user's.
        resume: Command that carries on, for messages.
        max_tokens: Prompt and generated tokens that this run may spend.
        max_seconds: Time that it may take.
        max_cost_usd: What it may cost, by the prices in the recipe's endpoint; of an annotation,
            in those of its judges.
        exact: The embedded endpoint answers one request at a time, so that greedy responses
            repeat too. The lock says so, and a journal is of one mode.
        recorded: The journal alone answers: no endpoint is asked, whatever is missing.
        patience: How long an endpoint's faults are borne.
    """

    endpoints: tuple[str, ...] = ()
    token_env: str | None = None
    responder_endpoints: tuple[str, ...] = ()
    responder_token_env: str | None = None
    judge_endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    journal: Path | str | None = None
    resume: str = "make the same call again"
    max_tokens: int | None = None
    max_seconds: float | None = None
    max_cost_usd: float | None = None
    exact: bool = False
    recorded: bool = False
    patience: Patience = field(default_factory=Patience)
