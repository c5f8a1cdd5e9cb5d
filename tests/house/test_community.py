"""The forms ask for what helps, and for no secret; a vulnerability is reported in private."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github/ISSUE_TEMPLATE"
FORMS = [path for path in sorted(FOLDER.glob("*.yml")) if path.name != "config.yml"]
KINDS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}
OURS = re.compile(r"https://github\.com/([\w-]+/grpc-org-authz)\b")


def form(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_have_the_fields_that_github_knows(path: Path) -> None:
    found = form(path)
    assert set(found) == {"name", "description", "labels", "body"}
    asked = [field for field in found["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in found["body"]} <= KINDS
    assert len({field["id"] for field in asked}) == len(asked)
    assert all(field["attributes"]["label"] for field in asked)
    assert [field["id"] for field in asked if field.get("validations", {}).get("required")]


def test_a_report_of_a_mistake_has_version_and_doctor_and_no_secret() -> None:
    asked = {field.get("id"): field for field in form(FOLDER / "bug.yml")["body"]}
    assert {"version", "happened", "doctor", "log"} <= set(asked)
    [box] = asked["clean"]["attributes"]["options"]
    assert box["required"] is True
    assert "no token" in box["label"]


def test_a_vulnerability_is_reported_in_private() -> None:
    found = form(FOLDER / "config.yml")
    assert found["blank_issues_enabled"] is False
    [place] = [link["url"] for link in found["contact_links"] if "SECURITY.md" in link["about"]]
    assert place.endswith("/security/advisories/new")
    assert place in (FOLDER / "bug.yml").read_text(encoding="utf-8")
    assert "](SECURITY.md)" in (ROOT / "CODE_OF_CONDUCT.md").read_text(encoding="utf-8")


def test_the_repository_has_one_name() -> None:
    files = [*FOLDER.iterdir(), ROOT / "docs/releasing.md", *(ROOT / "deploy").rglob("*.yaml")]
    named = {name for path in files for name in OURS.findall(path.read_text(encoding="utf-8"))}
    assert named == {"grpc-org-authz/grpc-org-authz"}


def test_owners_own_what_exists() -> None:
    lines = (ROOT / ".github/CODEOWNERS").read_text(encoding="utf-8").splitlines()
    paths = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert paths[0] == "*"
    assert all((ROOT / path.strip("/")).exists() for path in paths[1:])
