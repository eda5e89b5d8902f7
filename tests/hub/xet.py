"""Large files over xet: tokens, xorbs and shards in, reconstructions and xorbs out.

The calls are those of the public specification, as hf_xet 1.8 was seen to make them.
"""

import hashlib
import time
from itertools import accumulate, pairwise
from typing import Any, Literal

from aiohttp import web

from hub.downloads import sliced
from hub.faults import token
from hub.refusals import RefusalError, no_entry
from hub.repos import Repo
from hub.repository import REPO
from hub.state import STATE
from hub.xorbs import Term, Xet, read, unpack, write

routes = web.RouteTableDef()

Json = dict[str, Any]

TOKEN_S = 3600


@routes.get(REPO + "/xet-{scope:read|write}-token/{revision}", name="xet-token")
async def xet_token(request: web.Request) -> web.Response:
    state, scope = request.app[STATE], request.match_info["scope"]
    opens_pull = request.query.get("create_pr") in ("1", "true")
    if scope == "write":
        repo, _ = state.writable(request, opens_pull)
    else:
        repo = state.readable(request)
    if request.match_info["revision"] != "None":
        repo.at(request.match_info["revision"])
    shown = f"xet_{scope}_{len(state.xet_tokens)}"
    state.xet_tokens[shown] = (repo, scope)
    exp = int(time.time()) + TOKEN_S
    said = {"accessToken": shown, "exp": exp, "casUrl": state.storage_url}
    headers = {
        "X-Xet-Access-Token": shown,
        "X-Xet-Token-Expiration": str(exp),
        "X-Xet-Cas-Url": state.storage_url,
    }
    return web.json_response(said, headers=headers)


def _admitted(request: web.Request, scope: Literal["read", "write"]) -> tuple[Xet, Repo]:
    state = request.app[STATE]
    if (found := state.xet_tokens.get(token(request) or "")) is None:
        raise RefusalError(401, "Unauthorized")
    repo, held = found
    if scope == "write" and held != "write":
        raise RefusalError(403, "the token is for reading")
    return state.xet, repo


@routes.post("/v1/xorbs/default/{xorb}", name="xorb-upload")
async def upload_xorb(request: web.Request) -> web.Response:
    xet, _ = _admitted(request, "write")
    named = request.match_info["xorb"]
    new = named not in xet.xorbs
    xet.xorbs[named] = unpack(await request.read())
    return web.json_response({"was_inserted": new})


@routes.post("/v1/xorb-grants/default/{xorb}", name="xorb-grant")
async def grant(request: web.Request) -> web.Response:
    # An address to upload to directly; the client goes on without where it is told 404.
    raise RefusalError(404, "no grants here")


@routes.post("/v1/shards", name="shard-upload:first")
@routes.post("/v2/shards", name="shard-upload")
async def upload_shard(request: web.Request) -> web.Response:
    xet, repo = _admitted(request, "write")
    shard = read(await request.read())
    for terms, claimed in shard.files.values():
        for term in terms:
            if term.xorb not in xet.xorbs:
                raise RefusalError(400, f"the shard refers to the xorb {term.xorb}: not uploaded")
        if hashlib.sha256(xet.content(terms)).hexdigest() != claimed:
            raise RefusalError(400, "a file of the shard has another SHA-256 than it claims")
    xet.described.update(shard.described)
    for file, (terms, _) in shard.files.items():
        xet.files[file] = terms
        repo.store(xet.content(terms), file)
    if request.path.startswith("/v1"):
        return web.json_response({"result": 1})
    return web.Response(text='{"type":"result"}\n', content_type="application/x-ndjson")


@routes.get("/v1/chunks/{prefix:default|default-merkledb}/{chunk}", name="chunk")
async def chunk(request: web.Request) -> web.Response:
    xet, _ = _admitted(request, "read")
    block = xet.described.get(request.match_info["chunk"])
    if block is None:
        raise no_entry("nobody has uploaded this chunk")
    return web.Response(body=write(block), content_type="application/octet-stream")


@routes.post("/v1/telemetry", name="telemetry")
async def telemetry(request: web.Request) -> web.Response:
    return web.Response(status=204)


@routes.get("/{version:v1|v2}/reconstructions/{file}", name="reconstruction")
async def reconstruction(request: web.Request) -> web.Response:
    state = request.app[STATE]
    xet, _ = _admitted(request, "read")
    terms = xet.files.get(request.match_info["file"])
    if terms is None:
        raise no_entry("no file of this name")
    kept, skipped = _within(xet, terms, request.http_range)
    said: Json = {"offset_into_first_range": skipped, "terms": [_said(xet, t) for t in kept]}
    if request.match_info["version"] == "v1":
        said["fetch_info"] = {}
        for term in kept:
            first, last = _place(xet, term)
            place = {"range": _range(term), "url_range": {"start": first, "end": last}}
            said["fetch_info"].setdefault(term.xorb, []).append(
                place | {"url": f"{state.storage_url}/xorbs/{term.xorb}"}
            )
        return web.json_response(said)
    said["xorbs"] = {}
    for term in kept:
        first, last = _place(xet, term)
        ranges = [{"chunks": _range(term), "bytes": {"start": first, "end": last}}]
        said["xorbs"].setdefault(term.xorb, []).append(
            {"url": f"{state.storage_url}/xorbs/{term.xorb}", "ranges": ranges}
        )
    return web.json_response(said)


def _within(xet: Xet, terms: list[Term], asked: slice) -> tuple[list[Term], int]:
    """Return the terms that hold a range of a file, cut to whole chunks, and what to skip."""
    runs = [(term.xorb, i) for term in terms for i in range(term.start, term.stop)]
    ends = list(accumulate((len(xet.xorbs[x].chunks[i]) for x, i in runs), initial=0))
    start, stop, _ = asked.indices(ends[-1])
    if start >= stop and ends[-1]:
        raise RefusalError(416, "the range begins after the end of the file")
    wanted = [n for n, (a, b) in enumerate(pairwise(ends)) if a < stop and b > start]
    kept: list[Term] = []
    for xorb, i in (runs[n] for n in wanted):
        if kept and kept[-1].xorb == xorb and kept[-1].stop == i:
            kept[-1] = Term(xorb, kept[-1].start, i + 1)
        else:
            kept.append(Term(xorb, i, i + 1))
    return kept, start - ends[wanted[0]] if wanted else 0


def _range(term: Term) -> Json:
    return {"start": term.start, "end": term.stop}


def _said(xet: Xet, term: Term) -> Json:
    size = len(xet.content([term]))
    return {"hash": term.xorb, "unpacked_length": size, "range": _range(term)}


def _place(xet: Xet, term: Term) -> tuple[int, int]:
    """Return the first and last byte of a term in its packed xorb."""
    offsets = xet.xorbs[term.xorb].offsets
    return offsets[term.start], offsets[term.stop] - 1


@routes.get("/xorbs/{xorb}", name="xorb-download")
async def download_xorb(request: web.Request) -> web.Response:
    # The real address is signed; whoever holds it may read.
    xorb = request.app[STATE].xet.xorbs.get(request.match_info["xorb"])
    if xorb is None:
        raise RefusalError(403, "Access denied")
    return sliced(request, xorb.packed, {})
