"""The demonstration's backend: a ledger over gRPC behind our interceptor, and plain HTTP with and without a door.

Each organization has a ledger of its own. No request needs to name the organization:
the backend takes it from the trusted metadata, and shows it in its answers.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
import uvicorn
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from authz import Authorizer, Policy, PolicyReloader, SharedState, Verifier, current_principal
from authz.asgi import AuthzMiddleware
from authz.demo.v1 import ledger_pb2 as pb
from authz.demo.v1 import ledger_pb2_grpc
from interceptors.aio import AuthzInterceptor

Context = grpc.aio.ServicerContext[Any, Any]


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    """Entries by organization, in memory."""

    def __init__(self) -> None:
        self._entries: defaultdict[str, list[pb.Entry]] = defaultdict(list)

    async def PostEntry(self, request: pb.PostEntryRequest, context: Context) -> pb.PostEntryResponse:  # noqa: N802
        """Post one entry."""
        return pb.PostEntryResponse(entry=self._post(request.draft, _caller(context)))

    async def ListEntries(  # noqa: N802
        self, request: pb.ListEntriesRequest, context: Context
    ) -> AsyncIterator[pb.ListEntriesResponse]:
        """Send the caller's entries."""
        for entry in list(self._entries[_caller(context)]):
            if request.account in ("", entry.account):
                yield pb.ListEntriesResponse(entry=entry)

    async def ImportEntries(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ImportEntriesRequest], context: Context
    ) -> pb.ImportEntriesResponse:
        """Post what arrives, and answer at the end."""
        org_id = _caller(context)
        return pb.ImportEntriesResponse(
            entries=[self._post(request.draft, org_id) async for request in request_iterator]
        )

    async def ReconcileEntries(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ReconcileEntriesRequest], context: Context
    ) -> AsyncIterator[pb.ReconcileEntriesResponse]:
        """Match each line with an entry, or post it."""
        org_id = _caller(context)
        async for request in request_iterator:
            line = request.line
            entry = next(
                (e for e in self._entries[org_id] if (e.account, e.amount) == (line.account, line.amount)), None
            )
            outcome = pb.ReconcileEntriesResponse.OUTCOME_MATCHED
            if entry is None:
                entry, outcome = self._post(line, org_id), pb.ReconcileEntriesResponse.OUTCOME_POSTED
            yield pb.ReconcileEntriesResponse(outcome=outcome, entry=entry)

    def _post(self, draft: pb.EntryDraft, org_id: str) -> pb.Entry:
        entry = pb.Entry(
            id=uuid.uuid4().hex,
            org_id=org_id,
            account=draft.account,
            amount=draft.amount,
            currency=draft.currency,
            memo=draft.memo,
            posted_at=Timestamp(seconds=int(time.time())),
        )
        self._entries[org_id].append(entry)
        return entry


def _caller(context: Context) -> str:
    # Both ways give the same organization; a handler needs only one of them.
    metadata = {entry.key: entry.value for entry in context.invocation_metadata()}  # type: ignore[union-attr]
    org_id = metadata["x-org-id"]
    if org_id != current_principal().org_id:
        raise AssertionError("the trusted metadata and the current principal differ")
    return str(org_id)


async def whoami(request: Request) -> JSONResponse:
    """Return the ``x-`` headers that arrived: what is said about the caller, and nothing that the caller forged."""
    names = sorted({name for name in request.headers if name.startswith(("x-", "x_"))})
    return JSONResponse({name: ", ".join(request.headers.getlist(name)) for name in names})


async def serve(authorizer: Authorizer, grpc_address: str, http_address: str) -> None:
    """Print one line of JSON with the addresses on standard output, and serve until SIGTERM."""
    server = grpc.aio.server(interceptors=[AuthzInterceptor(authorizer)], options=[("grpc.so_reuseport", 0)])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    grpc_port = server.add_insecure_port(grpc_address)
    routes = [Route("/{path:path}", whoami)]
    guarded = AuthzMiddleware(Starlette(routes=routes), authorizer)
    web = Starlette(routes=[Mount("/guarded", guarded), *routes])
    host, _, port = http_address.rpartition(":")
    # uvicorn stops on these signals, and then raises them again for the handlers before its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    await server.start()
    # With the protocol named: asyncio sets TCP_NODELAY only on such sockets.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind((host, int(port)))
        listener.listen()
        addresses = {"grpc": f"127.0.0.1:{grpc_port}", "http": f"{host}:{listener.getsockname()[1]}"}
        print(json.dumps(addresses), flush=True)
        await uvicorn.Server(uvicorn.Config(web, log_level="warning", lifespan="off")).serve([listener])
    await server.stop(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the backend as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.backend", description=__doc__)
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--audience", required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--descriptors", required=True)
    parser.add_argument("--store", help="where replicas share the operator's orders")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--http-listen", default="127.0.0.1:0")
    options = parser.parse_args(arguments)
    verifier = Verifier(issuer=options.issuer, audience=options.audience)
    load = partial(Policy.from_descriptors, options.descriptors, options.policy)
    authorizer = Authorizer(verifier, policy=load())
    sharing = SharedState(options.store, authorizer) if options.store else contextlib.nullcontext()
    with sharing, PolicyReloader(authorizer, options.descriptors, options.policy, load=load):
        asyncio.run(serve(authorizer, options.listen, options.http_listen))
    verifier.close()


if __name__ == "__main__":
    main()
