import contextlib
import re
from types import MappingProxyType

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import AuthzError, ClaimError, TokenExpiredError
from authz.token.claims import ClaimRules, check_issuer, is_expired, principal_from
from tests.doubles import ABSENT, AUDIENCE, CLIENT, ISSUER, NOW, ORG, m2m_claims

RULES = ClaimRules(issuer=ISSUER, audiences=frozenset({AUDIENCE}))
LEEWAY = RULES.leeway


def rules(**changes):
    return ClaimRules(**{"issuer": ISSUER, "audiences": frozenset({AUDIENCE}), **changes})


def principal(*, rules=RULES, now=NOW, **changes):
    return principal_from(m2m_claims(**changes), rules, now)


def refusal(**arguments):
    with pytest.raises(ClaimError) as caught:
        principal(**arguments)
    return caught.value.claim, caught.value.reason


def test_a_good_token_names_its_principal():
    caller = principal()

    assert (caller.org_id, caller.client_id, caller.subject) == (ORG, CLIENT, CLIENT)
    assert (caller.issuer, caller.audience, caller.token_id) == (ISSUER, (AUDIENCE,), "01JYTOKEN00000000000000000")
    assert (caller.issued_at, caller.expires_at) == (NOW, NOW + 300)
    assert caller.scopes == {"ledger:read", "ledger:write"}


THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
NO_STRINGS = [5, 1.5, True, None, [], {}, ["x"], {"x": 1}]
NO_TIMES = ["1800000000", "", True, False, None, [], {}, [1_800_000_000], -1, -0.5]


def rows(row, claim, values, reason="claim_invalid"):
    return [pytest.param({claim: value}, claim, reason, id=f"{row}-{claim}-{value!a:.40}") for value in values]


@pytest.mark.parametrize(
    ("changes", "claim", "reason"),
    [
        *rows("D1", "iss", [ABSENT], "claim_missing"),
        *rows("D1", "iss", [*NO_STRINGS, "", ISSUER + "/", ISSUER.upper(), ISSUER[:-1], ISSUER + ".evil.example"]),
        *rows("D1", "iss", [[ISSUER], {ISSUER: 1}, "acme.authkit.app", "http" + ISSUER[5:], ISSUER + "\n"]),
        *rows("D2", "aud", [ABSENT], "claim_missing"),
        *rows("D2", "aud", [*NO_STRINGS, "", AUDIENCE[:-1], AUDIENCE + "x", AUDIENCE.lower(), f"{AUDIENCE} other"]),
        *rows("D2", "aud", [{AUDIENCE: 1}, [[AUDIENCE]], [AUDIENCE, 5], [AUDIENCE, None], [AUDIENCE, []], ["other"]]),
        *rows("D3", "exp", [ABSENT], "claim_missing"),
        *rows("D3", "exp", [*NO_TIMES, float("nan"), float("inf"), 1e308, 10**400, 253_402_300_800]),
        *rows("D3", "exp", [0, 1, NOW - 3600], "token_expired"),
        *rows("D4", "nbf", [*NO_TIMES, float("nan"), float("inf"), 1e308, 10**400, NOW + LEEWAY + 1]),
        *rows("D4", "iat", [*NO_TIMES, float("nan"), float("inf"), 1e308, 10**400, NOW + LEEWAY + 1]),
        *rows("D5", "sub", [ABSENT], "claim_missing"),
        *rows("D5", "sub", [*NO_STRINGS, "", "user_01JY", "client_other", "a b", "a,b", "a\n", "\u00e9", "x" * 257]),
        *rows("D5", "client_id", [*NO_STRINGS, "", "a b", "a\r\nx-org-id: b"]),
        *rows("D6", "sid", ["app_consent_01JY", "", None, 5]),
        *rows("D7", "org_id", [ABSENT], "claim_missing"),
        *rows("D7", "org_id", [*NO_STRINGS, "", "org_", "org", "x" + ORG, ORG + " ", ORG + "\n", ORG + "\r\nx-a: b"]),
        *rows(
            "D7", "org_id", ["\ud800", f"{ORG},org_b", "org_" + "a" * 5000, "org_" + "a" * 65, "org_a-b", "org_\u0661"]
        ),
        *rows("D7", "org_id", [[ORG], {"id": ORG}]),
        *rows("D8", "jti", [5, None, True, [], ["x"], {}]),
        *rows("D9", "nonce", ["n", None]),
        *rows("D9", "at_hash", ["h"]),
        *rows("D9", "c_hash", ["h"]),
        *rows("D9", "s_hash", ["h"]),
        *rows("D10", "scope", [5, None, True, {}, {"read": 1}, [5], [["read"]], [None], "a\tb", "a\nb", 'a"b', "a\\b"]),
        *rows("D10", "scope", ["\u00e9", "a\u00a0b", "x" * 2049]),
        *rows("H2", "cnf", [{"jkt": THUMBPRINT}, {"jkt": THUMBPRINT, "x5t#S256": THUMBPRINT}]),
        *rows("H3", "cnf", [{}, [], None, "x", 5, True, THUMBPRINT, [THUMBPRINT], {"kid": "rsa-1"}, {"jwk": {}}]),
        *rows("H3", "cnf", [{"x5t": THUMBPRINT}, {"X5T#S256": THUMBPRINT}, {"x5t#s256": THUMBPRINT}]),
        *rows("H1", "cnf", [{"x5t#S256": value} for value in (None, 5, [THUMBPRINT], {}, "", "hash")]),
        *rows("H1", "cnf", [{"x5t#S256": f"{THUMBPRINT}{more}"} for more in ("=", "A", "\n", " ")]),
        # Bits that are set beyond the 256th, and the other alphabet of base64.
        *rows("H1", "cnf", [{"x5t#S256": f"{THUMBPRINT[:-1]}B"}, {"x5t#S256": f"+{THUMBPRINT[1:]}"}]),
    ],
)
def test_wrong_claims_are_refused(changes, claim, reason):
    assert refusal(**changes) == (claim, reason)


def test_a_subject_that_is_a_person_is_refused_without_client_id_too():
    """D5: a user token may lack client_id; then only sub is left."""
    assert refusal(sub="user_01JY", client_id=ABSENT) == ("sub", "claim_invalid")


def test_a_user_token_of_the_same_issuer_audience_and_organization_is_refused():
    """D6."""
    assert refusal(sub="user_01JY", sid="app_consent_01JY") == ("sid", "claim_invalid")


def test_an_id_token_is_refused_by_its_audience():
    """D9: its audience is the application."""
    assert refusal(aud=CLIENT, sub="user_01JY") == ("aud", "claim_invalid")


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        pytest.param({"aud": [AUDIENCE]}, "audience", (AUDIENCE,), id="D2-list-of-one"),
        pytest.param({"aud": ["a", AUDIENCE]}, "audience", ("a", AUDIENCE), id="D2-list-of-several"),
        pytest.param({"exp": NOW + 0.5}, "expires_at", NOW + 0.5, id="D3-fraction"),
        pytest.param({"exp": 253_402_300_799}, "expires_at", 253_402_300_799.0, id="D3-end-of-9999"),
        pytest.param({"iat": ABSENT}, "issued_at", None, id="D4-iat-optional"),
        pytest.param({"iat": NOW + LEEWAY}, "issued_at", NOW + LEEWAY, id="D4-iat-at-the-leeway"),
        pytest.param({"nbf": NOW + LEEWAY}, "org_id", ORG, id="D4-nbf-at-the-leeway"),
        pytest.param({"iat": 0}, "issued_at", 0.0, id="D4-iat-1970"),
        pytest.param({"client_id": ABSENT}, "client_id", CLIENT, id="D5-client-id-optional"),
        pytest.param({"org_id": "org_" + "a" * 64}, "org_id", "org_" + "a" * 64, id="D7-longest"),
        pytest.param({"jti": ABSENT}, "token_id", "", id="D8-jti-optional"),
        pytest.param({"jti": "\r\n"}, "token_id", "\r\n", id="D8-jti-any-text"),
        pytest.param({"cnf": {"x5t#S256": THUMBPRINT}}, "certificate", THUMBPRINT, id="H1-certificate"),
        pytest.param({}, "certificate", "", id="H1-bearer"),
        pytest.param({"scope": ABSENT}, "scopes", set(), id="D10-no-scopes"),
        pytest.param({"scope": ""}, "scopes", set(), id="D10-empty"),
        pytest.param({"scope": "a  b "}, "scopes", {"a", "b"}, id="D10-double-spaces"),
        pytest.param({"scope": "read:all"}, "scopes", {"read:all"}, id="D10-exact-words"),
        pytest.param({"scope": ["a", "b"]}, "scopes", {"a", "b"}, id="D10-list"),
        pytest.param({"scope": ABSENT, "scp": ["a", "b"]}, "scopes", {"a", "b"}, id="D10-scp-list"),
        pytest.param({"scope": ABSENT, "scp": "a b"}, "scopes", {"a", "b"}, id="D10-scp-string"),
        pytest.param({"scope": "a", "scp": ["b"]}, "scopes", {"a"}, id="D10-scope-wins-over-scp"),
    ],
)
def test_claims_are_read(changes, field, value):
    assert getattr(principal(**changes), field) == value


def test_a_scope_is_no_prefix_of_another():
    """D10."""
    assert "read" not in principal(scope="read:all").scopes


# ---- Times: one second before, at, and after ----


@pytest.mark.parametrize(
    ("seconds", "expired"), [(LEEWAY - 1, False), (LEEWAY - 0.001, False), (LEEWAY, True), (LEEWAY + 1, True)]
)
def test_a_token_expires_at_exp_plus_leeway(seconds, expired):
    """D3: "on or after" is too late (RFC 7519 section 4.1.4)."""
    if expired:
        with pytest.raises(TokenExpiredError):
            principal(exp=NOW, now=NOW + seconds)
    else:
        assert principal(exp=NOW, now=NOW + seconds).expires_at == NOW


@pytest.mark.parametrize(("now", "expired"), [(99, False), (100, True), (101, True)])
def test_without_leeway_exp_itself_is_too_late(now, expired):
    assert is_expired(100.0, 0.0, now) is expired


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize(("seconds", "good"), [(LEEWAY - 1, True), (LEEWAY, True), (LEEWAY + 1, False)])
def test_a_token_of_the_future_is_refused(claim, seconds, good):
    if good:
        principal(**{claim: NOW + seconds})
    else:
        assert refusal(**{claim: NOW + seconds}) == (claim, "claim_invalid")


@pytest.mark.parametrize(("lifetime", "good"), [(299, True), (300, True), (301, False)])
def test_the_lifetime_can_be_limited(lifetime, good):
    limited = rules(max_lifetime=300.0)
    if good:
        principal(rules=limited, exp=NOW + lifetime)
    else:
        assert refusal(rules=limited, exp=NOW + lifetime) == ("exp", "claim_invalid")


def test_a_limited_lifetime_needs_an_iat():
    assert refusal(rules=rules(max_lifetime=300.0), iat=ABSENT) == ("iat", "claim_missing")


# ---- Options ----


def test_user_tokens_can_be_allowed():
    caller = principal(rules=rules(allow_user_tokens=True), sub="user_01JY", sid="app_consent_01JY")

    assert (caller.subject, caller.client_id) == ("user_01JY", CLIENT)


def test_an_allowed_user_token_without_client_id_has_none():
    caller = principal(rules=rules(allow_user_tokens=True), sub="user_01JY", client_id=ABSENT)

    assert (caller.subject, caller.client_id) == ("user_01JY", "")


@pytest.mark.parametrize(("claim", "value"), [("nonce", "n"), ("cnf", {"jkt": "t"}), ("org_id", ABSENT)])
def test_allowing_user_tokens_allows_nothing_else(claim, value):
    assert refusal(rules=rules(allow_user_tokens=True), **{claim: value})[0] == claim


@pytest.mark.parametrize(("org_id", "good"), [("acme-42", True), ("acme-42x", False), (ORG, False)])
def test_the_pattern_of_organizations_can_be_chosen(org_id, good):
    chosen = rules(org_id=re.compile(r"[a-z]+-\d+", re.ASCII))
    if good:
        assert principal(rules=chosen, org_id=org_id).org_id == org_id
    else:
        assert refusal(rules=chosen, org_id=org_id) == ("org_id", "claim_invalid")


@pytest.mark.parametrize("org_id", ["a\nb", "a b", "a,b", "", "é", 'a"b', "a\\b", "a\x7f", "x" * 257])
def test_no_pattern_lets_through_what_is_no_header_value(org_id):
    """D7: the value becomes a header whatever the operator's pattern says."""
    anything = rules(org_id=re.compile(r".*", re.DOTALL))

    assert refusal(rules=anything, org_id=org_id) == ("org_id", "claim_invalid")


def test_one_of_several_audiences_is_enough():
    several = rules(audiences=frozenset({"a", "b"}))

    assert principal(rules=several, aud="b").audience == ("b",)


# ---- Order, and what is kept ----


def test_another_issuer_is_reported_first():
    assert refusal(iss="https://evil.example", aud="x", exp=0, org_id=5) == ("iss", "claim_invalid")


def test_the_issuer_can_be_checked_alone():
    check_issuer({"iss": ISSUER}, RULES)
    with pytest.raises(ClaimError, match="another issuer"):
        check_issuer({"iss": "https://api.workos.com"}, RULES)


def test_every_claim_is_kept():
    assert principal(department={"id": 5}).claims["department"] == {"id": 5}


@pytest.mark.parametrize("path", [[], ["a"], ["a", 0]])
def test_claims_are_read_only_at_every_depth(path):
    kept = principal(a=[{"b": 1}]).claims
    for step in path:
        kept = kept[step]

    with pytest.raises(TypeError):
        kept["b" if isinstance(kept, MappingProxyType) else 0] = "forged"


def test_deep_claims_are_kept():
    """As deep as the parser lets through."""
    deep = {}
    for _ in range(250):
        deep = {"a": deep}

    assert principal(deep=deep).claims["deep"]


def test_errors_quote_no_value():
    with pytest.raises(AuthzError) as caught:
        principal(org_id="evil\nvalue")

    assert "evil" not in str(caught.value)


# ---- Whatever a token claims ----


ODD = st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
TIMES = st.integers(int(NOW) - 400, int(NOW) + 400) | ODD
NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "client_id", "org_id", "scope", "jti", "sid", "cnf"])


@given(st.dictionaries(NAMES, TIMES | st.sampled_from([ISSUER, AUDIENCE, [AUDIENCE], CLIENT, ORG]), max_size=4))
def test_no_claims_end_otherwise_than_in_a_principal_or_a_refusal(changes):
    with contextlib.suppress(ClaimError):
        caller = principal(**changes)
        assert (caller.org_id, caller.issuer, AUDIENCE in caller.audience) == (ORG, ISSUER, True)
        assert caller.expires_at > NOW - LEEWAY


@given(
    st.sampled_from([ISSUER, ISSUER + "/", "", None, [ISSUER]]),
    st.sampled_from([AUDIENCE, [AUDIENCE], ["x"], [], None, {}]),
)
def test_pyjwt_refuses_no_issuer_or_audience_that_is_taken_here(iss, aud):
    try:
        principal(iss=iss, aud=aud)
    except AuthzError:
        return
    encoded = jwt.encode(m2m_claims(iss=iss, aud=aud), "k" * 32, "HS256")
    jwt.decode(encoded, "k" * 32, ["HS256"], audience=AUDIENCE, issuer=ISSUER, options={"verify_iat": False})
