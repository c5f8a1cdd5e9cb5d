"""The hooks for pre-commit look at policies and their tests, as the document says; ``make ci-hooks`` runs them."""

import re
from pathlib import Path, PurePath

import pytest
import yaml
from pre_commit.clientlib import load_manifest

from authz import cli
from authz.cli.policy.source import NAMES
from tests.house.hooks import POLICY, ROOT, TESTS

HOOKS = {hook["id"]: hook for hook in load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))}


@pytest.mark.parametrize(
    ("name", "checked", "tested"),
    [
        ("policy.yaml", True, True),
        ("policy.yml", True, True),
        ("a/b/policy.json", True, True),
        ("a/orders-policy.yaml", True, True),
        ("a/orders.policy.yaml", True, True),
        ("a/orders_policy.yaml", True, True),
        ("a/policy.test.yaml", False, True),
        ("a/orders-policy.test.json", False, True),
        ("a/organizations.yaml", False, False),
        ("a/mypolicy.yaml", False, False),
        ("a/policy.yaml.bak", False, False),
        ("a/network-policy/values.yaml", False, False),
        ("a/policy.schema.json", False, False),
    ],
)
def test_hooks_look_at_the_files_that_a_folder_stands_for(name: str, *, checked: bool, tested: bool) -> None:
    assert bool(re.search(HOOKS["authz-policy-check"]["files"], name)) is checked
    assert bool(re.search(HOOKS["authz-policy-test"]["files"], name)) is tested
    assert bool(NAMES.fullmatch(PurePath(name).name)) is checked


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_run_commands_that_there_are(name: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "policy.test.yaml").write_text(TESTS, encoding="utf-8")
    program, *arguments = HOOKS[name]["entry"].split()

    assert program == "authz"
    assert cli.run([*arguments, str(tmp_path / "policy.yaml")]) == 0


def test_the_document_names_each_hook() -> None:
    document = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    shown = re.search(r"(?ms)^# \.pre-commit-config\.yaml\n(.*?)^```", document)
    assert shown is not None

    repository = yaml.safe_load(shown[1])["repos"][0]
    assert {hook["id"] for hook in repository["hooks"]} == HOOKS.keys()
