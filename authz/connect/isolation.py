"""Whose data a request asks for, whichever of its two libraries connectrpc has made the message with.

Messages of ``google.protobuf`` are for :mod:`authz.policy.protos.isolation`. Those of ``protobuf-py`` (the package
``protobuf``) are checked here, by the same marks and within the same bound.
"""

import functools
from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from protobuf import (
    DescField,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescFile,
    DescMessage,
    Message,
)

from authz.call.principal import Principal
from authz.policy.protos.descriptors import linked
from authz.policy.protos.isolation import MAX_LOOKS, check_message, looks_left, marked_fields, mismatch, places_of


def check_request(message: Any, principal: Principal) -> None:
    """Check that ``message`` names no organization but that of ``principal``.

    Args:
        message: a message of either library; anything else has no marked fields.
        principal: the caller.

    Raises:
        PermissionDeniedError: it names another organization (``organization_mismatch``), or has more to look at than
            is checked (``organization_unverified``).
        ConfigError: a marked field of its type is no string.

    """
    if not isinstance(message, Message):
        check_message(message, principal, principal.tenant)
        return
    places = _places_of(message.desc())
    if places is not None:
        places.check_fields(message, ("", principal.org_id, principal.tenant), MAX_LOOKS)


class _Places:
    """Where the messages of one type name organizations."""

    __slots__ = ("_inner", "_looks", "_many", "_marked")

    def __init__(self) -> None:
        self._looks = 0
        self._marked: tuple[DescField, ...] = ()
        self._inner: tuple[tuple[DescField, _Places], ...] = ()
        self._many: tuple[tuple[DescField, _Places | None], ...] = ()

    def add(self, field: DescField, inner: "_Places | None" = None) -> None:
        """Look at ``field``, which names an organization, or whose messages name some at ``inner``."""
        self._looks += 1
        if isinstance(field.value, DescFieldValueList | DescFieldValueMap):
            self._many += ((field, inner),)
        elif inner is None:
            self._marked += (field,)
        else:
            self._inner += ((field, inner),)

    def check_fields(self, message: Any, ids: Collection[str], looks: int) -> int:
        """See :meth:`authz.policy.protos.isolation.Places.check_fields`."""
        looks = looks_left(looks, self._looks)
        for field in self._marked:
            if message[field] not in ids:
                raise mismatch()
        for field, inner in self._inner:
            one = message[field]
            if one is not None:
                looks = inner.check_fields(one, ids, looks)
        for field, places in self._many:
            values = message[field]
            # Counted before the first is looked at, so that too many of them cost nothing.
            looks = looks_left(looks, len(values))
            for one in values.values() if isinstance(values, dict) else values:
                if places is not None:
                    looks = places.check_fields(one, ids, looks)
                elif one not in ids:
                    raise mismatch()
        return looks


# As many as those of google.protobuf that are remembered.
@functools.lru_cache(4096)
def _places_of(root: DescMessage) -> _Places | None:
    found = {one: _Places() for one in _reachable(root)}
    twins = _twins(found)
    classes: dict[DescMessage, Any] = {one: GetMessageClass(twin) for one, twin in twins.items()}
    holders = {one for one, twin in classes.items() if places_of(twin) is not None}
    for one in holders:
        marked = {field.name for field in marked_fields(twins[one])}
        for field in one.fields:
            if field.name in marked:
                found[one].add(field)
            inner = _message_in(field)
            if inner in holders:
                found[one].add(field, found[inner])
    return found[root] if root in holders else None


def _reachable(root: DescMessage) -> list[DescMessage]:
    """Return ``root`` and every message type that can be nested in it."""
    found = {root: None}
    waiting = [root]
    while waiting:
        for field in waiting.pop().fields:
            inner = _message_in(field)
            if inner is not None and inner not in found:
                found[inner] = None
                waiting.append(inner)
    return list(found)


def _message_in(field: DescField) -> DescMessage | None:
    """Return the type of the messages in a field; for a map, of its values."""
    match field.value:
        case DescFieldValueMessage(message=message):
            return message
        case DescFieldValueList(element=DescMessage() as message) | DescFieldValueMap(value=DescMessage() as message):
            return message
        case _:
            return None


def _twins(types: Collection[DescMessage]) -> dict[DescMessage, Descriptor]:
    """Return the same types as ``google.protobuf`` describes them, which knows our marks."""
    files: dict[str, DescFile] = {}
    waiting = [one.file for one in types]
    while waiting:
        file = waiting.pop()
        if file.name not in files:
            files[file.name] = file
            waiting.extend(file.dependencies)
    protos = [FileDescriptorProto.FromString(file.proto.to_binary()) for file in files.values()]
    pool = linked(protos, "the descriptors of protobuf-py")[0].pool
    return {one: pool.FindMessageTypeByName(one.type_name) for one in types}
