"""The Hub, call by call: what a release asks of it, and what its refusals mean.

A call ends in one of four ways: an answer; null where the thing is not there; `Again`, after which
the state of the repository is read anew, because nobody knows whether the call did its work; or
a `ReleaseError`, where asking again would not help.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_session,
    get_token,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from prequery import __version__
from prequery.errors import ReleaseError
from prequery.release.content import Content, File

KIND = "dataset"
TIMEOUT = httpx2.Timeout(120.0, connect=20.0)
"""Between two bytes. The client itself would wait for ever."""
_AGAIN = frozenset((408, 409, 412, 425, 429))
_OTHER_KINDS = {"model": "model", "space": "Space"}
_CARRIES_ON = "then run the same command: what was uploaded is not sent again"

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


class Again(Exception):  # noqa: N818 - it is no error yet
    """The call may or may not have done its work: read the state, and go on from there."""


@dataclass(frozen=True)
class Held:
    """A file of a commit.

    Args:
        size: Bytes.
        blob: git's name of it.
        sha256: Of a large one; null: it is in git itself.
    """

    size: int
    blob: str
    sha256: str | None

    def is_(self, file: File, content: Content, path: str) -> bool:
        """Say whether its content is that of a file of a release."""
        if self.size != file.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == file.sha256
        data = file.data if file.data is not None else content.read(path)
        return self.blob == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Refs:
    """Branches and tags, by name, to their commits."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


class Wire:
    """One dataset repository.

    Args:
        repo: `organization/name`.
        endpoint: Address of the Hub; null: as huggingface_hub is set up.
        token: Null: the one of huggingface_hub's own login or environment. It is never shown.

    Raises:
        ReleaseError: The name cannot be one.
    """

    def __init__(self, repo: str, endpoint: str | None = None, token: str | None = None) -> None:
        if repo.count("/") != 1:
            raise ReleaseError(
                f"{repo!r} is no dataset repository",
                "--repo",
                "name it as organization/name, without `datasets/` or an address",
            )
        self.repo = repo
        self._token = token or get_token()
        self._api = HfApi(
            endpoint, self._token or False, library_name="prequery", library_version=__version__
        )

    @property
    def where(self) -> str:
        """The repository, as errors name it."""
        return f"datasets/{self.repo}"

    def hold_token(self) -> None:
        """Ask who the token belongs to.

        Raises:
            ReleaseError: There is no token, it is not valid, or it may only read.
        """
        if not self._token:
            raise self._no_token("there is no token")
        with self._asking("ask who the token belongs to"):
            said = self._api.whoami()
        role = said.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise self._no_token("the token may only read")

    def refs(self) -> Refs | None:
        """Return branches and tags; null: there is no such repository."""
        with self._asking("list branches and tags"):
            try:
                found = self._api.list_repo_refs(self.repo, repo_type=KIND)
            except HfHubHTTPError as error:
                if error.response.status_code != 404:
                    raise
                return None
        return Refs(
            {one.name: one.target_commit for one in found.branches},
            {one.name: one.target_commit for one in found.tags},
        )

    def refuse_other_kind(self) -> None:
        """Refuse a name that a model or Space has and no dataset.

        Raises:
            ReleaseError: It is one.
        """
        for kind, word in _OTHER_KINDS.items():
            with self._asking(f"look for a {word} of this name"):
                if self._api.repo_exists(self.repo, repo_type=kind):
                    raise ReleaseError(
                        f"{self.repo!r} is a {word}, and no dataset of this name exists",
                        self.where,
                        "choose another name; or, to have both, make the dataset first: "
                        f"hf repos create {self.repo} --type dataset",
                    )

    def is_private(self) -> bool:
        """Say whether only members see the repository."""
        with self._asking("look at the repository"):
            return bool(self._api.repo_info(self.repo, repo_type=KIND).private)

    def tree(self, commit: str) -> dict[str, Held]:
        """Return every file of a commit."""
        with self._asking(f"list the files of {commit[:8]}"):
            found = list(
                self._api.list_repo_tree(self.repo, recursive=True, revision=commit, repo_type=KIND)
            )
        return {
            one.path: Held(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
            for one in found
            if isinstance(one, RepoFile)
        }

    def read(self, path: str, commit: str) -> str:
        """Return a text file of a commit.

        Raises:
            ReleaseError: It is not UTF-8.
        """
        url = hf_hub_url(
            self.repo, path, repo_type=KIND, revision=commit, endpoint=self._api.endpoint
        )
        headers = build_hf_headers(
            token=self._token or False, library_name="prequery", library_version=__version__
        )
        with self._asking(f"read {path} of {commit[:8]}"):
            answer = get_session().get(url, headers=headers)
            hf_raise_for_status(answer)
            data: bytes = answer.content
        try:
            return data.decode()
        except UnicodeDecodeError:
            what = f"{path} in the repository is not UTF-8"
            raise ReleaseError(what, self.where, "save it as UTF-8 there") from None

    def commits(self, branch: str) -> list[tuple[str, str]]:
        """Return a branch's commits with their titles, newest first."""
        with self._asking(f"list the commits of {branch}"):
            found = self._api.list_repo_commits(self.repo, repo_type=KIND, revision=branch)
        return [(one.commit_id, one.title) for one in found]

    def proposals(self) -> list[tuple[str, str]]:
        """Return titles and addresses of the pull requests that are open."""
        with self._asking("list pull requests"):
            found = list(self._api.get_repo_discussions(self.repo, repo_type=KIND))
        return [
            (one.title, one.url)
            for one in found
            if one.is_pull_request and one.status in ("open", "draft")
        ]

    def make_repo(self, *, private: bool) -> None:
        """Make the repository."""
        with self._asking("make the repository"):
            # Where it exists by now, the next round sees it: `exist_ok` reads any 409 as that one.
            self._api.create_repo(self.repo, repo_type=KIND, private=private)

    def make_branch(self, branch: str, start: str) -> None:
        """Make a branch at a commit."""
        with self._asking(f"make the branch {branch}"):
            self._api.create_branch(self.repo, branch=branch, revision=start, repo_type=KIND)

    def upload(
        self, additions: Sequence[CommitOperationAdd], branch: str, *, create_pr: bool
    ) -> None:
        """Send what the Hub does not have yet. Nothing of it is visible before a commit.

        Raises:
            ReleaseError: The repository's .gitignore would leave a file out of the commit.
        """
        with self._asking("upload"):
            self._api.preupload_lfs_files(
                self.repo, additions, repo_type=KIND, revision=branch, create_pr=create_pr
            )
        for one in additions:
            if getattr(one, "_should_ignore", False):
                raise ReleaseError(
                    f"the repository's .gitignore leaves {one.path_in_repo!r} out of any commit",
                    self.where,
                    "take that line out of its .gitignore",
                )

    def commit(
        self,
        operations: Sequence[Operation],
        title: str,
        description: str,
        branch: str,
        parent: str,
        *,
        create_pr: bool,
    ) -> CommitInfo:
        """Commit all of it on a parent, or nothing."""
        with self._asking("commit"):
            return self._api.create_commit(
                self.repo,
                operations,
                commit_message=title,
                commit_description=description,
                repo_type=KIND,
                revision=branch,
                parent_commit=parent,
                create_pr=create_pr,
            )

    def tag(self, name: str, commit: str) -> None:
        """Make a tag."""
        with self._asking(f"make the tag {name}"):
            self._api.create_tag(self.repo, tag=name, revision=commit, repo_type=KIND)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Tell apart what may be tried again and what will never do."""
        get_session().timeout = TIMEOUT
        try:
            yield
        except HfHubHTTPError as error:
            raise self._refused(what, error) from None
        except httpx2.TransportError as error:
            raise Again(f"could not {what}: {self._clean(str(error) or repr(error))}") from None
        except HFValidationError as error:
            raise self._named(str(error)) from None
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            said = self._clean(repr(error))
            raise Again(f"could not {what}: an answer that cannot be read, {said:.300}") from None
        except ValueError as error:
            fix = "correct what it names, and build again or edit the README there"
            raise ReleaseError(
                f"the Hub refuses to {what}: {self._clean(str(error))}", self.where, fix
            ) from None
        except (RuntimeError, ConnectionError, PermissionError) as error:
            # Uploads wrap what happened, and those over xet raise what their library has.
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError):
                raise self._refused(what, cause) from None
            said = self._clean(str(error))
            if isinstance(error, PermissionError) or "401" in said or "403" in said:
                raise self._no_token(f"the Hub refuses to {what}: {said:.300}") from None
            raise Again(f"could not {what}: {said:.300}") from None

    def _refused(self, what: str, error: HfHubHTTPError) -> Exception:
        status = error.response.status_code
        said = self._clean(error.server_message or f"status {status}")
        if status in _AGAIN or status >= 500:
            return Again(f"could not {what}: {status}, {said:.300}")
        if status == 401:
            return self._no_token("the token is not valid, or no longer")
        if status == 403:
            return ReleaseError(
                f"the Hub does not let this token {what}: {said:.300}",
                self.where,
                f"take a token that may write there, or propose it: --create-pr; {_CARRIES_ON}",
            )
        if status == 404:
            return Again(f"could not {what}: it is gone, {said:.300}")
        if what == "make the repository":
            return self._named(said)
        fix = "correct what it names, then run the same command; nothing was committed"
        return ReleaseError(f"the Hub refuses to {what}: {said:.1000}", self.where, fix)

    def _named(self, said: str) -> ReleaseError:
        what = f"the Hub refuses the name {self.repo!r}: {self._clean(said):.300}"
        return ReleaseError(what, "--repo", "choose another name")

    def _no_token(self, what: str) -> ReleaseError:
        return ReleaseError(
            what,
            self.where,
            "log in with a token that may write there: hf auth login, or set HF_TOKEN; "
            f"{_CARRIES_ON}",
        )

    def _clean(self, text: str) -> str:
        """Return a text without the token, whoever repeats it, and on one line."""
        text = " ".join(text.split())
        return text.replace(self._token, "hf_***") if self._token else text
