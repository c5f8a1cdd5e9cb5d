import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authz import Authorizer, Decision, Verifier, current_principal
from authz.asgi import AuthzMiddleware
from authz.asgi.protocol import App
from authz.demo.issuer.signing import SigningKey
from tests.doubles import ManualClock, jwks, m2m_claims
from tests.http.serving import served


@pytest.fixture
def told() -> list[Decision]:
    return []


NewJudge = Callable[..., Authorizer]


@pytest.fixture
def new_judge(new_verifier: Callable[..., Verifier], ec_key: SigningKey, told: list[Decision]) -> NewJudge:
    """Return a function that builds a judge that has its keys, and tells ``told``."""
    return lambda **options: Authorizer(new_verifier(jwks=jwks(ec_key)), observers=[told.append], **options)


@pytest.fixture
def judge(new_judge: NewJudge) -> Authorizer:
    return new_judge()


Token = Callable[..., str]


@pytest.fixture
def token(ec_key: SigningKey, clock: ManualClock) -> Token:
    return lambda **changes: ec_key.sign(m2m_claims(clock.now, **changes))


Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that serves an application until the test is over, and returns its port."""
    with contextlib.ExitStack() as running:
        yield lambda app, **options: running.enter_context(served(app, **options))


@pytest.fixture
def guard(serve: Serve, judge: Authorizer) -> Callable[..., int]:
    """Return a function that serves an application behind the middleware, and returns its port."""
    return lambda app, **options: serve(AuthzMiddleware(app, options.pop("judge", judge), **options))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with all that the application sees of a request and of its caller."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    organization = scope["state"]["organization"]
    seen = {
        "path": scope["path"],
        "root_path": scope["root_path"],
        "verb": scope["method"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "principal": scope["state"]["principal"].org_id,
        "current": current_principal().org_id,
        "organization": None if organization is None else [organization.name, organization.tenant],
        "body": body.decode("latin-1"),
    }
    text = json.dumps(seen).encode()
    headers = [(b"content-length", b"%d" % len(text)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


ECHO: App = echo
