"""A partner's program: gets its tokens, renews them, and calls the ledger.

It uses TLS if there is a CA file, else plaintext, which is only for a server on this machine.
"""

import os
from pathlib import Path

import grpc

from authz import ClientCredentials
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors import bearer_interceptors

TARGET = os.environ.get("TARGET", "127.0.0.1:50051")
CA_FILE = os.environ.get("CA_FILE")

source = ClientCredentials(
    os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190"),
    client_id=os.environ.get("AUTHZ_CLIENT_ID", "client_01JYACME000000000000000002"),
    client_secret=os.environ.get("AUTHZ_CLIENT_SECRET", "acme-development-secret"),
)


def connect() -> grpc.Channel:
    if CA_FILE is None:
        return grpc.intercept_channel(
            grpc.insecure_channel(TARGET), *bearer_interceptors(source, insecure_channel=True)
        )
    credentials = grpc.ssl_channel_credentials(Path(CA_FILE).read_bytes())
    return grpc.intercept_channel(grpc.secure_channel(TARGET, credentials), *bearer_interceptors(source))


def main() -> None:
    with connect() as channel:
        ledger = ledger_pb2_grpc.LedgerServiceStub(channel)
        draft = ledger_pb2.EntryDraft(account="freight", amount=1250, currency="EUR")
        reply = ledger.PostEntry(ledger_pb2.PostEntryRequest(draft=draft))
        print("posted for", reply.entry.org_id)


if __name__ == "__main__":
    main()
