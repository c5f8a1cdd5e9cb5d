"""The manifests of the authorization server."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from authz.envoy.config.annotated import render
from authz.envoy.config.formats import Ingress, bootstrap
from authz.envoy.config.kubernetes import environment, kubernetes
from authz.envoy.config.mesh import Service
from authz.settings import Settings
from tests.envoy.validation import validate

pytestmark = pytest.mark.usefixtures("no_settings")

SERVICE = Service()
SECRET = "s3cret-of-introspection"
OLDEST = "1.27"


def settings(**values: Any) -> Settings:
    return Settings.load(issuer="https://acme.authkit.app", audience=["client_1", "client_2"], **values)


def manifests(**values: Any) -> list[Any]:
    envoy = bootstrap(Ingress(authz=[f"{SERVICE.host}:{SERVICE.port}"], upstream="127.0.0.1:50051"))
    return list(yaml.safe_load_all(render(kubernetes(SERVICE, settings(**values), envoy))))


def variables(**values: Any) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in environment(settings(**values), SERVICE)}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_kubernetes_accepts_the_manifests(version: str) -> None:
    made = manifests(introspect_max_age=0)
    for manifest in made:
        kubernetes_validate.validate(manifest, version, strict=True)

    assert [manifest["kind"] for manifest in made] == ["Deployment", "Service", "ConfigMap"]


def test_envoy_accepts_the_config_map() -> None:
    validate(manifests()[2]["data"]["envoy.yaml"])


def test_settings_in_force_become_variables() -> None:
    told = variables(remove_authorization=True, public_methods=["/a.B/C", "/d.E/F"], workers=2)

    assert told["AUTHZ_ISSUER"] == "https://acme.authkit.app"
    assert told["AUTHZ_AUDIENCE"] == "client_1,client_2"
    assert told["AUTHZ_REMOVE_AUTHORIZATION"] == "true"
    assert told["AUTHZ_PUBLIC_METHODS"] == "/a.B/C,/d.E/F"
    assert told["AUTHZ_WORKERS"] == "2"


def test_variables_say_what_the_settings_said(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(remove_authorization=True, public_methods=["/a.B/C", "/d.E/F"], leeway=2.5)
    for entry in environment(given, SERVICE):
        monkeypatch.setenv(entry["name"], entry["value"])

    assert Settings.load() == given.model_copy(update={"listen": ["0.0.0.0:9191"], "http_listen": "0.0.0.0:9192"})


def test_addresses_are_those_of_the_pod() -> None:
    told = variables(listen=["unix:/run/authz.sock"])

    assert (told["AUTHZ_LISTEN"], told["AUTHZ_HTTP_LISTEN"]) == ("0.0.0.0:9191", "0.0.0.0:9192")


def test_secrets_are_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_INTROSPECTION_CLIENT_SECRET", SECRET)
    entries = environment(settings(introspect_max_age=0), SERVICE)
    [secret] = [entry for entry in entries if "valueFrom" in entry]

    assert SECRET not in str(entries)
    assert secret["name"] == "AUTHZ_INTROSPECTION_CLIENT_SECRET"
    assert secret["valueFrom"]["secretKeyRef"] == {"name": "authz", "key": "introspection-client-secret"}


def test_files_of_this_machine_are_left_out_and_named() -> None:
    envoy = bootstrap(Ingress(authz=["authz:1"], upstream="127.0.0.1:1"))
    text = render(kubernetes(SERVICE, settings(ca_file="/etc/here.pem", jwks="/etc/jwks.json"), envoy))

    assert "/etc/here.pem" not in text
    assert "/etc/jwks.json" not in text
    assert "yours to mount: ca_file, jwks." in text


def test_pod_is_ready_when_it_can_decide() -> None:
    [container] = manifests()[0]["spec"]["template"]["spec"]["containers"]

    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"grpc": 9191, "http": 9192}
