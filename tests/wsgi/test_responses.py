"""Which responses are streams, and what PEP 3333 asks of a middleware between a server and an application."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz import ANONYMOUS, Authorizer, Decision, Policy, current_principal
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Token
from tests.asgi.test_streams import METERED
from tests.doubles import ORG
from tests.http.client import ask, bearer
from tests.wsgi.conftest import Guard, Serve
from tests.wsgi.test_middleware import environ_of

Start = Callable[..., Any]


def answering(body: Iterable[bytes], *headers: tuple[str, str], status: str = "200 OK") -> Any:
    """Return an application that answers with this."""

    def app(_environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response(status, list(headers))
        return body

    return app


def begin(*_: Any) -> Any:
    """Begin a response, as a server does that sends nothing."""


@pytest.fixture
def opened(judge: Authorizer) -> list[object]:
    """Return the streams that the judge hears of."""
    opened: list[object] = []
    judge.endings.open = lambda *args: opened.append(args)  # type: ignore[assignment,method-assign,func-returns-value]
    return opened


WHOLE: dict[str, Callable[[], Any]] = {
    "list": lambda: answering([b"body"]),
    "tuple": lambda: answering((b"body",)),
    "nothing": lambda: answering([]),
    "empty generator": lambda: answering(iter(())),
    "all in the first part": lambda: answering(iter([b"body"]), ("Content-Length", "4")),
    "no content": lambda: answering(iter([]), status="204 No Content"),
    "not modified": lambda: answering(iter([]), ("Content-Length", "99"), status="304 Not Modified"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_whole_response_is_no_stream(
    guard: Guard, server: str, opened: list[object], token: Token, *, told: list[Decision], case: str
) -> None:
    reply = ask(guard(WHOLE[case](), server), "/", bearer(token()))

    assert reply.body in (b"", b"body")
    assert opened == []
    assert [each.verdict for each in told] == ["allowed"]


@pytest.mark.parametrize("length", [[], [("Content-Length", "99")]], ids=["unknown", "known"])
def test_answer_to_head_is_no_stream(
    guard: Guard, server: str, opened: list[object], token: Token, length: list[tuple[str, str]]
) -> None:
    for body in ([], iter([])):
        assert ask(guard(answering(body, *length), server), "/", bearer(token()), verb="HEAD").status == 200

    assert opened == []


STREAMED: dict[str, Callable[[], Any]] = {
    "list of two": lambda: answering([b"bo", b"dy"]),
    "list of known length": lambda: answering([b"bo", b"dy"], ("Content-Length", "4")),
    "one part of unknown length": lambda: answering(iter([b"body"])),
    "malformed length": lambda: answering(iter([b"bo", b"dy"]), ("Content-Length", "")),
}


@pytest.mark.parametrize("case", STREAMED)
def test_response_that_may_go_on_is_a_stream(judge: Authorizer, opened: list[object], token: Token, case: str) -> None:
    body = AuthzMiddleware(STREAMED[case](), judge)(environ_of("/", token()), begin)

    assert b"".join(body) == b"body"
    assert len(opened) == 1


def test_server_gets_a_whole_body_as_it_is(judge: Authorizer, token: Token) -> None:
    body = [b"body"]

    assert AuthzMiddleware(answering(body), judge)(environ_of("/", token()), begin) is body


@pytest.mark.parametrize("is_length_known", [True, False])
def test_server_sends_a_file_of_known_length_itself(
    serve: Serve, server: str, judge: Authorizer, token: Token, tmp_path: Path, *, is_length_known: bool
) -> None:
    path, is_file = tmp_path / "file", []
    path.write_bytes(b"0123456789" * 100_000)

    def app(environ: Any, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "1000000")] if is_length_known else [])
        return environ.get("wsgi.file_wrapper", iter)(path.open("rb"))

    middleware = AuthzMiddleware(app, judge)

    def watched(environ: Any, start_response: Start) -> Any:
        body = middleware(environ, start_response)
        wrapper = environ.get("wsgi.file_wrapper")
        is_file.append(wrapper is None or isinstance(body, wrapper))
        return body

    reply = ask(serve(watched, server), "/", bearer(token()))

    assert (len(reply.body), reply.is_whole) == (1_000_000, True)
    # Werkzeug's server has no way to send files.
    assert is_file == [is_length_known or server == "werkzeug"]


def test_error_may_replace_a_response_that_is_not_sent_yet(guard: Guard, server: str, token: Token) -> None:
    def app(_environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("X-Right", "1")])
        try:
            int("no number")
        except ValueError:
            start_response("503 Busy", [("X-Wrong", "1")], sys.exc_info())
        yield b"sorry"

    reply = ask(guard(app, server), "/", bearer(token()))

    assert (reply.status, reply.body) == (503, b"sorry")
    assert (reply.values("x-right"), reply.values("x-wrong")) == ([], ["1"])


def test_error_does_not_replace_what_is_sent(guard: Guard, server: str, token: Token) -> None:
    raised: list[BaseException] = []

    def app(_environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"first"
        try:
            int("no number")
        except ValueError:
            try:
                start_response("503 Busy", [], exc_info=sys.exc_info())
            except ValueError as error:
                raised.append(error)
                raise

    reply = ask(guard(app, server), "/", bearer(token()))

    assert (reply.status, reply.is_whole, len(raised)) == (200, False, 1)


def test_response_that_begins_twice_or_never_is_an_error(judge: Authorizer, token: Token) -> None:
    def twice(_environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        yield b""

    for app in (twice, lambda *_: [b"body"], lambda *_: iter([])):
        with pytest.raises(RuntimeError, match="start_response"):
            b"".join(AuthzMiddleware(app, judge)(environ_of("/", token()), begin))
    assert len(judge.streams) == 0


@pytest.mark.parametrize("is_late", [False, True])
def test_exception_of_the_application_is_the_servers_to_answer(
    guard: Guard, judge: Authorizer, server: str, token: Token, *, told: list[Decision], is_late: bool
) -> None:
    def late(_environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        yield b"first"
        raise ValueError

    def early(_environ: Any, _start_response: Start) -> Iterable[bytes]:
        raise ValueError

    reply = ask(guard(late if is_late else early, server), "/", bearer(token()))

    assert (reply.status, reply.is_whole) == ((200, False) if is_late else (500, True))
    assert [each.verdict for each in told] == ["allowed"]
    assert len(judge.streams) == 0


def test_stream_of_an_application_that_writes_and_then_fails_is_over(
    guard: Guard, judge: Authorizer, server: str, token: Token
) -> None:
    def app(_environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "10")])(b"first")
        assert len(judge.streams) == 1
        raise ValueError

    reply = ask(guard(app, server), "/", bearer(token()))

    assert (reply.status, reply.is_whole) == (200, False)
    assert len(judge.streams) == 0


class Body:
    """A body that notes in which threads it is used, and for whom."""

    def __init__(self) -> None:
        self.used: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[bytes]:
        for part in (b"one", b"two"):
            self._note()
            yield part

    def close(self) -> None:
        self._note()

    def _note(self) -> None:
        self.used.append((threading.current_thread().name, current_principal().org_id))


def on_thread(name: str, do: Callable[[], object]) -> None:
    left: list[object] = []

    def run() -> None:
        do()
        with contextlib.suppress(LookupError):
            left.append(current_principal())

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    assert left == []


def test_every_step_may_be_on_another_thread(judge: Authorizer, token: Token) -> None:
    body, made = Body(), []
    middleware = AuthzMiddleware(answering(body), judge)
    on_thread("a", lambda: made.append(middleware(environ_of("/", token()), begin)))
    response: Any = made[0]
    parts = iter(response)
    on_thread("b", lambda: next(parts))
    on_thread("c", lambda: next(parts))
    assert len(judge.streams) == 1
    on_thread("d", response.close)

    assert body.used == [("b", ORG), ("c", ORG), ("d", ORG)]
    assert len(judge.streams) == 0


def test_response_that_is_never_sent_is_closed(new_judge: NewJudge, token: Token, told: list[Decision]) -> None:
    """Also where it would have been told only once it begins."""
    body, judge = Body(), new_judge(policy=Policy.from_document(METERED))
    response: Any = AuthzMiddleware(answering(body), judge)(environ_of("/", token()), begin)
    assert told == []

    response.close()

    assert [org_id for _, org_id in body.used] == [ORG]
    assert [each.verdict for each in told] == ["allowed"]


def test_stream_is_over_when_it_is_sent_even_if_the_server_forgets_to_close_it(judge: Authorizer, token: Token) -> None:
    response = AuthzMiddleware(answering(iter([b"one", b"two"])), judge)(environ_of("/", token()), begin)

    for _ in response:
        assert len(judge.streams) == 1
    assert len(judge.streams) == 0


def test_caller_of_an_outer_door_is_restored(judge: Authorizer, token: Token) -> None:
    inner = AuthzMiddleware(answering(Body()), judge)
    seen: list[Any] = []

    def outer(_environ: Any, start_response: Start) -> Iterator[bytes]:
        for part in inner(environ_of("/", token()), start_response):
            seen.append(current_principal())
            yield part

    b"".join(AuthzMiddleware(outer, judge, public_paths=["/"])(environ_of("/"), begin))

    assert seen == [ANONYMOUS, ANONYMOUS]
