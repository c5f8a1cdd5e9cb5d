"""A request that names another organization does not get through a real Envoy that shows it."""

import time

import grpc
import pytest

from authz.demo.signing import SigningKey
from authz.demo.v1 import ledger_pb2 as pb
from tests.doubles import ORG, m2m_claims
from tests.e2e.mesh import SHOWN, Seen
from tests.interceptors.client import Metadata, Outcome, bearer, call

OTHER = "org_01JYGLOBEX0000000000000000"
NOT_SHOWN = "/authz.demo.v1.LedgerService/ListEntries"


@pytest.fixture(scope="module")
def metadata(ec_key: SigningKey) -> Metadata:
    return bearer(ec_key.sign(m2m_claims(time.time())))


def post(channel: grpc.Channel, metadata: Metadata, draft: pb.EntryDraft) -> Outcome:
    requests = [pb.PostEntryRequest(draft=draft).SerializeToString()]
    return call(channel, "unary_unary", SHOWN, metadata=metadata, requests=requests)


@pytest.mark.parametrize("org_id", [ORG, ""], ids=["own", "none"])
def test_request_of_the_own_organization_gets_through(
    mesh_channel: grpc.Channel, metadata: Metadata, org_id: str
) -> None:
    # Bytes that are no UTF-8, and most of what Envoy may show.
    draft = pb.EntryDraft(amount=-1, memo="é" * 30_000, org_id=org_id)

    [message] = post(mesh_channel, metadata, draft).messages

    assert Seen.of(message).values("x-org-id") == [ORG]


def test_request_of_another_organization_is_stopped(mesh_channel: grpc.Channel, metadata: Metadata) -> None:
    outcome = post(mesh_channel, metadata, pb.EntryDraft(memo="mine", org_id=OTHER))

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ORGANIZATION_MISMATCH")
    assert not outcome.leaks(OTHER)


def test_request_that_is_too_large_to_be_shown_is_stopped(mesh_channel: grpc.Channel, metadata: Metadata) -> None:
    outcome = post(mesh_channel, metadata, pb.EntryDraft(memo="x" * 70_000, org_id=ORG))

    assert outcome.code is not grpc.StatusCode.OK
    assert not outcome.messages


def test_compressed_request_is_stopped(mesh_channel: grpc.Channel, metadata: Metadata) -> None:
    request = pb.PostEntryRequest(draft=pb.EntryDraft(memo="x" * 1000, org_id=ORG)).SerializeToString()

    with pytest.raises(grpc.RpcError) as raised:
        mesh_channel.unary_unary(SHOWN)(
            request, metadata=tuple(metadata), timeout=20, compression=grpc.Compression.Gzip
        )

    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_request_that_is_not_shown_is_left_to_the_upstream(mesh_channel: grpc.Channel, metadata: Metadata) -> None:
    requests = [pb.ListEntriesRequest(org_id=OTHER).SerializeToString()]

    outcome = call(mesh_channel, "unary_unary", NOT_SHOWN, metadata=metadata, requests=requests)

    assert outcome.code is grpc.StatusCode.OK


def test_who_lacks_a_scope_that_the_proto_asks_for_is_told_which(
    mesh_channel: grpc.Channel, ec_key: SigningKey
) -> None:
    token = ec_key.sign(m2m_claims(time.time(), scope="ledger:read"))

    outcome = post(mesh_channel, bearer(token), pb.EntryDraft(org_id=ORG))

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_SCOPE")
    assert (
        outcome.trailers["www-authenticate"] == 'Bearer realm="api", error="insufficient_scope", scope="ledger:write"'
    )
