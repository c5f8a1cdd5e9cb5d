"""A request as ASGI describes it, read into the call that it is."""

from authz.asgi.protocol import Scope
from authz.call.call import Call
from authz.call.peer import OVER_TLS, PLAIN, Peer
from authz.errors import PermissionDeniedError
from authz.http.headers import Header, RawHeaders, Sorted
from authz.http.paths import path_of


def headers_of(scope: Scope) -> list[Header]:
    """Return the headers of a request, as a list that stays in its scope."""
    headers: list[Header] = scope["headers"]
    if not isinstance(headers, list):
        # Any iterable, as ASGI has it, perhaps for once only.
        headers = scope["headers"] = list(headers)
    return headers


def read(scope: Scope, headers: Sorted) -> tuple[Call, PermissionDeniedError | None]:
    """Return the call that a request is, and why it cannot be allowed to any caller, if so.

    The method of the call is the path that is routed, in the one spelling that rules compare.

    Args:
        scope: of ``http`` or ``websocket``; a handshake of the latter is a ``GET`` (RFC 6455 section 4.1), and over
            HTTP/2 it stands for one (RFC 8441).
        headers: those of the scope.

    """
    path, fault = scope["path"], None
    try:
        path = path_of(path)
    except PermissionDeniedError as error:
        # The caller learns it only once it is known: an anonymous one is told that a token is needed.
        fault = error
    raw, verb = RawHeaders(scope["headers"]), scope.get("method", "GET")
    return Call(path, raw, _peer_of(scope), headers.credentials, None, None, headers.size, verb), fault


def _peer_of(scope: Scope) -> Peer | None:
    extensions = scope.get("extensions")
    tls = extensions.get("tls") if extensions else None
    if tls is None:
        # Over TLS without a word about certificates: a rule that depends on one has no verdict.
        return PLAIN if scope.get("scheme", "http") in ("http", "ws") else None
    # ASGI TLS extension: an error says that the server could not verify what it hands on.
    chain = tls.get("client_cert_chain")
    if not chain or tls.get("client_cert_error") is not None:
        return OVER_TLS
    return Peer.of("", {"x509_pem_cert": (chain[0].encode("ascii"),)})
