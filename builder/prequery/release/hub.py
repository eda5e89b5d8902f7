"""Release on the Hub: shards first, then one commit, then one tag that never moves.

Every round reads the repository and does the one thing that is missing, so that it does not matter
what happened to the round before: a call that failed, whose answer was lost, or that killed this
process. A commit is known by the build id in its title; it names its parent, so two releases at
the same time cannot both land on it: the later one reads the README again and merges into it.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

from prequery import __version__
from prequery.errors import CardError, ReleaseError
from prequery.lock import LOCK
from prequery.release.changes import (
    Changes,
    Kind,
    Outcome,
    belongs,
    compare,
    disturbs,
    hold_version,
    next_version,
)
from prequery.release.content import JOURNALS, README, Content, local_path, section_of
from prequery.release.wire import Again, Held, Operation, Refs, Wire

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each round that follows a failed one, at most; the draw is uniform."""
PATIENCE_S = 900.0
"""No round is begun anew after so long."""
SHARDS_AT_ONCE = 16
"""Uploaded together: what a kill can make a later run send again is at most so many."""
ID_CHARS = 16
"""Of the build id in a commit's title."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Args:
        branch: Where the commit goes; made from `main` where it is missing.
        private: Make a repository that only members see.
        create_pr: Propose the commit as a pull request. The tag is made when it is merged, by the
            same command.
        overwrite_edits: Replace what somebody edited by hand since the version before.
        dry_run: Compare, and change nothing.
        waits_s: See `WAITS_S`.
        patience_s: See `PATIENCE_S`. A round can take longer: huggingface_hub repeats some calls.
    """

    branch: str = "main"
    private: bool = False
    create_pr: bool = False
    overwrite_edits: bool = False
    dry_run: bool = False
    waits_s: Sequence[float] = WAITS_S
    patience_s: float = PATIENCE_S


def release(
    content: Content,
    wire: Wire,
    wishes: Wishes,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Release a config; a repeat changes nothing, and after a fault it carries on.

    Args:
        content: What is to be there.
        wire: The repository.
        wishes: How.
        say: Shows a line of progress.

    Raises:
        ReleaseError: The repository shows what it showed before, or, where only the tag is
            missing, the whole release on its branch.
    """
    steps = _Steps(content, wire, wishes, say)
    told_token = wishes.dry_run
    failed, started = 0, time.monotonic()
    while True:
        try:
            if not told_token:
                wire.hold_token()
                told_token = True
            outcome = steps.next()
            if outcome:
                return outcome
        except Again as again:
            late = time.monotonic() - started > wishes.patience_s
            if late or failed == len(wishes.waits_s):
                raise ReleaseError(
                    f"the Hub did not take the release in {failed + 1} tries; the last: {again}",
                    wire.where,
                    "run the same command later: it carries on, and sends nothing twice",
                ) from None
            say(f"{again}; trying again")
            time.sleep(random.uniform(0, wishes.waits_s[failed]))
            failed += 1
        except CardError as error:
            raise ReleaseError(error.what, f"{wire.where}: {error.where}", error.fix) from None


@dataclass
class _Steps:
    """A release under way. What it remembers saves calls, and decides nothing."""

    content: Content
    wire: Wire
    wishes: Wishes
    say: Callable[[str], None]
    done: Changes = field(default_factory=Changes)
    acted: bool = False
    uploaded: dict[str, CommitOperationAdd] = field(default_factory=dict)
    known: dict[str, tuple[Mapping[str, Held], str | None]] = field(default_factory=dict)

    def next(self) -> Outcome | None:
        """Do the next thing that is missing; return what came of the release when nothing is."""
        refs = self.wire.refs()
        if refs is None:
            return self._without_repo()
        if self.wishes.private and not self.acted and not self.wire.is_private():
            raise ReleaseError(
                "the repository is public, and this release is to be private",
                self.wire.where,
                "make it private in its settings, or leave --private out",
            )
        tagged = refs.tags.get(self.content.tag)
        if tagged is not None:
            self._hold_tag(tagged)
            kind: Kind = "released" if self.acted else "unchanged"
            return Outcome(kind, self.wire.repo, self.done, tagged)
        branch = self.wishes.branch
        head, steps = refs.branches.get(branch), [f"commit on {branch}", f"tag {self.content.tag}"]
        if head is None:
            start = refs.branches.get("main")
            if start is None:
                raise Again("the repository has no branch main yet")
            if not self.wishes.dry_run:
                self.wire.make_branch(branch, start)
                self.acted = True
                return None
            head, steps = start, [f"branch {branch}", *steps]
        return self._on_branch(refs, head, steps)

    def _without_repo(self) -> Outcome | None:
        self.wire.refuse_other_kind()
        if self.wishes.dry_run:
            seen = "private" if self.wishes.private else "public"
            branch = [f"branch {self.wishes.branch}"] if self.wishes.branch != "main" else []
            steps = (f"{seen} dataset repository {self.wire.repo}", *branch)
            steps += (f"commit on {self.wishes.branch}", f"tag {self.content.tag}")
            return Outcome("planned", self.wire.repo, compare(self.content, {}, {}, None, steps))
        self.wire.make_repo(private=self.wishes.private)
        self.acted = True
        return None

    def _at(self, commit: str) -> tuple[Mapping[str, Held], str | None]:
        """Return a commit's files and its README; null: it has none. A commit never changes."""
        if commit not in self.known:
            tree = self.wire.tree(commit)
            readme = self.wire.read(README, commit) if README in tree else None
            self.known[commit] = tree, readme
        return self.known[commit]

    def _on_branch(self, refs: Refs, head: str, steps: list[str]) -> Outcome | None:
        tree, readme = self._at(head)
        made = self._titled() or (head if self._difference(head) is None else None)
        if made:
            if self.wishes.dry_run:
                changes = Changes(kept=tuple(self.content.files), steps=(steps[-1],))
                return Outcome("planned", self.wire.repo, changes)
            self.wire.tag(self.content.tag, made)
            self.acted = True
            return None
        changes = self._changes(refs, head, tree, readme, tuple(steps))
        if self.wishes.create_pr:
            for title, url in self.wire.proposals():
                if self._id in title:
                    return Outcome("proposed", self.wire.repo, changes, url=url)
        if self.wishes.dry_run:
            return Outcome("planned", self.wire.repo, changes)
        return self._commit(changes, head, readme)

    @property
    def _id(self) -> str:
        return f"build {self.content.build_id[:ID_CHARS]}"

    def _difference(self, commit: str) -> str | None:
        """Return the first path at which a commit is not this release; null: it is."""
        tree, readme = self._at(commit)
        config, files = self.content.config, self.content.files
        journals = any(path.startswith(JOURNALS) for path in files)
        for path, file in files.items():
            if path not in tree or not tree[path].is_(file, self.content, path):
                return path
        for path in tree:
            # Answers may be published with a release, and it is the same release without them.
            of_it = belongs(path, config) and (journals or not path.startswith(JOURNALS))
            if (of_it and path not in files) or disturbs(path, config):
                return path
        section = section_of(readme or "", config)
        return None if section == self.content.section else README

    def _hold_tag(self, tagged: str) -> None:
        """See that the tag names this very release."""
        self._take_time(tagged)
        path = self._difference(tagged)
        if path is None:
            return
        where = f"{self.wire.where}, commit {tagged[:8]}"
        made = self._titled()
        if made and made != tagged:
            raise ReleaseError(
                f"the tag {self.content.tag} was moved: this release is commit {made[:8]}",
                where,
                f"whoever moved it: hf repos tag delete datasets/{self.wire.repo} "
                f"{self.content.tag}, then run the same command: it makes the tag where it was",
            )
        raise ReleaseError(
            f"the tag {self.content.tag} exists and holds other content, first at {path!r}",
            where,
            f"{next_version(self.content.version)}; nothing was uploaded",
        )

    def _take_time(self, commit: str) -> None:
        """Take over the time that a commit's lock tells, where that alone is another."""
        tree, _ = self._at(commit)
        path = f"{self.content.config}{LOCK}"
        if path in tree and not tree[path].is_(self.content.files[path], self.content, path):
            self.content = self.content.timed_as(self.wire.read(path, commit).encode())

    def _titled(self) -> str | None:
        """Return the newest commit that bears the build id and holds what it promises."""
        try:
            commits = self.wire.commits(self.wishes.branch)
        except Again:
            if self.wishes.dry_run:
                return None  # the branch that is asked for does not exist yet
            raise
        for commit, title in commits:
            if self._id in title and self._difference(commit) is None:
                return commit
        return None

    def _changes(
        self,
        refs: Refs,
        head: str,
        tree: Mapping[str, Held],
        readme: str | None,
        steps: tuple[str, ...],
    ) -> Changes:
        """Return what the commit changes, and refuse what it must not."""
        config = self.content.config
        lock_path = f"{config}{LOCK}"
        version = self._version(lock_path, head) if lock_path in tree else None
        foreign = [path for path in tree if disturbs(path, config)]
        if lock_path not in tree:
            foreign += [path for path in tree if belongs(path, config)]
        if foreign:
            raise ReleaseError(
                f"the repository holds files that no release wrote, as {sorted(foreign)[0]!r}",
                self.wire.where,
                f"move them away there, or choose another repository or name than {config!r}",
            )
        hold_version(self.content, version, f"{self.wire.where}, branch {self.wishes.branch}")
        if version and not self.wishes.overwrite_edits:
            self._refuse_edits(refs.tags.get(f"{config}-v{version}"), tree, readme)
        held = {
            path: path in self.content.files
            and one.is_(self.content.files[path], self.content, path)
            for path, one in tree.items()
            if belongs(path, config)
        }
        large = {one.sha256: path for path, one in tree.items() if one.sha256}
        return compare(self.content, held, large, readme, steps)

    def _version(self, lock_path: str, head: str) -> str:
        try:
            version = json.loads(self.wire.read(lock_path, head))["config"]["version"]
            if not isinstance(version, str):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise ReleaseError(
                "the lock in the repository is damaged: which version is there cannot be told",
                f"{self.wire.where}: {lock_path}",
                "restore it there from the tag of its version",
            ) from None
        return version

    def _refuse_edits(
        self, tagged: str | None, tree: Mapping[str, Held], readme: str | None
    ) -> None:
        """Refuse to replace what somebody changed by hand since the version before."""
        if tagged is None:
            return
        config = self.content.config
        before = self.wire.tree(tagged)
        paths = [path for path in (*tree, *before) if belongs(path, config)]
        edited = [path for path in paths if tree.get(path) != before.get(path)]
        if not edited:
            old = self.wire.read(README, tagged) if README in before else ""
            if section_of(old, config) != section_of(readme or "", config):
                edited = [f"{README}, the section of {config}"]
        if edited:
            raise ReleaseError(
                f"{edited[0]} was edited by hand since the version that is there was released",
                f"{self.wire.where}, branch {self.wishes.branch}",
                "move words out of the lines marked `prequery:`, which stay for ever, and restore "
                "the rest; or give it up: --overwrite-edits",
            )

    def _commit(self, changes: Changes, head: str, readme: str | None) -> Outcome | None:
        """Send what is missing, then commit all of it."""
        content, branch, pr = self.content, self.wishes.branch, self.wishes.create_pr
        sent = [path for path in (*changes.added, *changes.replaced) if path != README]
        with self._additions(sent) as additions:
            operations: list[Operation] = [
                CommitOperationDelete(path, is_folder=False) for path in changes.removed
            ]
            operations += [
                CommitOperationCopy(old, new, src_revision=head)
                for new, old in changes.moved.items()
            ]
            operations += additions
            operations.append(CommitOperationAdd(README, content.readme(readme).encode()))
            made = self.wire.commit(
                operations,
                f"Release {content.config} {content.version} [{self._id}]",
                f"build {content.build_id}, by prequery {__version__}",
                branch,
                head,
                create_pr=pr,
            )
        self.acted, self.done = True, changes
        if pr:
            return Outcome("proposed", self.wire.repo, changes, url=made.pr_url)
        return None

    @contextmanager
    def _additions(self, paths: Sequence[str]) -> Iterator[list[CommitOperationAdd]]:
        """Yield what is added, uploaded; a few at a time, so that a fault costs only these."""
        waiting = [path for path in paths if path not in self.uploaded]
        with TemporaryDirectory(prefix="prequery-release-") as folder:
            for start in range(0, len(waiting), SHARDS_AT_ONCE):
                chosen = waiting[start : start + SHARDS_AT_ONCE]
                made = [self._addition(path, Path(folder)) for path in chosen]
                self.wire.upload(made, self.wishes.branch, create_pr=self.wishes.create_pr)
                for one in made:
                    wanted = self.content.files[one.path_in_repo].sha256
                    if one.upload_info.sha256.hex() != wanted:
                        raise ReleaseError(
                            "a file changed while it was released",
                            self.content.path(one.path_in_repo),
                            "let nothing else write into it, then run the same command",
                        )
                    self.uploaded[one.path_in_repo] = one
                self.say(f"uploaded {min(start + SHARDS_AT_ONCE, len(waiting))} of {len(waiting)}")
            yield [self.uploaded[path] for path in paths]

    def _addition(self, path: str, folder: Path) -> CommitOperationAdd:
        file = self.content.files[path]
        if file.data is not None:
            return CommitOperationAdd(path, file.data)
        source = file.local or local_path(self.content.fs, self.content.path(path))
        if source is None:
            source = folder / path.replace("/", "+")
            self.content.fs.get_file(self.content.path(path), str(source))
        return CommitOperationAdd(path, source)
