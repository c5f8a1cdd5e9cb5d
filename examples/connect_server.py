"""A ledger for clients of Connect, gRPC-Web and curl, on an ASGI server; its streams end with their tokens.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS. Behind a server with HTTP/2 and
trailers, such as hypercorn, the same application serves clients of gRPC.
"""

import os
from collections.abc import AsyncIterator

import uvicorn
from connectrpc.request import RequestContext

from authz import Authorizer, Verifier, current_principal
from authz.asgi import AuthzMiddleware
from authz.connect import interceptors
from authz.demo.v1 import ledger_connect, ledger_pb2

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
HOST, PORT = os.environ.get("LISTEN", "127.0.0.1:8000").rsplit(":", 1)


class Ledger(ledger_connect.LedgerService):
    async def post_entry(
        self, request: ledger_pb2.PostEntryRequest, _ctx: RequestContext
    ) -> ledger_pb2.PostEntryResponse:
        return ledger_pb2.PostEntryResponse(entry=_entry(request.draft))

    async def reconcile_entries(
        self, request: AsyncIterator[ledger_pb2.ReconcileEntriesRequest], _ctx: RequestContext
    ) -> AsyncIterator[ledger_pb2.ReconcileEntriesResponse]:
        async for line in request:
            yield ledger_pb2.ReconcileEntriesResponse(entry=_entry(line.line))


def _entry(draft: ledger_pb2.EntryDraft) -> ledger_pb2.Entry:
    return ledger_pb2.Entry(org_id=current_principal().org_id, account=draft.account)


judge = Authorizer(Verifier(issuer=ISSUER, audience=AUDIENCE))
service = ledger_connect.LedgerServiceASGIApplication(Ledger(), interceptors=interceptors(judge))
# The middleware refuses what is no method as well. Both ask one judge, so that they judge and count a call once.
app = AuthzMiddleware(service, judge)

if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=int(PORT), log_level="warning")
