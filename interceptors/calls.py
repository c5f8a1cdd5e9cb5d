"""The calls that a caller gets: one that may be made of two attempts, and one that never began."""

import contextlib
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, Protocol

import grpc

from authz.runtime import telemetry


class Attempts(Protocol):
    """What may follow the first attempt of an RPC."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the request is still there to be sent again."""

    def is_refusal(self, code: grpc.StatusCode | None) -> bool:
        """Say whether ``code`` means that a server has refused the token."""

    def denied(self, code: grpc.StatusCode | None) -> "FailedCall | None":
        """Return how the RPC ends instead, where ``code`` means that the issuer refuses us a token."""

    def drop_token(self) -> None:
        """Have the next RPC bear another token."""

    def has_replaced_token(self) -> bool:
        """Get another token; say whether there is one, and time to use it. May block."""

    def send(self) -> Any:
        """Begin an attempt."""


# As Any: generic in the stubs, not subscriptable at run time.
_Future: Any = grpc.Future


class RepeatableCall(grpc.Call, _Future):  # type: ignore[misc]
    """An RPC that is under way: its first attempt, or the second if a server refused the token of the first.

    No stub blocks for it: whether there is a second attempt is found out on a
    thread of its own, since the interceptors that it passes through again may
    block, which neither grpc's thread nor that of the transport can afford.

    Args:
        first: the first attempt.
        attempts: what else can be done.

    """

    def __init__(self, first: Any, attempts: Attempts) -> None:
        self._call, self._attempts = first, attempts
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self._is_noticed = False
        # Whoever reads finds out whether a response has come before the end, which grpc's thread cannot know.
        self._readers, self._has_ended = 0, False
        # Whether _call is the attempt that counts.
        self._is_final = threading.Event()
        self._context = contextvars.copy_context()
        # Weak: a call that its caller has forgotten must be collected, for then grpc cancels it.
        ended = weakref.WeakMethod(self._first_ended)
        if not first.add_callback(lambda: _call_if_alive(ended)):
            self._first_ended()

    def _first_ended(self) -> None:
        with self._lock:
            self._has_ended = True
            if self._is_noticed or self._readers:
                return
            self._is_noticed = True
        code = self._call.code()
        if self._attempts.is_refusal(code):
            if self._attempts.is_repeatable and not self._is_final.is_set():
                thread = threading.Thread(target=self._context.run, args=[self._go_on], name="authz-retry", daemon=True)
                # There are no new threads while the interpreter shuts down.
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    return
            self._attempts.drop_token()
        self._settle(self._attempts.denied(code) or self._call)

    def _go_on(self) -> None:
        first = self._call
        try:
            if self._attempts.has_replaced_token() and not self._is_final.is_set():
                second = self._attempts.send()
                if not self._settle(second):
                    second.cancel()
        except BaseException as error:  # noqa: BLE001 - whoever waits gets the first attempt
            telemetry.unforeseen("second attempt", error)
        finally:
            self._settle(first)

    def _settle(self, call: Any) -> bool:
        with self._lock:
            if self._is_final.is_set():
                return False
            self._call = call
            self._is_final.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            if not call.add_callback(callback):
                callback()
        return True

    def _final(self) -> Any:
        # An experimental option of channels makes streams that go on only while somebody reads them.
        if self._is_noticed or isinstance(self._call, grpc.Future):
            self._is_final.wait()
        return self._call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._is_final.is_set():
            return next(self._call)
        first = self._call
        try:
            return self._read(first)
        except grpc.RpcError:
            # grpc tells us and its callbacks in any order.
            self._first_ended()
            final = self._final()
            if final is first:
                raise
            return next(final)

    def _read(self, first: Any) -> Any:
        with self._lock:
            self._readers += 1
        try:
            message = next(first)
            # What has been delivered cannot be taken back.
            self._settle(first)
        finally:
            with self._lock:
                self._readers -= 1
            if self._has_ended:
                self._first_ended()
        return message

    def _ended(self, timeout: float | None) -> Any:
        over = threading.Event()
        if self.add_callback(over.set) and not over.wait(timeout):
            raise grpc.FutureTimeoutError
        return self._call

    def result(self, timeout: float | None = None) -> Any:
        """See ``grpc.Future.result``."""
        return self._ended(timeout).result()

    def exception(self, timeout: float | None = None) -> Any:
        """See ``grpc.Future.exception``."""
        return self._ended(timeout).exception()

    def traceback(self, timeout: float | None = None) -> Any:
        """See ``grpc.Future.traceback``."""
        return self._ended(timeout).traceback()

    def code(self) -> Any:
        """See ``grpc.Call.code``."""
        return self._final().code()

    def details(self) -> Any:
        """See ``grpc.Call.details``."""
        return self._final().details()

    def trailing_metadata(self) -> Any:
        """See ``grpc.Call.trailing_metadata``."""
        return self._final().trailing_metadata()

    def debug_error_string(self) -> Any:
        """Return what grpc's own calls do."""
        return self._final().debug_error_string()

    def initial_metadata(self) -> Any:
        """See ``grpc.Call.initial_metadata``."""
        first = self._call
        metadata = first.initial_metadata()
        return metadata if first.is_active() else self._final().initial_metadata()

    def cancel(self) -> bool:
        """See ``grpc.Future.cancel``; a call that waits for a second attempt ends as the first did."""
        self._settle(self._call)
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        """See ``grpc.Future.cancelled``."""
        return self._is_final.is_set() and bool(self._call.cancelled())

    def done(self) -> bool:
        """See ``grpc.Future.done``."""
        return not self.is_active()

    def running(self) -> bool:
        """See ``grpc.Future.running``."""
        return self.is_active()

    def is_active(self) -> bool:
        """See ``grpc.RpcContext.is_active``."""
        return not self._is_final.is_set() or bool(self._call.is_active())

    def time_remaining(self) -> Any:
        """See ``grpc.RpcContext.time_remaining``."""
        return self._call.time_remaining()

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """See ``grpc.RpcContext.add_callback``."""
        with self._lock:
            if not self._is_final.is_set():
                self._callbacks.append(callback)
                return True
        return bool(self._call.add_callback(callback))

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """See ``grpc.Future.add_done_callback``."""
        if not self.add_callback(lambda: fn(self)):
            fn(self)


def _call_if_alive(reference: "weakref.WeakMethod[Callable[[], None]]") -> None:
    method = reference()
    if method is not None:
        method()


def repeatable_messages(first: Iterator[Any], attempts: Attempts) -> Iterator[Any]:
    """Yield the messages of ``first``, or those of a second attempt.

    For streams that another interceptor has turned into bare iterators, as that of OpenTelemetry does.
    """
    is_begun = False
    try:
        for message in first:
            is_begun = True
            yield message
    except grpc.RpcError as error:
        failed = attempts.denied(error.code())
        if failed is not None:
            raise failed from None
        if not attempts.is_refusal(error.code()):
            raise
        if is_begun or not attempts.is_repeatable:
            attempts.drop_token()
            raise
        if not attempts.has_replaced_token():
            raise
    else:
        return
    yield from attempts.send()


class FailedCall(grpc.RpcError, grpc.Call, _Future):  # type: ignore[misc]
    """An RPC that ended before it began."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> NoReturn:
        raise self

    def result(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002 - as its base has it
        """See ``grpc.Future.result``."""
        raise self

    def exception(self, timeout: float | None = None) -> "FailedCall":  # noqa: ARG002 - as its base has it
        """See ``grpc.Future.exception``."""
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:  # noqa: ARG002 - as its base has it
        """See ``grpc.Future.traceback``."""
        try:
            raise self
        except grpc.RpcError:
            return sys.exc_info()[2]

    def code(self) -> grpc.StatusCode:
        """See ``grpc.Call.code``."""
        return self._code

    def details(self) -> str:
        """See ``grpc.Call.details``."""
        return self._details

    def debug_error_string(self) -> str:
        """Return what grpc's own calls do."""
        return str(self)

    def initial_metadata(self) -> tuple[()]:
        """See ``grpc.Call.initial_metadata``."""
        return ()

    def trailing_metadata(self) -> tuple[()]:
        """See ``grpc.Call.trailing_metadata``."""
        return ()

    def cancel(self) -> bool:
        """See ``grpc.Future.cancel``."""
        return False

    def cancelled(self) -> bool:
        """See ``grpc.Future.cancelled``."""
        return False

    def done(self) -> bool:
        """See ``grpc.Future.done``."""
        return True

    def running(self) -> bool:
        """See ``grpc.Future.running``."""
        return False

    def is_active(self) -> bool:
        """See ``grpc.RpcContext.is_active``."""
        return False

    def time_remaining(self) -> float:
        """See ``grpc.RpcContext.time_remaining``."""
        return 0.0

    def add_callback(self, callback: Callable[[], object]) -> bool:  # noqa: ARG002 - it is over
        """See ``grpc.RpcContext.add_callback``."""
        return False

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """See ``grpc.Future.add_done_callback``."""
        fn(self)
