"""CPU time of checking which organizations a request names."""

import time
from collections.abc import Callable, Collection
from functools import partial
from statistics import median
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from authz.call.principal import Principal
from authz.http.messages import MAX_BODY_BYTES
from authz.http.wire import MAX_FIELDS, layouts_of
from authz.policy.protos.isolation import MAX_LOOKS, check_message
from authz.v1 import policy_pb2

ROUNDS, CHECKS, FEW_CHECKS, FIELDS = 9, 20_000, 50, 10

_CALLER = Principal(org_id="org_01JYACME000000000000000000", client_id="client", subject="client")


def measure() -> dict[str, object]:
    """Return microseconds for a message of ten fields, by how many are marked, and the longest time in milliseconds.

    The longest time is for a message with as much to check as is allowed; one with more is refused sooner.
    """
    found: dict[str, object] = {}
    for marked in (FIELDS, 1, 0):
        request = _request(range(marked))
        found[f"us for {FIELDS} fields, {marked} marked"] = round(
            _microseconds(partial(check_message, request, _CALLER), CHECKS), 2
        )
    return found | {"ms at most in process": _longest_in_process(), "ms at most behind Envoy": _longest_behind_envoy()}


def _microseconds(work: Callable[[], object], times: int) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - began) / times * 1e6)
    return median(rounds)


def _longest_in_process() -> float:
    holder = _holder()
    # One look for the list, and for each element one, and one for its field.
    many = holder(requests=[holder.Request(org=_CALLER.org_id)] * ((MAX_LOOKS - 1) // 2))
    request = holder.FromString(many.SerializeToString())
    return round(_microseconds(partial(check_message, request, _CALLER), FEW_CHECKS) / 1e3, 2)


def _longest_behind_envoy() -> float:
    holder = _holder()
    many = holder(requests=[holder.Request(org=_CALLER.org_id)] * ((MAX_FIELDS - 1) // 2))
    many.note = "n" * (MAX_BODY_BYTES - many.ByteSize() - 9)
    data, layout = many.SerializeToString(), layouts_of([holder.DESCRIPTOR])[holder.DESCRIPTOR]
    ids = {_CALLER.org_id.encode()}

    def read() -> None:
        layout.check_serialized(data, ids)
        holder.FromString(data)

    return round(_microseconds(read, FEW_CHECKS) / 1e3, 2)


def _holder() -> Any:
    """Return the class of a message with a note and many messages, each of which names an organization."""
    file = FileDescriptorProto(name="bench_many.proto", package="bench_many", syntax="proto3")
    file.dependency.append(policy_pb2.DESCRIPTOR.name)
    holder = file.message_type.add(name="Holder")
    marked = holder.nested_type.add(name="Request").field.add(name="org", number=1)
    marked.type, marked.label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
    marked.options.Extensions[policy_pb2.organization] = True
    requests = holder.field.add(name="requests", number=1, type_name=".bench_many.Holder.Request")
    requests.type, requests.label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_REPEATED
    note = holder.field.add(name="note", number=2)
    note.type, note.label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench_many.Holder"))


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
