"""A ledger on ``grpc.server`` whose decisions are figures for Prometheus, spans of OpenTelemetry and lines of a log.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS. Prometheus reads METRICS.
OpenTelemetry sends nothing unless its SDK is set up, as ``opentelemetry-instrument python observed_server.py`` does.
"""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from prometheus_client import start_http_server

from authz import (
    Authorizer,
    DecisionLog,
    LogSampling,
    OpenTelemetryMetrics,
    OpenTelemetrySpans,
    PrometheusMetrics,
    Verifier,
    current_principal,
)
from authz.demo.v1 import ledger_pb2, ledger_pb2_grpc
from interceptors import AuthzInterceptor

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
LISTEN = os.environ.get("LISTEN", "127.0.0.1:50051")
METRICS_HOST, METRICS_PORT = os.environ.get("METRICS", "127.0.0.1:9464").rsplit(":", 1)


class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    def PostEntry(self, request: ledger_pb2.PostEntryRequest, _context: object) -> ledger_pb2.PostEntryResponse:
        entry = ledger_pb2.Entry(org_id=current_principal().org_id, account=request.draft.account)
        return ledger_pb2.PostEntryResponse(entry=entry)


def main() -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("authz").addFilter(LogSampling())
    # Every refusal, and one in a hundred of the calls that were allowed.
    log = DecisionLog("all", os.environ.get("DECISIONS"), allowed_share=0.01)
    observers = [log, PrometheusMetrics(), OpenTelemetryMetrics(), OpenTelemetrySpans()]
    judge = Authorizer(Verifier(issuer=ISSUER, audience=AUDIENCE), observers=observers)
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[AuthzInterceptor(judge)])
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(Ledger(), server)
    server.add_insecure_port(LISTEN)
    start_http_server(int(METRICS_PORT), METRICS_HOST)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
