"""The call that the caller gets when an RPC could not begin."""

import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn

import grpc

# As Any: generic in the stubs, not subscriptable at run time.
_Future: Any = grpc.Future


class _Over(_Future):  # type: ignore[misc]
    """The state of an RPC that is over."""

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


class FailedCall(_Over, grpc.RpcError, grpc.Call):
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
