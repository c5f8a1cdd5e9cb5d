"""The check for proxies that ask over HTTP/1.1: CPU time and latency of a check, beside those of Envoy's question."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from benchmarks import ext_authz
from benchmarks.h2load import GRPC, Outcome, framed, load
from benchmarks.material import check_request, claims, signing_key
from benchmarks.processes import Server
from benchmarks.server import CHECK

CONNECTIONS = 32
REQUESTS = 10_000


def measure() -> dict[str, object]:
    """Return the figures; the CPU time is the server process's alone."""
    token = signing_key().sign(claims())
    body = framed(check_request(token))
    headers = (
        *(f"authorization: Bearer {token}", "x-original-method: GET", "x-original-uri: /v1/ledgers/7/entries?limit=50"),
        *("accept: application/json", "x-forwarded-for: 203.0.113.7", "x-forwarded-proto: https"),
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    with ExitStack() as stack:
        port = _free_port()
        flags = ("--forward-auth", f"127.0.0.1:{port}", "--forward-auth-headers", "original")
        server = stack.enter_context(ext_authz.authz_serve("grpcio", *flags))
        over_http = replace(server, port=port)

        def grpcio(streams: int) -> Callable[[], ext_authz._Figure]:
            url = f"http://{server.address}{CHECK}"
            return _run(server, lambda: load(url, REQUESTS, streams=streams, body=body, headers=GRPC))

        def http(connections: int) -> Callable[[], ext_authz._Figure]:
            url = f"http://{over_http.address}/authz"
            return _run(server, lambda: load(url, REQUESTS, connections=connections, headers=headers, http1=True))

        figures = ext_authz._in_turn(  # noqa: SLF001 - the same measurement, of another door
            {
                f"gRPC, {CONNECTIONS} streams": grpcio(CONNECTIONS),
                f"HTTP, {CONNECTIONS} connections": http(CONNECTIONS),
                "gRPC, 1 stream": grpcio(1),
                "HTTP, 1 connection": http(1),
            },
            5,
        )
    cpu = {kind: [figure.cpu for figure in row] for kind, row in figures.items()}
    together, alone = list(cpu.values())[:2], list(cpu.values())[2:]
    return {
        **{kind: ext_authz._summary(row) for kind, row in figures.items()},  # noqa: SLF001 - as above
        "ratio of CPU, HTTP / gRPC on grpcio": ext_authz._ratio(together[1], together[0]),  # noqa: SLF001 - as above
        "ratio of CPU, one at a time": ext_authz._ratio(alone[1], alone[0]),  # noqa: SLF001 - as above
    }


def _run(server: Server, work: Callable[[], Outcome]) -> Callable[[], ext_authz._Figure]:
    return lambda: ext_authz._run([server], REQUESTS, work)  # noqa: SLF001 - as above


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
