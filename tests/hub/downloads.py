"""Files as consumers fetch them: a small one at once, a large one from another host."""

from email.utils import formatdate

from aiohttp import web

from hub.refusals import RefusalError, no_entry
from hub.repos import Repo
from hub.repository import REPO
from hub.state import STATE

routes = web.RouteTableDef()


def _resolve(request: web.Request) -> tuple[Repo, web.Response]:
    state = request.app[STATE]
    repo = state.readable(request)
    revision, path = request.match_info["revision"], request.match_info["path"]
    commit = repo.at(revision)
    file = commit.files.get(path)
    if file is None:
        raise no_entry("Entry not found", commit.oid)
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if file.sha256 is None:
        headers["ETag"] = f'"{file.oid}"'
        return repo, sliced(request, repo.content(file), headers)
    headers |= {
        "X-Linked-ETag": f'"{file.sha256}"',
        "X-Linked-Size": str(file.size),
        "ETag": f'"{file.oid}"',
        "Location": f"{state.storage_url}/cdn/{repo.kind}/{repo.name}/{file.sha256}",
    }
    if file.xet:
        refresh = f"{state.url}/api/{repo.kind}/{repo.name}/xet-read-token/{commit.oid}"
        rebuilt = f"{state.storage_url}/v1/reconstructions/{file.xet}"
        headers["X-Xet-Hash"] = file.xet
        headers["Link"] = f'<{refresh}>; rel="xet-auth", <{rebuilt}>; rel="xet-reconstruction-info"'
    return repo, web.Response(status=302, headers=headers)


@routes.get("/{namespace}/{name}/resolve/{revision}/{path:.*}", name="resolve")
@routes.get(
    "/{kind:datasets|spaces|kernels}/{namespace}/{name}/resolve/{revision}/{path:.*}",
    name="resolve:kind",
)
@routes.get(REPO + "/resolve/{revision}/{path:.*}", name="resolve:api")
async def resolve(request: web.Request) -> web.Response:
    return _resolve(request)[1]


@routes.get(
    "/cdn/{kind:models|datasets|spaces|kernels}/{namespace}/{name}/{sha256}", name="download"
)
async def download(request: web.Request) -> web.Response:
    # The real address is signed; whoever holds it may read.
    match = request.match_info
    repo = request.app[STATE].repos.get((match["kind"], f"{match['namespace']}/{match['name']}"))
    if repo is None or match["sha256"] not in repo.large:
        raise RefusalError(403, "Access denied")
    return sliced(request, repo.large[match["sha256"]].content, {"ETag": f'"{match["sha256"]}"'})


def sliced(request: web.Request, content: bytes, headers: dict[str, str]) -> web.Response:
    """Answer with a content, or with the range of it that was asked for."""
    headers = {**headers, "Last-Modified": formatdate(0, usegmt=True), "Accept-Ranges": "bytes"}
    try:
        part = request.http_range
    except ValueError:
        part = slice(len(content), len(content))
    if part.start is None and part.stop is None:
        return web.Response(body=content, headers=headers)
    start, stop, _ = part.indices(len(content))
    if start >= stop:
        size = {"Content-Range": f"bytes */{len(content)}"}
        raise RefusalError(416, "Requested range is not satisfiable", headers=size)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return web.Response(status=206, body=content[start:stop], headers=headers)
