import re
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest

from authz.demo.issuer.directory import load_directory
from authz.demo.issuer.program import Issuer, OAuthCode, OAuthError, SigningKey
from authz.errors import ConfigError

URL = "https://acme.authkit.app"


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def test_claims_are_those_workos_documents(issuer, acme, clock):
    token, _ = issuer.grant(acme)
    claims = claims_of(token)

    assert re.fullmatch(r"01[0-9A-HJKMNP-TV-Z]{24}", claims.pop("jti"))
    assert {
        "iss": URL,
        "aud": "client_01JYENV0000000000000000000",
        "sub": acme.client_id,
        "client_id": acme.client_id,
        "org_id": acme.org_id,
        "scope": "ledger:read ledger:write",
        "iat": int(clock.now),
        "exp": int(clock.now) + 300,
    } == claims


def test_header_is_exactly_alg_and_kid(issuer, acme, rsa_key):
    assert {"alg": "RS256", "kid": rsa_key.kid} == jwt.get_unverified_header(issuer.grant(acme)[0])


def test_made_key_has_a_kid_like_those_of_workos(directory):
    key = Issuer(URL, directory=directory).keys[0]

    assert re.fullmatch(r"sso_oidc_key_pair_01[0-9A-Z]{24}", key.kid)
    assert key.algorithm == "RS256"


def test_pyjwt_verifies_a_token_with_the_key_set(directory, rsa_key, acme):
    issuer = Issuer(URL, directory=directory, keys=[rsa_key])
    token, _ = issuer.grant(acme)
    key = jwt.PyJWKSet.from_dict(issuer.jwks())[rsa_key.kid]

    verified = jwt.decode(token, key, algorithms=["RS256"], audience=directory.audience, issuer=URL)

    assert acme.org_id == verified["org_id"]


def test_every_token_has_its_own_jti(issuer, acme):
    assert len({claims_of(issuer.grant(acme)[0])["jti"] for _ in range(10)}) == 10


def test_key_set_shows_no_private_member(issuer):
    (member,) = issuer.jwks()["keys"]

    assert {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa-1"}.items() <= member.items()
    assert {"n", "e"} == member.keys() - {"kty", "use", "alg", "kid"}


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        pytest.param(None, "ledger:read ledger:write", id="all-of-them"),
        pytest.param("ledger:read", "ledger:read", id="a-subset"),
        pytest.param("ledger:write ledger:read", "ledger:read ledger:write", id="another-order"),
        pytest.param("ledger:read ledger:read", "ledger:read", id="twice"),
    ],
)
def test_granted_scope_is_what_was_asked_for(issuer, acme, asked, granted):
    token, scope = issuer.grant(acme, asked)

    assert (granted, granted) == (scope, claims_of(token)["scope"])


@pytest.mark.parametrize(
    "scope", ["ledger:admin", "ledger:read ledger:admin", "ledger", "LEDGER:READ", " ", "ledger:read "]
)
def test_scope_beyond_the_application_is_refused(issuer, acme, scope):
    with pytest.raises(OAuthError) as refusal:
        issuer.grant(acme, scope)

    assert OAuthCode.INVALID_SCOPE is refusal.value.code


def test_application_without_scopes_gets_no_scope_claim(issuer, bare):
    token, scope = issuer.grant(bare)

    assert (scope, "scope" in claims_of(token)) == ("", False)


def test_sign_in_application_gets_no_m2m_token(issuer, sign_in):
    with pytest.raises(OAuthError) as refusal:
        issuer.grant(sign_in)

    assert OAuthCode.UNAUTHORIZED_CLIENT is refusal.value.code


def test_right_secret_authenticates(issuer, acme):
    assert acme == issuer.authenticate(acme.client_id, acme.client_secret)


@pytest.mark.parametrize(
    ("client_id", "client_secret"),
    [
        pytest.param("client_01JYACME000000000000000002", "wrong", id="wrong-secret"),
        pytest.param("client_01JYACME000000000000000002", "", id="empty-secret"),
        pytest.param("client_01JYACME000000000000000002", "globex-development-secret", id="secret-of-another"),
        pytest.param("client_01JYACME000000000000000002", "ä", id="not-ascii"),
        pytest.param("client_unknown", "acme-development-secret", id="unknown-client"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_wrong_credentials_are_all_refused_alike(issuer, client_id, client_secret):
    with pytest.raises(OAuthError) as refusal:
        issuer.authenticate(client_id, client_secret)

    assert (refusal.value.code, refusal.value.status) == (OAuthCode.INVALID_CLIENT, 401)


def test_minted_claims_are_laid_over_and_taken_away(issuer, acme):
    claims = claims_of(issuer.mint(acme.client_id, claims={"sub": "user_1", "sid": "app_consent_1", "org_id": None}))

    assert (claims["sub"], claims["sid"], claims.get("org_id")) == ("user_1", "app_consent_1", None)


def test_minted_header_is_laid_over(issuer, acme):
    header = jwt.get_unverified_header(issuer.mint(acme.client_id, header={"typ": "at+jwt"}))

    assert header["typ"] == "at+jwt"


@pytest.mark.parametrize(
    ("expires_in", "iat"),
    [(300, 0), (3600, 0), (60, -240), (0, -300), (-10, -310)],
)
def test_short_lived_tokens_were_issued_earlier(issuer, acme, clock, expires_in, iat):
    claims = claims_of(issuer.mint(acme.client_id, expires_in=expires_in))

    assert (clock.now + iat, clock.now + expires_in) == (claims["iat"], claims["exp"])


def test_unknown_application_cannot_be_minted_for(issuer):
    with pytest.raises(LookupError):
        issuer.mint("client_unknown")


def test_rotation_signs_with_a_new_key_and_publishes_both(directory, ec_key, acme):
    issuer = Issuer(URL, directory=directory, keys=[ec_key])
    new = issuer.rotate()

    assert new.kid == jwt.get_unverified_header(issuer.mint(acme.client_id))["kid"]
    assert [new.kid, "ec-1"] == [key["kid"] for key in issuer.jwks()["keys"]]


def test_rotation_can_drop_the_old_keys(directory, ec_key):
    issuer = Issuer(URL, directory=directory, keys=[ec_key])
    new = issuer.rotate(drop=True)

    assert [new.kid] == [key["kid"] for key in issuer.jwks()["keys"]]


def test_rotation_that_cannot_be_saved_does_not_happen(directory, ec_key):
    def full(_keys):
        raise ConfigError

    issuer = Issuer(URL, directory=directory, keys=[ec_key], on_rotate=full)

    with pytest.raises(ConfigError):
        issuer.rotate()
    assert (ec_key,) == issuer.keys


def test_good_token_introspects_in_the_shape_of_workos(issuer, acme):
    token, _ = issuer.grant(acme)
    claims = claims_of(token)
    del claims["scope"]

    assert {"active": True, "token_type": "access_token", **claims} == issuer.introspect(token)


def test_user_token_introspects_with_its_sid(issuer, acme):
    token = issuer.mint(acme.client_id, claims={"sub": "user_1", "sid": "app_consent_1"})

    assert issuer.introspect(token)["sid"] == "app_consent_1"


def test_token_without_jti_introspects_without_one(issuer, acme):
    answer = issuer.introspect(issuer.mint(acme.client_id, claims={"jti": None}))

    assert (answer["active"], "jti" in answer) == (True, False)


@pytest.mark.parametrize(
    ("later", "active"),
    [pytest.param(299, True, id="a-second-before"), pytest.param(300, False, id="at-exp")],
)
def test_token_is_active_until_it_expires(issuer, acme, clock, later, active):
    token, _ = issuer.grant(acme)
    clock.now += later

    assert active is issuer.introspect(token)["active"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.authkit.app"},
        {"client_id": "client_unknown"},
        {"client_id": None},
        {"client_id": ["client_01JYACME000000000000000002"]},
        {"exp": None},
        {"exp": "2100-01-01"},
    ],
)
def test_token_with_foreign_claims_is_inactive(issuer, acme, changes):
    assert issuer.introspect(issuer.mint(acme.client_id, claims=changes)) == {"active": False}


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "..", "é.é.é", "\x00" * 100])
def test_garbage_is_inactive(issuer, token):
    assert issuer.introspect(token) == {"active": False}


def test_token_of_another_issuer_is_inactive(issuer, acme, directory, ec_key, clock):
    forged = Issuer(URL, directory=directory, keys=[ec_key], clock=clock).mint(acme.client_id)

    assert issuer.introspect(forged) == {"active": False}


def test_token_of_a_dropped_key_is_inactive(directory, ec_key, acme):
    issuer = Issuer(URL, directory=directory, keys=[ec_key])
    token = issuer.mint(acme.client_id)

    issuer.rotate()
    assert issuer.introspect(token)["active"]
    issuer.rotate(drop=True)
    assert issuer.introspect(token) == {"active": False}


def test_revoked_token_is_inactive_and_others_are_not(issuer, acme):
    token, other = issuer.mint(acme.client_id), issuer.mint(acme.client_id)
    revoked = issuer.revoke(token=token)

    assert claims_of(token)["jti"] == revoked
    assert [issuer.introspect(one)["active"] for one in (token, other)] == [False, True]


def test_revoked_jti_is_inactive(issuer, acme):
    token = issuer.mint(acme.client_id, claims={"jti": "jti-1"})
    issuer.revoke(jti="jti-1")

    assert issuer.introspect(token) == {"active": False}


def test_revoked_application_loses_its_tokens_and_its_secret(issuer, acme, globex):
    token, other = issuer.mint(acme.client_id), issuer.mint(globex.client_id)
    issuer.revoke(client_id=acme.client_id)

    assert [issuer.introspect(one)["active"] for one in (token, other)] == [False, True]
    with pytest.raises(OAuthError):
        issuer.authenticate(acme.client_id, acme.client_secret)


@pytest.mark.parametrize("what", [{"token": "garbage"}, {"client_id": "client_unknown"}])
def test_unknown_things_cannot_be_revoked(issuer, what):
    with pytest.raises(LookupError):
        issuer.revoke(**what)


def test_token_without_jti_cannot_be_revoked(issuer, acme):
    with pytest.raises(LookupError, match="without jti"):
        issuer.revoke(token=issuer.mint(acme.client_id, claims={"jti": None}))


@pytest.mark.parametrize("what", [{}, {"jti": "1", "client_id": "client_1"}])
def test_exactly_one_thing_is_revoked(issuer, what):
    with pytest.raises(TypeError):
        issuer.revoke(**what)


def test_issuer_without_url_mints_nothing(rsa_key):
    issuer = Issuer(keys=[rsa_key])

    with pytest.raises(RuntimeError):
        issuer.mint(load_directory().applications[0].client_id)


def test_given_url_stays_when_served_elsewhere(issuer):
    issuer.served_at("http://127.0.0.1:9190")

    assert issuer.url == URL


@pytest.mark.parametrize("url", ["http://127.0.0.1:9190", "http://[::1]:9190", "https://acme.authkit.app"])
def test_origin_can_be_an_issuer(rsa_key, url):
    assert url == Issuer(url, keys=[rsa_key]).url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "acme.authkit.app",
        "ftp://acme.authkit.app",
        "HTTPS://acme.authkit.app",
        "https://acme.authkit.app/",
        "https://acme.authkit.app/path",
        "https://acme.authkit.app?query",
        "https://user@acme.authkit.app",
        "https://acme.authkit.app:port",
        "https://acme.authkit.app\n",
        "http://0.0.0.0:9190",
        "http://[::]:9190",
    ],
)
def test_other_urls_cannot_be_an_issuer(rsa_key, url):
    with pytest.raises(ConfigError, match=r"^issuer_url: [^\n]*$"):
        Issuer(url, keys=[rsa_key])


def test_threads_share_an_issuer(directory, acme):
    issuer = Issuer(URL, directory=directory, keys=[SigningKey.generate("ec-1", "ES256")])

    def use(number):
        if number % 10 == 0:
            issuer.rotate()
        token = issuer.mint(acme.client_id)
        if number % 2:
            issuer.revoke(token=token)
        return issuer.introspect(token)["active"]

    with ThreadPoolExecutor(8) as pool:
        active = list(pool.map(use, range(200)))

    assert [number % 2 == 0 for number in range(200)] == active
    assert len(issuer.keys) == 21
