"""Entries of Envoy's access log, as a test writes them."""

import json
from collections.abc import Iterable
from typing import Any

from authz.envoy.v3.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from tests.doubles import CLIENT, NOW, ORG

METHOD = "/tests.Guarded/Call"
ABOUT = {
    "organization": ORG,
    "client": CLIENT,
    "subject": CLIENT,
    "scopes": "ledger:read ledger:write",
    "issuer": "https://issuer.example",
    "token_id": "01JYTOKEN",
    "key_id": "ec-1",
    "policy": "ledger",
    "rule": "everyone",
}


def told(path: str = METHOD, verb: str = "POST", **about: Any) -> str:
    """Return what the script tells of a call to ``path``, with changes to what is said of the caller."""
    return f"{json.dumps({**ABOUT, **about})} {verb} {path}"


def entry(mark: dict[str, Any] | None = None, *, began: float = NOW, **about: Any) -> HTTPAccessLogEntry:
    """Return an entry about a call that Envoy has decided, with other metadata than the script's if ``mark`` is given.

    Args:
        mark: the metadata.
        began: when, in POSIX seconds.
        about: changes to what is said of the caller.

    """
    made = HTTPAccessLogEntry()
    made.common_properties.start_time.FromMicroseconds(round(began * 1e6))
    good = {"decided": True, "told": told(**about)}
    made.common_properties.metadata.filter_metadata["authz.memo"].update(good if mark is None else mark)
    return made


def message(entries: Iterable[HTTPAccessLogEntry]) -> bytes:
    """Return a message of Envoy's stream."""
    return StreamAccessLogsMessage(
        http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries)
    ).SerializeToString()
