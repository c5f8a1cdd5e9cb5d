"""Stand-ins for the world: a clock moved by hand, a network in memory, an issuer behind it."""

import enum
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from authz.demo.issuer.signing import SigningKey
from authz.runtime.clock import Clock
from authz.runtime.flow import Flow
from authz.runtime.network.transport import HttpResponse, TransportError

NOW = 1_800_000_000.0
ISSUER = "https://acme.authkit.app"
JWKS_URL = "https://acme.authkit.app/oauth2/jwks"
AUDIENCE = "client_01JYENVIRONMENT0000000000A"
ORG = "org_01JYACME000000000000000000"
CLIENT = "client_01JYPARTNER00000000000000A"


PATIENCE = 120.0
"""Seconds after which something that must happen counts as never happening."""


def eventually(condition: Callable[[], object], pause: float = 0.001) -> bool:
    """Return true once ``condition`` holds, which another thread or process brings about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(pause)
    return True


class _Absent(enum.Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT
"""Takes a claim away, where ``None`` is a claim that is null."""


def start_afresh(owner: object) -> None:
    """Have ``owner``, and what it consists of, forget what is the parent's, as in a forked child."""
    for part in (owner, *vars(owner).values()):
        if hasattr(part, "after_fork"):
            part.after_fork()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW
        self._set_forward = 0.0

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def set_forward(self, seconds: float) -> None:
        """Set the time of day, as after a machine was suspended; back if they are negative."""
        self.now += seconds
        self._set_forward += seconds

    @property
    def clock(self) -> Clock:
        # Two scales, so that code which mixes them fails.
        return Clock(lambda: self.now, lambda: self.now - self._set_forward - NOW + 1000.0)


def drive(flow: Flow[Any], clock: ManualClock) -> Any:
    """Finish ``flow`` in no time: where it would wait in vain, the clock advances instead."""
    try:
        wait = next(flow)
        while True:
            if wait.future.done():
                wait = flow.send(wait.future.result())
            else:
                # At this clock's magnitude a float cannot tell microseconds apart.
                clock.advance(max(wait.seconds, 0.001))
                wait = flow.throw(TimeoutError())
    except StopIteration as done:
        return done.value


class Request(NamedTuple):
    method: str
    url: str
    form: Mapping[str, str] | None
    headers: Mapping[str, str] | None


Answer = Callable[[], HttpResponse]


class FakeTransport:
    """The network in memory: notes every request and answers at once, unless it hangs."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.closed = False
        self._failure: Exception | None = None
        self._hangs = False
        self._pending: list[Future[HttpResponse]] = []

    @property
    def fetches(self) -> int:
        return len(self.requests)

    @property
    def pending(self) -> int:
        """How many requests hang."""
        return len(self._pending)

    def up(self) -> None:
        """Let it answer again."""
        self._failure, self._hangs = None, False

    def down(self, failure: Exception | None = None) -> None:
        """Let every request fail."""
        self._failure = failure or TransportError("connect")

    def hang(self) -> None:
        """Let requests wait until :meth:`release`."""
        self._hangs = True

    def release(self) -> None:
        """Answer those who wait, and hang no longer."""
        self._hangs = False
        for future in self.take_over():
            self._settle(future)

    def take_over(self) -> "list[Future[HttpResponse]]":
        """Return those who wait; :meth:`release` will not answer them."""
        waiting, self._pending = self._pending, []
        return waiting

    def fetch(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> "Future[HttpResponse]":
        self.requests.append(Request(method, url, form, headers))
        future: Future[HttpResponse] = Future()
        if self._hangs:
            self._pending.append(future)
        else:
            self._settle(future)
        return future

    def close(self) -> None:
        self.closed = True

    def _settle(self, future: "Future[HttpResponse]") -> None:
        if self._failure is not None:
            future.set_exception(self._failure)
        else:
            future.set_result(self.answer())


class FakeTokenEndpoint:
    """A token endpoint in memory: every token has a number of its own."""

    def __init__(self) -> None:
        self.transport = FakeTransport(self.respond)
        self.changes: dict[str, Any] = {}
        self.issued = 0
        self.works()

    def respond(self) -> HttpResponse:
        if self.body is not None:
            return json_response(self.body, self.status, self.headers)
        self.issued += 1
        answer = {"access_token": f"token-{self.issued}", "expires_in": 300, "token_type": "bearer"}
        return json_response({**answer, **self.changes}, self.status, self.headers)

    def refuses(self, status: int, body: object = b"", **headers: str) -> None:
        """Answer this from now on."""
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def works(self) -> None:
        """Answer with tokens again."""
        self.status, self.body, self.headers = 200, None, {}


class FakeIssuer:
    """An issuer in memory: the keys it publishes, and the network they come through."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.transport = FakeTransport(lambda: json_response(self.jwks()))

    def jwks(self) -> dict[str, Any]:
        return jwks(*self.keys)

    def publishes(self, body: object, status: int = 200) -> None:
        """Answer ``body`` from now on: as it is if it is bytes, else as JSON."""
        self.transport.answer = lambda: json_response(body, status)

    def publishes_keys(self) -> None:
        """Answer its keys again."""
        self.transport.answer = lambda: json_response(self.jwks())


def jwks(*keys: SigningKey) -> dict[str, Any]:
    return {"keys": [key.public_jwk() for key in keys]}


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, headers=headers or {}, body=raw)


def m2m_claims(now: float = NOW, /, **changes: Any) -> dict[str, Any]:
    """Return the payload of a good token as WorkOS documents it, with ``changes`` laid over."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": CLIENT,
        "client_id": CLIENT,
        "org_id": ORG,
        "scope": "ledger:read ledger:write",
        "jti": "01JYTOKEN00000000000000000",
        "iat": int(now),
        "exp": int(now) + 300,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ABSENT}
