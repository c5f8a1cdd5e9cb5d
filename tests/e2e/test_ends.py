"""Streams through a real Envoy end with their token, whatever the upstream does, and whatever their caller sends."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from authz.call.metadata import TrustedMetadata
from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config.formats import Ingress, bootstrap
from authz.envoy.config.memo import LUA
from authz.envoy.config.parts import TYPE, cluster, ext_authz, grpc_route
from authz.envoy.memo.mark import Memo
from authz.envoy.memo.script import NAME, script
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from tests.doubles import AUDIENCE, ISSUER, PATIENCE, jwks, m2m_claims
from tests.e2e.endless import (
    BOTH,
    DOWN,
    EVENTS,
    QUIET,
    SLOW,
    SOCKET,
    UNARY,
    Endless,
    endless_grpc,
    endless_web,
)
from tests.e2e.mesh import serve_here
from tests.e2e.printed import Config, manager
from tests.interceptors.servers import channel_to

LEEWAY = 1.0
STREAMS = 100
LATE = 1.0
"""How many seconds after the leeway a stream may end."""
# What a busy machine may take on top.
_DELAY = 5.0
DEAF = ("x-upstream", "deaf")
"""Of calls for an upstream that never learns of a deadline."""


class Site(NamedTuple):
    """Envoy in front of what never ends by itself.

    Attributes:
        target: ``HOST:PORT`` of Envoy.
        endless: the upstream for gRPC.
        sign: signs a token that expires after some seconds.
        decisions: what the server has decided.

    """

    target: str
    endless: Endless
    sign: Callable[[float], str]
    decisions: list[Decision]

    def bearer(self, seconds: float) -> tuple[str, str]:
        return ("authorization", f"Bearer {self.sign(seconds)}")


class End(NamedTuple):
    """How a call ended, and after how many seconds, without and with the time that it took to begin."""

    status: str
    least: float
    most: float

    def check(self, left: float) -> None:
        """Check that a call whose token was good for ``left`` seconds has ended neither early nor late."""
        # A token's times are compared with a clock that does not stand still while it is signed and sent.
        assert self.most >= left - 0.1
        assert self.least <= left + LATE + _DELAY


@pytest.fixture(scope="module")
def site(ec_key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("ends")
    keys = jwks(ec_key)
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=keys, algorithms=["ES256"], leeway=LEEWAY)
    with contextlib.ExitStack() as running:
        sock = f"unix:{folder}/authz.sock"
        decisions: list[Decision] = []
        authorizer = Authorizer(verifier, observers=[decisions.append])
        memo = Memo(authorizer, 60.0)
        memo.begin("one")
        running.enter_context(serve_here(authorizer, sock, end_streams=True, memo=memo))
        endless, web = Endless(), running.enter_context(endless_web())
        upstream = running.enter_context(endless_grpc(endless))
        config = bootstrap(
            Ingress(authz=[sock], listen="127.0.0.1:0", admin="127.0.0.1:0", upstream=upstream, http_upstream=web)
        ).data
        _add_deaf(config, upstream)
        _repeat_answers(config)
        envoy = Envoy(config, folder)
        running.callback(envoy.stop)

        def sign(seconds: float) -> str:
            return ec_key.sign(m2m_claims(time.time(), exp=time.time() + seconds))

        yield Site(envoy.addresses()["ingress"], endless, sign, decisions)


@pytest.fixture(scope="module")
def channel(site: Site) -> Iterator[grpc.Channel]:
    with channel_to(site.target) as channel:
        yield channel


def _add_deaf(config: Config, upstream: str) -> None:
    """Add a way to the same upstream on which it is told no deadline, and let callers open WebSockets."""
    deaf = cluster("deaf", [upstream], http2=True)
    [options] = deaf["typed_extension_protocol_options"].values()
    removal = {"mutations": {"request_mutations": [{"remove": "grpc-timeout"}]}}
    options["http_filters"] = [
        {
            "name": "deaf",
            "typed_config": {"@type": TYPE + "extensions.filters.http.header_mutation.v3.HeaderMutation", **removal},
        },
        {
            "name": "codec",
            "typed_config": {"@type": TYPE + "extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
        },
    ]
    config["static_resources"]["clusters"].append(deaf)
    route = grpc_route("deaf")
    route["match"]["headers"] = [{"name": DEAF[0], "string_match": {"exact": DEAF[1]}}]
    manager(config)["route_config"]["virtual_hosts"][0]["routes"].insert(0, route)
    manager(config)["upgrade_configs"] = [{"upgrade_type": "websocket"}]


def _repeat_answers(config: Config) -> None:
    """Have Envoy repeat the answers of one generation."""
    filters = manager(config)["http_filters"]
    filters[0] = ext_authz("authz", undecided_by=NAME)
    source = {"inline_string": script("one", TrustedMetadata(), remove_authorization=False)}
    filters.insert(0, {"name": NAME, "typed_config": {"@type": LUA, "default_source_code": source}})


def stream(
    channel: grpc.Channel,
    site: Site,
    method: str,
    expires: float | tuple[str, str],
    *more: tuple[str, str],
    timeout: float = PATIENCE,
) -> End:
    """Call a method with a token, or with a new one that expires after some seconds, and read until that ends."""
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b""
        # A caller that never ends its half of the stream.
        over.wait(PATIENCE)

    began = time.monotonic()
    metadata = [expires if isinstance(expires, tuple) else site.bearer(expires), *more]
    if method == BOTH:
        call: Any = channel.stream_stream(method)(requests(), metadata=metadata, timeout=timeout)
    else:
        call = channel.unary_stream(method)(b"", metadata=metadata, timeout=timeout)
    signed = time.monotonic()
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass
    ended = time.monotonic()
    over.set()
    return End(call.code().name, ended - signed, ended - began)


# ---- gRPC ----


def test_a_hundred_streams_end_with_their_tokens(site: Site, channel: grpc.Channel) -> None:
    ways = [(method, deaf) for method in (DOWN, BOTH) for deaf in ((), (DEAF,))]

    with ThreadPoolExecutor(STREAMS) as callers:
        # Spread over half a second, as real ones would be.
        waiting = [
            callers.submit(stream, channel, site, method, 1.0 + number / (2 * STREAMS), *deaf)
            for number in range(STREAMS)
            for method, deaf in [ways[number % len(ways)]]
        ]
        ends = [one.result() for one in waiting]

    assert {end.status for end in ends} <= {"DEADLINE_EXCEEDED", "INTERNAL"}
    left = [1.0 + number / (2 * STREAMS) + LEEWAY for number in range(STREAMS)]
    for end, seconds in zip(ends, left, strict=True):
        end.check(seconds)
    late = sorted(end.least - seconds for end, seconds in zip(ends, left, strict=True))
    assert late[STREAMS // 2] <= LATE


@pytest.mark.parametrize("method", [DOWN, BOTH, QUIET])
def test_upstream_that_keeps_deadlines_ends_the_stream_with_a_status(
    site: Site, channel: grpc.Channel, method: str
) -> None:
    end = stream(channel, site, method, 0.5)

    assert end.status == "DEADLINE_EXCEEDED"
    end.check(0.5 + LEEWAY)


@pytest.mark.parametrize(
    ("method", "status"),
    [(DOWN, "INTERNAL"), (BOTH, "INTERNAL"), (QUIET, "UNAVAILABLE")],
    ids=["down", "both", "quiet"],
)
def test_envoy_ends_the_stream_of_an_upstream_that_keeps_none(
    site: Site, channel: grpc.Channel, method: str, status: str
) -> None:
    end = stream(channel, site, method, 0.5, DEAF)

    assert end.status == status
    end.check(0.5 + LEEWAY)


@pytest.mark.parametrize("way", [(), (DEAF,)], ids=["upstream", "envoy"])
def test_caller_cannot_lengthen_its_stream(site: Site, channel: grpc.Channel, way: tuple[tuple[str, str], ...]) -> None:
    forged = [
        ("x-envoy-upstream-stream-duration-ms", "60000"),
        ("x-envoy-upstream-rq-timeout-ms", "60000"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "60000"),
        ("x-envoy-retry-on", "reset,5xx"),
        ("x-envoy-retry-grpc-on", "internal,unavailable"),
        ("x-envoy-max-retries", "9"),
    ]

    stream(channel, site, QUIET, 0.5, *way, *forged, timeout=60.0).check(0.5 + LEEWAY)


def test_shorter_deadline_of_the_caller_is_what_the_upstream_is_told(site: Site, channel: grpc.Channel) -> None:
    site.endless.remaining.clear()
    end = stream(channel, site, DOWN, 60.0, timeout=0.5)

    assert end.status == "DEADLINE_EXCEEDED"
    # Not the seconds of the token; a server adds what its own clock needs.
    assert 0 < site.endless.remaining[0] <= 1.0


def test_token_that_is_good_for_centuries_ends_nothing(site: Site, channel: grpc.Channel) -> None:
    end = stream(channel, site, BOTH, 2e11, DEAF, timeout=0.5)

    assert end.status == "DEADLINE_EXCEEDED"
    assert end.most >= 0.4


def test_unary_call_is_not_harmed(site: Site, channel: grpc.Channel) -> None:
    # One second is left: the token has expired, and the leeway has just begun.
    metadata = [site.bearer(0.0)]

    assert channel.unary_unary(UNARY)(b"", metadata=metadata, timeout=PATIENCE) == b""


@pytest.mark.parametrize("way", [(), (DEAF,)], ids=["upstream", "envoy"])
def test_answer_that_envoy_repeats_ends_the_stream_as_well(
    site: Site, channel: grpc.Channel, way: tuple[tuple[str, str], ...]
) -> None:
    began = time.monotonic()
    token = site.bearer(2.0)
    # What a token that was never seen before may do is not remembered.
    for _ in range(2):
        stream(channel, site, DOWN, token, *way, timeout=0.2)
    asked = len(site.decisions)
    stream(channel, site, DOWN, token, *way)
    ended = time.monotonic()

    assert len(site.decisions) == asked
    End("", ended - began, ended - began).check(2.0 + LEEWAY)


# ---- HTTP ----


def read(site: Site, path: str, expires: float, *more: str) -> tuple[bytes, float, float]:
    """Send a request, and return all that comes until the connection ends, and how long that took."""
    began = time.monotonic()
    host, _, port = site.target.rpartition(":")
    token = ": ".join(site.bearer(expires))
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        lines = [f"GET {path} HTTP/1.1", f"host: {site.target}", token, *more]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        sent = time.monotonic()
        received = b""
        while piece := connection.recv(4096):
            received += piece
        ended = time.monotonic()
    return received, ended - sent, ended - began


@pytest.mark.parametrize(
    ("path", "first", "more"),
    [
        (EVENTS, b"HTTP/1.1 200", ()),
        (SOCKET, b"HTTP/1.1 101", ("connection: upgrade", "upgrade: websocket")),
        (SLOW, b"HTTP/1.1 504", ("connection: close",)),
    ],
    ids=["events", "websocket", "slow"],
)
def test_http_ends_with_its_token(site: Site, path: str, first: bytes, more: tuple[str, ...]) -> None:
    received, least, most = read(site, path, 0.5, *more)

    assert received.startswith(first)
    End("", least, most).check(0.5 + LEEWAY)
