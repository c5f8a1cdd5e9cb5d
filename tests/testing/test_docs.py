"""What docs/testing.md shows runs as it stands there, and what its tables say is true."""

import re
from pathlib import Path
from typing import Any

import pytest

from authz import AuthzError
from authz.testing import Issuer, plugin
from tests.certificates import Authority
from tests.testing.suites import run_pytest, run_unittest, written

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "testing.md").read_text(encoding="utf-8")
BLOCK = r"```(?:python|yaml)\n(# (\S+\.(?:py|yaml))\n.*?)```"
PROGRAMS = {name: text for text, name in re.findall(BLOCK, TEXT, re.DOTALL)}
POLICIES = {name: text for text, name in re.findall(BLOCK, (DOCS / "policy.md").read_text(encoding="utf-8"), re.DOTALL)}
PASSING = {
    "test_handlers.py": 3,
    "test_unittest.py": 2,
    "test_server.py": 5,
    "test_aio_server.py": 1,
    "test_asgi.py": 1,
    "test_reason.py": 1,
    "test_policy.py": 3,
    "test_program.py": 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    policies = {name: POLICIES[name] for name in ("policy.yaml", "policy.test.yaml")}
    return written(tmp_path, {**PROGRAMS, **policies})


def test_every_program_is_named_and_so_tested() -> None:
    assert TEXT.count("```python") == len(PROGRAMS)
    assert set(PROGRAMS) == {"ledger.py", *PASSING}


@pytest.mark.parametrize("name", PASSING)
def test_a_suite_passes(folder: Path, name: str) -> None:
    report = run_pytest(folder, name)

    assert (report.status, report.count, report.failed) == (0, PASSING[name], set())


def test_all_of_them_pass_together_on_several_workers(folder: Path) -> None:
    report = run_pytest(folder, "-n", "2")

    assert (report.status, report.count, report.failed) == (0, sum(PASSING.values()), set())


def test_unittest_runs_its_suite(folder: Path) -> None:
    said = run_unittest(folder, "test_unittest")

    assert ("Ran 2 tests" in said, said.endswith("OK\n")) == (True, True)


def test_a_suite_fails_where_the_service_is_wrong(folder: Path) -> None:
    """Otherwise its passing would say nothing."""
    wrong = PROGRAMS["ledger.py"].replace("current_principal().org_id", '"org_globex"')
    written(folder, {"ledger.py": wrong})

    report = run_pytest(folder, "test_handlers.py", "test_server.py", "test_aio_server.py")

    assert report.failed == {"test_an_entry_belongs_to_the_caller"}
    assert "3 failed" in report.text


def test_a_case_that_fails_says_what_is_shown(folder: Path) -> None:
    shown = re.search(r"```text\n(policy\.test\.yaml:.*)\n```", TEXT)
    assert shown is not None
    name = shown[1].split(": ")[1]
    cases = POLICIES["policy.test.yaml"]
    wrong = re.sub(rf"({re.escape(name)}\n(?:  .*\n)*?  expect: )denied\n  rule: .*", r"\1allowed", cases)
    written(folder, {"policy.test.yaml": wrong})

    report = run_pytest(folder, "test_policy.py")

    assert report.tests[f"test_policy[{name}]"] == f"AssertionError: {folder}/{shown[1]}"


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading."""
    table = TEXT.partition(f"\n## {heading}\n")[2].partition("\n| ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


REFUSED = [(code.strip("`"), reason) for _, code, reason in rows("Refusals") if "rotate" not in code]


@pytest.mark.parametrize(("code", "reason"), REFUSED)
def test_a_token_of_the_table_is_refused_for_the_reason_that_is_told(code: str, reason: str) -> None:
    issuer, pem = Issuer(), Authority().issue().chain
    expression = compile(f"issuer.{code}", "docs/testing.md", "eval")
    token = eval(expression, {"issuer": issuer, "pem": pem})  # noqa: S307 - of our own document
    refused = ""
    try:
        issuer.verifier().verify(token)
    except AuthzError as error:
        refused = error.reason

    assert reason.split()[:1] == ([f"`{refused}`"] if refused else [])


def test_every_way_to_a_bad_token_is_in_the_table() -> None:
    listed = set(re.findall(r"`(\w+)\(", " ".join(code for _, code, _ in rows("Refusals"))))

    assert {"expired", "wrong_audience", "wrong_issuer", "wrong_signature", "token", "rotate"} <= listed
    assert len(REFUSED) == 8


def test_every_fixture_is_in_the_document() -> None:
    fixtures: dict[str, Any] = {
        name: value for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"
    }

    assert fixtures.keys() == {"acting_as", "authz_issuer", "authz_running_issuer"}
    assert fixtures.keys() <= set(re.findall(r"`(\w+)`", TEXT))
