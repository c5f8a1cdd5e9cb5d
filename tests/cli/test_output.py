"""Text from callers, issuers, servers and files has no effect on a terminal, in any command."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.cli import run
from authz.cli.program.table import names
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import SERVICE
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims
from tests.programs import AUTHZ, PATIENCE, environment

ATTACKS = ["\x1b[2J", "\x9b2J", "\u202e", "\u2066", "\u2028", "\u200b", "\r", "\x07", "\ue000"]

Output = pytest.CaptureFixture[str]


@pytest.fixture(params=ATTACKS, ids=ascii)
def attack(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rogue(attack: str) -> Iterator[str]:
    """Serve an answer with the attack in every text of it; yield the address."""
    answer = CheckResponse()
    answer.status.code, answer.status.message = 7, f"no{attack}access"
    header = answer.denied_response.headers.add().header
    header.key, header.value = "www-authenticate", f"Bearer{attack}realm"
    answer.dynamic_metadata.fields["reason"].string_value = f"a{attack}reason"
    method = grpc.unary_unary_rpc_method_handler(lambda *_: answer.SerializeToString())
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Check": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def printed(capsys: Output, *arguments: str) -> list[str]:
    """Run the command, and return the lines that it has written, each of which must be harmless."""
    run(arguments)
    out, err = capsys.readouterr()
    lines = [*out.split("\n"), *err.split("\n")]
    assert [line for line in lines if not line.isprintable()] == []
    return lines


def write_policy(folder: Path, name: str, paths: Sequence[str] = ("/a.B/*",)) -> str:
    rule = {"name": name, "request": {"paths": list(paths)}}
    (folder / "policy.json").write_text(json.dumps({"name": "policy", "allow_rules": [rule]}))
    return "policy.json"


def test_check_prints_the_words_of_a_server(capsys: Output, rogue: str) -> None:
    for more in ((), ("--json",)):
        lines = printed(capsys, "check", "--server", rogue, "--method", "/a.B/C", *more)

        assert any("realm" in line for line in lines)
        assert any("reason" in line for line in lines)


def test_verify_prints_the_claims_of_a_token(capsys: Output, folder: Path, attack: str, ec_key: SigningKey) -> None:
    (folder / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    flags = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
    claims = {**m2m_claims(), "sub": f"a{attack}subject", f"a{attack}claim": f"a{attack}value"}
    lines = printed(capsys, "verify", ec_key.sign(claims), *flags)

    assert any("claim" in line and "value" in line for line in lines)


def test_policy_check_prints_names_of_files_and_rules(capsys: Output, folder: Path, attack: str) -> None:
    file = write_policy(folder, f"a{attack}rule", [f"a{attack}path"])
    (folder / file).rename(folder / f"a{attack}policy.json")
    lines = printed(capsys, "policy", "check", f"a{attack}policy.json")

    assert any("rule" in line and "path" in line for line in lines)


def test_policy_check_prints_what_is_wrong_with_a_file(capsys: Output, folder: Path, attack: str) -> None:
    (folder / "policy.json").write_text(json.dumps({"name": "policy", f"a{attack}key": 1}))
    printed(capsys, "policy", "check", "policy.json")
    (folder / "policy.yaml").write_text(f"name: [{attack}")
    lines = printed(capsys, "policy", "check", "policy.yaml")

    assert any(line.startswith("authz: ") for line in lines)


def test_policy_explain_prints_what_was_asked(capsys: Output, folder: Path, attack: str) -> None:
    file = write_policy(folder, f"a{attack}rule")
    question = ("--method", f"/x{attack}method", "--organization", f"o{attack}rg", "--header", f"x-a:{attack}")
    for more in ((), ("--json",)):
        lines = printed(capsys, "policy", "explain", file, *question, *more)

        assert any("rule" in line for line in lines)


def test_policy_test_prints_names_of_cases(capsys: Output, folder: Path, attack: str) -> None:
    file = write_policy(folder, f"a{attack}rule")
    case = {"name": f"a{attack}case", "method": "/a.B/C", "organization": "org", "expect": "denied"}
    (folder / "policy.test.json").write_text(json.dumps([case]))
    lines = printed(capsys, "policy", "test", file)

    assert any("expected denied, is allowed" in line for line in lines)


def test_policy_diff_prints_what_callers_chose(capsys: Output, folder: Path, attack: str) -> None:
    write_policy(folder, f"a{attack}rule")
    (folder / "old.json").write_text((folder / "policy.json").read_text())
    new = write_policy(folder, f"a{attack}rule", ["/other"])
    line: dict[str, object] = {
        "event": "decision",
        "verdict": "allowed",
        "reason": "",
        "client": "c",
        "subject": "c",
        "scopes": [],
    }
    line |= {"method": f"/a.B/{attack}method", "organization": f"o{attack}rg", "policy": "policy", "rule": "a"}
    (folder / "decisions.jsonl").write_text(json.dumps(line) + "\n")
    lines = printed(capsys, "policy", "diff", "old.json", new, "--decisions", "decisions.jsonl")

    assert any("method" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--log-level", "{}"),
        ("serve", "--{}", "x"),
        ("serve", "--check-config", "--listen", "unix:{}"),
        ("serve", "--check-config", "--policy", "{}.yaml"),
        ("policy", "check", "{}.yaml"),
        ("policy", "{}"),
        ("{}",),
        ("issuer", "--config", "{}"),
        ("issuer", "--listen", "{}"),
        ("check", "--method", "/a", "--server", "{}"),
        ("token", "--client-id", "c", "--issuer", "https://{}"),
        ("envoy-config", "--upstream", "{}"),
    ],
    ids=" ".join,
)
def test_mistakes_are_printed_with_the_words_that_were_given(
    capsys: Output, attack: str, arguments: tuple[str, ...]
) -> None:
    lines = printed(capsys, *(argument.replace("{}", f"a{attack}b") for argument in arguments))

    assert any(line.startswith("authz: ") for line in lines)


def test_a_line_is_bounded(capsys: Output) -> None:
    lines = printed(capsys, "serve", "--log-level", "x" * 1_000_000)

    assert max(map(len, lines)) < 20_000


# Help is printed in two ways only, whose commands are in every run.
HELP = [
    pytest.param((name, "--help"), marks=() if name in {"serve", "token"} else pytest.mark.long) for name in names()
]

UNREAD: list[Any] = [
    ("--help",),
    ("--version",),
    ("protos",),
    *HELP,
    ("completion", "bash"),
    ("envoy-config", "--upstream", "127.0.0.1:50051"),
    ("issuer", "--print-config"),
    ("schema", "policy"),
    ("policy", "explain", "policy.json", "--method", "/a.B/C", "--organization", "o"),
    ("serve", "--check-config", "--issuer", ISSUER, "--audience", AUDIENCE),
    ("usage", "--decisions", "decisions.jsonl", "--by", "method"),
]


@pytest.mark.parametrize("arguments", UNREAD, ids=" ".join)
def test_a_reader_that_has_enough_ends_a_command_quietly(folder: Path, arguments: Sequence[str]) -> None:
    write_policy(folder, "rule")
    (folder / "decisions.jsonl").write_text("")
    done = unread(folder, arguments)

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [("check", "--method", "x"), ("token",), ("srve",)])
def test_an_error_that_has_no_reader_ends_a_command_quietly(folder: Path, arguments: Sequence[str]) -> None:
    done = unread(folder, arguments, stream="stderr")

    assert (done.returncode, done.stdout) == (141, b"")


@pytest.mark.parametrize("lines", [1, 1000])
def test_a_reader_that_goes_while_much_is_written_ends_a_command_quietly(folder: Path, lines: int) -> None:
    """More than a pipe holds, so that the command is writing when its reader goes."""
    decision = {"event": "decision", "door": "envoy", "client": "c", "organization": "o", "verdict": "allowed"}
    decision["time"] = "2027-01-31T18:00:00+00:00"
    methods = (f"/a.B/{number:0>100}" for number in range(5000))
    log = "".join(json.dumps({**decision, "method": method}) + "\n" for method in methods)
    (folder / "decisions.jsonl").write_text(log)
    command = f"{shlex.join(AUTHZ)} usage --decisions decisions.jsonl --by method,organization,client"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{command} | head -n {lines}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        cwd=folder,
        env=environment({}),
        check=False,
        timeout=PATIENCE,
    )

    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (141, b"", lines)


def unread(folder: Path, arguments: Sequence[str], stream: str = "stdout") -> "subprocess.CompletedProcess[bytes]":
    """Run the command with a pipe that has no reader, and a second one that has."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [*AUTHZ, *arguments],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer},  # type: ignore[call-overload]
            cwd=folder,
            env=environment({}),
            check=False,
            timeout=PATIENCE,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_needs_no_output(folder: Path, closed: str) -> None:
    for arguments in ("--version", "--help", "protos"):
        command = f"{shlex.join(AUTHZ)} {arguments} {closed}"
        done = subprocess.run(
            ["/bin/bash", "-c", command], cwd=folder, env=environment({}), check=False, timeout=PATIENCE
        )

        assert done.returncode == 0
