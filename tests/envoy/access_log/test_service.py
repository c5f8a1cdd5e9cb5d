"""Envoy's access log service tells observers of each call once, whatever comes, and holds up nothing."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from authz.decisions.decision import Decision
from authz.demo.issuer.signing import SigningKey
from authz.envoy.access_log import service
from authz.envoy.access_log.service import METHOD, SERVICE, AccessLog, serve_access_log
from authz.errors import ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.network.unix_sockets import Permissions
from tests.doubles import AUDIENCE, ISSUER, ORG, PATIENCE, jwks
from tests.envoy.access_log.entries import entry, message

PATH = f"/{SERVICE}/{METHOD}"


class Site:
    """An access log, and what observers are told."""

    def __init__(self, key: SigningKey) -> None:
        self.decisions: list[Decision] = []
        verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
        authorizer = Authorizer(verifier, observers=[self.decisions.append])
        self.access_log = AccessLog(authorizer.telling, verifier.clock)

    @property
    def counts(self) -> tuple[int, int, int]:
        counts = self.access_log.counts
        return counts["told"], counts["unreadable"], counts["refused"]


@pytest.fixture
def site(ec_key: SigningKey) -> Site:
    return Site(ec_key)


async def stream_of(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for body in messages:
        yield body


def send(site: Site, *messages: bytes) -> None:
    """Have one stream of messages handled, without a server."""
    assert asyncio.run(site.access_log.stream(stream_of(messages), None)) == b""


async def until(look: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_each_call_is_told_once_and_in_order(site: Site) -> None:
    send(site, message(entry(organization=f"{ORG}{n}") for n in range(120)), message([entry()]))

    expected = [*(f"{ORG}{n}" for n in range(120)), ORG]
    assert [decision.evidence.principal.org_id for decision in site.decisions] == expected
    assert {decision.evidence.source for decision in site.decisions} == {"envoy"}
    assert site.counts == (121, 0, 0)


def test_what_cannot_be_read_is_counted_and_the_rest_is_told(site: Site) -> None:
    bad = entry({"decided": True, "told": "nonsense /a"})

    send(site, b"\xff\xff", message([bad, entry(), bad]), b"\x12\x02\x0a", b"", message([entry({})]))

    assert site.counts == (1, 4, 0)
    assert len(site.decisions) == 1


def test_checks_have_a_turn_while_many_entries_are_told(site: Site) -> None:
    turns: list[int] = []

    async def check() -> None:
        while True:
            turns.append(len(site.decisions))
            await asyncio.sleep(0)

    async def both() -> None:
        checking = asyncio.create_task(check())
        await site.access_log.stream(stream_of([message(entry() for _ in range(1000))]), None)
        checking.cancel()

    asyncio.run(both())

    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 50


# ---- Over a socket ----


def serving(site: Site, folder: Path, test: Callable[[grpc.aio.Channel], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        path = f"{folder}/log.sock"
        async with (
            serve_access_log(site.access_log, f"unix:{path}", **options),
            grpc.aio.insecure_channel(f"unix:{path}") as channel,
        ):
            await test(channel)

    asyncio.run(run())


def test_stream_that_lasts_is_told_as_it_comes(site: Site, tmp_path: Path) -> None:
    async def test(channel: grpc.aio.Channel) -> None:
        call = channel.stream_unary(PATH)()
        for number in range(3):
            await call.write(message([entry()]))
            await until(lambda n=number: len(site.decisions) == n + 1)
        call.cancel()

    serving(site, tmp_path, test)

    assert site.counts == (3, 0, 0)


def test_message_that_is_too_large_ends_its_stream_and_no_other(site: Site, tmp_path: Path) -> None:
    async def test(channel: grpc.aio.Channel) -> None:
        good = channel.stream_unary(PATH)()
        await good.write(message([entry()]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(PATH)(iter([b"\x1a" + b"x" * (service.MAX_MESSAGE_BYTES + 1)]))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await good.write(message([entry()]))
        await until(lambda: len(site.decisions) == 2)
        good.cancel()

    serving(site, tmp_path, test)


def test_streams_are_bounded_and_places_come_free(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_STREAMS", 2)

    async def test(channel: grpc.aio.Channel) -> None:
        calls = [channel.stream_unary(PATH)() for _ in range(2)]
        for call in calls:
            await call.write(message([entry()]))
        await until(lambda: len(site.decisions) == 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(PATH)(iter([message([entry()])]))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        calls[0].cancel()

        async def told() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await channel.stream_unary(PATH)(iter([message([entry()])]))
            return len(site.decisions) == 3

        deadline = time.monotonic() + PATIENCE
        while not await told():
            assert time.monotonic() < deadline
        calls[1].cancel()

    serving(site, tmp_path, test)

    assert site.counts[0] == 3
    assert site.counts[2] >= 1


def test_what_comes_while_the_server_ends_is_told(site: Site, tmp_path: Path) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/log.sock") as channel:
            async with serve_access_log(site.access_log, f"unix:{tmp_path}/log.sock"):
                call = channel.stream_unary(PATH)()
                await call.write(message([entry()]))
                await until(lambda: len(site.decisions) == 1)
                last = asyncio.create_task(call.write(message([entry()])))
            await last

    asyncio.run(run())

    assert site.counts == (2, 0, 0)


def test_only_those_may_connect_who_may_ask(site: Site, tmp_path: Path) -> None:
    modes: list[int] = []

    async def test(_channel: grpc.aio.Channel) -> None:
        modes.append((tmp_path / "log.sock").stat().st_mode & 0o777)

    serving(site, tmp_path, test)
    serving(site, tmp_path, test, permissions=Permissions.parse("0660"))

    assert modes == [0o600, 0o660]
    assert not (tmp_path / "log.sock").exists()


def test_second_server_is_an_error_unless_it_takes_over(site: Site, tmp_path: Path) -> None:
    async def test(_channel: grpc.aio.Channel) -> None:
        address = f"unix:{tmp_path}/log.sock"
        with pytest.raises(ConfigError, match="another server listens there"):
            async with serve_access_log(site.access_log, address):
                pass
        async with serve_access_log(site.access_log, address, takes_over=True):
            pass

    serving(site, tmp_path, test)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "0.0.0.0:9", "tls:a:9", "unix:", "", "unix:" + "x" * 200])
def test_there_is_no_port_for_it(site: Site, address: str) -> None:
    async def run() -> None:
        async with serve_access_log(site.access_log, address):
            pass

    with pytest.raises(ConfigError, match=r"^access_log_listen: "):
        asyncio.run(run())
