"""What Envoy adds to a request: what its route requires, and what its other filters have verified."""

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from authz.demo.issuer.signing import SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from tests.doubles import AUDIENCE, ISSUER, ORG, ManualClock, jwks, m2m_claims
from tests.envoy.check.messages import FORMS, GRPC, Denial, Form, bearer, in_header_map, in_headers, is_sound
from tests.envoy.check.test_servicer import PUBLIC, Ask, asker, questions

JWT_AUTHN = "envoy.filters.http.jwt_authn"
PAYLOAD = "verified"


@pytest.fixture(scope="module")
def authorizer(ec_key: SigningKey) -> Authorizer:
    verifier = Verifier(
        issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=ManualClock().clock
    )
    return Authorizer(verifier, public_methods=[PUBLIC])


@pytest.fixture(scope="module")
def ask(authorizer: Authorizer) -> Ask:
    """Ask a server that trusts no filter of Envoy."""
    return asker(authorizer)


@pytest.fixture(scope="module")
def ask_believer(authorizer: Authorizer) -> Ask:
    """Ask a server that trusts jwt_authn."""
    return asker(authorizer, jwt_authn_payload=PAYLOAD)


@pytest.fixture(scope="module")
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


# ---- context_extensions ----


def on_route(question: CheckRequest, **extensions: str) -> CheckRequest:
    question.attributes.context_extensions.update(extensions)
    return question


@each_form
def test_route_names_the_scopes_that_a_caller_lacks(ask: Ask, token: str, form: Form) -> None:
    denial = Denial(ask(on_route(form(GRPC, bearer(token)), scopes="ledger:write ledger:close")))

    assert (denial.code, denial.http_status, denial.reason) == (7, 403, "INSUFFICIENT_SCOPE")
    assert denial.headers["www-authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="ledger:close ledger:write"'
    )


@each_form
def test_route_admits_callers_that_have_what_it_requires(ask: Ask, token: str, form: Form) -> None:
    wanted = on_route(form(GRPC, bearer(token)), scopes="ledger:write", audience=AUDIENCE, virtual_host="ledger")

    assert ask(wanted).status.code == 0


@pytest.mark.parametrize(
    ("extensions", "code", "reason"),
    [
        ({"audience": "client_01JYOTHER"}, 16, "CLAIM_INVALID"),
        ({"policy": "nobody-knows"}, 13, "INTERNAL"),
        ({"scope": "ledger:write"}, 13, "INTERNAL"),
        ({"scopes": ""}, 13, "INTERNAL"),
        ({"authz.scopes": "ledger:write"}, 13, "INTERNAL"),
    ],
)
def test_route_keeps_a_good_token_out(ask: Ask, token: str, extensions: dict[str, str], code: int, reason: str) -> None:
    denial = Denial(ask(on_route(in_headers(GRPC, bearer(token)), **extensions)))

    assert (denial.code, denial.reason) == (code, reason)


def test_requirements_of_a_route_win_over_a_public_path(ask: Ask, token: str) -> None:
    assert ask(on_route(in_headers(GRPC, path=PUBLIC), virtual_host="ledger")).status.code == 0
    assert Denial(ask(on_route(in_headers(GRPC, path=PUBLIC), audience=AUDIENCE))).reason == "TOKEN_MISSING"
    assert ask(on_route(in_headers(GRPC, bearer(token), path=PUBLIC), audience=AUDIENCE)).status.code == 0


@given(st.dictionaries(st.sampled_from(["audience", "scopes", "policy", "scope", "authz.x"]) | st.text(), st.text()))
def test_no_configuration_of_a_route_opens_the_door(ask: Ask, token: str, extensions: dict[str, str]) -> None:
    assert Denial(ask(on_route(in_headers(GRPC), **extensions))).reason == "TOKEN_MISSING"
    # Neither text above is what the token has, so whatever is asked is more than it grants.
    is_asked = {"audience", "scopes", "policy", "scope", "authz.x"} & extensions.keys()
    assert not is_asked or Denial(ask(on_route(in_headers(GRPC, bearer(token)), **extensions))).code in {7, 13, 16}


# ---- metadata_context ----


def vouched(
    question: CheckRequest, claims: Mapping[str, Any], *, key: str = PAYLOAD, namespace: str = JWT_AUTHN
) -> CheckRequest:
    """Return ``question`` with what jwt_authn leaves when it has verified a token."""
    payload: Struct = question.attributes.metadata_context.filter_metadata[namespace]
    payload.update({key: dict(claims)})
    return question


def organizations(response: CheckResponse) -> list[str]:
    assert is_sound(response)
    return [option.header.value for option in response.ok_response.headers if option.header.key == "x-org-id"]


@each_form
def test_claims_that_envoy_has_verified_name_the_caller(ask_believer: Ask, form: Form) -> None:
    # Numbers of a Struct are all floats.
    assert organizations(ask_believer(vouched(form(GRPC), m2m_claims()))) == [ORG]


@each_form
def test_by_default_nothing_that_envoy_has_verified_is_believed(ask: Ask, form: Form) -> None:
    assert Denial(ask(vouched(form(GRPC), m2m_claims()))).reason == "TOKEN_MISSING"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1.0}, "TOKEN_EXPIRED"),
        ({"exp": float("nan")}, "CLAIM_MISSING"),
        ({"exp": "1800000300"}, "CLAIM_INVALID"),
        ({"iss": "https://evil.example"}, "CLAIM_INVALID"),
        ({"aud": ["other"]}, "CLAIM_INVALID"),
        ({"org_id": None}, "CLAIM_INVALID"),
        ({"org_id": {"id": ORG}}, "CLAIM_INVALID"),
        ({"sid": "session_1"}, "CLAIM_INVALID"),
    ],
)
def test_claims_that_envoy_has_verified_obey_the_rules(ask_believer: Ask, changes: dict[str, Any], reason: str) -> None:
    assert Denial(ask_believer(vouched(in_headers(GRPC), m2m_claims(**changes)))).reason == reason


@each_form
def test_authorization_decides_over_what_envoy_has_verified(ask_believer: Ask, ec_key: SigningKey, form: Form) -> None:
    other = ec_key.sign(m2m_claims(org_id="org_token"))

    assert organizations(ask_believer(vouched(form(GRPC, bearer(other)), m2m_claims()))) == ["org_token"]
    for header in (("authorization", ""), ("authorization", "Basic YTpi"), ("Authorization", "Bearer a.b.c")):
        assert Denial(ask_believer(vouched(form(GRPC, header), m2m_claims()))).reason == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "question",
    [
        vouched(in_headers(GRPC), m2m_claims(), key="another"),
        vouched(in_headers(GRPC), m2m_claims(), namespace="envoy.filters.http.lua"),
        vouched(in_headers(GRPC), {PAYLOAD: m2m_claims()}, key="another"),
        in_headers(GRPC, ("x-verified", str(m2m_claims()))),
        in_header_map(GRPC),
    ],
    ids=["key", "filter", "deeper", "header", "none"],
)
def test_nothing_else_that_envoy_hands_over_is_believed(ask_believer: Ask, question: CheckRequest) -> None:
    route = question.attributes.route_metadata_context.filter_metadata[JWT_AUTHN]
    route.update({PAYLOAD: m2m_claims()})

    assert Denial(ask_believer(question)).reason == "TOKEN_MISSING"


@pytest.mark.parametrize("value", [None, True, 1.0, "text", [m2m_claims()]])
def test_payload_that_is_no_object_is_none(ask_believer: Ask, value: Any) -> None:
    question = in_headers(GRPC)
    question.attributes.metadata_context.filter_metadata[JWT_AUTHN].update({PAYLOAD: value})

    assert Denial(ask_believer(question)).reason == "TOKEN_MISSING"


def test_what_a_route_asks_is_asked_of_verified_claims_too(ask_believer: Ask) -> None:
    question = on_route(vouched(in_headers(GRPC), m2m_claims()), scopes="ledger:close")

    assert Denial(ask_believer(question)).reason == "INSUFFICIENT_SCOPE"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(questions(), st.sampled_from(sorted(m2m_claims())), json_values)
def test_no_other_claims_open_the_door(ask_believer: Ask, question: CheckRequest, name: str, value: Any) -> None:
    """Whatever one claim becomes, only valid variations are admitted."""
    response = ask_believer(vouched(question, m2m_claims(**{name: value})))

    assert is_sound(response)
    assert response.status.code != 0 or name in {"jti", "iat", "scope", "exp"}
    assert response.status.code != 13 or question.attributes.context_extensions


@given(questions(), st.data())
def test_no_damage_to_what_envoy_says_is_unforeseen(
    ask_believer: Ask, question: CheckRequest, data: st.DataObject
) -> None:
    claims = m2m_claims(exp=1, aud="another")
    damaged = bytearray(vouched(question, claims).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    response = ask_believer(bytes(damaged))

    assert is_sound(response)
    assert response.status.code not in {0, 13}
