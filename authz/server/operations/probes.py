"""The HTTP endpoints for operators: ``/healthz``, ``/readyz`` and ``/metrics``, in the event loop of the server."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz.server.coalescing import Coalesced
from authz.server.operations import web
from authz.server.operations.exposition import OPEN_METRICS, PLAIN, Format, format_for


def answering(
    address: str,
    unready: Callable[[], str],
    metrics: Callable[[Format], bytes],
    is_stale: Callable[[], bool] = lambda: False,
    is_hung: Callable[[], bool] = lambda: False,
) -> contextlib.AbstractAsyncContextManager[object]:
    """Answer until the end of the block.

    Args:
        address: ``HOST:PORT``; port 0 is any free one.
        unready: returns why checks cannot be decided, as :attr:`authz.server.serving.health.Health.reason` does.
        metrics: returns what ``/metrics`` answers in a format; called on a thread, at most once a second for each.
        is_stale: returns whether the last reload of a policy failed. That changes the text and not the status, because
            the previous policy is in force.
        is_hung: returns whether a thread that decides has stood still for too long.

    Raises:
        ConfigError: the address cannot be bound.

    """
    return web.serving(app(unready, metrics, is_stale, is_hung), address, setting="http_listen", event="probes")


def app(
    unready: Callable[[], str],
    metrics: Callable[[Format], bytes],
    is_stale: Callable[[], bool] = lambda: False,
    is_hung: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Return the ASGI application; see :func:`answering`."""

    def state(**state: object) -> dict[str, object]:
        return {**state, "policy": "last reload failed"} if is_stale() else state

    async def healthz(_request: Request) -> Response:
        # No answer at all means that the event loop hangs; this tells of the other threads.
        if is_hung():
            return JSONResponse(state(alive=False), status_code=503)
        return JSONResponse(state(alive=True))

    async def readyz(_request: Request) -> Response:
        reason = unready()
        if reason:
            reason, _, cause = reason.partition(": ")
            why = {"reason": reason, "cause": cause} if cause else {"reason": reason}
            return JSONResponse(state(ready=False, **why), status_code=503)
        return JSONResponse(state(ready=True))

    # On a thread: it takes milliseconds, in which the event loop would decide no call.
    written = {form: Coalesced(partial(asyncio.to_thread, metrics, form)) for form in (PLAIN, OPEN_METRICS)}

    async def figures(request: Request) -> Response:
        form = format_for(",".join(request.headers.getlist("accept")))
        return Response(await written[form].get(), media_type=form.content_type, headers={"vary": "accept"})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", figures)])
