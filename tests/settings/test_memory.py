"""What verified tokens may take: a size, or a part of what the container has."""

import os
from pathlib import Path

import pytest

from authz.errors import ConfigError
from authz.judge.configured import authorizer_of
from authz.settings.memory import container_memory, token_memory_of
from authz.settings.settings import Settings

MIB = 1 << 20
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def system(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("text", "workers", "size"),
    [("64MiB", 1, 64 * MIB), ("64 MiB", 2, 32 * MIB), ("1GiB", 4, 256 * MIB), ("64KiB", 1, 65_536)],
)
def test_a_size_is_shared_among_workers(text: str, workers: int, size: int) -> None:
    assert token_memory_of(text, workers) == size


@pytest.mark.parametrize(
    "text", ["", "64", "64MB", "64M", "-1MiB", "0MiB", "1.5GiB", "63KiB", "64MiBs", "\u0664MiB", "1" * 10 + "KiB"]
)
def test_whatever_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^token_memory: "):
        token_memory_of(text, 1)


def test_a_size_that_leaves_a_worker_next_to_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="for each worker"):
        token_memory_of("128KiB", 3)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"sys__fs__cgroup__memory_dot_max": f"{512 * MIB}"}, id="v2-in-a-container"),
        pytest.param(
            {
                "proc__self__cgroup": "0::/kubepods/pod1/app",
                "sys__fs__cgroup__kubepods__pod1__memory_dot_max": f"{512 * MIB}",
                "sys__fs__cgroup__kubepods__pod1__app__memory_dot_max": "max",
            },
            id="v2-of-the-group-above",
        ),
        pytest.param(
            {
                "proc__self__cgroup": "5:cpu:/other\n4:memory:/app",
                "sys__fs__cgroup__memory__app__memory_dot_limit_in_bytes": f"{512 * MIB}",
                "sys__fs__cgroup__memory__memory_dot_limit_in_bytes": "9223372036854771712",
            },
            id="v1",
        ),
        pytest.param({"sys__fs__cgroup__memory__memory_dot_limit_in_bytes": f"{512 * MIB}"}, id="v1-in-a-container"),
    ],
)
def test_the_default_is_a_part_of_what_the_container_may_use(tmp_path: Path, files: dict[str, str]) -> None:
    root = system(tmp_path, **files)

    assert container_memory(root) == 512 * MIB
    assert token_memory_of(None, 2, root) == 16 * MIB


def test_without_a_limit_all_memory_counts(tmp_path: Path) -> None:
    root = system(tmp_path, proc__self__cgroup="0::/", sys__fs__cgroup__memory_dot_max="max")

    assert container_memory(root) == PHYSICAL


def test_files_that_cannot_be_read_limit_nothing(tmp_path: Path) -> None:
    root = system(tmp_path, proc__self__cgroup="\u00e9:::", sys__fs__cgroup__memory_dot_max="\u0664")

    assert container_memory(root) == PHYSICAL


def test_the_default_has_an_upper_bound(tmp_path: Path) -> None:
    assert token_memory_of(None, 1, tmp_path) <= 32 * MIB


def test_the_verifier_of_a_worker_gets_its_share() -> None:
    settings = Settings.load(issuer="https://a.example", audience="a", token_memory="64MiB", workers=4)
    judge = authorizer_of(settings)

    assert judge.verifier.memories["https://a.example"].figures().limit == 16 * MIB


def test_issuers_have_equal_shares(tmp_path: Path) -> None:
    path = tmp_path / "issuers.yaml"
    path.write_text(
        "shared_organizations: true\n"
        "issuers: [{issuer: https://a.example, audience: a}, {issuer: https://b.example, audience: b}]\n"
    )
    judge = authorizer_of(Settings.load(issuers=str(path), token_memory="64MiB"))

    assert [each.limit for each in judge.verifier.memories.values()] == [32 * MIB, 32 * MIB]
