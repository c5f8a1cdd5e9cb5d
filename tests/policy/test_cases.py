"""The tests of a policy say where it decides otherwise, and which rules no test reaches."""

from pathlib import Path

import pytest

from authz.errors import ConfigError
from authz.policy import Policy
from authz.policy.explain.cases import Cases, Results, file_beside

POLICY = Policy.from_document(
    {
        "name": "p",
        "deny_rules": [{"name": "writes", "source": {"groups": ["trial"]}, "request": {"paths": ["*/Write"]}}],
        "allow_rules": [
            {"name": "mesh", "source": {"principals": ["spiffe://a/*"]}, "request": {"paths": ["/mesh"]}},
            {"name": "gold", "request": {"paths": ["/gold"], "headers": [{"key": "x-tier", "values": ["gold"]}]}},
            {"name": "scoped", "source": {"clients": ["c1"], "scopes": ["a b"]}, "request": {"paths": ["/scoped"]}},
            {"name": "ledger", "source": {"groups": ["trial"]}, "request": {"paths": ["/ledger/*"]}},
            {"name": "orders", "request": {"paths": ["/orders"], "methods": ["GET"]}},
        ],
        "public": ["/health"],
        "organizations": {"org_a": {"groups": ["trial"]}, "org_s": {"status": "suspended"}},
    }
)
GOOD = """\
- {name: read, method: /ledger/Read, organization: org_a, expect: allowed, rule: ledger}
- {name: write, method: /ledger/Write, organization: org_a, expect: denied, rule: writes}
- {name: other, method: /other, organization: org_a, expect: denied, rule: ""}
- {name: suspended, method: /ledger/Read, organization: org_s, expect: suspended}
- {name: health, method: /health, expect: public}
- {name: order, method: /orders, verb: GET, organization: org_a, expect: allowed, rule: orders}
- {name: delete, method: /orders, verb: DELETE, organization: org_a, expect: denied}
- {name: post, method: /orders, organization: org_a, expect: denied}
- {name: mesh, method: /mesh, organization: org_a, principal: "spiffe://a/b", expect: allowed}
- {name: gold, method: /gold, organization: org_a, headers: {X-Tier: gold}, expect: allowed}
- name: scoped
  method: /scoped
  organization: org_a
  client: c1
  scopes: [a, b]
  expect: allowed
"""


def results_of(folder: Path, text: str) -> Results:
    (folder / "p.test.yaml").write_text(text, encoding="utf-8")
    return Cases.from_file(folder / "p.test.yaml", POLICY).run()


def test_tests_that_hold_pass(tmp_path: Path) -> None:
    results = results_of(tmp_path, GOOD)

    assert (results.passed, results.failures, results.unreached) == (11, (), ())


@pytest.mark.parametrize(
    ("old", "new", "failure"),
    [
        (
            "rule: ledger",
            "rule: gold",
            ":1: read: expected allowed by gold, is allowed by ledger: rule ledger of allow",
        ),
        (
            "denied, rule: writes",
            "allowed",
            ":2: write: expected allowed, is denied: rule writes of deny_rules matches",
        ),
        (
            'denied, rule: ""',
            "allowed",
            ":3: other: expected allowed, is denied: no rule allows it; the nearest, ledger: request.paths: /other",
        ),
        ("expect: suspended", "expect: allowed", ":4: suspended: expected allowed, is suspended: the organization is"),
        ("public", "denied, organization: org_a", ":5: health: expected denied, is public: the method is public"),
        (
            "verb: DELETE, organization: org_a, expect: denied",
            "verb: DELETE, organization: org_a, expect: allowed",
            ":7: delete: expected allowed, is denied: no rule allows it; the nearest, orders: request.methods: DELETE",
        ),
        (
            ', principal: "spiffe://a/b"',
            "",
            ":9: mesh: expected allowed, is undecided: rule mesh of allow_rules: source",
        ),
        (
            "scopes: [a, b]",
            "scopes: [a]",
            ":11: scoped: expected allowed, is denied: no rule allows it; the nearest, scoped",
        ),
    ],
)
def test_a_test_that_fails_says_where_and_why(tmp_path: Path, old: str, new: str, failure: str) -> None:
    results = results_of(tmp_path, GOOD.replace(old, new, 1))

    assert results.passed == 10
    assert results.failures[0].removeprefix(str(tmp_path / "p.test.yaml")).startswith(failure)


def test_rules_that_decide_in_no_test_are_named(tmp_path: Path) -> None:
    results = results_of(tmp_path, GOOD.replace("/ledger/Write", "/elsewhere").replace(", rule: writes", ""))

    assert [rule.name for rule in results.unreached] == ["writes"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("client:", "klient:", ":14: unknown key 'klient'; did you mean 'client'?"),
        (
            "expect: public",
            "expect: allow",
            ":5: 'allow' must be allowed or denied or suspended or public; did you mean",
        ),
        ("rule: ledger", "rule: legder", ":1: unknown rule 'legder'; did you mean 'ledger'?"),
        (
            "  organization: org_a\n",
            "",
            ":11: 'organization' is missing; only a test of a public method may leave it out",
        ),
        ("- {name: health, ", "- {", ":5: 'name' is missing"),
        ("scopes: [a, b]", 'scopes: ["a b"]', ":15: 'a b' is not one scope"),
        ("verb: GET", "verb: get", ":6: 'get' is not an HTTP method in capitals, such as GET"),
        (GOOD, "", ": must be a list, not nothing"),
    ],
)
def test_what_is_no_test_is_an_error(tmp_path: Path, old: str, new: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        results_of(tmp_path, GOOD.replace(old, new, 1))

    assert str(caught.value).removeprefix(str(tmp_path / "p.test.yaml")).startswith(error)


@pytest.mark.parametrize(
    ("policy", "tests"), [("a/policy.yaml", "a/policy.test.yaml"), ("p.v2.json", "p.v2.test.json")]
)
def test_the_tests_stand_beside_the_policy(policy: str, tests: str) -> None:
    assert file_beside(Path(policy)) == Path(tests)
