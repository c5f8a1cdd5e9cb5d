"""A peer: any ext_authz server of gRPC that a command starts, so that anybody can compare theirs with ours."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from authz.demo.issuer.signing import SigningKey
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from benchmarks.material import AUDIENCE, ISSUER, KID, check_request, claims, signing_key
from benchmarks.processes import Server
from benchmarks.server import CHECK

START_SECONDS, END_SECONDS, CALL_SECONDS = 20.0, 5.0, 5.0
_PLACEHOLDER = re.compile(r"\{(address|jwks|issuer|audience)\}")
_MAX_SAID = 200


class PeerError(Exception):
    """A peer cannot be compared; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with.

    Args:
        name: what the figures are called.
        command: what starts it, in the foreground. ``{address}`` in it is where the server listens, without TLS;
            ``{jwks}`` the file of keys, ``{issuer}`` and ``{audience}`` what it asks of tokens.

    """

    name: str
    command: str


def named(text: str) -> Peer:
    """Return the peer of an argument ``NAME=COMMAND``."""
    name, _, command = text.partition("=")
    if not name.strip() or "{address}" not in command:
        raise ArgumentTypeError("a peer is NAME=COMMAND, and the command says {address} where the server is to listen")
    return Peer(name.strip(), command)


@contextmanager
def started(peer: Peer, folder: Path) -> Iterator[Server]:
    """Run a peer on the loopback; it answers right when it is given, and it and what it started is ended.

    Args:
        peer: the server.
        folder: for its files, of its own.

    Raises:
        PeerError: it does not start, or does not verify tokens.

    """
    port, said = _free_port(), folder / "said"
    (folder / "jwks.json").write_text(json.dumps({"keys": [signing_key().public_jwk()]}), encoding="utf-8")
    values = {"address": f"127.0.0.1:{port}", "jwks": str(folder / "jwks.json"), "issuer": ISSUER, "audience": AUDIENCE}
    with said.open("wb") as output:
        try:
            words = [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in shlex.split(peer.command)]
            # In a session of its own, so that what it starts can be ended with it.
            process = subprocess.Popen(  # noqa: S603 - whoever measures gives the command
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise PeerError(f"it does not start: {error}") from error
    try:
        _await(process, f"127.0.0.1:{port}", said)
        judge(f"127.0.0.1:{port}")
        yield Server(pid=process.pid, port=port)
    finally:
        _end(process)


def judge(address: str) -> None:
    """See that a server lets in whom it should, and nobody else: else its figures are those of other work.

    Raises:
        PeerError: it does not, or gives no answer.

    """
    key, stranger = signing_key(), SigningKey.generate(KID)
    late = {"iat": claims()["iat"] - 7200, "exp": claims()["iat"] - 3600}
    wrong: dict[str, str] = {
        "signed by another": stranger.sign(claims()),
        "expired": key.sign({**claims(), **late}),
        "for another audience": key.sign({**claims(), "aud": "client_other"}),
        "of another issuer": key.sign({**claims(), "iss": "https://other.example"}),
    }
    try:
        if _code(address, key.sign(claims())) != 0:
            raise PeerError("it refuses a good token")
        for what, token in wrong.items():
            if _code(address, token) == 0:
                raise PeerError(f"it lets in a token that is {what}")
    except grpc.RpcError as error:
        raise PeerError(f"it gives no answer: {_status(error)}") from error


def _code(address: str, token: str) -> int:
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        answer = call(check_request(token), timeout=CALL_SECONDS)
    try:
        return int(CheckResponse.FromString(answer).status.code)
    except DecodeError as error:
        raise PeerError("its answer is no CheckResponse") from error


def _status(error: Any) -> str:
    return str(error.code().name)


def _await(process: subprocess.Popen[bytes], address: str, said: Path) -> None:
    token, deadline = signing_key().sign(claims()), time.monotonic() + START_SECONDS
    while process.poll() is None:
        try:
            _code(address, token)
        except grpc.RpcError as error:
            if time.monotonic() > deadline:
                raise PeerError(f"it gives no answer within {START_SECONDS:.0f} s: {_status(error)}") from error
            time.sleep(0.05)
        else:
            return
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - _MAX_SAID))
        last = ascii(file.read().decode(errors="replace").strip())
    raise PeerError(f"it ended with {process.returncode}: {last}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
