"""What operators and orchestrators learn by HTTP while the server runs."""

import asyncio
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc
import httpx2
import pytest

from authz.demo.issuer.signing import SigningKey
from authz.server.operations import probes
from authz.server.operations.exposition import Format
from tests import programs
from tests.doubles import AUDIENCE, ISSUER, eventually, jwks
from tests.envoy.check.messages import in_headers
from tests.loopback import unreachable
from tests.programs import Program
from tests.server.serving.serving import CHECK, LOOPBACK, KeyServer

SERVE = ("serve", "--issuer", ISSUER, "--audience", AUDIENCE, "--algorithms", "ES256", "--log-format", "json")


class Probed:
    """A server and its probes; a context manager.

    Args:
        program: the server, which has just been started.

    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.client = httpx2.Client(
            base_url=f"http://{program.await_event('probes')['address']}", trust_env=False, timeout=programs.PATIENCE
        )
        self.address: str = program.await_event("listening")["addresses"][0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ready(self) -> tuple[int, object]:
        answer = self.client.get("/readyz")
        return answer.status_code, answer.json()


@pytest.fixture
def probed(tmp_path: Path, ec_key: SigningKey) -> Iterator[Probed]:
    """Return a server that has its keys."""
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--http-listen", LOOPBACK)
    with Program(*SERVE, *flags, folder=tmp_path) as program, Probed(program) as probed:
        program.await_event("health", status="SERVING")
        yield probed


def test_server_with_its_keys_is_alive_and_ready(probed: Probed) -> None:
    alive = probed.client.get("/healthz")

    assert (alive.status_code, alive.json()) == (200, {"alive": True})
    assert probed.ready() == (200, {"ready": True})


def test_server_with_a_thread_that_hangs_is_not_alive() -> None:
    hung = [False]

    async def ask() -> tuple[int, object]:
        transport = httpx2.ASGITransport(probes.app(lambda: "", lambda _: b"", is_hung=lambda: hung[0]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get("/healthz")
            return answer.status_code, answer.json()

    before = asyncio.run(ask())
    hung[0] = True

    assert (before, asyncio.run(ask())) == ((200, {"alive": True}), (503, {"alive": False}))


def test_figures_are_made_once_for_all_who_scrape() -> None:
    made: list[int] = []

    def text(_form: Format) -> bytes:
        made.append(threading.get_ident())
        return b"figures"

    async def scrape() -> set[tuple[int, bytes]]:
        transport = httpx2.ASGITransport(probes.app(lambda: "", text))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answers = await asyncio.gather(*(client.get("/metrics") for _ in range(16)))
        return {(answer.status_code, answer.content) for answer in answers}

    assert asyncio.run(scrape()) == {(200, b"figures")}
    assert len(made) <= 2
    assert threading.get_ident() not in made


def test_server_without_keys_is_alive_and_says_what_it_lacks(tmp_path: Path, ec_key: SigningKey) -> None:
    with KeyServer() as keys:
        flags = ("--jwks-url", keys.url, "--listen", LOOPBACK, "--http-listen", LOOPBACK)
        with Program(*SERVE, *flags, folder=tmp_path) as program, Probed(program) as probed:
            program.await_event("health", status="NOT_SERVING")
            alive, unready = probed.client.get("/healthz").status_code, probed.ready()
            keys.release(ec_key)
            program.await_event("health", status="SERVING")
            ready = probed.ready()

    assert (alive, unready) == (200, (503, {"ready": False, "reason": "key_set_unavailable", "cause": "no usable key"}))
    assert ready == (200, {"ready": True})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_server_whose_keys_cannot_be_had_says_why(tmp_path: Path, workers: str) -> None:
    flags = ("--listen", LOOPBACK, "--http-listen", LOOPBACK, "--workers", workers)
    with (
        unreachable() as url,
        Program(*SERVE, *flags, "--jwks-url", url, folder=tmp_path) as program,
        Probed(program) as probed,
    ):
        refused = {"ready": False, "reason": "key_set_unavailable", "cause": "refused"}

        assert eventually(lambda: probed.ready() == (503, refused))  # a worker's word takes a moment to arrive


def test_server_that_drains_is_not_ready_and_still_answers(tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--http-listen", LOOPBACK, "--drain", "3600")
    with Program(*SERVE, *flags, folder=tmp_path) as program, Probed(program) as probed:
        program.await_event("health", status="SERVING")
        program.send(signal.SIGTERM)
        program.await_event("health", status="NOT_SERVING")
        unready = probed.ready()
        with grpc.insecure_channel(probed.address) as channel:
            answer = channel.unary_unary(CHECK)(in_headers().SerializeToString(), timeout=programs.PATIENCE)
        # Ctrl-C has no hour to wait.
        program.send(signal.SIGINT)

        assert program.wait() == 0
    assert (unready, bool(answer)) == ((503, {"ready": False, "reason": "stopping"}), True)


def test_metrics_are_those_of_the_checks(probed: Probed) -> None:
    with grpc.insecure_channel(probed.address) as channel:
        channel.unary_unary(CHECK)(in_headers().SerializeToString(), timeout=programs.PATIENCE)
    answer = probed.client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'authz_checks_total{reason="token_missing",verdict="denied"} 1.0' in answer.text
    assert 'authz_ready{worker="0"} 1.0' in answer.text
    assert re.search(r'authz_build_info\{engine="grpcio",version="[\d.]+"\} 1.0', answer.text)
    assert re.search(r'process_resident_memory_bytes\{worker="0"\} [\d.e+]+', answer.text)


def test_metrics_are_those_of_openmetrics_for_a_client_that_wants_them(probed: Probed) -> None:
    answer = probed.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0, */*;q=0.1"})

    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["vary"] == "accept"
    assert answer.text.endswith("\n# EOF\n")
    assert 'authz_ready{worker="0"} 1.0' in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_are_for_reading_only(probed: Probed, path: str) -> None:
    answered = {method: probed.client.request(method, path).status_code for method in ("HEAD", "POST", "DELETE")}

    assert answered == {"HEAD": 200, "POST": 405, "DELETE": 405}


def test_nothing_else_is_there(probed: Probed) -> None:
    assert {probed.client.get(path).status_code for path in ("/", "/metrics/", "/docs", "/../etc/passwd")} <= {404, 307}


def test_hangup_does_not_end_the_server(probed: Probed) -> None:
    probed.program.send(signal.SIGHUP)
    probed.program.await_event("hung_up")

    assert probed.ready()[0] == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "unix:probes.sock", "nowhere.invalid:9192", "203.0.113.1:9192"])
def test_address_that_cannot_be_had_is_refused(tmp_path: Path, ec_key: SigningKey, address: str) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--http-listen", address)
    done = programs.run(*SERVE, *flags, folder=tmp_path)

    assert (done.returncode, done.stderr.startswith("authz: http_listen: ")) == (2, True)


def test_port_of_another_is_refused(tmp_path: Path, ec_key: SigningKey) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    with socket.create_server(("127.0.0.1", 0)) as other:
        flags = ("--jwks", "jwks.json", "--listen", LOOPBACK, "--http-listen", f"127.0.0.1:{other.getsockname()[1]}")
        done = programs.run(*SERVE, *flags, folder=tmp_path)

    assert (done.returncode, "Address already in use" in done.stderr) == (2, True)
