"""An async directory on FastAPI: it uses what belongs to the event loop of the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Request

from authz import Directory
from authz.asgi import AuthzMiddleware
from authz.policy import Organization
from tests.asgi.conftest import NewJudge, Serve, Token
from tests.http.client import ask, bearer


class Pool:
    """A pool of connections, which only the loop that opened it may use."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_down = False

    async def fetch(self, org_id: str) -> Organization:
        await asyncio.wait_for(self.loop.create_future() if self.is_down else asyncio.sleep(0), 0.05)
        assert asyncio.get_running_loop() is self.loop
        return Organization(tenant=f"tenant of {org_id[:4]}")


@pytest.mark.parametrize("is_down", [False, True], ids=["up", "down"])
def test_organization_is_looked_up_on_the_loop_of_the_server(
    serve: Serve, new_judge: NewJudge, token: Token, *, is_down: bool
) -> None:
    pools: list[Pool] = []

    async def look_up(org_id: str) -> Organization:
        return await pools[0].fetch(org_id)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        pools.append(Pool())
        pools[0].is_down = is_down
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    def orders(request: Request) -> str:
        return str(request.state.principal.tenant)

    directory = Directory(look_up)
    port = serve(AuthzMiddleware(app, new_judge(directory=directory)))

    answer = ask(port, "/orders", bearer(token()))

    assert (answer.status, b"tenant of org_" in answer.body) == ((503, False) if is_down else (200, True))
    directory.close()
