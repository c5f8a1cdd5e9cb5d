"""Server reflection, by which ``grpcurl`` and similar tools learn how to call."""

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha.reflection import aio
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from authz.envoy.check.servicer import SERVICE
from authz.envoy.v3 import external_auth_pb2
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse


def add_reflection(server: Any) -> None:
    """Have ``server`` describe the services of the authorization server."""
    add_ServerReflectionServicer_to_server(aio.ReflectionServicer([SERVICE, health.SERVICE_NAME], pool=_pool()), server)


def _pool() -> DescriptorPool:
    # A pool of its own: a package with Envoy's protos may have registered Envoy's service in the default pool.
    pool = DescriptorPool()
    _add(pool, external_auth_pb2.DESCRIPTOR)
    _add(pool, health_pb2.DESCRIPTOR)
    package, _, name = SERVICE.rpartition(".")
    file = FileDescriptorProto(
        name="authz/envoy/v3/authorization.proto",
        package=package,
        syntax="proto3",
        dependency=[external_auth_pb2.DESCRIPTOR.name],
    )
    # The service has Envoy's name and takes our messages, which are the same on the wire.
    file.service.add(name=name).method.add(
        name="Check",
        input_type=f".{CheckRequest.DESCRIPTOR.full_name}",
        output_type=f".{CheckResponse.DESCRIPTOR.full_name}",
    )
    pool.Add(file)
    return pool


def _add(pool: DescriptorPool, file: Any) -> None:
    for dependency in file.dependencies:
        _add(pool, dependency)
    pool.AddSerializedFile(file.serialized_pb)
