"""The response to one request, which is ended with its token if it is streamed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from authz.call.principal import Principal
from authz.http.door import HttpDoor
from authz.http.forms import form_of
from authz.http.serving import HttpRequest, OverError
from authz.judge.hearing import Hearing
from authz.runtime.flow import run
from authz.wsgi.answers import refuse
from authz.wsgi.variables import Sorted

T = TypeVar("T")

# RFC 9110 section 6.4.1: they have no body.
_EMPTY = ("204", "304")

_END: Any = object()


class Response(HttpRequest):
    """The response to one request that was admitted.

    It is a stream if its length is not told, or if its first part is not all of it. Only then the judge hears of it,
    just before that part is sent. It ends between two parts: what the application is doing goes on until it has the
    next part, which is not sent.

    The server's ``start_response`` is called for the first part; until then the request may be refused.

    Args:
        door: who was asked.
        hearing: its hearing.
        headers: those that the client has sent.
        start_response: that of the server.

    """

    _start: tuple[Any, ...] = ()
    _send: Callable[[bytes], object] | None = None
    _parts: Iterable[bytes] = ()

    def __init__(self, door: HttpDoor, hearing: Hearing, headers: Sorted, start_response: StartResponse) -> None:
        super().__init__(door, hearing)
        self._headers, self._start_response = headers, start_response

    def run(self, app: WSGIApplication, environ: WSGIEnvironment, principal: Principal) -> Iterable[bytes]:
        """Have ``app`` serve the request; return what the server sends.

        Args:
            app: the application.
            environ: the request.
            principal: who makes it.

        """
        self.admit(principal)
        try:
            self._parts = self._as_caller(app, environ, self.start_response)
        except BaseException as error:
            self.leave()
            if self._refusal is None or not isinstance(error, Exception):
                raise
        else:
            if self._is_whole(environ):
                self._begin(is_stream=False)
                return self._parts
        return self

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Note how the application begins its response; return what it may write the body by.

        Raises:
            RuntimeError: it begins twice.

        """
        start = (status, [*headers]) if exc_info is None else (status, [*headers], exc_info)
        if self._send is not None:
            # It raises what has happened, if anything is sent (PEP 3333, "The start_response() Callable").
            self._send = self._start_response(*start)
        elif self._start and exc_info is None:
            raise RuntimeError("the application calls start_response again without exc_info")
        else:
            self._start = start
        return self.write

    def write(self, part: bytes, /) -> None:
        """Send a part of the body at once, for applications that do not return it.

        Raises:
            OverError: the response must end.

        """
        self._check()
        send = self._send or self._begin(is_stream=self._has_body())
        send(part)

    def interrupt(self) -> None:
        """Do nothing: the next part is not sent."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the parts of the body.

        Raises:
            OverError: the response must end. It breaks off, so that no client takes it for complete.

        """
        try:
            self._check()
            parts = self._as_caller(iter, self._parts)
            while (part := self._as_caller(next, parts, _END)) is not _END:
                if self._send is None:
                    self._begin(is_stream=self._may_go_on(len(part)))
                self._check()
                yield part
            if self._send is None:
                self._begin(is_stream=False)
            self._check()
        except OverError:
            if self._refusal is None or self._send is not None:
                raise
            form, verb = form_of(self._headers.kinds), self._hearing.call.verb
            yield from refuse(self._start_response, self._refusal, form, verb)
        finally:
            self.leave()

    def close(self) -> None:
        """End the request: the server has sent its response, or has given up."""
        try:
            close = getattr(self._parts, "close", None)
            if close is not None:
                self._as_caller(close)
        finally:
            self.leave()

    def _as_caller(self, do: Callable[..., T], *arguments: Any) -> T:
        # Around each step alone: servers may take the next one in another thread, or never.
        entered = self.enter()
        try:
            return do(*arguments)
        finally:
            self.exit(entered)

    def _check(self) -> None:
        if self.must_end:
            raise OverError

    def _begin(self, *, is_stream: bool) -> Callable[[bytes], object]:
        if not self._start:
            raise RuntimeError("the application sends a part before it has called start_response")
        if is_stream:
            run(self.opening())
        self.tell()
        self._send = send = self._start_response(*self._start)
        # Of an exception that the application has answered, frames and all that they hold go with it.
        self._start = self._start[:2]
        return send

    def _has_body(self) -> bool:
        return bool(self._start) and self._hearing.call.verb != "HEAD" and not self._start[0].startswith(_EMPTY)

    def _may_go_on(self, size: int) -> bool:
        """Say whether parts may follow a first one of ``size`` bytes."""
        if not self._has_body():
            return False
        length = self._length()
        return length is None or size < length

    def _length(self) -> int | None:
        told = [value for name, value in self._start[1] if name.lower() == "content-length"]
        return int(told[0]) if told and told[0].isascii() and told[0].isdigit() else None

    def _is_whole(self, environ: WSGIEnvironment) -> bool:
        """Say whether the response is no stream, and its parts need nothing of the application any more.

        Servers then get them as they are, and send files by the operating system (``wsgi.file_wrapper``).
        """
        if not self._start or self._send is not None:
            return False
        if isinstance(self._parts, list | tuple):
            return len(self._parts) <= 1 or not self._has_body()
        wrapper = environ.get("wsgi.file_wrapper")
        return isinstance(wrapper, type) and isinstance(self._parts, wrapper) and self._length() is not None
