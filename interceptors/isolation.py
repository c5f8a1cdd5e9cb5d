"""Which RPCs have requests that may name an organization, and the check of each request."""

import functools
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from authz.call import Principal
from authz.isolation import check, places_of
from interceptors.handlers import Handler

Check = Callable[[Any], None]
"""Raises :class:`authz.errors.PermissionDeniedError` for a request that names another organization."""


def check_of(handler: Handler, principal: Principal) -> Check | None:
    """Return the check of every request of one RPC, or ``None`` where there can be nothing to check."""
    if not _may_name(handler.request_deserializer):
        return None
    return functools.partial(check, principal=principal, tenant=principal.tenant)


def _may_name(parse: Any) -> bool:
    # What generated code parses requests with belongs to their class, so that is known before there is any.
    owner = getattr(parse, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, Message) and parse == owner.FromString:
        return places_of(parse.__self__) is not None
    # Anything may come of another function, but without one requests stay bytes.
    return parse is not None
