"""What the Hub knows: accounts, repos, calls, faults. No HTTP here."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from hub.faults import Call, Fault, token
from hub.refusals import RefusalError, no_repo
from hub.repos import Repo
from hub.xorbs import Xet

KINDS = {"model": "models", "dataset": "datasets", "space": "spaces", "kernel": "kernels"}


@dataclass
class Account:
    """Whoever shows a token.

    Args:
        name: The user.
        role: What the token may do.
        orgs: Organizations whose repos the user may write.
        expired: The token was good once.
    """

    name: str
    role: Literal["read", "write"]
    orgs: tuple[str, ...] = ()
    expired: bool = False

    def may_write(self, namespace: str) -> bool:
        """Tell whether it may change the repos of a namespace."""
        return self.role == "write" and namespace in (self.name, *self.orgs)


def _accounts() -> dict[str, Account]:
    return {
        "hf_writer": Account("ada", "write", ("acme",)),
        "hf_colleague": Account("bob", "write", ("acme",)),
        "hf_reader": Account("ada", "read", ("acme",)),
        "hf_stranger": Account("eve", "write"),
        "hf_expired": Account("ada", "write", ("acme",), expired=True),
    }


@dataclass
class State:
    """A Hub without its server.

    Args:
        accounts: By token. Tests add and change them.
        repos: By kind and name.
        calls: All that were made, in order.
        faults: All that were set.
        page_size: Entries of a page of the tree, and 1/20 of it where expanded.
        commits_page_size: Commits of a page.
        part_bytes: A large file above it is uploaded in parts of this size.
        card_bytes: The largest README whose metadata is checked.
        rate_limit: Calls that the window allows; tests lower it.
        xet: What the storage of xet holds.
        xet_tokens: Its tokens, each for a repo, to read or to write.
        mistakes: Of this server: what its own code raised. The fixture wants none.
    """

    accounts: dict[str, Account] = field(default_factory=_accounts)
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    page_size: int = 1000
    commits_page_size: int = 50
    part_bytes: int = 20_000_000
    card_bytes: int = 1_000_000
    rate_limit: int = 1_000_000
    xet: Xet = field(default_factory=Xet)
    xet_tokens: dict[str, tuple[Repo, str]] = field(default_factory=dict)
    mistakes: list[Exception] = field(default_factory=list)
    url: str = ""
    storage_url: str = ""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    token = "hf_writer"
    """A token that may write to `ada` and `acme`."""

    def fail(self, fault: Fault) -> Fault:
        """Set a fault."""
        self.faults.append(fault)
        return fault

    def dataset(self, name: str) -> Repo:
        """Return a dataset repo."""
        return self.repos["datasets", name]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return every file of a dataset repo at a revision."""
        repo = self.dataset(name)
        return {path: repo.content(file) for path, file in repo.at(revision).files.items()}

    def received(self, *names: str, since: int = 0) -> int:
        """Return the bytes of the bodies of calls, of all or of those with these names."""
        calls: Iterable[Call] = itertools.islice(self.calls, since, None)
        return sum(call.received for call in calls if not names or call.name in names)

    def expire(self, token: str | None) -> None:
        """Let a token be worth nothing from now on."""
        if token in self.accounts:
            self.accounts[token].expired = True
        self.xet_tokens.pop(token or "", None)

    def account(self, request: web.Request) -> Account | None:
        """Return who asks; null is a stranger without a token."""
        if (shown := token(request)) is None:
            return None
        account = self.accounts.get(shown)
        if account is None or account.expired:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return account

    def known(self, request: web.Request) -> Account:
        """Return who asks, and refuse strangers."""
        account = self.account(request)
        if account is None:
            raise RefusalError(401, "Invalid username or password.")
        return account

    def readable(self, request: web.Request) -> Repo:
        """Return the repo of a request's path, if the asker may see it."""
        account = self.account(request)
        kind = request.match_info.get("kind") or "models"
        namespace = request.match_info["namespace"]
        repo = self.repos.get((kind, f"{namespace}/{request.match_info['name']}"))
        member = account is not None and namespace in (account.name, *account.orgs)
        if repo is None or (repo.private and not member):
            raise no_repo(account is None)
        return repo

    def writable(self, request: web.Request, opens_pull: bool = False) -> tuple[Repo, Account]:
        """Return the repo of a request's path, if the asker may change it, or open a pull request.

        Any token that may write may open one on a repo that it may see.
        """
        repo, account = self.readable(request), self.known(request)
        if opens_pull and account.role == "write":
            return repo, account
        if not account.may_write(request.match_info["namespace"]):
            hint = "pass `create_pr=1` as a query parameter to create a Pull Request"
            raise RefusalError(403, f"Forbidden: {hint}")
        return repo, account


STATE = web.AppKey("state", State)
