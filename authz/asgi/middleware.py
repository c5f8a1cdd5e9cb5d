"""The middleware of an ASGI application."""

from collections.abc import Collection, Mapping

from authz.asgi.bodies import checked
from authz.asgi.protocol import App, Receive, Scope, Send
from authz.asgi.requests import headers_of, read
from authz.asgi.responses import Response
from authz.asgi.serving import Serving
from authz.asgi.websockets import WebSocket
from authz.call.call import UNREADABLE
from authz.call.principal import Principal
from authz.errors import ConfigError
from authz.http.door import HttpDoor, Judge
from authz.http.isolation import RequestIsolation
from authz.judge.hearing import Hearing
from authz.judge.streams import StreamExpiry
from authz.runtime.flow import arun, ends_request

_SERVINGS: Mapping[str, type[Serving]] = {"http": Response, "websocket": WebSocket}


class AuthzMiddleware:
    """Admit only requests that may be made, and tell their handlers who makes them.

    Handlers find the caller in ``request.state.principal``, in
    :func:`authz.current_principal`, and in the request headers (``x-org-id``
    and the other names of :class:`authz.TrustedMetadata`), which no caller can
    forge; what is known about its organization is in
    ``request.state.organization``. Streamed responses and WebSockets end with
    the token that admitted them, and when it is withdrawn.

    Rules see the whole path, the root path of a mounted application included,
    decoded and written in one spelling; see ``docs/http.md``.

    Args:
        app: the application.
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults.
        public_paths: paths that need no token, such as ``/healthz``; compared exactly.
        preflights: whether ``OPTIONS`` requests by which browsers ask for permission (CORS) pass without a token.
        isolation: checks which organization the gRPC messages in bodies name.
        stream_expiry: ``token`` ends streamed responses and WebSockets when their token expires, ``never`` does not;
            or one of them by path, where ``*`` stands for all other paths.
        grace: seconds that they may go on after their token has expired.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        app: App,
        judge: Judge,
        *,
        public_paths: Collection[str] = (),
        preflights: bool = False,
        isolation: RequestIsolation | None = None,
        stream_expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token",
        grace: float = 0.0,
    ) -> None:
        if not callable(app):
            raise ConfigError(f"app: an ASGI application is needed, not {type(app).__name__}")
        self._app = app
        self._door = HttpDoor(
            judge,
            public_paths=public_paths,
            preflights=preflights,
            isolation=isolation,
            stream_expiry=stream_expiry,
            grace=grace,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI protocol.

        Raises:
            ValueError: it is neither HTTP nor a WebSocket, so nothing is known about who may make it.

        """
        kind, door = scope["type"], self._door
        if kind not in _SERVINGS:
            await self._pass(scope, receive, send)
            return
        headers = door.sorting.sort(headers_of(scope))
        hearing = Hearing(door.authorizer, UNREADABLE, "asgi")
        serving = _SERVINGS[kind](door, hearing, headers, scope, send)
        try:
            hearing.call, fault = read(scope, headers)
            flow = door.verdict(hearing)
            try:
                wait = next(flow)
            except StopIteration as done:
                principal: Principal = done.value
            else:
                principal = await arun(flow, waiting=wait)
            if fault is not None:
                raise fault  # noqa: TRY301 - refused as any other
            isolation = hearing.evidence.isolation
            if isolation is not None and not isolation.is_idle:
                receive = await checked(isolation, scope, headers, receive, principal)
        except BaseException as error:
            if ends_request(error):
                raise
            refusal = hearing.refused(error)
        else:
            await serving.run(self._app, receive, principal)
            return
        await serving.finish(refusal)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise ValueError(f"AuthzMiddleware does not know the ASGI protocol {scope['type']!a}")
        await self._app(scope, receive, send)
