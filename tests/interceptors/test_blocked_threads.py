"""A hanging issuer and random kids: a pool of eight threads goes on serving."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest

from authz import Verifier
from authz.demo.issuer.signing import SigningKey
from interceptors import AuthzInterceptor
from tests.doubles import ORG, m2m_claims
from tests.interceptors.client import bearer, call, finish, start
from tests.interceptors.conftest import WatchedTransport
from tests.interceptors.servers import channel_to, sync_server
from tests.interceptors.service import Witness, expected_replies, handlers, sync_behaviours

POOL = 8
BLOCKED = 4
KIND = "unary_unary"


@dataclass(frozen=True)
class Attacked:
    """A server of eight threads whose issuer hangs, and calls with kids that nobody knows under way."""

    channel: grpc.Channel
    transport: WatchedTransport
    forged: list[grpc.Future]


@pytest.fixture
def attacked(
    new_verifier: Callable[..., Verifier], transport: WatchedTransport, ec_key: SigningKey
) -> Iterator[Attacked]:
    verifier, witness = new_verifier(transport=transport, max_blocked_threads=BLOCKED), Witness()
    transport.up()
    verifier.warm_up()
    transport.await_request()
    transport.hang()
    served = handlers(sync_behaviours(witness), witness)
    with (
        sync_server(served, [AuthzInterceptor(verifier)], pool=ThreadPoolExecutor(POOL)) as address,
        channel_to(address) as channel,
    ):
        forged = [
            start(channel, KIND, metadata=bearer(ec_key.sign(m2m_claims(), {"kid": f"nobody-{number}"})))
            for number in range(5 * POOL)
        ]
        transport.await_request()
        yield Attacked(channel, transport, forged)
        transport.release()


def test_known_kids_are_served_meanwhile(attacked: Attacked, ec_key: SigningKey) -> None:
    waiting, good = attacked.forged, 0
    while len(waiting) > BLOCKED:
        outcome = call(attacked.channel, KIND, metadata=bearer(ec_key.sign(m2m_claims(jti=f"good-{good}"))))
        assert outcome.messages == expected_replies(KIND, ORG.encode())
        good += 1
        waiting = [one for one in attacked.forged if not one.done()]

    # The others were refused at once, and may try again: whether their keys exist nobody knows.
    refused = [finish(KIND, one) for one in attacked.forged if one not in waiting]
    assert {(outcome.code, outcome.reason) for outcome in refused} == {(grpc.StatusCode.UNAVAILABLE, "OVERLOADED")}
    assert len(refused) >= 5 * POOL - BLOCKED
    assert attacked.transport.fetches == 2


def test_a_remembered_token_is_served_meanwhile(attacked: Attacked, ec_key: SigningKey) -> None:
    token = ec_key.sign(m2m_claims(jti="one for all"))
    outcomes = [call(attacked.channel, KIND, metadata=bearer(token)) for _ in range(50)]

    assert {outcome.code for outcome in outcomes} == {grpc.StatusCode.OK}
