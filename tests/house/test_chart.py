"""The chart, rendered by the real Helm: it is what the manifests are, with any values, or says what is wrong."""

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from authz.policy.policy import Policy
from authz.settings.settings import Settings
from tests.house.test_deploy import DEPLOY, SHARED, SPARE_SECONDS, STORE, documents, environment, resource
from tests.missing import leave_out
from tests.settings.chart import schema

try:
    import helm_python as helm
except ImportError:
    helm = None

CHART = DEPLOY / "helm/authz"
GIVEN = {"issuer": "https://acme.authkit.app", "audience": "client_01JYENV0000000000000000000"}
POLICY = "name: shop\nallow_rules:\n- name: all\n"
STRANGE = {"issuer": 'https://acme.authkit.app/"a":{{b}}#', "audience": "a'b: #c,d"}
BUNDLED = {"mode": "bundled"}
EXTERNAL = {"mode": "external", "external": {"url": "rediss://valkey.example.com:6380"}}
EVERYTHING = {
    "policy": {"existingConfigMap": "authz-policy"},
    "introspection": {"enabled": True, "clientId": "client_01JYAPI0000000000000000000"},
    "store": BUNDLED,
}
# Each is given beside the issuer and the audience, in a release of another name.
COMBINATIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "everything": EVERYTHING,
    "policy": {"policy": {"text": POLICY}},
    "external store": {"store": EXTERNAL},
    "external store, own authority": {
        "store": {"mode": "external", "external": {"url": "rediss://valkey.example.com", "caSecretName": "valkey-ca"}}
    },
    "bundled store, own class": {
        "store": {
            **BUNDLED,
            "bundled": {"storageClassName": "fast", "image": {"digest": "sha256:" + "a" * 64}, "storage": "1Ti"},
        }
    },
    "strange text": {**STRANGE, "settings": {"realm": 'a "b" # c: {{ d }}'}},
    "settings": {"settings": {"leeway": 0.5, "max_pending": 1000000, "reflection": True, "decision_log": "all"}},
    "mesh": {"tls": {"enabled": False}, "service": {"headless": False, "annotations": {"a": "b"}}},
    "IPv6": {"host": "[::]"},
    "no scaler": {"autoscaling": {"enabled": False}, "replicas": 1, "podDisruptionBudget": {"enabled": False}},
    "a share may be disrupted": {"podDisruptionBudget": {"maxUnavailable": "25%"}},
    "no network policy": {"networkPolicy": {"enabled": False}, "store": BUNDLED},
    "network": {
        "networkPolicy": {
            "envoys": [],
            "prometheus": [],
            "dns": [],
            "extraEgress": [{"ports": [{"port": 8443, "protocol": "TCP"}]}],
        }
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "1m"},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "names": {"fullnameOverride": "edge", "serviceAccount": {"create": False, "name": "of-others"}},
    "image": {
        "image": {"repository": "registry.example.com:5000/authz", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "pods": {
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "edge"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "serviceAccount": {"annotations": {"a": "b"}},
        "drain": 0.5,
        "grace": 3600,
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
    },
    "files": {
        "settings": {"admin": "127.0.0.1:9193", "admin_secret_file": "/etc/admin/secret"},
        "extraVolumes": [{"name": "admin", "secret": {"secretName": "authz-admin"}}],
        "extraVolumeMounts": [{"name": "admin", "mountPath": "/etc/admin", "readOnly": True}],
    },
}
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule"}


@pytest.fixture(autouse=True)
def there_is_helm() -> None:
    if helm is None:
        leave_out("the chart: there is no Helm for this machine", "make test on Linux, x86-64")


def rendered(values: Mapping[str, Any], name: str = "authz", namespace: str = "authz") -> dict[str, str]:
    with helm.Chart.load(CHART) as chart:
        found: dict[str, str] = chart.render({**GIVEN, **values}, name=name, namespace=namespace)
        return found


def objects(
    values: Mapping[str, Any], name: str = "authz", namespace: str = "authz"
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what is rendered, by kind and name."""
    texts = [text for path, text in rendered(values, name, namespace).items() if path.endswith(".yaml")]
    found = [document for text in texts for document in yaml.safe_load_all(text) if document]
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(by_name) == len(found)
    return by_name


def pods(found: Mapping[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["spec"]["template"] for each in found.values() if each["kind"] in {"Deployment", "StatefulSet"}]


def plain(value: Any) -> Any:
    """Return an object without what only one of both has: labels of Helm, and what a name or a checksum makes anew."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    ours = {"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"}
    left = {"imagePullPolicy", "image", "optional", "checksum/settings", "checksum/configuration", *ours}
    found = {name: plain(each) for name, each in value.items() if name not in left}
    return {name: each for name, each in found.items() if (name, each) != ("annotations", {})}


def test_the_chart_is_of_this_version() -> None:
    [chart] = documents(CHART / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (version("grpc-org-authz"),) * 2


def test_values_know_every_setting() -> None:
    """Run ``make settings`` if this fails."""
    text = (CHART / "values.schema.json").read_text(encoding="utf-8")
    assert schema(text) == text


def test_no_value_is_a_secret() -> None:
    names = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["propertyNames"]["enum"]
    assert {"admin_secret", "introspection_client_secret", "workos_api_key"}.isdisjoint(names)
    kinds = {kind for values in COMBINATIONS.values() for kind, _ in objects(values)}
    assert "Secret" not in kinds


def test_helm_finds_nothing_to_lint() -> None:
    report = helm.lint(CHART, GIVEN, strict=True)
    assert report["errors"] == []
    assert [message["path"] for message in report["messages"]] == ["Chart.yaml"]  # that an icon is missing


@pytest.mark.parametrize("release", ["v1.30.0", "v1.37.0"])
def test_the_chart_is_for_the_kubernetes_that_are_tested(release: str) -> None:
    assert helm.lint(CHART, GIVEN, strict=True, kube_version=release)["errors"] == []


# ---- What the manifests say ----


@pytest.mark.parametrize(
    "kind", ["Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
)
def test_the_chart_renders_what_the_manifests_say(kind: str) -> None:
    made, written = objects(EVERYTHING)[kind, "authz"], resource(SHARED, kind)
    assert plain(made) | {"metadata": 0} == plain(written) | {"metadata": 0}


def test_the_network_policy_is_that_of_the_manifests_and_of_helm_test() -> None:
    made = plain(objects(EVERYTHING)["NetworkPolicy", "authz"])["spec"]
    written = plain(resource(SHARED, "NetworkPolicy"))["spec"]
    test = made["ingress"].pop()
    assert test["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "authz-test"}}}]
    assert made == written


def test_without_options_pods_lack_only_what_options_need() -> None:
    [made] = [spec["spec"] for spec in pods(objects({}))]
    written = resource(SHARED, "Deployment")["spec"]["template"]["spec"]
    assert [volume["name"] for volume in made["volumes"]] == ["tls", "tmp"]
    optional = {v["name"] for v in written["volumes"] if "optional" in str(v)}
    assert {volume["name"] for volume in written["volumes"]} - optional == {"tls", "tmp"}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["nothing", "everything"])
def test_settings_are_those_of_the_manifests(values: dict[str, Any]) -> None:
    made = objects(values)["ConfigMap", "authz"]["data"]
    text = (SHARED / "settings.env").read_text(encoding="utf-8")
    written = environment(SHARED / "settings.env")
    if values:
        commented = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# AUTHZ_")]
        written |= dict(line.split("=", 1) for line in commented)
    else:
        del written["AUTHZ_INTROSPECTION_CLIENT_SECRET_FILE"]
    assert made == written


@pytest.mark.parametrize("kind", ["StatefulSet", "Service", "ServiceAccount", "NetworkPolicy"])
def test_the_store_is_that_of_the_manifests(kind: str) -> None:
    made, written = objects(EVERYTHING)[kind, "authz-store"], resource(STORE, kind)
    assert plain(made) | {"metadata": 0} == plain(written) | {"metadata": 0}


def test_the_store_has_the_files_of_the_manifests() -> None:
    found = objects(EVERYTHING)["ConfigMap", "authz-store"]["data"]
    assert found == {name: (STORE / name).read_text() for name in ("valkey.conf", "users.acl", "start.sh")}


@pytest.mark.parametrize("user", ["server", "source"])
def test_pods_that_follow_workos_are_the_user_who_may_give_orders(user: str) -> None:
    found = objects({"store": BUNDLED, "settings": {"workos_events": user == "source"}})
    told = found["ConfigMap", "authz"]["data"]
    volumes = found["Deployment", "authz"]["spec"]["template"]["spec"]["volumes"]
    [store] = [each["secret"] for each in volumes if each["name"] == "store"]

    assert told["AUTHZ_STORE_USERNAME"] == f"authz-{user}"
    assert told["AUTHZ_STORE_PASSWORD_FILE"] == f"/etc/authz/store/{user}-password"
    assert [each["key"] for each in store["items"]] == [f"{user}-password"]


def test_the_rules_are_the_alerts() -> None:
    found = objects({"prometheusRule": {"enabled": True, "labels": {"release": "p"}}})["PrometheusRule", "authz"]
    assert [found["spec"]] == documents(DEPLOY / "prometheus/alerts.yaml")
    assert found["metadata"]["labels"]["release"] == "p"


# ---- Any values ----


@pytest.mark.parametrize(("name", "release"), [("everything", "1.30"), *((name, "1.37") for name in COMBINATIONS)])
def test_what_is_rendered_follows_the_schemas_of_kubernetes(name: str, release: str) -> None:
    for each in objects(COMBINATIONS[name], "blue", "edge").values():
        if each["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(each, release, strict=True)


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_settings_of_any_values_are_settings(values: dict[str, Any]) -> None:
    name = values.get("fullnameOverride", "blue-authz")
    data = objects(values, "blue", "edge")["ConfigMap", name]["data"]
    Settings.load(**{field.removeprefix("AUTHZ_").lower(): value for field, value in data.items()})
    assert data["AUTHZ_ISSUER"] == {**GIVEN, **values}["issuer"]
    assert data["AUTHZ_AUDIENCE"] == {**GIVEN, **values}["audience"]


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_whatever_is_named_is_there(values: dict[str, Any]) -> None:
    found = objects(values, "blue", "edge")
    of_others = {"authz-policy", "of-others"}
    for pod in pods(found):
        spec = pod["spec"]
        maps = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
        maps |= {source["configMapRef"]["name"] for c in spec["containers"] for source in c.get("envFrom", [])}
        assert {("ConfigMap", name) for name in maps - of_others} <= set(found)
        assert ("ServiceAccount", spec["serviceAccountName"]) in found or spec["serviceAccountName"] in of_others
        volumes = {volume["name"] for volume in spec["volumes"]} | {"data"}
        assert {mount["name"] for c in spec["containers"] for mount in c["volumeMounts"]} <= volumes


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_selectors_find_the_pods_of_this_release_alone(values: dict[str, Any]) -> None:
    found = objects(values, "blue", "edge")
    labels = [pod["metadata"]["labels"] for pod in pods(found)]
    for each in found.values():
        spec = each.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector is not None and each["kind"] != "ServiceMonitor":
            selector = selector.get("matchLabels", selector)
            assert selector["app.kubernetes.io/instance"] == "blue"
            assert len([pod for pod in labels if selector.items() <= pod.items()]) == 1


def test_the_monitor_finds_a_port_that_there_is() -> None:
    found = objects({"serviceMonitor": {"enabled": True}})
    monitor, service = found["ServiceMonitor", "authz"], found["Service", "authz"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    [pod] = pods(found)
    assert not [name for name in pod["metadata"]["annotations"] if name.startswith("prometheus.io")]


def test_a_change_of_settings_starts_new_pods_and_one_of_the_policy_does_not() -> None:
    def checksum(**values: Any) -> str:
        [pod] = pods(objects(values))
        return str(pod["metadata"]["annotations"]["checksum/settings"])

    assert checksum(settings={"leeway": 5}) != checksum(settings={"leeway": 6})
    assert checksum(policy={"text": POLICY}) == checksum(policy={"text": POLICY + "#"})


@pytest.mark.parametrize(("drain", "grace"), [(15, 5), (0, 0), (0.5, 0.5), (120, 30)])
def test_pods_are_given_time_to_end(drain: float, grace: float) -> None:
    [pod] = pods(objects({"drain": drain, "grace": grace}))
    assert pod["spec"]["terminationGracePeriodSeconds"] >= drain + grace + SPARE_SECONDS


def test_numbers_are_written_out() -> None:
    data = objects({"settings": {"max_pending": 12345678, "leeway": 0.5}})["ConfigMap", "authz"]["data"]
    assert (data["AUTHZ_MAX_PENDING"], data["AUTHZ_LEEWAY"]) == ("12345678", "0.5")


def test_the_policy_arrives_as_it_was_written() -> None:
    text = "# {{ a }}\nrules:\n  - methods: ['/a/*']\n\n    allow: {}\n"
    assert objects({"policy": {"text": text}})["ConfigMap", "authz-policy"]["data"]["policy.yaml"] == text


def test_a_digest_names_the_image_whatever_its_tag() -> None:
    [pod] = pods(objects({"image": {"digest": "sha256:" + "1" * 64}}))
    [image] = [container["image"] for container in pod["spec"]["containers"]]
    assert image.endswith(f":{version('grpc-org-authz')}@sha256:{'1' * 64}")


def test_the_external_store_may_be_reached_and_has_no_pod() -> None:
    found = objects({"store": EXTERNAL})
    rules = found["NetworkPolicy", "authz"]["spec"]["egress"]
    assert [port["port"] for rule in rules if "to" not in rule for port in rule["ports"]] == [443, 6380]
    assert ("StatefulSet", "authz-store") not in found


def test_helm_test_runs_a_program_that_can_be_compiled() -> None:
    pod = objects({})["Pod", "authz-ready"]
    [container] = pod["spec"]["containers"]
    compile(container["args"][0], "ready", "exec")
    assert "http://authz.authz.svc:9192/readyz" in container["args"][0]
    assert ("Pod", "authz-ready") not in objects({"service": {"headless": False}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "There is no policy"),
        ({"tls": {"enabled": False}}, "TLS is off"),
        ({"networkPolicy": {"enabled": False}}, "There is no NetworkPolicy"),
    ],
    ids=["policy", "tls", "network"],
)
def test_the_notes_say_what_is_open(values: dict[str, Any], said: str) -> None:
    closed = {"policy": {"text": POLICY}}
    assert said in rendered(values)["authz/templates/NOTES.txt"]
    assert said not in rendered(closed)["authz/templates/NOTES.txt"]


# ---- Bad values ----


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"issuer": ""}, "Set issuer and audience"),
        ({"audience": ""}, "Set issuer and audience"),
        ({"settings": {"issuers": "/etc/issuers.yaml"}}, "leave issuer and audience empty"),
        ({"issuer": "acme.authkit.app"}, "/issuer"),
        ({"isuer": "https://acme.authkit.app"}, "isuer"),
        ({"settings": {"leewy": 5}}, "leewy"),
        ({"settings": {"decision_log": ""}}, "/settings/decision_log"),
        ({"settings": {"algorithms": ["RS256"]}}, "/settings/algorithms"),
        ({"settings": {"workos_api_key": "sk"}}, "workos_api_key"),
        ({"settings": {"listen": "0.0.0.0:1"}}, "listen"),
        ({"settings": {"store_password": "x"}}, "store_password"),
        ({"tls": {"enabled": "false"}}, "/tls/enabled"),
        ({"tls": {"enable": True}}, "enable"),
        ({"host": "127.0.0.1"}, "/host"),
        ({"replicas": -1}, "/replicas"),
        ({"drain": "15s"}, "/drain"),
        ({"autoscaling": {"minReplicas": 0}}, "/autoscaling/minReplicas"),
        ({"autoscaling": {"minReplicas": 21}}, "more than autoscaling.maxReplicas"),
        ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
        ({"image": {"tag": 1.0}}, "/image/tag"),
        ({"policy": {"text": POLICY, "existingConfigMap": "mine"}}, "and not both"),
        ({"introspection": {"enabled": True}}, "needs introspection.clientId"),
        ({"store": {"mode": "external"}}, "needs store.external.url"),
        ({"store": {"mode": "on"}}, "/store/mode"),
        ({"store": {"mode": "external", "external": {"url": "redis://valkey:6379"}}}, "/store/external/url"),
        ({"store": {"mode": "external", "external": {"url": "rediss://:pw@valkey:6379"}}}, "/store/external/url"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
        ({"podDisruptionBudget": {"maxUnavailable": "all"}}, "/podDisruptionBudget/maxUnavailable"),
        ({"tls": {"secretName": "a: b"}}, "/tls/secretName"),
        ({"fullnameOverride": "Edge"}, "/fullnameOverride"),
        ({"policy": None}, "missing property 'policy'"),
        ({"store": {"bundled": None}}, "missing property 'bundled'"),
        ({"audience": None}, "missing property 'audience'"),
    ],
    ids=str,
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert said in str(refused.value)


def test_the_example_of_the_document_works(tmp_path: Path) -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```yaml\n(# values\.yaml\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(example.replace("sha256:…", "sha256:" + "a" * 64))
    found = objects(values)
    (tmp_path / "policy.yaml").write_text(found["ConfigMap", "authz-policy"]["data"]["policy.yaml"])
    assert Policy.from_file(tmp_path / "policy.yaml")
    assert {"StatefulSet", "ServiceMonitor", "PrometheusRule"} <= {kind for kind, _ in found}


def test_a_package_holds_the_files_and_no_links(tmp_path: Path) -> None:
    made = helm.package(CHART, destination=tmp_path)
    with helm.Chart.load(made) as chart:
        files = {each["name"]: each["data"] for each in chart.files}
        assert chart.render(GIVEN, name="authz", namespace="authz") == rendered({})
    assert files["files/alerts.yaml"] == (DEPLOY / "prometheus/alerts.yaml").read_text(encoding="utf-8")
