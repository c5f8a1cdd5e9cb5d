"""The issuer does whatever it likes under load, and no good token is called bad."""

import enum
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest

from authz.demo.issuer.signing import SigningKey
from tests.chaos.load import Load
from tests.chaos.site import site
from tests.doubles import jwks, m2m_claims

Report = Callable[[Load], None]


class Mood(enum.Enum):
    UP = "up"
    DOWN = "down"
    SLOW = "slow"
    FLAPPING = "flapping"


class FickleIssuer:
    """Publishes keys, as it is in the mood to; a context manager."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.mood = Mood.UP
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = outer.answer()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/jwks"

    def answer(self) -> tuple[int, bytes]:
        self.requests += 1
        if self.mood is Mood.SLOW:
            time.sleep(0.5)
        if self.mood is Mood.DOWN or (self.mood is Mood.FLAPPING and self.requests % 2):
            return 503, b""
        return 200, json.dumps(jwks(*self.keys)).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def issuer(ec_key: SigningKey) -> Iterator[FickleIssuer]:
    with FickleIssuer(ec_key) as issuer:
        yield issuer


def signed(key: SigningKey) -> str:
    return key.sign(m2m_claims(time.time(), exp=int(time.time()) + 3600))


def test_good_tokens_are_allowed_whatever_the_issuer_does(
    tmp_path: Path, issuer: FickleIssuer, token: str, rounds: int, report: Report
) -> None:
    stranger = signed(SigningKey.generate("stranger", algorithm="ES256"))
    with site(tmp_path, ("--jwks-url", issuer.url), "grpcio", f"unix:{tmp_path}/authz.sock") as workers:
        # Strangers, whose keys nobody knows, have the issuer asked all the time.
        with Load(workers.url, lambda: token) as load, Load(workers.url, lambda: stranger, clients=2) as strangers:
            for _ in range(rounds):
                for mood in (Mood.DOWN, Mood.SLOW, Mood.FLAPPING, Mood.UP):
                    issuer.mood = mood
                    load.more(200)
                issuer.mood = Mood.DOWN
                # Successors would have no keys, so there are none.
                workers.program.send(signal.SIGHUP)
                workers.program.await_event("successor_unable")
        report(load)

    assert load.failures == 0
    assert set(strangers.counts) <= {"401", "503"}


def test_tokens_of_new_keys_are_never_called_bad(
    tmp_path: Path, issuer: FickleIssuer, token: str, rounds: int, report: Report
) -> None:
    current = [token]
    with site(tmp_path, ("--jwks-url", issuer.url), "grpcio", f"unix:{tmp_path}/authz.sock") as workers:
        with Load(workers.url, lambda: current[0]) as load:
            for number in range(rounds):
                load.more(200)
                key = SigningKey.generate(f"new-{number}", algorithm="ES256")
                issuer.mood = (Mood.SLOW, Mood.FLAPPING)[number % 2]
                issuer.keys = [*issuer.keys[-1:], key]
                current[0] = signed(key)
                load.more(200)
                if number + 1 < rounds:
                    # An issuer is asked for unknown keys twice in half a minute, and not more.
                    over = time.monotonic() + 31
                    load.until(lambda over=over: time.monotonic() > over)
        report(load)

    # Undecided is what a token may be while its key cannot be fetched.
    assert set(load.counts) <= {"200", "503"}
