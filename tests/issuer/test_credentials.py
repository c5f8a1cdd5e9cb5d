"""Tokens as call credentials of gRPC, which work under channels of both colours."""

import asyncio
import logging

import grpc
import grpc.aio
import pytest

from authz import call_credentials
from authz.issuer.credentials import BearerPlugin
from authz.issuer.token_source import ClientCredentials
from tests.doubles import ISSUER, FakeTokenEndpoint, ManualClock
from tests.interceptors.gate import Gate
from tests.interceptors.servers import bound, sync_server
from tests.interceptors.service import KINDS, is_request_streaming, is_response_streaming, method
from tests.loopback import certificate

SECRET = "the-secret-of-a-client"
PATIENCE = 120.0
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def transport():
    return FakeTokenEndpoint().transport


@pytest.fixture
def source(transport):
    clock = ManualClock().clock
    return ClientCredentials(ISSUER, client_id="a", client_secret=SECRET, transport=transport, clock=clock)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def tls(tmp_path):
    """Return the credentials of a server, and those with which a channel trusts it."""
    public, _ = certificate(tmp_path)
    authority, key = public.read_bytes(), (tmp_path / "key.pem").read_bytes()
    return grpc.ssl_server_credentials([(key, authority)]), grpc.ssl_channel_credentials(authority)


def call(address, channel_credentials, kind="unary_unary", **options):
    """Make a call; return its code and its details."""
    with grpc.secure_channel(address, channel_credentials, OPTIONS) as channel:
        stub = getattr(channel, kind)(method(kind))
        request = iter([b""]) if is_request_streaming(kind) else b""
        made = (stub if is_response_streaming(kind) else stub.future)(request, timeout=PATIENCE, **options)
        for _ in made if is_response_streaming(kind) else ():
            pass
        return made.code(), made.details()


def acall(address, channel_credentials, kind="unary_unary", **options):
    """Make a call with ``grpc.aio``; return its code and its details."""

    async def scenario():
        async with grpc.aio.secure_channel(address, channel_credentials, OPTIONS) as channel:
            stub = getattr(channel, kind)(method(kind))
            made = stub(iter([b""]) if is_request_streaming(kind) else b"", timeout=PATIENCE, **options)
            if is_response_streaming(kind):
                async for _ in made:
                    pass
            return await made.code(), await made.details()

    return asyncio.run(scenario())


BOTH = pytest.mark.parametrize("call", [call, acall])


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_can_bear_tokens(source, gate, tls, call, kind):
    """I8."""
    server, channel = tls
    with sync_server(gate.handlers(), bind=bound(server)) as address:
        credentials = grpc.composite_channel_credentials(channel, call_credentials(source))
        code, _ = call(address, credentials, kind)

    assert (code, gate.tokens) == (grpc.StatusCode.OK, [["token-1"]])


@BOTH
def test_a_single_call_can_bear_a_token(source, gate, tls, call):
    server, channel = tls
    with sync_server(gate.handlers(), bind=bound(server)) as address:
        code, _ = call(address, channel, credentials=call_credentials(source))

    assert (code, gate.tokens) == (grpc.StatusCode.OK, [["token-1"]])


@BOTH
def test_a_channel_without_tls_is_refused(source, gate, transport, call):
    """I8: before a token is asked for."""
    with sync_server(gate.handlers()) as address:
        insecure = grpc.experimental.insecure_channel_credentials()
        code, _ = call(address, insecure, credentials=call_credentials(source))

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert (gate.visits, transport.fetches) == ([], 0)


@BOTH
def test_without_a_token_there_is_no_call(source, gate, transport, tls, call):
    transport.down(ZeroDivisionError(SECRET))
    server, channel = tls
    with sync_server(gate.handlers(), bind=bound(server)) as address:
        code, details = call(address, channel, credentials=call_credentials(source))

    assert (code, gate.visits) == (grpc.StatusCode.UNAVAILABLE, [])
    assert f"no token from {ISSUER}/oauth2/token: unforeseen" in details
    assert SECRET not in details


class Broken:
    """A source that fails as nobody foresaw."""

    def token_flow(self):
        raise ZeroDivisionError(SECRET)
        yield

    def invalidate(self, token):
        """Do nothing."""


def test_the_failure_of_a_source_is_not_told(gate, tls, caplog):
    caplog.set_level(logging.DEBUG)
    server, channel = tls
    with sync_server(gate.handlers(), bind=bound(server)) as address:
        code, details = call(address, channel, credentials=call_credentials(Broken()))

    assert (code, gate.visits) == (grpc.StatusCode.UNAVAILABLE, [])
    assert SECRET not in details + caplog.text
    assert [record.event for record in caplog.records if record.name == "authz"] == ["unforeseen_error"]


def test_the_plugin_blocks_no_thread(source, transport):
    transport.hang()
    given = []
    plugin = BearerPlugin(source)
    plugin(None, lambda metadata, error: given.append((metadata, error)))
    assert (given, plugin.token) == ([], None)

    transport.release()
    assert given == [((("authorization", "Bearer token-1"),), None)]
    assert plugin.token == "token-1"


def test_the_plugin_does_not_show_its_token(source):
    plugin = BearerPlugin(source)
    plugin(None, lambda _metadata, _error: None)

    assert "token-1" not in repr(plugin)
