import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call, Entry
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS
from authz.call.requirements import Assurance
from authz.errors import (
    AuthzError,
    BadSignatureError,
    ClaimError,
    Code,
    ConfigError,
    KeySetUnavailableError,
    PermissionDeniedError,
    TokenMalformedError,
    TokenMissingError,
)
from authz.issuer.introspection import Introspector
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.runtime.flow import arun, run
from authz.token.bearer import bearer_token
from tests.doubles import ISSUER, ORG, FakeIssuer, FakeTransport, json_response, m2m_claims

METHOD = "/authz.demo.v1.Ledger/GetBalance"
HEALTH = "/grpc.health.v1.Health/Check"


def call(*metadata, method=METHOD):
    return Call(method=method, metadata=metadata)


def reason_of(*metadata):
    with pytest.raises(AuthzError) as caught:
        bearer_token(Call(method=METHOD, metadata=metadata))
    return caught.value.reason


@pytest.fixture
def authorizer(verifier):
    return Authorizer(verifier, public_methods=[HEALTH])


@pytest.fixture
def token(ec_key, claims):
    return ec_key.sign(claims())


# ---- Size ----


@pytest.mark.parametrize("method", [METHOD, HEALTH])
def test_a_call_that_is_too_large_is_refused_on_public_methods_too(authorizer, token, method):
    good = ("authorization", f"Bearer {token}")
    refusals = []
    for large in (call(good, *[("x", "")] * 512, method=method), call(good, ("x", "v" * 262_144), method=method)):
        with pytest.raises(PermissionDeniedError) as caught:
            run(authorizer.authorize(large))
        refusals.append(caught.value.reason)

    assert refusals == ["request_malformed"] * 2
    assert run(authorizer.authorize(call(good, *[("x", "")] * 511, method=method))) is not None


# ---- A: getting the token ----


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("Bearer a.b.c", id="A3-as-usual"),
        pytest.param("bearer a.b.c", id="A3-lower-case"),
        pytest.param("BEARER a.b.c", id="A3-upper-case"),
        pytest.param("bEaReR a.b.c", id="A3-mixed-case"),
    ],
)
def test_the_scheme_may_be_in_any_case(value):
    assert bearer_token(Call(method=METHOD, metadata=[("authorization", value)])) == "a.b.c"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        pytest.param([], "token_missing", id="A1-no-metadata"),
        pytest.param([("user-agent", "grpc")], "token_missing", id="A1-no-authorization"),
        pytest.param([("authorization", "Bearer a"), ("authorization", "Bearer a")], "token_malformed", id="A2-twice"),
        pytest.param([("authorization", "Bearer a"), ("authorization", "")], "token_malformed", id="A2-and-empty"),
        pytest.param([("authorization", "Bearer a,Bearer b")], "token_malformed", id="A2-joined"),
        pytest.param([("authorization", "Bearer a, Bearer b")], "token_malformed", id="A2-joined-with-blank"),
        pytest.param([("authorization", "Bearer  a")], "token_malformed", id="A3-two-spaces"),
        pytest.param([("authorization", "Bearer\ta")], "token_malformed", id="A3-tab"),
        pytest.param([("authorization", " Bearer a")], "token_malformed", id="A3-leading-blank"),
        pytest.param([("authorization", "Bearer a ")], "token_malformed", id="A3-trailing-blank"),
        pytest.param([("authorization", "Bearer ")], "token_malformed", id="A3-no-token"),
        pytest.param([("authorization", "Bearer")], "token_malformed", id="A3-scheme-only"),
        pytest.param([("authorization", "")], "token_malformed", id="A3-empty"),
        pytest.param([("authorization", "a.b.c")], "token_malformed", id="A3-no-scheme"),
        pytest.param([("authorization", "Bearera.b.c")], "token_malformed", id="A3-no-space"),
        pytest.param([("authorization", "Bearer a\r\nx-org-id: spoof")], "token_malformed", id="A4-crlf"),
        pytest.param([("authorization", "Bearer a\nx-org-id: spoof")], "token_malformed", id="A4-newline"),
        pytest.param([("authorization", "Bearer a\n")], "token_malformed", id="A4-newline-at-the-end"),
        pytest.param([("authorization", "Bearer a\0")], "token_malformed", id="A4-nul"),
        pytest.param([("authorization", "Bearer é")], "token_malformed", id="A4-not-ascii"),
        pytest.param([("authorization", "Bearer \ud800")], "token_malformed", id="A4-surrogate"),
        pytest.param([("authorization", "Bearer a=")], "token_malformed", id="A4-padding"),
        pytest.param([("authorization", "\u212aearer a")], "token_malformed", id="A4-kelvin-sign"),
        pytest.param([("authorization", b"Bearer a")], "token_malformed", id="A4-bytes"),
        pytest.param([("authorization", "Bearer " + "a" * 8193)], "token_malformed", id="A5-8193"),
        pytest.param([("authorization", "Bearer " + "a" * 10_000_000)], "token_malformed", id="A5-huge"),
        pytest.param([("authorization-bin", b"Bearer a")], "token_missing", id="A6-binary"),
        pytest.param([("Authorization", "Bearer a")], "token_missing", id="A6-upper-case"),
        pytest.param(
            [("authorization", "Bearer a"), ("Authorization", "Bearer b")], "token_malformed", id="A2-capitals"
        ),
        pytest.param([("authorization", "Basic dXNlcjpwYXNz")], "token_malformed", id="A7-basic"),
        pytest.param([("authorization", "DPoP a.b.c")], "token_malformed", id="A7-dpop"),
        pytest.param([("authorization", "Negotiate abc")], "token_malformed", id="A7-negotiate"),
        pytest.param([("access_token", "a.b.c"), ("access-token", "a.b.c")], "token_missing", id="A8-other-names"),
        pytest.param([("proxy-authorization", "Bearer a.b.c")], "token_missing", id="A8-proxy-authorization"),
        pytest.param([("x-forwarded-authorization", "Bearer a")], "token_missing", id="A8-forwarded"),
        pytest.param([("cookie", "access_token=a.b.c")], "token_missing", id="A8-cookie"),
    ],
)
def test_anything_but_one_bearer_token_is_refused(metadata, reason):
    assert reason_of(*metadata) == reason


def test_a_token_may_have_8192_characters():
    """A5."""
    call = Call(method=METHOD, metadata=[("authorization", "Bearer " + "a" * 8192)])

    assert len(bearer_token(call)) == 8192


@given(st.text(max_size=30))
def test_any_authorization_is_a_token_or_a_refusal(value):
    with contextlib.suppress(TokenMalformedError):
        assert bearer_token(Call(method=METHOD, metadata=[("authorization", value)])).isascii()


# ---- Calls ----


def test_a_call_with_a_good_token_is_its_principals(authorizer, token):
    principal = run(authorizer.authorize(call(("authorization", f"Bearer {token}"))))

    assert principal.org_id == ORG


def test_a_call_without_a_token_is_refused_without_waiting(authorizer, transport):
    with pytest.raises(TokenMissingError):
        next(authorizer.authorize(call()))
    assert transport.fetches == 0


def test_a_token_in_the_query_is_not_read(authorizer, token):
    """A8."""
    with pytest.raises(TokenMissingError):
        next(authorizer.authorize(call(method=f"/v1/balance?access_token={token}")))


def test_a_call_waits_for_the_keys_and_goes_on(authorizer, token, transport):
    transport.hang()
    flow = authorizer.authorize(call(("authorization", f"Bearer {token}")))
    wait = next(flow)
    transport.release()

    with pytest.raises(StopIteration) as stopped:
        flow.send(wait.future.result(0))
    assert stopped.value.value.org_id == ORG


def test_tasks_get_the_same_verdict(authorizer, token):
    assert asyncio.run(arun(authorizer.authorize(call(("authorization", f"Bearer {token}"))))).org_id == ORG


def test_a_public_method_needs_no_token(authorizer):
    assert run(authorizer.authorize(call(method=HEALTH))) is ANONYMOUS


def test_a_public_method_looks_at_no_token(authorizer, token):
    """Public methods are anonymous whoever calls: a token decides nothing there."""
    assert run(authorizer.authorize(call(("authorization", "nonsense"), method=HEALTH))) is ANONYMOUS
    assert run(authorizer.authorize(call(("authorization", f"Bearer {token}"), method=HEALTH))) is ANONYMOUS


@pytest.mark.parametrize(
    "method",
    [HEALTH + "/", HEALTH[1:], HEALTH.lower(), HEALTH + "er", HEALTH[:-1], "/" + HEALTH, HEALTH + "?x", "", "/"],
)
def test_public_methods_match_exactly(authorizer, method):
    with pytest.raises(TokenMissingError):
        next(authorizer.authorize(call(method=method)))


def test_by_default_nothing_is_public(verifier):
    with pytest.raises(TokenMissingError):
        next(Authorizer(verifier).authorize(call(method=HEALTH)))


# ---- Assurance ----

OTHER_METHOD = "/authz.demo.v1.Ledger/PostEntry"


@pytest.fixture
def endpoint():
    """Return the network of an introspection endpoint that calls everything active."""
    return FakeTransport(lambda: json_response({"active": True}))


@pytest.fixture
def new_introspector(endpoint, clock):
    return lambda **options: Introspector(
        **{"issuer": ISSUER, "client_id": "c", "client_secret": "s", "transport": endpoint, "clock": clock.clock}
        | options
    )


@pytest.fixture
def assured(verifier, new_introspector):
    """Return a function that builds an authorizer of that assurance."""
    return lambda assurance, **options: Authorizer(
        verifier, introspector=new_introspector(), assurance=assurance, **options
    )


def verdict(authorizer, token, method=METHOD):
    try:
        run(authorizer.authorize(call(("authorization", f"Bearer {token}"), method=method)))
    except AuthzError as error:
        return error.reason
    return "allowed"


def test_by_default_no_issuer_is_asked(authorizer, token, endpoint):
    assert (verdict(authorizer, token), endpoint.fetches) == ("allowed", 0)


def test_one_assurance_is_that_of_every_method(assured, token, endpoint):
    authorizer = assured(Assurance())

    assert [verdict(authorizer, token, method) for method in (METHOD, OTHER_METHOD)] == ["allowed"] * 2
    assert endpoint.fetches == 2


def test_a_method_without_an_assurance_believes_the_signature(assured, token, endpoint):
    authorizer = assured({OTHER_METHOD: Assurance()})
    endpoint.answer = lambda: json_response({"active": False})

    assert (verdict(authorizer, token), endpoint.fetches) == ("allowed", 0)
    assert verdict(authorizer, token, OTHER_METHOD) == "token_inactive"


@pytest.mark.parametrize("method", [OTHER_METHOD + "/", OTHER_METHOD.lower(), OTHER_METHOD[:-1]])
def test_methods_with_an_assurance_match_exactly(assured, token, endpoint, method):
    verdict(assured({OTHER_METHOD: Assurance()}), token, method)

    assert endpoint.fetches == 0


def test_each_method_has_its_own_max_age(assured, token, endpoint, clock):
    authorizer = assured({METHOD: Assurance(max_age=30), OTHER_METHOD: Assurance(max_age=5)})
    verdict(authorizer, token)
    clock.advance(10)
    endpoint.answer = lambda: json_response({"active": False})

    assert [verdict(authorizer, token, method) for method in (METHOD, OTHER_METHOD)] == ["allowed", "token_inactive"]


@pytest.mark.parametrize(("mode", "outcome"), [("deny", "introspection_unavailable"), ("local", "allowed")])
def test_a_method_says_what_an_outage_means(assured, token, endpoint, mode, outcome):
    """F8."""
    endpoint.down()

    assert verdict(assured(Assurance(if_unavailable=mode)), token) == outcome


def test_a_public_method_asks_nobody(assured, token, endpoint):
    assert verdict(assured(Assurance(), public_methods=[HEALTH]), token, HEALTH) == "allowed"
    assert endpoint.fetches == 0


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda *_: "garbage", id="F5-garbage"),
        pytest.param(lambda _ours, theirs, claims: theirs.sign(claims(), {"kid": "ec-1"}), id="F5-forged"),
        pytest.param(lambda _ours, theirs, claims: theirs.sign(claims()), id="F5-unknown-kid"),
        pytest.param(lambda ours, _, claims: ours.sign(claims(exp=1)), id="F5-expired"),
        pytest.param(lambda ours, _, claims: ours.sign(claims(aud="other")), id="F5-audience"),
        pytest.param(lambda ours, _, claims: ours.sign(claims(iss="https://evil.example")), id="F5-issuer"),
        pytest.param(lambda ours, _, claims: ours.sign(claims(), {"alg": "none"}), id="F5-none"),
        pytest.param(lambda ours, _, claims: ours.sign(claims(sub="user_1")), id="F5-user-token"),
    ],
)
def test_a_token_that_fails_here_is_never_sent_to_the_issuer(assured, endpoint, ec_key, other_key, make):
    """F5: also where an outage would leave the local verdict."""
    authorizer = assured(Assurance(if_unavailable="local"))

    assert verdict(authorizer, make(ec_key, other_key, m2m_claims)) != "allowed"
    assert endpoint.fetches == 0


@pytest.mark.parametrize("peer", [None, Peer(), Peer(certificate="another")], ids=["unknown", "without", "another"])
def test_a_stolen_bound_token_is_never_sent_to_the_issuer(assured, endpoint, ec_key, peer):
    """F5, H1."""
    bound = ec_key.sign(m2m_claims(cnf={"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}))
    stolen = Call(method=METHOD, metadata=[("authorization", f"Bearer {bound}")], peer=peer)

    with pytest.raises(ClaimError) as caught:
        run(assured(Assurance()).authorize(stolen))
    assert (caught.value.claim, endpoint.fetches) == ("cnf", 0)


def test_what_the_operator_revoked_is_never_sent_to_the_issuer(assured, token, endpoint):
    authorizer = assured(Assurance())
    authorizer.revoke(org_id=ORG)

    assert (verdict(authorizer, token), endpoint.fetches) == ("token_inactive", 0)


def test_a_call_waits_for_the_issuers_word_and_goes_on(assured, token, endpoint):
    authorizer = assured(Assurance())
    verdict(authorizer, token)
    endpoint.hang()
    flow = authorizer.authorize(call(("authorization", f"Bearer {token}")))
    wait = next(flow)
    endpoint.release()

    with pytest.raises(StopIteration) as stopped:
        flow.send(wait.future.result(0))
    assert stopped.value.value.org_id == ORG


def test_an_outage_of_introspection_is_a_refusal_that_may_be_retried(assured, token, endpoint):
    endpoint.down()
    authorizer = assured(Assurance())
    attempt = call(("authorization", f"Bearer {token}"))
    with pytest.raises(AuthzError) as caught:
        run(authorizer.authorize(attempt))

    assert authorizer.telling.refusal(attempt, caught.value).code is Code.UNAVAILABLE


OTHER_ISSUER = "https://globex.authkit.app"


@pytest.fixture
def both(new_verifier, other_key):
    """Return a verifier of two issuers."""
    theirs = new_verifier(issuer=OTHER_ISSUER, transport=FakeIssuer(other_key).transport)
    return Verifiers(new_verifier(), theirs, shared_organizations=True)


def test_a_token_is_shown_to_no_other_issuer(both, new_introspector, token, other_key, claims):
    """Whoever sees a bearer token can use it."""
    endpoints = {url: FakeTransport(lambda: json_response({"active": True})) for url in (ISSUER, OTHER_ISSUER)}
    introspectors = {url: new_introspector(issuer=url, transport=endpoint) for url, endpoint in endpoints.items()}
    authorizer = Authorizer(both, introspector=introspectors, assurance=Assurance())
    theirs = other_key.sign(claims(iss=OTHER_ISSUER))

    assert [verdict(authorizer, token), verdict(authorizer, theirs)] == ["allowed"] * 2
    shown = {url: [request.form["token"] for request in it.requests] for url, it in endpoints.items()}
    assert shown == {ISSUER: [token], OTHER_ISSUER: [theirs]}
    authorizer.close()
    assert all(endpoint.closed for endpoint in endpoints.values())


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(lambda one: one, id="one-for-all"),
        pytest.param(lambda one: {ISSUER: one}, id="one-missing"),
        pytest.param(lambda one: {ISSUER: one, OTHER_ISSUER: one, "https://x.example": one}, id="one-too-many"),
        pytest.param(lambda _: {}, id="none"),
    ],
)
def test_several_issuers_need_an_introspector_each(both, new_introspector, choose):
    with pytest.raises(ConfigError, match=r"^introspector: with several issuers give one for each"):
        Authorizer(both, introspector=choose(new_introspector()), assurance=Assurance())


def test_an_assurance_and_an_introspector_belong_together(verifier, new_introspector):
    for options in ({"assurance": Assurance()}, {"assurance": {}}, {"introspector": new_introspector()}):
        with pytest.raises(ConfigError, match=r"^introspector and assurance: give both or neither"):
            Authorizer(verifier, **options)


@pytest.mark.parametrize("name", ["", "Ledger/GetBalance", "**", "/a b"])
def test_methods_with_an_assurance_are_full_names(assured, name):
    with pytest.raises(ConfigError, match=r"^assurance: .* is not a full method name"):
        assured({name: Assurance()})


def test_star_is_for_every_method_that_is_not_named(assured, endpoint, token):
    authorizer = assured({METHOD: Assurance(max_age=0), "*": Assurance(max_age=30)})

    for method, asked in ((METHOD, 1), (METHOD, 2), ("/a.B/C", 2)):
        assert verdict(authorizer, token, method) == "allowed"
        assert len(endpoint.requests) == asked


def test_closing_closes_every_transport(assured, endpoint, transport):
    assured(Assurance()).close()

    assert (endpoint.closed, transport.closed) == (True, True)


def test_closing_needs_no_introspector(authorizer, transport):
    authorizer.close()

    assert transport.closed


# ---- Refusals ----


def test_a_refusal_is_what_the_caller_sees(authorizer):
    refusal = authorizer.telling.refusal(call(), TokenMissingError())

    assert (refusal.code, refusal.headers) == (Code.UNAUTHENTICATED, (("www-authenticate", 'Bearer realm="api"'),))


def test_the_realm_can_be_chosen(verifier):
    refusal = Authorizer(verifier, realm="ledger").telling.refusal(call(), TokenMissingError())

    assert refusal.headers == (("www-authenticate", 'Bearer realm="ledger"'),)


@pytest.mark.parametrize("error", [KeyError("secret"), RecursionError(), AssertionError(), KeyboardInterrupt()])
def test_the_unforeseen_is_internal_and_says_nothing(authorizer, caplog, error):
    refusal = authorizer.telling.refusal(call(), error)

    assert (refusal.code, refusal.message) == (Code.INTERNAL, "Internal error")
    assert b"secret" not in refusal.details
    assert "secret" not in caplog.text


def test_a_refusal_is_logged_with_method_and_reason(authorizer, caplog):
    caplog.set_level("INFO", "authz")

    authorizer.telling.refusal(call(), BadSignatureError("words for the developer"))

    assert caplog.records[-1].fields == {"method": METHOD, "code": "UNAUTHENTICATED", "reason": "signature_invalid"}


def test_a_forged_method_cannot_forge_a_log_line(authorizer, caplog):
    """D11."""
    caplog.set_level("INFO", "authz")

    authorizer.telling.refusal(call(method="/a\ncall_allowed method='/b'"), TokenMissingError())

    assert len(caplog.text.splitlines()) == 1


def test_the_token_is_never_logged(authorizer, caplog, other_key, claims):
    caplog.set_level("DEBUG", "authz")
    token = other_key.sign(claims())
    attempt = call(("authorization", f"Bearer {token}"))
    with pytest.raises(AuthzError) as caught:
        run(authorizer.authorize(attempt))

    authorizer.telling.refusal(attempt, caught.value)

    assert caplog.text
    assert not any(part in caplog.text for part in token.split("."))


def test_an_outage_is_a_refusal_that_may_be_retried(authorizer):
    refusal = authorizer.telling.refusal(call(), KeySetUnavailableError(retry_after=4.2))

    assert (refusal.code, refusal.headers) == (Code.UNAVAILABLE, (("retry-after", "5"),))


# ---- Construction ----


def test_a_verifier_alone_becomes_an_authorizer(verifier):
    judge = as_authorizer(verifier, [HEALTH])

    assert run(judge.authorize(call(method=HEALTH))) is ANONYMOUS
    assert judge.verifier is verifier


def test_an_authorizer_stays_itself(authorizer):
    assert as_authorizer(authorizer) is authorizer


def test_an_authorizer_has_its_own_public_methods(authorizer):
    with pytest.raises(ConfigError, match="public_methods and trust: give them to the Authorizer"):
        as_authorizer(authorizer, [METHOD])


@pytest.mark.parametrize("judge", [None, "https://acme.authkit.app", object(), Authorizer])
def test_something_else_is_no_judge(judge):
    with pytest.raises(ConfigError, match="a Verifier or an Authorizer is needed, not"):
        as_authorizer(judge)


def test_one_public_method_may_be_given_as_a_string(verifier):
    assert run(Authorizer(verifier, public_methods=HEALTH).authorize(call(method=HEALTH))) is ANONYMOUS


@pytest.mark.parametrize(
    "name", ["", "/", "grpc.health.v1.Health/Check", "/a b", "/a?b", "/a#b", "/a\n", "Health", "*"]
)
def test_public_methods_are_full_names(verifier, name):
    with pytest.raises(ConfigError, match=r"^public_methods: .* is not a full method name"):
        Authorizer(verifier, public_methods=[HEALTH, name])


@pytest.mark.parametrize("realm", ["", 'a"b', "a\\b", "a\nb", "é", "\x7f"])
def test_a_realm_can_stand_in_a_header(verifier, realm):
    with pytest.raises(ConfigError, match=r"^realm: "):
        Authorizer(verifier, realm=realm)


def test_the_trusted_names_can_be_chosen(verifier):
    trusted = TrustedMetadata(org_id="x-tenant")

    assert Authorizer(verifier, trusted=trusted).trusted is trusted
    assert Authorizer(verifier).trusted == TrustedMetadata()


def test_grpc_entries_are_metadata(token, verifier):
    entries = (Entry("authorization", f"Bearer {token}"), Entry("trace-bin", b"\0"))

    assert run(Authorizer(verifier).authorize(call(*entries))).org_id == ORG
