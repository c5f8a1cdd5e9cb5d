"""A request that names another organization does not get through a real Envoy that shows it."""

import time

import grpc
import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.demo.v1 import ledger_pb2 as pb
from tests.doubles import ORG, PATIENCE, m2m_claims
from tests.e2e import http1
from tests.e2e.mesh import SHOWN, Mesh, Seen
from tests.e2e.variants import PARTIAL_BYTES
from tests.interceptors.client import Metadata, Outcome, bearer, call
from tests.interceptors.servers import channel_to

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
            request, metadata=tuple(metadata), timeout=120, compression=grpc.Compression.Gzip
        )

    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_request_that_is_not_shown_is_left_to_the_upstream(mesh_channel: grpc.Channel, metadata: Metadata) -> None:
    requests = [pb.ListEntriesRequest(org_id=OTHER).SerializeToString()]

    outcome = call(mesh_channel, "unary_unary", NOT_SHOWN, metadata=metadata, requests=requests)

    assert outcome.code is grpc.StatusCode.OK


IMPORT = "/authz.demo.v1.LedgerService/ImportEntries"


def test_beginning_of_a_stream_that_looks_whole_is_not_let_through(mesh: Mesh, metadata: Metadata) -> None:
    """Envoy does not say that there is more if the first message fills what it shows."""
    first = pb.ImportEntriesRequest(draft=pb.EntryDraft(org_id=ORG))
    first.draft.memo = "m" * (PARTIAL_BYTES - 5 - first.ByteSize() - 4)
    second = pb.ImportEntriesRequest(draft=pb.EntryDraft(org_id=OTHER))
    requests = [one.SerializeToString() for one in (first, second)]
    assert 5 + len(requests[0]) == PARTIAL_BYTES

    with channel_to(mesh.variants["partial"]) as channel:
        outcome = call(channel, "stream_unary", IMPORT, metadata=metadata, requests=requests)

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ORGANIZATION_UNVERIFIED")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (f"{NOT_SHOWN}?connect=v1&encoding=json&message=%7B%22orgId%22%3A%22x%22%7D", None),
        (NOT_SHOWN, "application/grpc"),
        (f"/api{NOT_SHOWN}", "application/json"),
        (NOT_SHOWN.lower(), "application/json"),
        (f"{NOT_SHOWN}/", None),
    ],
)
def test_method_is_asked_for_by_post_and_by_its_own_path_only(
    mesh: Mesh, metadata: Metadata, path: str, kind: str | None
) -> None:
    more = [] if kind is None else [("content-type", kind)]

    answer = http1.get(mesh.target, path, [*metadata, *more])

    assert answer.status == 403 or answer.headers["grpc-status"] == "7"


@pytest.mark.parametrize("path", [SHOWN, NOT_SHOWN])
@pytest.mark.parametrize("kind", ["application/grpc+json", "application/grpc;x=y", "application/json", "text/plain"])
def test_other_kinds_of_body_are_stopped(mesh: Mesh, metadata: Metadata, path: str, kind: str) -> None:
    message = pb.PostEntryRequest().SerializeToString()
    body = b"\0" + len(message).to_bytes(4) + message
    headers = {**dict(metadata), "content-type": kind, "te": "trailers"}

    with httpx2.Client(trust_env=False, timeout=PATIENCE) as client:
        response = client.post(f"http://{mesh.target}{path}", content=body, headers=headers)

    assert response.status_code == 403 or response.headers["grpc-status"] == "7"


def test_who_lacks_a_scope_that_the_proto_asks_for_is_told_which(
    mesh_channel: grpc.Channel, ec_key: SigningKey
) -> None:
    token = ec_key.sign(m2m_claims(time.time(), scope="ledger:read"))

    outcome = post(mesh_channel, bearer(token), pb.EntryDraft(org_id=ORG))

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_SCOPE")
    assert (
        outcome.trailers["www-authenticate"] == 'Bearer realm="api", error="insufficient_scope", scope="ledger:write"'
    )
