"""Whose data a request asks for: its fields marked ``(authz.v1.organization)`` must name the caller's organization.

Pure. The places of marked fields are found once for every message type, so a type without any costs one look into a
cache. Fields, elements, values of maps and nested messages are checked; what is packed in a ``google.protobuf.Any``,
which may be of any type, is not, nor are extensions and unknown fields.

The check is bounded, because its thread serves other calls as well: a message with more to look at is refused.
"""

import functools
from collections.abc import Collection, Hashable, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from authz.call.principal import Principal
from authz.errors import ConfigError, PermissionDeniedError
from authz.policy.protos.descriptors import is_repeated
from authz.v1 import policy_pb2

MAX_LOOKS = 4096
"""How many fields, elements and messages are checked in one request."""

# A key of a map counts as one look, and one more for each so many characters.
_KEY_CHARACTERS = 64


def check_message(message: Any, principal: Principal, tenant: str = "") -> None:
    """Check that ``message`` names no organization but that of ``principal``.

    An empty field names no organization. ``ANONYMOUS`` has none, so its messages may name none.

    Args:
        message: a protobuf message; anything else has no marked fields.
        principal: the caller.
        tenant: the API owner's own id for the organization, which may be named as well, or ``""`` if there is none.

    Raises:
        PermissionDeniedError: it names another organization (``organization_mismatch``), or has more to look at than
            ``MAX_LOOKS`` (``organization_unverified``).

    """
    places = places_of(message.__class__)
    if places is not None:
        # An empty field names no organization.
        places.check_fields(message, ("", principal.org_id, tenant), MAX_LOOKS)


def mismatch() -> PermissionDeniedError:
    """Return the refusal of a request that names another organization."""
    return PermissionDeniedError(
        "the request names another organization than the caller's", reason="organization_mismatch"
    )


def unverified(message: str) -> PermissionDeniedError:
    """Return the refusal of a request that may name another organization."""
    return PermissionDeniedError(message, reason="organization_unverified")


class Places:
    """Where the messages of one type name organizations."""

    __slots__ = ("_inner", "_looks", "_many", "_names")

    def __init__(self) -> None:
        self._looks = 0
        self._names: tuple[str, ...] = ()
        self._inner: tuple[tuple[str, Places], ...] = ()
        self._many: tuple[tuple[str, bool, Places | None], ...] = ()

    def add(self, field: FieldDescriptor, inner: "Places | None" = None) -> None:
        """Look at ``field``, which names an organization, or whose messages name some at ``inner``."""
        self._looks += 1
        if is_repeated(field):
            self._many += ((field.name, _is_map(field), inner),)
        elif inner is None:
            self._names += (field.name,)
        else:
            self._inner += ((field.name, inner),)

    def check_fields(self, message: Any, ids: Collection[str], looks: int) -> int:
        """Check that every marked field of ``message`` is one of ``ids``, and return how many looks are left.

        Args:
            message: the message.
            ids: what it may name.
            looks: how many fields, elements and messages may be checked.

        Raises:
            PermissionDeniedError: it names another organization, or has more to look at.

        """
        looks = looks_left(looks, self._looks)
        for name in self._names:
            if getattr(message, name) not in ids:
                raise mismatch()
        for name, inner in self._inner:
            # Reading a message that is not set creates it, and then one inside it, without end if a type holds itself.
            if message.HasField(name):
                looks = inner.check_fields(getattr(message, name), ids, looks)
        for name, is_map, places in self._many:
            values = getattr(message, name)
            # Counted before the first is looked at, so that too many of them cost nothing.
            looks = looks_left(looks, len(values))
            for value in values:
                # Iterating over a map yields its keys, which may be long.
                if is_map and isinstance(value, str):
                    looks = looks_left(looks, len(value) // _KEY_CHARACTERS)
                one = values[value] if is_map else value
                if places is not None:
                    looks = places.check_fields(one, ids, looks)
                elif one not in ids:
                    raise mismatch()
        return looks


def looks_left(looks: int, taken: int) -> int:
    """Return how many of ``looks`` are left when some are taken.

    Raises:
        PermissionDeniedError: there are not so many (``organization_unverified``).

    """
    if taken > looks:
        raise unverified("the message has more fields that could name an organization than are checked")
    return looks - taken


# More types than one server has; bounded, because a program may create types as it runs.
@functools.lru_cache(4096)
def places_of(message_type: Hashable) -> Places | None:
    """Return where messages of a class name organizations, or ``None`` if they cannot.

    Raises:
        ConfigError: a marked field is no string.

    """
    descriptor = getattr(message_type, "DESCRIPTOR", None)
    if not isinstance(descriptor, Descriptor):
        return None
    found = {one: Places() for one in _holders(_reachable(descriptor))}
    for one, places in found.items():
        for field in marked_fields(one):
            places.add(field)
        for field in one.fields:
            inner = _message_in(field)
            if inner in found:
                places.add(field, found[inner])
    return found.get(descriptor)


def _reachable(root: Descriptor) -> list[Descriptor]:
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


def _holders(types: Iterable[Descriptor]) -> set[Descriptor]:
    """Return which of ``types`` have marked fields, or contain messages that have, at any depth."""
    holders: dict[Descriptor, list[Descriptor]] = {}
    waiting = []
    for one in types:
        if marked_fields(one):
            waiting.append(one)
        for field in one.fields:
            inner = _message_in(field)
            if inner is not None:
                holders.setdefault(inner, []).append(one)
    found = set(waiting)
    while waiting:
        for holder in holders.get(waiting.pop(), ()):
            if holder not in found:
                found.add(holder)
                waiting.append(holder)
    return found


def marked_fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    """Return the fields of a type that name an organization.

    Raises:
        ConfigError: one of them is no string.

    """
    marked = [
        field
        for field in descriptor.fields
        if field.has_options and field.GetOptions().Extensions[policy_pb2.organization]
    ]
    for field in marked:
        if _value_of(field).type != FieldDescriptor.TYPE_STRING:
            raise ConfigError(f"{field.full_name}: (authz.v1.organization) is for strings only")
    return marked


def _message_in(field: FieldDescriptor) -> Descriptor | None:
    """Return the type of the messages in a field; for a map, of its values."""
    return _value_of(field).message_type


def _value_of(field: FieldDescriptor) -> FieldDescriptor:
    entry = field.message_type
    return entry.fields_by_name["value"] if entry is not None and entry.GetOptions().map_entry else field


def _is_map(field: FieldDescriptor) -> bool:
    return _value_of(field) is not field
