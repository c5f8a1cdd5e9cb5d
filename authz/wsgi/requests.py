"""A request as WSGI describes it, read into the call that it is."""

from wsgiref.types import WSGIEnvironment

from authz.call.call import Call, malformed
from authz.call.peer import OVER_TLS, PLAIN, Peer
from authz.errors import PermissionDeniedError
from authz.http.paths import path_of
from authz.wsgi.variables import Sorted


def read(environ: WSGIEnvironment, headers: Sorted) -> tuple[Call, PermissionDeniedError | None]:
    """Return the call that a request is, and why it cannot be allowed to any caller, if so.

    The method of the call is the path that is routed, in the one spelling that rules compare.

    Args:
        environ: the request.
        headers: its headers.

    """
    path, fault = _raw_path(environ), None
    try:
        _check_division(environ)
        path = path_of(path_in(environ))
    except PermissionDeniedError as error:
        # The caller learns it only once it is known: an anonymous one is told that a token is needed.
        fault = error
    return Call(
        path,
        headers.headers,
        _peer_of(environ),
        headers.credentials,
        size=headers.size,
        verb=environ["REQUEST_METHOD"],
    ), fault


def path_in(environ: WSGIEnvironment) -> str:
    """Return the whole path of a request, percent-decoded: where the application is, and the path inside it.

    Raises:
        PermissionDeniedError: it is not written as PEP 3333 wants it; the reason is ``request_malformed``.

    """
    raw = _raw_path(environ)
    if raw.isascii():
        return raw
    try:
        # Bytes, each as the Latin-1 character of its number (PEP 3333, "Unicode Issues").
        return raw.encode("latin-1").decode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise malformed() from None


def _raw_path(environ: WSGIEnvironment) -> str:
    # Frameworks route an empty path like the root.
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO') or '/'}"


def _check_division(environ: WSGIEnvironment) -> None:
    """Check that the path is divided where the operator has said, because frameworks route by ``PATH_INFO`` alone.

    A rule that allows ``/public/*`` would let ``/public/private`` pass, which the application would take for
    ``/private`` if the caller could say that it is at ``/public``.

    Raises:
        PermissionDeniedError: the caller may have divided it; the reason is ``request_malformed``.

    """
    # gunicorn believes a header SCRIPT_NAME that comes from a proxy (``forwarder_headers``).
    if "HTTP_SCRIPT_NAME" in environ:
        raise malformed()
    # Of /shopping, an application at /shop sees "ping" behind gunicorn; Werkzeug routes that like /shop/ping.
    inner = environ.get("PATH_INFO", "")
    if inner and not inner.startswith("/") and not environ.get("SCRIPT_NAME", "").endswith("/"):
        raise malformed()


def _peer_of(environ: WSGIEnvironment) -> Peer | None:
    if environ["wsgi.url_scheme"] == "http":
        return PLAIN
    # Named as Apache's mod_ssl has them; a header that a caller sends would begin with HTTP_.
    verified = environ.get("SSL_CLIENT_VERIFY")
    if verified == "NONE":
        return OVER_TLS
    if verified == "SUCCESS" and environ.get("SSL_CLIENT_CERT"):
        try:
            return Peer.of("", {"x509_pem_cert": (environ["SSL_CLIENT_CERT"].encode(),)})
        except ValueError:
            # In another format than PEM.
            return None
    # Over TLS without a word about certificates: a rule that depends on one has no verdict.
    return None
