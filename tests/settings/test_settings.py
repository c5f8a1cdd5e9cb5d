"""Where a setting comes from, and what is said about a wrong one."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import SecretStr

from authz.call.call import Call
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import verifier_of
from authz.judge.authorizer import Authorizer
from authz.judge.configured import authorizer_of
from authz.policy.configured import policy_in_force, policy_of
from authz.runtime.flow import run
from authz.settings import variables
from authz.settings.settings import Settings, VerifierSettings
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
    """Return the folder that the tests work in."""
    return tmp_path


def write_env_file(folder: Path, *lines: str) -> str:
    (folder / ".env").write_text("\n".join(lines), encoding="utf-8")
    return ".env"


# ---- Where they come from ----


def test_values_go_before_variables_and_those_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env_file(folder, "AUTHZ_REALM=file", "AUTHZ_GRACE=1", "AUTHZ_LOG_LEVEL=error")
    monkeypatch.setenv("AUTHZ_REALM", "variable")
    monkeypatch.setenv("AUTHZ_GRACE", "2")
    settings = Settings.load(realm="value", env_file=".env")

    assert (settings.realm, settings.grace, settings.log_level) == ("value", 2.0, "error")


def test_file_without_being_named_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_env_file(folder, "AUTHZ_REALM=file", "AUTHZ_JWKS={}")
    unread = [cls.load() for cls in (Settings, VerifierSettings)]
    monkeypatch.setenv("AUTHZ_ENV_FILE", file)

    assert [settings.jwks for settings in unread] == [None, None]
    assert Settings.load().realm == "file"


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("1", True), ("false", False)])
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


def test_blanks_and_line_ends_around_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_AUDIENCE", f" {AUDIENCE}\r\n")
    monkeypatch.setenv("AUTHZ_REALM", "ledger\n")
    monkeypatch.setenv("AUTHZ_ADMIN_SECRET", f"{SECRET}\r")
    settings = Settings.load()

    assert (settings.audience, settings.realm, settings.admin_secret_text()) == ([AUDIENCE], "ledger", SECRET)


def test_lines_of_the_file_are_as_in_a_shell(folder: Path) -> None:
    file = write_env_file(folder, "# ours", "", "DATABASE_URL=postgres://", f'export AUTHZ_ISSUER="{ISSUER}"', *QUOTED)
    settings = Settings.load(env_file=file)

    assert (settings.issuer, settings.realm, settings.org_id_pattern) == (ISSUER, "a b", "org_$(x)${HOME}")


QUOTED = ("AUTHZ_REALM='a b' # a comment", "AUTHZ_ORG_ID_PATTERN=org_$(x)${HOME}")


# ---- What is made of them ----


def test_verifier_follows_the_settings(ec_key: SigningKey) -> None:
    settings = VerifierSettings.load(**NEEDED, jwks=json.dumps(jwks(ec_key)), algorithms=["ES256"], leeway=300)
    principal = verifier_of(settings).verify(ec_key.sign(m2m_claims(time.time() - 500)))

    assert principal.org_id == ORG


def test_keys_may_stand_in_a_file(folder: Path, ec_key: SigningKey) -> None:
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    settings = VerifierSettings.load(**NEEDED, jwks="jwks.json", algorithms=["ES256"])

    assert verifier_of(settings).verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG


def test_verifier_from_env_needs_only_variables(monkeypatch: pytest.MonkeyPatch, ec_key: SigningKey) -> None:
    variables = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "ALGORITHMS": "ES256", "JWKS": json.dumps(jwks(ec_key))}
    for name, value in variables.items():
        monkeypatch.setenv(f"AUTHZ_{name}", value)

    assert Verifier.from_env().verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG


def test_authorizer_follows_the_settings(ec_key: SigningKey) -> None:
    settings = Settings.load(**NEEDED, jwks=json.dumps(jwks(ec_key)), public_methods=["/a.B/C"], realm="ledger")

    assert isinstance(authorizer_of(settings), Authorizer)


def test_seed_serves_until_the_issuer_can_be_asked(ec_key: SigningKey) -> None:
    settings = VerifierSettings.load(
        **NEEDED, jwks_url=NOBODY, jwks_seed=json.dumps(jwks(ec_key)), algorithms=["ES256"]
    )
    verifier = verifier_of(settings)

    assert verifier.verify(ec_key.sign(m2m_claims(time.time()))).org_id == ORG
    verifier.close()


def test_seed_may_stand_in_a_file(folder: Path, ec_key: SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "seed.json").write_text(json.dumps(jwks(ec_key)), encoding="utf-8")
    monkeypatch.setenv("AUTHZ_JWKS_SEED", "seed.json")
    verifier = verifier_of(VerifierSettings.load(**NEEDED, jwks_url=NOBODY, algorithms=["ES256"]))

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
        authorizer = authorizer_of(Settings.load(**{**NEEDED, **keys, **values}))
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
        authorizer = authorizer_of(settings)
        token = ec_key.sign(m2m_claims(time.time()))
        run(authorizer.authorize(Call(method="/a.B/C", metadata=[("authorization", f"Bearer {token}")])))
        authorizer.close()

    (request,) = server.requests
    assert parse_qs(request.partition(b"\r\n\r\n")[2].decode())["client_secret"] == [SECRET]


def test_secret_is_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)
    settings = Settings.load(**NEEDED, **ASKS)
    told = (
        f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {vars(authorizer_of(settings))}"
    )

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
            ASKS | {"introspection_client_secret": ""},
            "introspection_client_secret: must not be empty",
            id="empty-secret",
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
        authorizer_of(Settings.load(**{**NEEDED, **values}))


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"AUTHZ_REALM=caf\xe9\n", "env_file: '.env' cannot be read as UTF-8 text", id="bytes"),
        pytest.param(b"\nAUTHZ_POLICY policy.yaml\n", "env_file: '.env', line 2: not NAME=VALUE", id="no-equals-sign"),
        pytest.param(b"AUTHZ_POLICY\n", "env_file: '.env', line 1: not NAME=VALUE", id="no-value"),
        pytest.param(b"AUTHZ_POLICY='policy.yaml\n", "env_file: '.env', line 1: not NAME=VALUE", id="open-quote"),
        pytest.param(b"AUTHZ_POLICY=\n", "policy: must not be empty", id="empty"),
        pytest.param(b"AUTHZ_POLICY=''\n", "policy: must not be empty", id="empty-in-quotes"),
        pytest.param(b"AUTHZ_POLCY=p\n", "AUTHZ_POLCY: no such setting; the nearest is AUTHZ_POLICY", id="misspelt"),
        pytest.param(b"AUTHZ_POLICY=p\nAUTHZ_POLICY=q\n", "policy: AUTHZ_POLICY is given more than once", id="twice"),
        pytest.param(b"AUTHZ_ENV_FILE=other\n", "env_file: '.env' cannot name another file", id="another"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(folder: Path, content: bytes, message: str) -> None:
    (folder / ".env").write_bytes(content)

    with pytest.raises(ConfigError, match=rf"^{re.escape(message)}"):
        Settings.load(env_file=".env")


@pytest.mark.parametrize("file", ["nowhere.env", "."])
def test_file_that_is_named_and_not_there_is_an_error(file: str) -> None:
    with pytest.raises(ConfigError, match=rf"^env_file: '{re.escape(file)}' cannot be read"):
        Settings.load(env_file=file)


# ---- What would open the server: a value that is empty, a name that is none ----

# Where nothing is the documented default.
MAY_BE_EMPTY = {"jwt_authn_payload", "public_methods", "resource_metadata", "workos_groups_key"}
CLOSING = sorted(set(Settings.model_fields) - MAY_BE_EMPTY - {"env_file"})
TEXTS = [name for name in CLOSING if "str" in str(Settings.model_fields[name].annotation).lower()]


@pytest.mark.parametrize("text", ["", " ", "\r\n"], ids=["empty", "blank", "line-end"])
@pytest.mark.parametrize("name", CLOSING)
def test_an_empty_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"AUTHZ_{name.upper()}", text)

    with pytest.raises(ConfigError, match=rf"^{name}: must not be empty.*AUTHZ_{name.upper()}"):
        Settings.load()


@pytest.mark.parametrize("name", sorted(MAY_BE_EMPTY))
def test_an_empty_variable_may_say_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"AUTHZ_{name.upper()}", "")

    assert getattr(Settings.load(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize("name", CLOSING)
def test_an_empty_value_is_an_error_in_a_program_as_well(name: str) -> None:
    values: tuple[Any, ...] = ("", [""]) if "list" in str(Settings.model_fields[name].annotation) else ("",)
    if "SecretStr" in str(Settings.model_fields[name].annotation):
        values = ("", SecretStr(" "))

    for value in values:
        with pytest.raises(ConfigError, match=rf"^{name}: must not be empty"):
            Settings.load(**{name: value})


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("name", sorted({*TEXTS, *MAY_BE_EMPTY}))
def test_quotes_that_no_shell_has_removed_are_an_error(monkeypatch: pytest.MonkeyPatch, name: str, quote: str) -> None:
    monkeypatch.setenv(f"AUTHZ_{name.upper()}", f"{quote}value{quote}")

    with pytest.raises(ConfigError, match=rf"^{name}: must not be in quotes"):
        Settings.load()


@pytest.mark.parametrize(
    "load", [Settings.load, VerifierSettings.load, Verifier.from_env], ids=["all", "verifier", "from_env"]
)
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("AUTHZ_POLCY", "AUTHZ_POLICY"),
        ("authz_polcy", "AUTHZ_POLICY"),
        ("AUTHZ_POLICY_FILE", "AUTHZ_POLICY"),
        ("AUTHZ_INTROSPECTION_MAX_AGE", "AUTHZ_INTROSPECT_MAX_AGE"),
        ("AUTHZ_TLS_CLIENT_CA", "AUTHZ_TLS_CLIENT_CA_FILE"),
        ("AUTHZ_CLIENT_SECERT", "AUTHZ_CLIENT_SECRET"),
        ("AUTHZ_HTTP_PORT", "AUTHZ_HTTP_LISTEN"),
    ],
)
def test_a_misspelt_variable_is_an_error_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[], object], name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, SECRET)

    with pytest.raises(ConfigError, match=rf"^{name}: no such setting; the nearest is {nearest}$"):
        load()


def test_a_misspelt_argument_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^polici: no such setting; the nearest is policy$"):
        Settings.load(polici="policy.yaml")


def test_a_variable_may_be_in_any_case_but_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("authz_policy", "policy.yaml")
    assert Settings.load().policy == "policy.yaml"

    monkeypatch.setenv("AUTHZ_POLICY", "another.yaml")
    with pytest.raises(ConfigError, match=r"^policy: AUTHZ_POLICY is given more than once$"):
        Settings.load()


def test_variables_of_other_parts_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables.CLIENT:
        monkeypatch.setenv(f"AUTHZ_{name.upper()}", "x")

    assert Settings.load() == Settings.load()


def test_every_setting_is_a_known_variable() -> None:
    """Add a new one to authz.settings.variables, too."""
    assert set(Settings.model_fields) == variables.SETTINGS


def service_links(service: str) -> dict[str, str]:
    """Return what a kubelet sets for a Service with two ports."""
    stem = service.upper().replace("-", "_")
    found = {f"{stem}_SERVICE_HOST": "10.96.0.1", f"{stem}_SERVICE_PORT": "9191", f"{stem}_SERVICE_PORT_GRPC": "9191"}
    found[f"{stem}_PORT"] = "tcp://10.96.0.1:9191"
    for port in (f"{stem}_PORT_9191_TCP", f"{stem}_PORT_9192_UDP"):
        protocol = port[-3:].lower()
        found |= {port: f"{protocol}://[fd00::1]:9191", f"{port}_PROTO": protocol}
        found |= {f"{port}_PORT": "9191", f"{port}_ADDR": "fd00::1"}
    return found


@pytest.mark.parametrize("service", ["authz", "authz-policy", "authz-admin-secret"])
def test_variables_that_kubernetes_makes_of_services_are_not_ours(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    for name, value in service_links(service).items():
        monkeypatch.setenv(name, value)

    assert Settings.load().masked() == Settings().masked()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTHZ_HTTP_PORT", "9192"),
        ("AUTHZ_POLICY_SERVICE_HOST", "policy.yaml"),
        ("AUTHZ_SERVICE_PORT", "http"),
        ("AUTHZ_PORT_9191", "tcp://10.96.0.1:9191"),
        ("AUTHZ_SERVICE", "10.96.0.1"),
    ],
)
def test_variables_that_only_look_like_those_are_unknown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=rf"^{name}: no such setting"):
        Settings.load()


@pytest.mark.parametrize("value", ["9191", "10.96.0.1", "tcp://10.96.0.1:9191", "tcp"])
def test_no_setting_hides_among_the_variables_of_services(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    names = (variables.SETTINGS | variables.CLIENT) - {"env_file"}
    for name in names:
        monkeypatch.setenv(f"AUTHZ_{name.upper()}", value)

    assert variables.read().keys() == names


# ---- The policy in force ----


@pytest.mark.parametrize(
    ("access", "files", "expected"),
    [
        pytest.param(None, [], "", id="nothing"),
        pytest.param(None, ["policy"], "policy.json", id="file"),
        pytest.param(None, ["descriptors"], "", id="for-isolation-only"),
        pytest.param({"scopes": ["a"]}, ["descriptors"], "what api.binpb declares", id="descriptors"),
        pytest.param(
            {"scopes": ["a"]}, ["policy", "descriptors"], "policy.json with what api.binpb declares", id="both"
        ),
    ],
)
def test_policy_in_force_is_said(folder: Path, access: Any, files: list[str], expected: str) -> None:
    (folder / "api.binpb").write_bytes(with_imports(service_file({"Call": access})))
    given = {"policy": policy_file(folder), "descriptors": "api.binpb"}
    settings = Settings.load(**{name: given[name] for name in files})

    assert policy_in_force(settings) == expected
    assert (policy_of(settings) is None) is (expected == "")


HOOKED = {"workos_events": True, "workos_webhooks": "127.0.0.1:9194", "workos_webhook_secret": "whsec_0123456789abcdef"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workos_webhooks": None}, "workos_webhooks: missing; set HOST:PORT, since there is a workos_webhook_secret"),
        ({"workos_events": False}, "workos_webhooks: needs workos_events"),
        ({"workos_webhooks": "unix:/run/hooks"}, "workos_webhooks: 'unix:/run/hooks' is not HOST:PORT"),
        ({"workos_webhooks": "tls:0.0.0.0:9194"}, "workos_webhooks: 'tls:0.0.0.0:9194' is not HOST:PORT"),
        ({"workos_webhooks": "9194"}, "workos_webhooks: '9194' is neither HOST:PORT"),
        ({"workos_webhook_secret": None}, "workos_webhook_secret: missing; set AUTHZ_WORKOS_WEBHOOK_SECRET"),
        ({"workos_webhook_secret": "short"}, "workos_webhook_secret: shorter than 16 characters"),
        ({"workos_webhook_secret": f"{'a' * 16} b"}, "workos_webhook_secret: shorter than 16 characters"),
        ({"workos_webhook_secret": " ".join(["a" * 16] * 4)}, "workos_webhook_secret: more than 3"),
        ({"workos_webhook_secret_file": "/nowhere/secret"}, "workos_webhook_secret_file: '/nowhere/secret' cannot be"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_settings_of_webhooks_that_cannot_work_name_the_remedy(
    no_settings: None, changes: dict[str, Any], said: str
) -> None:
    del no_settings
    with pytest.raises(ConfigError) as raised:
        Settings.load(**{**HOOKED, **changes}).webhook_secrets()

    assert str(raised.value).startswith(said)
    assert "whsec" not in str(raised.value)


def test_file_may_hold_the_secret_that_replaces_another(no_settings: None, tmp_path: Path) -> None:
    del no_settings
    file = tmp_path / "secrets"
    file.write_text("whsec_0123456789abcdef\nwhsec_fedcba9876543210\n")
    settings = Settings.load(**{**HOOKED, "workos_webhook_secret": None}, workos_webhook_secret_file=str(file))

    assert settings.webhook_secrets() == ("whsec_0123456789abcdef", "whsec_fedcba9876543210")
    assert Settings.load().webhook_secrets() == ()
