"""The real Hub, as tests see it that were written for both."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi, constants

TOKEN_VARIABLE = "PREQUERY_TEST_HUB_TOKEN"
"""Holds a token that may write. Another name than `HF_TOKEN`, so that nobody's own is used."""


class Place(Protocol):
    """A Hub: the one of the tests, or the real one."""

    @property
    def namespace(self) -> str:
        """Whose repos the token may write."""

    def api(self, token: str | None = None) -> HfApi:
        """Return a client with a token, by default with the one that may write."""

    def environment(self, home: Path, xet: bool = False) -> dict[str, str]:
        """Return what a process must have in its environment to talk to this Hub alone."""


@dataclass(frozen=True)
class RealHub:
    """The real Hub, or wherever `HF_ENDPOINT` points."""

    token: str
    url: str = constants.ENDPOINT

    @cached_property
    def namespace(self) -> str:
        """The user whom the token belongs to."""
        return str(self.api().whoami()["name"])

    def api(self, token: str | None = None) -> HfApi:
        """Return a client with a token."""
        return HfApi(endpoint=self.url, token=token or self.token)

    def environment(self, home: Path, xet: bool = False) -> dict[str, str]:
        """Return the environment of a process that uses the token, and caches of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
        }
