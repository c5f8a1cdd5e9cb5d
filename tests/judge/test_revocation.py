"""The operator's own deny-list: by identity, never by the text of a token."""

import contextlib
import math
import sys
import threading
from dataclasses import replace
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from jwcrypto.common import base64url_decode, base64url_encode

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError, TokenInactiveError
from authz.judge.authorizer import Authorizer
from authz.judge.orders.book import TOKEN_SECONDS
from authz.judge.streams import FEW
from authz.policy import Policy
from authz.runtime.flow import run
from tests.doubles import ABSENT, CLIENT, ISSUER, ORG, m2m_claims, start_afresh
from tests.judge.held_back import review_by_hand

JTI = m2m_claims()["jti"]
KID = "ec-1"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def revocations(verifier):
    """Return a judge, of whom these tests only ask what the operator has ordered."""
    return Authorizer(verifier)


def principal(token_id=JTI, client_id=CLIENT, org_id=ORG, key_id=KID):
    return Principal(org_id=org_id, client_id=client_id, subject=client_id, token_id=token_id, key_id=key_id)


def is_refused(revocations, who):
    try:
        revocations.standing.check(who)
    except TokenInactiveError:
        return True
    return False


def test_at_first_nobody_is_refused(revocations):
    assert not is_refused(revocations, principal())


def test_a_key_ends_a_stream_that_opens_when_another_key_was_withdrawn(new_verifier, issuer, ec_key, other_key, clock):
    """The verdict came before the first of two key sets, and the stream is opened after the second."""
    verifier = new_verifier()
    judge, ended = Authorizer(verifier), []
    who = verifier.verify(ec_key.sign(m2m_claims(clock.now, exp=clock.now + 3600)))
    for keys in ([other_key], [SigningKey.generate("ec-3", "ES256")]):
        issuer.keys = keys
        clock.advance(300)
        with contextlib.suppress(AuthzError):
            verifier.verify(other_key.sign(m2m_claims(clock.now)))

    class Stream:
        def end(self, error):
            ended.append(error.reason)

    judge.endings.open(Stream(), who, math.inf)

    assert ended == ["key_not_found"]


@pytest.mark.parametrize("kid", [KID, "another"])
def test_a_proxy_may_name_a_caller_whose_key_is_not_known_here(verifier, kid):
    judge, ended = Authorizer(verifier), []
    verifier.warm_up()

    class Stream:
        def end(self, error):
            ended.append(error.reason)

    judge.endings.open(Stream(), replace(principal(key_id=kid), issuer=ISSUER), math.inf)

    assert ended == []


KINDS = [
    pytest.param({"token_id": JTI}, {"token_id": "another"}, id="D8-jti"),
    pytest.param({"client_id": CLIENT}, {"client_id": "client_other"}, id="application"),
    pytest.param({"org_id": ORG}, {"org_id": "org_other"}, id="organization"),
    pytest.param({"key_id": KID}, {"key_id": "another"}, id="key"),
]


@pytest.mark.parametrize(("what", "other"), KINDS)
def test_what_is_revoked_is_refused_and_nothing_else(revocations, what, other):
    revocations.revoke(**what)

    assert is_refused(revocations, principal())
    assert not is_refused(revocations, principal(**other))


@pytest.mark.parametrize(("what", "other"), KINDS)
def test_what_is_reinstated_is_no_longer_refused(revocations, what, other):
    revocations.revoke(**what)
    revocations.revoke(**what)
    revocations.revoke(**other)
    revocations.reinstate(**what)

    assert not is_refused(revocations, principal())
    assert is_refused(revocations, principal(**other))


@pytest.mark.parametrize(("what", "_other"), KINDS)
def test_reinstating_what_was_never_revoked_changes_nothing(revocations, what, _other):
    revocations.reinstate(**what)

    assert not is_refused(revocations, principal())


@pytest.mark.parametrize(
    "what",
    [
        *({"client_id": value} for value in (JTI, ORG, KID)),
        *({"org_id": value} for value in (JTI, KID)),
        *({"token_id": value} for value in (CLIENT, ORG, KID)),
        *({"key_id": value} for value in (JTI, CLIENT, ORG)),
    ],
    ids=str,
)
def test_the_kinds_are_not_mixed_up(revocations, what):
    revocations.revoke(**what)

    assert not is_refused(revocations, principal())


@pytest.mark.parametrize("token_id", [JTI.lower(), JTI + " ", JTI[:-1], JTI + "\0"])
def test_identities_match_exactly(revocations, token_id):
    revocations.revoke(token_id=token_id)

    assert not is_refused(revocations, principal())


def test_tokens_without_an_id_are_one_by_one_beyond_reach(revocations):
    revocations.revoke(token_id="another")

    assert not is_refused(revocations, principal(token_id=""))


def test_the_anonymous_caller_cannot_be_refused(revocations):
    revocations.revoke(token_id=JTI)

    assert not is_refused(revocations, ANONYMOUS)


@pytest.mark.parametrize("change", ["revoke", "reinstate"])
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({}, "give exactly one of token_id, client_id, org_id, key_id; not none"),
        ({"token_id": None}, "give exactly one of token_id, client_id, org_id, key_id; not none"),
        ({"token_id": "a", "org_id": "b"}, "not token_id and org_id"),
        ({"org_id": "a", "key_id": ""}, "not org_id and key_id"),
        *(({name: ""}, f"{name} is empty") for name in ("token_id", "client_id", "org_id", "key_id")),
        ({"org_id": "a", "issuer": ""}, "issuer is empty; leave it out for every issuer"),
    ],
    ids=str,
)
def test_exactly_one_thing_is_named(revocations, change, what, error):
    with pytest.raises(ConfigError, match=f"^{change}: .*{error}"):
        getattr(revocations, change)(**what)

    assert not revocations.operator.book


@pytest.mark.parametrize("change", ["revoke", "reinstate", "suspend", "resume"])
def test_thing_without_a_name_for_what_it_is_is_a_mistake(revocations, change):
    with pytest.raises(TypeError):
        getattr(revocations, change)(ORG)


# ---- How long, and how many ----


def test_a_token_is_refused_for_a_year_to_the_hour(revocations, clock):
    revocations.revoke(token_id=JTI)
    clock.advance(TOKEN_SECONDS - 1)
    revocations.revoke(token_id="another")
    assert is_refused(revocations, principal())

    clock.advance(3601)
    revocations.revoke(token_id="another", reason="the next order looks for what is over")
    assert not is_refused(revocations, principal())


def test_a_token_is_refused_until_the_end_that_is_given(revocations, clock):
    revocations.revoke(token_id=JTI, until=clock.now + 7200)
    clock.advance(7199)
    revocations.revoke(token_id="another")
    assert is_refused(revocations, principal())

    clock.advance(3601)
    revocations.revoke(token_id="another", reason="the next order looks for what is over")
    assert not is_refused(revocations, principal())


@pytest.mark.parametrize("what", [{"client_id": CLIENT}, {"org_id": ORG}, {"key_id": KID}])
def test_applications_organizations_and_keys_are_refused_until_they_are_reinstated(revocations, clock, what):
    revocations.revoke(**what)
    clock.advance(365 * TOKEN_SECONDS)

    assert is_refused(revocations, principal())


@pytest.mark.long
def test_no_token_is_forgotten_for_another(revocations):
    for number in range(100_010):
        revocations.revoke(token_id=f"token-{number}")

    assert all(is_refused(revocations, principal(f"token-{number}")) for number in range(100_010))


def test_too_many_tokens_are_refused_and_none_is_forgotten(revocations, monkeypatch):
    monkeypatch.setattr("authz.judge.orders.book.MAX_TOKENS", 1)
    revocations.revoke(token_id=JTI)

    with pytest.raises(ConfigError, match=r"^revoke: 1 tokens are revoked already; revoke what their clients"):
        revocations.revoke(token_id="another")

    assert is_refused(revocations, principal())
    assert not is_refused(revocations, principal("another"))


def test_threads_may_check_while_tokens_are_revoked_and_expire(revocations, clock, request):
    # Threads take turns a hundred times as often as usual.
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(0.00005)
    failures = []
    over = threading.Event()
    revocations.revoke(token_id=JTI)

    def check():
        while not over.is_set():
            try:
                is_refused(revocations, principal("another"))
                if not is_refused(revocations, principal()):
                    failures.append("a revoked token was let in")
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
                failures.append(repr(error))

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(400):
        revocations.revoke(token_id=f"token-{number}")
        revocations.revoke(token_id=JTI)
        clock.advance(TOKEN_SECONDS / 100)
    over.set()
    for thread in threads:
        thread.join()

    assert failures == []


def test_a_forked_child_goes_on_refusing(revocations):
    revocations.revoke(token_id=JTI)
    start_afresh(revocations.operator)

    assert is_refused(revocations, principal())


# ---- At the judge ----


@pytest.fixture
def authorizer(verifier):
    return Authorizer(verifier)


def verdict(authorizer, token):
    try:
        run(authorizer.authorize(Call(method="/a.B/C", metadata=[("authorization", f"Bearer {token}")])))
    except AuthzError as error:
        return error.reason
    return "allowed"


@pytest.mark.parametrize("what", [{"token_id": JTI}, {"client_id": CLIENT}, {"org_id": ORG}, {"key_id": KID}], ids=str)
def test_a_remembered_token_is_refused_by_the_next_call(authorizer, ec_key, what):
    token = ec_key.sign(m2m_claims())
    before = verdict(authorizer, token)
    authorizer.revoke(**what)
    during = verdict(authorizer, token)
    authorizer.reinstate(**what)

    assert (before, during, verdict(authorizer, token)) == ("allowed", "token_inactive", "allowed")


def malleated(token):
    """Return the twin of a token that its key has never made: (r, n - s) verifies where (r, s) does."""
    signing_input, _, signature = token.rpartition(".")
    raw = base64url_decode(signature)
    r, s = raw[:32], P256_ORDER - int.from_bytes(raw[32:])
    assert encode_dss_signature(int.from_bytes(r), s)
    return f"{signing_input}.{base64url_encode(r + s.to_bytes(32))}"


def test_a_malleated_twin_meets_the_same_entry(authorizer, ec_key):
    """B12, D8: identity is jti, so another text of a revoked token is revoked too."""
    token = ec_key.sign(m2m_claims())
    twin = malleated(token)
    before = verdict(authorizer, twin)
    authorizer.revoke(token_id=JTI)

    assert twin != token
    assert (before, verdict(authorizer, token), verdict(authorizer, twin)) == (
        "allowed",
        "token_inactive",
        "token_inactive",
    )


def test_a_token_without_jti_is_refused_with_its_application(authorizer, ec_key):
    token = ec_key.sign(m2m_claims(jti=ABSENT))
    authorizer.revoke(token_id="whatever")
    before = verdict(authorizer, token)
    authorizer.revoke(client_id=CLIENT)

    assert (before, verdict(authorizer, token)) == ("allowed", "token_inactive")


def test_a_forged_token_does_not_tell_what_is_revoked(authorizer, other_key):
    """The signature comes first."""
    authorizer.revoke(org_id=ORG)

    assert verdict(authorizer, other_key.sign(m2m_claims(), {"kid": "ec-1"})) == "signature_invalid"


# ---- Many open streams ----


class Noting:
    """A stream that notes why it is told to end."""

    def __init__(self):
        self.reasons = []

    def end(self, error):
        self.reasons.append(error.reason)


@pytest.fixture
def many(revocations):
    """Return more open streams than are told before the giver of an order is answered."""
    review_by_hand(revocations.streams)
    streams = [Noting() for _ in range(FEW + 1)]
    for stream in streams:
        assert revocations.endings.open(stream, principal(), math.inf) is None
    return streams


def told(streams):
    return {tuple(stream.reasons) for stream in streams}


def test_giver_of_an_order_does_not_wait_until_many_streams_are_told(revocations, many):
    revocations.revoke(org_id=ORG)
    before = told(many)
    revocations.streams.settle()

    assert (before, told(many)) == ({()}, {("token_inactive",)})


def test_order_that_is_taken_back_at_once_has_ended_every_stream(revocations, many):
    revocations.revoke(org_id=ORG)
    revocations.reinstate(org_id=ORG)

    assert told(many) == {("token_inactive",)}


def test_order_that_is_narrowed_at_once_has_ended_every_stream(revocations, many):
    revocations.revoke(org_id=ORG)
    revocations.revoke(org_id=ORG, issued_before=1.0)

    assert told(many) == {("token_inactive",)}


def test_order_that_soon_lapses_has_ended_every_stream_by_its_answer(revocations, many, clock):
    revocations.revoke(org_id=ORG, until=clock.now + 1)

    assert told(many) == {("token_inactive",)}


def test_orders_about_others_do_not_wait_for_each_other(revocations, many):
    revocations.revoke(org_id=ORG)
    revocations.revoke(org_id="org_other")

    assert (told(many), revocations.streams.is_behind) == ({()}, True)


def test_policy_that_is_replaced_at_once_has_ended_every_stream(revocations, many):
    everything = [{"name": "everything"}]
    suspending = {"name": "p", "allow_rules": everything, "organizations": {ORG: {"status": "suspended"}}}
    revocations.replace_policy(Policy.from_document(suspending))
    before = told(many)
    revocations.replace_policy(None)

    assert (before, told(many)) == ({()}, {("organization_suspended",)})
