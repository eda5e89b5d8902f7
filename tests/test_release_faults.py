"""Every HTTP call of a release fails in turn: the repository shows one version, then the other."""

import contextlib
import copy
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils import _http

import releasing_process
from built_folder import Wanted, build
from fork_server import fork_server
from hub import Fault, Hub, Repo
from prequery.errors import ReleaseError
from prequery.release import content
from prequery.release import hub as hub_release
from prequery.release.changes import belongs
from prequery.release.content import Content
from prequery.release.hub import Wishes
from prequery.release.wire import Wire

REPO = "acme/data"
WISHES = Wishes(waits_s=(0.0,) * 5)
DOWN = 10**6
FAULTS: dict[str, dict[str, Any]] = {
    "409": {"status": 409},
    "412": {"status": 412},
    "429": {"status": 429, "retry_after_s": 7},
    "503": {"status": 503},
    "lost answer": {"lost": True},
    "expired token": {"expires": True},
}
CASES = [(name, when) for name in FAULTS for when in ("before", "after")]


@dataclass
class Place:
    """A Hub that can be set back, with what is released on it.

    Args:
        hub: The Hub.
        old: The config's version before; its release is what `second` starts from.
        new: What is released.
        repos: The repositories at the start: none, or with `old` and another config.
        calls: Names of the calls of a release that nothing disturbs.
        refused: Which of them the Hub refuses: that something is not there.
        known: Commits to the version that they show.
    """

    hub: Hub
    old: Content
    new: Content
    repos: Mapping[Any, Repo]
    calls: list[str]
    refused: set[int] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)

    def reset(self) -> None:
        self.hub.repos = copy.deepcopy(dict(self.repos))
        self.hub.faults.clear()
        self.hub.calls.clear()
        for account in self.hub.accounts.values():
            account.expired = False

    def release(self, released: Content | None = None, wishes: Wishes = WISHES) -> str:
        wire = Wire(REPO, self.hub.url, self.hub.token)
        return hub_release.release(released or self.new, wire, wishes).kind

    def versions(self) -> list[str]:
        """Say of every commit that main ever had which version of the config it shows."""
        repo = self.hub.repos.get(("datasets", REPO))
        if repo is None:
            return self.start
        return [self._version(commit.oid) for commit in repo.history("main")][::-1]

    def _version(self, revision: str) -> str:
        commit = self.hub.dataset(REPO).at(revision).oid
        if commit not in self.known:
            self.known[commit] = self._read_version(commit)
        return self.known[commit]

    def _read_version(self, revision: str) -> str:
        files = self.hub.files(REPO, revision)
        mine = {path: data for path, data in files.items() if belongs(path, self.new.config)}
        readme = files.get("README.md", b"").decode()
        for released in (self.old, self.new):
            whole = {path: released.read(path) for path in released.files}
            if mine == whole and released.readme(readme) == readme:
                return released.version
        return "none" if not mine and self.new.section not in readme else "mixture"

    def tags(self) -> dict[str, str]:
        """Return tags, each with the version that it shows."""
        repo = self.hub.repos.get(("datasets", REPO))
        refs = repo.refs if repo else {}
        names = [ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/chat")]
        return {name: self._version(name) for name in names}

    def hold(self, again: bool = True) -> None:
        """See that only whole versions were ever shown, and, when run again, the new one."""
        before = self.start
        assert self.versions() in (before, [*before, "2.0.0"])
        assert self.tags() in (
            self.start_tags,
            self.start_tags | {"chat-v2.0.0": "2.0.0"},
        )
        if again:
            self.hub.faults.clear()
            for account in self.hub.accounts.values():
                account.expired = False
            assert self.release() in ("released", "unchanged")
            assert self.versions() == [*before, "2.0.0"]
            assert self.tags() == self.start_tags | {"chat-v2.0.0": "2.0.0"}

    @property
    def start(self) -> list[str]:
        return ["none"] if not self.repos else ["none", "1.0.0", "1.0.0"]

    @property
    def start_tags(self) -> dict[str, str]:
        return {"chat-v1.0.0": "1.0.0"} if self.repos else {}


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub's own retries follow one another at once."""
    impatient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(_http, "time", impatient)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    root = tmp_path_factory.mktemp("built")
    wanted = {
        "old": Wanted(rows=5),
        "new": Wanted(version="2.0.0", rows=8, words="Tell me of {}."),
        "code": Wanted(name="code", rows=2),
    }
    return {name: content.read(str(build(root / name, one))) for name, one in wanted.items()}


@pytest.fixture(params=["first", "second"])
def place(request: pytest.FixtureRequest, hub: Hub, built: dict[str, Content]) -> Place:
    old, new, code = (built[name] for name in ("old", "new", "code"))
    made = Place(hub, old, new, {}, [])
    if request.param == "second":
        made.release(old)
        made.release(code)
        made.repos = copy.deepcopy(hub.repos)
    made.reset()
    made.release()
    calls = [call for call in hub.calls if call.name != "unknown"]
    made.calls = [call.name for call in calls]
    made.refused = {n for n, call in enumerate(calls) if (call.status or 500) >= 400}
    made.hold(again=False)
    return made


@pytest.mark.parametrize(("fault", "when"), CASES)
def test_whatever_call_fails_the_release_is_whole_or_not_there(
    place: Place, fault: str, when: Any
) -> None:
    for nth in range(len(place.calls)):
        place.reset()
        place.hub.fail(Fault(nth=nth, when=when, **FAULTS[fault]))

        with contextlib.suppress(ReleaseError):
            place.release()

        place.hold()
        # The client itself repeats an upload that failed; nothing else is ever sent twice.
        shards = sum(path.endswith(".parquet") for path in place.new.files)
        met = [call.name for call in place.hub.calls if call.fault]
        sent = sum(call.name == "lfs-upload" for call in place.hub.calls)
        assert sent <= shards + (met == ["lfs-upload"]), f"call {nth}, {met}"


def test_a_hub_that_is_down_from_some_call_on_is_told_and_the_same_command_carries_on(
    place: Place,
) -> None:
    for nth in range(len(place.calls)):
        place.reset()
        place.hub.fail(Fault(nth=nth, times=DOWN, status=503))

        with pytest.raises(ReleaseError) as caught:
            place.release(wishes=Wishes(waits_s=(0.0,)))

        assert caught.value.what.startswith("the Hub did not take the release in 2 tries")
        place.hold()


@pytest.fixture
def processes(place: Place) -> Iterator[ForkServerContext]:
    """Processes with the settings of this test's Hub."""
    with fork_server("releasing_process", "prequery.release.hub", "datasets") as context:
        yield context


def test_a_release_that_is_killed_at_any_call_is_carried_on(
    place: Place, processes: ForkServerContext
) -> None:
    # Killed when the Hub has acted. Before it acts is what follows the call before.
    for nth, name in enumerate(place.calls):
        place.reset()
        arguments = (place.new, REPO, place.hub.url, place.hub.token)
        child = processes.Process(target=releasing_process.run, args=arguments)

        def kill(child: Any = child) -> None:
            os.kill(child.pid, signal.SIGKILL)

        when: Any = "before" if nth in place.refused else "after"
        place.hub.fail(Fault(nth=nth, when=when, lost=True, runs=kill))
        child.start()
        child.join()

        assert child.exitcode == -signal.SIGKILL
        place.hold()
        sent = [call.path for call in place.hub.calls if call.name == "lfs-upload" and call.status]
        assert len(sent) == len(set(sent)), f"call {nth}, {name}"
