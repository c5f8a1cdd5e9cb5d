"""A ledger on ``grpc.aio.server``; all but one kind of stream ends with its token, and an operator can end them all.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import grpc.aio

from authz import Authorizer, Verifier, current_principal
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors.aio import AuthzInterceptor

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:50051")
SERVICE = "/authz.demo.v1.LedgerService"


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    async def PostEntry(self, request: ledger_pb2.PostEntryRequest, _context: object) -> ledger_pb2.PostEntryResponse:
        return ledger_pb2.PostEntryResponse(entry=_entry(request.draft))

    async def ReconcileEntries(
        self, lines: AsyncIterator[ledger_pb2.ReconcileEntriesRequest], _context: object
    ) -> AsyncIterator[ledger_pb2.ReconcileEntriesResponse]:
        async for request in lines:
            yield ledger_pb2.ReconcileEntriesResponse(entry=_entry(request.line))


def _entry(draft: ledger_pb2.EntryDraft) -> ledger_pb2.Entry:
    return ledger_pb2.Entry(org_id=current_principal().org_id, account=draft.account)


async def main() -> None:
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE)
    await verifier.awarm_up()
    authorizer = Authorizer(verifier)
    expiry = {"*": "token", f"{SERVICE}/ImportEntries": "never"}
    server = grpc.aio.server(interceptors=[AuthzInterceptor(authorizer, stream_expiry=expiry, grace=5)])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    server.add_insecure_port(LISTEN)
    await server.start()
    # To cut an organization off, at once: kill -USR1
    organization = os.environ.get("CUT_OFF", "org_01JYG10BEX0000000000000001")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: authorizer.revoke(org_id=organization))
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
