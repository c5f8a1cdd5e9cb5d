"""Envoy's defaults that the printed bootstrap replaces: it ends what is quiet, asks ``::1`` alone, passes trailers."""

import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx2
import pytest

from authz.call.metadata import TrustedMetadata
from tests.e2e import http1
from tests.e2e.printed import Config, Start, manager, target
from tests.interceptors.servers import channel_to, on_loopback
from tests.interceptors.wire import Wire
from tests.missing import leave_out

PATIENCE = 120.0
CALL = "/tests.Guarded/Call"
FORGED = "org_FORGED"


@pytest.fixture
def silent_upstream() -> Iterator[str]:
    """Return where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_quiet_stream_goes_on_where_a_quiet_request_is_ended(
    start: Start, streaming_upstream: str, silent_upstream: str
) -> None:
    def shorten(config: Config) -> None:
        """Let what is quiet end sooner, where the routes do not say when."""
        manager(config)["stream_idle_timeout"] = "0.2s"
        *_, over_http = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
        del over_http["route"]["idle_timeout"]

    proxy = start(shorten, upstream=streaming_upstream, http_upstream=silent_upstream)
    sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with channel_to(target(proxy)) as channel:
        answers = channel.stream_stream(CALL)(iter(sent.get, None), timeout=PATIENCE)
        sent.put(b"before")
        before = next(answers)
        # By then the stream has been quiet for as long.
        ended = http1.get(target(proxy)).status
        sent.put(b"after")
        after = next(answers)
        sent.put(None)

    assert ended == 504
    assert (before, after) == (b"before", b"after")


def test_quiet_request_over_http_is_ended_by_its_route(start: Start, upstream: str, silent_upstream: str) -> None:
    def shorten(config: Config) -> None:
        *_, over_http = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
        assert over_http["route"]["idle_timeout"] == "300s"
        over_http["route"]["idle_timeout"] = "0.2s"

    proxy = start(shorten, upstream=upstream, http_upstream=silent_upstream)

    assert http1.get(target(proxy)).status == 504


def test_envoy_itself_says_how_many_requests_it_takes(start: Start, upstream: str, tmp_path: Path) -> None:
    """The cluster of the authorization servers has the limit that is its own."""
    proxy = start(upstream=upstream, http_upstream="127.0.0.1:9")
    proxy.addresses()
    address = (tmp_path / "envoy-admin").read_text(encoding="utf-8")
    clusters = httpx2.get(f"http://{address}/clusters", trust_env=False, timeout=PATIENCE).text.splitlines()

    limits = {line for line in clusters if "::default_priority::max_" in line}
    assert {f"{name}::default_priority::max_requests::1000000" for name in ("upstream", "http_upstream")} <= limits
    assert {f"{name}::default_priority::max_connections::10000" for name in ("upstream", "http_upstream")} <= limits
    assert "authz::default_priority::max_requests::1024" in limits


def loopback(family: socket.AddressFamily) -> str:
    return {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]


FAMILIES = [pytest.param(family, id=family.name) for family in (socket.AF_INET, socket.AF_INET6)]


@pytest.fixture
def _both_families() -> None:
    try:
        socket.create_server((loopback(socket.AF_INET6), 0), family=socket.AF_INET6).close()
    except OSError:
        leave_out("both families of addresses, because there is no IPv6", "sysctl net.ipv6.conf.all.disable_ipv6=0")


@pytest.mark.usefixtures("_both_families")
@pytest.mark.parametrize("family", FAMILIES)
def test_localhost_is_reached_whichever_family_it_has_taken(start: Start, family: socket.AddressFamily) -> None:
    """Servers differ: some take both, some the first that they find."""
    with socket.create_server((loopback(family), 0), family=family) as server:
        answering = threading.Thread(target=answer_once, args=(server,))
        answering.start()
        port = server.getsockname()[1]
        proxy = start(upstream="127.0.0.1:9", http_upstream=f"localhost:{port}")
        status = http1.get(target(proxy)).status
        answering.join(PATIENCE)

    assert status == 204


def answer_once(server: socket.socket) -> None:
    server.settimeout(PATIENCE)
    client, _ = server.accept()
    with client:
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


@pytest.mark.usefixtures("_both_families")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_address_is_of_both_families(start: Start, upstream: str, family: socket.AddressFamily) -> None:
    port = target(start(upstream=upstream, listen="[::]:0")).rpartition(":")[2]

    with socket.create_connection((loopback(family), int(port)), PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404 ")


# ---- A caller that does not read ----


class Flood(grpc.GenericRpcHandler):
    """Answers a call of ``Big`` with six megabytes, and any other with a word."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.endswith("/Big"):
            return grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter([bytes(1 << 16)] * 100))
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"word")


def received(folder: Path) -> int:
    """Return how many bytes an Envoy has received from its upstream."""
    address = (folder / "envoy-admin").read_text(encoding="utf-8")
    stats = httpx2.get(
        f"http://{address}/stats?filter=upstream.upstream_cx_rx_bytes_total", trust_env=False, timeout=PATIENCE
    ).text
    return int(stats.split()[-1])


def test_caller_that_does_not_read_delays_no_other_answer(start: Start, tmp_path: Path) -> None:
    """All callers share the connection to the upstream."""
    streams = 40
    server = grpc.server(ThreadPoolExecutor(streams + 4), handlers=[Flood()])
    address = on_loopback(server)
    server.start()
    proxy = start(upstream=address)
    host, _, port = target(proxy).rpartition(":")
    closed = h2.settings.Settings(initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    with socket.create_connection((host, int(port)), PATIENCE) as client, channel_to(target(proxy)) as channel:
        connection = h2.connection.H2Connection()
        connection.local_settings = closed
        connection.initiate_connection()
        for _ in range(streams):
            stream = connection.get_next_available_stream_id()
            connection.send_headers(stream, request_headers("/tests.Guarded/Big"))
            connection.send_data(stream, bytes(5), end_stream=True)
        client.sendall(connection.data_to_send())
        # More than enough of each stream, and of a connection whose window is what edges are advised to have.
        proxy.wait_for(lambda: received(tmp_path) > 2_000_000)
        answers = [channel.unary_unary(CALL)(b"", timeout=PATIENCE) for _ in range(3)]
    server.stop(0).wait()

    assert answers == [b"word"] * 3


def request_headers(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


# ---- Trailers ----


def allow_underscores(config: Config) -> None:
    manager(config)["common_http_protocol_options"]["headers_with_underscores_action"] = "ALLOW"


def trailers_seen(server: socket.socket, seen: "queue.SimpleQueue[dict[bytes, bytes]]") -> None:
    """Serve one HTTP/2 connection, and put the trailers of its first request into ``seen``."""
    server.settimeout(PATIENCE)
    client, _ = server.accept()
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    with client:
        client.sendall(connection.data_to_send())
        while data := client.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.TrailersReceived):
                    seen.put(dict(event.headers))
                if isinstance(event, h2.events.StreamEnded):
                    answer = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")]
                    connection.send_headers(event.stream_id, answer, end_stream=True)
            client.sendall(connection.data_to_send())


NAMES = [*TrustedMetadata().forgeable, "x-envoy-auth-failure-mode-allowed"]


@pytest.mark.parametrize("beginning", ["x", "grpc-metadata-", "grpcgateway-"])
def test_trusted_names_in_trailers_reach_no_upstream(start: Start, beginning: str) -> None:
    """In several goes, for Envoy takes a hundred headers."""
    forged = [(name.encode(), FORGED.encode()) for name in NAMES if name.startswith(beginning)]
    seen: queue.SimpleQueue[dict[bytes, bytes]] = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(trailers_seen, server, seen)
        proxy = start(allow_underscores, upstream=f"127.0.0.1:{server.getsockname()[1]}")
        wire = Wire(target(proxy))
        stream = wire.send(CALL, [], body=bytes(5), trailers=[*forged, (b"x-kept", b"1")])
        answer = wire.receive(stream)
        wire.close()
        proxy.stop()
        serving.result(PATIENCE)

    assert answer[b"grpc-status"] == b"0"
    assert seen.get(timeout=PATIENCE) == {b"x-kept": b"1"}
