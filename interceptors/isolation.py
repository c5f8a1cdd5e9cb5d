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
        handler: whose requests they are.
        principal: who makes the RPC: no request may name another organization.
        hearing: that of the RPC. Its verdict came with the headers, and the only request of a method without streams
            may come any time after it, so that is looked at again; streams are ended when something changes.

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
    # What generated code parses requests with belongs to their class, so that is known before there is any.
    owner = getattr(parse, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, Message) and parse == owner.FromString:
        return places_of(parse.__self__) is not None
    # Anything may come of another function, but without one requests stay bytes.
    return parse is not None
