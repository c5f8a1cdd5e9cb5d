"""What a message looks like on the wire, as a flat dictionary that can be compared.

Run by itself, it prints the outline of Envoy's own messages as JSON: those of ext_authz, or with an argument those of
discovery. That needs ``xds-protos``, which cannot be imported beside ours.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

ROOTS = ("CheckRequest", "CheckResponse")
DISCOVERY = {
    "DiscoveryRequest": "envoy.service.discovery.v3.discovery_pb2.DiscoveryRequest",
    "DiscoveryResponse": "envoy.service.discovery.v3.discovery_pb2.DiscoveryResponse",
    "DiscoveryResource": "envoy.service.discovery.v3.discovery_pb2.Resource",
    "TypedExtensionConfig": "envoy.config.core.v3.extension_pb2.TypedExtensionConfig",
    "Lua": "envoy.extensions.filters.http.lua.v3.lua_pb2.Lua",
    "StreamAccessLogsMessage": "envoy.service.accesslog.v3.als_pb2.StreamAccessLogsMessage",
}
"""Our messages, and which of Envoy's each is a part of."""


def outline(file: FileDescriptor) -> dict[str, str]:
    return {path: facts for root in ROOTS for path, facts in _fields(file.message_types_by_name[root], root)}


def discovery(messages: Mapping[str, Descriptor], *, parts: Collection[str] | None = None) -> dict[str, str]:
    """Return the outline of those messages; of ``parts`` only, as the originals have very many."""
    found: dict[str, str] = {}
    for name, message in messages.items():
        found |= _some(message, name, parts)
    return found


def _some(message: Descriptor, path: str, parts: Collection[str] | None) -> dict[str, str]:
    proto = DescriptorProto()
    message.CopyToProto(proto)
    found: dict[str, str] = {}
    for field in proto.field:
        here = f"{path}.{field.name}"
        if parts is not None and here not in parts:
            continue
        live = message.fields_by_name[field.name]
        # Names of messages differ, and some of ours are in no oneof of which they are the only member.
        kind = FieldDescriptorProto.Type.Name(field.type)
        found[here] = f"{FieldDescriptorProto.Label.Name(field.label)} {kind} {field.number}"
        if live.message_type is not None and not field.type_name.startswith(".google.protobuf."):
            found |= _some(live.message_type, here, parts)
    return found


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
    if sys.argv[1:]:
        originals = {}
        for ours, name in DISCOVERY.items():
            module, _, message = name.rpartition(".")
            originals[ours] = getattr(import_module(module), message).DESCRIPTOR
        print(json.dumps(discovery(originals, parts=json.loads(sys.argv[1]))))
    else:
        print(json.dumps(outline(import_module("envoy.service.auth.v3.external_auth_pb2").DESCRIPTOR)))
