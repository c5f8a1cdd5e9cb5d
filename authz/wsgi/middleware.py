"""The middleware of a WSGI application."""

from collections.abc import Collection, Iterable, Mapping
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from authz.call.call import UNREADABLE
from authz.call.principal import Principal
from authz.errors import ConfigError
from authz.http.door import HttpDoor, Judge
from authz.http.forms import form_of
from authz.http.headers import Telling
from authz.http.isolation import RequestIsolation
from authz.judge.hearing import Hearing
from authz.judge.streams import StreamExpiry
from authz.runtime.flow import run
from authz.wsgi.answers import refuse
from authz.wsgi.bodies import check_message
from authz.wsgi.requests import read
from authz.wsgi.responses import Response
from authz.wsgi.variables import Sorted, Sorting, as_variable


class AuthzMiddleware:
    """Admit only requests that may be made, and tell their handlers who makes them.

    Handlers find the caller in ``environ["authz.principal"]``, in
    :func:`authz.current_principal`, and in the request headers (``x-org-id``
    and the other names of :class:`authz.TrustedMetadata`), which no caller can
    forge; what is known about its organization is in
    ``environ["authz.organization"]``. The token is read from
    ``HTTP_AUTHORIZATION`` and no other variable; ``REMOTE_USER`` is left as
    the server has set it.

    Streamed responses end with the token that admitted them, and when it is
    withdrawn: between two parts. Python cannot interrupt an application that
    is busy with the next part, or waits; what it then yields is not sent.

    Rules see the whole path, ``SCRIPT_NAME`` included, decoded and written in
    one spelling; see ``docs/http.md``.

    Args:
        app: the application.
        judge: a :class:`authz.Verifier`, or an :class:`authz.Authorizer` for more than defaults.
        public_paths: paths that need no token, such as ``/healthz``; compared exactly.
        preflights: whether ``OPTIONS`` requests by which browsers ask for permission (CORS) pass without a token.
        isolation: checks which organization the gRPC messages in bodies name.
        stream_expiry: ``token`` ends streamed responses when their token expires, ``never`` does not; or one of them
            by path, where ``*`` stands for all other paths.
        grace: seconds that they may go on after their token has expired.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        app: WSGIApplication,
        judge: Judge,
        *,
        public_paths: Collection[str] = (),
        preflights: bool = False,
        isolation: RequestIsolation | None = None,
        stream_expiry: StreamExpiry | Mapping[str, StreamExpiry] = "token",
        grace: float = 0.0,
    ) -> None:
        if not callable(app):
            raise ConfigError(f"app: a WSGI application is needed, not {type(app).__name__}")
        self._app = app
        self._door = HttpDoor(
            judge,
            public_paths=public_paths,
            preflights=preflights,
            isolation=isolation,
            stream_expiry=stream_expiry,
            grace=grace,
        )
        trusted = self._door.authorizer.trusted
        self._sorting, self._telling = Sorting(trusted), Telling(trusted, as_variable)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        headers = self._sorting.sort(environ)
        hearing = Hearing(self._door.authorizer, UNREADABLE, "wsgi")
        try:
            hearing.call, fault = read(environ, headers)
            principal = run(self._door.verdict(hearing))
            if fault is not None:
                raise fault  # noqa: TRY301 - refused as any other
            isolation = hearing.evidence.isolation
            if isolation is not None and not isolation.is_idle:
                check_message(isolation, environ, headers, principal)
        # All else is no reason to refuse the request: the process ends, or the greenlet.
        except (Exception, GeneratorExit) as error:  # noqa: BLE001
            return refuse(start_response, hearing.refused(error), form_of(headers.kinds), environ["REQUEST_METHOD"])
        self._tell_handlers(environ, headers, hearing, principal)
        return Response(self._door, hearing, headers, start_response).run(self._app, environ, principal)

    def _tell_handlers(self, environ: WSGIEnvironment, headers: Sorted, hearing: Hearing, principal: Principal) -> None:
        # In the environment itself, which servers read for their logs.
        for name in headers.forged:
            del environ[name]
        environ.update(self._telling.headers(principal))
        environ["authz.principal"] = principal
        environ["authz.organization"] = hearing.evidence.organization
