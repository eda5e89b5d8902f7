"""What the Hub says when it refuses: a status, a message, and often a code that clients read."""

from aiohttp import web


class RefusalError(Exception):
    """Ends a call with an error.

    Args:
        status: HTTP status.
        message: For people; huggingface_hub repeats it.
        code: Header `X-Error-Code`; huggingface_hub chooses the class of its error by it.
        headers: More headers.
        body: More members of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code = status, message, code
        self.headers, self.body = headers or {}, body or {}

    def answer(self) -> web.Response:
        """Return it as a response."""
        headers = {"X-Error-Message": self.message.replace("\n", " "), **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        body = {"error": self.message, **self.body}
        return web.json_response(body, status=self.status, headers=headers)


def no_repo(anonymous: bool) -> RefusalError:
    """Return what hides a repo: strangers cannot tell a missing one from a private one."""
    if anonymous:
        return RefusalError(401, "Invalid username or password.", "RepoNotFound")
    return RefusalError(404, "Repository not found", "RepoNotFound")


def no_revision(revision: str) -> RefusalError:
    """Return the refusal of a revision that is neither branch, tag, pull request nor commit."""
    return RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(message: str, commit: str | None = None) -> RefusalError:
    """Return the refusal of a path; clients remember by the commit that it is not there."""
    return RefusalError(
        404, message, "EntryNotFound", {"X-Repo-Commit": commit} if commit else None
    )
