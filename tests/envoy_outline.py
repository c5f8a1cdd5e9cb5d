"""What a message looks like on the wire, as a flat dictionary that can be compared.

Run by itself, it prints the outline of Envoy's own ext_authz messages as JSON;
that needs ``xds-protos``, which cannot be imported beside ours.
"""

import json
from collections.abc import Iterator
from importlib import import_module

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

ROOTS = ("CheckRequest", "CheckResponse")


def outline(file: FileDescriptor) -> dict[str, str]:
    return {path: facts for root in ROOTS for path, facts in _fields(file.message_types_by_name[root], root)}


def _fields(message: Descriptor, path: str) -> Iterator[tuple[str, str]]:
    # Through the proto: the attributes of live descriptors differ between releases of protobuf.
    proto = DescriptorProto()
    message.CopyToProto(proto)
    for field in proto.field:
        here = f"{path}.{field.name}"
        live = message.fields_by_name[field.name]
        well_known = field.type_name if field.type_name.startswith(".google.protobuf.") else ""
        yield here, _facts(field, live, well_known)
        if live.enum_type is not None:
            yield from ((f"{here}={value.number}", "") for value in live.enum_type.values)
        elif live.message_type is not None and not well_known:
            yield from _fields(live.message_type, here)


def _facts(field: FieldDescriptorProto, live: FieldDescriptor, well_known: str) -> str:
    facts = [
        FieldDescriptorProto.Label.Name(field.label),
        FieldDescriptorProto.Type.Name(field.type),
        str(field.number),
        well_known,
        f"in oneof {live.containing_oneof.name}" if live.containing_oneof else "",
        "map" if live.message_type is not None and live.message_type.GetOptions().map_entry else "",
        "deprecated" if field.options.deprecated else "",
    ]
    return " ".join(filter(None, facts))


if __name__ == "__main__":
    print(json.dumps(outline(import_module("envoy.service.auth.v3.external_auth_pb2").DESCRIPTOR)))
