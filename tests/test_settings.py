"""Where a setting comes from, and what is said about a wrong one."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from authz.authorizer import Authorizer
from authz.call import Call
from authz.demo.signing import SigningKey
from authz.errors import AuthzError, ConfigError
from authz.flow import run
from authz.settings import Settings, VerifierSettings
from authz.verifier import Verifier
from tests.doubles import AUDIENCE, ISSUER, ORG, jwks, m2m_claims
from tests.loopback import Loopback
from tests.marked import service_file, with_imports

NEEDED = {"issuer": ISSUER, "audience": [AUDIENCE]}
SECRET = "a-secret-for-introspection"
# Port 9 (discard) has no HTTP server.
NOBODY = "http://127.0.0.1:9"
ASKS = {"introspect_max_age": 0, "introspection_client_id": "client_api", "introspection_url": NOBODY}


pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder where ``.env`` is looked for."""
    return tmp_path


def write_env_file(folder: Path, *lines: str) -> None:
    (folder / ".env").write_text("\n".join(lines), encoding="utf-8")


# ---- Where they come from ----


def test_values_go_before_variables_and_those_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env_file(folder, "AUTHZ_REALM=file", "AUTHZ_GRACE=1", "AUTHZ_LOG_LEVEL=error")
    monkeypatch.setenv("AUTHZ_REALM", "variable")
    monkeypatch.setenv("AUTHZ_GRACE", "2")
    settings = Settings.load(realm="value")

    assert (settings.realm, settings.grace, settings.log_level) == ("value", 2.0, "error")


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("1", True), ("false", False), ("", False)])
@pytest.mark.usefixtures("folder")
def test_token_reaches_the_upstream_unless_it_is_to_be_removed(
    monkeypatch: pytest.MonkeyPatch, text: str, *, expected: bool
) -> None:
    monkeypatch.setenv("AUTHZ_REMOVE_AUTHORIZATION", text)

    assert Settings.load().remove_authorization is expected


def test_settings_that_are_given_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings.load(realm="given")
    monkeypatch.setenv("AUTHZ_REALM", "variable")

    assert Settings.load(given) is given


def test_defaults_are_those_of_the_documentation() -> None:
    settings = Settings.load()

    assert (settings.issuer, settings.audience) == (None, None)
    assert (settings.algorithms, settings.leeway, settings.listen) == (["RS256"], 10.0, ["127.0.0.1:9191"])
    assert {settings.allow_user_tokens, settings.allow_missing_kid, settings.require_at_jwt} == {False}
    assert settings.jwt_authn_payload == ""


@pytest.mark.parametrize("name", ["audience", "algorithms", "listen", "public_methods"])
@pytest.mark.parametrize(
    ("text", "expected"), [("a", ["a"]), ("a,b", ["a", "b"]), (" a , b,, ", ["a", "b"])], ids=["one", "two", "untidy"]
)
def test_lists_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: list[str]
) -> None:
    monkeypatch.setenv(f"AUTHZ_{name.upper()}", text)

    assert getattr(Settings.load(), name) == expected


def test_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_LEEWAY", "")
    monkeypatch.setenv("AUTHZ_LISTEN", "")

    assert (Settings.load().leeway, Settings.load().listen) == (10.0, ["127.0.0.1:9191"])


def test_other_lines_of_the_file_are_not_ours(folder: Path) -> None:
    write_env_file(folder, "DATABASE_URL=postgres://", "AUTHZ_UNHEARD_OF=1", f"AUTHZ_ISSUER={ISSUER}")

    assert Settings.load().issuer == ISSUER


# ---- What is made of them ----


def test_verifier_follows_the_settings(ec_key: SigningKey) -> None:
    settings = VerifierSettings.load(**NEEDED, jwks=json.dumps(jwks(ec_key)), algorithms=["ES256"], leeway=300)
    principal = settings.verifier().verify(ec_key.sign(m2m_claims(time.time() - 500)))

    assert principal.org_id == ORG


def test_keys_may_stand_in_a_file(folder: Path, ec_key: SigningKey) -> None:
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    settings = VerifierSettings.load(**NEEDED, jwks="jwks.json", algorithms=["ES256"])

    assert settings.verifier().verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG


def test_verifier_from_env_needs_only_variables(monkeypatch: pytest.MonkeyPatch, ec_key: SigningKey) -> None:
    variables = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "ALGORITHMS": "ES256", "JWKS": json.dumps(jwks(ec_key))}
    for name, value in variables.items():
        monkeypatch.setenv(f"AUTHZ_{name}", value)

    assert Verifier.from_env().verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG


def test_authorizer_follows_the_settings(ec_key: SigningKey) -> None:
    settings = Settings.load(**NEEDED, jwks=json.dumps(jwks(ec_key)), public_methods=["/a.B/C"], realm="ledger")

    assert isinstance(settings.authorizer(), Authorizer)


def test_seed_serves_until_the_issuer_can_be_asked(ec_key: SigningKey) -> None:
    settings = VerifierSettings.load(
        **NEEDED, jwks_url=NOBODY, jwks_seed=json.dumps(jwks(ec_key)), algorithms=["ES256"]
    )
    verifier = settings.verifier()

    assert verifier.verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG
    verifier.close()


def test_seed_may_stand_in_a_file(folder: Path, ec_key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "seed.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    monkeypatch.setenv("AUTHZ_JWKS_SEED", "seed.json")
    verifier = VerifierSettings.load(**NEEDED, jwks_url=NOBODY, algorithms=["ES256"]).verifier()

    assert verifier.verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG
    verifier.close()


# ---- The policy ----


def policy_file(folder: Path, **rule: Any) -> str:
    policy = {"name": "p", "allow_rules": [{"name": "r", **rule}], "introspect": {}}
    (folder / "policy.json").write_text(json.dumps(policy), encoding="utf-8")
    return "policy.json"


@pytest.mark.parametrize(("path", "expected"), [("/a.B/*", "allowed"), ("/a.C/*", "policy_denied")])
def test_policy_is_read_from_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, verdict: Callable[..., str], path: str, expected: str
) -> None:
    monkeypatch.setenv("AUTHZ_POLICY", policy_file(folder, request={"paths": [path]}))

    assert verdict() == expected


def test_policy_that_has_the_issuer_asked_needs_credentials(folder: Path, verdict: Callable[..., str]) -> None:
    (folder / "policy.yaml").write_text("{name: p, allow_rules: [{name: r}], introspect: {/a.B/*: {}}}")
    asks = {**ASKS, "introspect_max_age": None, "policy": "policy.yaml"}

    assert verdict(**asks, introspection_client_secret=SECRET) == "introspection_unavailable"
    with pytest.raises(ConfigError, match=r"^introspection_client_secret: missing"):
        verdict(**asks)


@pytest.mark.parametrize(
    ("access", "policy", "expected"),
    [
        pytest.param({"scopes": ["ledger:read"]}, None, "allowed", id="met"),
        pytest.param({"scopes": ["admin"]}, None, "insufficient_scope", id="not-met"),
        pytest.param({}, {"deny_rules": [{"name": "d"}]}, "policy_denied", id="narrowed"),
        pytest.param(None, None, "allowed", id="for-isolation-only"),
        pytest.param(None, {"allow_rules": [{"name": "r", "request": {"paths": ["/b"]}}]}, "policy_denied", id="file"),
    ],
)
def test_descriptors_are_a_policy_if_they_declare_who_may_call(
    folder: Path, verdict: Callable[..., str], access: Any, policy: Any, expected: str
) -> None:
    (folder / "api.binpb").write_bytes(with_imports(service_file({"Call": access})))
    files: dict[str, str] = {"descriptors": "api.binpb"}
    if policy is not None:
        (folder / "policy.json").write_text(json.dumps({"name": "p", **policy}), encoding="utf-8")
        files["policy"] = "policy.json"

    assert verdict("/tests.Api/Call", **files) == expected


def test_workos_is_asked_with_a_key_of_ours_and_by_no_variable_of_its_own_client(
    folder: Path, verdict: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "key").write_text("sk_test_file\n", encoding="utf-8")
    monkeypatch.setenv("WORKOS_API_KEY", SECRET)
    with Loopback(lambda connection: connection.answer(b'{"message": "No"}', status="404 Not Found")) as server:
        url = server.url.removesuffix("/oauth2/jwks")
        asks = {"workos_base_url": url, "workos_api_key_file": "key", "unknown_organizations": "deny"}
        assert (verdict(), server.requests) == ("allowed", [])
        assert verdict(**asks) == "organization_unknown"

    assert b"Authorization: Bearer sk_test_file\r\n" in server.requests[0]


# ---- Introspection ----


@pytest.fixture
def verdict(ec_key: SigningKey) -> Callable[..., str]:
    """Return a function that builds an authorizer and has it judge a good token."""

    def verdict(method: str = "/a.B/C", **values: Any) -> str:
        keys = {"jwks": json.dumps(jwks(ec_key)), "algorithms": ["ES256"]}
        authorizer = Settings.load(**{**NEEDED, **keys, **values}).authorizer()
        token = ec_key.sign(m2m_claims(time.time()))
        try:
            run(authorizer.authorize(Call(method=method, metadata=[("authorization", f"Bearer {token}")])))
        except AuthzError as error:
            return error.reason
        finally:
            authorizer.close()
        return "allowed"

    return verdict


def test_by_default_nobody_asks_the_issuer(verdict: Callable[..., str]) -> None:
    assert verdict(introspection_client_id="client_api", introspection_client_secret=SECRET) == "allowed"


@pytest.mark.parametrize(("mode", "expected"), [("deny", "introspection_unavailable"), ("local", "allowed")])
def test_outage_means_what_the_settings_say(verdict: Callable[..., str], mode: str, expected: str) -> None:
    assert verdict(**ASKS, introspection_client_secret=SECRET, introspect_if_unavailable=mode) == expected


def test_secret_may_be_a_variable(verdict: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)

    assert verdict(**ASKS) == "introspection_unavailable"


def test_secret_may_stand_in_a_file(verdict: Callable[..., str], folder: Path) -> None:
    (folder / "secret").write_text(f"{SECRET}\n", encoding="utf-8")

    assert verdict(**ASKS, introspection_client_secret_file="secret") == "introspection_unavailable"


@pytest.mark.parametrize(("method", "in_a_header"), [("client_secret_post", False), ("client_secret_basic", True)])
def test_secret_is_sent_as_the_issuer_wants_it(verdict: Callable[..., str], *, method: str, in_a_header: bool) -> None:
    with Loopback(lambda connection: connection.answer(b'{"active": true}')) as server:
        asks = {**ASKS, "introspection_url": server.url, "introspection_client_secret": SECRET}
        assert verdict(**asks, introspection_auth_method=method) == "allowed"

    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert (b"authorization: basic" in head.lower()) is in_a_header
    assert ("client_secret" in parse_qs(body.decode())) is not in_a_header


def test_secret_is_sent_as_it_is(ec_key: SigningKey, folder: Path) -> None:
    """The file goes before the variable, without the blanks around it."""
    (folder / "secret").write_text(f"{SECRET}\n", encoding="utf-8")
    with Loopback(lambda connection: connection.answer(b'{"active": true}')) as server:
        settings = Settings.load(
            **NEEDED,
            jwks=json.dumps(jwks(ec_key)),
            algorithms=["ES256"],
            introspect_max_age=0,
            introspection_client_id="client_api",
            introspection_client_secret="another",
            introspection_client_secret_file="secret",
            introspection_url=server.url,
        )
        authorizer = settings.authorizer()
        token = ec_key.sign(m2m_claims(time.time()))
        run(authorizer.authorize(Call(method="/a.B/C", metadata=[("authorization", f"Bearer {token}")])))
        authorizer.close()

    (request,) = server.requests
    assert parse_qs(request.partition(b"\r\n\r\n")[2].decode())["client_secret"] == [SECRET]


def test_secret_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)
    settings = Settings.load(**NEEDED, **ASKS)
    told = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {vars(settings.authorizer())}"

    assert SECRET not in told


# ---- What is wrong with them ----


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"issuer": None}, "issuer: missing; set AUTHZ_ISSUER or --issuer", id="no-issuer"),
        pytest.param({"audience": None}, "audience: missing; set AUTHZ_AUDIENCE or --audience", id="no-audience"),
        pytest.param({"audience": []}, "audience: missing", id="empty-audience"),
        pytest.param(
            {"issuer": "http://acme.example"}, "issuer: 'http://acme.example' must use https", id="http-issuer"
        ),
        pytest.param({"issuer": "acme.example"}, "issuer: 'acme.example' is not an absolute https URL", id="no-url"),
        pytest.param({"jwks_url": "http://acme.example"}, "jwks_url: ", id="http-jwks-url"),
        pytest.param({"algorithms": ["HS256"]}, "algorithms: HS256 cannot be used", id="hs256"),
        pytest.param({"algorithms": ["none"]}, "algorithms: none cannot be used", id="none"),
        pytest.param({"algorithms": []}, "algorithms: ", id="no-algorithms"),
        pytest.param({"leeway": -1}, "leeway: -1.0 is not a number of seconds from 0 up to 300", id="negative-leeway"),
        pytest.param({"leeway": 301}, "leeway: 301.0 is not a number of seconds from 0 up to 300", id="leeway-301"),
        pytest.param({"leeway": "nan"}, "leeway: nan is not a number of seconds", id="nan"),
        pytest.param({"max_lifetime": -1}, "max_lifetime: -1.0 is not", id="negative-lifetime"),
        pytest.param({"jwks": "/nowhere/jwks.json"}, "jwks: file '/nowhere/jwks.json' cannot be read", id="no-file"),
        pytest.param({"jwks": "."}, "jwks: file '.' cannot be read", id="folder"),
        pytest.param({"jwks": "{"}, "jwks: the JSON text is not JSON", id="no-json"),
        pytest.param({"jwks": '{"keys": []}'}, "jwks: no key of the set can verify a signature", id="empty-set"),
        pytest.param({"jwks": '{"keys": 1}'}, "jwks: ", id="no-set"),
        pytest.param({"jwks": "{}", "jwks_url": ISSUER}, "jwks: a key set that never changes", id="two-key-sets"),
        pytest.param({"org_id_pattern": "["}, "org_id_pattern: '[' is not a regular expression", id="pattern"),
        pytest.param({"ca_file": "/nowhere/ca.pem"}, "ca_file: '/nowhere/ca.pem' cannot be read", id="ca-file"),
        pytest.param({"jwks_seed": "/nowhere/jwks.json"}, "jwks_seed: file '/nowhere/jwks.json' cannot", id="no-seed"),
        pytest.param({"jwks_seed": '{"keys": []}'}, "jwks_seed: no key of the set can verify", id="empty-seed"),
        pytest.param(
            {"introspect_max_age": 0},
            "introspection_client_id: missing; set AUTHZ_INTROSPECTION_CLIENT_ID or --introspection-client-id",
            id="introspection-client-id",
        ),
        pytest.param(
            ASKS,
            "introspection_client_secret: missing; set AUTHZ_INTROSPECTION_CLIENT_SECRET or "
            "--introspection-client-secret-file",
            id="introspection-secret",
        ),
        pytest.param(
            ASKS | {"introspection_client_secret": ""}, "introspection_client_secret: missing", id="empty-secret"
        ),
        pytest.param(
            ASKS | {"introspection_client_secret_file": "/dev/null"},
            "introspection_client_secret: missing",
            id="empty-secret-file",
        ),
        pytest.param(
            ASKS | {"introspection_client_secret_file": "/nowhere/secret"},
            "introspection_client_secret_file: '/nowhere/secret' cannot be read",
            id="no-secret-file",
        ),
        pytest.param(
            ASKS | {"introspection_url": "http://acme.example"},
            "introspection_url: 'http://acme.example' must use https",
            id="introspection-http",
        ),
        pytest.param({"realm": 'a"b'}, "realm: ", id="realm"),
        pytest.param(
            {"jwt_authn_payload": "payload", "require_at_jwt": True},
            "jwt_authn_payload: a payload has no typ",
            id="typ",
        ),
        pytest.param(
            ASKS | {"jwt_authn_payload": "payload"}, "jwt_authn_payload: the issuer is asked about tokens", id="payload"
        ),
        pytest.param(
            {"workos_groups_key": "plan"},
            "workos_api_key: missing; set AUTHZ_WORKOS_API_KEY or --workos-api-key-file",
            id="workos-without-a-key",
        ),
        pytest.param(
            {"workos_api_key_file": "/nowhere/key"}, "workos_api_key_file: '/nowhere/key' cannot be read", id="no-key"
        ),
        pytest.param({"workos_api_key_file": "/dev/null"}, "workos_api_key: missing; set AUTHZ_", id="empty-key"),
        pytest.param({"unknown_organizations": "deny"}, "unknown_organizations: deny needs a directory", id="deny"),
        pytest.param({"policy": "nowhere.yaml"}, "nowhere.yaml: cannot be read (No such file", id="no-policy"),
        pytest.param({"public_methods": ["Check"]}, "public_methods: 'Check' is not a full method name", id="method"),
    ],
)
def test_what_cannot_work_is_named_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(message)}[^\n]*$"):
        Settings.load(**{**NEEDED, **values}).authorizer()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("leeway", "soon"),
        ("max_lifetime", "long"),
        ("allow_user_tokens", "maybe"),
        ("grace", "-1"),
        ("grace", "3601"),
        ("introspect_max_age", "soon"),
        ("introspect_max_age", "-1"),
        ("introspect_max_age", "30.1"),
        ("introspect_max_age", "nan"),
        ("introspect_if_unavailable", "allow"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("listen", ","),
    ],
)
def test_what_cannot_be_is_named_with_its_flag_and_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"AUTHZ_{name.upper()}", value)
    flag = name.replace("_", "-")

    with pytest.raises(ConfigError, match=rf"^{name}: [^\n]*; set AUTHZ_{name.upper()} or --{flag}$"):
        Settings.load()


def test_wrong_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_LEEWAY", "a-secret-in-the-wrong-variable")

    with pytest.raises(ConfigError) as caught:
        Settings.load()
    assert "secret" not in str(caught.value)


def test_unreadable_file_is_named(folder: Path) -> None:
    (folder / ".env").write_bytes(b"AUTHZ_REALM=caf\xe9\n")

    with pytest.raises(ConfigError, match=r"^\.env: cannot be read as UTF-8 text"):
        Settings.load()
