"""A WorkOS that answers, and ones that do not: each fault is named, and neither key nor secret is shown."""

from pathlib import Path

import pytest

from authz.demo.issuer.directory import DEFAULT_API_KEY
from authz.demo.issuer.program import IssuerServer
from tests.cli.doctor.conftest import Diagnose, Diagnosis
from tests.store.engines import Engine
from tests.store.test_access import USERS

pytestmark = pytest.mark.process

SECRET = "whsec_0123456789abcdef"
ALL = ("--workos-events", "--workos-applications")
PASSWORD = "correct-horse-battery"


@pytest.fixture
def workos(live_issuer: IssuerServer, settings: dict[str, str]) -> dict[str, str]:
    """Return the variables that suit the live issuer, and its WorkOS."""
    return {**settings, "AUTHZ_WORKOS_API_KEY": DEFAULT_API_KEY, "AUTHZ_WORKOS_BASE_URL": live_issuer.address}


def faults(found: Diagnosis) -> dict[str, str]:
    return {each["code"]: each["level"] for each in found.findings if each["check"] == "workos" and each["code"]}


def good(found: Diagnosis) -> list[str]:
    return [each["found"] for each in found.findings if each["check"] == "workos" and each["level"] == "ok"]


def test_each_thing_that_a_server_asks_for_is_asked_for_once(
    diagnose: Diagnose, workos: dict[str, str], live_issuer: IssuerServer
) -> None:
    before = live_issuer.requests.copy()
    found = diagnose(*ALL, "--workos-webhooks", "127.0.0.1:0", **workos, AUTHZ_WORKOS_WEBHOOK_SECRET=SECRET)
    asked = live_issuer.requests - before

    assert (faults(found), found.status) == ({}, 0)
    assert good(found) == [
        *(f"it answers about {what}" for what in ("organizations", "events", "applications")),
        "webhooks are taken at 127.0.0.1:0, by 1 secret",
    ]
    assert (asked["/events"], asked["/connect/applications"]) == (1, 1)
    assert SECRET not in found.text


def test_without_a_key_nothing_is_asked(diagnose: Diagnose, settings: dict[str, str]) -> None:
    assert diagnose(**settings).of("workos")["found"] == "because no workos_api_key is set"


def test_key_that_is_refused_is_named_and_not_shown(diagnose: Diagnose, workos: dict[str, str]) -> None:
    found = diagnose("--workos-events", **{**workos, "AUTHZ_WORKOS_API_KEY": "sk_live_of-another-environment"})

    assert (faults(found), found.status) == ({"workos-key-refused": "error"}, 1)
    assert "sk_live_of" not in found.text


def test_workos_that_is_not_reached_is_named_with_the_cause(
    diagnose: Diagnose, workos: dict[str, str], free_address: str
) -> None:
    found = diagnose("--workos-events", **{**workos, "AUTHZ_WORKOS_BASE_URL": f"http://{free_address}"})

    assert faults(found) == {"workos-unavailable": "error"}
    assert [each["found"].partition(" (")[0] for each in found.findings if each["code"] == "workos-unavailable"] == [
        "organizations: refused",
        "events: refused",
    ]


@pytest.mark.parametrize(
    ("secret", "said"),
    [(None, "workos_webhook_secret: missing"), ("short", "workos_webhook_secret: shorter than 16 characters")],
)
def test_secret_of_webhooks_that_is_missing_or_short_is_named(
    diagnose: Diagnose, workos: dict[str, str], secret: str | None, said: str
) -> None:
    more = {} if secret is None else {"AUTHZ_WORKOS_WEBHOOK_SECRET": secret}
    found = diagnose("--workos-events", "--workos-webhooks", "127.0.0.1:0", **workos, **more)

    assert (faults(found), found.status) == ({"webhooks-unusable": "error"}, 1)
    assert found.with_code("webhooks-unusable")["found"].startswith(said)


def test_port_for_webhooks_that_others_reach_is_a_warning(diagnose: Diagnose, workos: dict[str, str]) -> None:
    found = diagnose("--workos-events", "--workos-webhooks", "0.0.0.0:0", **workos, AUTHZ_WORKOS_WEBHOOK_SECRET=SECRET)

    assert (faults(found), found.status) == ({"webhooks-without-tls": "warning"}, 0)


@pytest.mark.parametrize(
    ("user", "expected"), [("authz-server", {"store-read-only": "error"}), ("authz-source", {})], ids=str
)
def test_user_of_the_store_who_may_not_give_orders_is_named(
    diagnose: Diagnose, workos: dict[str, str], tmp_path: Path, user: str, expected: dict[str, str]
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    with Engine("valkey") as engine:
        with engine.client() as asking:
            asking.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", *USERS[user].split())
        login = ("--store", engine.url, "--store-username", user, "--store-password-file", str(file))
        found = diagnose("--workos-events", *login, **workos)
        with engine.client() as asking:
            keys = asking.dbsize()

    assert (faults(found), keys) == (expected, 0)
