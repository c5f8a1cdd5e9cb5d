"""What the printed bootstrap grants to callers: a real Envoy keeps to it, and streams last all the same."""

import queue
import socket
from pathlib import Path

import grpc
import httpx2
from h2.connection import H2Connection
from h2.events import RemoteSettingsChanged, WindowUpdated
from h2.settings import SettingCodes

from authz.envoy.config.edge import BUFFER_BYTES, MAX_STREAMS
from tests.e2e import http1
from tests.e2e.printed import Config, Start, manager, target
from tests.interceptors.servers import channel_to

PATIENCE = 120.0
CALL = "/tests.Guarded/Call"


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def code_of(channel: grpc.Channel, *metadata: tuple[str, str]) -> grpc.StatusCode:
    code: grpc.StatusCode = channel.unary_unary(CALL).future(b"", metadata=metadata, timeout=PATIENCE).code()
    return code


def admin(folder: Path, path: str) -> httpx2.Response:
    address = (folder / "envoy-admin").read_text(encoding="utf-8")
    return httpx2.get(f"http://{address}{path}", trust_env=False, timeout=PATIENCE)


def test_connection_gets_a_hundred_streams_and_little_to_send_ahead(start: Start, upstream: str) -> None:
    connection, told = H2Connection(), {}
    with connect(target(start(upstream=upstream))) as client:
        connection.initiate_connection()
        client.sendall(connection.data_to_send())
        window = 65_535
        while len(told) < 2 or window == 65_535:
            for event in connection.receive_data(client.recv(65_536)):
                if isinstance(event, RemoteSettingsChanged):
                    told |= {code: change.new_value for code, change in event.changed_settings.items()}
                if isinstance(event, WindowUpdated) and event.stream_id == 0:
                    window += event.delta or 0

    assert told[SettingCodes.MAX_CONCURRENT_STREAMS] == MAX_STREAMS == 100
    assert told[SettingCodes.INITIAL_WINDOW_SIZE] == 65_536
    assert window == 1_048_576


def test_calls_beyond_a_hundred_wait_and_are_made(start: Start, upstream: str) -> None:
    with channel_to(target(start(upstream=upstream))) as channel:
        calls = [channel.unary_unary(CALL).future(b"", timeout=PATIENCE) for _ in range(3 * MAX_STREAMS)]

        assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def test_headers_with_underscores_are_refused(start: Start, upstream: str) -> None:
    proxy = start(upstream=upstream)
    with channel_to(target(proxy)) as channel:
        refused, good = code_of(channel, ("x_org_id", "org_FORGED")), code_of(channel)

    assert http1.get(target(proxy), headers=[("x_org_id", "org_FORGED")]).status == 400
    assert (refused, good) == (grpc.StatusCode.INTERNAL, grpc.StatusCode.OK)


def test_a_hundred_headers_are_enough(start: Start, upstream: str) -> None:
    address = target(start(upstream=upstream))
    few, many = (http1.get(address, headers=[(f"x-{n}", "") for n in range(count)]).status for count in (50, 101))

    # There is no upstream for what is not gRPC.
    assert (few, many) == (404, 431)


def test_slow_headers_end_their_connection_and_a_stream_goes_on(start: Start, streaming_upstream: str) -> None:
    proxy = start(lambda config: manager(config).update(request_headers_timeout="0.2s"), upstream=streaming_upstream)
    sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with channel_to(target(proxy)) as channel, connect(target(proxy)) as slow:
        answers = channel.stream_stream(CALL)(iter(sent.get, None), timeout=PATIENCE)
        sent.put(b"before")
        before = next(answers)
        slow.sendall(b"GET / HTTP/1.1\r\nhost: ")
        # By then the stream is older than headers may be.
        answer = slow.recv(65_536)
        sent.put(b"after")
        after = next(answers)
        sent.put(None)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert (before, after) == (b"before", b"after")


def test_large_messages_still_pass(start: Start, streaming_upstream: str) -> None:
    large = bytes(64 * BUFFER_BYTES)
    with channel_to(target(start(upstream=streaming_upstream))) as channel:
        answers = list(channel.stream_stream(CALL)(iter([large, b"", large]), timeout=PATIENCE))

    assert answers == [large, b"", large]


def test_connections_are_bounded_and_the_administrator_gets_in(start: Start, upstream: str, tmp_path: Path) -> None:
    def limit(config: Config) -> None:
        [_, connections] = config["overload_manager"]["resource_monitors"]
        connections["typed_config"]["max_active_downstream_connections"] = 2

    address = target(start(limit, upstream=upstream))
    with connect(address) as one, connect(address) as two:
        for client in (one, two):
            client.sendall(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 404 ")
        with connect(address) as three:
            assert three.recv(1) == b""
        assert admin(tmp_path, "/ready").status_code == 200


def test_envoy_without_memory_refuses_what_is_new(start: Start, streaming_upstream: str, tmp_path: Path) -> None:
    proxy = start(upstream=streaming_upstream, max_heap_bytes=1)
    address = target(proxy)
    proxy.wait_for(lambda: "envoy.overload_actions.stop_accepting_requests.active: 1" in admin(tmp_path, "/stats").text)
    with channel_to(address) as channel:
        refused = channel.stream_stream(CALL)(iter([b""]), timeout=PATIENCE)

        assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert http1.get(address).status == 503
