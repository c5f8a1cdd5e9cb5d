"""Configurations of Envoy: what is printed for it is good, and each change that opens or breaks it is named."""

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.call.metadata import TrustedMetadata
from authz.cli import run
from authz.cli.doctor.envoy.filters import check_envoy
from authz.cli.doctor.subject import Evidence, Subject
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.settings.settings import Settings
from tests.cli.doctor.conftest import Diagnose, Diagnosis
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.e2e.control_planes import gateway, istio_gateway

LISTEN = "127.0.0.1:9191"
UPSTREAM = ("--upstream", "127.0.0.1:50051")

Config = dict[str, Any]
Change = Callable[[Config], object]


@pytest.fixture
def printed(diagnose: Diagnose, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:  # noqa: ARG001 - no variables
    """Return a function that prints a configuration as an operator would."""

    def printed(*arguments: str) -> str:
        assert run(("envoy-config", *arguments)) == 0
        return capsys.readouterr().out

    return printed


@pytest.fixture
def examined(diagnose: Diagnose, rsa_key: SigningKey, tmp_path: Path) -> Callable[..., Diagnosis]:
    """Return a function that has a configuration examined, by a server that needs no issuer."""
    server = {"AUTHZ_ISSUER": ISSUER, "AUTHZ_AUDIENCE": AUDIENCE, "AUTHZ_JWKS": json.dumps(jwks(rsa_key))}

    def examined(config: str | Config, *arguments: str, **variables: str) -> Diagnosis:
        file = tmp_path / "envoy.yaml"
        file.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
        return diagnose("--envoy-config", str(file), *arguments, **{"AUTHZ_LISTEN": LISTEN, **server, **variables})

    return examined


def manager(config: Config) -> Config:
    found: Config = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def asking(config: Config) -> Config:
    [found] = [each for each in manager(config)["http_filters"] if each["name"] == "envoy.filters.http.ext_authz"]
    settings: Config = found["typed_config"]
    return settings


def cluster(config: Config) -> Config:
    [found] = [each for each in config["static_resources"]["clusters"] if each["name"] == "authz"]
    settings: Config = found
    return settings


def routes(config: Config) -> Config:
    found: Config = manager(config)["route_config"]["virtual_hosts"][0]
    return found


def faults_of_envoy(found: Diagnosis) -> dict[str, str]:
    return {each["code"]: each["level"] for each in found.findings if each["check"] == "envoy" and each["code"]}


@pytest.mark.parametrize(
    ("arguments", "listen"),
    [
        (UPSTREAM, LISTEN),
        ((*UPSTREAM, "--http-upstream", "127.0.0.1:8080", "--grpc-web", "--cors-origin", "https://a.example"), LISTEN),
        ((*UPSTREAM, "--json"), LISTEN),
        ((*UPSTREAM, "--authz", "unix:/run/authz.sock"), "unix:/run/authz.sock"),
        ((*UPSTREAM, "--authz", "localhost:9191"), LISTEN),
        ((*UPSTREAM, "--authz", "authz.internal:9191"), "0.0.0.0:9191"),
        ((*UPSTREAM, "--authz", "[::1]:9191"), "[::]:9191"),
        (("--format", "filter"), LISTEN),
        (("--format", "filter", "--json", "--grpc-web"), LISTEN),
    ],
)
def test_what_is_printed_is_good(
    printed: Callable[..., str], examined: Callable[..., Diagnosis], arguments: Sequence[str], listen: str
) -> None:
    found = examined(printed(*arguments), AUTHZ_LISTEN=listen)

    assert faults_of_envoy(found) == {}
    assert found.of("envoy")["found"] == "1 filter asks this server"


def test_names_of_fields_may_be_those_of_json(printed: Callable[..., str], examined: Callable[..., Diagnosis]) -> None:
    text = re.sub(
        '"([a-z0-9]+(?:_[a-z0-9]+)+)":',
        lambda found: '"' + re.sub("_(.)", lambda letter: letter[1].upper(), found[1]) + '":',
        printed(*UPSTREAM, "--json"),
    )
    assert '"failureModeAllow": false' in text
    assert faults_of_envoy(examined(text)) == {}
    fails_open = text.replace('"failureModeAllow": false', '"failureModeAllow": true')
    assert faults_of_envoy(examined(fails_open))["envoy-fails-open"] == "error"


def test_yaml_may_have_anchors(printed: Callable[..., str], examined: Callable[..., Diagnosis]) -> None:
    text = printed(*UPSTREAM, "--json")
    shared = "x: &where {cluster_name: authz}\n" + yaml.safe_dump(json.loads(text)).replace(
        "envoy_grpc:\n                  cluster_name: authz", "envoy_grpc: *where"
    )
    assert faults_of_envoy(examined(shared)) == {}


def _other_port(config: Config) -> None:
    address = cluster(config)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    address["socket_address"]["port_value"] = 9999


def _unprotected(config: Config) -> None:
    off = {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
    route = {"match": {"prefix": "/open"}, "route": {"cluster": "upstream"}}
    routes(config)["routes"].insert(0, {**route, "typed_per_filter_config": {"envoy.filters.http.ext_authz": off}})


def _unprotected_and_forgeable(config: Config) -> None:
    _unprotected(config)
    del manager(config)["early_header_mutation_extensions"]


def _no_filter(config: Config) -> None:
    manager(config)["http_filters"] = [each for each in manager(config)["http_filters"] if "router" in each["name"]]


def _disabled(config: Config) -> None:
    for each in manager(config)["http_filters"]:
        if each["name"] == "envoy.filters.http.ext_authz":
            each["disabled"] = True


def _http_service(config: Config) -> None:
    del asking(config)["grpc_service"]
    uri = {"uri": "http://127.0.0.1:9191", "cluster": "authz", "timeout": "1s"}
    asking(config)["http_service"] = {"server_uri": uri}


def _with_tls(config: Config) -> None:
    cluster(config)["transport_socket"] = {"name": "envoy.transport_sockets.tls"}


def _http1(config: Config) -> None:
    [options] = cluster(config)["typed_extension_protocol_options"].values()
    options["explicit_http_config"] = {"http_protocol_options": {}}


@pytest.mark.parametrize(
    ("change", "code", "level"),
    [
        (_other_port, "envoy-asks-elsewhere", "error"),
        (lambda config: cluster(config).update(name="other"), "envoy-asks-elsewhere", "error"),
        (lambda config: cluster(config).update(load_assignment={}), "envoy-asks-elsewhere", "error"),
        (_no_filter, "envoy-asks-nothing", "error"),
        (_disabled, "envoy-asks-nothing", "error"),
        (_http_service, "envoy-http-service", "error"),
        (_with_tls, "envoy-tls", "error"),
        (_http1, "envoy-not-http2", "error"),
        (lambda config: asking(config).update(failure_mode_allow=True), "envoy-fails-open", "error"),
        (lambda config: asking(config).update(shadow_mode=True), "envoy-fails-open", "error"),
        (
            lambda config: asking(config).update(filter_enabled={"default_value": {"numerator": 50}}),
            "envoy-fails-open",
            "error",
        ),
        (lambda config: asking(config)["grpc_service"].pop("timeout"), "envoy-timeout", "warning"),
        (lambda config: asking(config)["grpc_service"].update(timeout="600s"), "envoy-timeout", "warning"),
        (lambda config: asking(config).pop("status_on_error"), "envoy-hides-outages", "warning"),
        (lambda config: asking(config).pop("validate_mutations"), "envoy-trusts-answers", "warning"),
        (lambda config: asking(config).update(with_request_body={}), "envoy-holds-streams", "warning"),
        (
            lambda config: asking(config).update(allowed_headers={"patterns": [{"exact": "x-a"}]}),
            "envoy-token-withheld",
            "error",
        ),
        (
            lambda config: asking(config).update(disallowed_headers={"patterns": [{"prefix": "AUTHOR"}]}),
            "envoy-token-withheld",
            "error",
        ),
        (lambda config: manager(config).pop("early_header_mutation_extensions"), "envoy-names-kept", "warning"),
        (_unprotected, "envoy-route-unchecked", "warning"),
        (_unprotected_and_forgeable, "envoy-names-kept", "error"),
        (lambda config: routes(config).update(request_headers_to_remove=["X-Org-Id"]), "envoy-names-lost", "error"),
        (
            lambda config: asking(config).update(decoder_header_mutation_rules={"disallow_all": True}),
            "envoy-names-lost",
            "warning",
        ),
        (lambda config: manager(config).pop("normalize_path"), "envoy-paths", "warning"),
    ],
)
def test_change_that_opens_or_breaks_it_is_named(
    printed: Callable[..., str], examined: Callable[..., Diagnosis], change: Change, code: str, level: str
) -> None:
    config = json.loads(printed(*UPSTREAM, "--json"))
    change(config)
    found = examined(config)

    assert faults_of_envoy(found)[code] == level
    assert found.with_code(code)["remedy"]
    assert found.status == (1 if level == "error" else 0)


def test_endpoint_that_does_not_match_is_named_with_the_right_one(
    printed: Callable[..., str], examined: Callable[..., Diagnosis]
) -> None:
    fault = examined(printed(*UPSTREAM, "--authz", "127.0.0.1:9999")).with_code("envoy-asks-elsewhere")

    assert "127.0.0.1:9999" in fault["found"]
    assert fault["expected"] == LISTEN
    assert "--listen" in fault["remedy"]


def test_one_unprotected_listener_beside_a_protected_one_is_named(
    printed: Callable[..., str], examined: Callable[..., Diagnosis]
) -> None:
    config = json.loads(printed(*UPSTREAM, "--json"))
    open_one = copy.deepcopy(config["static_resources"]["listeners"][0])
    config["static_resources"]["listeners"].append(open_one)
    open_manager = open_one["filter_chains"][0]["filters"][0]["typed_config"]
    open_manager["stat_prefix"] = "side_door"
    open_manager["http_filters"] = open_manager["http_filters"][-1:]

    fault = examined(config).with_code("envoy-asks-nothing")
    assert (fault["level"], fault["found"]) == ("warning", "side_door: no ext_authz filter in force")


@pytest.mark.parametrize("missing", [None, "x-org-id"])
def test_service_over_http_is_compared_with_its_own_address(
    printed: Callable[..., str], examined: Callable[..., Diagnosis], missing: str | None
) -> None:
    config = json.loads(printed(*UPSTREAM, "--authz", "127.0.0.1:9193", "--json"))
    _http_service(config)
    passed = [{"exact": name} for name in TrustedMetadata().names if name != missing]
    asking(config)["http_service"]["authorization_response"] = {"allowed_upstream_headers": {"patterns": passed}}
    found = examined(config, "--forward-auth", "127.0.0.1:9193", "--forward-auth-headers", "none")

    assert faults_of_envoy(found) == ({} if missing is None else {"envoy-names-lost": "error"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("apiVersion: v1\nkind: Service", "manifests of Kubernetes"),
        ("some: thing", "has neither HTTP connection managers nor clusters"),
        ("a: &a\n  b: *a", "nested too deeply, or too large"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            "nested too deeply, or too large",
        ),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ("[" * 100_000, "line 1: nested too deeply"),
        ("- " * 100_000, "line 1: nested too deeply"),
        ("\x00", "neither YAML nor JSON"),
    ],
)
def test_what_cannot_be_read_is_a_gap_and_no_fault(examined: Callable[..., Diagnosis], text: str, told: str) -> None:
    found = examined(text)

    assert (found.status, found.with_code("envoy-unreadable")["level"]) == (3, "skipped")
    assert told in found.with_code("envoy-unreadable")["found"]


def _places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from _places(inner, *path, step)


def test_nonsense_at_any_place_of_a_configuration_ends_no_check(printed: Callable[..., str], tmp_path: Path) -> None:
    config, file = json.loads(printed(*UPSTREAM, "--json")), tmp_path / "envoy.json"
    asking(config).update(allowed_headers={"patterns": [{"exact": "authorization"}]}, with_request_body={})
    # There are hundreds of these, all alike.
    del manager(config)["early_header_mutation_extensions"][0]["typed_config"]["mutations"][3:]
    manager(config)["http_filters"][-2]["typed_config"]["mutations"] = {}
    subject = Subject(settings=Settings.load(listen=[LISTEN]), evidence=Evidence(envoy_config=file))
    for (*outer, last), nonsense in zip(_places(config), itertools.cycle((None, 0, "x", [0])), strict=False):
        changed = copy.deepcopy(config)
        place = changed
        for step in outer:
            place = place[step]
        place[last] = nonsense
        file.write_text(json.dumps(changed), encoding="utf-8")

        assert list(check_envoy(subject)), (*outer, last)


def test_a_filter_that_is_on_for_some_routes_only_is_looked_at_route_by_route(
    printed: Callable[..., str], examined: Callable[..., Diagnosis]
) -> None:
    config = json.loads(printed(*UPSTREAM, "--json"))
    _disabled(config)
    on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
    routes(config)["routes"][-1]["typed_per_filter_config"] = {"envoy.filters.http.ext_authz": on}
    assert faults_of_envoy(examined(config)) == {}

    routes(config)["routes"].append({"match": {"path": "/open"}, "route": {"cluster": "upstream"}})
    assert examined(config).with_code("envoy-route-unchecked")["found"] == "the check is off for the path /open of all"


# Its resources have no field for these.
OF_ENVOY_GATEWAY = ("envoy-hides-outages", "envoy-trusts-answers", "envoy-names-kept")


@pytest.mark.parametrize(("made", "warnings"), [(istio_gateway, ()), (gateway, OF_ENVOY_GATEWAY)])
def test_what_control_planes_make_of_our_resources_is_no_error(
    examined: Callable[..., Diagnosis], made: Callable[..., Config], warnings: Sequence[str]
) -> None:
    config = made("127.0.0.1:9191", "127.0.0.1:50051", "127.0.0.1:8080")

    assert faults_of_envoy(examined(config)) == dict.fromkeys(warnings, "warning")


def test_a_running_envoy_tells_what_is_in_force(
    printed: Callable[..., str], examined: Callable[..., Diagnosis], tmp_path: Path
) -> None:
    text = printed(*UPSTREAM, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--json")
    wrong = text.replace('"failure_mode_allow": false', '"failure_mode_allow": true')
    for config, expected in ((text, {}), (wrong, {"envoy-fails-open": "error"})):
        proxy = Envoy(json.loads(config), tmp_path)
        try:
            proxy.addresses()
            found = examined(text, "--envoy-admin", (tmp_path / "envoy-admin").read_text(encoding="utf-8"))
        finally:
            proxy.stop()
        assert faults_of_envoy(found) == expected
