"""The body of a request whose message is checked before its handler gets it."""

import io
from wsgiref.types import InputStream, WSGIEnvironment

from authz.call.principal import Principal
from authz.http.messages import MAX_BODY_BYTES, check_kind, check_length
from authz.http.paths import with_query
from authz.judge.in_force import Isolation
from authz.policy.protos.isolation import unverified
from authz.wsgi.requests import path_in
from authz.wsgi.variables import Sorted


def check_message(isolation: Isolation, environ: WSGIEnvironment, headers: Sorted, principal: Principal) -> None:
    """Check which organization a request names, and leave its body for its handler to read again.

    Raises:
        PermissionDeniedError: it names another organization than that of ``principal``, or may name one.

    """
    path, verb = with_query(path_in(environ), environ.get("QUERY_STRING", "")), environ["REQUEST_METHOD"]
    if verb != "POST" or not isolation.looks_at(path):
        isolation.check_request(path, verb, principal, bytes)
        return
    encoding = environ.get("HTTP_CONTENT_ENCODING")
    check_kind(headers.kinds, [] if encoding is None else [encoding])
    body = _read(environ)
    isolation.check_request(path, verb, principal, lambda: body)
    environ["wsgi.input"] = io.BytesIO(body)
    # Also where its length was not told: some frameworks read no more than they know of.
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input_terminated"] = True


def _read(environ: WSGIEnvironment) -> bytes:
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated", False):
        body = _part(stream, MAX_BODY_BYTES + 1)
        check_length(len(body))
        return body
    # PEP 3333 lets nothing be read beyond it: there may be no end.
    length = environ.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        raise unverified("the length of the body is no number")
    check_length(int(length))
    body = _part(stream, int(length))
    if len(body) < int(length):
        raise unverified("the body is not complete")
    return body


def _part(stream: InputStream, size: int) -> bytes:
    """Return the next ``size`` bytes, or fewer at the end."""
    parts: list[bytes] = []
    try:
        while size > 0 and (part := stream.read(size)):
            parts.append(part)
            size -= len(part)
    except OSError:
        raise unverified("the body is not complete") from None
    return b"".join(parts)
