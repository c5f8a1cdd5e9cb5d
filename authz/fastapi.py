"""The door of single routes of a FastAPI application: a dependency that is an OpenAPI security scheme."""

from collections.abc import Mapping

from fastapi.exceptions import HTTPException, WebSocketException
from fastapi.openapi.models import HTTPBearer, OAuth2, OAuthFlowClientCredentials, OAuthFlows
from fastapi.requests import HTTPConnection, Request
from fastapi.responses import Response
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from authz.asgi.answers import CLOSE_CODES
from authz.asgi.bodies import check_unread
from authz.asgi.requests import headers_of, read
from authz.asgi.serving import SERVING, Serving
from authz.call.call import UNREADABLE
from authz.call.principal import ANONYMOUS, Principal, set_current_principal
from authz.call.refusal import Refusal
from authz.call.requirements import Requirements
from authz.errors import AuthzError, ConfigError, TokenMissingError
from authz.http.door import HttpDoor, Judge
from authz.http.forms import Form
from authz.http.headers import refusal_answer
from authz.judge.hearing import Hearing
from authz.judge.verdict.requirements import check_requirements
from authz.runtime.flow import arun, ends_request


class RefusedError(HTTPException):
    """A request that is refused; :func:`refused` answers it as every other door does.

    Args:
        refusal: what the caller sees.

    """

    def __init__(self, refusal: Refusal) -> None:
        status, headers, body = refusal_answer(refusal, Form.HTTP)
        super().__init__(
            status,
            refusal.message,
            {name.decode("ascii"): value.decode("latin-1") for name, value in headers if name == b"www-authenticate"},
        )
        self.answer = status, headers, body


async def refused(_request: Request, error: Exception) -> Response:
    """Answer a request that a :class:`Caller` refuses: ``app.add_exception_handler(RefusedError, refused)``.

    Behind :class:`authz.asgi.AuthzMiddleware` it is not needed. Without either FastAPI answers with the same status
    and ``{"detail": …}``.

    Raises:
        Exception: ``error``, if it is not a refusal.

    """
    if not isinstance(error, RefusedError):
        raise error
    status, headers, body = error.answer
    response = Response(body, status)
    response.raw_headers = list(headers)
    return response


class Caller(SecurityBase):
    """The caller of a route: ``Annotated[Principal, Security(Caller(…), scopes=["orders:read"])]``.

    Args:
        judge: decides, for routes of an application without :class:`authz.asgi.AuthzMiddleware`. ``None`` behind the
            middleware, which has decided already; the dependency then only checks the scopes of the route.
        token_url: the issuer's token endpoint, for the OpenAPI document: it then describes OAuth 2.0 client
            credentials (RFC 6749 section 4.4), and else a bearer token (RFC 6750).
        scopes: what the scopes mean, for the OpenAPI document.
        scheme_name: what the OpenAPI document calls the scheme.
        description: what it says about it.

    Raises:
        ConfigError: ``judge`` is neither a verifier nor an authorizer.

    """

    def __init__(
        self,
        judge: Judge | None = None,
        *,
        token_url: str = "",
        scopes: Mapping[str, str] | None = None,
        scheme_name: str = "Caller",
        description: str | None = None,
    ) -> None:
        self._door = None if judge is None else HttpDoor(judge)
        self.scheme_name = scheme_name
        self.model: HTTPBearer | OAuth2 = HTTPBearer(bearerFormat="JWT", description=description)
        if token_url:
            flow = OAuthFlowClientCredentials(tokenUrl=token_url, scopes=dict(scopes or {}))
            self.model = OAuth2(flows=OAuthFlows(clientCredentials=flow), description=description)

    async def __call__(self, connection: HTTPConnection, asked: SecurityScopes) -> Principal:
        """Return who makes the request.

        Raises:
            RefusedError: there is no good token, or it lacks a scope that the route asks for; of a WebSocket a
                ``WebSocketException``.
            ConfigError: there is neither a judge nor the middleware.

        """
        requirements = Requirements(scopes=frozenset(asked.scopes))
        serving = connection.scope.get(SERVING)
        if isinstance(serving, Serving):
            return _narrowed(connection, serving, requirements)
        if self._door is None:
            raise ConfigError("Caller: no judge is given, and AuthzMiddleware does not stand before the application")
        return await _judged(connection, self._door, requirements)


def _narrowed(connection: HTTPConnection, serving: Serving, requirements: Requirements) -> Principal:
    try:
        if serving.principal is ANONYMOUS:
            raise TokenMissingError
        check_requirements(requirements, serving.principal)
    except AuthzError as error:
        raise _error(connection, serving.refuse(error)) from None
    return serving.principal


async def _judged(connection: HTTPConnection, door: HttpDoor, requirements: Requirements) -> Principal:
    scope = connection.scope
    raw = headers_of(scope)
    headers = door.sorting.sort(raw)
    hearing = Hearing(door.authorizer, UNREADABLE, "fastapi")
    try:
        call, fault = read(scope, headers)
        hearing.call = call._replace(requirements=requirements)
        principal = await arun(door.verdict(hearing))
        if fault is not None:
            raise fault  # noqa: TRY301 - refused as any other
        isolation = hearing.evidence.isolation
        if isolation is not None and not isolation.is_idle:
            check_unread(isolation, scope, principal)
    except BaseException as error:
        if ends_request(error):
            raise
        refusal = hearing.refused(error)
    else:
        hearing.allowed(hearing.seconds)
        # In place: the request may have been looked at before.
        raw[:] = [*headers.kept, *door.telling.headers(principal)]
        set_current_principal(principal)
        return principal
    raise _error(connection, refusal)


def _error(connection: HTTPConnection, refusal: Refusal) -> Exception:
    if connection.scope["type"] == "websocket":
        return WebSocketException(CLOSE_CODES[refusal.code], refusal.message)
    return RefusedError(refusal)
