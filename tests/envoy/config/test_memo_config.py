"""What is printed so that Envoy repeats answers: the real Envoy accepts it, and it opens nothing by itself."""

from pathlib import Path
from typing import Any

import pytest

from authz.cli.envoy_config import Around, _remembering
from authz.envoy.config.annotated import render
from authz.envoy.config.authz_cluster import Tls, endpoints
from authz.envoy.config.formats import Ingress, bootstrap
from authz.envoy.config.memo import LUA, check_xds
from authz.envoy.memo.script import NOTHING
from authz.errors import ConfigError
from authz.settings.settings import Settings
from tests.envoy.config.validation import validate


def printed(xds: str | None, **more: Any) -> dict[str, Any]:
    where = endpoints(["unix:/run/authz/a.sock"])
    found: dict[str, Any] = bootstrap(Ingress(authz=where, upstream="127.0.0.1:1", xds=xds, **more)).data
    return found


def filters(config: dict[str, Any]) -> list[dict[str, Any]]:
    [listener] = config["static_resources"]["listeners"]
    found: list[dict[str, Any]] = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    return found


@pytest.mark.parametrize("xds", ["unix:/run/authz/xds.sock", "file:", "tls:authz.example:9192", "tls:127.0.0.1:9192"])
def test_envoy_accepts_it(tmp_path: Path, xds: str) -> None:
    (tmp_path / "memo.json").write_text('{"version_info": "1", "resources": []}')
    config = printed(
        f"file:{tmp_path}/memo.json" if xds == "file:" else xds, grpc_web=True, cors_origins=["https://a.b"]
    )
    # The certificates are not there.
    for each in config["static_resources"]["clusters"]:
        each.pop("transport_socket", None)
    validate(config)


def test_it_is_off_by_default() -> None:
    assert "memo" not in str(printed(None))
    assert "node" not in printed(None)


def test_the_check_is_left_out_only_where_the_mark_is() -> None:
    first, second, *_ = filters(printed("unix:/run/x.sock"))

    assert first["name"] == "authz.memo"
    assert second["typed_config"]["filter_enabled_metadata"] == {
        "filter": "authz.memo",
        "path": [{"key": "decided"}],
        "value": {"bool_match": True},
        "invert": True,
    }
    assert second["typed_config"]["failure_mode_allow"] is False


def test_without_the_server_nothing_is_repeated() -> None:
    discovery = filters(printed("unix:/run/x.sock"))[0]["config_discovery"]

    assert discovery["default_config"] == {"@type": LUA, "default_source_code": {"inline_string": NOTHING}}
    assert discovery["apply_default_config_without_warming"] is True


def test_a_script_comes_only_from_a_server_that_is_known() -> None:
    clusters = printed("tls:authz.example:9192", tls=Tls(ca_file="/ca.pem", cert_file="/c", key_file="/k"))
    [xds] = [each for each in clusters["static_resources"]["clusters"] if each["name"] == "authz_xds"]
    tls = xds["transport_socket"]["typed_config"]["common_tls_context"]

    assert tls["tls_certificates"][0]["certificate_chain"] == {"filename": "/c"}
    assert tls["validation_context"]["match_typed_subject_alt_names"][0]["matcher"] == {"exact": "authz.example"}


@pytest.mark.parametrize("xds", [None, "127.0.0.1:1", "tls:127.0.0.1:0", "file:", "unix:"])
def test_anything_else_is_refused(xds: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^xds: "):
        check_xds(xds)


@pytest.mark.parametrize("format_", ["filter", "istio", "envoy-gateway", "kubernetes"])
def test_other_formats_refuse_and_say_why(format_: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^remember: not for --format {format_}: "):
        _remembering(Around(remember=True), Settings.model_construct(xds=None), format_)


def test_a_source_of_scripts_alone_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^xds: only together with --remember"):
        _remembering(Around(xds="unix:/x"), Settings.model_construct(xds=None), "bootstrap")


def test_every_part_has_its_reason() -> None:
    where = endpoints(["unix:/run/authz/a.sock"])
    text = render([bootstrap(Ingress(authz=where, upstream="127.0.0.1:1", xds="unix:/run/x.sock"))])

    for part in (
        "- name: authz.memo",
        "config_source:",
        "default_config:",
        "filter_enabled_metadata:",
        "- name: authz_xds",
    ):
        [index] = [number for number, line in enumerate(text.splitlines()) if line.strip() == part]
        assert text.splitlines()[index - 1].strip().startswith("#"), part
