"""The messages of the tests, as both libraries have them that connectrpc knows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_codecs, google_protobuf_json_codec
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from protobuf import DescFile, Registry
from protobuf._codegen import file_desc

from tests.marked import TYPES


@dataclass(frozen=True)
class Library:
    """One library for messages.

    Attributes:
        codecs: those of servers.
        by_name: those of clients.
        types: the messages of :mod:`tests.marked`.

    """

    name: str
    codecs: Sequence[Codec] | None
    by_name: dict[str, Codec]
    types: dict[str, Any]

    def order(self, **fields: Any) -> Any:
        """Return an order; its field ``org`` is marked, ``note`` is not."""
        return self.types["Order"](**fields)


def _fields(messages: Iterable[DescriptorProto]) -> Iterator[FieldDescriptorProto]:
    for message in messages:
        yield from message.field
        yield from _fields(message.nested_type)


def _json_name(name: str) -> str:
    """Return what protoc writes for it."""
    first, *more = name.split("_")
    return first + "".join(map(str.capitalize, more))


def _described(file: FileDescriptor, known: dict[str, DescFile]) -> DescFile:
    """Return a file as the code describes it that protoc-gen-py generates."""
    if file.name not in known:
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        for one in _fields(proto.message_type):
            one.json_name = _json_name(one.name)
        dependencies = [_described(each, known) for each in file.dependencies]
        known[file.name] = file_desc(proto.SerializeToString(), dependencies, {})
    return known[file.name]


def _described_types() -> dict[str, Any]:
    registry = Registry(_described(TYPES["Order"].DESCRIPTOR.file, {}))
    found = {name: registry.message(f"tests.{name}") for name in TYPES}
    return {name: one.type for name, one in found.items() if one is not None}


GOOGLE = Library(
    "google",
    google_protobuf_codecs(),
    {"proto": google_protobuf_binary_codec(), "json": google_protobuf_json_codec()},
    dict(TYPES),
)
PROTOBUF_PY = Library(
    "protobuf-py", None, {"proto": proto_binary_codec(), "json": proto_json_codec()}, _described_types()
)
LIBRARIES = (GOOGLE, PROTOBUF_PY)
