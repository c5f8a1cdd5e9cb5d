"""``authz policy check`` and ``test`` about several files, for people, for programs and as JUnit XML."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from authz import cli

POLICY = "name: {name}\nallow_rules: [{{name: r, source: {{scopes: [read]}}}}]\n"
CASE = "- {{name: reads, method: /a.B/C, organization: org_a, scopes: [{scope}], expect: allowed}}\n"
# Control characters, what XML and terminals treat specially, and what neither can hold.
HOSTILE = [
    *(
        "<script>alert(1)</script>",
        "]]>",
        "&lt;&amp;&",
        "\"'",
        "\x00\x07\x1b[31m",
        "\x7f\x85",
        "\u2028\u202e",
        "\ufffe",
    ),
    *("\ud800", "\U0001f600", "a\r\nb\tc", "x" * 100_000),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``authz policy`` where the policies are: one good, one wrong, one that fails."""
    monkeypatch.chdir(tmp_path)
    for name, scope in (("good", "read"), ("fails", "write")):
        written(f"{name}-policy.yaml", POLICY.format(name=name))
        written(f"{name}-policy.test.yaml", CASE.format(scope=scope))
    written("deep/wrong.policy.yml", "name: wrong\nallow_rule: []\n")
    written("deep/.git/policy.yaml", "not one")
    written("deep/er/policy.json", json.dumps({"name": "deepest", "allow_rules": [{"name": "r"}]}))
    written("deep/er/policy.test.json", "[]")
    written("deep/values.yaml", "not: a policy")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(["policy", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def written(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


WRONG = "authz: deep/wrong.policy.yml:2: unknown key 'allow_rule'; did you mean 'allow_rules'?\n"
FAILURE = "fails-policy.test.yaml:1: reads: expected allowed, is denied"


def test_a_wrong_file_hides_no_other(run: Run) -> None:
    files = ("good-policy.yaml", "deep/wrong.policy.yml", "nowhere.yaml", "fails-policy.yaml")
    status, out, err = run("check", *files)

    assert status == 2
    assert [line.partition(":")[0] for line in out.splitlines()] == ["good-policy.yaml", "fails-policy.yaml"]
    assert err == f"{WRONG}authz: nowhere.yaml: cannot be read (No such file or directory)\n"


def test_a_folder_stands_for_its_policies_in_order(run: Run) -> None:
    status, out, err = run("check", ".", "good-policy.yaml")

    named = [line.partition(":")[0] for line in out.splitlines()]
    assert named == ["deep/er/policy.json", "fails-policy.yaml", "good-policy.yaml"]
    assert (status, err) == (2, WRONG)


def test_a_folder_without_policies_is_an_error_and_hides_no_other(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, out, err = run("check", "empty", "good-policy.yaml")

    assert (status, out) == (2, "good-policy.yaml: good: 0 deny rules, 1 allow rule, 0 organizations\n")
    assert err.startswith("authz: empty: no policy in it: no file like policy.yaml")


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (["good-policy.yaml"], 0),
        (["good-policy.yaml", "deep/er"], 0),
        (["good-policy.yaml", "fails-policy.yaml"], 1),
        (["fails-policy.yaml", "good-policy.yaml"], 1),
        (["deep/wrong.policy.yml", "fails-policy.yaml"], 2),
        (["fails-policy.yaml", "deep/wrong.policy.yml", "good-policy.yaml"], 2),
    ],
)
def test_the_exit_code_is_the_worst(run: Run, files: list[str], status: int) -> None:
    done = run("test", *files)

    assert done[0] == status
    assert run("test", *files, "--json")[0] == status
    assert run("test", *files, "--junit", "out.xml")[0] == status


def test_tests_of_several_policies_are_run(run: Run) -> None:
    status, out, err = run("test", ".")

    assert status == 2
    assert out.splitlines() == [
        "deep/er/policy.json: hint: rule r of allow_rules decides in no test",
        "deep/er/policy.json: 0 passed, 0 failed",
        f"{FAILURE}: no rule allows it; the nearest, r: source.scopes: holds write, needs read",
        "fails-policy.yaml: hint: rule r of allow_rules decides in no test",
        "fails-policy.yaml: 0 passed, 1 failed",
        "good-policy.yaml: 1 passed, 0 failed",
    ]
    assert err == WRONG


def test_a_file_of_tests_stands_for_its_policy(run: Run) -> None:
    said = "good-policy.yaml: 1 passed, 0 failed\n"
    assert run("test", "good-policy.test.yaml", "good-policy.yaml") == (0, said, "")
    assert run("check", "good-policy.test.yaml")[0] == 0


def test_tests_elsewhere_belong_to_one_policy(run: Run) -> None:
    said = "authz: tests: give them with one policy only; those of several are beside them\n"
    assert run("test", "good-policy.yaml", "fails-policy.yaml", "--tests", "good-policy.test.yaml") == (2, "", said)


def test_programs_read_what_is_checked(run: Run) -> None:
    status, out, err = run("check", "good-policy.yaml", "deep/wrong.policy.yml", "--json")

    assert (status, err) == (2, "")
    assert json.loads(out) == {
        "files": [
            {
                "file": "good-policy.yaml",
                "error": "",
                "policy": "good",
                "hints": [],
                "deny_rules": 0,
                "allow_rules": 1,
                "organizations": 0,
            },
            {"file": "deep/wrong.policy.yml", "error": WRONG.removeprefix("authz: ").strip()},
        ]
    }


def test_programs_read_what_is_tested(run: Run) -> None:
    status, out, _ = run("test", "fails-policy.yaml", "good-policy.yaml", "deep/wrong.policy.yml", "--json")

    fails, good, wrong = json.loads(out)["files"]
    assert status == 1 + 1
    assert (fails["passed"], fails["failed"], fails["unreached"]) == (0, 1, [{"list": "allow_rules", "rule": "r"}])
    assert fails["cases"][0]["failure"].startswith(FAILURE)
    assert (good["passed"], good["failed"], good["tests"]) == (1, 0, "good-policy.test.yaml")
    assert good["cases"] == [{"name": "reads", "failure": ""}]
    assert wrong == {
        "file": "deep/wrong.policy.yml",
        "tests": "deep/wrong.policy.test.yml",
        "error": WRONG.removeprefix("authz: ").strip(),
    }


def test_junit_has_every_test_and_every_wrong_file(run: Run) -> None:
    run("test", ".", "--junit", "out.xml")

    root = ET.parse("out.xml").getroot()  # noqa: S314 - our own
    assert root.tag == "testsuites"
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["deep/er/policy.json", "deep/wrong.policy.yml", "fails-policy.yaml", "good-policy.yaml"]
    assert [case.get("name") for case in suites["good-policy.yaml"]] == ["reads"]
    assert len(suites["good-policy.yaml"][0]) == 0
    failure = suites["fails-policy.yaml"][0][0]
    assert (failure.tag, failure.text) == ("failure", failure.get("message"))
    error = suites["deep/wrong.policy.yml"][0][0]
    assert (error.tag, f"authz: {error.text}\n") == ("error", WRONG)
    for case in root.iter("testcase"):
        assert case.get("classname")
        assert float(case.get("time", "-1")) >= 0


def test_junit_has_every_policy_that_was_checked(run: Run) -> None:
    run("check", ".", "--junit", "out.xml")

    root = ET.parse("out.xml").getroot()  # noqa: S314 - our own
    assert (root.get("name"), root.get("tests"), root.get("failures")) == ("authz policy check", "4", "0")
    cases = {case.get("classname"): [part.tag for part in case] for case in root.iter("testcase")}
    assert cases == {
        "deep/er/policy.json": [],
        "deep/wrong.policy.yml": ["error"],
        "fails-policy.yaml": [],
        "good-policy.yaml": [],
    }


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:20]))
@pytest.mark.parametrize("expect", ["allowed", "denied"])
def test_junit_can_be_read_whatever_tests_are_called(run: Run, tmp_path: Path, name: str, expect: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"name": name, "allow_rules": [{"name": name}]}))
    case = {"name": name, "method": f"/{name}", "organization": name, "expect": expect}
    (tmp_path / "p.test.json").write_text(json.dumps([case, {**case, "rule": name}]))

    status, _, err = run("test", "p.json", "--junit", "out.xml")

    assert (status, err) == (int(expect == "denied"), "")
    text = (tmp_path / "out.xml").read_text(encoding="utf-8")
    assert all(line.isprintable() for line in text.splitlines())
    root = ET.fromstring(text.encode())  # noqa: S314 - our own
    assert len(list(root.iter("testcase"))) == 2
    assert len(list(root.iter("failure"))) == 2 * status
    if name.isprintable() and len(name) < 100:
        assert [case.get("name") for case in root.iter("testcase")] == [name] * 2


@pytest.mark.parametrize("command", ["check", "test"])
def test_junit_that_cannot_be_written_is_an_error(run: Run, command: str) -> None:
    said = "authz: junit: 'nowhere/out.xml' cannot be written (No such file or directory)\n"
    assert run(command, "good-policy.yaml", "--junit", "nowhere/out.xml") == (2, "", said)
