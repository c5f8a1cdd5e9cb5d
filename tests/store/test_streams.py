"""Streams that are open in several replicas end by one order, wherever it is given."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import grpc
import grpc.aio

from authz import Authorizer, SharedState, Verifier
from authz.demo.issuer.signing import SigningKey
from authz.store.orders_store import OrdersStore
from interceptors import AuthzInterceptor
from interceptors.aio import AuthzInterceptor as AioAuthzInterceptor
from tests.doubles import AUDIENCE, ISSUER, ORG, jwks, m2m_claims
from tests.interceptors.servers import Loop, aio_server, sync_server
from tests.interceptors.service import handler, method
from tests.programs import PATIENCE
from tests.store.engines import Engine
from tests.store.fleet import suspend

STREAMS, OTHER = 1000, "org_01JYOTHER000000000000000"
METHOD = method("unary_stream")

Report = Callable[[str, object], None]


class Held:
    """Handlers that answer once, and then hold their streams open."""

    def __init__(self) -> None:
        self._end = threading.Event()

    def on_a_thread(self, _request: bytes, _context: object) -> Iterator[bytes]:
        yield b"open"
        self._end.wait(PATIENCE)

    async def in_a_task(self, _request: bytes, _context: object) -> AsyncIterator[bytes]:
        yield b"open"
        await asyncio.sleep(PATIENCE)

    def let_go(self) -> None:
        self._end.set()


class Client:
    """Opens streams, and notes how and when each ends."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, float]] = []
        self._watching: list[asyncio.Task[None]] = []

    async def open(self, channel: grpc.aio.Channel, token: str) -> Any:
        call = channel.unary_stream(METHOD)(b"", metadata=(("authorization", f"Bearer {token}"),))
        assert await call.read() == b"open"
        self._watching.append(asyncio.create_task(self._watch(call)))
        return call

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._watching)

    async def _watch(self, call: Any) -> None:
        code = await call.code()
        self.ends.append((code.name, time.perf_counter()))


async def story(addresses: list[str], mine: str, others: str, order: Callable[[], object]) -> tuple[Any, ...]:
    """Open all streams and give the order.

    Return how many had ended before, how they have ended, after how many seconds the last, and how many others go on.
    """
    client, other = Client(), Client()
    async with AsyncExitStack() as ending:
        channels = [await ending.enter_async_context(grpc.aio.insecure_channel(each)) for each in addresses]
        for start in range(0, STREAMS, 50):
            some = range(start, min(start + 50, STREAMS))
            await asyncio.gather(*(client.open(channels[each % len(channels)], mine) for each in some))
        kept = [await other.open(channel, others) for channel in channels]
        before = len(client.ends)
        await asyncio.to_thread(order)
        given = time.perf_counter()
        await client.ended()
        going_on = sum(not call.done() for call in kept)
        for call in kept:
            call.cancel()
    return before, Counter(code for code, _ in client.ends), max(at for _, at in client.ends) - given, going_on


def test_a_thousand_streams_in_three_replicas_end_by_one_order(
    engine: Engine, ec_key: SigningKey, record_property: Report
) -> None:
    loop, held, store = Loop(), Held(), engine.store()
    mine, others = (ec_key.sign(m2m_claims(time.time(), org_id=name)) for name in (ORG, OTHER))
    with ExitStack() as ending:
        ending.callback(loop.close)
        ending.callback(store.close)
        addresses = []
        for is_aio in (True, True, False):
            verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"])
            authorizer = Authorizer(verifier)
            ending.enter_context(SharedState(engine.store(), authorizer))
            if is_aio:
                serving = aio_server(
                    loop, {METHOD: handler("unary_stream", held.in_a_task)}, [AioAuthzInterceptor(authorizer)]
                )
            else:
                serving = sync_server(
                    {METHOD: handler("unary_stream", held.on_a_thread)},
                    [AuthzInterceptor(authorizer, relay=True)],
                    pool=ThreadPoolExecutor(STREAMS),
                )
            addresses.append(ending.enter_context(serving))
        ending.callback(held.let_go)
        order = suspend(ORG)
        before, codes, seconds, going_on = asyncio.run(
            story(addresses, mine, others, lambda: OrdersStore(store).write([order]))
        )
    record_property("seconds until the last stream had ended", round(seconds, 3))

    assert before == 0
    assert codes == {"PERMISSION_DENIED": STREAMS}
    assert going_on == len(addresses)
    # A second where nothing else runs: here for hangs only.
    assert seconds < PATIENCE
