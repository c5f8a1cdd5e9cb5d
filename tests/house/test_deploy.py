"""What is deployed fits the program: its settings, its names, its ports, its patience."""

import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from authz.call.metadata import TrustedMetadata
from authz.demo.envoy_binary import envoy_path
from authz.envoy.config import edge, listener
from authz.judge.configured import authorizer_of
from authz.settings.settings import Settings
from tests.envoy.config.test_config import manager_of
from tests.programs import run

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SHARED, SIDECAR, ISTIO = DEPLOY / "kubernetes/shared-service", DEPLOY / "kubernetes/sidecar", DEPLOY / "istio"
STORE, COMPOSE = DEPLOY / "kubernetes/store", DEPLOY / "compose"
KUSTOMIZATIONS = [pytest.param(folder, id=folder.name) for folder in (SHARED, SIDECAR, STORE, ISTIO)]
DEPLOYMENTS = [pytest.param(folder, id=folder.name) for folder in (SHARED, SIDECAR)]
BOOTSTRAPS = [pytest.param(folder, id=folder.name) for folder in (SIDECAR, COMPOSE)]
ENVIRONMENTS = [*(folder / "settings.env" for folder in (SHARED, SIDECAR, COMPOSE)), DEPLOY / "systemd/authz.env"]
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
# Templates of the chart are YAML only once they are rendered.
YAML = [path for path in FILES if path.suffix == ".yaml" and "templates" not in path.parts]
SPARE_SECONDS = 5


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kustomization(folder: Path) -> dict[str, Any]:
    [found] = documents(folder / "kustomization.yaml")
    return found


def resources(folder: Path) -> list[dict[str, Any]]:
    files = [folder / name for name in kustomization(folder)["resources"] if name.endswith(".yaml")]
    return [document for file in files for document in documents(file)]


def resource(folder: Path, kind: str) -> dict[str, Any]:
    [found] = [document for document in resources(folder) if document["kind"] == kind]
    return found


def pod(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = resource(folder, "StatefulSet" if folder == STORE else "Deployment")["spec"]["template"]
    return found


def containers(folder: Path) -> dict[str, dict[str, Any]]:
    spec = pod(folder)["spec"]
    return {container["name"]: container for container in [*spec.get("initContainers", []), *spec["containers"]]}


def environment(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def fields(path: Path) -> dict[str, str]:
    return {name.removeprefix("AUTHZ_").lower(): value for name, value in environment(path).items()}


def seconds_to_end(path: Path) -> float:
    settings = Settings.load(**fields(path))
    return settings.drain + settings.grace


def unit() -> dict[str, list[str]]:
    parser = configparser.RawConfigParser(strict=False)
    text = (DEPLOY / "systemd/authz.service").read_text(encoding="utf-8")
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Service", "Install"]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


# ---- Settings ----


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert all(documents(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_variable_is_a_setting(path: Path) -> None:
    names = set(re.findall(r"AUTHZ_[A-Z0-9_]+", path.read_text(encoding="utf-8")))
    assert {name.removeprefix("AUTHZ_").lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.parent.name)
def test_a_server_can_be_built_from_the_settings(path: Path) -> None:
    authorizer_of(Settings.load(**fields(path))).close()


def test_secrets_are_referred_to_and_never_written() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert not re.search(r"AUTHZ_\w*SECRET\b(?!_FILE)", text)
    assert "kind: Secret\n" not in text


# ---- Kubernetes ----


@pytest.mark.parametrize("release", ["1.30", "1.37"])
@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_manifests_follow_the_schemas_of_kubernetes(folder: Path, release: str) -> None:
    ours = [document for document in resources(folder) if "istio.io" not in document["apiVersion"]]
    assert ours
    for document in ours:
        kubernetes_validate.validate(document, release, strict=True)


def named(folder: Path) -> Iterator[str]:
    listed = kustomization(folder)
    yield from listed["resources"]
    yield from (patch["path"] for patch in listed.get("patches", []))
    for generator in listed["configMapGenerator"]:
        yield from (*generator.get("envs", []), *generator.get("files", []))


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_kustomizations_name_every_file_and_only_files(folder: Path) -> None:
    others = {"kustomization.yaml", "mesh-config.yaml"}
    assert all((folder / name).exists() for name in named(folder))
    assert {path.name for path in folder.iterdir()} - others == {name for name in named(folder) if "/" not in name}


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_the_image_is_of_this_version(folder: Path) -> None:
    images = {image["name"]: image for image in kustomization(folder)["images"]}
    assert images["authz"]["newTag"] == version("grpc-org-authz")


@pytest.mark.parametrize("folder", [*DEPLOYMENTS, pytest.param(STORE, id="store")])
def test_pods_keep_to_the_restricted_profile(folder: Path) -> None:
    spec = pod(folder)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in containers(folder).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} == set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_probes_ask_where_the_server_answers(folder: Path) -> None:
    authz = containers(folder)["authz"]
    ports = {port["name"]: str(port["containerPort"]) for port in authz["ports"]}
    asked = {name: authz[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    http_port = environment(folder / "settings.env")["AUTHZ_HTTP_LISTEN"].rpartition(":")[2]
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {ports[probe["port"]] for probe in asked.values()} == {http_port}
    assert pod(folder)["metadata"]["annotations"]["prometheus.io/port"] == http_port


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_pods_are_given_time_to_end(folder: Path) -> None:
    spec = pod(folder)["spec"]
    assert spec["terminationGracePeriodSeconds"] >= seconds_to_end(folder / "settings.env") + SPARE_SECONDS


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_whatever_selects_pods_finds_ours(folder: Path) -> None:
    labels = pod(folder if folder != ISTIO else SHARED)["metadata"]["labels"]
    for document in resources(folder):
        spec = document.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        if document.get("metadata", {}).get("namespace") != "istio-system":
            assert selector.get("matchLabels", selector).items() <= labels.items()


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_services_lead_to_ports_that_exist(folder: Path) -> None:
    names = {port["name"] for container in containers(folder).values() for port in container.get("ports", [])}
    service = resource(folder, "Service")["spec"]
    assert {port["targetPort"] for port in service["ports"]} <= names
    assert service["clusterIP"] == "None"


def test_only_envoy_reaches_the_shared_service() -> None:
    policy = resource(SHARED, "NetworkPolicy")["spec"]
    callers = {port["port"]: rule["from"] for rule in policy["ingress"] for port in rule["ports"]}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [source["podSelector"]["matchLabels"] for source in callers["grpc"]] == [{"app.kubernetes.io/name": "envoy"}]


def envoy_command(folder: Path = SIDECAR) -> list[str]:
    # The command is continued on a second line.
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8").replace(" \\\n    ", " ")
    file = re.escape(f"deploy/{folder.relative_to(DEPLOY)}/envoy.yaml")
    [line] = re.findall(rf"^\$ authz (envoy-config .*) > {file}$", readme, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.parametrize("folder", BOOTSTRAPS)
def test_the_bootstrap_is_what_the_command_makes(folder: Path, tmp_path: Path) -> None:
    """Run the command that deploy/README.md names for it if this fails."""
    made = run(*envoy_command(folder), folder=tmp_path)
    assert made.stdout == (folder / "envoy.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", BOOTSTRAPS)
def test_envoy_accepts_the_bootstrap_and_its_options(folder: Path) -> None:
    [compose] = documents(COMPOSE / "compose.yaml")
    of = {SIDECAR: containers(SIDECAR)["envoy"]["args"], COMPOSE: compose["services"]["envoy"]["command"]}
    options = ["--config-path", str(folder / "envoy.yaml"), *of[folder][2:]]
    done = subprocess.run(
        [envoy_path(), "--mode", "validate", "--log-level", "warn", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_envoy_refuses_requests_before_its_container_is_ended_for_want_of_memory() -> None:
    [bootstrap] = documents(SIDECAR / "envoy.yaml")
    [heap, _] = bootstrap["overload_manager"]["resource_monitors"]
    limit = containers(SIDECAR)["envoy"]["resources"]["limits"]["memory"]
    [compose] = documents(COMPOSE / "compose.yaml")
    assert heap["typed_config"]["max_heap_size_bytes"] == 192 * 2**20
    assert (limit, compose["services"]["envoy"]["mem_limit"]) == ("256Mi", "256m")
    assert [envoy_command(folder)[-2:] for folder in (SIDECAR, COMPOSE)] == [["--max-heap-bytes", "201326592"]] * 2


def test_envoy_and_authz_share_one_socket() -> None:
    command, listen = envoy_command(), environment(SIDECAR / "settings.env")["AUTHZ_LISTEN"]
    assert command[command.index("--authz") + 1] == listen
    folders = {
        name: [mount["mountPath"] for mount in container.get("volumeMounts", []) if mount["name"] == "authz-socket"]
        for name, container in containers(SIDECAR).items()
    }
    socket_folder = str(Path(listen.removeprefix("unix:")).parent)
    assert folders == {"authz": [socket_folder], "envoy": [socket_folder], "app": []}


# ---- Istio ----


def test_istio_removes_the_trusted_names_as_envoy_does() -> None:
    patches = resource(ISTIO, "EnvoyFilter")["spec"]["configPatches"]
    ours = manager_of(listener("main", "127.0.0.1:10000", [], authz="authz", trusted=TrustedMetadata()))
    manager, trailers = [patch["patch"]["value"]["typed_config"] for patch in patches]
    removal = "early_header_mutation_extensions"
    assert manager == {"@type": ours["@type"], removal: ours[removal], **edge.connection_manager()}
    assert trailers == ours["http_filters"][1]["typed_config"]


def test_istio_asks_our_service_and_never_fails_open() -> None:
    [mesh] = documents(ISTIO / "mesh-config.yaml")
    [provider] = mesh["extensionProviders"]
    service = resource(ISTIO, "Service")
    [custom] = [found for found in resources(ISTIO) if found.get("spec", {}).get("action") == "CUSTOM"]
    assert custom["spec"]["provider"]["name"] == provider["name"]
    assert provider["envoyExtAuthzGrpc"] == {
        "service": f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local",
        "port": service["spec"]["ports"][0]["port"],
        "timeout": "1s",
        "failOpen": False,
        "statusOnError": "503",
    }


# ---- systemd ----


def test_the_unit_is_hardened() -> None:
    hardened = {
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter": "@system-service",
    }
    assert {name: [value] for name, value in hardened.items()}.items() <= unit().items()


def test_the_unit_starts_reloads_and_ends_the_server() -> None:
    service = unit()
    assert service["Type"] == ["exec"]
    assert shlex.split(service["ExecStart"][0])[1:] == ["serve"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["KillMode"] == ["mixed"]
    assert float(service["TimeoutStopSec"][0]) >= seconds_to_end(DEPLOY / "systemd/authz.env") + SPARE_SECONDS


def test_the_unit_hands_over_its_secret_in_a_file() -> None:
    service = unit()
    [name] = [credential.partition(":")[0] for credential in service["LoadCredential"]]
    assert service["Environment"] == [f"AUTHZ_INTROSPECTION_CLIENT_SECRET_FILE=%d/{name}"]


def test_the_unit_bounds_its_memory() -> None:
    service = unit()
    assert [service[name] for name in ("MemoryMax", "OOMPolicy", "Restart")] == [["1G"], ["continue"], ["on-failure"]]
