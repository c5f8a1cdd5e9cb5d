"""Calls that arrive before the issuer's keys do: they wait, and nobody else does."""

import logging
from collections.abc import Iterable

import grpc
import pytest

from authz import Authorizer, Call, Principal, Verifier
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.runtime.flow import Flow
from tests.doubles import ORG, ManualClock, json_response, jwks, m2m_claims
from tests.interceptors.client import Outcome, bearer, finish, start
from tests.interceptors.conftest import Cold, ServeAll
from tests.interceptors.service import expected_replies, public_method

REQUESTS = [b"1", b"2"]


def test_call_is_served_when_the_keys_arrive(cold: Cold, kind: str, token: str) -> None:
    metadata = [("x-org-id", "org_forged"), *bearer(token), ("x_org_id", "org_forged")]
    answer = cold.call_until_fetch(kind, metadata=metadata, requests=REQUESTS)
    parsed_before = list(cold.witness.parsed)
    cold.transport.release()

    outcome = answer()

    assert outcome.messages == expected_replies(kind, ORG.encode(), REQUESTS)
    assert (outcome.code, parsed_before) == (grpc.StatusCode.OK, [])
    assert cold.witness.sight.values("x-org-id") == [ORG]
    assert "org_forged" not in repr(cold.witness.sight.metadata)


def test_silent_client_learns_that_the_keys_cannot_be_had(
    cold: Cold, kind: str, token: str, least: Iterable[bytes]
) -> None:
    answer = cold.call_until_fetch(kind, metadata=bearer(token), requests=least)
    cold.transport.down()
    cold.transport.release()

    outcome = answer()

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_SET_UNAVAILABLE")
    assert outcome.details == "Authorization is unavailable"
    assert outcome.trailers["retry-after"] == str(outcome.retry_delay)
    assert outcome.retry_delay >= 1
    assert "www-authenticate" not in outcome.trailers
    assert (cold.witness.parsed, cold.witness.sights) == ([], [])


def test_bad_token_is_refused_when_the_keys_arrive(
    cold: Cold, kind: str, other_key: SigningKey, ec_key: SigningKey, least: Iterable[bytes]
) -> None:
    forged = other_key.sign(m2m_claims(), {"kid": ec_key.kid})
    answer = cold.call_until_fetch(kind, metadata=bearer(forged), requests=least)
    cold.transport.release()

    outcome = answer()

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID")
    assert "www-authenticate" in outcome.trailers
    assert (cold.witness.parsed, cold.witness.sights) == ([], [])


def test_unknown_method_is_unimplemented_once_the_caller_is_known(
    cold: Cold, kind: str, token: str, least: Iterable[bytes]
) -> None:
    answer = cold.call_until_fetch(kind, "/tests.Guarded/unknown", metadata=bearer(token), requests=least)
    cold.transport.release()

    outcome = answer()

    assert (outcome.code, outcome.details) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_unknown_method_stays_hidden_from_a_forger(
    cold: Cold, kind: str, other_key: SigningKey, ec_key: SigningKey
) -> None:
    forged = other_key.sign(m2m_claims(), {"kid": ec_key.kid})
    answer = cold.call_until_fetch(kind, "/tests.Guarded/unknown", metadata=bearer(forged))
    cold.transport.release()

    assert answer().reason == "SIGNATURE_INVALID"


def test_nobody_else_waits_for_the_keys(cold: Cold, kind: str, token: str) -> None:
    answer = cold.call_until_fetch(kind, metadata=bearer(token))

    public = [cold.call(kind, public_method(kind)).messages for _ in range(3)]
    refused = [cold.call(kind).reason for _ in range(3)]

    assert (public, refused) == ([expected_replies(kind, b"anonymous")] * 3, ["TOKEN_MISSING"] * 3)
    assert cold.transport.fetches == 1
    cold.transport.release()
    assert answer().code is grpc.StatusCode.OK


def test_known_keys_serve_while_a_new_one_is_fetched(
    cold: Cold, kind: str, token: str, ec_key: SigningKey, other_key: SigningKey
) -> None:
    first = cold.call_until_fetch(kind, metadata=bearer(token))
    cold.transport.release()
    first()
    cold.transport.hang()
    rotated = cold.call_until_fetch(kind, metadata=bearer(other_key.sign(m2m_claims())))

    known = cold.call(kind, metadata=bearer(ec_key.sign(m2m_claims(jti="another"))))

    assert known.code is grpc.StatusCode.OK
    cold.transport.answer = lambda: json_response(jwks(ec_key, other_key))
    cold.transport.release()
    assert rotated().messages == expected_replies(kind, ORG.encode())


def test_one_fetch_serves_all_who_wait(cold: Cold, kind: str, token: str) -> None:
    first = cold.call_until_fetch(kind, metadata=bearer(token))
    others = [start(cold.channel, kind, metadata=bearer(token)) for _ in range(5)]
    cold.transport.release()

    outcomes = [first(), *(finish(kind, other) for other in others)]

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.OK] * 6
    assert cold.transport.fetches == 1


def test_client_that_gives_up_leaves_the_fetch_to_others(
    cold: Cold, kind: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = start(cold.channel, kind, metadata=bearer(token))
    cold.transport.await_request()
    staying = start(cold.channel, kind, metadata=bearer(token))
    leaving.cancel()
    left = finish(kind, leaving)
    cold.await_departure()
    cold.transport.release()

    assert left.code is grpc.StatusCode.CANCELLED
    assert finish(kind, staying).code is grpc.StatusCode.OK
    assert cold.call(kind, metadata=bearer(token)).code is grpc.StatusCode.OK
    assert cold.transport.fetches == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def late_call(cold: Cold, kind: str, token: str) -> Outcome:
    """Make a call that ends by its deadline, but not before it has reached the server, however busy the machine."""
    for timeout in (0.05, 0.2, 1.0, 5.0):
        late = cold.call(kind, metadata=bearer(token), timeout=timeout)
        if cold.transport.fetches:
            return late
    raise AssertionError


def test_deadline_that_passes_during_the_fetch_harms_nobody_else(cold: Cold, kind: str, token: str) -> None:
    late = late_call(cold, kind, token)
    cold.await_departure()
    cold.transport.release()

    assert late.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert cold.call(kind, metadata=bearer(token)).code is grpc.StatusCode.OK


class ImpatientAuthorizer(Authorizer):
    """Waits next to no time."""

    def authorize(self, call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        flow = super().authorize(call)
        try:
            yield next(flow)._replace(seconds=0.001)
        except TimeoutError as error:
            flow.throw(error)
        raise AssertionError


def test_patience_ends_before_the_clients_deadline(
    kind: str, serve_all: ServeAll, cold_verifier: Verifier, token: str
) -> None:
    served = serve_all(judge=ImpatientAuthorizer(cold_verifier))

    outcome = served.call(kind, metadata=bearer(token))

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_SET_UNAVAILABLE")


def test_outage_is_over_when_the_keys_can_be_had(cold: Cold, kind: str, token: str, clock: ManualClock) -> None:
    answer = cold.call_until_fetch(kind, metadata=bearer(token))
    cold.transport.down()
    cold.transport.release()
    during = answer()
    cold.transport.up()
    clock.advance(60)

    after = cold.call(kind, metadata=bearer(token))

    assert (during.code, after.code) == (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK)
