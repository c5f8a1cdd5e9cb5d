"""Any ext_authz server can be compared with ours, and one that cannot be is said and does not spoil the rest."""

import os
import re
import select
import shutil
import sys
import textwrap
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from benchmarks import document
from benchmarks.missing import MissingError, program
from benchmarks.peers import comparison, golang
from benchmarks.peers.commands import Peer, PeerError, judge, named, started
from tests.missing import leave_out
from tests.programs import PATIENCE

SERVE = (
    f"{sys.executable} -m authz serve --engine native --listen {{address}} --jwks {{jwks}} "
    "--issuer {issuer} --audience {audience}"
)
# Answers every call alike, and says by a file that it has a child, which outlives it unless both are ended.
SAME = """
    import subprocess, sys
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    import grpc

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(sys.argv[2]).write_text(str(child.pid))
    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: bytes.fromhex("".join(sys.argv[3:])))
    service = grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(sys.argv[1])
    server.start()
    server.wait_for_termination()
"""


def ends(pid: int) -> bool:
    """Wait for the end of a process that is no child; say whether it came before a hang would be found."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], PATIENCE)[0])
    finally:
        os.close(process)


def test_peer_is_given_by_its_name_and_command() -> None:
    assert named("mine = serve --listen={address}") == Peer("mine", " serve --listen={address}")


def test_command_of_the_document_is_a_peer() -> None:
    shown = re.search(r"--peer '(.*)'\"\n", document.DOCUMENT.read_text(encoding="utf-8"))

    assert shown is not None
    assert re.findall(r"\{\w+\}", named(shown[1]).command) == ["{address}", "{jwks}", "{issuer}", "{audience}"]


@pytest.mark.parametrize("text", ["serve {address}", "=serve {address}", "mine=serve", "mine="])
def test_peer_without_name_or_place_for_its_address_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="NAME=COMMAND"):
        named(text)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/nonexistent {address}", "it does not start: .*No such file"),
        ("'unclosed {address}", "it does not start: No closing quotation"),
        ("sh -c 'echo no such flag >&2; exit 3' {address}", "it ended with 3: 'no such flag'"),
    ],
)
def test_peer_that_does_not_start_says_why(tmp_path: Path, command: str, why: str) -> None:
    with pytest.raises(PeerError, match=why), started(Peer("mine", command), tmp_path):
        pass


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it lets in a token that is signed by another"),
        (b"\xff", "its answer is no CheckResponse"),
        (b"\x0a\x02\x08\x10", "it refuses a good token"),
    ],
)
def test_peer_that_does_not_tell_tokens_apart_is_not_compared_and_all_of_it_is_ended(
    tmp_path: Path, answer: bytes, why: str
) -> None:
    (tmp_path / "same.py").write_text(textwrap.dedent(SAME))
    command = f"{sys.executable} {tmp_path / 'same.py'} {{address}} {tmp_path / 'child'} {answer.hex()}"

    with (
        pytest.raises(PeerError, match=why),
        started(Peer("mine", command), tmp_path),
    ):
        pass

    assert ends(int((tmp_path / "child").read_text()))


def test_peer_is_compared_with_ours_whatever_becomes_of_another() -> None:
    if shutil.which("h2load") is None:
        leave_out("peers in turn, because h2load is not installed", "make ci-bench, on Debian and Ubuntu")
    peers = [Peer("mine", SERVE), Peer("broken", "false {address}")]

    measured = comparison.measure(peers, comparison.Effort(rounds=2, seconds=0.02, unseen=20), is_built=False)

    assert measured["left out"] == {"broken": "it ended with 1: ''"}
    assert set(measured["32 streams and one"]) == {*comparison.NAMES[:3], "mine"}
    assert set(measured["ours / theirs, remembered"]) == {*comparison.NAMES[1:3], "mine"}
    assert set(measured["ours / theirs, never seen"]) == {"mine"}


@pytest.mark.long
def test_peer_in_go_lets_in_whom_it_should(tmp_path: Path) -> None:
    try:
        peer = golang.built(tmp_path)
    except MissingError as error:
        leave_out(f"the peer in Go: {error}", "make ci-partners, on Debian and Ubuntu")

    with started(peer, tmp_path) as server:
        judge(server.address)

    assert ends(server.pid)


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "")

    with pytest.raises(MissingError, match=r"The load comes from h2load, which is not installed\. .*: apt install"):
        program("h2load", "The load comes from", "apt install nghttp2-client")
