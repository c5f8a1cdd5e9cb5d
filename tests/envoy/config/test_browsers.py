"""What is printed for callers in browsers; what a real Envoy makes of it is in :mod:`tests.web`."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import browsers, parts
from authz.envoy.config.annotated import render
from authz.envoy.config.authz_cluster import Tls, authz_cluster
from authz.envoy.config.browsers import check_origin
from authz.envoy.config.formats import fragment
from authz.envoy.config.mesh import Service, envoy_gateway, istio
from authz.errors import ConfigError
from tests import programs
from tests.envoy.config.validation import validate

ORIGINS = ["https://app.example", "http://localhost:3000"]
FLAGS = [flag for origin in ORIGINS for flag in ("--cors-origin", origin)]
UPSTREAM = ("envoy-config", "--upstream", "127.0.0.1:50051")


@pytest.mark.parametrize(
    "origin",
    [*ORIGINS, "https://app.example:8443", "http://127.0.0.1:8080", "http://[::1]:3000", "capacitor://localhost"],
)
def test_origin_is_written_as_browsers_send_it(origin: str) -> None:
    assert check_origin("cors_origin", origin) == origin


@pytest.mark.parametrize(
    "origin",
    [
        *("", "*", "null", "app.example", "https://*.app.example", "https://app.example/", "https://app.example/x"),
        *("https://App.example", "HTTPS://app.example", "https://user@app.example", "https://app.example:", "https://"),
        *("https://app.example:443", "http://app.example:80", "https://app.example https://b.example"),
        *("https://app.example\n", "https://app.ex\u00e4mple", "https://app.example?x", "https://app.example#x"),
    ],
)
def test_what_no_browser_sends_or_many_could_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"^cors_origin: "):
        check_origin("cors_origin", origin)


def printed(folder: Path, *flags: str) -> str:
    done = programs.run(*flags, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def filters(config: Any) -> list[str]:
    [listener] = config["static_resources"]["listeners"]
    return names(listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"])


def names(http_filters: Any) -> list[str]:
    return [each["name"].removeprefix("envoy.filters.http.") for each in http_filters]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ["ext_authz", "header_mutation", "router"]),
        (FLAGS, ["cors", "ext_authz", "header_mutation", "router"]),
        (
            ["--grpc-web"],
            ["header_mutation.grpc_web_content_type", "ext_authz", "grpc_web", "header_mutation", "router"],
        ),
        (
            ["--grpc-web", *FLAGS],
            ["cors", "header_mutation.grpc_web_content_type", "ext_authz", "grpc_web", "header_mutation", "router"],
        ),
    ],
)
def test_filters_have_the_order_in_which_refusals_are_right(
    tmp_path: Path, flags: list[str], expected: list[str]
) -> None:
    config = yaml.safe_load(printed(tmp_path, *UPSTREAM, *flags))
    parts_of_one = yaml.safe_load(printed(tmp_path, "envoy-config", "--format", "filter", *flags))

    assert filters(config) == [*expected]
    assert names(parts_of_one["http_connection_manager"]["http_filters"]) == expected[:-1]
    validate(config)


def test_title_of_the_parts_says_where_both_filters_stand() -> None:
    [title, _] = render([fragment(["127.0.0.1:9191"], Tls())]).split("http_connection_manager:\n", 1)
    words = " ".join(title.replace("#", "").split())

    assert "before all others except cors, which stands before them" in words
    assert "grpc_web stands after ext_authz" in words


def test_parts_say_the_same_as_the_bootstrap() -> None:
    data = fragment(["127.0.0.1:9191"], Tls(), cors_origins=ORIGINS, grpc_web=True).data

    assert data["virtual_host"]["typed_per_filter_config"] == browsers.cors_policy(ORIGINS)
    assert data["routes"] == [parts.grpc_web_route("upstream")]


def test_body_that_is_shown_and_origins_go_together() -> None:
    made = parts.listener(
        "a",
        "127.0.0.1:0",
        [],
        authz="authz",
        trusted=TrustedMetadata(),
        cors_origins=ORIGINS,
        max_request_bytes=1024,
    )
    [host] = made["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]

    assert host["typed_per_filter_config"].keys() == {"envoy.filters.http.cors", "envoy.filters.http.ext_authz"}


# ---- Control planes ----


def test_istio_answers_preflights_before_the_check_and_lets_no_other_request_by() -> None:
    """Its own filter for CORS stands after the check, and requests that the policy excludes reach backends."""
    _, policy, patch = yaml.safe_load_all(render(istio(Service(), ORIGINS)))
    *_, inserted, of_hosts = patch["spec"]["configPatches"]

    assert policy["spec"]["rules"] == [{}]
    assert (inserted["applyTo"], inserted["patch"]["operation"]) == ("HTTP_FILTER", "INSERT_FIRST")
    assert (of_hosts["applyTo"], of_hosts["patch"]["operation"]) == ("VIRTUAL_HOST", "MERGE")
    made = parts.listener("ingress", "127.0.0.1:0", [], authz="authz", trusted=TrustedMetadata())
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    # And its own.
    manager["http_filters"] = [inserted["patch"]["value"], *manager["http_filters"]]
    manager["http_filters"].insert(2, browsers.cors_filter())
    manager["route_config"]["virtual_hosts"][0] |= of_hosts["patch"]["value"]
    validate(parts.bootstrap([made], [authz_cluster("authz", ["127.0.0.1:1"])]))


def test_envoy_gateway_has_words_for_origins() -> None:
    policy, *_ = yaml.safe_load_all(render(envoy_gateway(Service(), ORIGINS)))
    cors = policy["spec"]["cors"]

    assert cors["allowOrigins"] == ORIGINS
    assert {"authorization", "x-grpc-web", "connect-protocol-version"} <= set(cors["allowHeaders"])
    assert {"grpc-status", "www-authenticate", "retry-after"} <= set(cors["exposeHeaders"])
    assert "allowCredentials" not in cors


@pytest.mark.parametrize("control_plane", ["istio", "envoy-gateway"])
def test_control_planes_have_grpc_web_of_their_own(tmp_path: Path, control_plane: str) -> None:
    done = programs.run("envoy-config", "--format", control_plane, "--grpc-web", folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "grpc_web: " in done.stderr


def test_flags_are_checked(tmp_path: Path) -> None:
    done = programs.run(*UPSTREAM, "--cors-origin", "*", folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "cors_origin: '*' is not an origin" in done.stderr
