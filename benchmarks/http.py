"""What the doors for HTTP cost: CPU time per request of an application, which is called without any server."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from statistics import median
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz import Principal
from authz.asgi import AuthzMiddleware
from authz.fastapi import Caller
from benchmarks.material import AUDIENCE, ISSUER, claims, signing_key, verifier

ROUNDS, REQUESTS = 9, 2000

# What a client of this kind sends, with a proxy before it.
_HEADERS = [
    *((b"host", b"api.example.com"), (b"user-agent", b"python-httpx/0.28"), (b"accept", b"*/*")),
    *((b"accept-encoding", b"gzip, deflate"), (b"x-request-id", b"0b9f1c52-6a4e-4f0e-9f50-3f4f6c4f2c11")),
    *((b"x-forwarded-for", b"10.0.0.7"), (b"x-forwarded-proto", b"https"), (b"content-type", b"application/json")),
]


def measure() -> dict[str, object]:
    """Return the figures: each application by turns, in one process."""
    token = signing_key().sign(claims())
    applications = {
        "Starlette": _starlette(),
        "Starlette, AuthzMiddleware": AuthzMiddleware(_starlette(), verifier(signing_key())),
        "FastAPI": _fastapi(None),
        "FastAPI, Caller": _fastapi(Caller(verifier(signing_key()))),
        "FastAPI, AuthzMiddleware and Caller": AuthzMiddleware(_fastapi(Caller()), verifier(signing_key())),
        "FastAPI, HTTPBearer with PyJWT": _fastapi(_pyjwt()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in applications}
    for _ in range(ROUNDS):
        for name, application in applications.items():
            seconds[name].append(asyncio.run(_seconds(application, token)))
    figures = {name: round(median(taken) * 1e6, 1) for name, taken in seconds.items()}
    return {
        "us per request": figures,
        "us added to Starlette": _added(seconds, "Starlette, AuthzMiddleware", "Starlette"),
        "us added to FastAPI by Caller": _added(seconds, "FastAPI, Caller", "FastAPI"),
        "us added to FastAPI by both": _added(seconds, "FastAPI, AuthzMiddleware and Caller", "FastAPI"),
        "us added to FastAPI by HTTPBearer with PyJWT": _added(seconds, "FastAPI, HTTPBearer with PyJWT", "FastAPI"),
    }


def _added(seconds: dict[str, list[float]], name: str, bare: str) -> float:
    return round(median(one - other for one, other in zip(seconds[name], seconds[bare], strict=True)) * 1e6, 1)


async def _seconds(application: Any, token: str) -> float:
    headers = [*_HEADERS, (b"authorization", f"Bearer {token}".encode())]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    status = 0

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    async def one() -> None:
        await application(
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": "/orders",
                "raw_path": b"/orders",
                "query_string": b"",
                "root_path": "",
                "headers": list(headers),
                "client": ("127.0.0.1", 40000),
                "server": ("127.0.0.1", 80),
                "state": {},
            },
            receive,
            send,
        )

    await one()
    if status != HTTPStatus.OK:
        raise RuntimeError(f"status {status}")
    began = time.process_time()
    for _ in range(REQUESTS):
        await one()
    return (time.process_time() - began) / REQUESTS


async def _orders(_request: Request) -> Response:
    return JSONResponse({"orders": []})


def _starlette() -> Starlette:
    return Starlette(routes=[Route("/orders", _orders)])


def _fastapi(caller: Callable[..., object] | None) -> FastAPI:
    app = FastAPI()
    if caller is None:

        @app.get("/orders")
        async def orders() -> dict[str, list[str]]:
            return {"orders": []}

    else:

        @app.get("/orders")
        async def orders_of(_principal: Annotated[Principal, Security(caller)]) -> dict[str, list[str]]:
            return {"orders": []}

    return app


def _pyjwt() -> Callable[..., object]:
    key = jwt.PyJWK(signing_key().public_jwk()).key
    scheme = HTTPBearer()

    async def principal(credentials: Annotated[HTTPAuthorizationCredentials, Depends(scheme)]) -> object:
        try:
            return jwt.decode(credentials.credentials, key, ["RS256"], audience=AUDIENCE, issuer=ISSUER)
        except jwt.PyJWTError as error:
            raise HTTPException(401) from error

    return principal
