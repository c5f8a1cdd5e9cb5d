"""What is remembered ends by whichever clock ran further: nothing is believed longer because one of them was set."""

from collections.abc import Callable
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.requirements import ACTIVE_SECONDS, Assurance
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.issuer.introspection import Introspector
from authz.issuer.remote_keys import STALE as KEYS_STALE
from authz.issuer.token_source import ClientCredentials
from authz.issuer.verifier import CACHE_SECONDS, Verifier
from authz.judge.authorizer import Authorizer
from authz.organizations.directory import FRESH, STALE, Directory, LookUpError
from authz.policy import Organization
from authz.runtime.clock import Clock, Moment
from authz.runtime.flow import run
from tests.doubles import (
    ISSUER,
    ORG,
    FakeIssuer,
    FakeTokenEndpoint,
    FakeTransport,
    ManualClock,
    drive,
    json_response,
    m2m_claims,
)

SUSPENDED = pytest.mark.parametrize("elapse", [ManualClock.advance, ManualClock.set_forward], ids=["passed", "set"])
"""Time passes on both clocks, or the time of day is set forward while the other one stands still."""

Elapse = Callable[[ManualClock, float], None]


def verdict(authorizer: Authorizer | Verifier, token: str) -> str:
    judge = authorizer if isinstance(authorizer, Authorizer) else Authorizer(authorizer)
    call = Call(method="/a.B/C", metadata=[("authorization", f"Bearer {token}")])
    try:
        return run(judge.authorize(call)).org_id
    except AuthzError as error:
        return error.reason


def long_token(key: SigningKey, clock: ManualClock) -> str:
    return key.sign(m2m_claims(clock.now, exp=int(clock.now) + 86_400))


# ---- The clock ----


@pytest.mark.parametrize(
    ("seconds", "set_forward", "since"), [(5, 0, 5), (0, 7, 7), (5, 7, 12), (5, -3600, 5), (3600, -5, 3600)]
)
def test_the_age_is_that_of_the_clock_that_ran_further(
    clock: ManualClock, seconds: float, set_forward: float, since: float
) -> None:
    both = clock.clock
    begun = both.now()
    clock.advance(seconds)
    clock.set_forward(set_forward)

    assert both.since(begun) == since


def test_a_moment_is_reached_by_either_clock() -> None:
    due = Moment(100.0, 10.0)

    assert [Moment(*now).has_reached(due) for now in [(99.9, 9.9), (100.0, 0.0), (0.0, 10.0)]] == [False, True, True]
    assert not Moment(1e12, 1e12).has_reached(Moment())


def test_the_moment_of_a_time_of_day_is_as_far_on_the_other_clock() -> None:
    assert Clock(lambda: 1000.0, lambda: 5.0).at(1060.0) == Moment(1060.0, 65.0)


# ---- Keys ----


@SUSPENDED
def test_keys_are_believed_for_an_hour_by_either_clock(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey, clock: ManualClock, elapse: Elapse
) -> None:
    token = long_token(ec_key, clock)
    verdict(verifier, token)
    issuer.transport.down()
    elapse(clock, KEYS_STALE - 1)
    before = verdict(verifier, token)
    elapse(clock, 1)

    assert (before, verdict(verifier, token)) == (ORG, "key_set_unavailable")
    assert (verifier.health()[ISSUER].is_ready, verifier.health()[ISSUER].lasts) == (False, 0.0)


@SUSPENDED
def test_keys_of_a_seed_are_believed_for_an_hour_by_either_clock(
    new_verifier: Callable[..., Verifier],
    issuer: FakeIssuer,
    ec_key: SigningKey,
    clock: ManualClock,
    elapse: Elapse,
) -> None:
    verifier, token = new_verifier(jwks_seed=issuer.jwks()), long_token(ec_key, clock)
    issuer.transport.down()
    before = verdict(verifier, token)
    elapse(clock, KEYS_STALE)

    assert (before, verdict(verifier, token)) == (ORG, "key_set_unavailable")


@SUSPENDED
def test_a_key_that_was_withdrawn_while_the_machine_slept_is_noticed(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey, clock: ManualClock, elapse: Elapse
) -> None:
    token = long_token(ec_key, clock)
    verdict(verifier, token)
    issuer.keys = [SigningKey.generate("next", "ES256")]
    elapse(clock, 280)
    # Fetches ahead; the call after it sees the new set.
    verdict(verifier, token)

    assert verdict(verifier, token) == "key_not_found"


def test_the_age_of_keys_is_that_of_the_clock_that_ran_further(verifier: Verifier, clock: ManualClock) -> None:
    verifier.warm_up()
    clock.set_forward(100)

    assert verifier.health()[ISSUER].age == 100
    assert verifier.health()[ISSUER].lasts == KEYS_STALE - 100


# ---- Tokens ----


def test_a_token_is_remembered_no_longer_because_the_time_of_day_is_set_back(
    verifier: Verifier, ec_key: SigningKey, clock: ManualClock
) -> None:
    """A token whose iat lies in the future by then is none, and whoever asks anew learns that."""
    token = long_token(ec_key, clock)
    verdict(verifier, token)
    clock.set_forward(-3600)
    clock.advance(CACHE_SECONDS - 1)
    before = verdict(verifier, token)
    clock.advance(1)

    assert (before, verdict(verifier, token)) == (ORG, "claim_invalid")


# ---- The issuer's word ----


@SUSPENDED
@pytest.mark.parametrize("max_age", [5.0, ACTIVE_SECONDS])
def test_the_issuers_word_is_no_older_than_it_may_be_by_either_clock(
    verifier: Verifier, ec_key: SigningKey, clock: ManualClock, elapse: Elapse, max_age: float
) -> None:
    active = {"active": True}
    endpoint = FakeTransport(lambda: json_response(active))
    introspector = Introspector(ISSUER, client_id="ours", client_secret="s", transport=endpoint, clock=clock.clock)
    authorizer = Authorizer(verifier, introspector=introspector, assurance=Assurance(max_age=max_age))
    token = long_token(ec_key, clock)
    verdict(authorizer, token)
    active["active"] = False
    elapse(clock, max_age - 1)
    before = verdict(authorizer, token)
    elapse(clock, 1)

    assert (before, verdict(authorizer, token), endpoint.fetches) == (ORG, "token_inactive", 2)


# ---- A directory's word ----


class Known(Directory):
    """Knows every organization, until it is down."""

    def __init__(self, clock: ManualClock) -> None:
        self.is_down, self.asked = False, 0
        super().__init__(self._answer_about, clock=clock.clock, jitter=lambda: 0.0)

    def _answer_about(self, _org_id: str) -> Organization | None:
        self.asked += 1
        if self.is_down:
            raise LookUpError("down")
        return Organization()


@SUSPENDED
def test_a_directorys_word_serves_for_an_hour_by_either_clock(clock: ManualClock, elapse: Elapse) -> None:
    directory = Known(clock)
    run(directory.find(ORG))
    directory.is_down = True
    elapse(clock, STALE - 1)
    before = run(directory.find(ORG))
    elapse(clock, 1)
    with pytest.raises(AuthzError) as caught:
        run(directory.find(ORG))
    directory.close()

    assert (before, caught.value.reason) == (Organization(), "directory_unavailable")


@SUSPENDED
def test_a_directory_is_asked_again_when_its_word_is_no_longer_fresh_by_either_clock(
    clock: ManualClock, elapse: Elapse
) -> None:
    directory = Known(clock)
    run(directory.find(ORG))
    elapse(clock, FRESH)
    run(directory.find(ORG))
    directory.close()

    assert directory.asked == 2


# ---- Our own tokens ----


@SUSPENDED
def test_a_source_gives_no_token_that_expired_while_the_machine_slept(clock: ManualClock, elapse: Elapse) -> None:
    endpoint = FakeTokenEndpoint()
    source: Any = ClientCredentials(
        ISSUER, client_id="ours", client_secret="s", transport=endpoint.transport, clock=clock.clock
    )
    first = drive(source.token_flow(), clock)
    elapse(clock, 300)

    assert (first, drive(source.token_flow(), clock)) == ("token-1", "token-2")
