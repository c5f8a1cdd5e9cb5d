"""CPU time of checking which organizations a request names."""

import time
from collections.abc import Collection
from statistics import median

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from authz.call import Principal
from authz.isolation import check
from authz.v1 import policy_pb2

ROUNDS, CHECKS, FIELDS = 15, 20_000, 10

_CALLER = Principal(org_id="org_01JYACME000000000000000000", client_id="client", subject="client")


def measure() -> dict[str, object]:
    """Return microseconds for a message of ten fields, by how many of them are marked."""
    return {f"us for {FIELDS} fields, {marked} marked": _microseconds(marked) for marked in (FIELDS, 1, 0)}


def _microseconds(marked: int) -> float:
    request = _request(range(marked))
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CHECKS):
            check(request, _CALLER)
        rounds.append((time.process_time() - began) / CHECKS * 1e6)
    return round(median(rounds), 2)


def _request(marked: Collection[int]) -> Message:
    name = f"bench{len(marked)}"
    file = FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.dependency.append(policy_pb2.DESCRIPTOR.name)
    declared = file.message_type.add(name="Request")
    for number in range(FIELDS):
        field = declared.field.add(name=f"field_{number}", number=number + 1, label=FieldDescriptorProto.LABEL_OPTIONAL)
        field.type = FieldDescriptorProto.TYPE_STRING
        if number in marked:
            field.options.Extensions[policy_pb2.organization] = True
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    request = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{name}.Request"))
    sent = request(**{f"field_{number}": _CALLER.org_id for number in range(FIELDS)})
    return request.FromString(sent.SerializeToString())
