"""The manifests of the authorization server, and that a pod made from them refuses the callers that we refuse."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml

from authz.call.call import Call
from authz.cli.envoy_config import envoy_config
from authz.demo.issuer.signing import SigningKey
from authz.envoy.config.annotated import render
from authz.envoy.config.formats import Ingress, bootstrap
from authz.envoy.config.kubernetes import kubernetes
from authz.envoy.config.mesh import Service
from authz.envoy.config.pod import GROUPS, MAX_FILES_BYTES, pod_of
from authz.errors import AuthzError, ConfigError
from authz.judge.authorizer import Authorizer
from authz.judge.configured import authorizer_of
from authz.policy.configured import policy_in_force
from authz.policy.protos.access import access_of_file
from authz.runtime import flow
from authz.settings.issuers import PROPER
from authz.settings.settings import Settings
from tests.certificates import Authority
from tests.doubles import jwks, m2m_claims
from tests.envoy.config.validation import validate
from tests.house.test_deploy import SHARED
from tests.house.test_deploy import resource as deployed
from tests.house.test_image import instruction
from tests.marked import service_file, with_imports
from tests.programs import run

pytestmark = pytest.mark.usefixtures("no_settings")

SERVICE = Service()
SECRET = "s3cret-that-must-not-be-printed"
OLDEST = "1.27"
POLICY = (
    "name: p\ndeny_rules:\n- name: deletes-are-denied\n  request: {paths: [/a.B/Delete]}\nallow_rules:\n- name: r\n"
)


ISSUERS = """
issuers:
- {issuer: "https://acme.authkit.app:8444", audience: client_1, organizations: "org_[0-9]+"}
- {issuer: "https://login.globex.example", audience: [client_2], organizations: [globex], discover: true,
   introspection_client_id: client_api, introspection_client_secret_file: /run/secrets/globex}
"""
ONE = {"issuer": "https://acme.authkit.app", "audience": ["client_1", "client_2"]}


def settings(**values: Any) -> Settings:
    return Settings.load(**({} if "issuers" in values else ONE), **values)


def printed(**values: Any) -> str:
    envoy = bootstrap(Ingress(authz=[f"{SERVICE.host}:{SERVICE.port}"], upstream="127.0.0.1:50051"))
    return render(kubernetes(SERVICE, settings(**values), envoy))


def documents_of(text: str) -> list[Any]:
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def manifests(**values: Any) -> list[Any]:
    return documents_of(printed(**values))


class Printed(NamedTuple):
    """What a kubelet makes of the manifests."""

    pod: dict[str, Any]
    variables: dict[str, str]
    """With ``$$`` as Kubernetes reads it."""
    secrets: dict[str, str]
    """Variables, and the keys of the Secret that they are read from."""
    files: dict[str, bytes]
    """By the path where they are mounted."""
    comments: str

    @property
    def container(self) -> dict[str, Any]:
        [found] = self.pod["containers"]
        return dict(found)


def kubelet(**values: Any) -> Printed:
    text = printed(**values)
    made = {document["metadata"]["name"] + document["kind"]: document for document in documents_of(text)}
    pod = made["authzDeployment"]["spec"]["template"]["spec"]
    entries = pod["containers"][0]["env"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    content = made.get("authz-filesConfigMap", {})
    files = {name: text.encode() for name, text in content.get("data", {}).items()}
    files |= {name: base64.b64decode(text) for name, text in content.get("binaryData", {}).items()}
    return Printed(
        pod=pod,
        variables={
            entry["name"]: re.sub(r"\$\$|\$\((\w+)\)", lambda found: found[1] or "$", entry["value"])
            for entry in entries
            if "value" in entry
        },
        secrets={entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in entries if "valueFrom" in entry},
        files={f"{mounts['files']}/{name}": content for name, content in files.items()},
        comments=" ".join(re.findall(r"^# (.*)$", text, re.MULTILINE)),
    )


def settings_of(pod: Printed, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings in force in a pod, whose files are put into ``folder``."""
    for path, content in pod.files.items():
        placed = folder / path.lstrip("/")
        placed.parent.mkdir(parents=True, exist_ok=True)
        placed.write_bytes(content)
    for name, value in pod.variables.items():
        monkeypatch.setenv(name, f"{folder}{value}" if value in pod.files else value)
    for name in pod.secrets:
        monkeypatch.setenv(name, "sk_test_of_the_secret_in_the_cluster")
    return Settings.load()


# ---- Every setting ----


def test_settings_of_a_file_are_those_of_the_pod(tmp_path: Path) -> None:
    """Issuers that it lists are in a file of the pod, and the list in this process stays as it is."""
    config = tmp_path / "authz.yaml"
    config.write_text(f"{ISSUERS.strip()}\nrealm: ledger\nmax_pending: 7\n")
    read = Settings.load(config=str(config))
    pod = pod_of(read)
    issuers = json.loads(pod.files["issuers.json"])
    listed = read.listed()

    assert {name: pod.variables[name] for name in ("realm", "max_pending")} == {"realm": "ledger", "max_pending": "7"}
    assert pod.left_out.keys() == {"config"}
    assert listed is not None
    assert issuers.keys() == {"issuers"}
    assert [each["issuer"] for each in issuers["issuers"]] == [each.name for each in listed.listed]
    assert issuers["issuers"][1]["introspection_client_secret_file"].startswith("/etc/authz/secrets/")
    assert listed.listed[1].introspection_client_secret_file == "/run/secrets/globex"


@pytest.fixture
def given(tmp_path: Path, ec_key: SigningKey) -> dict[str, Any]:
    """Return a value for every setting, none of which is the default."""
    authority = Authority()
    own = authority.issue()
    files = {
        "policy.yaml": POLICY.encode(),
        "shadow.json": json.dumps({"name": "s", "allow_rules": [{"name": "r"}]}).encode(),
        "api.binpb": with_imports(service_file({"Call": {"scopes": ["a"]}})),
        "ca.pem": authority.root,
        "jwks.json": json.dumps(jwks(ec_key)).encode(),
        "issuers.yaml": ISSUERS.encode(),
        "tls.crt": own.chain,
        "tls.key": own.key,
        "authz.yaml": b"realm: ledger",
        "secret": SECRET.encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    path = {name: str(tmp_path / name) for name in files}
    (tmp_path / "settings.env").write_text("AUTHZ_REALM=ledger\n")
    return {
        "admin": "0.0.0.0:9902",
        "admin_allow_remote": True,
        "admin_secret": SECRET,
        "admin_secret_file": path["secret"],
        "algorithms": ["ES256"],
        "allow_missing_kid": True,
        "allow_user_tokens": True,
        "audience": ["client_1", "client_2"],
        "access_log_listen": "unix:/run/authz/access-log.sock",
        "forward_auth": "127.0.0.1:9193",
        "forward_auth_headers": "original",
        "audit_listen": "127.0.0.1:9903",
        "ca_file": path["ca.pem"],
        "client_id_claim": "azp",
        "config": path["authz.yaml"],
        "decision_log": "denied",
        "decision_log_file": str(tmp_path / "decisions"),
        "descriptors": path["api.binpb"],
        "discover": True,
        "discover_hosts": ["keys.example", "tokens.example"],
        "drain": 27.5,
        "engine": "grpcio",
        "env_file": str(tmp_path / "settings.env"),
        "grace": 6.0,
        "http_listen": "127.0.0.1:9192",
        "introspect_if_unavailable": "local",
        "introspect_max_age": 5.0,
        "introspection_auth_method": "client_secret_basic",
        "introspection_client_id": "client_api",
        "introspection_client_secret": SECRET,
        "introspection_client_secret_file": path["secret"],
        "introspection_url": "https://acme.authkit.app/introspect",
        "isolation": "enforce",
        "issuer": "https://acme.authkit.app",
        "issuers": path["issuers.yaml"],
        "jwks": path["jwks.json"],
        "jwks_seed": json.dumps(jwks(ec_key)),
        "jwks_url": "https://keys.example:8443/jwks",
        "jwt_authn_payload": "payload",
        "leeway": 2.5,
        "listen": ["tls:0.0.0.0:9191"],
        "log_format": "json",
        "log_level": "warning",
        "max_lifetime": 600.0,
        "max_pending": 7,
        "token_memory": "32MiB",
        "orders": str(tmp_path / "orders"),
        "org_id_claim": "https://acme.example/org",
        "org_id_pattern": r"org_$(AUTHZ_ISSUER)\w+$$",
        "policy": path["policy.yaml"],
        "proxy_from_env": True,
        "public_methods": ["/a.B/C", "/d.E/F"],
        "realm": "ledger",
        "reflection": True,
        "quota_if_unavailable": "deny",
        "quota_store": "rediss://quotas.internal:6379",
        "remember": 30.0,
        "remove_authorization": True,
        "end_streams": True,
        "require_at_jwt": True,
        "resource_metadata": "https://api.example/.well-known/oauth-protected-resource",
        "shadow": path["shadow.json"],
        "socket_mode": "0660",
        "socket_owner": ":envoy",
        "store": "rediss://valkey.internal:6379",
        "store_ca_file": path["ca.pem"],
        "store_cert_file": path["tls.crt"],
        "store_key_file": path["tls.key"],
        "store_namespace": "staging",
        "store_password_file": path["secret"],
        "store_plaintext": True,
        "store_region": "eu-1",
        "store_stale": 600.0,
        "store_username": "server",
        "tls_cert_file": path["tls.crt"],
        "tls_client_ca_file": path["ca.pem"],
        "tls_key_file": path["tls.key"],
        "token_profile": "okta",
        "unknown_organizations": "deny",
        "usage_days": 90,
        "usage_metrics_by_organization": 100,
        "worker_timeout": 45.0,
        "workers": 3,
        "workos_api_key": SECRET,
        "workos_api_key_file": path["secret"],
        "workos_base_url": "https://workos.example",
        "workos_events": True,
        "workos_events_interval": 5.0,
        "workos_applications": True,
        "workos_applications_interval": 60.0,
        "workos_groups_key": "groups",
        "workos_webhook_secret": SECRET,
        "workos_webhook_secret_file": path["secret"],
        "workos_webhooks": "127.0.0.1:9194",
        "xds": "unix:/run/authz/xds.sock",
    }


MOUNTED = {
    "ca_file": "ca.pem",
    "descriptors": "descriptors.binpb",
    "issuers": "issuers.json",
    "jwks": "jwks.json",
    "jwks_seed": "jwks-seed.json",
    "policy": "policy.yaml",
    "shadow": "shadow.json",
    "store_ca_file": "store-ca.pem",
    "tls_client_ca_file": "client-ca.pem",
}
SECRETS = {"admin_secret", "introspection_client_secret", "workos_api_key"}
LEFT_OUT = {
    *("access_log_listen", "admin_allow_remote", "audit_listen", "config", "decision_log_file", "env_file", "orders"),
    *("forward_auth", "forward_auth_headers"),
    *("remember", "socket_mode", "socket_owner", "xds"),
    *("workos_webhook_secret", "workos_webhook_secret_file", "workos_webhooks"),
}
THE_PODS_OWN = {
    "admin": "127.0.0.1:9902",
    "http_listen": "0.0.0.0:9192",
    "listen": "tls:0.0.0.0:9191",
    "store_cert_file": "/etc/authz/secrets/store-cert",
    "store_key_file": "/etc/authz/secrets/store-key",
    "store_password_file": "/etc/authz/secrets/store-password",
    "tls_cert_file": "/etc/authz/tls/tls.crt",
    "tls_key_file": "/etc/authz/tls/tls.key",
}


def test_every_setting_has_its_place(given: dict[str, Any]) -> None:
    """A new setting: put it into a group of authz.envoy.config.pod, and give it a value above."""
    assert set(GROUPS) == set(Settings.model_fields)
    assert set(given) == set(Settings.model_fields)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_no_setting_is_lost(given: dict[str, Any], tmp_path: Path, name: str) -> None:
    apart = PROPER if name == "issuers" else {"issuer", "audience", "issuers"}
    pod = kubelet(**{key: value for key, value in given.items() if key not in apart})
    variable, value = f"AUTHZ_{name.upper()}", given[name]

    if (secret := name.removesuffix("_file")) in SECRETS:
        assert pod.secrets[f"AUTHZ_{secret.upper()}"] == secret.replace("_", "-")
    elif name in LEFT_OUT:
        assert variable not in pod.variables
        assert f"Left out: {name}, since " in pod.comments
    elif name in THE_PODS_OWN:
        assert pod.variables[variable] == THE_PODS_OWN[name]
    elif name in MOUNTED:
        assert pod.variables[variable] == f"/etc/authz/files/{MOUNTED[name]}"
        assert pod.variables[variable] in pod.files
    else:
        expected = value if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else str(value)]
        assert pod.variables[variable] == ",".join(expected)
    assert str(tmp_path) not in str(pod)


@pytest.mark.parametrize("name", sorted({*MOUNTED, "policy", "shadow"} - {"issuers", "jwks", "jwks_seed"}))
def test_files_are_mounted_as_they_are(given: dict[str, Any], name: str) -> None:
    pod = kubelet(**{name: given[name]}, **({} if "tls" not in name else {key: given[key] for key in THE_PODS_OWN}))

    assert pod.files[pod.variables[f"AUTHZ_{name.upper()}"]] == Path(given[name]).read_bytes()


def test_a_pod_has_the_issuers_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ec_key: SigningKey) -> None:
    """Public keys are in the file, because the pod has no other; secrets stay in the Secret."""
    private = tmp_path / "keys.json"
    private.write_text(json.dumps({"keys": [ec_key.public_jwk()]}))
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    here = tmp_path / "issuers.yaml"
    here.write_text(
        ISSUERS.replace('org_[0-9]+"', f'org_[0-9]+", jwks: "{private}", algorithms: [ES256]').replace(
            "/run/secrets/globex", str(secret)
        )
    )
    pod = kubelet(issuers=str(here))
    there = settings_of(pod, tmp_path / "pod", monkeypatch)

    listed, before = there.listed(), settings(issuers=str(here)).listed()
    assert listed is not None
    assert before is not None
    assert listed.in_words() == before.in_words()
    assert json.loads(listed.listed[0].jwks or "") == {"keys": [ec_key.public_jwk()]}
    assert listed.listed[1].introspection_client_secret_file == "/etc/authz/secrets/introspection-client-secret-2"
    [volume] = [each for each in pod.pod["volumes"] if each["name"] == "secrets"]
    assert volume["secret"]["items"] == [
        {"key": "introspection-client-secret-2", "path": "introspection-client-secret-2"}
    ]
    assert "--from-file=introspection-client-secret-2=FILE" in pod.comments
    assert {"AUTHZ_ISSUER", "AUTHZ_AUDIENCE"}.isdisjoint(pod.variables)
    assert str(tmp_path) not in str(pod)
    assert SECRET not in str(pod)


def test_a_pod_may_reach_the_ports_of_all_issuers(given: dict[str, Any]) -> None:
    [policy] = [each for each in manifests(issuers=given["issuers"]) if each["kind"] == "NetworkPolicy"]

    assert [port["port"] for port in policy["spec"]["egress"][1]["ports"]] == [443, 8444]


def test_an_issuers_address_that_may_hold_a_secret_is_not_printed(tmp_path: Path) -> None:
    (tmp_path / "issuers.yaml").write_text(
        f"issuers: [{{issuer: https://a.example, audience: a, jwks_url: 'https://a.example/?key={SECRET}'}}]"
    )
    with pytest.raises(ConfigError, match=r"^issuers: jwks_url of issuer 1 has a query") as caught:
        printed(issuers=str(tmp_path / "issuers.yaml"))

    assert SECRET not in str(caught.value)


def test_a_setting_that_is_in_no_group_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(GROUPS, "realm")  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"^realm: cannot be printed for Kubernetes"):
        printed(realm="ledger")


def test_a_pod_has_the_settings_that_were_printed(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {*SECRETS, *(f"{name}_file" for name in SECRETS), *LEFT_OUT, *THE_PODS_OWN, *MOUNTED}
    values = {name: value for name, value in given.items() if name not in own and name not in ("issuer", "audience")}
    here = settings(**values)

    there = settings_of(kubelet(**values), tmp_path, monkeypatch)

    assert {name: getattr(there, name) for name in Settings.model_fields if name not in own} == {
        name: getattr(here, name) for name in Settings.model_fields if name not in own
    }


@pytest.mark.parametrize(("method", "expected"), [("/a.B/Get", "allowed"), ("/a.B/Delete", "policy_denied")])
def test_a_pod_denies_what_is_denied_here(
    given: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ec_key: SigningKey,
    *,
    method: str,
    expected: str,
) -> None:
    values = {name: given[name] for name in ("policy", "jwks", "algorithms")}
    token = ec_key.sign(m2m_claims(time.time(), iss="https://acme.authkit.app", aud="client_2"))
    here = settings(**values)
    there = settings_of(kubelet(**values), tmp_path, monkeypatch)

    assert there.policy != here.policy
    assert [verdict(authorizer_of(each), method, token) for each in (here, there)] == [expected, expected]


def verdict(authorizer: Authorizer, method: str, token: str) -> str:
    try:
        flow.run(authorizer.authorize(Call(method=method, metadata=[("authorization", f"Bearer {token}")])))
    except AuthzError as error:
        return error.reason
    finally:
        authorizer.close()
    return "allowed"


def test_a_pod_has_what_descriptors_declare(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = settings_of(kubelet(descriptors=given["descriptors"]), tmp_path, monkeypatch)

    assert there.descriptors is not None
    assert access_of_file(there.descriptors) == access_of_file(given["descriptors"])
    assert policy_in_force(there).startswith("what ")


# ---- What may not be shown ----


@pytest.mark.parametrize("name", ["jwks_url", "introspection_url", "workos_base_url", "resource_metadata"])
def test_a_url_with_a_query_is_referred_to(name: str) -> None:
    pod = kubelet(**{name: f"https://acme.example/x?key={SECRET}"})

    assert SECRET not in printed(**{name: f"https://acme.example/x?key={SECRET}"})
    assert pod.secrets == {f"AUTHZ_{name.upper()}": name.replace("_", "-")}
    assert f"AUTHZ_{name.upper()}" not in pod.variables


@pytest.mark.parametrize("name", ["jwks_url", "introspection_url", "workos_base_url", "resource_metadata"])
def test_a_url_with_a_password_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: the URL must have no user, password") as caught:
        printed(**{name: f"https://user:{SECRET}@acme.example/x"})
    assert SECRET not in str(caught.value)


def test_secrets_are_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("AUTHZ_WORKOS_API_KEY", SECRET)
    pod = kubelet(introspect_max_age=0)
    [reference] = [
        entry["valueFrom"]["secretKeyRef"]
        for entry in pod.container["env"]
        if entry["name"] == "AUTHZ_INTROSPECTION_CLIENT_SECRET"
    ]

    assert SECRET not in printed(introspect_max_age=0)
    assert reference == {"name": "authz", "key": "introspection-client-secret"}
    assert pod.secrets["AUTHZ_WORKOS_API_KEY"] == "workos-api-key"
    assert (
        "kubectl --namespace authz create secret generic authz --from-file=introspection-client-secret=FILE "
        "--from-file=workos-api-key=FILE" in pod.comments
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"jwks": "private.json"}, "jwks: has private or secret keys", id="secret-key"),
        pytest.param({"jwks_seed": "private.json"}, "jwks_seed: has private or secret keys", id="seed"),
        pytest.param({"ca_file": "both.pem"}, "ca_file: 'both.pem' has a private key", id="ca"),
        pytest.param({"engine": "native"}, "engine: native serves no other pods", id="native"),
        pytest.param({"policy": "nowhere"}, "nowhere: cannot be read", id="no-policy"),
        pytest.param({"shadow": "nowhere"}, "nowhere: cannot be read", id="no-shadow"),
        pytest.param({"ca_file": "nowhere"}, "ca_file: 'nowhere' cannot be read", id="no-ca"),
        pytest.param({"ca_file": "/dev/zero"}, "ca.pem: with it the files have more", id="endless"),
        pytest.param({"policy": "large.yaml"}, "policy.yaml: with it the files have more", id="large"),
        pytest.param({"tls_cert_file": "c"}, "tls_cert_file: a certificate and its key belong", id="no-key"),
        pytest.param({"listen": ["tls:0.0.0.0:1"]}, "tls_cert_file: missing", id="no-certificate"),
        pytest.param({"tls_client_ca_file": "ca.pem"}, "tls_cert_file: missing", id="mutual"),
        pytest.param({"public_methods": ["/a,b"]}, "public_methods: a part with a comma", id="comma"),
    ],
)
def test_what_cannot_be_printed_is_an_error(
    tmp_path: Path, ec_key: SigningKey, values: dict[str, Any], message: str
) -> None:
    own = Authority().issue()
    secret = {"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
    files = {
        "both.pem": own.chain + own.key,
        "ca.pem": own.chain,
        "large.yaml": POLICY.encode() + b"#" * MAX_FILES_BYTES,
        "private.json": json.dumps({"keys": [*jwks(ec_key)["keys"], secret]}).encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError, match=rf"^{message}") as caught:
        printed(**values)
    assert "PRIVATE" not in str(caught.value)


def test_envoy_needs_a_certificate_where_the_server_asks_for_one(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tls_cert_file", "tls_key_file", "tls_client_ca_file"):
        monkeypatch.setenv(f"AUTHZ_{name.upper()}", given[name])

    with pytest.raises(ConfigError, match=r"^authz_cert_file: missing"):
        envoy_config(format="kubernetes", around=None)
    assert capsys.readouterr().out == ""


def test_envoy_asks_by_tls_where_the_server_has_a_certificate(given: dict[str, Any], tmp_path: Path) -> None:
    variables = {f"AUTHZ_{name.upper()}": given[name] for name in ("tls_cert_file", "tls_key_file")}
    flags = ("--upstream", "127.0.0.1:50051", "--authz-ca-file", given["ca_file"])
    done = run("envoy-config", "--format", "kubernetes", *flags, folder=tmp_path, **variables)
    envoy = list(yaml.safe_load_all(done.stdout))[2]["data"]["envoy.yaml"]
    cluster = yaml.safe_load(envoy)["static_resources"]["clusters"][0]

    validate(envoy)
    assert cluster["transport_socket"]["typed_config"]["sni"] == SERVICE.host
    assert "tls:0.0.0.0:9191" in done.stdout
    assert given["tls_key_file"] not in done.stdout


# ---- The manifests ----


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("apart", [{*ONE, "issuers"}, PROPER], ids=["one-issuer", "several"])
def test_kubernetes_accepts_the_manifests(given: dict[str, Any], version: str, apart: set[str]) -> None:
    made = manifests(**{name: value for name, value in given.items() if name not in apart})
    for manifest in made:
        kubernetes_validate.validate(manifest, version, strict=True)

    assert [manifest["kind"] for manifest in made] == [
        "Deployment",
        "Service",
        "ConfigMap",
        "NetworkPolicy",
        "ConfigMap",
    ]


def test_envoy_accepts_the_config_map() -> None:
    validate(manifests()[2]["data"]["envoy.yaml"])


def test_addresses_are_those_of_the_pod() -> None:
    told = kubelet(listen=["unix:/run/authz.sock"]).variables

    assert (told["AUTHZ_LISTEN"], told["AUTHZ_HTTP_LISTEN"]) == ("0.0.0.0:9191", "0.0.0.0:9192")


def test_pod_is_ready_when_it_can_decide() -> None:
    container = kubelet().container

    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"grpc": 9191, "http": 9192}


def test_arguments_are_those_of_the_image(tmp_path: Path) -> None:
    entrypoint = json.loads(instruction("ENTRYPOINT"))
    done = run(*entrypoint[1:], *kubelet().container["args"], "--help", folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Run the external authorization server" in done.stdout


def test_pod_may_write_nowhere_but_where_workers_share_their_figures() -> None:
    pod = kubelet(workers=3)
    [mount] = pod.container["volumeMounts"]

    assert pod.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert mount == {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - a pod's own
    assert pod.pod["volumes"] == [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]
    assert (pod.pod["automountServiceAccountToken"], pod.pod["enableServiceLinks"]) == (False, False)
    assert pod.container["resources"]["limits"] == {"memory": "1536Mi"}
    assert pod.container["resources"]["requests"]["memory"] == "384Mi"


def test_certificate_can_be_read_by_the_pod_alone(given: dict[str, Any]) -> None:
    pod = kubelet(**{name: given[name] for name in ("tls_cert_file", "tls_key_file")})
    [secret] = [volume["secret"] for volume in pod.pod["volumes"] if "secret" in volume]

    assert secret == {"secretName": "authz-tls", "defaultMode": 0o440}
    assert pod.pod["securityContext"]["fsGroup"] == pod.pod["securityContext"]["runAsUser"] == 65532
    assert "kubectl --namespace authz create secret tls authz-tls" in pod.comments


@pytest.mark.parametrize(("drain", "seconds"), [(0, 30), (60, 70)])
def test_pod_is_given_time_to_end(drain: float, seconds: int) -> None:
    assert kubelet(drain=drain).pod["terminationGracePeriodSeconds"] == seconds


def test_only_envoy_asks_and_only_prometheus_reads_figures() -> None:
    policy = manifests()[3]["spec"]
    ours = deployed(SHARED, "NetworkPolicy")["spec"]

    assert policy["ingress"] == ours["ingress"]
    # The manifests in deploy know where their store is, what is printed only its port, if there is one.
    *egress, store = ours["egress"]
    assert policy["egress"] == egress
    assert store["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "authz-store"}}}]
    assert (policy["podSelector"], policy["policyTypes"]) == (ours["podSelector"], ours["policyTypes"])


def test_server_may_ask_where_its_settings_say() -> None:
    policy = manifests(jwks_url="https://keys.example:8443/jwks")[3]["spec"]

    assert [entry["port"] for entry in policy["egress"][1]["ports"]] == [443, 8443]


def test_server_may_ask_its_store() -> None:
    policy = manifests(store="rediss://store.example:6380", quota_store="redis+sentinel://a:26379,b/counts")[3]["spec"]

    assert [entry["port"] for entry in policy["egress"][1]["ports"]] == [443, 6380, 26379]


def test_what_a_pod_lacks_is_said(given: dict[str, Any]) -> None:
    tls = {name: given[name] for name in ("tls_cert_file", "tls_key_file")}
    open_one, shut_one = kubelet().comments, kubelet(policy=given["policy"], **tls).comments

    assert "every good token may call everything" in open_one
    assert "in plain text" in open_one
    assert "every good token" not in shut_one
    assert "in plain text: for TLS" not in shut_one


def test_large_files_are_applied_by_the_server(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text(POLICY + "#" * 300_000)

    assert "kubectl apply --server-side" in kubelet(policy=str(tmp_path / "large.yaml")).comments
    assert "kubectl apply" not in kubelet().comments
