"""The workflows do what their files say, with no more rights than that needs, and with actions that cannot change."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.missing import leave_out

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())
EVENTS = {"push", "pull_request", "schedule", "workflow_call", "workflow_dispatch"}
# What a workflow may write, by job.
WRITES = {
    "codeql.analyze": {"security-events"},
    "docs.publish": {"contents"},
    "release.github": {"attestations", "contents", "id-token"},
    "release.chart": {"attestations", "id-token", "packages"},
    "release.image": {"attestations", "id-token", "packages"},
    "release.pypi": {"id-token"},
    "scorecard.analyze": {"security-events"},
}


def workflow(path: Path) -> dict[str, Any]:
    # YAML 1.1 takes "on" for true.
    found: dict[str, Any] = yaml.safe_load(re.sub(r"^on:", "events:", path.read_text(), flags=re.MULTILINE))
    return found


def jobs() -> dict[str, dict[str, Any]]:
    return {f"{path.stem}.{name}": job for path in WORKFLOWS for name, job in workflow(path)["jobs"].items()}


def scripts() -> Iterator[str]:
    for job in jobs().values():
        yield from (step["run"] for step in job.get("steps", []) if "run" in step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_a_commit_and_says_its_release(path: Path) -> None:
    used = re.findall(r"^ *(?:- )?uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert action.startswith("./.github/") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), (
            action
        )


def test_an_action_is_of_one_release_everywhere() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    found: dict[str, set[str]] = {}
    for name, release in re.findall(r"uses: ([\w-]+/[\w-]+)\S*@(\S+ # \S+)", text):
        found.setdefault(name, set()).add(release)
    assert {name: releases for name, releases in found.items() if len(releases) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_until_a_job_says_more(path: Path) -> None:
    found = workflow(path)
    assert found["permissions"] == {"contents": "read"}
    assert set(found["concurrency"]) == {"group", "cancel-in-progress"}
    # pull_request_target and workflow_run would give a stranger's change the rights of this repository.
    assert set(found["events"]) <= EVENTS


def test_jobs_write_what_they_must_and_end() -> None:
    written = {
        name: {scope for scope, right in job.get("permissions", {}).items() if right == "write"}
        for name, job in jobs().items()
    }
    assert {name: scopes for name, scopes in written.items() if scopes} == WRITES
    assert [name for name, job in jobs().items() if "uses" not in job and job["timeout-minutes"] > 120] == []


def test_no_script_holds_what_a_stranger_wrote() -> None:
    """An expression becomes part of the script; a variable of the environment stays a value."""
    assert [script for script in scripts() if "${{" in script] == []
    assert [script for script in scripts() if "\n" in script and not script.startswith("set -euo pipefail\n")] == []


def test_checkouts_leave_no_credentials_behind() -> None:
    steps = [step for job in jobs().values() for step in job.get("steps", [])]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert "secrets." not in "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)


def test_scripts_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = [word for script in scripts() for line in re.findall(r"\bmake (.*)", script) for word in line.split()]
    assert {word for word in called if "=" not in word} <= targets
    assert any(script == ".ci/run" for script in scripts())


def test_the_tests_run_with_every_python_that_is_named() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = set(re.findall(r"Programming Language :: Python :: (3\.\d+)", text))
    setup = [step["with"]["python-version"] for step in jobs()["ci.everything"]["steps"] if "setup-python" in str(step)]
    assert named <= {*setup, *jobs()["ci.python"]["strategy"]["matrix"]["python"]}


def test_what_is_published_was_built_once_and_tested() -> None:
    found = {name.removeprefix("release."): job for name, job in jobs().items() if name.startswith("release.")}
    builds = [name for name, job in found.items() if "make release" in str(job)]
    assert builds == ["build"]
    assert [set(found[name]["needs"]) for name in ("pypi", "image")] == [{"ci", "build"}] * 2
    assert found["chart"]["needs"] == "image"
    assert set(found["github"]["needs"]) == {"pypi", "image", "chart"}
    # A job is skipped when one that it needs is.
    assert [found[name]["if"] for name in ("pypi", "image")] == ["vars.PUBLISH == 'true'"] * 2


def test_zizmor_finds_nothing() -> None:
    zizmor = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    if zizmor is None:
        leave_out("the look at workflows, because zizmor is not installed", "make .venv/.ready")
    command = [zizmor, "--offline", "--quiet", "--persona", "pedantic", str(ROOT / ".github")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout


# ---- Notes of a release ----

VERSION = version("grpc-org-authz")
SECTION = f"## [{VERSION}] - 2026-01-31"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Return the program in a project of its own."""
    (tmp_path / ".ci").mkdir()
    for name in (".ci/release_notes.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run_notes(project: Path, tag: str, changelog: str) -> subprocess.CompletedProcess[str]:
    (project / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    command = [sys.executable, project / ".ci/release_notes.py", tag]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_notes_are_the_section_of_the_release(notes: Path) -> None:
    before, after = "# Changelog\n\n## [Unreleased]\n\nLater.", "## [0.0.1] - 2025-01-01\n\nOld.\n"
    text = f"{before}\n\n{SECTION}\n\nNow.\n\n### Fixed\n\n- It.\n\n{after}"
    done = run_notes(notes, f"v{VERSION}", text)
    assert (done.returncode, done.stdout) == (0, "Now.\n\n### Fixed\n\n- It.\n")


@pytest.mark.parametrize(
    ("tag", "changelog", "said"),
    [
        ("v9.9.9", f"{SECTION}\n\nNow.\n", f"the tag of that is v{VERSION}."),
        (VERSION, f"{SECTION}\n\nNow.\n", f"the tag of that is v{VERSION}."),
        (f"v{VERSION}", "## [Unreleased]\n\nLater.\n", "has no section"),
        (f"v{VERSION}", f"{SECTION}\n\n", "has no section"),
        (f"v{VERSION}", f"## [{VERSION}]\n\nNow.\n", "has no section"),
    ],
    ids=["other tag", "no v", "not yet", "empty", "no date"],
)
def test_a_release_that_is_not_ready_is_refused(notes: Path, tag: str, changelog: str, said: str) -> None:
    done = run_notes(notes, tag, changelog)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
