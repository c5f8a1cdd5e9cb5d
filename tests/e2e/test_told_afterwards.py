"""Every call through a real Envoy is in the decision log once: told by the judge, or afterwards by Envoy."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.envoy.config.formats import Ingress, bootstrap
from authz.server.serving.server import EngineName
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, PATIENCE, jwks
from tests.e2e.mesh import grpc_echo
from tests.interceptors.servers import channel_to
from tests.programs import Program

METHODS = [f"/tests.Told/Call{number}" for number in range(4)]


class Site:
    """Envoy, and the authorization server that it asks or tells.

    Args:
        folder: for sockets and logs.
        key: signs good tokens.
        flags: more flags of the server.
        workers: how many processes the server has.

    """

    def __init__(self, folder: Path, key: SigningKey, *flags: str, workers: int = 1) -> None:
        self._folder, self._workers = folder, workers
        (folder / "jwks.json").write_text(json.dumps(jwks(key)), encoding="utf-8")
        verifier = ("--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--jwks", "jwks.json")
        listen = ("--listen", "unix:authz.sock", "--access-log-listen", "unix:told.sock", "--workers", str(workers))
        remember = ("--remember", "60", "--xds", f"unix:{folder}/xds.sock")
        log = ("--decision-log", "all", "--decision-log-file", "decisions.jsonl")
        self._command = ("serve", *verifier, *listen, *remember, *log, *flags)
        self._running = contextlib.ExitStack()
        self.made: Counter[str] = Counter()
        """How many calls there were of each method."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            self.start_server()
            starting.callback(self.stop_server)
            upstream = starting.enter_context(grpc_echo())
            self._envoy = Envoy(self._config(upstream), self._folder)
            starting.callback(self._envoy.stop)
            self._channel = starting.enter_context(channel_to(self._envoy.addresses()["ingress"]))
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start_server(self) -> None:
        self._server = Program(*self._command, folder=self._folder)
        self._server.__enter__()
        self._server.await_event("listening")

    def stop_server(self) -> None:
        self._server.__exit__(None, None, None)

    def _sockets(self, name: str) -> list[str]:
        path = f"unix:{self._folder}/{name}.sock"
        return [path] if self._workers == 1 else [f"{path}.{number}" for number in range(self._workers)]

    def _config(self, upstream: str) -> dict[str, Any]:
        ingress = Ingress(
            authz=self._sockets("authz"),
            access_log=self._sockets("told"),
            xds=f"unix:{self._folder}/xds.sock",
            listen="127.0.0.1:0",
            admin="127.0.0.1:0",
            upstream=upstream,
        )
        return bootstrap(ingress).data

    def call(self, token: str, rounds: int) -> None:
        """Make calls of a few methods, again and again."""
        for _ in range(rounds):
            for method in METHODS:
                self._try(method, [("authorization", f"Bearer {token}")])
                self.made[method] += 1

    def _try(self, method: str, metadata: list[tuple[str, str]]) -> None:
        # For a second Envoy does not know that there is a server again, and refuses calls itself.
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                self._channel.unary_unary(method)(b"", metadata=metadata, timeout=PATIENCE)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - any other is a failure
                time.sleep(0.02)
            else:
                return
        pytest.fail("Envoy finds no server")

    def wait_for_log(self) -> list[dict[str, Any]]:
        """Return the lines of the decision log, once there are as many as calls."""
        log = self._folder / "decisions.jsonl"

        def lines() -> list[dict[str, Any]]:
            complete = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
            return [json.loads(line) for line in complete]

        found: list[dict[str, Any]] = self._envoy.wait_for(lambda: len(told := lines()) >= self.made.total() and told)
        return found

    def check_log(self) -> None:
        """Check that each call is there once, and that Envoy has repeated answers."""
        lines = self.wait_for_log()
        assert Counter(line["method"] for line in lines) == self.made
        callers = {(line["organization"], line["client"], line["subject"], line["verdict"]) for line in lines}
        assert callers == {(ORG, CLIENT, CLIENT, "allowed")}
        assert Counter(line["source"] for line in lines)["envoy"] > len(lines) / 4


@pytest.fixture
def token(sign: Callable[..., str]) -> str:
    return sign()


@pytest.fixture
def site(tmp_path: Path, ec_key: SigningKey, engine: EngineName) -> Iterator[Site]:
    with Site(tmp_path, ec_key, "--engine", engine) as site:
        yield site


def test_every_call_is_told_once_also_after_the_server_was_replaced(site: Site, token: str) -> None:
    site.call(token, 25)
    site.check_log()

    site.stop_server()
    site.start_server()
    site.call(token, 25)

    site.check_log()


def test_several_workers_are_told_each_call_once(tmp_path: Path, ec_key: SigningKey, token: str) -> None:
    with Site(tmp_path, ec_key, workers=2) as site:
        site.call(token, 25)

        site.check_log()
