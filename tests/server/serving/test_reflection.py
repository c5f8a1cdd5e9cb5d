"""Reflection as a client uses it: everything that it needs for a call it learns from the server."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import SERVICE
from authz.errors import ConfigError
from authz.judge.authorizer import Authorizer
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.programs import PATIENCE, Program
from tests.server.serving.serving import LOOPBACK, serving

HEALTH = "grpc.health.v1.Health"


@pytest.fixture
def channel(tmp_path: Path, ec_key: SigningKey) -> Iterator[grpc.Channel]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    with Program("serve", "--reflection", "--listen", LOOPBACK, *verifier, folder=tmp_path) as program:
        [address] = program.await_event("listening")["addresses"]
        with grpc.insecure_channel(address) as channel:
            yield channel


def test_client_that_knows_nothing_can_call(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    method = pool.FindServiceByName(SERVICE).methods_by_name["Check"]
    request = json_format.ParseDict(
        {"attributes": {"request": {"http": {"path": "/whoami"}}}}, GetMessageClass(method.input_type)()
    )
    check = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        type(request).SerializeToString,
        GetMessageClass(method.output_type).FromString,
    )
    response = check(request, timeout=PATIENCE)

    assert sorted(database.get_services()) == [SERVICE, HEALTH]
    assert (response.status.message, response.denied_response.status.code) == ("No token provided", 401)
    assert {"Check", "Watch"} <= set(pool.FindServiceByName(HEALTH).methods_by_name)


def test_nobody_is_told_unless_it_is_asked_for(authorizer: Authorizer) -> None:
    with serving(authorizer, LOOPBACK) as server:

        def ask() -> list[str]:
            with grpc.insecure_channel(server.addresses[0]) as channel:
                return list(ProtoReflectionDescriptorDatabase(channel).get_services())

        with pytest.raises(grpc.RpcError) as caught:
            server.run(asyncio.to_thread(ask))

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_native_engine_has_none(authorizer: Authorizer) -> None:
    with (
        pytest.raises(ConfigError, match=r"^reflection: the native engine has none; use --engine grpcio$"),
        serving(authorizer, LOOPBACK, engine="native", reflection=True),
    ):
        pass
