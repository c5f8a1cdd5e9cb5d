"""The flags of a supervisor, as its workers are told them."""

import json
from pathlib import Path
from typing import Any

import pytest

from authz.server.workers import flags
from authz.settings.settings import Settings

GIVEN: dict[str, Any] = {
    "issuer": "https://acme.authkit.app",
    "audience": ["client_1", "client_2"],
    "algorithms": ["ES256"],
    "allow_missing_kid": True,
    "decision_log": "denied",
    "drain": 27.5,
    "jwks_seed": '{"keys": []}',
    "listen": ["127.0.0.1:0", "unix:/run/authz/authz.sock"],
    "log_format": "json",
    "max_pending": 7,
    "org_id_pattern": r"org_\w+",
    "public_methods": ["/a.B/C", "/d.E/F"],
    "socket_mode": "0660",
    "workers": 3,
}


def read_by_a_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a worker that was told the flags of ``settings``."""
    for name, value in flags.passed_on(settings).items():
        monkeypatch.setenv(name, value)
    return Settings.load(**flags.take())


def test_every_flag_reaches_a_worker_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(**GIVEN)

    told = read_by_a_worker(settings, monkeypatch)

    assert told == settings
    assert {name: told.origin(name) for name in GIVEN} == {name: settings.origin(name) for name in GIVEN}


def test_a_worker_reads_variables_and_files_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text("realm: ledger\n")
    monkeypatch.setenv("AUTHZ_DRAIN", "1")
    settings = Settings.load(**GIVEN | {"config": str(file), "drain": 27.5})
    file.write_text("realm: books\n")
    monkeypatch.setenv("AUTHZ_GRACE", "9")

    told = read_by_a_worker(settings, monkeypatch)

    assert (told.realm, told.grace, told.drain) == ("books", 9.0, 27.5)


def test_no_secret_is_passed_on() -> None:
    settings = Settings.load(**GIVEN, admin_secret="a-secret-of-some-length-0123456789")

    assert flags.passed_on(settings) == {flags.VARIABLE: json.dumps(settings.given)}
    assert "admin_secret" not in settings.given


def test_flags_that_no_variable_holds_are_read_from_the_command_line() -> None:
    settings = Settings.load(**GIVEN | {"jwks_seed": json.dumps({"keys": [], "more": "x" * 70_000})})

    assert flags.passed_on(settings) == {}


def test_flags_are_told_to_no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_by_a_worker(Settings.load(**GIVEN), monkeypatch)

    assert not flags.are_passed_on()
