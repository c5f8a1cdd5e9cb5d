"""A backend behind a proxy that has already decided, and has removed the token.

It trusts the metadata of peers that connect by its Unix socket, or that prove one of the SPIFFE IDs by
mutual TLS; other callers need a token of their own.
"""

import asyncio
import os
from pathlib import Path

import grpc.aio

from authz import MeshPeers, Verifier, current_principal
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors.aio import AuthzInterceptor

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
SOCKET = os.environ.get("SOCKET", "ledger.sock")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:50051")
# A folder with tls.crt, tls.key and ca.crt, as cert-manager and SPIRE write them.
CERTIFICATES = os.environ.get("CERTIFICATES")
PROXY = "spiffe://cluster.local/ns/edge/sa/gateway"


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    async def PostEntry(self, request: ledger_pb2.PostEntryRequest, _context: object) -> ledger_pb2.PostEntryResponse:
        entry = ledger_pb2.Entry(org_id=current_principal().org_id, account=request.draft.account)
        return ledger_pb2.PostEntryResponse(entry=entry)


def _mutual_tls(folder: Path) -> grpc.ServerCredentials:
    key, chain, authorities = ((folder / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    return grpc.ssl_server_credentials([(key, chain)], authorities, require_client_auth=True)


async def main() -> None:
    peers = MeshPeers(spiffe_ids=[PROXY], unix_socket=True)
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE)
    server = grpc.aio.server(interceptors=[AuthzInterceptor(verifier, trust=peers)])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    server.add_insecure_port(f"unix:{SOCKET}")
    if CERTIFICATES is None:
        server.add_insecure_port(LISTEN)
    else:
        server.add_secure_port(LISTEN, _mutual_tls(Path(CERTIFICATES)))
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
