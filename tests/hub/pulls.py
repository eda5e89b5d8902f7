"""Calls about pull requests: open an empty one, look at it, merge it, close it."""

from typing import Any

from aiohttp import web

from hub.refusals import RefusalError
from hub.repos import Commit, File, Pull, Repo
from hub.repository import REPO, date
from hub.state import KINDS, STATE

routes = web.RouteTableDef()

Json = dict[str, Any]


def _changes(before: Commit, after: Commit) -> dict[str, File | None]:
    """Return what became of each path that two commits hold differently; null is deleted."""
    return {
        path: after.files.get(path)
        for path in before.files.keys() | after.files.keys()
        if before.files.get(path) != after.files.get(path)
    }


def _conflicts(repo: Repo, pull: Pull) -> list[str]:
    base, main = repo.commits[pull.base], repo.at(pull.branch)
    theirs, ours = _changes(base, repo.at(pull.ref)), _changes(base, main)
    return sorted(path for path in theirs if path in ours and theirs[path] != ours[path])


def _pull(request: web.Request, repo: Repo) -> Pull:
    number = int(request.match_info["number"])
    if not 0 < number <= len(repo.pulls):
        raise RefusalError(404, "Discussion not found")
    return repo.pulls[number - 1]


def _said(repo: Repo, pull: Pull) -> Json:
    word = next(word for word, kind in KINDS.items() if kind == repo.kind)
    return {
        "num": pull.number,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": date(repo.commits[pull.base].date),
        "status": pull.status,
        "repo": {"name": repo.name, "type": word},
        "isPullRequest": True,
    }


@routes.get(REPO + "/discussions", name="pulls")
async def pulls(request: web.Request) -> web.Response:
    repo = request.app[STATE].readable(request)
    said = [_said(repo, pull) for pull in reversed(repo.pulls)]
    return web.json_response({"discussions": said, "count": len(said), "start": 0})


@routes.post(REPO + "/discussions", name="open-pull")
async def open_pull(request: web.Request) -> web.Response:
    repo, account = request.app[STATE].writable(request, opens_pull=True)
    body = await request.json()
    if not body.get("pullRequest"):
        raise RefusalError(400, "this Hub has pull requests, but no other discussions")
    head = repo.at("main")
    pull = repo.open(body["title"], body["description"], account.name, "main", head, "draft")
    repo.refs[pull.ref] = head.oid
    return web.json_response({"num": pull.number, "pullRequest": True})


@routes.get(REPO + r"/discussions/{number:\d+}", name="pull")
async def pull(request: web.Request) -> web.Response:
    repo = request.app[STATE].readable(request)
    found = _pull(request, repo)
    text = {"edited": False, "hidden": False, "latest": {"raw": found.description}}
    event = {"id": "0", "type": "comment", "createdAt": date(repo.commits[found.base].date)}
    changes = {"base": f"refs/heads/{found.branch}"}
    if found.merged:
        changes["mergeCommitId"] = found.merged
    return web.json_response(
        {
            **_said(repo, found),
            "events": [{**event, "author": {"name": found.author}, "data": text}],
            "changes": changes,
            "filesWithConflicts": _conflicts(repo, found) if not found.merged else [],
        }
    )


@routes.post(REPO + r"/discussions/{number:\d+}/merge", name="merge-pull")
async def merge(request: web.Request) -> web.Response:
    repo, account = request.app[STATE].writable(request)
    found = _pull(request, repo)
    if found.status not in ("open", "draft"):
        raise RefusalError(400, f"the pull request is {found.status}")
    if conflicts := _conflicts(repo, found):
        raise RefusalError(409, f"conflicts in {', '.join(conflicts)}")
    main = repo.at(found.branch)
    files = dict(main.files)
    for path, file in _changes(repo.commits[found.base], repo.at(found.ref)).items():
        if file is None:
            files.pop(path, None)
        else:
            files[path] = file
    title = f"{found.title} (#{found.number})"
    ref = f"refs/heads/{found.branch}"
    made = repo.write(ref, main.oid, files, title, found.description, account.name)
    found.status, found.merged = "merged", made.oid
    return web.json_response({"success": True, "commitOid": made.oid})


@routes.post(REPO + r"/discussions/{number:\d+}/status", name="pull-status")
async def status(request: web.Request) -> web.Response:
    repo, account = request.app[STATE].writable(request)
    found = _pull(request, repo)
    found.status = (await request.json())["status"]
    event = {"id": "1", "type": "status-change", "createdAt": date(repo.at("main").date)}
    said = {**event, "author": {"name": account.name}, "data": {"status": found.status}}
    return web.json_response({"newStatus": said})
