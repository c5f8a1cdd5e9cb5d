"""The tests of a policy are tests of pytest and of unittest, each with its name, and with what decided if it fails."""

import json
from pathlib import Path

import pytest

from authz import ConfigError, Policy
from authz.demo.v1 import ledger_pb2
from authz.testing import policy_cases
from tests.marked import descriptor_set
from tests.testing.suites import run_pytest, run_unittest, written

POLICY = {
    "name": "p",
    "deny_rules": [{"name": "writes", "request": {"paths": ["*/Write"]}}],
    "allow_rules": [{"name": "ledger", "request": {"paths": ["/ledger/*"]}}],
}
CASES = """\
- {name: read, method: /ledger/Read, organization: org_a, expect: allowed, rule: ledger}
- {name: "write [x]", method: /ledger/Write, organization: org_a, expect: denied, rule: writes}
- {name: "Zürich::read", method: /other, organization: org_a, expect: denied}
"""
MODULE = """\
from pathlib import Path
import pytest
from authz.testing import policy_cases

@pytest.mark.parametrize("case", policy_cases(Path(__file__).with_name("p.json"), "p.test.yaml"), ids=str)
def test_policy(case):
    case.check()
"""
UNITTEST = """\
import unittest
from authz.testing import policy_cases

class Policies(unittest.TestCase):
    def test(self):
        for case in policy_cases("p.json", "p.test.yaml"):
            with self.subTest(case.name):
                case.check()
"""
FAILURE = "p.test.yaml:2: write [x]: expected allowed, is denied: rule writes of deny_rules matches"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return written(tmp_path, {"p.json": json.dumps(POLICY), "p.test.yaml": CASES, "test_policy.py": MODULE})


def test_each_case_is_a_test_with_its_name_also_in_junit(suite: Path) -> None:
    report = run_pytest(suite)

    assert report.tests == {
        "test_policy[read]": "",
        "test_policy[write [x]]": "",
        "test_policy[Z\\xfcrich::read]": "",
    }
    assert (report.status, "3 passed" in report.text) == (0, True)


def test_a_case_that_fails_says_what_decided_and_no_line_of_ours(suite: Path) -> None:
    written(suite, {"p.test.yaml": CASES.replace("denied, rule: writes", "allowed")})

    report = run_pytest(suite)

    assert (report.status, report.failed) == (1, {"test_policy[write [x]]"})
    assert report.tests["test_policy[write [x]]"] == f"AssertionError: {FAILURE}"
    assert f"E   AssertionError: {FAILURE}" in report.text.replace("E       ", "E   ")
    assert "authz/testing" not in report.text


def test_a_policy_that_is_wrong_ends_the_run(suite: Path) -> None:
    written(suite, {"p.test.yaml": CASES.replace("denied, rule: writes", "denied, rule: wites")})

    report = run_pytest(suite)

    assert report.status == 2
    assert "p.test.yaml:2: unknown rule 'wites'; did you mean 'writes'?" in report.text


def test_unittest_names_the_case_that_fails(suite: Path) -> None:
    written(suite, {"test_unit.py": UNITTEST})
    good = run_unittest(suite, "test_unit")
    written(suite, {"p.test.yaml": CASES.replace("denied, rule: writes", "allowed")})
    bad = run_unittest(suite, "test_unit")

    assert good.endswith("OK\n")
    assert f"AssertionError: {FAILURE}" in bad
    assert "[write [x]]" in bad
    assert bad.endswith("FAILED (failures=1)\n")


def test_the_cases_stand_beside_the_policy(suite: Path) -> None:
    written(suite, {"p.test.json": '[{"name": "one", "method": "/other", "organization": "o", "expect": "denied"}]'})

    [case] = policy_cases(suite / "p.json")

    assert (str(case), repr(case)) == ("one", "<PolicyCase 'one'>")
    case.check()


def test_a_policy_may_be_one_of_protos(tmp_path: Path) -> None:
    (tmp_path / "api.binpb").write_bytes(descriptor_set(ledger_pb2.DESCRIPTOR))
    policy = Policy.from_descriptors(tmp_path / "api.binpb")
    case = "{name: read, method: /authz.demo.v1.LedgerService/PostEntry, organization: org_a, expect: allowed}"
    written(tmp_path, {"t.yaml": f"- {case}\n- {case.replace('org_a', 'org_a, scopes: [ledger:write]')}"})

    without, with_scope = policy_cases(policy, tmp_path / "t.yaml")

    with pytest.raises(
        AssertionError, match=r"t\.yaml:1: read: expected allowed, is denied: the \.proto asks for more"
    ):
        without.check()
    with_scope.check()
    with pytest.raises(TypeError, match="give tests="):
        policy_cases(policy)


def test_a_rule_about_a_header_that_no_caller_can_send_is_an_error_as_in_the_command(tmp_path: Path) -> None:
    rule = {"name": "a", "request": {"headers": [{"key": "x-org-id", "values": ["*"]}]}}
    written(tmp_path, {"p.json": json.dumps({"name": "p", "allow_rules": [rule]}), "p.test.json": "[]"})

    with pytest.raises(ConfigError, match="x-org-id"):
        policy_cases(tmp_path / "p.json")
