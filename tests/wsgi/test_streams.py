"""Streamed responses end with the token that admitted them, and when something is withdrawn: between two parts."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from authz import Authorizer, Decision, Policy, current_principal
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Token
from tests.asgi.test_streams import ENDINGS, METERED, expire
from tests.doubles import ORG, PATIENCE, ManualClock, eventually
from tests.http.client import Connection, ask, bearer
from tests.http.serving import WSGI_SERVERS
from tests.judge.held_back import hold_back
from tests.wsgi.conftest import Guard, Serve

CHUNKING = [name for name in WSGI_SERVERS if name != "wsgiref"]
"""Those that send a body of unknown length in chunks; of the others it ends with the connection."""
THREADED = [name for name in WSGI_SERVERS if name != "gunicorn"]


class Parts:
    """An application whose response goes on when it is told to, and which notes what becomes of it."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.callers: list[str] = []
        self.go_on, self.finish = threading.Semaphore(0), threading.Event()
        self.before: Callable[[], object] = list

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        how = getattr(self, environ["PATH_INFO"].strip("/").replace("-", "_"))
        return how(start_response)  # type: ignore[no-any-return]

    def events(self, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self._parts()

    def late(self, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield from self._parts()

    def known_length(self, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5000000")])
        return self._parts()

    def after_an_empty_part(self, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b""
        yield from self._parts()

    def written(self, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            for part in self._parts():
                write(part)
        except OSError:
            self.outcomes.append("told by write")
            raise
        return []

    def whole(self, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"whole"]

    def fails(self, _start_response: Any) -> Iterable[bytes]:
        raise RuntimeError

    def fails_late(self, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"tick\n"
        raise RuntimeError

    def _parts(self) -> Iterator[bytes]:
        try:
            self.before()
            while not self.finish.is_set():
                self.callers.append(current_principal().org_id)
                yield b"tick\n"
                assert self.go_on.acquire(timeout=PATIENCE)
        finally:
            self.outcomes.append("over")


@pytest.fixture
def parts() -> Parts:
    return Parts()


STREAMS = ["/events", "/late", "/known-length", "/after-an-empty-part", "/written"]


def first_part(connection: Connection, path: str) -> bytes:
    """Read the first part of a response, with the framing of its body."""
    if path == "/known-length":
        return connection.rest(5)
    return connection.part() or b""


@pytest.mark.parametrize("server", CHUNKING)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("path", STREAMS)
def test_streamed_response_ends(
    serve: Serve,
    judge: Authorizer,
    parts: Parts,
    token: Token,
    clock: ManualClock,
    *,
    told: list[Decision],
    server: str,
    ending: str,
    path: str,
) -> None:
    end, reason = ENDINGS[ending]
    with Connection(serve(AuthzMiddleware(parts, judge), server)) as connection:
        connection.ask(path, bearer(token()))
        assert connection.head()[0] == 200
        assert first_part(connection, path) == b"tick\n"
        assert len(judge.streams) == 1

        end(judge, clock)
        parts.go_on.release()

        assert connection.rest() == b""
    assert eventually(lambda: "over" in parts.outcomes)
    assert eventually(lambda: len(judge.streams) == 0)
    assert ("told by write" in parts.outcomes) is (path == "/written")
    assert set(parts.callers) == {ORG}
    assert [(each.event, each.refusal and each.refusal.reason) for each in told] == [
        ("decision", None),
        ("stream_ended", reason),
    ]


@pytest.mark.parametrize("server", THREADED)
def test_no_part_passes_before_a_response_of_thousands_has_been_told(
    serve: Serve, judge: Authorizer, parts: Parts, token: Token, server: str
) -> None:
    with Connection(serve(AuthzMiddleware(parts, judge), server)) as connection:
        connection.ask("/known-length", bearer(token()))
        connection.head()
        assert connection.rest(5) == b"tick\n"
        hold_back(judge)
        judge.revoke(org_id=ORG)
        parts.go_on.release()

        assert connection.rest() == b""


@pytest.mark.parametrize("server", WSGI_SERVERS)
def test_end_of_a_stream_is_no_error_to_complain_of(
    serve: Serve,
    judge: Authorizer,
    parts: Parts,
    token: Token,
    *,
    server: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options = {"loglevel": "warning"} if server.startswith("gunicorn") else {}
    good, port = token(), serve(AuthzMiddleware(parts, judge), server, **options)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    logging.getLogger("gunicorn.error").addHandler(caplog.handler)
    with Connection(port) as connection:
        connection.ask("/known-length", bearer(good))
        connection.head()
        assert connection.rest(5) == b"tick\n"
        judge.revoke(org_id=ORG)
        parts.go_on.release()
        assert connection.rest() == b""
    logging.getLogger("gunicorn.error").removeHandler(caplog.handler)

    # Where a machine is busy, waitress says that requests wait for its threads.
    complaints = [each for each in caplog.records if not each.name.startswith(("authz", "waitress.queue"))]
    # It tells of every exception but its own.
    assert [record.name for record in complaints] == (["waitress"] if server == "waitress" else [])
    assert all(record.exc_info and str(record.exc_info[1]).endswith("the request is over") for record in complaints)
    assert good not in caplog.text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("path", [path for path in STREAMS if path != "/after-an-empty-part"])
def test_stream_that_may_not_begin_any_more_is_refused_instead(
    serve: Serve, server: str, judge: Authorizer, parts: Parts, token: Token, *, told: list[Decision], path: str
) -> None:
    """Such as that of an application that took long to make its first part."""
    parts.before = lambda: judge.revoke(org_id=ORG)

    reply = ask(serve(AuthzMiddleware(parts, judge), server), path, bearer(token()))

    assert (reply.status, reply.reason, reply.is_whole) == (401, "TOKEN_INACTIVE", True)
    assert [each.event for each in told] == ["decision", "stream_ended"]
    assert eventually(lambda: "over" in parts.outcomes)
    assert len(judge.streams) == 0


@pytest.mark.parametrize("server", THREADED)
@pytest.mark.parametrize("path", STREAMS)
def test_stream_too_many_is_refused_before_it_begins(
    serve: Serve, new_judge: NewJudge, parts: Parts, token: Token, told: list[Decision], *, server: str, path: str
) -> None:
    judge = new_judge(policy=Policy.from_document(METERED))
    port = serve(AuthzMiddleware(parts, judge), server)
    with Connection(port) as first:
        first.ask("/events", [*bearer(token()), ("connection", "close")])
        assert first.head()[0] == 200
        assert eventually(lambda: len(judge.streams) == 1)

        refused = ask(port, path, bearer(token()))
        whole = ask(port, "/whole", bearer(token()))

        assert (refused.status, refused.reason, whole.status) == (429, "QUOTA_EXCEEDED", 200)
        # An empty part is the beginning too: the rest is not asked for.
        assert eventually(lambda: "over" in parts.outcomes or path == "/after-an-empty-part")
        parts.finish.set()
        parts.go_on.release()
        first.rest()
    assert eventually(lambda: len(judge.streams) == 0)
    assert ask(port, path, bearer(token())).status == 200
    assert [each.verdict for each in told] == ["allowed", "denied", "allowed", "allowed"]


def test_stream_without_a_caller_goes_on(guard: Guard, judge: Authorizer, parts: Parts, clock: ManualClock) -> None:
    with Connection(guard(parts, public_paths=["/events"])) as connection:
        connection.ask("/events", [])
        connection.head()
        expire(judge, clock)
        parts.go_on.release(9)

        assert [connection.part() for _ in range(10)] == [b"tick\n"] * 10
        parts.finish.set()
        parts.go_on.release()


@pytest.mark.parametrize(
    "options", [{"stream_expiry": "never"}, {"stream_expiry": {"/events": "never"}}, {"grace": 1e6}]
)
def test_stream_outlives_its_token_where_that_is_asked_for(
    guard: Guard, judge: Authorizer, parts: Parts, token: Token, clock: ManualClock, *, options: dict[str, Any]
) -> None:
    with Connection(guard(parts, **options)) as connection:
        connection.ask("/events", bearer(token()))
        connection.head()
        expire(judge, clock)
        parts.go_on.release(9)
        assert [connection.part() for _ in range(10)] == [b"tick\n"] * 10

        judge.revoke(org_id=ORG)
        parts.go_on.release()
        assert connection.part() is None


@pytest.mark.parametrize("path", STREAMS)
def test_client_that_leaves_closes_the_stream(
    serve: Serve, server: str, judge: Authorizer, parts: Parts, token: Token, *, told: list[Decision], path: str
) -> None:
    with Connection(serve(AuthzMiddleware(parts, judge), server)) as connection:
        connection.ask(path, bearer(token()))
        connection.head()
        assert eventually(lambda: len(judge.streams) == 1)

    def goes_on() -> bool:
        parts.go_on.release()
        return "over" in parts.outcomes

    assert eventually(goes_on)
    assert eventually(lambda: len(judge.streams) == 0)
    assert [each.event for each in told] == ["decision"]


def test_caller_of_one_request_is_not_that_of_the_next(
    serve: Serve, judge: Authorizer, parts: Parts, token: Token
) -> None:
    """On the one thread of the server, with streams that were ended, left, refused, and finished."""
    middleware, seen = AuthzMiddleware(parts, judge, public_paths=["/public"]), []

    def watched(environ: Any, start_response: Any) -> Any:
        with contextlib.suppress(LookupError):
            seen.append(current_principal())
        return middleware(environ, start_response)

    port = serve(watched, "gunicorn")
    for path in (*STREAMS, "/whole", "/fails", "/fails-late"):
        with Connection(port) as connection:
            connection.ask(path, bearer(token()))
            connection.head()
            judge.revoke(org_id=ORG)
            parts.go_on.release(2)
            connection.rest()
        judge.reinstate(org_id=ORG)

    assert ask(port, "/whole").status == 401
    assert seen == []
    assert eventually(lambda: len(judge.streams) == 0)
