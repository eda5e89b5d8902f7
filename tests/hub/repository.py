"""Calls about accounts and repos: who am I, create, delete, describe."""

from datetime import datetime
from typing import Any

from aiohttp import web

from hub import cards
from hub.refusals import RefusalError, no_repo
from hub.repos import Commit, File, Repo
from hub.state import KINDS, STATE

routes = web.RouteTableDef()

REPO = "/api/{kind:models|datasets|spaces|kernels}/{namespace}/{name}"


def date(when: datetime) -> str:
    """Return a time as the Hub writes it."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def address(url: str, repo: Repo) -> str:
    """Return where people look at a repo."""
    return f"{url}/{repo.name}" if repo.kind == "models" else f"{url}/{repo.kind}/{repo.name}"


@routes.get("/api/whoami-v2", name="whoami")
async def whoami(request: web.Request) -> web.Response:
    account = request.app[STATE].known(request)
    return web.json_response(
        {
            "type": "user",
            "id": account.name,
            "name": account.name,
            "fullname": account.name.title(),
            "isPro": False,
            "orgs": [
                {"type": "org", "id": org, "name": org, "roleInOrg": "write"}
                for org in account.orgs
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": account.role},
            },
        }
    )


@routes.post("/api/validate-yaml", name="card-check")
async def validate(request: web.Request) -> web.Response:
    content = (await request.json())["content"]
    if len(content.encode()) > request.app[STATE].card_bytes:
        raise RefusalError(413, "request entity too large")
    errors = [{"message": message} for message in cards.errors(content)]
    warnings = [{"message": message} for message in cards.warnings(content)]
    body: dict[str, Any] = {"errors": errors, "warnings": warnings}
    return web.json_response(body, status=400 if errors else 200)


@routes.post("/api/repos/create", name="create-repo")
async def create(request: web.Request) -> web.Response:
    state, body = request.app[STATE], await request.json()
    account = state.known(request)
    namespace = body.get("organization") or account.name
    word = body.get("type") or "model"
    if not account.may_write(namespace):
        raise RefusalError(
            403, f"You don't have the rights to create a {word} under this namespace"
        )
    private = body.get("visibility") == "private" or bool(body.get("private"))
    repo = Repo(KINDS[word], f"{namespace}/{body['name']}", private)
    url = address(state.url, repo)
    if (repo.kind, repo.name) in state.repos:
        raise RefusalError(409, f"You already created this {word} repo", body={"url": url})
    state.repos[repo.kind, repo.name] = repo
    return web.json_response({"url": url, "name": repo.name, "id": repo.name})


@routes.delete("/api/repos/delete", name="delete-repo")
async def delete(request: web.Request) -> web.Response:
    state, body = request.app[STATE], await request.json()
    account = state.known(request)
    namespace = body.get("organization") or account.name
    key = (KINDS[body.get("type") or "model"], f"{namespace}/{body['name']}")
    if key not in state.repos:
        raise no_repo(anonymous=False)
    if not account.may_write(namespace):
        raise RefusalError(403, "You don't have the rights to delete this repo")
    del state.repos[key]
    return web.json_response({})


@routes.put(REPO + "/settings", name="settings")
async def settings(request: web.Request) -> web.Response:
    repo, _ = request.app[STATE].writable(request)
    body = await request.json()
    if "visibility" in body or "private" in body:
        repo.private = body.get("visibility") == "private" or bool(body.get("private"))
    return web.json_response({"private": repo.private})


@routes.get(REPO + "/auth-check", name="auth-check")
async def check(request: web.Request) -> web.Response:
    request.app[STATE].readable(request)
    return web.json_response({})


def describe(repo: Repo, commit: Commit, blobs: bool) -> dict[str, Any]:
    """Return what the Hub says of a repo at a commit."""
    readme = commit.files.get("README.md")
    card = cards.metadata(repo.content(readme).decode()) if readme else {}
    return {
        "_id": commit.oid[:24],
        "id": repo.name,
        "author": repo.name.split("/")[0],
        "sha": commit.oid,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": date(repo.history(commit.oid)[-1].date),
        "lastModified": date(commit.date),
        "tags": [f"license:{card['license']}"] if isinstance(card.get("license"), str) else [],
        "cardData": card,
        "siblings": [_sibling(path, commit.files[path], blobs) for path in sorted(commit.files)],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }


def _sibling(path: str, file: File, blobs: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"rfilename": path}
    if blobs:
        said |= {"blobId": file.oid, "size": file.size}
        if file.sha256:
            pointer = file.pointer_size
            said["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return said


@routes.get(REPO, name="info")
@routes.get(REPO + "/revision/{revision}", name="info:revision")
async def info(request: web.Request) -> web.Response:
    repo = request.app[STATE].readable(request)
    commit = repo.at(request.match_info.get("revision", "main"))
    blobs = request.query.get("blobs", "false").lower() in ("true", "1")
    said = describe(repo, commit, blobs)
    if wanted := request.query.getall("expand", request.query.getall("expand[]", [])):
        said = {key: value for key, value in said.items() if key in ("_id", "id", *wanted)}
    return web.json_response(said)
