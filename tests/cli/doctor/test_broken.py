"""Set-ups in which one thing is wrong: the doctor names it, and what to do about it."""

import ipaddress
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from authz.demo.issuer.program import Issuer, IssuerServer, SigningKey
from tests.certificates import Authority, dns
from tests.cli.doctor.conftest import Diagnose
from tests.cli.doctor.web_issuer import KEYS, METADATA, Answer, context_of, web_issuer
from tests.doubles import AUDIENCE, jwks
from tests.loopback import Connection, Loopback

pytestmark = pytest.mark.server

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


# ---- The issuer ----


def test_wrong_issuer_is_named_with_the_right_one(diagnose: Diagnose, rsa_key: SigningKey) -> None:
    with IssuerServer(Issuer("https://acme.authkit.app", keys=[rsa_key])) as server:
        found = diagnose(AUTHZ_ISSUER=server.address, AUTHZ_AUDIENCE=AUDIENCE)

    fault = found.with_code("issuer-mismatch")
    assert (found.status, fault["check"], fault["level"]) == (1, "metadata", "error")
    assert "https://acme.authkit.app" in fault["found"]
    assert server.address in fault["expected"]
    assert "--issuer" in fault["remedy"]


def test_an_issuer_that_is_down_ends_no_other_check(diagnose: Diagnose, free_address: str) -> None:
    found = diagnose("--listen", "127.0.0.1:0", AUTHZ_ISSUER=f"http://{free_address}", AUTHZ_AUDIENCE=AUDIENCE)

    assert found.with_code("issuer-unreachable")["found"].startswith(f"{free_address}: refused")
    assert {each["check"]: each["level"] for each in found.findings} == {
        **dict.fromkeys(("metadata", "clock", "keys", "token", "introspection", "envoy"), "skipped"),
        **dict.fromkeys(("certificate", "store", "workos", "server"), "skipped"),
        **dict.fromkeys(("settings", "listen"), "ok"),
        "issuer": "error",
        "policy": "warning",
    }
    unasked = [each for each in found.findings if each["level"] == "skipped" and not each["code"]]
    assert all(each["found"].startswith("because") for each in unasked)


def test_untrusted_certificate_is_named_with_its_signer(
    diagnose: Diagnose, rsa_key: SigningKey, tmp_path: Path
) -> None:
    certificate = Authority().issue(LOOPBACK)
    with web_issuer(rsa_key, tls=context_of(certificate, tmp_path)) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    fault = found.with_code("issuer-untrusted-certificate")
    assert (found.status, fault["check"]) == (1, "issuer")
    assert "a certificate for 127.0.0.1, signed by authority" in fault["found"]
    assert "--ca-file" in fault["remedy"]


def test_certificate_of_a_named_authority_is_good(diagnose: Diagnose, rsa_key: SigningKey, tmp_path: Path) -> None:
    authority, ca = Authority(), tmp_path / "ca.pem"
    ca.write_bytes(authority.root)
    with web_issuer(rsa_key, tls=context_of(authority.issue(LOOPBACK), tmp_path)) as url:
        found = diagnose("--ca-file", str(ca), AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    assert (found.status, found.faults()) == (0, {"policy-none": "warning"})
    assert found.of("keys")["found"] == "1 for RS256"


@pytest.mark.parametrize(
    "wrong",
    [
        ([LOOPBACK], (-20, -10), "issuer-certificate-expired", "valid from"),
        ([LOOPBACK], (10, 20), "issuer-certificate-expired", "valid from"),
        (dns("other.example"), (-1, 1), "issuer-certificate-host", "a certificate for other.example"),
    ],
)
def test_certificate_that_is_trusted_and_wrong_is_told_apart(
    diagnose: Diagnose,
    rsa_key: SigningKey,
    tmp_path: Path,
    wrong: tuple[list[x509.GeneralName], tuple[int, int], str, str],
) -> None:
    names, days, code, told = wrong
    authority, ca = Authority(), tmp_path / "ca.pem"
    ca.write_bytes(authority.root)
    certificate = authority.issue(*names, days=days)
    with web_issuer(rsa_key, tls=context_of(certificate, tmp_path)) as url:
        found = diagnose("--ca-file", str(ca), AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    fault = found.with_code(code)
    assert (found.status, fault["check"]) == (1, "issuer")
    assert told in fault["found"]
    assert fault["expected"].startswith("one ")


@pytest.mark.parametrize("ahead", [120.0, -120.0])
def test_clock_that_is_off_by_two_minutes_is_an_error(diagnose: Diagnose, rsa_key: SigningKey, ahead: float) -> None:
    with web_issuer(rsa_key, ahead=ahead) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    fault = found.with_code("clock-skew")
    assert (found.status, fault["check"], fault["level"]) == (1, "clock", "error")
    assert ("s behind" if ahead > 0 else "s ahead of") in fault["found"]
    assert "timedatectl" in fault["remedy"]


def test_clock_that_is_off_by_little_more_than_the_leeway_is_a_warning(diagnose: Diagnose, rsa_key: SigningKey) -> None:
    with web_issuer(rsa_key, ahead=45.0) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    assert (found.status, found.with_code("clock-skew")["level"]) == (0, "warning")


def test_age_of_a_cached_answer_is_no_skew(diagnose: Diagnose, rsa_key: SigningKey) -> None:
    def cached(connection: Connection) -> None:
        body = json.dumps({"issuer": "https://acme.authkit.app"}).encode()
        connection.answer(body, "date: Mon, 02 Nov 2026 10:00:00 GMT", "age: 999999999999")

    with web_issuer(rsa_key, answers={METADATA: cached}) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    # An age of so many digits is none.
    assert found.of("clock")["level"] == "error"


def test_slow_issuer_is_given_up(diagnose: Diagnose, rsa_key: SigningKey) -> None:
    with web_issuer(rsa_key, answers={METADATA: Connection.say_nothing}) as url:
        found = diagnose("--timeout", "0.2", AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    assert found.with_code("issuer-slow")["check"] == "issuer"
    assert found.of("keys")["level"] == "skipped"


# ---- Its keys ----


def _html(connection: Connection) -> None:
    connection.answer(b"<html>Sign in \x1b[2J</html>", "content-type: text/html")


def _redirect(connection: Connection) -> None:
    connection.answer(b"", f"location: {KEYS}", status="302 Found")


def _empty(connection: Connection) -> None:
    connection.answer(b'{"keys": []}')


def _missing(connection: Connection) -> None:
    connection.answer(b"", status="404 Not Found")


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (_html, "keys-unavailable", "text/html, not JSON"),
        (_redirect, "keys-unavailable", "redirect"),
        (_missing, "keys-unavailable", "status 404"),
        (_empty, "keys-none-usable", "no key at all"),
    ],
)
def test_key_set_of_no_use_is_named(
    diagnose: Diagnose, rsa_key: SigningKey, answer: Answer, code: str, told: str
) -> None:
    with web_issuer(rsa_key, answers={KEYS: answer}) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    fault = found.with_code(code)
    assert (found.status, fault["check"]) == (1, "keys")
    assert told in fault["found"]
    assert "<html>" not in found.text


def test_keys_for_other_algorithms_are_named_each(diagnose: Diagnose, ec_key: SigningKey) -> None:
    with web_issuer(ec_key) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    fault = found.with_code("keys-none-usable")
    assert "key 'ec-1': for ES256" in fault["found"]
    assert fault["expected"] == "a key for RS256"
    assert "--algorithms" in fault["remedy"]


def test_static_keys_of_no_use_are_named_each(diagnose: Diagnose, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [{"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"}]}))
    found = diagnose(AUTHZ_ISSUER="https://acme.authkit.app", AUTHZ_AUDIENCE=AUDIENCE, AUTHZ_JWKS=str(file))

    assert found.with_code("keys-none-usable")["check"] == "keys"
    assert "key 'shared': a secret or private key in a public place" in found.with_code("settings-invalid")["found"]
    assert "c2VjcmV0" not in found.text


def test_issuer_without_metadata_is_a_warning_unless_it_is_to_be_looked_up(
    diagnose: Diagnose, rsa_key: SigningKey
) -> None:
    with web_issuer(rsa_key, answers={METADATA: _missing}) as url:
        found = diagnose(AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)
        looked_up = diagnose("--discover", AUTHZ_ISSUER=url, AUTHZ_AUDIENCE=AUDIENCE)

    assert (found.status, found.with_code("metadata-missing")["level"]) == (0, "warning")
    assert (looked_up.status, looked_up.with_code("metadata-missing")["level"]) == (1, "error")


# ---- Tokens ----


def test_wrong_audience_is_named_with_the_right_one(
    diagnose: Diagnose, settings: dict[str, str], credentials: dict[str, str]
) -> None:
    found = diagnose(**{**settings, **credentials, "AUTHZ_AUDIENCE": "client_another"})

    fault = found.with_code("token-wrong-audience")
    assert (found.status, fault["check"]) == (1, "token")
    assert settings["AUTHZ_AUDIENCE"] in fault["found"]
    assert fault["expected"] == '"client_another"'
    assert "--audience" in fault["remedy"]


@pytest.mark.parametrize(
    "refused",
    [
        ({"iss": "https://other.example"}, "token-wrong-issuer", "https://other.example"),
        ({"org_id": None}, "token-no-organization", "no org_id"),
        ({"org_id": "42"}, "token-no-organization", '"42"'),
        ({"exp": 1_700_000_000}, "token-expired", "exp is 1700000000"),
        ({"cnf": {"jkt": "a"}}, "token-invalid", "cnf"),
    ],
)
def test_token_that_is_refused_is_explained(
    diagnose: Diagnose,
    settings: dict[str, str],
    live_issuer: IssuerServer,
    tmp_path: Path,
    refused: tuple[dict[str, object], str, str],
) -> None:
    changes, code, told = refused
    [application, *_] = [each for each in live_issuer.issuer.directory.applications if each.type == "m2m"]
    token = live_issuer.issuer.mint(client_id=application.client_id, claims=changes, header={}, expires_in=300)
    file = tmp_path / "token"
    file.write_text(token)
    found = diagnose("--token-file", str(file), **settings)

    fault = found.with_code(code)
    assert (found.status, fault["check"]) == (1, "token")
    assert told in fault["found"]
    assert token not in found.text


def test_wrong_secret_of_a_client_is_named(
    diagnose: Diagnose, settings: dict[str, str], credentials: dict[str, str]
) -> None:
    found = diagnose(**{**settings, **credentials, "AUTHZ_CLIENT_SECRET": "not-the-secret"})

    fault = found.with_code("token-refused")
    assert "status 401 (invalid_client)" in fault["found"]
    assert "AUTHZ_CLIENT_SECRET" in fault["remedy"]
    assert "not-the-secret" not in found.text


def test_wrong_introspection_secret_is_named(
    diagnose: Diagnose, settings: dict[str, str], introspection: dict[str, str]
) -> None:
    found = diagnose(**{**settings, **introspection, "AUTHZ_INTROSPECTION_CLIENT_SECRET": "not-the-secret"})

    fault = found.with_code("introspection-wrong-secret")
    assert (found.status, fault["check"]) == (1, "introspection")
    assert "status 401" in fault["found"]
    assert "AUTHZ_INTROSPECTION_CLIENT_SECRET" in fault["remedy"]
    assert "not-the-secret" not in found.text


# ---- Policies ----


def _policy(folder: Path, **parts: object) -> str:
    file = folder / "policy.json"
    file.write_text(json.dumps({"name": "ledger", **parts}))
    return str(file)


ACME = "org_01JYACME000000000000000001"
SUSPENDED = {"organizations": {ACME: {"status": "suspended", "groups": ["gold"]}}}


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"allow_rules": [{"name": "a", "source": {"organizations": ["acme"]}}]}, "org_id_pattern matches none"),
        ({"allow_rules": [{"name": "a", "request": {"paths": ["ledger.v1.Ledger/*"]}}]}, "methods begin with /"),
        ({"allow_rules": [{"name": "a"}], "deny_rules": [{"name": "b"}]}, "the deny rule b matches all that it does"),
        ({"allow_rules": [{"name": "a", "source": {"organizations": [ACME]}}], **SUSPENDED}, "are suspended"),
        ({"allow_rules": [{"name": "a", "source": {"groups": ["gold"]}}], **SUSPENDED}, "no organization that may"),
    ],
)
def test_policy_that_allows_nobody_is_an_error(
    diagnose: Diagnose, settings: dict[str, str], tmp_path: Path, parts: dict[str, object], why: str
) -> None:
    found = diagnose("--policy", _policy(tmp_path, **parts), **settings)

    fault = found.with_code("policy-allows-no-caller")
    assert (found.status, fault["check"], fault["level"]) == (1, "policy", "error")
    assert why in fault["found"]
    assert "authz policy explain" in fault["remedy"]


def test_policy_that_knows_no_organization_while_unknown_ones_are_refused_is_an_error(
    diagnose: Diagnose, settings: dict[str, str], tmp_path: Path
) -> None:
    file = _policy(tmp_path, allow_rules=[{"name": "a"}], organizations={ACME: {"status": "suspended"}})
    found = diagnose("--policy", file, "--unknown-organizations", "deny", **settings)

    assert "all that it lists are suspended" in found.with_code("policy-allows-no-caller")["found"]


def test_one_rule_among_others_that_never_matches_is_a_warning(
    diagnose: Diagnose, settings: dict[str, str], tmp_path: Path
) -> None:
    rules = [{"name": "a", "source": {"organizations": ["acme"]}}, {"name": "b"}]
    found = diagnose("--policy", _policy(tmp_path, allow_rules=rules), **settings)

    assert (found.status, found.faults()) == (0, {"policy-rule-never-matches": "warning"})


@pytest.mark.parametrize("rules", [[], [{"name": "a"}, {"name": "b"}]])
def test_policy_that_cannot_be_loaded_is_an_error(
    diagnose: Diagnose, settings: dict[str, str], tmp_path: Path, rules: list[object]
) -> None:
    found = diagnose("--policy", _policy(tmp_path, allow_rules=rules), **settings)

    assert found.faults() == {"settings-invalid": "error", "policy-invalid": "error"}
    assert "policy.json" in found.with_code("settings-invalid")["found"]


# ---- Here ----


def test_port_in_use_is_named_with_the_program(diagnose: Diagnose, settings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        found = diagnose("--listen", address, "--timeout", "0.2", **settings)

    fault = found.with_code("listen-in-use")
    assert (found.status, fault["check"]) == (1, "listen")
    assert f"{address} is in use by " in fault["found"]
    assert "another port" in fault["remedy"]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("unix:{folder}/missing/socket", "no such folder"),
        ("unix:{folder}/" + "a" * 108, "longer than 107 bytes"),
        ("203.0.113.1:9191", "203.0.113.1:9191"),
    ],
)
def test_address_that_cannot_be_bound_is_named(
    diagnose: Diagnose, settings: dict[str, str], tmp_path: Path, address: str, told: str
) -> None:
    found = diagnose("--listen", address.format(folder=tmp_path), **settings)

    assert told in found.with_code("listen-impossible")["found"]


@pytest.mark.parametrize("old", [((-20, -10), "certificate-expired", 1), ((-1, 10), "certificate-expires", 0)])
def test_certificate_of_ours_that_is_old_is_named(
    diagnose: Diagnose,
    settings: dict[str, str],
    tmp_path: Path,
    free_address: str,
    old: tuple[tuple[int, int], str, int],
) -> None:
    days, code, status = old
    context_of(Authority().issue(LOOPBACK, days=days), tmp_path)
    files = ("--tls-cert-file", str(tmp_path / "server.pem"), "--tls-key-file", str(tmp_path / "server.key"))
    found = diagnose("--listen", f"tls:{free_address}", *files, **settings)

    assert (found.status, found.with_code(code)["check"]) == (status, "certificate")


@pytest.mark.parametrize("spoil", [lambda key: key.write_bytes(Authority().issue().key), lambda key: key.unlink()])
def test_key_of_another_certificate_is_named(
    diagnose: Diagnose,
    settings: dict[str, str],
    tmp_path: Path,
    free_address: str,
    spoil: Callable[[Path], object],
) -> None:
    context_of(Authority().issue(LOOPBACK), tmp_path)
    spoil(tmp_path / "server.key")
    files = ("--tls-cert-file", str(tmp_path / "server.pem"), "--tls-key-file", str(tmp_path / "server.key"))
    found = diagnose("--listen", f"tls:{free_address}", *files, **settings)

    assert found.with_code("certificate-unusable")["check"] == "certificate"
    assert "tls_key_file" in found.with_code("settings-invalid")["found"]


def test_a_store_that_is_down_is_named(diagnose: Diagnose, settings: dict[str, str], free_address: str) -> None:
    found = diagnose("--store", f"redis://{free_address}", **settings)

    fault = found.with_code("store-unavailable")
    assert (found.status, fault["check"]) == (1, "store")
    assert "cannot be reached (refused)" in fault["found"]


# ---- The settings themselves ----


def test_setting_that_is_missing_is_named_and_the_others_are_examined(diagnose: Diagnose) -> None:
    found = diagnose()

    assert "AUTHZ_ISSUER" in found.with_code("settings-invalid")["found"]
    assert found.of("listen")["level"] == "ok"


def test_a_file_of_issuers_is_examined_one_by_one(
    diagnose: Diagnose, live_issuer: IssuerServer, free_address: str, tmp_path: Path
) -> None:
    file = tmp_path / "issuers.json"
    listed = [
        {"issuer": url, "audience": "a", "organizations": [f"org_{number}"]}
        for number, url in enumerate((live_issuer.url, f"http://{free_address}"))
    ]
    file.write_text(json.dumps({"issuers": listed}))
    found = diagnose("--listen", "127.0.0.1:0", AUTHZ_ISSUERS=str(file))

    assert [each["level"] for each in found.findings if each["check"] == "keys"] == ["ok", "skipped"]
    assert found.faults() == {"issuer-unreachable": "error", "policy-none": "warning"}


def test_static_keys_need_no_issuer(diagnose: Diagnose, rsa_key: SigningKey) -> None:
    found = diagnose(
        AUTHZ_ISSUER="https://acme.authkit.app", AUTHZ_AUDIENCE=AUDIENCE, AUTHZ_JWKS=json.dumps(jwks(rsa_key))
    )

    assert (found.status, found.of("issuer")["level"], found.of("keys")["level"]) == (0, "skipped", "ok")


def test_certificate_behind_a_proxy_is_told_as_well(
    diagnose: Diagnose, rsa_key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    context = context_of(Authority().issue(*dns("acme.authkit.example")), tmp_path)
    with web_issuer(rsa_key, tls=context) as url, Loopback(lambda connection: _tunnel(connection, url)) as proxy:
        by_proxy = proxy.url.replace("http://", "http://user:a-password@")
        found = diagnose(
            "--proxy-from-env",
            AUTHZ_ISSUER="https://acme.authkit.example",
            AUTHZ_AUDIENCE=AUDIENCE,
            HTTPS_PROXY=by_proxy,
        )

    assert "a certificate for acme.authkit.example" in found.with_code("issuer-untrusted-certificate")["found"]
    assert all(request.startswith(b"CONNECT acme.authkit.example:443 ") for request in proxy.requests)
    assert "a-password" not in found.text


def _tunnel(connection: Connection, url: str) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.join("127.0.0.1", int(url.rpartition(":")[2]))


def test_of_a_url_with_a_query_only_the_rest_is_shown(
    diagnose: Diagnose, settings: dict[str, str], introspection: dict[str, str], free_address: str
) -> None:
    url = f"http://{free_address}/keys?key=a-secret"
    found = diagnose(
        *("--jwks-url", url, "--introspection-url", url, "--client-id", "a"),
        AUTHZ_TOKEN_URL=url,
        AUTHZ_CLIENT_SECRET="another-secret",
        AUTHZ_LISTEN="127.0.0.1:0",
        **settings,
        **introspection,
    )

    faults = [fault["found"] for fault in found.findings if fault["level"] == "error"]
    assert [f"http://{free_address}/keys?…" in fault for fault in faults] == [True] * 3
    assert "secret" not in found.text.replace("--client-secret-file", "").replace("CLIENT_SECRET", "")


def test_token_endpoint_that_is_down_is_named(
    diagnose: Diagnose, settings: dict[str, str], credentials: dict[str, str], free_address: str
) -> None:
    url = f"http://{free_address}/token"
    found = diagnose("--listen", "127.0.0.1:0", **{**settings, **credentials, "AUTHZ_TOKEN_URL": url})

    assert found.with_code("token-unavailable")["found"] == f"no token from {url}: refused"


def test_a_file_of_settings_is_named_where_its_value_is_wrong(diagnose: Diagnose, tmp_path: Path) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text("issuer: https://acme.authkit.app\naudience: client_a\njwks: missing.json\n")
    found = diagnose("--config", str(file))

    assert "authz.yaml" in found.with_code("settings-invalid")["found"]
    assert "missing.json" in found.with_code("keys-none-usable")["found"]
