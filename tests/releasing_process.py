"""A release in a process of its own, for tests that kill it."""

from prequery.release import hub
from prequery.release.content import Content
from prequery.release.hub import Wishes
from prequery.release.wire import Wire


def run(released: Content, repo: str, endpoint: str, token: str) -> None:
    """Release on the Hub of the tests."""
    hub.release(released, Wire(repo, endpoint, token), Wishes(waits_s=(0.0,) * 5))
