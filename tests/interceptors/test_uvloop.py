"""``grpc.aio`` servers whose event loop is uvloop's keep the promises that they keep on asyncio's own."""

import asyncio
from collections.abc import Iterable, Iterator

import grpc
import pytest
import uvloop

from authz import ANONYMOUS, Authorizer, Verifier
from tests.doubles import CLIENT, ORG
from tests.interceptors.client import bearer, finish, start
from tests.interceptors.conftest import Cold, ServeAll, Served
from tests.interceptors.servers import DOORS, Loop
from tests.interceptors.service import PUBLIC_METHODS, expected_replies, public_method

pytestmark = pytest.mark.parametrize("door", DOORS[1:], ids=lambda door: door.name)

FORGED = (("x-org-id", "org_forged"), ("x_org_id", "org_forged"), ("x-org-id-bin", b"org_forged"))
REQUESTS = [b"1", b"2"]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    loop = Loop(uvloop.new_event_loop())
    yield loop
    loop.close()


@pytest.fixture
def served(serve_all: ServeAll, verifier: Verifier) -> Served:
    return serve_all(judge=Authorizer(verifier, public_methods=PUBLIC_METHODS))


async def running() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_known_caller_is_served_under_the_right_name(served: Served, loop: Loop, kind: str, token: str) -> None:
    outcome = served.call(kind, metadata=[*FORGED, *bearer(token)], requests=REQUESTS)

    assert isinstance(loop.run(running()), uvloop.Loop)
    assert outcome.messages == expected_replies(kind, ORG.encode(), REQUESTS)
    sight = served.witness.sight
    assert (sight.principal.org_id, sight.values("x-org-id"), sight.values("x-client-id")) == (ORG, [ORG], [CLIENT])
    assert "org_forged" not in repr(sight.metadata)


def test_anybody_may_call_a_public_method(served: Served, kind: str) -> None:
    outcome = served.call(kind, public_method(kind), metadata=FORGED, requests=REQUESTS)

    assert outcome.messages == expected_replies(kind, b"anonymous", REQUESTS)
    assert served.witness.sight.principal is ANONYMOUS
    assert "org_forged" not in repr(served.witness.sight.metadata)


def test_silent_stranger_is_refused_at_once(served: Served, kind: str, least: Iterable[bytes]) -> None:
    outcome = served.call(kind, requests=least)

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert outcome.trailers["www-authenticate"]
    assert (served.witness.sights, served.witness.parsed) == ([], [])


def test_calls_wait_for_keys_together(cold: Cold, kind: str, token: str) -> None:
    first = cold.call_until_fetch(kind, metadata=bearer(token))
    others = [start(cold.channel, kind, metadata=bearer(token)) for _ in range(3)]
    stranger = cold.call(kind)
    cold.transport.release()

    outcomes = [first(), *(finish(kind, other) for other in others)]

    assert [outcome.messages for outcome in outcomes] == [expected_replies(kind, ORG.encode())] * 4
    assert (stranger.reason, cold.transport.fetches) == ("TOKEN_MISSING", 1)


def test_client_that_gives_up_leaves_the_fetch_to_others(cold: Cold, kind: str, token: str) -> None:
    leaving = start(cold.channel, kind, metadata=bearer(token))
    cold.transport.await_request()
    leaving.cancel()
    cold.await_departure()
    cold.transport.release()

    assert cold.call(kind, metadata=bearer(token)).code is grpc.StatusCode.OK
    assert cold.transport.fetches == 1
