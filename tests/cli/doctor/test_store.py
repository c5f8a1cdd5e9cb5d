"""Real stores, good and not: nothing is written into them."""

from pathlib import Path

import pytest

from tests.cli.doctor.conftest import Diagnose, Diagnosis
from tests.store.engines import KINDS, Engine, free_port

pytestmark = pytest.mark.process


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def faults(found: Diagnosis) -> dict[str, str]:
    return {each["code"]: each["level"] for each in found.findings if each["check"] == "store" and each["code"]}


def test_store_that_keeps_orders_is_good_and_nothing_is_written(
    diagnose: Diagnose, settings: dict[str, str], kind: str
) -> None:
    with Engine(kind, "--appendonly", "yes", "--maxmemory-policy", "noeviction") as engine:
        found = diagnose("--store", engine.url, **settings)
        with engine.client() as client:
            keys = client.dbsize()

    assert (found.status, faults(found), keys) == (0, {}, 0)


def test_store_without_a_file_is_a_warning(diagnose: Diagnose, settings: dict[str, str], kind: str) -> None:
    with Engine(kind) as engine:
        found = diagnose("--store", engine.url, **settings)

    assert (found.status, faults(found)) == (0, {"store-not-durable": "warning"})
    assert "appendonly yes" in found.with_code("store-not-durable")["remedy"]


def test_store_that_evicts_is_an_error(diagnose: Diagnose, settings: dict[str, str], kind: str) -> None:
    with Engine(kind, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as engine:
        found = diagnose("--store", engine.url, **settings)

    assert (found.status, faults(found)) == (1, {"store-unfit": "error"})
    assert "noeviction" in found.with_code("store-unfit")["remedy"]


def test_store_that_wants_a_password_is_named_and_the_wrong_one_not_shown(
    diagnose: Diagnose, settings: dict[str, str], kind: str, tmp_path: Path
) -> None:
    file, port = tmp_path / "password", free_port()
    file.write_text("not-the-password")
    with Engine(kind, port=port) as engine:
        with engine.client() as client:
            client.config_set("requirepass", "the-password")
        found = diagnose("--store", engine.url, "--store-password-file", str(file), **settings)
        none = diagnose("--store", f"redis://127.0.0.1:{port}", **settings)

    assert (faults(found), faults(none)) == ({"store-denied": "error"}, {"store-denied": "error"})
    assert "--store-password-file" in found.with_code("store-denied")["remedy"]
    assert "the-password" not in found.text


def test_store_that_hangs_is_given_up(diagnose: Diagnose, settings: dict[str, str]) -> None:
    with Engine("valkey") as engine:
        engine.hang()
        found = diagnose("--store", engine.url, **settings)

    assert "does not answer in time" in found.with_code("store-unavailable")["found"]


def test_a_store_of_quotas_may_lose_its_data(diagnose: Diagnose, settings: dict[str, str]) -> None:
    lasting = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")
    with Engine("valkey", *lasting) as orders, Engine("valkey", "--maxmemory-policy", "allkeys-lru") as quotas:
        found = diagnose("--store", orders.url, "--quota-store", quotas.url, **settings)

    assert (found.status, faults(found)) == (0, {})
    assert [quotas.url in each["found"] for each in found.findings if each["check"] == "store"].count(True) == 2
