"""A partner's program: posts an entry for each account that it reads, with a token that it renews."""

import os
import sys
from pathlib import Path

import grpc

from authz import ClientCredentials
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc  # replace with what the API's .proto file makes
from interceptors import bearer_interceptors

source = ClientCredentials(
    token_url=os.environ["TOKEN_URL"],
    client_id=os.environ["CLIENT_ID"],
    client_secret=os.environ["CLIENT_SECRET"],
)


def main() -> None:
    """Post until there is nothing more to read."""
    authorities = os.environ.get("CA_FILE")  # only for an API whose certificate no public authority has signed
    tls = grpc.ssl_channel_credentials(Path(authorities).read_bytes() if authorities else None)
    # They fetch tokens ahead of time, and repeat a unary call once with another token if the API refuses one.
    bearer = bearer_interceptors(source)
    with grpc.intercept_channel(grpc.secure_channel(os.environ["API"], tls), *bearer) as channel:
        ledger = ledger_pb2_grpc.LedgerServiceStub(channel)
        for line in sys.stdin:
            draft = ledger_pb2.EntryDraft(account=line.strip(), amount=1250, currency="EUR")
            try:
                reply = ledger.PostEntry(ledger_pb2.PostEntryRequest(draft=draft), timeout=20)
            except grpc.RpcError as error:
                sys.exit(f"{error.code().name}: {error.details()}")
            print("posted for", reply.entry.org_id, flush=True)


if __name__ == "__main__":
    main()
