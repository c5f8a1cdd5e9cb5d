"""``authz policy test``, ``explain`` and ``diff``, as a person or a script uses them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz import cli
from authz.demo.issuer.signing import SigningKey
from authz.demo.v1 import ledger_pb2
from tests import programs
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, jwks, m2m_claims
from tests.marked import descriptor_set, service_file, with_imports

pytestmark = pytest.mark.usefixtures("no_settings")

POLICY = f"""\
name: ledger
deny_rules:
- name: no-imports
  source: {{groups: [trial]}}
  request: {{paths: ["*/Import"]}}
allow_rules:
- name: ledger
  source: {{groups: [trial], clients: [{CLIENT}, c1]}}
  request: {{paths: [/ledger/*]}}
- name: gold
  request:
    paths: [/gold]
    headers: [{{key: x-tier, values: [gold]}}]
- name: mesh
  source: {{principals: ["spiffe://a/*"]}}
  request: {{paths: [/mesh]}}
public: [/health]
organizations:
  {ORG}: {{tenant: t-1, groups: [trial]}}
  org_s: {{status: suspended}}
"""
HYPOTHETICAL = ("--organization", ORG, "--client", "c1")

Run = Callable[..., tuple[int, str, str]]


def settings(key: SigningKey) -> dict[str, str]:
    issuer = {"AUTHZ_ISSUER": ISSUER, "AUTHZ_AUDIENCE": AUDIENCE}
    return {**issuer, "AUTHZ_ALGORITHMS": "ES256", "AUTHZ_JWKS": json.dumps(jwks(key))}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ec_key: SigningKey) -> Run:
    """Return a function that runs ``authz policy`` where ``policy.yaml`` is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    for name, value in settings(ec_key).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(["policy", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_each_rule_is_explained(run: Run) -> None:
    assert run("explain", "policy.yaml", "--method", "/ledger/List", *HYPOTHETICAL) == (
        0,
        f"""\
allowed: rule ledger of allow_rules matches
method /ledger/List
organization {ORG} (tenant t-1, groups trial)
deny_rules:
  - no-imports: does not match
      request.paths: /ledger/List does not match */Import
allow_rules:
  + ledger: matches, and decides
  - gold: does not match
      request.paths: /ledger/List does not match /gold
      request.headers x-tier: is not sent
  - mesh: does not match
      source.principals: the caller's certificate is not known
      request.paths: /ledger/List does not match /mesh
""",
        "",
    )


@pytest.mark.parametrize(
    ("method", "more", "status", "said"),
    [
        ("/health", (), 0, "public: the method is public"),
        ("/ledger/Import", HYPOTHETICAL, 1, "denied: rule no-imports of deny_rules matches"),
        ("/ledger/List", ("--organization", "org_x"), 1, "denied: no rule allows it"),
        ("/ledger/List", ("--organization", "org_s"), 1, "suspended: the organization is suspended"),
        ("/mesh", HYPOTHETICAL, 3, "undecided: rule mesh of allow_rules: source.principals: the caller's certificate"),
        ("/mesh", (*HYPOTHETICAL, "--principal", "spiffe://a/b"), 0, "allowed: rule mesh"),
        ("/mesh", (*HYPOTHETICAL, "--principal", ""), 1, "denied: no rule allows it; the nearest, mesh"),
        ("/gold", (*HYPOTHETICAL, "--header", "X-Tier: gold"), 0, "allowed: rule gold"),
        ("/gold", (*HYPOTHETICAL, "--header", "x-tier:tin"), 1, "denied: no rule allows it; the nearest, gold"),
    ],
)
def test_the_verdict_is_the_exit_code(run: Run, method: str, more: tuple[str, ...], status: int, said: str) -> None:
    done = run("explain", "policy.yaml", "--method", method, *more)

    assert (done[0], done[2]) == (status, "")
    assert done[1].startswith(said)


def test_an_explanation_can_be_read_by_a_program(run: Run) -> None:
    status, out, _ = run("explain", "policy.yaml", "--method", "/ledger/Import", *HYPOTHETICAL, "--json")

    report = json.loads(out)
    assert (status, report["verdict"], report["rule"], report["list"]) == (1, "denied", "no-imports", "deny_rules")
    assert (report["reason"], report["tenant"], report["groups"]) == ("policy_denied", "t-1", ["trial"])
    assert [(rule["name"], rule["matches"]) for rule in report["rules"]] == [
        ("no-imports", True),
        ("ledger", True),
        ("gold", False),
        ("mesh", False),
    ]


def test_the_token_says_who_calls_and_is_never_printed(run: Run, tmp_path: Path, ec_key: SigningKey) -> None:
    token = ec_key.sign(m2m_claims(time.time()))
    (tmp_path / "token").write_text(f"{token}\n", encoding="utf-8")
    arguments = ("explain", "policy.yaml", "--method", "/ledger/List", "--token")

    status, out, err = run(*arguments, "token")

    assert (status, out.splitlines()[0], err) == (0, "allowed: rule ledger of allow_rules matches", "")
    assert token.rpartition(".")[2] not in out
    done = programs.run("policy", *arguments, "-", folder=tmp_path, stdin=token, **settings(ec_key))
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")


def test_a_bad_token_is_denied_before_any_rule(run: Run, tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "token").write_text(ec_key.sign(m2m_claims(time.time(), aud="other")), encoding="utf-8")

    status, out, _ = run("explain", "policy.yaml", "--method", "/ledger/List", "--token", "token")

    assert (status, out.split(" ")[:2]) == (1, ["denied:", "claim_invalid"])
    assert out.splitlines()[1:] == ['  found: aud is "other"', f'  expected: "{AUDIENCE}"', "  setting: --audience"]

    _, out, _ = run("explain", "policy.yaml", "--method", "/ledger/List", "--token", "token", "--json")

    assert (json.loads(out)["found"], json.loads(out)["setting"]) == ('aud is "other"', "--audience")


def test_a_token_that_is_bound_to_a_certificate_is_left_undecided(run: Run, tmp_path: Path, ec_key: SigningKey) -> None:
    bound = m2m_claims(time.time(), cnf={"x5t#S256": "A" * 43})
    (tmp_path / "token").write_text(ec_key.sign(bound), encoding="utf-8")

    status, out, _ = run("explain", "policy.yaml", "--method", "/ledger/List", "--token", "token", "--json")

    assert (status, json.loads(out)["verdict"]) == (3, "undecided")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "authz: organization: missing; say who calls with --token or --organization"),
        (("--token", "t", "--scopes", "a"), "authz: scopes: the token says it; give --scopes or --token"),
        (("--token", "nowhere"), "authz: token: 'nowhere' cannot be read"),
        ((*HYPOTHETICAL, "--header", "x"), "authz: header: must be NAME:VALUE, such as --header x-tier:gold"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    assert run("explain", "policy.yaml", "--method", "/ledger/List", *arguments) == (2, "", f"{said}\n")


def test_tests_beside_the_policy_are_run(run: Run, tmp_path: Path) -> None:
    tests = f"""\
- {{name: list, method: /ledger/List, organization: {ORG}, client: c1, expect: allowed}}
- {{name: gold, method: /gold, organization: org_x, headers: {{x-tier: gold}}, expect: allowed}}
- {{name: import, method: /ledger/Import, organization: {ORG}, expect: denied, rule: no-imports}}
"""
    (tmp_path / "policy.test.yaml").write_text(tests, encoding="utf-8")
    hint = "policy.yaml: hint: rule mesh of allow_rules decides in no test\n"
    assert run("test", "policy.yaml") == (0, f"{hint}policy.yaml: 3 passed, 0 failed\n", "")

    (tmp_path / "other.yaml").write_text(tests.replace("expect: denied", "expect: allowed"), encoding="utf-8")
    failure = (
        "other.yaml:3: import: expected allowed by no-imports, is denied by no-imports: "
        "rule no-imports of deny_rules matches\n"
    )
    assert run("test", "policy.yaml", "--tests", "other.yaml") == (
        1,
        f"{failure}{hint}policy.yaml: 2 passed, 1 failed\n",
        "",
    )


def test_tests_that_are_not_there_are_said_to_be_missing(run: Run) -> None:
    assert run("test", "policy.yaml") == (
        2,
        "",
        "authz: policy.test.yaml: cannot be read (No such file or directory)\n",
    )


ORDERS = f"""\
name: orders
allow_rules:
- name: reads
  request: {{paths: [/orders], methods: [GET, GETT, PROPFIND, PURGE]}}
organizations:
  {ORG}: {{}}
"""


@pytest.mark.parametrize(
    ("verb", "status", "said"),
    [
        ("GET", 0, ["allowed: rule reads of allow_rules matches", "method /orders", "verb GET"]),
        (
            "HEAD",
            1,
            [
                (
                    "denied: no rule allows it; the nearest, reads: request.methods: HEAD is not one of GET, GETT, "
                    "PROPFIND, PURGE; GET does not include it"
                ),
                "method /orders",
                "verb HEAD",
            ],
        ),
        (
            "\x1b",
            1,
            [
                "denied: servers may not agree about the HTTP method: '\\x1b' is not one in capitals; no rule is asked",
                "method /orders",
                "verb '\\x1b'",
            ],
        ),
    ],
)
def test_http_method_is_part_of_the_question(run: Run, tmp_path: Path, verb: str, status: int, said: list[str]) -> None:
    (tmp_path / "orders.yaml").write_text(ORDERS, encoding="utf-8")

    done = run("explain", "orders.yaml", "--method", "/orders", "--verb", verb, "--organization", ORG)

    assert (done[0], done[1].splitlines()[:3]) == (status, said)


def test_http_method_that_may_be_misspelt_is_hinted_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text(ORDERS, encoding="utf-8")

    assert run("check", "orders.yaml")[1].splitlines()[1:] == [
        "orders.yaml: hint: rule reads: GETT is no registered HTTP method; did you mean 'GET'?",
        "orders.yaml: hint: rule reads: PURGE is no registered HTTP method",
    ]


def test_changes_are_told_by_http_method(run: Run, tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text(ORDERS, encoding="utf-8")
    (tmp_path / "old.yaml").write_text(ORDERS.replace("[GET,", "[GET, DELETE, POST,"), encoding="utf-8")
    lines = [{**LOGGED, "method": "/orders", "organization": ORG, "rule": "reads"}]
    lines += [{**lines[0], "verb": verb} for verb in ("GET", "DELETE", "DELETE", "PROPFIND")]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    assert run("diff", "old.yaml", "orders.yaml", "--decisions", "log.jsonl")[1].splitlines() == [
        f"2 DELETE /orders {ORG}: allowed by reads -> denied",
        f"1 /orders {ORG}: allowed by reads -> denied",
        "3 of 5 decisions would change",
    ]


LOGGED = {"event": "decision", "verdict": "allowed", "reason": "", "client": "c1", "scopes": [], "rule": "ledger"}
LOG = [
    *[{**LOGGED, "method": "/ledger/List", "organization": ORG}] * 2,
    {**LOGGED, "method": "/ledger/\x1b[2J", "organization": ORG},
    {**LOGGED, "method": "/gold", "organization": ORG, "rule": "gold"},
    {**LOGGED, "method": "/x", "organization": "", "verdict": "denied", "reason": "token_missing", "rule": ""},
    {**LOGGED, "method": "/x", "organization": ORG, "verdict": "denied", "reason": "token_inactive"},
    {"method": "/x"},
]


def test_what_would_change_is_printed(run: Run, tmp_path: Path) -> None:
    log = "".join(f"{json.dumps(line)}\n" for line in LOG)
    (tmp_path / "log.jsonl").write_text(log, encoding="utf-8")
    (tmp_path / "new.yaml").write_text(
        POLICY.replace("[/ledger/*]", "[/ledger/Get]").replace("[gold]", "[gold, tin]"), encoding="utf-8"
    )

    done = run("diff", "policy.yaml", "new.yaml", "--decisions", "log.jsonl")

    assert done == (
        1,
        f"""\
2 /ledger/List {ORG}: allowed by ledger -> denied
1 '/ledger/\\x1b[2J' {ORG}: allowed by ledger -> denied
note: 1 lines are not decisions
note: 1 not replayed: no organization, so no policy was asked
note: 1 not replayed: refused or left undecided for another reason than a rule
note: 1 not replayed: they depend on headers or certificates, which the log does not hold
3 of 3 decisions would change
""",
        "",
    )
    from_input = programs.run(
        "policy", "diff", "policy.yaml", "new.yaml", "--decisions", "-", folder=tmp_path, stdin=log
    )
    assert (from_input.returncode, from_input.stdout, from_input.stderr) == done


def test_a_policy_differs_from_itself_in_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps(LOG[0]), encoding="utf-8")

    assert run("diff", "policy.yaml", "policy.yaml", "--decisions", "log.jsonl") == (
        0,
        "0 of 1 decisions would change\n",
        "",
    )


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("nowhere", "authz: decisions: 'nowhere' cannot be read (No such file or directory)\n"),
        (
            "policy.yaml",
            "authz: decisions: no line of 'policy.yaml' is a decision; give the log of --decision-log\n",
        ),
    ],
)
def test_what_is_no_decision_log_is_an_error(run: Run, log: str, said: str) -> None:
    assert run("diff", "policy.yaml", "policy.yaml", "--decisions", log) == (2, "", said)


# ---- With .proto files ----

SERVICE = "/authz.demo.v1.LedgerService"
NARROWING = f"""\
name: ledger
deny_rules:
- {{name: no-imports, request: {{paths: ["*/ImportEntries"]}}}}
organizations: {{{ORG}: {{}}}}
"""


@pytest.fixture
def api(tmp_path: Path) -> str:
    (tmp_path / "narrowing.yaml").write_text(NARROWING, encoding="utf-8")
    (tmp_path / "api.binpb").write_bytes(descriptor_set(ledger_pb2.DESCRIPTOR))
    return "api.binpb"


def test_protos_are_checked_with_and_without_a_file(run: Run, tmp_path: Path, api: str) -> None:
    said = "api.binpb: 4 of 4 methods declare who may call them\n"
    assert run("check", "--descriptors", api) == (0, said, "")
    assert run("check", "narrowing.yaml", "--descriptors", api) == (
        0,
        f"narrowing.yaml: ledger: 1 deny rule, 0 allow rules, 1 organization\n{said}",
        "",
    )
    (tmp_path / api).write_bytes(with_imports(service_file({"Call": {}, "Silent": None})))
    assert run("check", "--descriptors", api)[1].splitlines() == [
        "api.binpb: 1 of 2 methods declare who may call them",
        "api.binpb: hint: /tests.Api/Silent declares nothing, so no caller may call it unless the file says so",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (
            ("--method", f"{SERVICE}/PostEntry", "--organization", "org_x", "--scopes", "ledger:read"),
            1,
            f"""\
denied: the .proto asks for more: scopes: holds ledger:read, needs ledger:write
method {SERVICE}/PostEntry
organization org_x (not in organizations)
proto:
  - proto:{SERVICE}/PostEntry: does not match, and decides
      scopes: holds ledger:read, needs ledger:write
""",
        ),
        (
            ("narrowing.yaml", "--method", f"{SERVICE}/ListEntries", *HYPOTHETICAL, "--scopes", "ledger:read"),
            0,
            f"""\
allowed: the caller has what the .proto asks for
method {SERVICE}/ListEntries
organization {ORG}
deny_rules:
  - no-imports: does not match
      request.paths: {SERVICE}/ListEntries does not match */ImportEntries
proto:
  + proto:{SERVICE}/ListEntries: matches, and decides
""",
        ),
        (
            ("--method", "/other/Method", *HYPOTHETICAL),
            1,
            f"""\
denied: no .proto declares who may call it, and no rule allows it
method /other/Method
organization {ORG} (not in organizations)
""",
        ),
    ],
    ids=["denied", "allowed", "not-declared"],
)
def test_what_a_proto_asks_for_is_explained(
    run: Run, api: str, arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert run("explain", "--descriptors", api, *arguments) == (status, said, "")


def test_an_explanation_of_a_proto_can_be_read_by_a_program(run: Run, api: str) -> None:
    _, out, _ = run("explain", "--descriptors", api, "--method", f"{SERVICE}/PostEntry", *HYPOTHETICAL, "--json")

    report = json.loads(out)
    assert (report["list"], report["rule"]) == ("proto", f"proto:{SERVICE}/PostEntry")
    assert report["reason"] == "insufficient_scope"
    assert [rule["failed"] for rule in report["rules"]] == [["scopes: holds none, needs ledger:write"]]


def test_protos_have_tests_too(run: Run, tmp_path: Path, api: str) -> None:
    rule = f"proto:{SERVICE}/PostEntry"
    case = f"- {{name: post, method: {SERVICE}/PostEntry, organization: {ORG}, expect: denied, rule: '{rule}'}}\n"
    (tmp_path / "api.test.yaml").write_text(case, encoding="utf-8")

    assert run("test", "--descriptors", api, "--tests", "api.test.yaml") == (0, "api.binpb: 1 passed, 0 failed\n", "")
    assert run("test", "--descriptors", api)[::2] == (
        2,
        "authz: tests: missing; without a policy file, give --tests policy.test.yaml\n",
    )


def test_what_other_protos_would_change_is_printed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.binpb").write_bytes(with_imports(service_file({"Call": {}})))
    (tmp_path / "new.binpb").write_bytes(with_imports(service_file({"Call": {"scopes": ["w"]}})))
    logged = {**LOGGED, "method": "/tests.Api/Call", "organization": ORG, "rule": "proto:/tests.Api/Call"}
    (tmp_path / "log.jsonl").write_text(json.dumps(logged), encoding="utf-8")
    diff = ("diff", "--decisions", "log.jsonl", "--descriptors", "new.binpb")

    by_proto = "by proto:/tests.Api/Call"
    assert run(*diff, "--old-descriptors", "old.binpb") == (
        1,
        f"1 /tests.Api/Call {ORG}: allowed {by_proto} -> denied {by_proto}\n1 of 1 decisions would change\n",
        "",
    )
    assert run(*diff)[1].endswith("0 of 1 decisions would change\n")
    assert run(*diff, "policy.yaml")[::2] == (
        2,
        "authz: new: missing; give the policy in force and the one to compare with it\n",
    )


def test_a_long_replay_shows_on_a_terminal_alone_how_far_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "decisions.jsonl").write_text(f"{json.dumps(LOG[0])}\n" * 30_000, encoding="utf-8")
    command = ("diff", "policy.yaml", "policy.yaml", "--decisions", "decisions.jsonl")
    terminal, other_end = os.openpty()
    with os.fdopen(other_end, "w") as errors, os.fdopen(terminal, "rb") as shown:
        program = [sys.executable, "-m", "authz", "policy", *command]
        done = subprocess.run(program, stdout=subprocess.PIPE, stderr=errors, check=True)
        progress = os.read(shown.fileno(), 4096)

    assert done.stdout == b"0 of 30000 decisions would change\n"
    assert progress == b"\r\x1b[K0 lines\r\x1b[K20,000 lines\r\x1b[K"
    assert run(*command) == (0, "0 of 30000 decisions would change\n", "")
