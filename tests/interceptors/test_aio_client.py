"""What a ``grpc.aio`` client sees of a refusal; it sends nothing, because one that is writing may lose the status."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from authz import Verifier
from tests.doubles import ORG
from tests.interceptors.client import DEADLINE, bearer
from tests.interceptors.servers import DOORS, Door, Loop
from tests.interceptors.service import (
    Witness,
    expected_replies,
    handlers,
    is_request_streaming,
    is_response_streaming,
    method,
)


async def silent(over: asyncio.Event) -> AsyncIterator[bytes]:
    await over.wait()
    yield b""


async def one() -> AsyncIterator[bytes]:
    yield b""


async def ask(address: str, kind: str, metadata: Any = ()) -> tuple[grpc.StatusCode, list[bytes], set[str]]:
    over = asyncio.Event()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = getattr(channel, kind)(method(kind))
        stream = one() if metadata else silent(over)
        call = stub(stream if is_request_streaming(kind) else b"", metadata=metadata, timeout=DEADLINE)
        messages = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            messages = [message async for message in call] if is_response_streaming(kind) else [await call]
        over.set()
        return await call.code(), messages, {key for key, _ in await call.trailing_metadata()}


@pytest.fixture
def address(door: Door, loop: Loop, verifier: Verifier) -> Any:
    witness = Witness()
    served = handlers(door.behaviours(witness), witness)
    with door.listen(loop, served, [door.interceptor(verifier)]) as address:
        yield address


@pytest.mark.parametrize("door", DOORS[:2], ids=lambda door: door.name)
def test_silent_client_is_refused_at_once(address: str, loop: Loop, kind: str) -> None:
    code, messages, trailers = loop.run(ask(address, kind))

    assert (code, messages) == (grpc.StatusCode.UNAUTHENTICATED, [])
    assert {"www-authenticate", "grpc-status-details-bin"} <= trailers


def test_caller_with_a_token_is_served(address: str, loop: Loop, kind: str, token: str) -> None:
    code, messages, _ = loop.run(ask(address, kind, bearer(token)))

    assert (code, messages) == (grpc.StatusCode.OK, expected_replies(kind, ORG.encode()))
