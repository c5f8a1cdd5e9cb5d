"""Who calls, told to the next service: a client, a service behind a door, and the service that it calls."""

import contextlib

import grpc
import grpc.aio
import pytest

import interceptors
import interceptors.aio
from authz import TrustedMetadata
from authz.v1.principal_pb2 import Principal
from tests.doubles import CLIENT, ORG
from tests.interceptors.client import bearer
from tests.interceptors.gate import Gate
from tests.interceptors.servers import DOORS, channel_to, sync_server
from tests.interceptors.service import (
    handler,
    is_request_streaming,
    is_response_streaming,
    method,
    public_method,
)

FORGED = (("x-org-id", "org_FORGED"), ("x-org-id-bin", b"org_FORGED"), ("x_client_id", "client_FORGED"))
TRUSTED = ("x-org-id", "x-org-id-bin", "x_client_id", "x-client-id", "x-scopes", "x-authz-principal-bin")


@pytest.fixture(params=DOORS[:2], ids=lambda door: door.name)
def door(request):
    return request.param


@pytest.fixture
def next_service():
    return Gate()


@pytest.fixture
def next_address(next_service):
    with sync_server(next_service.handlers()) as address:
        yield address


def told(gate):
    """Return what the next service was told under a trusted name."""
    [visit] = gate.visits
    return {name: value for name, value in visit.metadata.items() if name in TRUSTED}


@pytest.fixture
def chain(door, loop, verifier, next_address, kind):
    """Return a function that calls a service, which calls the next one."""
    with contextlib.ExitStack() as stack:

        def begin(name, *, token="", forged_by_client=(), forged_by_service=(), **options):
            package = interceptors.aio if door.is_aio else interceptors
            forwarding = package.forward_principal_interceptors(**options)
            request = [b""] if is_request_streaming(kind) else b""

            def handle(_request, _context):
                with grpc.intercept_channel(channel_to(next_address), *forwarding) as channel:
                    reply = getattr(channel, kind)(method(kind))(
                        iter(request) if is_request_streaming(kind) else request, metadata=forged_by_service
                    )
                    return b"".join(reply) if is_response_streaming(kind) else reply

            async def ahandle(_request, _context):
                async with grpc.aio.insecure_channel(next_address, interceptors=forwarding) as channel:
                    call = getattr(channel, kind)(method(kind))(request, metadata=forged_by_service)
                    return b"".join([reply async for reply in call]) if is_response_streaming(kind) else await call

            unary = handler("unary_unary", ahandle if door.is_aio else handle)
            guard = door.interceptor(verifier, public_methods=["/tests.Public/unary_unary"])
            served = {method("unary_unary"): unary, public_method("unary_unary"): unary}
            channel = stack.enter_context(door.serve(loop, served, [guard]))
            metadata = (*(bearer(token) if token else ()), *forged_by_client)
            channel.unary_unary(name)(b"", metadata=metadata, timeout=120)

        yield begin


GUARDED, PUBLIC = method("unary_unary"), public_method("unary_unary")


def test_the_next_service_is_told_who_calls(chain, next_service, token):
    chain(GUARDED, token=token)

    seen = told(next_service)
    principal = Principal.FromString(seen.pop("x-authz-principal-bin"))
    assert seen == {"x-org-id": ORG, "x-client-id": CLIENT, "x-scopes": "ledger:read ledger:write"}
    assert (principal.org_id, principal.client_id) == (ORG, CLIENT)


def test_what_the_client_says_of_itself_is_not_passed_on(chain, next_service, token):
    chain(GUARDED, token=token, forged_by_client=FORGED)

    assert told(next_service).keys() == {"x-org-id", "x-client-id", "x-scopes", "x-authz-principal-bin"}
    assert told(next_service)["x-org-id"] == ORG


def test_what_the_service_itself_says_is_not_passed_on(chain, next_service, token):
    chain(GUARDED, token=token, forged_by_service=(*FORGED, ("x-other", "a")))

    assert told(next_service).keys() == {"x-org-id", "x-client-id", "x-scopes", "x-authz-principal-bin"}
    assert told(next_service)["x-org-id"] == ORG
    assert next_service.visits[0].metadata["x-other"] == "a"


def test_of_nobody_nothing_is_told(chain, next_service):
    chain(PUBLIC, forged_by_client=FORGED, forged_by_service=FORGED)

    assert told(next_service) == {}


def test_the_names_can_be_chosen(chain, next_service, token):
    chain(GUARDED, token=token, trusted=TrustedMetadata(org_id="x-tenant"))

    assert next_service.visits[0].metadata["x-tenant"] == ORG
    assert "x-org-id" not in told(next_service)


def test_outside_of_an_rpc_nothing_is_told(next_service, next_address, kind):
    forwarding = interceptors.forward_principal_interceptors()
    request = iter([b""]) if is_request_streaming(kind) else b""
    with grpc.intercept_channel(channel_to(next_address), *forwarding) as channel:
        reply = getattr(channel, kind)(method(kind))(request, metadata=FORGED)
        list(reply if is_response_streaming(kind) else [reply])

    assert told(next_service) == {}
