"""Large files over git LFS: the batch call, a whole file or parts of it, the verification."""

import hashlib
from typing import Any

from aiohttp import web

from hub.refusals import RefusalError
from hub.repos import Repo
from hub.state import STATE, State

routes = web.RouteTableDef()

LFS_JSON = "application/vnd.git-lfs+json"


@routes.post("/{namespace}/{name}.git/info/lfs/objects/batch", name="lfs-batch")
@routes.post(
    "/{kind:datasets|spaces|kernels}/{namespace}/{name}.git/info/lfs/objects/batch",
    name="lfs-batch:kind",
)
async def batch(request: web.Request) -> web.Response:
    state, body = request.app[STATE], await request.json()
    # A pull request's upload names no branch, and then needs no right to write to one.
    repo, _ = state.writable(request, opens_pull="ref" not in body)
    objects = [_actions(state, repo, asked["oid"], asked["size"]) for asked in body["objects"]]
    transfer = "multipart" if "multipart" in body["transfers"] else "basic"
    said = {"transfer": transfer, "objects": objects}
    return web.json_response(said, content_type=LFS_JSON)


def _actions(state: State, repo: Repo, sha256: str, size: int) -> dict[str, Any]:
    said: dict[str, Any] = {"oid": sha256, "size": size}
    if sha256 in repo.large:
        return said
    place = f"{repo.kind}/{repo.name}/{sha256}"
    upload: dict[str, Any] = {"href": f"{state.storage_url}/lfs/{place}"}
    if size > state.part_bytes:
        count = -(-size // state.part_bytes)
        parts = {str(n): f"{upload['href']}/{n}" for n in range(1, count + 1)}
        header = {"chunk_size": str(state.part_bytes), **parts}
        upload = {"href": f"{state.url}/lfs-complete/{place}", "header": header}
    verify = {"href": f"{state.url}/lfs-verify/{place}"}
    return {**said, "authenticated": True, "actions": {"upload": upload, "verify": verify}}


PLACE = "{kind:models|datasets|spaces|kernels}/{namespace}/{name}/{sha256}"


def _repo(request: web.Request) -> Repo:
    match = request.match_info
    return request.app[STATE].repos[match["kind"], f"{match['namespace']}/{match['name']}"]


@routes.put("/lfs/" + PLACE, name="lfs-upload")
async def upload(request: web.Request) -> web.Response:
    # The storage host knows no tokens: the real address is signed.
    content = await request.read()
    if hashlib.sha256(content).hexdigest() != request.match_info["sha256"]:
        raise RefusalError(400, "the content has another SHA-256")
    _repo(request).store(content)
    return web.Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})


@routes.put("/lfs/" + PLACE + r"/{part:\d+}", name="lfs-part")
async def part(request: web.Request) -> web.Response:
    content, match = await request.read(), request.match_info
    parts = request.app[STATE].parts.setdefault(match["sha256"], {})
    parts[int(match["part"])] = content
    return web.Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})


@routes.post("/lfs-complete/" + PLACE, name="lfs-complete")
async def complete(request: web.Request) -> web.Response:
    body, match = await request.json(), request.match_info
    parts = request.app[STATE].parts.get(match["sha256"], {})
    etags = {n: f'"{hashlib.md5(content).hexdigest()}"' for n, content in parts.items()}
    if {part["partNumber"]: part["etag"] for part in body["parts"]} != etags:
        raise RefusalError(400, "these are not the parts that were uploaded")
    content = b"".join(parts[n] for n in sorted(parts))
    if hashlib.sha256(content).hexdigest() != match["sha256"]:
        raise RefusalError(400, "the content has another SHA-256")
    _repo(request).store(content)
    del request.app[STATE].parts[match["sha256"]]
    return web.json_response({})


@routes.post("/lfs-verify/" + PLACE, name="lfs-verify")
async def verify(request: web.Request) -> web.Response:
    body = await request.json()
    request.app[STATE].known(request)
    stored = _repo(request).large.get(request.match_info["sha256"])
    if stored is None or len(stored.content) != body["size"]:
        raise RefusalError(404, "Object does not exist")
    return web.json_response({})
