"""What is wrong with a policy is said in one line: where, what, and what was probably meant."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from authz.errors import ConfigError
from authz.policy import Policy
from authz.runtime.text.document import Fault
from authz.runtime.text.schema import compiled, listed, text

GOOD = """\
name: ledger
deny_rules:
- name: nobody-imports
  request: {paths: [/ledger.v1.Ledger/Import]}
allow_rules:
- name: beta
  source:
    groups: [beta]
    scopes: ["ledger:read ledger:write"]
  request:
    paths:
    - /ledger.v1.Ledger/*
- name: acme
  source: {organizations: [org_acme]}
public: [/grpc.health.v1.Health/Check]
introspect:
  /ledger.v1.Ledger/Import: {max_age: 0}
organizations:
  org_acme: {tenant: t-1, groups: [beta], labels: {country: "no"}}
"""


def error_of(folder: Path, text: str, name: str = "policy.yaml") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Policy.from_file(file)
    message = str(caught.value)
    assert message.startswith(f"{file}")
    assert "\n" not in message
    return message.removeprefix(str(file))


def test_the_policy_that_the_others_spoil_is_good(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(GOOD, encoding="utf-8")

    policy = Policy.from_file(tmp_path / "policy.yaml")

    assert [rule.name for rule in policy.rules] == ["nobody-imports", "beta", "acme"]
    assert policy.organizations["org_acme"].labels == {"country": "no"}
    assert repr(policy) == "<Policy 'ledger': 3 rules, 1 organizations>"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("    scopes:", "    scope:", ":9: unknown key 'scope'; did you mean 'scopes'?"),
        ("public:", "publik:", ":15: unknown key 'publik'; did you mean 'public'?"),
        ("{tenant:", "{zzz:", ":19: unknown key 'zzz'"),
        ("[org_acme]", "[org_acne]", ":14: unknown organization 'org_acne'; did you mean 'org_acme'?"),
        ("groups: [beta]\n", "groups: [betta]\n", ":8: unknown group 'betta'; did you mean 'beta'?"),
        ("- name: acme", "- name: beta", ":13: there is another rule with the name 'beta'"),
        ("- name: acme\n", "- ", ":13: 'name' is missing"),
        ("name: ledger\n", "", ":1: 'name' is missing"),
        ("name: ledger", "name: 7", ":1: must be text, not a number; put it in quotes"),
        ("name: ledger", "name:", ":1: must be text, not nothing; put it in quotes"),
        ("    groups: [beta]", "    groups: []", ":8: must not be empty: an empty list would match every caller"),
        ("    groups: [beta]", "    groups:", ":8: must be a list, not nothing"),
        ("    - /ledger.v1.Ledger/*", "    - /a\n    - /a", ":13: '/a' is given twice"),
        ('["ledger:read ledger:write"]', '["a  b"]', ":9: 'a  b' is not scopes with one space between them"),
        (
            "[/grpc.health.v1.Health/Check]",
            "[/grpc.health.v1.Health/*]",
            ":15: '/grpc.health.v1.Health/*' is not a full",
        ),
        ("{max_age: 0}", "{max_age: 31}", ":17: must be a number from 0 to 30"),
        ("{max_age: 0}", "{max_age: true}", ":17: must be a number from 0 to 30"),
        ("{max_age: 0}", "{if_unavailable: locl}", ":17: 'locl' must be deny or local; did you mean 'local'?"),
        ("  /ledger.v1.Ledger/Import:", "  ledger:", ":17: 'ledger' is not a method, /prefix*, *suffix or *"),
        ("groups: [beta], l", "status: suspend, l", ":19: 'suspend' must be active or suspended; did you mean 'sus"),
        ("tenant: t-1", "tenant: 'a,b'", ":19: 'a,b' is not an identifier"),
        ('country: "no"', "country: 47", ":19: must be text, not a number; put it in quotes"),
        ("  org_acme: {", "  org_acme: []\n  org_b: {", ":19: must be a mapping, not a list"),
        ("public: ", "public: &x ", ":15: anchors and aliases are not supported; write it out"),
        ("public: [", "public: [*x, ", ":15: anchors and aliases are not supported; write it out"),
        ("public: ", "public: !!python/object:os.system ", ":15: tags such as"),
        ("public:", "name: twice\npublic:", ":15: the key 'name' is given twice"),
        ("public:", "? [a]\n: b\npublic:", ":15: a key must be plain text"),
        ("public:", "---\npublic:", ":15: a second document; a file holds one"),
        ("public:", "\t- a\npublic:", ":15: not YAML: found character '\\t' that cannot start any token"),
        ("public: [", "public: [[", ":16: not YAML: did not find expected"),
        ("public: [", "public: " + 40 * "[", ":15: nested too deeply"),
        ("public:", "\x00public:", ": not YAML: it has characters that text must not have"),
    ],
)
def test_the_line_and_the_remedy_are_named(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert GOOD.count(old) >= 1

    assert error_of(tmp_path, GOOD.replace(old, new, 1)).startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            '{\n\t"name": "p",\n\t"allow_rules": [\n\t\t{"nme": "a"}\n\t]\n}',
            ":4: unknown key 'nme'; did you mean 'name'?",
        ),
        ('{\n"name": "p"\n"allow_rules": []}', ":3: not JSON: Expecting ',' delimiter"),
        ('{"name": "p", "name": "q"}', ": the key 'name' is given twice"),
        ("[" * 100_000, ": nested too deeply"),
        ('{"name": ' + "9" * 5000 + "}", ": nested too deeply, or a number too long"),
        ('{"name": "\\ud83d", "x": 1}', ": x: unknown key 'x'"),
        ("", ":1: not JSON: Expecting value"),
        ('{"n\\u0061me": "p",\n"allow_rules": [{"n\\u0061me": "a",\n"\\u0073ource": 1}]}', ":3: must be a mapping"),
        ("[" * 500 + "]" * 500, ":1: must be a mapping, not a list"),
        ("[]", ":1: must be a mapping, not a list"),
    ],
    ids=range(10),
)
def test_json_is_json_and_its_lines_are_known_too(tmp_path: Path, text: str, error: str) -> None:
    assert error_of(tmp_path, text, "policy.json").startswith(error)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(b"name: \xff", ": is not UTF-8 text", id="not-text"),
        pytest.param(b"# " + b"x" * 2**26, ": longer than 64 MiB", id="too-long"),
        pytest.param(b"", ": must be a mapping, not nothing", id="empty"),
        pytest.param(b"\xef\xbb\xbfname: p\nfoo: 1", ":2: unknown key 'foo'", id="byte-order-mark"),
    ],
)
def test_what_is_no_policy_at_all_is_an_error(tmp_path: Path, content: bytes, error: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        Policy.from_file(file)

    assert str(caught.value).removeprefix(str(file)).startswith(error)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy\.yaml: cannot be read \(No such file or directory\)$"):
        Policy.from_file(tmp_path / "policy.yaml")


ANY = {"name": "earlier"}
READS = {"name": "earlier", "request": {"paths": ["/s/*"]}}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param({}, {"source": {"clients": ["c"]}}, id="everything"),
        pytest.param({"request": {"paths": ["/s/*"]}}, {"request": {"paths": ["/s/a", "/s/b*"]}}, id="paths"),
        pytest.param({"request": {"paths": ["*/m", "/a"]}}, {"request": {"paths": ["*/x/m", "/a"]}}, id="suffix"),
        pytest.param({"request": {"paths": ["*"]}}, {"request": {"paths": ["*", "/a*", "*b", "/c"]}}, id="presence"),
        pytest.param(
            {"source": {"organizations": ["org_a", "org_b"]}},
            {"source": {"organizations": ["org_b"], "scopes": ["x"]}},
            id="organizations",
        ),
        pytest.param({"source": {"groups": ["g", "h"]}}, {"source": {"groups": ["h"]}}, id="groups"),
        pytest.param({"source": {"clients": ["c"]}}, {"source": {"clients": ["c"]}}, id="the-same"),
        pytest.param({"source": {"scopes": ["a", "b c"]}}, {"source": {"scopes": ["a x", "b c d"]}}, id="scopes"),
        pytest.param({"source": {"principals": ["a*"]}}, {"source": {"principals": ["ab", "ac*"]}}, id="principals"),
        pytest.param(
            {"request": {"headers": [{"key": "A", "values": ["1*"]}]}},
            {"request": {"headers": [{"key": "b", "values": ["2"]}, {"key": "a", "values": ["12"]}]}},
            id="headers",
        ),
    ],
)
def test_a_rule_that_never_decides_is_an_error(earlier: dict, later: dict) -> None:
    organizations = {"org_a": {"groups": ["g"]}, "org_b": {"groups": ["h"]}}
    rules = [{"name": "earlier", **earlier}, {"name": "later", **later}]

    with pytest.raises(ConfigError) as caught:
        Policy.from_document({"name": "p", "allow_rules": rules, "organizations": organizations})

    assert str(caught.value) == (
        "policy: allow_rules[1]: rule 'later' never decides: rule 'earlier' before it matches all that it does"
    )


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param({"source": {"clients": ["c"]}}, {}, id="wider"),
        pytest.param({"request": {"paths": ["/s/*"]}}, {"request": {"paths": ["/s/a", "/t/a"]}}, id="another-path"),
        pytest.param({"request": {"paths": ["/s/a*"]}}, {"request": {"paths": ["/s/*"]}}, id="shorter-prefix"),
        pytest.param({"request": {"paths": ["/s/*"]}}, {"request": {"paths": ["*/s/a"]}}, id="suffix"),
        pytest.param({"request": {"paths": ["*"]}}, {"request": {"paths": [""]}}, id="absence"),
        pytest.param({"source": {"scopes": ["a b"]}}, {"source": {"scopes": ["a"]}}, id="fewer-scopes"),
        pytest.param({"source": {"scopes": ["a"]}}, {"source": {"clients": ["c"]}}, id="no-scopes"),
        pytest.param({"source": {"principals": ["*"]}}, {"source": {"principals": [""]}}, id="no-certificate"),
        pytest.param({"source": {"principals": ["*", ""]}}, {"source": {"clients": ["c"]}}, id="no-tls"),
        pytest.param(
            {"request": {"headers": [{"key": "a", "values": ["1"]}]}},
            {"request": {"headers": [{"key": "a", "values": ["1*"]}]}},
            id="header-values",
        ),
        pytest.param(
            {"request": {"headers": [{"key": "a", "values": ["1"]}]}},
            {"request": {"headers": [{"key": "b", "values": ["1"]}]}},
            id="header-names",
        ),
    ],
)
def test_a_rule_that_may_decide_is_none(earlier: dict, later: dict) -> None:
    rules = [{"name": "earlier", **earlier}, {"name": "later", **later}]

    assert len(Policy.from_document({"name": "p", "allow_rules": rules}).rules) == 2


def test_allow_rules_are_not_held_against_deny_rules() -> None:
    rules = [{"name": "everything"}]

    assert len(Policy.from_document({"name": "p", "deny_rules": rules, "allow_rules": rules}).rules) == 2


def test_organizations_that_no_list_knows_may_be_named_where_there_is_none() -> None:
    rule = {"name": "r", "source": {"organizations": ["org_a"]}}

    assert Policy.from_document({"name": "p", "allow_rules": [rule]}).rules[0].organizations == {"org_a"}


WITHOUT_YAML = """\
import sys
sys.modules["yaml"] = None
from authz.policy import Policy
try:
    print(Policy.from_file(sys.argv[1]))
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("p.json", "name", "<Policy 'a': 1 rules, 0 organizations>"),
        ("p.json", "nme", "p.json: nme: unknown key 'nme'; did you mean 'name'?"),
        ("p.yaml", "name", "p.yaml: YAML needs the extra 'policy': pip install 'grpc-org-authz[policy]'"),
    ],
)
def test_json_does_without_the_yaml_library(tmp_path: Path, name: str, key: str, said: str) -> None:
    (tmp_path / name).write_text(json.dumps({key: "a", "allow_rules": [{"name": "a"}]}), encoding="utf-8")

    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_YAML, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )

    assert result.stdout.strip() == said


class Counted(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    __hash__ = str.__hash__
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)


def test_what_is_given_twice_in_a_long_list_is_found_in_one_pass() -> None:
    """A list of all organizations in one rule: to compare each with all before it would take minutes."""
    check = compiled(listed("Items", "", text("Item")))
    items = [Counted(number) for number in [*range(2_000), 1_999]]

    with pytest.raises(Fault, match=r"^'1999' is given twice$"):
        check(items)
    assert Counted.comparisons < 10_000
