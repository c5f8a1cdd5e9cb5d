"""The demonstration's partner: a program of another company, which calls the ledger in every way."""

import argparse
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import httpx2
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from authz.demo.v1 import ledger_pb2 as pb
from authz.demo.v1 import ledger_pb2_grpc
from authz.issuer.token_source import ClientCredentials
from authz.runtime.text.printable import printable

Metadata = tuple[tuple[str, str | bytes], ...]

_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one call.

    Args:
        kind: the RPC kind, or ``HTTP``.
        status: a gRPC status name, or an HTTP status.
        reason: a refusal's, from ``google.rpc.ErrorInfo``; empty for plain HTTP.
        org_ids: the organizations that the backend saw.

    """

    kind: str
    status: str
    reason: str = ""
    org_ids: frozenset[str] = frozenset()


def call_every_kind(channel: grpc.Channel, metadata: Metadata, org_id: str = "") -> list[Answer]:
    """Make one call of each RPC kind.

    Args:
        channel: to Envoy, or to the backend itself.
        metadata: the metadata of each call.
        org_id: the organization that the requests name, if any.

    """
    stub = ledger_pb2_grpc.LedgerServiceStub(channel)
    draft = pb.EntryDraft(account="freight", amount=12_50, currency="EUR", memo="pallet", org_id=org_id)

    def list_entries() -> list[pb.Entry]:
        request = pb.ListEntriesRequest(org_id=org_id)
        return [reply.entry for reply in stub.ListEntries(request, metadata=metadata, timeout=_SECONDS)]

    def post_entry() -> list[pb.Entry]:
        return [stub.PostEntry(pb.PostEntryRequest(draft=draft), metadata=metadata, timeout=_SECONDS).entry]

    def import_entries() -> list[pb.Entry]:
        drafts = (pb.ImportEntriesRequest(draft=draft) for _ in range(3))
        return list(stub.ImportEntries(drafts, metadata=metadata, timeout=_SECONDS).entries)

    def reconcile_entries() -> list[pb.Entry]:
        lines = (pb.ReconcileEntriesRequest(line=draft) for _ in range(3))
        return [reply.entry for reply in stub.ReconcileEntries(lines, metadata=metadata, timeout=_SECONDS)]

    # In this order, so that there is an entry to list.
    kinds: dict[str, Callable[[], list[pb.Entry]]] = {
        "unary-unary": post_entry,
        "unary-stream": list_entries,
        "stream-unary": import_entries,
        "stream-stream": reconcile_entries,
    }
    return [_answer(kind, call) for kind, call in kinds.items()]


def _answer(kind: str, call: Callable[[], list[pb.Entry]]) -> Answer:
    try:
        entries = call()
    except grpc.RpcError as error:
        return Answer(kind=kind, status=error.code().name, reason=_reason(error.trailing_metadata() or ()))
    return Answer(kind=kind, status="OK", org_ids=frozenset(entry.org_id for entry in entries))


def _reason(trailers: Iterable[Any]) -> str:
    info = ErrorInfo()
    for key, value in trailers:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                detail.Unpack(info)
    return str(info.reason)


class Stream:
    """A stream to the ledger that stays open until the ledger or the partner ends it.

    Args:
        channel: to Envoy, or to the backend itself.
        metadata: that of the call.

    """

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self._requests: queue.SimpleQueue[pb.ReconcileEntriesRequest | None] = queue.SimpleQueue()
        stub = ledger_pb2_grpc.LedgerServiceStub(channel)
        self._call = stub.ReconcileEntries(iter(self._requests.get, None), metadata=metadata, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._call.cancel()

    def post(self) -> Answer:
        """Send one line, and return the answer to it."""
        self._requests.put(pb.ReconcileEntriesRequest(line=pb.EntryDraft(account="freight", amount=1)))
        return self.wait()

    def wait(self) -> Answer:
        """Return what comes next, which may be the end."""
        return _answer("stream-stream", lambda: [next(self._call).entry])


def request_http(base_url: str, metadata: Metadata, path: str = "/whoami") -> Answer:
    """Make one plain HTTP request, with the same headers."""
    headers = [(key, value) for key, value in metadata if isinstance(value, str)]
    response = httpx2.get(f"{base_url}{path}", headers=headers, timeout=_SECONDS, trust_env=False)
    if response.status_code != httpx2.codes.OK:
        return Answer(kind="HTTP", status=str(response.status_code))
    return Answer(kind="HTTP", status="200", org_ids=frozenset([response.json()["x-org-id"]]))


def authorized(token: str) -> Metadata:
    """Return the metadata of a call that carries ``token``."""
    return (("authorization", f"Bearer {token}"),)


def _show(answers: Iterable[Answer]) -> Iterator[str]:
    for answer in answers:
        yield f"{answer.kind:14} {answer.status:16} {answer.reason or ', '.join(sorted(answer.org_ids))}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Get a token by client_credentials and call the ledger in every way."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.partner", description=__doc__)
    parser.add_argument("target", help="HOST:PORT of Envoy, or of the backend itself")
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--client-id", required=True)
    parser.add_argument("--client-secret", required=True, help="the development issuer's; never a real one")
    options = parser.parse_args(arguments)
    source = ClientCredentials(options.issuer, client_id=options.client_id, client_secret=options.client_secret)
    try:
        metadata = authorized(source.token())
    finally:
        source.close()
    with grpc.insecure_channel(options.target) as channel:
        for line in _show(call_every_kind(channel, metadata)):
            print(printable(line))


if __name__ == "__main__":
    main()
