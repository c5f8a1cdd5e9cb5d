"""A ledger whose ``.proto`` says which scopes its methods require, and which methods also ask the issuer.

Set AUTHZ_ISSUER and AUTHZ_AUDIENCE, and the credentials with which the issuer is asked: CLIENT_ID and CLIENT_SECRET.
``authz issuer`` prints some.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import grpc

from authz import Authorizer, Introspector, Policy, Verifier, current_principal
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors import AuthzInterceptor

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:50051")


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers with the caller's organization."""

    def PostEntry(self, request: ledger_pb2.PostEntryRequest, _context: object) -> ledger_pb2.PostEntryResponse:
        entry = ledger_pb2.Entry(org_id=current_principal().org_id, account=request.draft.account)
        return ledger_pb2.PostEntryResponse(entry=entry)


def main() -> None:
    """Serve until the process is ended."""
    credentials = {"client_id": os.environ["CLIENT_ID"], "client_secret": os.environ["CLIENT_SECRET"]}
    authorizer = Authorizer(
        Verifier(issuer=ISSUER, audience=AUDIENCE),
        policy=Policy.from_services(["authz.demo.v1.LedgerService"]),
        introspector=Introspector(ISSUER, **credentials),
    )
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[AuthzInterceptor(authorizer)])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    server.add_insecure_port(LISTEN)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
