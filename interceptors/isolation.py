"""Which RPCs have requests that may name an organization, and the check of each request."""

import functools
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from authz.call.principal import ANONYMOUS, Principal
from authz.judge.hearing import Hearing
from authz.policy.protos.isolation import check_message, places_of
from interceptors.handlers import Handler

Check = Callable[[Any], None]
"""Raises an :class:`authz.errors.AuthzError` for a request that the handler may not see."""


def check_of(handler: Handler, principal: Principal, hearing: Hearing) -> Check | None:
    """Return the check of every request of one RPC, or ``None`` where there can be nothing to check.

    Args:
        handler: the handler that will get the requests.
        principal: the verified caller: no request may name another organization.
        hearing: the hearing of the RPC. The verdict came with the headers, and the request of a unary-unary method may
            come any time later, so the check looks at the verdict again. Streams are ended when something changes.

    """
    named = None
    if _may_name(handler.request_deserializer):
        named = functools.partial(check_message, principal=principal, tenant=principal.tenant)
    if handler.request_streaming or handler.response_streaming or principal is ANONYMOUS:
        return named

    def confirmed(request: Any) -> None:
        hearing.confirm(principal)
        if named is not None:
            named(request)

    return confirmed


def _may_name(parse: Any) -> bool:
    # Generated code parses requests with a method of their class, so the class is known before a request comes.
    owner = getattr(parse, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, Message) and parse == owner.FromString:
        return places_of(parse.__self__) is not None
    # Any other function may return any message. Without a function requests stay bytes.
    return parse is not None
