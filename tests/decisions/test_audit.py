"""Watchers see decisions as they are made, and never delay them."""

import asyncio
import contextlib
import os
import re
import runpy
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from authz import Authorizer, Verifier
from authz.decisions.audit import MAX_ITEMS, Audit, serve_audit
from authz.decisions.message import decision_message
from authz.errors import ConfigError, KeySetUnavailableError, TokenExpiredError
from authz.runtime.network.unix_sockets import Permissions
from authz.v1.audit_pb2 import WatchRequest, WatchResponse
from authz.v1.audit_pb2_grpc import AuditStub, add_AuditServicer_to_server
from authz.v1.decision_pb2 import Decision
from interceptors.aio import AuthzInterceptor
from tests.decisions.samples import ACME, Metadata, decision
from tests.doubles import m2m_claims

LOOPBACK = "127.0.0.1:0"
PATIENCE = 120.0
"""Seconds after which something that must happen counts as never happening."""


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE))


@contextlib.asynccontextmanager
async def channel_to(address: str, *options: tuple[str, Any]) -> AsyncIterator[grpc.aio.Channel]:
    # Channels of one process share their connections otherwise.
    options = (("grpc.use_local_subchannel_pool", 1), *options)
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


@contextlib.asynccontextmanager
async def connected(audit: Audit) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Serve ``audit``; yield a function that begins to watch it."""
    async with serve_audit(audit, LOOPBACK) as address, channel_to(address) as channel:
        stub: Any = AuditStub(channel)

        async def watch(**filters: Any) -> Any:
            watching = stub.Watch(WatchRequest(**filters))
            await watching.initial_metadata()
            return watching

        yield watch


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what a real server notices sets no event of ours
        await asyncio.sleep(0.001)


async def code_of(watching: Any) -> grpc.StatusCode:
    return await watching.code()


def test_watcher_is_told_what_is_decided_from_then_on() -> None:
    async def work() -> None:
        audit = Audit()
        audit(decision(method="/before/It"))
        async with connected(audit) as watch:
            watching = await watch()
            for one in (decision(), decision(TokenExpiredError())):
                audit(one)
                assert await watching.read() == WatchResponse(decision=decision_message(one.record()))

    run(work())


@pytest.mark.parametrize(
    "filters",
    [
        {"verdicts": [Decision.VERDICT_DENIED, Decision.VERDICT_FAILED]},
        {"organizations": ["org_other", "org_wanted"]},
        {"clients": ["client_wanted"]},
        {"method_prefixes": ["/other.", "/wanted."]},
        {"reasons": ["token_expired"]},
        {"organizations": ["org_wanted"], "reasons": ["token_expired"], "method_prefixes": ["/wanted.B/"]},
    ],
    ids="+".join,
)
def test_watcher_is_told_what_matches_all_that_it_asked_for(filters: dict[str, Any]) -> None:
    wanted = replace(ACME, org_id="org_wanted", client_id="client_wanted")
    unwanted = [
        decision(),
        decision(KeySetUnavailableError(), replace(ACME, org_id="org_wantedX"), method="/x/wanted."),
    ]

    async def work() -> None:
        audit = Audit()
        async with connected(audit) as watch:
            watching = await watch(**filters)
            for one in (*unwanted, decision(TokenExpiredError(), wanted, method="/wanted.B/C")):
                audit(one)
            response = await watching.read()

            assert (response.decision.organization, response.dropped) == ("org_wanted", 0)

    run(work())


@pytest.mark.parametrize(
    "filters",
    [
        {"verdicts": [99]},
        {"verdicts": [Decision.VERDICT_UNSPECIFIED]},
        {"organizations": ["a"] * (MAX_ITEMS + 1)},
        {"method_prefixes": ["a"] * (MAX_ITEMS + 1)},
    ],
    ids=str,
)
def test_filter_that_cannot_be_meant_is_refused(filters: dict[str, Any]) -> None:
    async def work() -> None:
        audit = Audit()
        async with connected(audit) as watch:
            assert await code_of(await watch(**filters)) is grpc.StatusCode.INVALID_ARGUMENT
            assert audit.watchers == 0

    run(work())


def test_slow_watcher_loses_the_oldest_learns_how_many_and_delays_no_decision() -> None:
    count, capacity = 20_000, 50

    async def work() -> None:
        audit = Audit(capacity=capacity)
        async with connected(audit) as watch:
            slow, quick = await watch(), await watch(reasons=["token_expired"])
            # Far more than connection and buffer hold, on another thread, while the watcher does not read.
            deciding = threading.Thread(target=lambda: [audit(decision()) for _ in range(count)])
            deciding.start()
            await asyncio.to_thread(deciding.join, PATIENCE)
            assert not deciding.is_alive()
            audit(decision(TokenExpiredError()))
            assert (await quick.read()).dropped == 0

            read, dropped, last = 0, 0, None
            while last is None or last.decision.reason != "token_expired":
                last = await slow.read()
                read, dropped = read + 1, dropped + last.dropped
            assert dropped > 0
            assert read + dropped == count + 1

    run(work())


def test_what_waits_for_a_watcher_holds_nothing_of_the_question() -> None:
    async def work() -> None:
        audit = Audit()
        async with connected(audit) as watch:
            watching = await watch()
            questions = []
            # On the thread of the loop, so that nothing is sent meanwhile.
            for _ in range(100):
                one = decision()
                metadata = Metadata([("authorization", "Bearer a"), ("x-padding", "x" * 58_000)])
                questions.append(weakref.ref(metadata))
                audit(one._replace(call=one.call._replace(metadata=metadata)))
                del one, metadata

            assert [question() for question in questions if question() is not None] == []
            assert (await watching.read()).decision.organization == ACME.org_id

    run(work())


def test_what_waits_for_a_watcher_is_bounded_in_number() -> None:
    async def work() -> None:
        audit = Audit(capacity=50)
        async with connected(audit) as watch:
            watching = await watch()
            for _ in range(500):
                audit(decision())

            assert (await watching.read()).dropped == 450

    run(work())


def test_what_waits_for_a_watcher_is_bounded_in_bytes_too() -> None:
    async def work() -> None:
        audit = Audit(max_bytes=100_000)
        async with connected(audit) as watch:
            watching = await watch()
            for number in range(500):
                audit(decision(method=f"/{number}/" + "x" * 1000))
            first = await watching.read()

            # At most 512 characters of a method are recorded, so each record takes more than half a kilobyte.
            assert first.dropped >= 500 - 100_000 // 512 - 1
            assert first.decision.rpc_method.startswith(f"/{first.dropped}/")

    run(work())


def test_decision_that_is_larger_than_all_that_may_wait_is_dropped_and_counted() -> None:
    async def work() -> None:
        audit = Audit(max_bytes=decision().record().size)
        async with connected(audit) as watch:
            watching = await watch()
            audit(decision(method="/a.B/" + "x" * 500))
            audit(decision())
            only = await watching.read()

            assert (only.decision.rpc_method, only.dropped) == ("/a.B/C", 1)

    run(work())


def test_watchers_are_limited_and_one_that_leaves_makes_room() -> None:
    async def work() -> None:
        audit = Audit(max_watchers=2)
        async with connected(audit) as watch:
            first, second = await watch(), await watch()
            assert await code_of(await watch()) is grpc.StatusCode.RESOURCE_EXHAUSTED

            first.cancel()
            await until(lambda: audit.watchers == 1)
            third = await watch()
            audit(decision())
            for watching in (second, third):
                assert (await watching.read()).decision.organization == ACME.org_id

    run(work())


def test_watcher_that_leaves_without_having_read_is_forgotten() -> None:
    async def work() -> None:
        audit = Audit(capacity=10)
        async with connected(audit) as watch:
            watching = await watch()
            for _ in range(5000):
                audit(decision())
            watching.cancel()
            await until(lambda: audit.watchers == 0)

    run(work())


def test_decisions_of_real_calls_can_be_watched(ec_key: Any, new_verifier: Callable[..., Verifier]) -> None:
    """All of it together, on one server of grpc.aio and one beside it."""

    async def work() -> None:
        audit = Audit()
        authorizer = Authorizer(new_verifier(), observers=[audit])
        server = grpc.aio.server(interceptors=[AuthzInterceptor(authorizer)])
        address = f"127.0.0.1:{server.add_insecure_port(LOOPBACK)}"
        await server.start()
        async with connected(audit) as watch, channel_to(address) as api:
            watching = await watch(organizations=[m2m_claims()["org_id"]])
            with contextlib.suppress(grpc.aio.AioRpcError):
                metadata = (("authorization", f"Bearer {ec_key.sign(m2m_claims())}"),)
                await api.unary_unary("/tests.Guarded/Call")(b"", metadata=metadata)
            told = (await watching.read()).decision

            assert (told.door, told.authorized, told.rpc_method, told.token_id) == (
                Decision.DOOR_GRPC_AIO,
                True,
                "/tests.Guarded/Call",
                m2m_claims()["jti"],
            )
        await server.stop(None)

    run(work())


@pytest.mark.parametrize("public", [(), ("/authz.v1.Audit/Watch",)], ids=["with-token", "public"])
def test_audit_beside_the_api_shows_its_callers_nothing(
    ec_key: Any, new_verifier: Callable[..., Verifier], public: tuple[str, ...]
) -> None:
    async def work() -> None:
        audit = Audit()
        authorizer = Authorizer(new_verifier(), public_methods=public, observers=[audit])
        server = grpc.aio.server(interceptors=[AuthzInterceptor(authorizer)])
        add_AuditServicer_to_server(audit, server)
        address = f"127.0.0.1:{server.add_insecure_port(LOOPBACK)}"
        await server.start()
        async with channel_to(address) as channel:
            stub: Any = AuditStub(channel)
            metadata = (("authorization", f"Bearer {ec_key.sign(m2m_claims())}"),)

            watching = stub.Watch(WatchRequest(), metadata=metadata, timeout=PATIENCE)
            assert await code_of(watching) is grpc.StatusCode.PERMISSION_DENIED
        await server.stop(None)

    run(work())


# ---- Where ----


def test_socket_is_served(tmp_path: Path) -> None:
    async def work() -> None:
        audit, path = Audit(), f"unix:{tmp_path}/audit"
        async with serve_audit(audit, path) as address, channel_to(address) as channel:
            stub: Any = AuditStub(channel)
            watching = stub.Watch(WatchRequest())
            await watching.initial_metadata()
            audit(decision())

            assert address == path
            assert (await watching.read()).decision.organization == ACME.org_id

    run(work())


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_socket_is_its_owners_alone_whatever_the_umask_is(tmp_path: Path, umask: int) -> None:
    async def work() -> None:
        before = os.umask(umask)
        try:
            async with serve_audit(Audit(), f"unix:{tmp_path}/audit"):
                assert mode_of(tmp_path / "audit") == 0o600
            assert os.umask(umask) == umask
        finally:
            os.umask(before)

    run(work())


def test_socket_has_the_permissions_that_were_asked_for_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work() -> None:
        async with serve_audit(Audit(), f"unix:{tmp_path}/audit", permissions=Permissions(mode=0o660)):
            assert mode_of(tmp_path / "audit") == 0o660

    run(work())
    assert list(tmp_path.iterdir()) == []


def test_socket_of_a_server_that_runs_is_not_taken(tmp_path: Path) -> None:
    async def work() -> None:
        audit, path = Audit(), f"unix:{tmp_path}/audit"
        async with serve_audit(audit, path), channel_to(path) as channel:
            with pytest.raises(ConfigError, match=r"^audit_listen: .* another server listens there"):
                async with serve_audit(Audit(), path):
                    pass
            stub: Any = AuditStub(channel)
            watching = stub.Watch(WatchRequest())
            await watching.initial_metadata()
            audit(decision())
            assert (await watching.read()).decision.organization == ACME.org_id

    run(work())


def test_successor_takes_the_socket_over_and_keeps_it(tmp_path: Path) -> None:
    async def work() -> None:
        audit, path = Audit(), f"unix:{tmp_path}/audit"
        async with contextlib.AsyncExitStack() as predecessor:
            await predecessor.enter_async_context(serve_audit(Audit(), path))
            async with serve_audit(audit, path, takes_over=True):
                await predecessor.aclose()
                async with channel_to(path) as channel:
                    stub: Any = AuditStub(channel)
                    await stub.Watch(WatchRequest()).initial_metadata()
                    assert audit.watchers == 1

    run(work())


@pytest.mark.parametrize("path", ["missing/audit", "s" * 200, "file"])
def test_path_where_there_can_be_no_socket_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("not ours")

    async def work() -> None:
        async with serve_audit(Audit(), f"unix:{tmp_path}/{path}"):
            pass

    with pytest.raises(ConfigError, match=r"^audit_listen: 'unix:.* cannot be bound: "):
        run(work())
    assert (tmp_path / "file").read_text() == "not ours"


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:9903", "[::]:9903", "192.0.2.1:9903", "example.com:9903", "127.0.0.1", "localhost:http", "unix:", ""],
)
def test_address_that_others_can_reach_or_that_cannot_be_is_refused(address: str) -> None:
    async def work() -> None:
        async with serve_audit(Audit(), address):
            pass

    with pytest.raises(ConfigError, match=r"audit_listen: .* loopback or unix:PATH"):
        run(work())


def test_address_that_is_taken_is_named() -> None:
    async def work() -> None:
        async with serve_audit(Audit(), LOOPBACK) as address, serve_audit(Audit(), address):
            pass

    with pytest.raises(ConfigError, match=r"audit_listen: .* cannot be bound"):
        run(work())


# ---- What docs/audit.md shows ----


@pytest.fixture
def programs() -> dict[str, str]:
    """Return the programs of the document, by name."""
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    return {match[1]: match[0] for match in re.findall(r"```python\n(# (\S+\.py)\n.*?)```", text, re.DOTALL)}


def test_observers_of_the_document_are_observers(
    programs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "observers.py").write_text(programs["observers.py"], encoding="utf-8")

    assert isinstance(runpy.run_path("observers.py")["authorizer"], Authorizer)
    assert (tmp_path / "denied.jsonl").exists()


def test_watcher_of_the_document_watches(programs: dict[str, str], tmp_path: Path) -> None:
    async def work() -> None:
        audit = Audit()
        async with serve_audit(audit, LOOPBACK) as address:
            (tmp_path / "watch.py").write_text(programs["watch.py"].replace("127.0.0.1:9903", address))
            watcher = await asyncio.create_subprocess_exec(
                sys.executable, tmp_path / "watch.py", stdout=asyncio.subprocess.PIPE
            )
            try:
                await until(lambda: audit.watchers == 1)
                audit(decision())
                audit(decision(TokenExpiredError(), method="/authz.demo.v1.LedgerService/PostEntry"))
                assert watcher.stdout is not None
                line = await watcher.stdout.readline()
            finally:
                watcher.kill()
                await watcher.communicate()

            assert line == b"org_01JYACME /authz.demo.v1.LedgerService/PostEntry token_expired 0\n"

    run(work())
