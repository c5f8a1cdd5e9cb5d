"""Tests of the ledger of ``sync_server.py``: its handlers called directly, and a server with the interceptor.

Run it with ``pytest test_ledger.py``. There is no network and no other program: the issuer is in memory.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from sync_server import Ledger

from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from authz.testing import Issuer, acting_as
from interceptors import AuthzInterceptor

REQUEST = ledger_pb2.PostEntryRequest(draft=ledger_pb2.EntryDraft(account="freight"))


@pytest.fixture
def stub(authz_issuer: Issuer) -> Iterator[ledger_pb2_grpc.LedgerServiceStub]:
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[AuthzInterceptor(authz_issuer.verifier())])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ledger_pb2_grpc.LedgerServiceStub(channel)
    server.stop(None)


def test_an_organization_sees_only_its_entries() -> None:
    ledger = Ledger()
    with acting_as("org_acme"):
        ledger.PostEntry(REQUEST, None)
    with acting_as("org_globex"):
        ledger.PostEntry(REQUEST, None)
        assert [reply.entry.org_id for reply in ledger.ListEntries(None, None)] == ["org_globex"]


def test_the_server_knows_the_caller(stub: ledger_pb2_grpc.LedgerServiceStub, authz_issuer: Issuer) -> None:
    forged = ("x-org-id", "org_globex")
    reply = stub.PostEntry(REQUEST, metadata=[forged, *authz_issuer.metadata("org_acme")])
    assert reply.entry.org_id == "org_acme"


@pytest.mark.parametrize("fault", ["expired", "wrong_audience", "wrong_signature"])
def test_the_server_refuses_a_bad_token(
    stub: ledger_pb2_grpc.LedgerServiceStub, authz_issuer: Issuer, fault: str
) -> None:
    token = getattr(authz_issuer, fault)("org_acme")
    with pytest.raises(grpc.RpcError) as refused:
        stub.PostEntry(REQUEST, metadata=[("authorization", f"Bearer {token}")])
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
