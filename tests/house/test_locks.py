"""What is installed is what was tested: each file that pip fetches has a hash, of a release of constraints.txt."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = PROJECT["project"]["name"]
# The extras and groups of each file, as the Makefile has them.
LOCKS = {
    "build": ([], ["build"]),
    "release": ([], ["release"]),
    "image": (["native", "server", "store", "workos"], []),
    "dev": (["demo"], ["dev"]),
    "site": ([], ["site"]),
}


def locked(name: str) -> dict[str, Requirement]:
    """Return what a lock installs, by name."""
    text = (ROOT / f"locks/{name}.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([^\s#-].*?)(?: \\)?$", text, re.MULTILINE)
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def of_extra(extra: str) -> Iterator[Requirement]:
    for text in PROJECT["project"]["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == OURS:
            for other in requirement.extras:
                yield from of_extra(other)
        else:
            yield requirement


def of_group(group: str) -> Iterator[Requirement]:
    for entry in PROJECT["dependency-groups"][group]:
        if isinstance(entry, dict):
            yield from of_group(entry["include-group"])
        else:
            yield Requirement(entry)


def wanted(name: str) -> Iterator[Requirement]:
    extras, groups = LOCKS[name]
    if extras:
        yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in extras:
        yield from of_extra(extra)
    for group in groups:
        yield from of_group(group)


def version_of(requirement: Requirement) -> str:
    [specifier] = requirement.specifier
    assert specifier.operator == "==", requirement
    return specifier.version


def test_these_are_the_locks_that_make_writes() -> None:
    assert {path.stem for path in (ROOT / "locks").iterdir()} == set(LOCKS)
    recipe = re.findall(
        r"^\t\$\(LOCK\) (.*) --output-file locks/(\w+)\.txt$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    named = {
        name: (re.findall(r"--extra (\w+)", options), re.findall(r"--group (\w+)", options)) for options, name in recipe
    }
    assert named == LOCKS


@pytest.mark.parametrize("name", LOCKS)
def test_every_release_has_hashes(name: str) -> None:
    text = (ROOT / f"locks/{name}.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    assert len(blocks) == len(locked(name))
    for block in blocks:
        first, *hashes = block.split("\n")
        assert hashes, first
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), first


@pytest.mark.parametrize("name", LOCKS)
def test_what_pyproject_asks_for_is_there(name: str) -> None:
    """Run ``make locks`` if this fails."""
    found = locked(name)
    missing = [str(requirement) for requirement in wanted(name) if canonicalize_name(requirement.name) not in found]
    assert missing == []
    unfit = [
        str(requirement)
        for requirement in wanted(name)
        if version_of(found[canonicalize_name(requirement.name)]) not in requirement.specifier
    ]
    assert unfit == []


@pytest.mark.parametrize("name", LOCKS)
def test_releases_are_those_of_the_constraints(name: str) -> None:
    """Run ``make locks`` if this fails."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    constraints = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    for package, requirement in locked(name).items():
        assert version_of(requirement) == constraints.get(package, version_of(requirement))


@pytest.mark.parametrize("name", ["build", "dev", "release"])
def test_what_builds_this_project_is_there(name: str) -> None:
    """Write it into the group "build", and run ``make locks``, if this fails."""
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["build-system"]["requires"]}
    assert needed <= set(locked(name))


def test_the_tests_run_with_what_has_a_known_hash() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [recipe] = re.findall(r"^\.venv/\.ready:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    installs = [line for line in recipe.splitlines() if "INSTALL" in line]
    assert [" ".join(line.split()[1:]) for line in installs] == [
        "--require-hashes --requirement locks/dev.txt",
        "--no-deps --no-build-isolation --editable .",
    ]
