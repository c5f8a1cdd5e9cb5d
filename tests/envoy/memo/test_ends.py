"""An answer that Envoy repeats ends the call when, and as, the server's own answer would."""

import random
from typing import Any

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.deadline import DURATION, RETRIES
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.memo.mark import Memo
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from tests.doubles import AUDIENCE, ISSUER, NOW, FakeIssuer, ManualClock, m2m_claims
from tests.envoy.memo.fake_envoy import Call, FakeEnvoy, upstream_headers
from tests.envoy.memo.world import _answering

KINDS = (
    *("application/grpc", "application/grpc+proto", "application/grpc;x=1", "Application/GRPC", "application/grpcx"),
    *("application/grpc-web", "application/grpc-web+proto", "APPLICATION/grpc-web-text", "application/grpc-webx"),
    *("application/grpc-web-text+proto ; a=b", "application/connect+proto", "application/connect+json; x"),
    *("application/connect+xml", "application/json", "", ";"),
)
OWN = (
    *(
        "1S",
        "2S",
        "5S",
        "99999999S",
        "100m",
        "3000000u",
        "1n",
        "0S",
        "1H",
        "1M",
        "000000001S",
        "1",
        "10",
        "2900",
        "3000",
    ),
    *("9999999999", "00000000001", "", "S", "1s", "1.5S", "-1S", "1 S", "1SS", "S1", "1é"),
)


class Both:
    """A server that ends calls with their token, and an Envoy that repeats its answers."""

    def __init__(self, key: SigningKey, exp: float) -> None:
        self.clock, self.envoy = ManualClock(), FakeEnvoy()
        verifier = Verifier(
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=["ES256"],
            transport=FakeIssuer(key).transport,
            clock=self.clock.clock,
        )
        verifier.warm_up()
        authorizer = Authorizer(verifier, public_methods=["/public"])
        memo = Memo(authorizer, 300.0)
        self.check = _answering(AuthorizationServicer(authorizer, memo=memo, end_streams=True))
        self._token = key.sign(m2m_claims(exp=NOW + exp))
        memo.begin("g")
        self.envoy.load("g")

    def call(self, *headers: tuple[str, str], path: str = "/a.S/Get") -> Call:
        return Call([("authorization", f"Bearer {self._token}"), *headers], path)

    def repeated(self, call: Call) -> list[tuple[str, str]]:
        """Return the headers of a call whose answer Envoy repeats."""
        # What a token that was never seen before may do is not remembered.
        for _ in range(2):
            self.envoy.call(call, self.check)
        stream = self.envoy.call(call, self.check)
        assert not stream.has_failed
        assert stream.passed is not None
        assert stream.passed.is_repeated
        return stream.passed.headers

    def asked(self, call: Call) -> list[tuple[str, str]]:
        """Return what they are if Envoy asks."""
        return upstream_headers(call, CheckResponse.FromString(self.check(call.question)))

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.envoy.advance(seconds)


def deadlines(headers: list[tuple[str, str]]) -> dict[str, list[str]]:
    names = (DURATION, "grpc-timeout", "connect-timeout-ms", *RETRIES)
    return {name: [value for key, value in headers if key == name] for name in names}


@pytest.mark.parametrize("seed", range(20))
def test_deadlines_are_those_of_the_servers_answer(ec_key: SigningKey, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same on every run
    # Whole seconds, so that both clocks, which count in different units, say the same.
    both = Both(ec_key, exp=chance.choice((25, 300, 120_000, 90_000_000)))
    for _ in range(40):
        headers: list[tuple[str, str]] = [("content-type", chance.choice(KINDS))]
        for name in ("grpc-timeout", "connect-timeout-ms", DURATION, *RETRIES):
            headers += [(name, chance.choice(OWN)) for _ in range(chance.choice((0, 1, 1, 2)))]
        call = both.call(*headers)
        assert deadlines(both.repeated(call)) == deadlines(both.asked(call)), headers
        both.wait(chance.choice((0, 0, 1)) if both.clock.now < NOW + 24 else 0)


def test_time_that_has_passed_since_the_answer_counts(ec_key: SigningKey) -> None:
    both = Both(ec_key, exp=60)
    call = both.call(("content-type", "application/grpc"))
    first = deadlines(both.repeated(call))
    both.wait(20.5)
    later = deadlines(both.repeated(call))

    assert (first["grpc-timeout"], first[DURATION]) == (["70000m"], ["70500"])
    assert (later["grpc-timeout"], later[DURATION]) == (["49500m"], ["50000"])


def test_public_call_is_not_ended(ec_key: SigningKey) -> None:
    both = Both(ec_key, exp=60)
    found: dict[str, Any] = deadlines(both.repeated(both.call(path="/public")))

    assert found == {name: [] for name in found}
