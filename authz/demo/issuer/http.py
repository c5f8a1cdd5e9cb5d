"""The development issuer over HTTP: WorkOS Connect's endpoints, and a few controls for development.

:class:`authz.demo.issuer.tokens.Issuer` decides; this module reads requests
strictly and writes answers. :mod:`authz.demo.issuer.program` describes the
controls under ``/dev/``.
"""

import base64
import json
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from authz.demo.issuer.bodies import BodyError, read_body
from authz.demo.issuer.directory import Application
from authz.demo.issuer.tokens import TOKEN_LIFETIME, Issuer, OAuthCode, OAuthError
from authz.demo.issuer.workos_api import WorkOSApi

# RFC 6749 section 5.1: answers that may hold a token must not be stored.
_NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}

_ABOUT = """\
A development issuer: a local stand-in for WorkOS Connect. Never use it in production:
its secrets are in a file, and anybody who can reach it can make it sign any token.

issuer: {url}

POST /oauth2/token          grant_type=client_credentials, client_id, client_secret, optional scope
POST /oauth2/introspection  client_id, client_secret, token
GET  /oauth2/jwks           the public keys
GET  /.well-known/oauth-authorization-server
GET  /.well-known/openid-configuration

With the API key as bearer token, as WorkOS's API:

GET, PUT, DELETE /organizations/ID
GET    /events?events=organization.updated,organization.deleted&order=asc&after=EVENT
GET    /connect/applications
DELETE /connect/applications/ID

POST /dev/rotate   sign with a new key; drop=true also takes the old ones out of the key set
POST /dev/revoke   token=... or jti=... or client_id=...
POST /dev/tokens   sign any token; JSON: client_id, and optionally claims, header (null removes), expires_in
"""


def app(issuer: Issuer) -> Starlette:
    """Return the ASGI application that serves ``issuer``, which must have its URL before the first request."""
    endpoints = _Endpoints(issuer)
    return Starlette(
        routes=[
            Route("/", endpoints.about),
            Route("/oauth2/token", endpoints.token, methods=["POST"]),
            Route("/oauth2/introspection", endpoints.introspection, methods=["POST"]),
            Route("/oauth2/jwks", endpoints.jwks),
            Route("/.well-known/oauth-authorization-server", endpoints.authorization_server),
            Route("/.well-known/openid-configuration", endpoints.openid_configuration),
            *WorkOSApi(issuer.environment).routes(),
            Route("/dev/rotate", endpoints.rotate, methods=["POST"]),
            Route("/dev/revoke", endpoints.revoke, methods=["POST"]),
            Route("/dev/tokens", endpoints.tokens, methods=["POST"]),
        ],
        exception_handlers={OAuthError: _refusal},
    )


class _Endpoints:
    # All are coroutines, although most wait for nothing but the body:
    # Starlette would run plain functions in threads that outlive the server for a while.

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    async def about(self, _request: Request) -> Response:
        return PlainTextResponse(_ABOUT.format(url=self._issuer.url))

    async def jwks(self, _request: Request) -> Response:
        return JSONResponse(self._issuer.jwks())

    async def authorization_server(self, _request: Request) -> Response:
        return JSONResponse(self._metadata())

    async def openid_configuration(self, _request: Request) -> Response:
        return JSONResponse(
            {
                **self._metadata(),
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def token(self, request: Request) -> Response:
        form = await _form(request)
        if "grant_type" not in form:
            _refuse("grant_type is missing.")
        application = self._authenticate(request, form)
        if form["grant_type"] != "client_credentials":
            raise OAuthError(OAuthCode.UNSUPPORTED_GRANT_TYPE, "This issuer supports only client_credentials.")
        token, scope = self._issuer.grant(application, form.get("scope"))
        answer = {"access_token": token, "expires_in": TOKEN_LIFETIME, "token_type": "bearer"}
        return JSONResponse({**answer, "scope": scope} if scope else answer, headers=_NO_STORE)

    async def introspection(self, request: Request) -> Response:
        form = await _form(request)
        self._authenticate(request, form)
        if "token" not in form:
            _refuse("token is missing.")
        return JSONResponse(self._issuer.introspect(form["token"]), headers=_NO_STORE)

    async def rotate(self, request: Request) -> Response:
        form = await _form(request, known=("drop",), may_be_absent=True)
        if form.get("drop", "false") not in ("true", "false"):
            _refuse("drop must be true or false.")
        key = self._issuer.rotate(drop=form.get("drop") == "true")
        return JSONResponse({"kid": key.kid, "published": [published.kid for published in self._issuer.keys]})

    async def revoke(self, request: Request) -> Response:
        form = await _form(request, known=("token", "jti", "client_id"))
        try:
            revoked = self._issuer.revoke(token=form.get("token"), jti=form.get("jti"), client_id=form.get("client_id"))
        except (LookupError, TypeError) as failure:
            _refuse(str(failure))
        return JSONResponse({"revoked": revoked})

    async def tokens(self, request: Request) -> Response:
        order = _token_order(await _body(request))
        try:
            token = self._issuer.mint(**order)
        except LookupError as failure:
            _refuse(str(failure))
        answer = {"access_token": token, "expires_in": order["expires_in"], "token_type": "bearer"}
        return JSONResponse(answer, headers=_NO_STORE)

    def _metadata(self) -> dict[str, Any]:
        """Return RFC 8414's document, without ``authorization_endpoint``: there is no sign-in here."""
        url = self._issuer.url
        applications = self._issuer.directory.applications
        methods = ["client_secret_post", "client_secret_basic"]
        return {
            "issuer": url,
            "token_endpoint": f"{url}/oauth2/token",
            "introspection_endpoint": f"{url}/oauth2/introspection",
            "jwks_uri": f"{url}/oauth2/jwks",
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "scopes_supported": sorted({scope for application in applications for scope in application.scopes}),
            "token_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_methods_supported": methods,
        }

    def _authenticate(self, request: Request, form: dict[str, str]) -> Application:
        headers = request.headers.getlist("authorization")
        if not headers:
            if not {"client_id", "client_secret"} <= form.keys():
                raise OAuthError(OAuthCode.INVALID_CLIENT, "client_id and client_secret are missing.", status=401)
            return self._issuer.authenticate(form["client_id"], form["client_secret"])
        # RFC 6749 section 2.3: never more than one method of authentication.
        if len(headers) > 1 or "client_secret" in form:
            _refuse("The client authenticates in more than one way.")
        client_id, client_secret = _basic(headers[0])
        if form.get("client_id", client_id) != client_id:
            _refuse("client_id is not the client that authenticates.")
        return self._issuer.authenticate(client_id, client_secret)


def _refuse(description: str, *, status: int = 400) -> NoReturn:
    raise OAuthError(OAuthCode.INVALID_REQUEST, description, status=status)


async def _refusal(request: Request, error: Exception) -> Response:
    if not isinstance(error, OAuthError):
        raise error
    headers = dict(_NO_STORE)
    if error.code is OAuthCode.INVALID_CLIENT and "authorization" in request.headers:
        # RFC 6749 section 5.2: the challenge is for clients that used the header.
        headers["www-authenticate"] = 'Basic realm="development issuer", charset="UTF-8"'
    body = {"error": error.code, "error_description": error.description}
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _body(request: Request) -> bytes:
    try:
        return await read_body(request)
    except BodyError as error:
        _refuse(error.description, status=error.status)


async def _form(
    request: Request, *, known: tuple[str, ...] | None = None, may_be_absent: bool = False
) -> dict[str, str]:
    body = await _body(request)
    if may_be_absent and not body:
        return {}
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        _refuse("Send application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), errors="strict")
    except ValueError:
        _refuse("The body is not a form.")
    form = dict(pairs)
    # RFC 6749 section 3.2: no parameter twice; one without a value counts as omitted.
    if len(form) != len(pairs):
        _refuse("A parameter is given twice.")
    if known is not None and not form.keys() <= set(known):
        _refuse(f"An unknown parameter; known are {', '.join(known)}.")
    return {name: value for name, value in form.items() if value}


def _basic(header: str) -> tuple[str, str]:
    refusal = OAuthError(OAuthCode.INVALID_CLIENT, "The authorization header is not HTTP Basic.", status=401)
    scheme, _, encoded = header.partition(" ")
    try:
        client_id, colon, client_secret = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        # RFC 6749 section 2.3.1: both were form-encoded before they were joined.
        credentials = unquote_plus(client_id, errors="strict"), unquote_plus(client_secret, errors="strict")
    except ValueError:
        raise refusal from None
    if scheme.lower() != "basic" or not colon:
        raise refusal
    return credentials


def _token_order(body: bytes) -> dict[str, Any]:
    try:
        order = json.loads(body)
    except (ValueError, RecursionError):
        _refuse("The body is not JSON.")
    if not isinstance(order, dict) or not order.keys() <= {"client_id", "claims", "header", "expires_in"}:
        _refuse("Send a JSON object of client_id, claims, header and expires_in.")
    if not isinstance(order.get("client_id"), str):
        _refuse("client_id must be a string.")
    if not all(isinstance(order.setdefault(name, {}), dict) for name in ("claims", "header")):
        _refuse("claims and header must be objects.")
    expires_in = order.setdefault("expires_in", TOKEN_LIFETIME)
    # The bound also excludes NaN, infinity and integers that no float can hold.
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not abs(expires_in) <= 10**9:
        _refuse("expires_in must be a number of seconds, within a billion.")
    return order
