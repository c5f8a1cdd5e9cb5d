"""The scene of the demonstration in which several servers share the operator's orders by a store."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from authz.demo.issuer.directory import Application
from authz.demo.partner import Answer, Metadata, Stream, authorized, request_http
from authz.demo.processes import Process, run
from authz.demo.scenes import Expected, Row, Scenes, denied, in_process, seen, through
from authz.demo.stack import Stack
from authz.demo.store import Store
from authz.judge.orders.order import Order
from authz.store.connection import Store as SharedStore
from authz.store.orders_store import OrdersStore

_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_BURSTS = (20, 21, 22)
_EXHAUSTED = Expected(status="RESOURCE_EXHAUSTED")


class Fleet(Stack):
    """The processes of the demonstration, which share a store.

    Args:
        program: the store's, see :func:`authz.demo.store.store_path`.

    """

    def __init__(self, program: Path) -> None:
        super().__init__()
        self._program = program
        self._cold: Process | None = None

    @property
    def store_url(self) -> str:
        """Where the store is."""
        return self._store.url

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

    def start_cold(self) -> Process:
        """Start the server of the second listener, which follows what happens at the issuer, and return its process."""
        for name, secret in (("api-key", self.directory.api_key), ("webhooks", self.directory.webhook_secret)):
            (self._path / name).write_text(secret, encoding="utf-8")
        asking = ("--workos-events", "--workos-base-url", self.issuer_url, "--workos-api-key-file", "api-key")
        told = ("--workos-webhooks", "127.0.0.1:0", "--workos-webhook-secret-file", "webhooks")
        # Not the first: of an answer that needs a directory, Envoy repeats nothing.
        self._cold = self._start_authz("cold", *asking, *told)
        [address] = [line["address"] for line in self._cold.lines() if line.get("event") == "webhooks"]
        # For the issuer that is started again: this one does not know it.
        self._issuer_flags = ["--webhooks", f"http://{address}/webhooks/workos"]
        return self._cold

    def is_workos_followed(self) -> bool:
        """Say whether that server hears what happens at the issuer, as far as it has said."""
        names = ("source_followed", "source_failed", "source_recovered")
        lines = [] if self._cold is None else self._cold.lines()
        said = [line["event"] for line in lines if line.get("event") in names]
        return said[-1:] == (["source_recovered"] if "source_failed" in said else ["source_followed"])

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
        yield everywhere(stack, f"authz suspend: {said}", metadata, suspended)
        yield Row(sent="the stream that Globex holds open", expected=suspended, through_envoy=(stream.wait(),))
    stack.lose_store()
    yield everywhere(stack, "the store is gone, and all its data", metadata, suspended)
    stack.start_store()
    wait_until(lambda: any(order.id == globex.org_id for order in stack.orders()))
    yield everywhere(stack, "a new one: a server has written it back", metadata, suspended)
    said = stack.command("resume", globex.org_id, "--wait", "30")
    yield everywhere(stack, f"authz resume: {said}", metadata, seen(globex))


def everywhere(stack: Fleet, sent: str, metadata: Metadata, expected: Expected) -> Row:
    """Return the answers of both authorization servers, by way of Envoy, and of the backend."""
    return Row(
        sent=sent,
        expected=expected,
        through_envoy=(*through(stack.target, metadata), *through(stack.cold_target, metadata)),
        http=request_http(f"http://{stack.target}", metadata),
        direct=in_process(stack, metadata),
    )


def wait_until(look: Callable[[], bool]) -> None:
    """Wait until something is so, or for a minute."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not look() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def one_plan(stack: Fleet, scenes: Scenes) -> Iterator[Row]:
    """Use up the quota of an organization by way of two servers.

    With plain HTTP, which the backend's interceptor does not see: it would count the calls as well.

    Args:
        stack: as for :func:`one_word`.
        scenes: gives tokens.

    """
    globex = stack.directory.applications[1]
    metadata = authorized(scenes.token(globex))
    for burst in _BURSTS:
        _plan(stack, globex, metadata, burst)
        by_turns = f"{burst} HTTP calls, by turns to both servers"
        rows = [
            Row(sent=by_turns, expected=seen(globex), through_envoy=_calls(stack, metadata, burst)),
            Row(sent=f"10 more: {burst} are for both", expected=_EXHAUSTED, through_envoy=_calls(stack, metadata, 10)),
        ]
        # On a busy machine the store may answer too late, and a server then counts by itself for a moment.
        if not any(row.wrong for row in rows):
            break
    yield from rows
    stack.change_policy()


def _plan(stack: Fleet, application: Application, metadata: Metadata, burst: int) -> None:
    """Give the application's organization a quota of so many calls, and wait until both servers have read of it."""
    stack.change_policy(
        organizations={application.org_id: {"quota": "small"}},
        quotas={"small": {"requests_per_second": 0.001, "burst": burst}},
        # By which a server shows that it has read the file; it counts no call that it refuses.
        deny_rules=[{"name": "read", "request": {"paths": [f"/{burst}"]}}],
    )
    wait_until(lambda: all(request_http(url, metadata, f"/{burst}").status == "403" for url in _urls(stack)))


def _calls(stack: Fleet, metadata: Metadata, count: int) -> tuple[Answer, ...]:
    urls = _urls(stack)
    return tuple(request_http(urls[number % len(urls)], metadata) for number in range(count))


def _urls(stack: Fleet) -> list[str]:
    return [f"http://{target}" for target in (stack.target, stack.cold_target)]
