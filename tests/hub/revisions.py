"""Calls about what a repo holds: commits, tags, branches, the tree."""

import base64
import fnmatch
import json
from typing import Any

from aiohttp import web
from yarl import URL

from hub import git
from hub.refusals import RefusalError, no_entry, no_revision
from hub.repos import Commit, File, Repo
from hub.repository import REPO, address, date
from hub.state import STATE

routes = web.RouteTableDef()


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


@routes.post(REPO + "/preupload/{revision}", name="preupload")
async def preupload(request: web.Request) -> web.Response:
    state, body = request.app[STATE], await request.json()
    repo, _ = state.writable(request, _flag(request, "create_pr"))
    commit = repo.at(request.match_info["revision"])
    hosted = commit.files.get(".gitignore")
    ignored = repo.content(hosted).decode() if hosted else ""
    patterns = str(body.get("gitIgnore", ignored)).split()
    said = []
    for asked in body["files"]:
        path = asked["path"]
        held = commit.files.get(path)
        large = repo.is_large(path, asked["size"], base64.b64decode(asked["sample"]))
        answer: dict[str, Any] = {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns),
        }
        if held:
            answer["oid"] = held.sha256 or held.oid
        said.append(answer)
    return web.json_response({"files": said, "commitOid": commit.oid})


@routes.post(REPO + "/commit/{revision}", name="commit")
async def commit(request: web.Request) -> web.Response:
    state = request.app[STATE]
    opens_pull = _flag(request, "create_pr")
    lines = [json.loads(line) for line in (await request.read()).splitlines() if line]
    repo, account = state.writable(request, opens_pull)
    revision = request.match_info["revision"]
    ref = repo.ref(revision)
    if ref is None and not opens_pull:
        raise no_revision(revision)
    if ref is not None and ref.startswith("refs/tags/"):
        raise RefusalError(400, f"{revision} is a tag: commits go to a branch")
    head = repo.at(revision)
    header = lines[0]["value"]
    if not header.get("summary"):
        raise RefusalError(400, '"summary" is not allowed to be empty')
    base = _base(repo, head, header.get("parentCommit"), opens_pull)
    files = repo.changed(base.files, lines[1:])
    title, text = header["summary"], header.get("description", "")
    pull = None
    if opens_pull:
        branch = revision if repo.ref(revision) == f"refs/heads/{revision}" else "main"
        pull = repo.open(title, text, account.name, branch, base, "open")
        ref = pull.ref
    assert ref is not None
    made = repo.write(ref, base.oid, files, title, text, account.name)
    url = address(state.url, repo)
    return web.json_response(
        {
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{url}/commit/{made.oid}",
            "hookOutput": "",
            "pullRequestUrl": f"{url}/discussions/{pull.number}" if pull else None,
        }
    )


def _base(repo: Repo, head: Commit, parent: str | None, opens_pull: bool) -> Commit:
    if parent is None:
        return head
    if opens_pull:
        return repo.at(parent)
    if not head.oid.startswith(parent):
        raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
    return head


@routes.get(REPO + "/refs", name="refs")
async def refs(request: web.Request) -> web.Response:
    repo = request.app[STATE].readable(request)

    def listed(kind: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(kind), "ref": ref, "targetCommit": oid}
            for ref, oid in sorted(repo.refs.items())
            if ref.startswith(kind)
        ]

    said = {"branches": listed("refs/heads/"), "tags": listed("refs/tags/"), "converts": []}
    if _flag(request, "include_prs"):
        said["pullRequests"] = listed("refs/pr/")
    return web.json_response(said)


@routes.post(REPO + "/tag/{revision}", name="tag")
async def tag(request: web.Request) -> web.Response:
    repo, _ = request.app[STATE].writable(request)
    body = await request.json()
    commit, ref = repo.at(request.match_info["revision"]), f"refs/tags/{body['tag']}"
    if ref in repo.refs:
        raise RefusalError(409, "Tag reference exists already")
    repo.refs[ref] = commit.oid
    repo.tag_messages[body["tag"]] = body.get("message", "")
    return web.json_response({})


@routes.delete(REPO + "/tag/{tag}", name="delete-tag")
async def delete_tag(request: web.Request) -> web.Response:
    repo, _ = request.app[STATE].writable(request)
    if repo.refs.pop(f"refs/tags/{request.match_info['tag']}", None) is None:
        raise no_revision(request.match_info["tag"])
    return web.json_response({})


@routes.post(REPO + "/branch/{branch}", name="branch")
async def branch(request: web.Request) -> web.Response:
    repo, _ = request.app[STATE].writable(request)
    body = await request.json() if request.can_read_body else {}
    name = request.match_info["branch"]
    if name.startswith("refs/"):
        raise RefusalError(400, f"Invalid reference for a branch: {name}")
    if f"refs/heads/{name}" in repo.refs:
        raise RefusalError(409, "Reference already exists")
    repo.refs[f"refs/heads/{name}"] = repo.at(body.get("startingPoint", "main")).oid
    return web.json_response({})


@routes.delete(REPO + "/branch/{branch}", name="delete-branch")
async def delete_branch(request: web.Request) -> web.Response:
    repo, _ = request.app[STATE].writable(request)
    name = request.match_info["branch"]
    if name == "main":
        raise RefusalError(403, "Cannot delete the main branch")
    if repo.refs.pop(f"refs/heads/{name}", None) is None:
        raise no_revision(name)
    return web.json_response({})


@routes.get(REPO + "/commits/{revision}", name="commits")
async def commits(request: web.Request) -> web.Response:
    state = request.app[STATE]
    repo = state.readable(request)
    found = repo.history(request.match_info["revision"])
    said = [
        {
            "id": made.oid,
            "title": made.title,
            "message": made.message,
            "authors": [{"user": made.author}],
            "date": date(made.date),
        }
        for made in found
    ]
    return _page(request, said, state.commits_page_size, "p")


@routes.get(REPO + "/tree/{revision}", name="tree")
@routes.get(REPO + "/tree/{revision}/{path:.*}", name="tree:folder")
async def tree(request: web.Request) -> web.Response:
    state = request.app[STATE]
    repo = state.readable(request)
    revision, path = request.match_info["revision"], request.match_info.get("path", "").rstrip("/")
    commit = repo.at(revision)
    folders = git.folders({path: file.oid for path, file in commit.files.items()})
    if path not in folders:
        raise no_entry(f'{path} does not exist on "{revision}"', commit.oid)
    expand, deep = _flag(request, "expand"), _flag(request, "recursive")
    inside = f"{path}/" if path else ""
    names = [name for name in [*commit.files, *folders] if name and name.startswith(inside)]
    if not deep:
        names = [name for name in names if "/" not in name[len(inside) :]]
    said = [_entry(repo, commit, name, folders, expand) for name in sorted(names)]
    size = max(1, state.page_size // 20) if expand else state.page_size
    return _page(request, said, size, "cursor")


@routes.post(REPO + "/paths-info/{revision}", name="paths-info")
async def paths_info(request: web.Request) -> web.Response:
    repo = request.app[STATE].readable(request)
    if request.content_type == "application/json":
        body = await request.json()
        paths, expand = body["paths"], bool(body.get("expand"))
    else:
        form = await request.post()
        paths = [str(value) for value in form.getall("paths", [])]
        expand = str(form.get("expand", "")).lower() == "true"
    if len(paths) > 1000:
        raise RefusalError(413, "too many parameters")
    commit = repo.at(request.match_info["revision"])
    folders = git.folders({path: file.oid for path, file in commit.files.items()})
    names = [path.strip("/") for path in paths]
    found = [name for name in names if name in commit.files or (name and name in folders)]
    return web.json_response([_entry(repo, commit, name, folders, expand) for name in found])


def _entry(
    repo: Repo, commit: Commit, path: str, folders: dict[str, str], expand: bool
) -> dict[str, Any]:
    file: File | None = commit.files.get(path)
    said: dict[str, Any] = {"type": "directory", "oid": folders.get(path), "size": 0, "path": path}
    if file:
        said = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256:
            pointer = file.pointer_size
            said["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer}
        if file.xet:
            said["xetHash"] = file.xet
    if expand:
        last = repo.last_change(commit, path)
        said["lastCommit"] = {"id": last.oid, "title": last.title, "date": date(last.date)}
    if expand and file:
        scans = {"avScan": None, "pickleImportScan": None}
        said["securityFileStatus"] = {"status": "safe", **scans}
    return said


def _page(request: web.Request, items: list[Any], size: int, parameter: str) -> web.Response:
    start = int(request.query.get(parameter, "0"))
    headers = {}
    if start + size < len(items):
        query = {**request.query, parameter: str(start + size)}
        base = URL(request.app[STATE].url).join(request.rel_url)
        headers["Link"] = f'<{base.with_query(query)}>; rel="next"'
    return web.json_response(items[start : start + size], headers=headers)
