"""Refusals as WSGI sends them."""

import functools
from http import HTTPStatus
from wsgiref.types import StartResponse

from authz.call.refusal import Refusal
from authz.http.forms import Form
from authz.http.headers import refusal_answer


def refuse(start_response: StartResponse, refusal: Refusal, form: Form, verb: str) -> list[bytes]:
    """Answer a request, made by the HTTP method ``verb``, with a refusal."""
    status, headers, body = _answer(refusal, form)
    # A new list, which servers may change.
    start_response(status, list(headers))
    # Servers complain of the body of an answer that has none.
    return [] if verb == "HEAD" else [body]


@functools.lru_cache(512)
def _answer(refusal: Refusal, form: Form) -> tuple[str, tuple[tuple[str, str], ...], bytes]:
    status, headers, body = refusal_answer(refusal, form)
    texts = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)
    return f"{status} {HTTPStatus(status).phrase}", texts, body
