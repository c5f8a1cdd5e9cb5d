"""Which requests may read the page and which may act: checked before a request body is read.

Browsers are the danger on loopback: any website can make them send requests
there, and a website that rebinds its name can read the answers. So a request
must name this server as its host, a request that acts must come from the page
itself, and no script of another site gets an answer.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz.runtime import telemetry
from authz.runtime.network.urls import ip_address, is_loopback

FAILURES = 5
"""How many wrong secrets are answered and logged at once; after that, one in :data:`FAILURE_SECONDS`."""

FAILURE_SECONDS = 2.0

_HEADERS = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            b"form-action 'none'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
        ),
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)

_SAFE = ("GET", "HEAD")
# A browser sends "none" if the user has typed the address.
_OWN_SITES = ("same-origin", "none")


class Guard:
    """Pass acceptable requests to the application, and add the security headers to every answer.

    Args:
        app: the application.
        hosts: what may stand in ``Host``, in lower case and without a port, besides the names of loopback;
            ``None`` for any IP address, which no website can rebind.

    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        answer = self._refusal(scope["method"], Headers(scope=scope))
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return refusal(421, "This server is not known by that name. Use its address, such as 127.0.0.1.")
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return refusal(403, "Another site may not ask.")
        if method in _SAFE:
            return None
        # Clients other than browsers send no Origin, and a website cannot keep a browser from sending it.
        # It is https if the page came through a proxy.
        if headers.get("origin", f"http://{hosts[0]}") not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):
            return refusal(403, "Another site may not ask.")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return refusal(415, "Send application/json.")
        return None

    def _is_ours(self, host: str) -> bool:
        name = host.lower().rpartition(":")[0] if not host.endswith("]") and ":" in host else host.lower()
        name = name.removeprefix("[").removesuffix("]")
        if is_loopback(name):
            return True
        return ip_address(name) is not None if self._hosts is None else name in self._hosts


class Secret:
    """The secret of the operators who may act, and a bound on guessing it.

    Args:
        secret: what an operator must show; empty if actions are off.
        monotonic: the clock, in seconds.

    """

    def __init__(self, secret: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._digest = _digest(secret) if secret else None
        self._now = monotonic
        # When all wrong guesses so far are forgiven.
        self._forgiven = 0.0

    @property
    def is_set(self) -> bool:
        """Whether actions are on."""
        return self._digest is not None

    def refuse(self, request: Request) -> Response | None:
        """Return the refusal of ``request``, or ``None`` if it shows the secret."""
        if self._digest is None:
            return refusal(403, "Actions are off: set AUTHZ_ADMIN_SECRET, or --admin-secret-file, and start again.")
        shown = request.headers.get("authorization")
        if shown is None:
            # No secret is no wrong guess.
            return _unauthorized("Show the admin secret: Authorization: Bearer …")
        scheme, _, secret = shown.partition(" ")
        # Before the count of guesses: guessing must not lock out the operator. It is hopeless all the same: there are
        # 10**28 secrets of 16 random characters, and this port handles a hundred requests a second. The pause between
        # answers bounds what is logged.
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(secret), self._digest):
            return None
        now = self._now()
        if self._forgiven - now > (FAILURES - 1) * FAILURE_SECONDS:
            response = refusal(429, "Too many wrong secrets. Wait a few seconds.")
            response.headers["retry-after"] = str(round(FAILURE_SECONDS))
            return response
        self._forgiven = max(now, self._forgiven) + FAILURE_SECONDS
        telemetry.event(telemetry.WARNING, "admin_secret_wrong")
        return _unauthorized("The admin secret is wrong.")


def answer(data: object, status: int = 200) -> Response:
    """Return ``data`` as JSON; in ASCII, because texts that a caller chose may be invalid Unicode."""
    return written(json.dumps(data, separators=(",", ":")).encode(), status)


def written(text: bytes, status: int = 200) -> Response:
    """Return ``text``, which is JSON already, as an answer."""
    return Response(text, status, media_type="application/json")


def refusal(status: int, error: str) -> Response:
    """Return an answer that says what is wrong."""
    return answer({"error": error}, status)


def _unauthorized(error: str) -> Response:
    response = refusal(401, error)
    response.headers["www-authenticate"] = 'Bearer realm="authz admin"'
    return response


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
