import base64
import json
import socket
from urllib.parse import quote_plus, urlsplit

import httpx2
import jwt
import pytest

TOKEN, INTROSPECTION = "/oauth2/token", "/oauth2/introspection"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def credentials(application):
    return {"client_id": application.client_id, "client_secret": application.client_secret}


def basic(client_id, client_secret):
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


@pytest.fixture
def ask(http):
    def ask(form, **headers):
        return http.post(TOKEN, data={"grant_type": "client_credentials", **form}, headers=headers)

    return ask


@pytest.fixture
def introspect(http, acme):
    def introspect(token, **form):
        return http.post(INTROSPECTION, data={**credentials(acme), "token": token, **form})

    return introspect


@pytest.fixture
def mint(http, acme):
    def mint(**order):
        return http.post("/dev/tokens", json={"client_id": acme.client_id, **order})

    return mint


def refusal(response):
    assert response.headers["cache-control"] == "no-store"
    assert {"error", "error_description"} == response.json().keys()
    return response.status_code, response.json()["error"]


def test_token_answer_is_that_of_workos(ask, acme):
    answer = ask(credentials(acme)).json()

    assert acme.org_id == claims_of(answer.pop("access_token"))["org_id"]
    assert answer == {"expires_in": 300, "token_type": "bearer", "scope": "ledger:read ledger:write"}


def test_issuer_of_a_token_is_the_url_it_came_from(ask, acme, shared_server):
    assert shared_server.url == claims_of(ask(credentials(acme)).json()["access_token"])["iss"]


def test_token_answer_must_not_be_stored(ask, acme):
    headers = ask(credentials(acme)).headers

    assert (headers["cache-control"], headers["pragma"]) == ("no-store", "no-cache")


def test_token_verifies_with_the_published_keys(ask, http, acme, directory, shared_server):
    token = ask(credentials(acme)).json()["access_token"]
    key = jwt.PyJWKSet.from_dict(http.get("/oauth2/jwks").json())[jwt.get_unverified_header(token)["kid"]]

    claims = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience=directory.audience,
        issuer=shared_server.url,
        options={"verify_exp": False, "verify_iat": False},
    )

    assert acme.client_id == claims["sub"]


def test_each_application_gets_its_own_organization(ask, acme, globex):
    tokens = [ask(credentials(application)).json()["access_token"] for application in (acme, globex)]

    assert [acme.org_id, globex.org_id] == [claims_of(token)["org_id"] for token in tokens]


def test_scope_narrows_the_token(ask, acme):
    answer = ask({**credentials(acme), "scope": "ledger:read"}).json()

    assert (answer["scope"], claims_of(answer["access_token"])["scope"]) == ("ledger:read", "ledger:read")


def test_scope_without_a_value_counts_as_left_out(ask, acme):
    assert ask({**credentials(acme), "scope": ""}).json()["scope"] == "ledger:read ledger:write"


def test_answer_without_scopes_names_none(ask, bare):
    assert {"access_token", "expires_in", "token_type"} == ask(credentials(bare)).json().keys()


def test_unknown_parameters_are_ignored(ask, acme):
    assert ask({**credentials(acme), "audience": "x", "resource": "y"}).status_code == 200


def test_basic_authenticates(ask, acme):
    assert ask({}, **basic(acme.client_id, acme.client_secret)).status_code == 200


def test_basic_scheme_has_any_case(ask, acme):
    headers = basic(acme.client_id, acme.client_secret)

    assert ask({}, authorization=headers["authorization"].replace("Basic", "bAsIc")).status_code == 200


def test_basic_credentials_were_form_encoded(http, sign_in):
    headers = basic(sign_in.client_id, sign_in.client_secret)

    assert http.post(INTROSPECTION, data={"token": "x"}, headers=headers).json() == {"active": False}


def test_basic_may_repeat_its_client_id_in_the_body(ask, acme):
    headers = basic(acme.client_id, acme.client_secret)

    assert ask({"client_id": acme.client_id}, **headers).status_code == 200


def test_wrong_secret_is_invalid_client(ask, acme):
    response = ask({"client_id": acme.client_id, "client_secret": "wrong"})

    assert refusal(response) == (401, "invalid_client")
    assert "www-authenticate" not in response.headers


def test_wrong_secret_in_basic_is_challenged(ask, acme):
    response = ask({}, **basic(acme.client_id, "wrong"))

    assert refusal(response) == (401, "invalid_client")
    assert response.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param("Bearer abc", id="another-scheme"),
        pytest.param("Basic", id="nothing-after-it"),
        pytest.param("Basic ???", id="not-base64"),
        pytest.param("Basic " + base64.b64encode(b"\xff:x").decode(), id="not-utf8"),
        pytest.param("Basic " + base64.b64encode(b"%ff:x").decode(), id="not-utf8-when-decoded"),
        pytest.param("Basic " + base64.b64encode(b"no colon").decode(), id="no-colon"),
    ],
)
def test_header_that_is_no_basic_is_invalid_client(ask, authorization):
    response = ask({}, authorization=authorization)

    assert refusal(response) == (401, "invalid_client")
    assert "www-authenticate" in response.headers


@pytest.mark.parametrize("missing", ["client_id", "client_secret"])
def test_missing_credentials_are_invalid_client(ask, acme, missing):
    form = credentials(acme)
    del form[missing]

    assert refusal(ask(form)) == (401, "invalid_client")


def test_two_ways_to_authenticate_are_refused(ask, acme):
    response = ask(credentials(acme), **basic(acme.client_id, acme.client_secret))

    assert refusal(response) == (400, "invalid_request")


def test_two_authorization_headers_are_refused(http, acme):
    header = ("authorization", basic(acme.client_id, acme.client_secret)["authorization"])
    response = http.post(TOKEN, data={"grant_type": "client_credentials"}, headers=[header, header])

    assert refusal(response) == (400, "invalid_request")


def test_basic_with_another_client_in_the_body_is_refused(ask, acme, globex):
    response = ask({"client_id": globex.client_id}, **basic(acme.client_id, acme.client_secret))

    assert refusal(response) == (400, "invalid_request")


def test_missing_grant_type_is_invalid_request(http, acme):
    assert refusal(http.post(TOKEN, data=credentials(acme))) == (400, "invalid_request")


@pytest.mark.parametrize("grant_type", ["password", "authorization_code", "refresh_token", "Client_Credentials"])
def test_other_grant_types_are_unsupported(ask, acme, grant_type):
    response = ask({**credentials(acme), "grant_type": grant_type})

    assert refusal(response) == (400, "unsupported_grant_type")


def test_sign_in_application_is_unauthorized_client(ask, sign_in):
    assert refusal(ask(credentials(sign_in))) == (400, "unauthorized_client")


def test_scope_beyond_the_application_is_invalid_scope(ask, acme):
    assert refusal(ask({**credentials(acme), "scope": "ledger:read admin"})) == (400, "invalid_scope")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(b"", FORM, id="empty"),
        pytest.param(b"grant_type", FORM, id="no-equals-sign"),
        pytest.param(b"grant_type=client_credentials&grant_type=client_credentials", FORM, id="twice"),
        pytest.param(b"grant_type=client_credentials&scope=&scope=", FORM, id="twice-without-value"),
        pytest.param(b"grant_type=\xff", FORM, id="not-utf8"),
        pytest.param(b"grant_type=%ff", FORM, id="not-utf8-when-decoded"),
        pytest.param(b"grant_type=client_credentials", {}, id="no-content-type"),
        pytest.param(b'{"grant_type":"client_credentials"}', {"content-type": "application/json"}, id="json"),
    ],
)
@pytest.mark.parametrize("path", [TOKEN, INTROSPECTION, "/dev/revoke"])
def test_what_is_no_plain_form_is_invalid_request(http, acme, path, body, headers):
    if path == INTROSPECTION and body == b"":
        headers = {**headers, **basic(acme.client_id, acme.client_secret)}

    assert refusal(http.post(path, content=body, headers=headers)) == (400, "invalid_request")


def test_form_may_name_its_charset(http, acme):
    body = f"grant_type=client_credentials&client_id={acme.client_id}&client_secret={acme.client_secret}"
    headers = {"content-type": "Application/X-WWW-Form-URLencoded; charset=utf-8"}

    assert http.post(TOKEN, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", [TOKEN, INTROSPECTION, "/dev/revoke", "/dev/rotate", "/dev/tokens"])
def test_large_body_is_refused(http, path):
    assert refusal(http.post(path, content=b"a=" + b"x" * 16_384, headers=FORM)) == (413, "invalid_request")


def test_large_body_in_chunks_is_refused(http):
    response = http.post(TOKEN, content=(b"x" * 1000 for _ in range(20)), headers=FORM)

    assert refusal(response) == (413, "invalid_request")


def test_largest_body_is_read(ask, acme):
    form = {"grant_type": "client_credentials", **credentials(acme), "padding": ""}
    length = len(httpx2.Request("POST", "http://x", data=form).read())

    assert ask({**credentials(acme), "padding": "x" * (16_384 - length)}).status_code == 200


def test_half_a_request_does_no_harm(http, shared_server):
    parts = urlsplit(shared_server.address)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\ngrant_type=")

    assert http.get("/oauth2/jwks").status_code == 200


@pytest.mark.parametrize("path", [TOKEN, INTROSPECTION, "/dev/revoke", "/dev/rotate", "/dev/tokens"])
def test_only_post_changes_or_grants(http, path):
    assert http.get(path).status_code == 405


def test_key_set_is_public(http):
    (member,) = http.get("/oauth2/jwks").json()["keys"]

    assert {"kty", "use", "alg", "kid", "n", "e"} == member.keys()


@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"])
def test_metadata_names_every_endpoint(http, shared_server, path):
    metadata = http.get(path).json()

    assert {
        "issuer": shared_server.url,
        "token_endpoint": f"{shared_server.url}/oauth2/token",
        "introspection_endpoint": f"{shared_server.url}/oauth2/introspection",
        "jwks_uri": f"{shared_server.url}/oauth2/jwks",
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": ["ledger:read", "ledger:write"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
    }.items() <= metadata.items()


def test_openid_metadata_names_the_algorithm(http):
    metadata = http.get("/.well-known/openid-configuration").json()

    assert metadata["id_token_signing_alg_values_supported"] == ["RS256"]


def test_front_page_warns_and_lists_the_controls(http, shared_server):
    text = http.get("/").text

    assert all(
        words in text
        for words in ("Never use it in production", shared_server.url, "/dev/rotate", "/dev/revoke", "/dev/tokens")
    )


def test_good_token_introspects_in_the_shape_of_workos(introspect, mint):
    token = mint().json()["access_token"]
    claims = claims_of(token)
    del claims["scope"]

    assert {"active": True, "token_type": "access_token", **claims} == introspect(token).json()


def test_any_client_may_introspect(http, mint, sign_in):
    token = mint().json()["access_token"]

    assert http.post(INTROSPECTION, data={**credentials(sign_in), "token": token}).json()["active"]


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
def test_type_hint_is_only_a_hint(introspect, mint, hint):
    assert introspect(mint().json()["access_token"], token_type_hint=hint).json()["active"]


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "é"])
def test_garbage_is_inactive_and_nothing_more(introspect, token):
    response = introspect(token)

    assert (response.status_code, response.json()) == (200, {"active": False})
    assert response.headers["cache-control"] == "no-store"


def test_expired_token_is_inactive(introspect, mint):
    assert introspect(mint(expires_in=0).json()["access_token"]).json() == {"active": False}


def test_introspection_needs_a_client(http, mint):
    response = http.post(INTROSPECTION, data={"token": mint().json()["access_token"]})

    assert refusal(response) == (401, "invalid_client")


def test_introspection_needs_a_token(introspect):
    assert refusal(introspect("")) == (400, "invalid_request")


def test_minted_token_is_signed_by_the_real_key(mint, rsa_key):
    token = mint(claims={"sub": "user_1", "sid": "app_consent_1", "aud": "client_other", "scope": None}).json()
    claims = rsa_key.open(token["access_token"])

    assert (claims["sub"], claims["sid"], claims["aud"]) == ("user_1", "app_consent_1", "client_other")
    assert "scope" not in claims


def test_minted_header_is_laid_over(mint):
    token = mint(header={"typ": "at+jwt", "kid": None}).json()["access_token"]

    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "at+jwt"}


def test_minted_token_may_be_expired_already(mint):
    answer = mint(expires_in=-60).json()
    claims = claims_of(answer["access_token"])

    assert (answer["expires_in"], claims["exp"] - claims["iat"]) == (-60, 300)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="not-json"),
        pytest.param("[" * 10_000, id="nested"),
        pytest.param("[]", id="no-object"),
        pytest.param("{}", id="no-client"),
        pytest.param('{"client_id": ["client_1"]}', id="client-no-string"),
        pytest.param('{"client_id": "client_unknown"}', id="unknown-client"),
        pytest.param('{"client_id": "client_1", "expire_in": 5}', id="unknown-member"),
        pytest.param('{"client_id": "client_1", "claims": []}', id="claims-no-object"),
        pytest.param('{"client_id": "client_1", "header": null}', id="header-no-object"),
        pytest.param('{"client_id": "client_1", "expires_in": true}', id="lifetime-boolean"),
        pytest.param('{"client_id": "client_1", "expires_in": "5"}', id="lifetime-string"),
        pytest.param('{"client_id": "client_1", "expires_in": NaN}', id="lifetime-nan"),
        pytest.param('{"client_id": "client_1", "expires_in": 1e400}', id="lifetime-infinite"),
        pytest.param(json.dumps({"client_id": "client_1", "expires_in": 10**400}), id="lifetime-huge"),
    ],
)
def test_wrong_orders_for_a_token_are_refused(http, body):
    assert refusal(http.post("/dev/tokens", content=body)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "form",
    [{}, {"token": "garbage"}, {"jti": "1", "client_id": "x"}, {"client_id": "client_unknown"}, {"sub": "x"}],
)
def test_wrong_orders_to_revoke_are_refused(http, form):
    assert refusal(http.post("/dev/revoke", data=form or {"jti": ""})) == (400, "invalid_request")


@pytest.mark.parametrize("form", [{"drop": "yes"}, {"dorp": "true"}])
def test_wrong_orders_to_rotate_are_refused(http, form):
    assert refusal(http.post("/dev/rotate", data=form)) == (400, "invalid_request")


def test_revoked_token_is_inactive(http, introspect, mint):
    token = mint().json()["access_token"]
    answer = http.post("/dev/revoke", data={"token": token}).json()

    assert {"revoked": claims_of(token)["jti"]} == answer
    assert introspect(token).json() == {"active": False}


def test_revoked_jti_is_inactive(http, introspect, mint):
    token = mint(claims={"jti": "jti-of-this-test"}).json()["access_token"]
    http.post("/dev/revoke", data={"jti": "jti-of-this-test"})

    assert introspect(token).json() == {"active": False}


def test_revoked_application_is_invalid_client_everywhere(own_http, acme, globex):
    form = {"grant_type": "client_credentials", **credentials(acme)}
    token = own_http.post(TOKEN, data=form).json()["access_token"]
    own_http.post("/dev/revoke", data={"client_id": acme.client_id})

    assert refusal(own_http.post(TOKEN, data=form)) == (401, "invalid_client")
    assert refusal(own_http.post(INTROSPECTION, data={**form, "token": token})) == (401, "invalid_client")
    assert own_http.post(INTROSPECTION, data={**credentials(globex), "token": token}).json() == {"active": False}


def test_rotation_publishes_the_new_key_beside_the_old(own_http, acme):
    answer = own_http.post("/dev/rotate").json()
    token = own_http.post("/dev/tokens", json={"client_id": acme.client_id}).json()["access_token"]
    published = [key["kid"] for key in own_http.get("/oauth2/jwks").json()["keys"]]

    assert [answer["kid"], "ec-1"] == answer["published"] == published
    assert answer["kid"] == jwt.get_unverified_header(token)["kid"]


def test_rotation_with_drop_publishes_the_new_key_alone(own_http):
    answer = own_http.post("/dev/rotate", data={"drop": "true"}).json()

    assert [answer["kid"]] == [key["kid"] for key in own_http.get("/oauth2/jwks").json()["keys"]]
