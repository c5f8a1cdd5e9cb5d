"""A ledger on ``grpc.server``, with health checks that anybody may make.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS:
your AuthKit domain, and the client ID of your environment. It uses TLS if there are CERT_FILE and KEY_FILE.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz import Verifier, current_principal
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors import AuthzInterceptor

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:50051")


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    """Entries by organization, which comes from the verified caller and never from a request."""

    def __init__(self) -> None:
        self._entries: list[ledger_pb2.Entry] = []

    def PostEntry(self, request: ledger_pb2.PostEntryRequest, _context: object) -> ledger_pb2.PostEntryResponse:
        entry = ledger_pb2.Entry(org_id=current_principal().org_id, account=request.draft.account)
        self._entries.append(entry)
        return ledger_pb2.PostEntryResponse(entry=entry)

    def ListEntries(self, _request: object, _context: object) -> Iterator[ledger_pb2.ListEntriesResponse]:
        for entry in self._entries:
            if entry.org_id == current_principal().org_id:
                yield ledger_pb2.ListEntriesResponse(entry=entry)


def main() -> None:
    """Serve until the process is ended."""
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE)
    verifier.warm_up()
    interceptor = AuthzInterceptor(verifier, public_methods=["/grpc.health.v1.Health/Check"])
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[interceptor])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    tls = [Path(os.environ[name]).read_bytes() for name in ("KEY_FILE", "CERT_FILE") if name in os.environ]
    credentials = grpc.ssl_server_credentials([tuple(tls)]) if tls else grpc.insecure_server_credentials()
    server.add_secure_port(LISTEN, credentials)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
