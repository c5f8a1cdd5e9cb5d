"""Messages with fields that are marked ``(authz.v1.organization)``, declared by hand: tests have no protoc."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from authz.v1 import policy_pb2

_SCALARS = {"string": FieldDescriptorProto.TYPE_STRING, "int64": FieldDescriptorProto.TYPE_INT64}


def field(name: str, number: int, kind: str = "string", *, marked: bool = False, **more: Any) -> FieldDescriptorProto:
    """Return a field of a scalar kind, or of a message type of this file such as ``.tests.Order``."""
    made = FieldDescriptorProto(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL, **more)
    if kind in _SCALARS:
        made.type = _SCALARS[kind]
    else:
        made.type, made.type_name = FieldDescriptorProto.TYPE_MESSAGE, kind
    if marked:
        made.options.Extensions[policy_pb2.organization] = True
    return made


def repeated(one: FieldDescriptorProto) -> FieldDescriptorProto:
    one.label = FieldDescriptorProto.LABEL_REPEATED
    return one


def add_map(message: DescriptorProto, name: str, number: int, kind: str = "string", *, marked: bool = False) -> None:
    entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    entry.field.extend([field("key", 1), field("value", 2, kind)])
    message.field.append(repeated(field(name, number, f".tests.{message.name}.{entry.name}", marked=marked)))


def _order() -> DescriptorProto:
    order = DescriptorProto(name="Order")
    order.oneof_decl.add(name="owner")
    order.oneof_decl.add(name="_maybe")
    order.field.extend(
        [
            field("org", 1, marked=True),
            repeated(field("orgs", 2, marked=True)),
            field("owner_org", 4, marked=True, oneof_index=0),
            field("person", 5, oneof_index=0),
            field("owner_line", 6, ".tests.Line", oneof_index=0),
            field("line", 7, ".tests.Line"),
            repeated(field("lines", 8, ".tests.Line")),
            field("parent", 10, ".tests.Order"),
            field("maybe_org", 11, marked=True, oneof_index=1, proto3_optional=True),
            field("note", 12),
            field("extra", 13, ".google.protobuf.Any"),
        ]
    )
    add_map(order, "org_by_region", 3, marked=True)
    add_map(order, "line_by_name", 9, ".tests.Line")
    return order


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="tests/marked.proto", package="tests", syntax="proto3")
    file.dependency.extend([any_pb2.DESCRIPTOR.name, policy_pb2.DESCRIPTOR.name])
    file.message_type.extend(
        [
            _order(),
            DescriptorProto(name="Line", field=[field("note", 1), field("org", 2, marked=True)]),
            # Of these two each holds the other.
            DescriptorProto(name="Ring", field=[field("link", 1, ".tests.Link")]),
            DescriptorProto(name="Link", field=[field("ring", 1, ".tests.Ring"), field("org", 2, marked=True)]),
            DescriptorProto(name="Plain", field=[field("next", 1, ".tests.Plain"), field("org", 2)]),
            DescriptorProto(name="Wide", field=[field(f"org_{n}", n, marked=True) for n in range(1, 11)]),
            DescriptorProto(name="Wrong", field=[field("org", 1, "int64", marked=True)]),
        ]
    )
    return file


def _types() -> dict[str, type[Message]]:
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(_file().SerializeToString())
    file = pool.FindFileByName("tests/marked.proto")
    return {
        name: message_factory.GetMessageClass(descriptor) for name, descriptor in file.message_types_by_name.items()
    }


TYPES = _types()


def descriptor_set(*files: FileDescriptor) -> bytes:
    """Return a descriptor set of ``files`` and all that they import, as buf writes it."""
    made, waiting = FileDescriptorSet(), list(files)
    seen: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file.name not in seen:
            seen.add(file.name)
            file.CopyToProto(made.file.add())
            waiting.extend(file.dependencies)
    return made.SerializeToString()


def service_file(
    methods: Mapping[str, Mapping[str, Any] | None],
    default: Mapping[str, Any] | None = None,
    *,
    request: str = ".tests.Plain",
) -> FileDescriptorProto:
    """Return a file with a service ``tests.Api``, whose methods have ``(authz.v1.access)`` as given, or none."""
    file = FileDescriptorProto(name="tests/api.proto", package="tests", syntax="proto3")
    file.dependency.extend([TYPES["Plain"].DESCRIPTOR.file.name, policy_pb2.DESCRIPTOR.name])
    service = file.service.add(name="Api")
    if default is not None:
        service.options.Extensions[policy_pb2.default_access].CopyFrom(policy_pb2.Access(**default))
    for name, access in methods.items():
        method = service.method.add(name=name, input_type=request, output_type=".tests.Plain")
        if access is not None:
            method.options.Extensions[policy_pb2.access].CopyFrom(policy_pb2.Access(**access))
    return file


def with_imports(file: FileDescriptorProto) -> bytes:
    """Return a descriptor set of a file of :func:`service_file`."""
    made = FileDescriptorSet.FromString(descriptor_set(TYPES["Plain"].DESCRIPTOR.file))
    # The last first: the order of a descriptor set promises nothing.
    made.file.insert(0, file)
    return made.SerializeToString()
