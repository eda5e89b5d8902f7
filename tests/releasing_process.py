"""A release in a process of its own, for tests that kill it."""

from huggingface_hub import constants

from prequery.release import hub
from prequery.release.content import Content
from prequery.release.hub import Wishes
from prequery.release.wire import Wire


def run(released: Content, repo: str, endpoint: str, token: str) -> None:
    """Release on the Hub of the tests, over LFS."""
    # The process is forked from one that may have read its settings for another test.
    constants.HF_HUB_DISABLE_XET = True
    hub.release(released, Wire(repo, endpoint, token), Wishes(waits_s=(0.0,) * 5))
