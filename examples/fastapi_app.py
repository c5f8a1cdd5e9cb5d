"""Orders on FastAPI: every route needs a token, some need a scope, and one streams until its token ends.

Run ``authz issuer`` beside it, or set AUTHZ_ISSUER and AUTHZ_AUDIENCE for WorkOS.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Request, Security
from fastapi.responses import StreamingResponse

from authz import Principal, Verifier, current_principal
from authz.asgi import AuthzMiddleware
from authz.fastapi import Caller

ISSUER = os.environ.get("AUTHZ_ISSUER", "http://127.0.0.1:9190")
AUDIENCE = os.environ.get("AUTHZ_AUDIENCE", "client_01JYENV0000000000000000000")
HOST, PORT = os.environ.get("LISTEN", "127.0.0.1:8000").rsplit(":", 1)

app = FastAPI()
app.add_middleware(AuthzMiddleware, judge=Verifier(issuer=ISSUER, audience=AUDIENCE), public_paths=["/healthz"])
caller = Caller(token_url=f"{ISSUER}/oauth2/token", scopes={"ledger:write": "Place orders"})


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"healthy": True}


@app.get("/orders")
def list_orders(request: Request) -> dict[str, str]:
    return {"org_id": current_principal().org_id, "client_id": request.state.principal.client_id}


@app.post("/orders")
async def place_order(principal: Annotated[Principal, Security(caller, scopes=["ledger:write"])]) -> dict[str, str]:
    return {"org_id": principal.org_id}


@app.get("/orders/events")
async def events() -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        while True:
            yield f"data: {current_principal().org_id}\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=int(PORT), log_level="warning")
