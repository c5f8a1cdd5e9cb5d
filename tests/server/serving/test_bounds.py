"""What one client may cost: a server of its own process is flooded while others are served."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.demo.issuer.signing import SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.server.serving.server import EngineName
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.envoy.check.messages import GRPC, Denial, in_headers
from tests.programs import PATIENCE, Program
from tests.server.serving.raw_client import RawClient
from tests.server.serving.serving import CHECK, LOOPBACK

SANE = 1.6
"""How many times the memory that it begins with a flooded server may need. Without bounds it was 1.9 to 2.7."""


@pytest.fixture
def flooded(tmp_path: Path, ec_key: SigningKey, engine: EngineName) -> Iterator[Program]:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    with Program("serve", "--engine", engine, "--listen", LOOPBACK, *verifier, folder=tmp_path) as program:
        yield program


class Neighbour:
    """Another client, on a connection of its own; a context manager."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._check = self._channel.unary_unary(CHECK, CheckRequest.SerializeToString, CheckResponse.FromString)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def is_served(self) -> bool:
        status = self._health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status
        reason = Denial(self._check(in_headers(GRPC), timeout=PATIENCE)).reason
        return (status, reason) == (health_pb2.HealthCheckResponse.SERVING, "TOKEN_MISSING")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def test_ten_thousand_unfinished_calls_cost_others_nothing(flooded: Program) -> None:
    [address] = flooded.await_event("listening")["addresses"]
    flooded.await_event("health", status="SERVING")

    def flood() -> None:
        for number in range(10_000):
            client.open(2 * number + 1, CHECK)

    with Neighbour(address) as neighbour:
        served, before = [neighbour.is_served()], flooded.peak_memory
        with RawClient(address) as client:
            client.until_it_is_cut_off(flood)
            served.append(neighbour.is_served())
        served.append(neighbour.is_served())

    assert served == [True] * 3
    assert flooded.peak_memory < SANE * before


def test_a_megabyte_of_headers_costs_others_nothing(flooded: Program) -> None:
    [address] = flooded.await_event("listening")["addresses"]
    flooded.await_event("health", status="SERVING")
    with Neighbour(address) as neighbour:
        served, before = [neighbour.is_served()], flooded.peak_memory
        for _ in range(20):
            with RawClient(address) as client:
                client.until_it_is_cut_off(lambda client=client: client.open(1, CHECK, padding=1000))
                served.append(neighbour.is_served())
        served.append(neighbour.is_served())

    assert served == [True] * 22
    assert flooded.peak_memory < SANE * before


@pytest.mark.parametrize(("size", "is_taken"), [(12_000, True), (17_000, False)])
def test_metadata_of_more_than_16_kib_is_refused(flooded: Program, size: int, *, is_taken: bool) -> None:
    [address] = flooded.await_event("listening")["addresses"]
    with grpc.insecure_channel(address, options=[("grpc.max_metadata_size", 1_000_000)]) as channel:
        calling = channel.unary_unary(CHECK).future(b"", metadata=[("x-padding", "a" * size)], timeout=PATIENCE)
        code = calling.code()

    assert (code is grpc.StatusCode.OK) == is_taken
    assert is_taken or code is not grpc.StatusCode.DEADLINE_EXCEEDED
