"""An admitted message names the caller's organization to every parser, lenient ones included."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import SourceCodeInfo
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.call.principal import Principal
from authz.errors import PermissionDeniedError
from authz.http.wire import MAX_FIELDS, Layout, layouts_of
from authz.policy.protos.descriptors import is_repeated
from authz.policy.protos.isolation import check_message, marked_fields
from tests.marked import TYPES

OWN, OTHER = "acme", "evil"
CALLER = Principal(org_id=OWN, client_id="client", subject="client")
IDS = {b"", OWN.encode()}
VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)
Order, Location = TYPES["Order"], SourceCodeInfo.Location
LAYOUT = layouts_of([Order.DESCRIPTOR])[Order.DESCRIPTOR]

# Of Order: the strings 1 (marked), 4 and 5 (of one oneof, the first marked) and 12; the messages 6 (of it) and 7.
ORG, OWNER_ORG, PERSON, OWNER_LINE, LINE, NOTE, UNKNOWN = 1, 4, 5, 6, 7, 12, 100


def varint(value: int, least: int = 1) -> bytes:
    """Return a number of at least so many bytes."""
    made = bytearray()
    while value > 0x7F or len(made) < least - 1:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def tag(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def text(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return tag(number, LENGTH) + varint(len(data)) + data


def verdict(data: bytes, layout: Layout = LAYOUT) -> str:
    """Return the reason of the refusal, or an empty string."""
    try:
        layout.check_serialized(data, IDS)
    except PermissionDeniedError as error:
        return error.reason
    return ""


OTHERS = {
    "first of two": text(ORG, OTHER) + text(ORG, OWN),
    "last of two": text(ORG, OWN) + text(ORG, OTHER),
    "member of a oneof that another replaces": text(OWNER_ORG, OTHER) + text(PERSON, "x"),
    "message of a oneof that another replaces": text(OWNER_LINE, text(2, OTHER)) + text(PERSON, "x"),
    "message that is merged with another": text(LINE, text(2, OTHER)) + text(LINE, text(2, OWN)),
    "value of a map that another replaces": text(3, text(1, "a") + text(2, OTHER))
    + text(3, text(1, "a") + text(2, OWN)),
    "value before its key": text(3, text(2, OTHER) + text(1, "a")),
    "value of a map without a key": text(3, text(2, OTHER)),
    "second value of an entry": text(3, text(2, OTHER) + text(2, OWN)),
    "after an unknown group": tag(UNKNOWN, GROUP) + text(ORG, OWN) + tag(UNKNOWN, GROUP_END) + text(ORG, OTHER),
    "tag and length in more bytes than they need": varint(ORG << 3 | LENGTH, 5)
    + varint(len(OTHER), 5)
    + OTHER.encode(),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_every_occurrence_counts(data: bytes) -> None:
    assert verdict(data) == "organization_mismatch"
    assert verdict(data.replace(OTHER.encode(), OWN.encode())) == ""


ODD = {
    # A parser that expects a string reads "acme" of these eight bytes, and then the next field.
    "marked field as a number of eight bytes": tag(ORG, FIXED64) + b"\4evil" + text(NOTE, "")[:1] + b"\1x",
    "marked field as a number": tag(ORG, VARINT) + b"\4",
    "marked field as a number of four bytes": tag(ORG, FIXED32) + b"\3abc",
    "marked field as a group": tag(ORG, GROUP) + tag(ORG, GROUP_END),
    "other field as a number of eight bytes": tag(NOTE, FIXED64) + b"\x0babcdefg",
    "other field of a message in it": text(LINE, tag(1, FIXED64) + bytes(8)),
    "key of a map as a number": text(3, tag(1, VARINT) + b"\1"),
    "message as a group": tag(LINE, GROUP) + text(2, OTHER) + tag(LINE, GROUP_END),
    "in a group that ends another": tag(UNKNOWN, GROUP) + tag(ORG, GROUP_END) + tag(UNKNOWN, GROUP_END),
    "group without an end": tag(UNKNOWN, GROUP),
    "group that ends outside of its message": text(UNKNOWN - 1, b"")
    + text(LINE, tag(UNKNOWN, GROUP))
    + tag(UNKNOWN, GROUP_END),
    "end of no group": tag(UNKNOWN, GROUP_END),
    "message that is longer than the one it is in": text(LINE, tag(1, LENGTH) + varint(30)) + text(NOTE, b"x" * 40),
    "length beyond the end": tag(NOTE, LENGTH) + varint(2) + b"x",
    "length of more than four bytes": tag(NOTE, LENGTH) + varint(1 << 32),
    "number of more bytes than it may have": tag(UNKNOWN, VARINT) + b"\x80" * 10 + b"\0",
    "number without an end": tag(UNKNOWN, VARINT) + b"\x80",
    "number of eight bytes without an end": tag(UNKNOWN, FIXED64) + bytes(7),
    "field with the number 0": b"\2\0",
    "tag of more than four bytes": varint(1 << 32 | ORG << 3 | LENGTH) + b"\0",
    "tag in more bytes than it may have": varint(NOTE << 3 | LENGTH, 6) + b"\0",
    "wire type 6": tag(UNKNOWN, 6),
    "wire type 7": tag(UNKNOWN, 7),
    "nothing but half a tag": b"\x80",
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_what_parsers_may_read_differently_is_refused(data: bytes) -> None:
    assert verdict(data) == "organization_unverified"


@pytest.mark.parametrize("kind", [VARINT, FIXED64, LENGTH, FIXED32])
def test_unknown_fields_are_ignored(kind: int) -> None:
    value = {VARINT: b"\xff" * 9 + b"\1", FIXED64: bytes(8), LENGTH: b"\4evil", FIXED32: bytes(4)}[kind]

    assert verdict(tag(UNKNOWN, kind) + value + text(ORG, OWN)) == ""
    assert verdict(tag(UNKNOWN, kind) + value + text(ORG, OTHER)) == "organization_mismatch"


def test_unknown_group_is_ignored() -> None:
    inner = tag(7, GROUP) + tag(1, VARINT) + b"\1" + tag(7, GROUP_END)

    assert verdict(tag(UNKNOWN, GROUP) + inner + tag(UNKNOWN, GROUP_END) + text(ORG, OWN)) == ""


class Counted(bytes):
    """Counts how often it is read."""

    reads = 0

    def __getitem__(self, at: Any) -> Any:
        type(self).reads += 1
        return super().__getitem__(at)


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(text(8, b""), id="messages"),
        pytest.param(text(2, b""), id="elements"),
        pytest.param(text(9, b""), id="entries of a map"),
        pytest.param(tag(UNKNOWN, VARINT) + b"\xff" * 9 + b"\1", id="numbers"),
        pytest.param(tag(UNKNOWN, GROUP) + tag(UNKNOWN, GROUP_END), id="groups"),
        pytest.param(text(UNKNOWN, b""), id="unknown fields"),
    ],
)
def test_so_many_fields_are_read_and_no_more(one: bytes) -> None:
    fields = 2 if one.endswith(tag(UNKNOWN, GROUP_END)) else 1
    assert verdict(one * (2048 // fields)) == ""
    assert verdict(one * (2048 // fields + 1)) == "organization_unverified"

    Counted.reads = 0
    assert verdict(Counted(one * 50_000)) == "organization_unverified"
    # A tag and a number have at most fifteen bytes.
    assert Counted.reads <= 15 * MAX_FIELDS


def test_fields_of_messages_in_messages_count_as_well() -> None:
    assert verdict(text(LINE, text(1, "") * 2047)) == ""
    assert verdict(text(LINE, text(1, "") * 2048)) == "organization_unverified"


def test_depth_is_bounded() -> None:
    data = text(ORG, OTHER)
    for _ in range(90):
        data = text(10, data)
    assert verdict(data) == "organization_mismatch"
    for _ in range(20):
        data = text(10, data)
    assert verdict(data) == "organization_unverified"
    assert verdict(tag(UNKNOWN, GROUP) * 2000) == "organization_unverified"


# ---- Any bytes ----


def careless(descriptor: Descriptor, data: bytes) -> Iterator[str]:
    """Yield what a message names to a parser that looks at numbers only, and keeps all that it has read.

    So does protobuf.js: what a field is declared as says how it is read, whatever its wire type.
    """
    reader = Careless(data)
    yield from reader.message(descriptor, len(data))


class Careless:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def message(self, one: Descriptor, end: int) -> Iterator[str]:
        fields, marked = {field.number: field for field in one.fields}, marked_fields(one)
        while self._at < end:
            found = self._varint() & 0xFFFFFFFF
            field = fields.get(found >> 3)
            if field is None:
                self._skip(found & 7)
            elif field.message_type is not None:
                inner, stop = field.message_type, self._varint()
                entry = inner.fields_by_name.get("value") if field in marked else None
                yield from self._entry(inner, stop + self._at, entry)
            elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                value = self._bytes(self._varint())
                if field in marked:
                    yield value.decode(errors="replace")
            else:
                self._varint()

    def _entry(self, one: Descriptor, end: int, value: FieldDescriptor | None) -> Iterator[str]:
        if value is None:
            yield from self.message(one, end)
            return
        while self._at < end:
            found = self._varint()
            if found >> 3 not in (1, 2):
                self._skip(found & 7)
                continue
            read = self._bytes(self._varint())
            if found >> 3 == value.number:
                yield read.decode(errors="replace")

    def _varint(self) -> int:
        value = 0
        for place in range(10):
            byte = self._bytes(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if byte <= 0x7F:
                break
        return value

    def _bytes(self, length: int) -> bytes:
        at, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise IndexError
        return self._data[at : self._at]

    def _skip(self, kind: int) -> None:
        if kind == VARINT:
            self._varint()
        elif kind == LENGTH:
            self._bytes(self._varint())
        elif kind == GROUP:
            while (inner := self._varint() & 7) != GROUP_END:
                self._skip(inner)
        elif kind in (FIXED32, FIXED64):
            self._bytes(4 if kind == FIXED32 else 8)
        else:
            raise IndexError


# The last of them is a name and a note to a parser that takes the eight bytes of a number for a string.
_texts = st.sampled_from([b"", OWN.encode(), b"x", OTHER.encode(), b"\x04evilb\x01x"])


def _of(kind: int, number: int, value: bytes, size: int) -> bytes:
    head = varint(number << 3 | kind, size)
    if kind == LENGTH:
        return head + varint(len(value), size) + value
    if kind == GROUP:
        return head + value + tag(number, GROUP_END)
    if kind == VARINT:
        return head + varint(len(value))
    return head + value.ljust(8, b"\0")[: 4 if kind == FIXED32 else 8]


def _strings(*numbers: int) -> st.SearchStrategy[bytes]:
    return st.builds(text, st.sampled_from(numbers), _texts)


def _odd(*numbers: int) -> st.SearchStrategy[bytes]:
    kinds, sizes = st.sampled_from([VARINT, FIXED64, GROUP, FIXED32, LENGTH]), st.sampled_from([1, 2, 5, 6])
    return st.builds(_of, kinds, st.sampled_from([*numbers, UNKNOWN]), _texts, sizes)


def _of_fields(*fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(*fields), max_size=3).map(b"".join)


_lines = _of_fields(_strings(1, 2), _odd(1, 2))
_entries = _of_fields(_strings(1, 2), _odd(1, 2))
_entries_of_lines = _of_fields(_strings(1), st.builds(text, st.just(2), _lines), _odd(1, 2))
_one = (
    _strings(ORG, 2, OWNER_ORG, PERSON, 11, NOTE),
    st.builds(text, st.sampled_from([OWNER_LINE, LINE, 8]), _lines),
    st.builds(text, st.just(3), _entries),
    st.builds(text, st.just(9), _entries_of_lines),
    _odd(*range(1, 14)),
)
_messages = st.recursive(
    _of_fields(*_one), lambda inner: _of_fields(*_one, st.builds(text, st.just(10), inner)), max_leaves=3
)
_cut = st.builds(lambda data, at, more: data[: len(data) - at] + more, _messages, st.integers(0, 3), _texts)
_any = st.one_of(_messages, _cut, st.binary(max_size=40))


@pytest.mark.long
@settings(max_examples=1000)
@given(_any)
def test_what_is_let_through_names_the_own_to_every_parser(data: bytes) -> None:
    try:
        message = Order.FromString(data)
    except DecodeError:
        return
    if verdict(data):
        return
    check_message(message, CALLER)
    named = set()
    try:
        for name in careless(Order.DESCRIPTOR, data):
            named.add(name)
    except (IndexError, RecursionError):
        return
    assert named <= {"", OWN}


@given(_any)
def test_what_is_written_by_a_serializer_has_the_verdict_of_the_message(data: bytes) -> None:
    try:
        message = Order.FromString(data)
    except DecodeError:
        return
    message.DiscardUnknownFields()

    assert verdict(message.SerializeToString()) == reason_of(message)


def reason_of(message: Message) -> str:
    try:
        check_message(message, CALLER)
    except PermissionDeniedError as error:
        return error.reason
    return ""


# ---- Layouts ----


def test_numbers_may_be_packed_or_not() -> None:
    [field] = [field for field in Location.DESCRIPTOR.fields if field.name == "path"]
    layout = layouts_of([Location.DESCRIPTOR])[Location.DESCRIPTOR]

    assert is_repeated(field)
    assert verdict(text(field.number, b"\1\2\3"), layout) == ""
    assert verdict(tag(field.number, VARINT) + b"\1", layout) == ""
    assert verdict(tag(field.number, FIXED32) + bytes(4), layout) == "organization_unverified"
