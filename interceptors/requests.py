"""The requests of a stream of a ``grpc.server``, until it must end."""

from collections.abc import Iterator
from typing import Any

from .admission import Admission
from .streams import SyncStream


class SyncRequests:
    """The requests of one stream, each checked before its handler sees it.

    It offers the two ways to read that grpc's own iterator offers, and nothing else: other methods of grpc's
    would return unchecked requests.

    Args:
        requests: grpc's own iterator.
        stream: the stream that a refused request ends.
        admission: checks the requests.

    """

    __slots__ = ("_admission", "_requests", "_stream")

    def __init__(self, requests: Iterator[Any], stream: SyncStream, admission: Admission) -> None:
        self._requests = requests
        self._stream = stream
        self._admission = admission

    def __iter__(self) -> "SyncRequests":
        return self

    def __next__(self) -> Any:
        request = next(self._requests)
        if self._admission.is_checked:
            try:
                self._admission.check(request)
            except Exception as error:  # noqa: BLE001 - whatever happened, the handler must not see the request
                self._admission.end(self._stream, error)
        self._stream.check()
        if self._stream.refusal is not None:
            # That of a handler that does not block.
            raise StopIteration
        return request

    def next(self) -> Any:
        """Return the next request, as grpc's iterators offer it, too."""
        return next(self)
