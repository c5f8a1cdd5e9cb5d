"""Answers are remembered only where Envoy can be told to forget them, and nothing else needs to see every call."""

from pathlib import Path
from typing import Any

import pytest

from authz.errors import ConfigError
from authz.server.memo.checked import Remembering
from authz.server.memo.file import ScriptFile
from authz.settings.settings import Settings


def settings(tmp_path: Path, **more: Any) -> Settings:
    given = {"issuer": "https://acme.authkit.app", "audience": ["a"], "remember": 30, "xds": f"unix:{tmp_path}/xds"}
    return Settings(**{name: value for name, value in {**given, **more}.items() if value is not None})


def test_it_is_off_by_default(tmp_path: Path) -> None:
    assert Remembering.of(settings(tmp_path, remember=None, xds=None)) is None


def test_a_socket_will_do(tmp_path: Path) -> None:
    found = Remembering.of(settings(tmp_path))

    assert found is not None
    assert found.seconds == 30
    assert found.address is not None


def test_a_decision_log_of_all_will_do_if_envoy_tells_afterwards(tmp_path: Path) -> None:
    found = Remembering.of(settings(tmp_path, decision_log="all", access_log_listen=f"unix:{tmp_path}/told.sock"))

    assert found is not None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"remember": None}, "remember"),
        ({"xds": None}, "xds"),
        ({"shadow": "shadow.yaml"}, "shadow"),
        ({"decision_log": "all"}, "decision_log"),
        ({"jwt_authn_payload": "payload"}, "jwt_authn_payload"),
        ({"xds": "127.0.0.1:9000"}, "xds"),
        ({"xds": "tls:127.0.0.1:9000"}, "xds"),
        ({"xds": "somewhere"}, "xds"),
        ({"xds": "unix:/no/such/folder/s"}, "xds"),
        ({"xds": "file:"}, "xds"),
        ({"xds": "file:/no/such/folder/f"}, "xds"),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, more: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: "):
        Remembering.of(settings(tmp_path, **more))


def test_mutual_tls_will_do(tmp_path: Path) -> None:
    found = Remembering.of(settings(tmp_path, xds="tls:127.0.0.1:9000", tls_client_ca_file="ca.pem"))

    assert found is not None
    assert found.address is not None
    assert found.address.kind == "tls"


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_a_folder_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "xds"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(ConfigError, match="mode 0700"):
        Remembering.of(settings(tmp_path, xds=f"file:{folder}/memo.json"))


def test_the_file_is_replaced_in_one_step_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    file = ScriptFile(path, lambda generation: f"-- {generation}")
    file.publish("g-1")
    with path.open(encoding="utf-8") as before:
        file.publish("g-2")
        assert "g-1" in before.read()

    assert "g-2" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["memo.json"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ScriptFile(tmp_path / "gone" / "memo.json", lambda generation: generation).publish("g")
