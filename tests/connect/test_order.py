"""When a verdict is made, and what becomes of an application whose interceptors are in another order."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from authz import ANONYMOUS, Authorizer, ConfigError, Policy, Verifier, current_principal
from authz.connect import interceptors, interceptors_sync
from authz.demo.issuer.signing import SigningKey
from tests.connect.client import CONNECT, CONNECT_HTTP2, bearer
from tests.connect.conftest import OTHER, Serve, Site
from tests.connect.servers import Server
from tests.connect.service import KINDS, PUBLIC, SERVICE
from tests.doubles import CLIENT, ORG, PATIENCE, FakeIssuer, ManualClock, m2m_claims

SHUT = {"name": "shut", "allow_rules": [{"name": "none", "source": {"organizations": ["org_other"]}}]}
BOTH = pytest.mark.parametrize("server", [Server.UVICORN, Server.WERKZEUG], ids=lambda it: it.name)


class Judged:
    """Another's interceptor that learns when a call has been admitted, before its request is read."""

    def __init__(self) -> None:
        self.calls = threading.Semaphore(0)

    async def on_start(self, _ctx: Any) -> None:
        self.calls.release()

    async def on_end(self, _token: None, _ctx: Any, _error: Exception | None, /) -> None:
        """Do nothing."""


class JudgedSync:
    """The same for threads."""

    def __init__(self) -> None:
        self.calls = threading.Semaphore(0)

    def on_start_sync(self, _ctx: Any, /) -> None:
        self.calls.release()

    def on_end_sync(self, _token: None, _ctx: Any, _error: Exception | None, /) -> None:
        """Do nothing."""


class Slow:
    """A client that sends its headers long before its body."""

    def __init__(self, site: Site, kind: str, token: str, service: str = SERVICE) -> None:
        message = site.order(note="hello").SerializeToString()
        is_unary = kind == "unary"
        self._body = message if is_unary else bytes(1) + len(message).to_bytes(4) + message
        content_type = "application/proto" if is_unary else "application/connect+proto"
        head = (
            f"POST /{service}/{kind} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\n"
            f"authorization: Bearer {token}\r\ncontent-length: {len(self._body)}\r\n\r\n"
        )
        self._connection = socket.create_connection(("127.0.0.1", site.port), PATIENCE)
        self._connection.sendall(head.encode())

    def finish(self, *, with_body: bool = True) -> str:
        """Send the body, and return the answer."""
        with self._connection as connection:
            if with_body:
                connection.sendall(self._body)
            found = bytearray()
            while part := connection.recv(1 << 16):
                found += part
        return found.decode("latin-1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_refused_before_its_body_comes(serve: Serve, kind: str) -> None:
    site = serve()
    answer = Slow(site, kind, "forged").finish(with_body=False)

    assert '"code": "unauthenticated"' in answer
    assert site.witness.sights == []


# ---- What changes until the request comes ----

ORDERS: dict[str, tuple[Callable[[Authorizer], None], str]] = {
    "suspended": (lambda it: it.suspend(org_id=ORG), "organization_suspended"),
    "revoked": (lambda it: it.revoke(client_id=CLIENT), "token_inactive"),
    "policy": (lambda it: it.replace_policy(Policy.from_document(SHUT)), "policy_denied"),
}


@pytest.fixture
def begin(serve: Serve) -> Callable[..., tuple[Site, Callable[[str, str], Slow]]]:
    """Return a function that starts a server, and one that begins a call and returns when it has been admitted."""

    def started(server: Server, **options: Any) -> tuple[Site, Callable[[str, str], Slow]]:
        judged = Judged() if server.is_asgi else JudgedSync()
        site = serve(server, chain=lambda ours: (ours[0], judged, ours[1]), **options)

        def call(kind: str, token: str) -> Slow:
            slow = Slow(site, kind, token)
            assert judged.calls.acquire(timeout=PATIENCE)
            return slow

        return site, call

    return started


@BOTH
@pytest.mark.parametrize("kind", ["unary", "server_stream"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_is_ordered_before_the_request_comes_is_in_force_for_it(
    begin: Any, server: Server, kind: str, order: str, token: str
) -> None:
    site, call = begin(server)
    slow = call(kind, token)
    act, reason = ORDERS[order]
    act(site.authorizer)
    answer = slow.finish()

    assert '"details"' in answer
    assert site.witness.sights == []
    assert site.told == [("decision", reason, ORG)]


@BOTH
@pytest.mark.parametrize("kind", ["unary", "server_stream"])
def test_a_token_that_expires_before_the_request_comes_has_expired(
    begin: Any, server: Server, kind: str, token: str, clock: ManualClock
) -> None:
    site, call = begin(server)
    slow = call(kind, token)
    clock.advance(311)
    site.authorizer.streams.expire()
    slow.finish()

    assert (site.witness.sights, site.told) == ([], [("decision", "token_expired", ORG)])


@BOTH
def test_a_key_that_is_taken_back_before_the_request_comes_is_none(  # noqa: PLR0917 - some of them are fixtures
    begin: Any,
    server: Server,
    new_verifier: Callable[..., Verifier],
    issuer: FakeIssuer,
    other_key: SigningKey,
    token: str,
) -> None:
    verifier = new_verifier(transport=issuer.transport)
    verifier.warm_up()
    site, call = begin(server, judge=Authorizer(verifier))
    slow = call("unary", token)
    issuer.keys = [other_key]
    verifier.verify(other_key.sign(m2m_claims()))
    slow.finish()

    assert (site.witness.sights, site.told) == ([], [("decision", "key_not_found", ORG)])


@BOTH
def test_a_request_that_cannot_be_parsed_was_admitted_all_the_same(begin: Any, server: Server, token: str) -> None:
    site, call = begin(server)
    slow = call("unary", token)
    slow._body = b"\xff" * len(slow._body)  # noqa: SLF001 - of the same length
    answer = slow.finish()

    assert "invalid_argument" in answer
    assert (site.witness.sights, site.told) == ([], [("decision", "", ORG)])


# ---- Other interceptors ----


class Seeing:
    """Another's interceptor that notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def look(self, request: Any, ctx: Any) -> None:
        try:
            principal: Any = current_principal()
        except LookupError:
            principal = ANONYMOUS
        self.seen.append((getattr(request, "note", ""), principal.org_id, ctx.request_headers.get("x-org-id")))

    async def intercept_unary(self, call_next: Any, request: Any, ctx: Any) -> Any:
        self.look(request, ctx)
        return await call_next(request, ctx)

    def intercept_unary_sync(self, call_next: Any, request: Any, ctx: Any) -> Any:
        self.look(request, ctx)
        return call_next(request, ctx)


@BOTH
def test_an_interceptor_behind_ours_sees_the_caller(serve: Serve, server: Server, token: str) -> None:
    seeing = Seeing()
    site = serve(server, chain=lambda ours: (*ours, seeing))
    site.ask("unary", headers=bearer(token, x_org_id=OTHER))
    site.ask("unary", headers={"x-org-id": OTHER})
    site.ask("unary", headers={"x-org-id": OTHER}, service=PUBLIC)

    assert seeing.seen == [("hello", ORG, ORG), ("hello", "", None)]


@BOTH
def test_an_interceptor_before_ours_sees_what_has_not_been_judged(serve: Serve, server: Server, token: str) -> None:
    """Then the body is read and parsed before the verdict, which is the same."""
    seeing = Seeing()
    site = serve(server, chain=lambda ours: (seeing, *ours))
    refused = site.ask("unary", headers={"x-org-id": OTHER})
    served = site.ask("unary", headers=bearer(token))

    assert seeing.seen == [("hello", "", OTHER), ("hello", "", None)]
    assert (refused.reason, served.notes) == ("TOKEN_MISSING", [ORG])
    assert len(site.witness.sights) == 1


@pytest.mark.parametrize("server", [Server.HYPERCORN, Server.WAITRESS], ids=lambda it: it.name)
@pytest.mark.parametrize(
    "chain", [lambda ours: ours[1:], lambda ours: ours[::-1]], ids=["the-second-alone", "the-other-way-round"]
)
def test_without_a_verdict_no_handler_runs(
    serve: Serve, server: Server, chain: Any, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = serve(server, chain=chain)
    way = CONNECT_HTTP2 if server is Server.HYPERCORN else CONNECT
    for kind in KINDS:
        for service in (SERVICE, PUBLIC):
            assert site.ask(kind, way, headers=bearer(token), service=service).reason == "INTERNAL"

    assert (site.witness.sights, site.witness.notes) == ([], [])
    assert {reason for _, reason, _ in site.told} == {"internal"}
    assert "NoVerdictError" in caplog.text


# ---- Construction ----


@pytest.mark.parametrize("build", [interceptors, interceptors_sync])
def test_what_cannot_work_is_said_at_once(build: Any, verifier: Verifier) -> None:
    authorizer = Authorizer(verifier)
    for judge, options, message in (
        ("judge", {}, "a Verifier or an Authorizer is needed, not str"),
        (authorizer, {"public_methods": ["/a.B/C"]}, "give them to the Authorizer"),
        (verifier, {"public_methods": ["a.B/C"]}, "public_methods: 'a.B/C' is not a full method name"),
        (verifier, {"stream_expiry": "sometimes"}, "stream_expiry: 'sometimes' must be token or never"),
        (verifier, {"grace": -1}, "grace: -1 is not a number of seconds"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(judge, **options)


@pytest.mark.parametrize("build", [interceptors, interceptors_sync])
def test_a_verifier_alone_is_enough(build: Any, verifier: Verifier) -> None:
    assert len(build(verifier, public_methods=["/a.B/C"])) == 2


def test_without_connectrpc_the_extra_is_named() -> None:
    program = """
import sys
sys.modules["connectrpc"] = None
try:
    import authz.connect
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "authz.connect needs the extra 'connect': pip install 'grpc-org-authz[connect]'\n"


def test_a_client_does_not_load_what_decides_calls() -> None:
    program = "import sys; from authz.connect import bearer_interceptors; print('authz.judge' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
