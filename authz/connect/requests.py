"""A request as connectrpc describes it, read into the call that it is; and what its handler is told."""

from collections.abc import Sequence
from typing import Any

from connectrpc.request import Headers, RequestContext

from authz.call.call import Call
from authz.call.metadata import is_forged

Context = RequestContext[Any, Any]


def call_of(ctx: Context) -> Call:
    """Return the call that a request is.

    Nothing is known of its connection: connectrpc tells interceptors neither of certificates nor of sockets.
    """
    headers, method = ctx.request_headers, ctx.method
    return Call(
        method=f"/{method.service_name}/{method.name}",
        metadata=list(headers.allitems()),
        credentials=list(headers.getall("authorization")),
        verb=ctx.http_method,
    )


def as_text(name: str, value: str) -> tuple[str, str]:
    """Return a header as connectrpc has it."""
    return name, value


def tell_handler(headers: Headers, reserved: frozenset[str], told: Sequence[tuple[str, str]]) -> None:
    """Tell the handler of a request who makes it: in the headers themselves, which later interceptors see as well.

    Args:
        headers: those of the request.
        reserved: the names that no caller may send.
        told: what the handler is told.

    """
    for forged in [name for name in headers if is_forged(name, reserved)]:
        del headers[forged]
    for name, value in told:
        headers[name] = value
