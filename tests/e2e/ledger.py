"""Calls of the demonstration's ledger, one of each RPC kind, in bytes."""

from collections.abc import Iterable
from typing import Any

import grpc

from authz.demo.v1 import ledger_pb2 as pb
from tests.interceptors.client import Outcome, call
from tests.interceptors.service import KINDS

SERVICE = "/authz.demo.v1.LedgerService"

_DRAFT = pb.EntryDraft(account="freight", amount=1250, currency="EUR", memo="pallet")
_REQUESTS: dict[str, tuple[str, Any, Any]] = {
    "unary_unary": ("PostEntry", pb.PostEntryRequest(draft=_DRAFT), pb.PostEntryResponse),
    "unary_stream": ("ListEntries", pb.ListEntriesRequest(), pb.ListEntriesResponse),
    "stream_unary": ("ImportEntries", pb.ImportEntriesRequest(draft=_DRAFT), pb.ImportEntriesResponse),
    "stream_stream": ("ReconcileEntries", pb.ReconcileEntriesRequest(line=_DRAFT), pb.ReconcileEntriesResponse),
}
assert tuple(_REQUESTS) == KINDS


def method(kind: str) -> str:
    return f"{SERVICE}/{_REQUESTS[kind][0]}"


def call_ledger(channel: grpc.Channel, kind: str, **options: Any) -> Outcome:
    """Make a call; streams carry two requests unless ``requests`` says otherwise."""
    options.setdefault("requests", [_REQUESTS[kind][1].SerializeToString()] * 2)
    return call(channel, kind, method(kind), **options)


def organizations(kind: str, messages: Iterable[bytes]) -> set[str]:
    """Return whose ledger the answers come from, as the backend saw it."""
    found: set[str] = set()
    for message in messages:
        response = _REQUESTS[kind][2].FromString(message)
        entries = response.entries if kind == "stream_unary" else [response.entry]
        found |= {entry.org_id for entry in entries}
    return found
