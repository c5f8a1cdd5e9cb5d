"""Tokens as issuers other than WorkOS write them: an application's is accepted, a person's of the same issuer is not.

The shapes are those that the issuers document for ``client_credentials`` and for a person's login.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from authz.errors import ClaimError, ConfigError
from authz.issuer.verifier import Verifier
from authz.settings.settings import VerifierSettings
from authz.token.claims import ClaimRules, principal_from
from authz.token.profiles import PROFILES, ProfileName, TokenProfile, profile_of
from tests.doubles import ABSENT, AUDIENCE, ISSUER, NOW, ORG, jwks

DOCUMENT = (Path(__file__).parents[2] / "docs/issuers.md").read_text(encoding="utf-8")
TIMES = {"iat": int(NOW), "nbf": int(NOW), "exp": int(NOW) + 300}
API = "api://orders"


class Shape(NamedTuple):
    """The claims of one issuer, and the settings that its verifier needs."""

    profile: TokenProfile
    issuer: str
    claims: dict[str, object]
    person: dict[str, object]
    client_id: str
    scopes: frozenset[str]


AUTH0 = "0KpD5Yz1mJ7t2ExampleClientId0001"
GUID = "11112222-bbbb-3333-cccc-4444dddd5555"
SERVICE_ACCOUNT = "b0d2ba0a-7d42-4d2b-9a4e-0c1f5a2f7b11"
SHAPES = {
    "auth0": Shape(
        profile_of("auth0"),
        "https://acme.eu.auth0.com/",
        {
            "sub": f"{AUTH0}@clients",
            "aud": API,
            "azp": AUTH0,
            "gty": "client-credentials",
            "scope": "orders:read orders:write",
            "org_id": ORG,
        },
        {"sub": "auth0|65f1c0ffee", "gty": ABSENT, "aud": [API, "https://acme.eu.auth0.com/userinfo"]},
        AUTH0,
        frozenset({"orders:read", "orders:write"}),
    ),
    "entra": Shape(
        profile_of("entra", org_id="tid"),
        f"https://login.microsoftonline.com/{GUID}/v2.0",
        {
            "sub": "9d5f8a1e-0000-4000-8000-000000000001",
            "oid": "9d5f8a1e-0000-4000-8000-000000000001",
            "aud": API,
            "azp": "7c0a1b2c-0000-4000-8000-000000000002",
            "azpacr": "1",
            "idtyp": "app",
            "roles": ["orders.read"],
            "tid": GUID,
            "ver": "2.0",
        },
        {"idtyp": "user", "scp": "orders.read", "roles": ABSENT, "name": "A Person"},
        "7c0a1b2c-0000-4000-8000-000000000002",
        frozenset({"orders.read"}),
    ),
    "keycloak": Shape(
        profile_of("keycloak"),
        "https://id.acme.example/realms/partners",
        {
            "sub": SERVICE_ACCOUNT,
            "aud": [API, "account"],
            "azp": "freight",
            "client_id": "freight",
            "typ": "Bearer",
            "acr": "1",
            "scope": "orders:read profile",
            "preferred_username": "service-account-freight",
            "clientHost": "10.0.0.1",
            "org_id": ORG,
        },
        {"sid": "7c1d", "session_state": "7c1d", "client_id": ABSENT, "preferred_username": "a.person"},
        "freight",
        frozenset({"orders:read", "profile"}),
    ),
    "okta": Shape(
        profile_of("okta", org_id="org"),
        "https://acme.okta.com/oauth2/default",
        {
            "ver": 1,
            "sub": "0oa1b2c3d4e5f6g7h8i9",
            "aud": API,
            "cid": "0oa1b2c3d4e5f6g7h8i9",
            "scp": ["orders:read"],
            "org": ORG,
        },
        {"sub": "a.person@acme.example", "uid": "00u1b2c3d4e5f6g7h8i9"},
        "0oa1b2c3d4e5f6g7h8i9",
        frozenset({"orders:read"}),
    ),
}
EACH = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def principal(shape, **changes):
    options = {"allow_user_tokens": changes.pop("allow_user_tokens", False)}
    rules = ClaimRules(
        issuer=shape.issuer,
        audiences=frozenset({API}),
        org_id=re.compile(r"org_\w+|[0-9a-f-]{36}"),
        profile=shape.profile,
        **options,
    )
    claims = {**TIMES, "iss": shape.issuer, "jti": "1", **shape.claims, **changes}
    return principal_from({name: value for name, value in claims.items() if value is not ABSENT}, rules, NOW)


def refusal(shape, **changes):
    with pytest.raises(ClaimError) as caught:
        principal(shape, **changes)
    return caught.value


@EACH
def test_an_applications_token_names_organization_application_and_scopes(shape):
    caller = principal(shape)

    assert caller.org_id == shape.claims[shape.profile.org_id]
    assert (caller.client_id, caller.subject, caller.scopes) == (shape.client_id, shape.claims["sub"], shape.scopes)


@EACH
def test_a_persons_token_is_refused(shape):
    assert refusal(shape, **shape.person).reason in {"claim_invalid", "claim_missing"}


@EACH
def test_a_persons_token_is_refused_for_each_thing_that_marks_it(shape):
    """Each mark counts by itself."""
    profile = shape.profile
    marks = [{name: "7c1d"} for name in profile.person]
    marks += [{name: value} for name in profile.application for value in ("another", ABSENT, None, 5, [], "")]

    assert [str(refusal(shape, **mark)) for mark in marks if not refusal(shape, **mark).claim] == []


@EACH
def test_a_token_that_names_no_application_is_refused(shape):
    claim = shape.profile.client_id

    assert (refusal(shape, **{claim: ABSENT}).claim, refusal(shape, **{claim: ABSENT}).reason) == (
        claim,
        "claim_missing",
    )
    assert {refusal(shape, **{claim: value}).claim for value in ("", 5, None, ["x"], "a b", "a,b", "é")} == {claim}


@EACH
def test_a_token_without_an_organization_is_refused(shape):
    claim = shape.profile.org_id

    assert refusal(shape, **{claim: ABSENT}).reason == "claim_missing"
    assert {refusal(shape, **{claim: value}).claim for value in ("", 5, None, [ORG], "org_1\r\nx: y", "org 1")} == {
        claim
    }


@EACH
def test_where_persons_are_allowed_their_application_is_known_too(shape):
    changes = {name: value for name, value in shape.person.items() if name != shape.profile.client_id}

    assert principal(shape, allow_user_tokens=True, **changes).client_id == shape.client_id


@EACH
def test_no_profile_takes_the_token_of_another(shape):
    others = [other for other in SHAPES.values() if other is not shape]
    taken = []
    for other in others:
        try:
            taken.append(principal(shape._replace(claims=other.claims)).client_id)
        except ClaimError:
            continue

    assert taken == []


def test_the_default_is_workos():
    assert ClaimRules(issuer=ISSUER, audiences=frozenset({AUDIENCE})).profile == PROFILES["workos"]
    assert VerifierSettings(issuer=ISSUER, audience=[AUDIENCE]).token_profile == "workos"


def test_every_profile_has_a_name_of_the_setting_a_token_and_a_column_of_the_document():
    [head] = [line for line in DOCUMENT.splitlines() if line.startswith("| | ")]

    assert get_args(ProfileName) == tuple(re.findall(r"`(\w+)`", head))
    assert PROFILES.keys() == {"workos", *SHAPES} == set(get_args(ProfileName))


def test_a_name_for_scopes_that_is_missing_is_no_scope_of_another_claim():
    shape = SHAPES["okta"]

    assert principal(shape, scp=ABSENT, **{"": "admin", "scope": "admin"}).scopes == frozenset()


@pytest.mark.parametrize(
    ("profile", "changes", "message"),
    [
        ("keykloak", {}, r"^token_profile: 'keykloak' is unknown; choose one of workos, auth0, entra, keycloak, okta"),
        ("workos", {"org_id": ""}, r"^org_id_claim: "),
        ("workos", {"client_id": ""}, r"^client_id_claim: "),
        ("workos", {"person": ("",)}, r"^token_profile: "),
    ],
)
def test_a_profile_that_cannot_be_is_an_error(profile, changes, message):
    with pytest.raises(ConfigError, match=message):
        profile_of(profile, **changes)


def test_a_verifier_takes_a_name_or_a_profile_of_its_own(ec_key):
    options = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(ec_key), "algorithms": ["ES256"]}
    claims = {**TIMES, "iss": ISSUER, "aud": AUDIENCE, "sub": "me", "cid": "me", "https://acme.example/org": ORG}
    claims |= {"exp": 4_000_000_000, "iat": 1_700_000_000, "nbf": 1_700_000_000}
    verifier = Verifier(**options, profile=profile_of("okta", org_id="https://acme.example/org"))

    assert verifier.verify(ec_key.sign(claims)).org_id == ORG
    with pytest.raises(ClaimError):
        Verifier(**options, profile="okta").verify(ec_key.sign(claims))
    with pytest.raises(ConfigError, match=r"^token_profile: "):
        Verifier(**options, profile="other")


def test_the_settings_name_the_claims(no_settings, monkeypatch, ec_key, tmp_path):  # noqa: ARG001 - works in a folder
    (tmp_path / "keys.json").write_text(json.dumps(jwks(ec_key)))
    for name, value in {
        "ISSUER": ISSUER,
        "AUDIENCE": AUDIENCE,
        "JWKS": str(tmp_path / "keys.json"),
        "ALGORITHMS": "ES256",
        "TOKEN_PROFILE": "okta",
        "ORG_ID_CLAIM": "organization",
        "CLIENT_ID_CLAIM": "app",
    }.items():
        monkeypatch.setenv(f"AUTHZ_{name}", value)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": 4_000_000_000, "sub": "me", "app": "me", "organization": ORG}

    assert Verifier.from_env().verify(ec_key.sign(claims)).client_id == "me"
