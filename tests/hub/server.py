"""The server: its routes on two ports of the loopback, from a thread of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from huggingface_hub import HfApi

from hub import downloads, lfs, pulls, repository, revisions, xet
from hub.faults import Call, CutError, token
from hub.refusals import RefusalError
from hub.state import STATE, State
from serving import serving

WINDOW_S = 300


@dataclass
class Hub(State):
    """A Hub that serves."""

    namespace = "acme"

    def api(self, token: str | None = None) -> HfApi:
        """Return a client with a token, by default with `Hub.token`."""
        return HfApi(endpoint=self.url, token=token or self.token)

    def environment(self, home: Path, xet: bool = False) -> dict[str, str]:
        """Return what a process must have in its environment to talk to this Hub alone.

        Args:
            home: Where its caches go.
            xet: Whether large files go over xet rather than LFS.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    @contextmanager
    def serving(self) -> Iterator["Hub"]:
        """Serve on free ports: the Hub at `url`, its storage at another origin, `storage_url`."""
        app = web.Application(client_max_size=1 << 30, middlewares=[_middleware])
        app[STATE] = self
        for module in (repository, revisions, pulls, downloads, lfs, xet):
            app.router.add_routes(module.routes)
        with serving(app, ports=2) as (self.url, self.storage_url):
            yield self


@web.middleware
async def _middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    state = request.app[STATE]
    name = (request.match_info.route.name or "unknown").partition(":")[0]
    call = Call(len(state.calls), name, request.method, request.raw_path, token(request))
    state.calls.append(call)
    # The whole body first: a client that still sends hears no refusal.
    call.received = len(await request.read())
    try:
        answer = await _answer(state, request, handler, call)
    except CutError:
        return web.Response(status=500)
    call.status = answer.status
    left = max(0, state.rate_limit - len(state.calls))
    answer.headers.setdefault("RateLimit", f'"api";r={left};t={WINDOW_S}')
    answer.headers["RateLimit-Policy"] = f'"fixed window";"api";q={state.rate_limit};w={WINDOW_S}'
    answer.headers["X-Request-Id"] = f"test-{call.number}"
    return answer


async def _answer(
    state: State, request: web.Request, handler: Handler, call: Call
) -> web.StreamResponse:
    try:
        if len(state.calls) > state.rate_limit:
            raise RefusalError(
                429, "We had to rate limit you", headers={"Retry-After": str(WINDOW_S)}
            )
        met = [fault for fault in state.faults if fault.matches(call)]
        call.fault = met[0] if met else None
        if call.fault and call.fault.when == "before":
            await call.fault.strike(request, state.expire)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            answer = RefusalError(error.status, error.reason).answer()
        if call.fault and call.fault.when == "after":
            await call.fault.strike(request, state.expire)
    except RefusalError as refusal:
        call.refusal = refusal.message
        return refusal.answer()
    except CutError:
        raise
    except Exception as error:
        state.mistakes.append(error)
        raise
    return answer
