"""Bytes that no gRPC client sends, over a bare HTTP/2 connection: refused, and the server goes on."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from authz import ANONYMOUS, Verifier
from tests.doubles import ORG
from tests.interceptors.client import bearer, call
from tests.interceptors.servers import DOORS, Door, Loop, channel_to
from tests.interceptors.service import (
    PUBLIC_METHODS,
    Witness,
    expected_replies,
    handlers,
    method,
    public_method,
)
from tests.interceptors.wire import Headers, Wire

UNAUTHENTICATED = b"16"
PERMISSION_DENIED = b"7"
OK = b"0"
EMPTY_MESSAGE = bytes(5)
FORGED = b"b3JnX2ZvcmdlZA"


@dataclass(frozen=True)
class Exposed:
    """A server, its address, and what its handlers have seen."""

    address: str
    witness: Witness
    credentials: Headers
    stop: Callable[[], None]
    """Stop the server, and return when no handler runs any more."""


@pytest.fixture(params=DOORS[:2], ids=lambda door: door.name)
def exposed(request: pytest.FixtureRequest, loop: Loop, verifier: Verifier, credentials: bytes) -> Iterator[Exposed]:
    door: Door = request.param
    witness = Witness()
    served = handlers(door.behaviours(witness), witness)
    interceptor = door.interceptor(verifier, public_methods=PUBLIC_METHODS)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(door.listen(loop, served, [interceptor]))
        yield Exposed(address, witness, [(b"authorization", credentials)], stack.close)


@pytest.fixture
def wire(exposed: Exposed) -> Iterator[Wire]:
    wire = Wire(exposed.address)
    yield wire
    wire.close()


@pytest.fixture
def credentials(token: str) -> bytes:
    return b"Bearer " + token.encode()


ODD = [
    pytest.param(lambda good: [good + b"\r\n"], id="CR LF after it"),
    pytest.param(lambda good: [good + b"\r\nx-org-id: org_forged"], id="a header within"),
    pytest.param(lambda good: [good + b"\n"], id="LF after it"),
    pytest.param(lambda good: [b"\n" + good], id="LF before it"),
    pytest.param(lambda good: [good + b"\x00"], id="NUL after it"),
    pytest.param(lambda good: [b"\x00" + good], id="NUL before it"),
    pytest.param(lambda good: [good.replace(b"Bearer ", b"Bearer\t")], id="tab as the blank"),
    pytest.param(lambda good: [good + b" "], id="blank after it"),
    pytest.param(lambda good: [b" " + good], id="blank before it"),
    pytest.param(lambda good: [good + b"\xff"], id="not UTF-8"),
    pytest.param(lambda good: [good + "é".encode()], id="not ASCII"),
    pytest.param(lambda good: [good.replace(b"e", "\u0435".encode(), 1)], id="a look-alike"),
    pytest.param(lambda good: [good, good], id="twice"),
    pytest.param(lambda good: [good, b""], id="an empty one too"),
    pytest.param(lambda good: [good, b"Basic eDp5"], id="another scheme too"),
    pytest.param(lambda _: [b"Bearer " + b"a" * 200_000], id="200 kB"),
    pytest.param(lambda good: [good + b"." + b"a" * 200_000], id="200 kB after it"),
    pytest.param(lambda _: [b"\xff" * 200_000], id="200 kB of no text"),
    pytest.param(lambda good: [good] * 100, id="a hundred times"),
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_authorization_is_refused(exposed: Exposed, wire: Wire, kind: str, credentials: bytes, odd: Any) -> None:
    stream = wire.send(method(kind), [(b"authorization", value) for value in odd(credentials)])

    answer = wire.receive(stream)

    assert (answer[b"grpc-status"], answer[b"grpc-message"]) == (UNAUTHENTICATED, b"Invalid token")
    assert b"www-authenticate" in answer
    assert (exposed.witness.sights, exposed.witness.parsed) == ([], [])


def test_server_goes_on_after_odd_bytes(exposed: Exposed, wire: Wire, kind: str, token: str) -> None:
    for case in ODD:
        [odd] = case.values
        wire.receive(wire.send(method(kind), [(b"authorization", value) for value in odd(b"Bearer " + token.encode())]))

    with channel_to(exposed.address) as channel:
        outcome = call(channel, kind, metadata=bearer(token))

    assert outcome.messages == expected_replies(kind, ORG.encode())


@pytest.mark.parametrize("odd", ODD)
def test_odd_authorization_does_not_matter_to_a_public_method(
    exposed: Exposed, wire: Wire, kind: str, credentials: bytes, odd: Any
) -> None:
    headers = [(b"authorization", value) for value in odd(credentials)]

    answer = wire.receive(wire.send(public_method(kind), headers, body=EMPTY_MESSAGE))

    assert answer[b"grpc-status"] == OK
    assert exposed.witness.sight.principal is ANONYMOUS


@pytest.mark.parametrize("value", [b"org_forged\r\n", b"\x00org_forged", b"org_forged\xff", b" org_forged "])
def test_odd_forgery_never_reaches_a_handler(
    exposed: Exposed, wire: Wire, kind: str, credentials: bytes, value: bytes
) -> None:
    names = [b"x-org-id", b"x_org_id", b"x-scopes", b"x-client-id"]
    headers = [(b"authorization", credentials), *((name, value) for name in names)]

    answer = wire.receive(wire.send(method(kind), headers, body=EMPTY_MESSAGE))

    assert answer[b"grpc-status"] == OK
    assert exposed.witness.sight.values("x-org-id") == [ORG]
    assert "org_forged" not in repr(exposed.witness.sight.metadata)


@pytest.mark.parametrize("value", [b"org_forged\r\n", b"\x00org_forged", b"org_forged\xff", b" org_forged "])
def test_odd_forgery_never_reaches_a_public_method(exposed: Exposed, wire: Wire, kind: str, value: bytes) -> None:
    headers = [(name, value) for name in (b"x-org-id", b"x_org_id", b"x-scopes", b"x-client-id")]

    answer = wire.receive(wire.send(public_method(kind), headers, body=EMPTY_MESSAGE))

    assert answer[b"grpc-status"] == OK
    assert "org_forged" not in repr(exposed.witness.sight.metadata)


@pytest.mark.parametrize("name", [method, public_method])
def test_trailers_of_a_request_never_reach_a_handler(exposed: Exposed, wire: Wire, kind: str, name: Any) -> None:
    """The core of gRPC drops them, whatever is in them; an interceptor is not shown any either."""
    trailers = [(b"x-org-id", b"org_forged"), (b"x-scopes", b"org_forged"), (b"x-kept", b"org_forged")]

    answer = wire.receive(wire.send(name(kind), exposed.credentials, body=EMPTY_MESSAGE, trailers=trailers))

    assert answer[b"grpc-status"] == OK
    assert "org_forged" not in repr(exposed.witness.sights)


TOO_LARGE = [
    pytest.param([(b"x-copy", b"v")] * 20_000, id="20,000 copies of one"),
    pytest.param([(b"x-%d" % number, b"") for number in range(600)], id="600 names"),
    pytest.param([(b"x-value", b"v" * 300_000)], id="300 kB in one"),
    pytest.param([(b"x-%d" % number, b"v" * 1000) for number in range(300)], id="300 kB in all"),
]


@pytest.mark.parametrize("name", [method, public_method])
@pytest.mark.parametrize("headers", TOO_LARGE)
def test_more_headers_than_anybody_needs_are_refused(
    exposed: Exposed, wire: Wire, kind: str, headers: Headers, name: Any
) -> None:
    answer = wire.receive(wire.send(name(kind), [*exposed.credentials, *headers], body=EMPTY_MESSAGE))
    next_answer = wire.receive(wire.send(name(kind), exposed.credentials, body=EMPTY_MESSAGE))

    assert answer[b"grpc-status"] == PERMISSION_DENIED
    assert next_answer[b"grpc-status"] == OK
    exposed.stop()
    assert len(exposed.witness.sights) == 1


def test_path_that_is_longer_than_any_method_is_refused(exposed: Exposed, wire: Wire) -> None:
    answer = wire.receive(wire.send(f"/tests.Guarded/{'m' * 100_000}", exposed.credentials))

    assert answer[b"grpc-status"] == PERMISSION_DENIED


CAPITALS = [b"X-Org-Id", b"x-Org-id", b"X_ORG_ID", b"X-Scopes", b"X-Authz-Principal-Bin"]


# grpc refuses such names itself, but runs handlers that stream their requests all the same.
@pytest.mark.parametrize("name", [method, public_method])
def test_forgery_in_capitals_never_reaches_a_handler(exposed: Exposed, wire: Wire, kind: str, name: Any) -> None:
    forged = [(capitals, FORGED) for capitals in CAPITALS]

    answer = wire.receive(wire.send(name(kind), [*forged, *exposed.credentials], body=EMPTY_MESSAGE))

    assert answer.get(b"grpc-status") != OK
    exposed.stop()
    assert FORGED.decode() not in repr(exposed.witness.sights)


def test_refusal_is_the_same_to_every_http2_client(exposed: Exposed, wire: Wire, kind: str) -> None:
    answer = wire.receive(wire.send(method(kind), []))

    assert answer[b":status"] == b"200"
    assert answer[b"www-authenticate"] == b'Bearer realm="api"'
    assert answer[b"grpc-message"] == b"No token provided"
    assert exposed.witness.sights == []
