"""Which organizations a serialized message names, whichever parser reads it: every marked field on the wire counts.

Pure. Parsers disagree about messages that no serializer writes. If a field or a ``oneof`` is written twice, most take
the last, and protobuf.js keeps both members of the ``oneof``; if a field has another wire type than its own, most skip
it, and protobuf.js reads what it expects there. So every occurrence must name the caller's own organization, and a
field whose number is known must have its own wire type, in messages without marked fields as well: after the first
byte that two parsers read differently they read different messages.
"""

from collections.abc import Collection, Iterable

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from authz.errors import PermissionDeniedError
from authz.policy.protos.descriptors import is_repeated
from authz.policy.protos.isolation import marked_fields, mismatch, unverified

MAX_FIELDS = 2048
"""How many fields of one message are read, including those of nested messages."""

MAX_DEPTH = 100
"""How deep messages may be nested; most parsers have the same bound."""

_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_LEAST_TAG, _GREATEST_TAG = 1 << 3, (1 << 32) - 1
# The value bits of a byte of a varint; how many bytes a varint of 32 bits may have, and one of 64.
_LOW, _MAX_SHORT, _MAX_LONG = 0x7F, 5, 10
_MAP_VALUE = 2 << 3 | _LENGTH

_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _LENGTH,
    FieldDescriptor.TYPE_BYTES: _LENGTH,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH,
    FieldDescriptor.TYPE_GROUP: _GROUP,
}
"""The wire types of all fields that are not varints."""


class Layout:
    """How messages of one type, and the messages in them, are written.

    Attributes:
        inner: the layouts of nested messages, by the tags of their fields.
        marked: the tags of the fields that name an organization.
        numbers: the numbers of all fields.
        tags: all tags that may be written for them; a tag is number and wire type in one.

    """

    __slots__ = ("inner", "marked", "numbers", "tags")

    def __init__(self) -> None:
        self.inner: dict[int, Layout] = {}
        self.marked: set[int] = set()
        self.numbers: set[int] = set()
        self.tags: set[int] = set()

    def check_serialized(self, data: bytes, ids: Collection[bytes]) -> None:
        """Check that every marked field of a serialized message holds one of ``ids``.

        Raises:
            PermissionDeniedError: one does not (``organization_mismatch``); or parsers may read different messages, or
                there are more than ``MAX_FIELDS`` fields (``organization_unverified``).

        """
        try:
            _Reader(data, ids).read(self, 0, len(data), MAX_DEPTH)
        except IndexError:
            raise _broken() from None


_UNKNOWN = Layout()


class _Reader:
    """Reads one message; reading past its end raises IndexError, or is refused."""

    __slots__ = ("_data", "_fields", "_ids")

    def __init__(self, data: bytes, ids: Collection[bytes]) -> None:
        self._data = data
        self._ids = ids
        self._fields = MAX_FIELDS

    def read(self, layout: Layout, at: int, end: int, depth: int, end_tag: int = 0) -> int:
        """Read a message from ``at`` to ``end``, or to the end of a group; return the position after it."""
        if depth == 0:
            raise unverified("the message is nested too deeply")
        while at < end:
            tag, at = self._tag(at)
            if tag == end_tag:
                return at
            at = self._field(layout, tag, at, end, depth - 1)
        if at > end or end_tag:
            raise _broken()
        return at

    def _tag(self, at: int) -> tuple[int, int]:
        self._fields -= 1
        if self._fields < 0:
            raise unverified("the message has more fields than are read")
        tag, at = self._varint(at)
        # Some parsers drop the bits that do not fit, and then read another field.
        if not _LEAST_TAG <= tag <= _GREATEST_TAG:
            raise _broken()
        return tag, at

    def _field(self, layout: Layout, tag: int, at: int, end: int, depth: int) -> int:
        number, kind = tag >> 3, tag & 7
        if tag not in layout.tags and number in layout.numbers:
            raise unverified("a field has the wire type of another type")
        if kind == _LENGTH:
            length, at = self._varint(at)
            if at + length > end:
                raise _broken()
            self._value(layout, tag, at, at + length, depth)
            return at + length
        if kind == _VARINT:
            return self._after_varint(at)
        if kind == _GROUP:
            return self.read(layout.inner.get(tag, _UNKNOWN), at, end, depth, number << 3 | _GROUP_END)
        if kind not in _WIDTHS:
            raise _broken()
        return at + _WIDTHS[kind]

    def _value(self, layout: Layout, tag: int, at: int, end: int, depth: int) -> None:
        if tag in layout.marked:
            if self._data[at:end] not in self._ids:
                raise mismatch()
        elif tag in layout.inner:
            self.read(layout.inner[tag], at, end, depth)

    def _varint(self, at: int) -> tuple[int, int]:
        """Return a tag or a length, and where it ends."""
        value = self._data[at]
        if value <= _LOW:
            return value, at + 1
        value &= _LOW
        for place in range(1, _MAX_SHORT):
            byte = self._data[at + place]
            value |= (byte & _LOW) << 7 * place
            if byte <= _LOW:
                return value, at + place + 1
        raise _broken()

    def _after_varint(self, at: int) -> int:
        for place in range(at, at + _MAX_LONG):
            if self._data[place] <= _LOW:
                return place + 1
        raise _broken()


def _broken() -> PermissionDeniedError:
    return unverified("the message cannot be parsed")


def layouts_of(roots: Iterable[Descriptor]) -> dict[Descriptor, Layout]:
    """Return the layouts of some message types, and of all types that can be nested in them.

    Raises:
        ConfigError: a marked field is no string.

    """
    found = {root: Layout() for root in roots}
    waiting = list(found)
    while waiting:
        one = waiting.pop()
        layout, marked = found[one], marked_fields(one)
        for field in one.fields:
            number, kind = field.number, _WIRE_TYPES.get(field.type, _VARINT)
            tag = number << 3 | kind
            layout.numbers.add(number)
            layout.tags.add(tag)
            if is_repeated(field) and kind not in (_LENGTH, _GROUP):
                # Packed: every parser accepts that, however the field is declared.
                layout.tags.add(number << 3 | _LENGTH)
            inner = field.message_type
            if inner is None:
                if field in marked:
                    layout.marked.add(tag)
                continue
            if inner not in found:
                found[inner] = Layout()
                waiting.append(inner)
            layout.inner[tag] = found[inner]
            if field in marked:
                found[inner].marked.add(_MAP_VALUE)
    return found
