"""docs/policy.md is true: its example decides as its table says; docs/policy-reference.md names every key."""

import re
from pathlib import Path
from typing import Any

import pytest

from authz import cli
from authz.call.call import Call
from authz.call.principal import Principal
from authz.demo.v1 import ledger_pb2
from authz.errors import PermissionDeniedError
from authz.policy import Policy
from authz.policy.text.schema import SCHEMA
from tests.marked import descriptor_set

DOCS = Path(__file__).parents[2] / "docs"
# A long command is continued on the next line.
TEXT = (DOCS / "policy.md").read_text(encoding="utf-8").replace(" \\\n    ", " ")
REFERENCE = (DOCS / "policy-reference.md").read_text(encoding="utf-8")
ROWS = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in re.findall(r"(?m)^\| `org_.*\|$", TEXT)]


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy.from_file(example(tmp_path, "policy.yaml"))


def example(folder: Path, name: str) -> Path:
    """Write the example that one of the documents calls ``name``."""
    found = re.search(rf"```yaml\n(# {re.escape(name)}\n.*?)```", TEXT + REFERENCE, re.DOTALL)
    assert found is not None
    (folder / name).write_text(found[1], encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("command", ["test", "explain"])
def test_the_commands_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name in ("policy.yaml", "policy.test.yaml"):
        example(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    shown = re.search(rf"```console\n\$ authz (policy {command} policy.yaml.*)\n((?:.*\n)*?)```", TEXT)
    assert shown is not None

    cli.run(shown[1].split())

    assert capsys.readouterr().out == shown[2]


def test_many_organizations_are_listed_as_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = example(tmp_path, "many.yaml")
    lines = re.search(r"```jsonl\n(.*?)```", TEXT, re.DOTALL)
    assert lines is not None
    (tmp_path / "organizations.jsonl").write_text(lines[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = re.search(r"```console\n\$ authz (policy check many.yaml)\n((?:.*\n)*?)```", TEXT)
    assert shown is not None

    cli.run(shown[1].split())

    assert capsys.readouterr().out == shown[2]
    assert list(Policy.from_file(many).organizations.suspended()) == ["org_01JYINITECH0000000000000"]


def test_http_methods_are_explained_as_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example(tmp_path, "orders.yaml")
    monkeypatch.chdir(tmp_path)
    shown = re.search(r"```console\n\$ authz (policy explain orders.yaml.*)\n((?:.*\n)*?)```", TEXT)
    assert shown is not None

    cli.run(shown[1].split())

    assert capsys.readouterr().out == shown[2]


def test_http_methods_are_decided_as_its_table_says(tmp_path: Path) -> None:
    orders = Policy.from_file(example(tmp_path, "orders.yaml"))
    rows = re.findall(r"(?m)^\| `(\w+) (/orders\S*)` \|([^|]*)\|([^|]*)\|([^|]*)\|$", TEXT)
    assert len(rows) == 7
    for verb, path, scopes, verdict, rule in rows:
        caller = Principal(
            org_id="org_01JYACME0000000000000000",
            client_id="c",
            subject="c",
            scopes=frozenset(scopes.replace("`", "").split()),
        )
        try:
            found = "allowed", f"`{orders.admit(Call(method=path, metadata=(), verb=verb), caller)}`"
        except PermissionDeniedError as error:
            found = f"`{error.reason.upper()}`", error.rule
        assert found == (verdict.strip(), rule.strip())


@pytest.mark.parametrize(
    "command", ["check --descriptors", "explain --descriptors", "check narrower.yaml --descriptors"]
)
def test_the_commands_about_protos_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    example(tmp_path, "narrower.yaml")
    # As `protoc -o` writes it, in the line above them.
    (tmp_path / "api.binpb").write_bytes(descriptor_set(ledger_pb2.DESCRIPTOR))
    monkeypatch.chdir(tmp_path)
    shown = re.search(rf"\$ authz (policy {re.escape(command)} .*)\n((?:[^$`].*\n)*)", TEXT)
    assert shown is not None

    cli.run(shown[1].split())

    assert capsys.readouterr().out == shown[2]


def test_the_proto_that_it_shows_is_that_of_the_demo() -> None:
    shown = re.search(r"```proto\n(.*?)```", TEXT + REFERENCE, re.DOTALL)
    demo = (Path(__file__).parents[2] / "protos/authz/demo/v1/ledger.proto").read_text(encoding="utf-8")
    lines = [line for line in demo.partition("// What a client")[0].splitlines() if line and "//" not in line]
    wanted = {"syntax", "package", 'import "google'}

    assert shown is not None
    assert [line for line in shown[1].splitlines() if line] == [
        line for line in lines if not line.startswith(tuple(wanted))
    ]


@pytest.mark.parametrize(("org_id", "scopes", "method", "verdict", "rule"), ROWS)
def test_the_example_decides_as_the_table_says(
    policy: Policy, org_id: str, scopes: str, *, method: str, verdict: str, rule: str
) -> None:
    caller = Principal(org_id=org_id, client_id="c", subject="c", scopes=frozenset(scopes.split()))

    try:
        found = "allowed", policy.admit(Call(method=method, metadata=()), caller)
    except PermissionDeniedError as error:
        found = error.reason.upper(), error.rule

    assert found == (verdict, rule)


def test_the_table_has_rows() -> None:
    assert len(ROWS) == 8


def test_the_reference_names_every_key() -> None:
    def keys(schema: Any) -> set[str]:
        parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
        return set(schema.get("properties", {})).union(*(keys(part) for part in parts if isinstance(part, dict)))

    # Those of loggers, which are A59's own.
    others = {"config", "audit_condition", "audit_loggers"}
    missing = {key for key in keys(SCHEMA) - others if not re.search(rf"`(\w+\.)?{key}`", REFERENCE)}
    assert missing == {"source", "request"}
