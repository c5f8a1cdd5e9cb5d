"""The scene of the demonstration in which several servers share the operator's orders by a store."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from authz.demo.partner import Metadata, Stream, authorized, request_http
from authz.demo.processes import run
from authz.demo.scenes import Expected, Row, Scenes, denied, seen, through
from authz.demo.stack import Stack
from authz.demo.store import Store
from authz.judge.orders.order import Order
from authz.store.connection import Store as SharedStore
from authz.store.orders_store import OrdersStore

_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02


class Fleet(Stack):
    """The processes of the demonstration, which share a store.

    Args:
        program: the store's, see :func:`authz.demo.store.store_path`.

    """

    def __init__(self, program: Path) -> None:
        super().__init__()
        self._program = program

    def start_store(self) -> None:
        """Start a store, which is empty, where the last one was."""
        self._store = Store(self._program, self._path)
        self._processes.append(self._store)

    def lose_store(self) -> None:
        """End the store by force; it has kept nothing on a disk."""
        self._store.kill()

    def command(self, *arguments: str) -> str:
        """Run a command of ours with this store, and return what it prints."""
        return run([sys.executable, "-m", "authz", *arguments, "--store", self._store.url], self._path)

    def orders(self) -> list[Order]:
        """Return the orders in the store."""
        store = SharedStore(self._store.url)
        try:
            return list(OrdersStore(store).load()[0])
        finally:
            store.close()

    def _start_all(self) -> None:
        self.start_store()
        super()._start_all()

    def _judge_flags(self) -> list[str]:
        return [*super()._judge_flags(), "--store", self._store.url]


def one_word(stack: Fleet, scenes: Scenes) -> Iterator[Row]:
    """Suspend an organization by one command, lose the store with all that it holds, and resume the organization.

    Args:
        stack: the running processes: two authorization servers and the backend, which share a store.
        scenes: gives tokens.

    """
    globex = stack.directory.applications[1]
    metadata, suspended = authorized(scenes.token(globex)), denied("ORGANIZATION_SUSPENDED")
    with grpc.insecure_channel(stack.target) as channel, Stream(channel, metadata) as stream:
        yield Row(sent="Globex opens a stream", expected=seen(globex), through_envoy=(stream.post(),))
        said = stack.command("suspend", globex.org_id, "--reason", "unpaid", "--wait", "30")
        yield _everywhere(stack, f"authz suspend: {said}", metadata, suspended)
        yield Row(sent="the stream that Globex holds open", expected=suspended, through_envoy=(stream.wait(),))
    stack.lose_store()
    yield _everywhere(stack, "the store is gone, and all its data", metadata, suspended)
    stack.start_store()
    _await(lambda: any(order.id == globex.org_id for order in stack.orders()))
    yield _everywhere(stack, "a new one: a server has written it back", metadata, suspended)
    said = stack.command("resume", globex.org_id, "--wait", "30")
    yield _everywhere(stack, f"authz resume: {said}", metadata, seen(globex))


def _everywhere(stack: Fleet, sent: str, metadata: Metadata, expected: Expected) -> Row:
    return Row(
        sent=sent,
        expected=expected,
        through_envoy=(*through(stack.target, metadata), *through(stack.cold_target, metadata)),
        http=request_http(f"http://{stack.target}", metadata),
        direct=through(stack.backend["grpc"], metadata),
    )


def _await(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not look() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
