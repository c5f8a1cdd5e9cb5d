"""One table of plain HTTP requests at every door: Envoy, nginx and Caddy that ask, and the doors in process."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Request, Security

from authz import Authorizer, Principal, wsgi
from authz.asgi import AuthzMiddleware
from authz.asgi.protocol import App
from authz.demo.issuer.signing import SigningKey
from authz.errors import (
    IntrospectionUnavailableError,
    KeySetUnavailableError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenInactiveError,
)
from authz.fastapi import Caller, RefusedError, refused
from authz.issuer.verifier import Verifier
from tests.doubles import ABSENT, AUDIENCE, ISSUER, ORG, jwks, m2m_claims
from tests.e2e.mesh import DENIED, METERED, PUBLIC_CALL, SUSPENDED, TENANT, Mesh, Seen, http_echo
from tests.e2e.test_same_verdict import FORGED, GLOBEX, GUARDED, TRUSTED
from tests.http.client import Headers, Reply, ask, bearer
from tests.http.serving import served, served_wsgi
from tests.server.forward_auth.site import forward_doors


async def echo(scope: Any, _receive: Any, send: Any) -> None:
    """Answer as the mesh's upstream does."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    body = json.dumps({"path": scope["path"], "headers": headers}).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


def routes(judge: Authorizer) -> App:
    """Return an application in which single routes ask for their caller; the one that needs none does not."""
    app = FastAPI()
    app.add_exception_handler(RefusedError, refused)

    @app.get(PUBLIC_CALL)
    def public() -> dict[str, Any]:
        # Nothing stands before it that would remove what its caller has forged.
        return {"path": PUBLIC_CALL, "headers": []}

    @app.get("/{path:path}")
    def guarded(path: str, request: Request, _: Annotated[Principal, Security(Caller(judge))]) -> dict[str, Any]:
        return {"path": path, "headers": list(request.headers.items())}

    return app


def wsgi_echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer as the mesh's upstream does."""
    headers = [
        (name.removeprefix("HTTP_").lower().replace("_", "-"), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    body = json.dumps({"path": environ["PATH_INFO"], "headers": headers}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


Running = contextlib.AbstractContextManager[int]

IN_PROCESS: dict[str, Callable[[Authorizer], Running]] = {
    "asgi": lambda judge: served(AuthzMiddleware(echo, judge)),
    "fastapi": lambda judge: served(routes(judge)),
    "wsgi": lambda judge: served_wsgi(wsgi.AuthzMiddleware(wsgi_echo, judge), "gunicorn"),
}

PROXIES = ("nginx", "caddy")
"""Those that ask over HTTP."""


def judge(mesh: Mesh, key: SigningKey) -> Authorizer:
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
    return Authorizer(verifier, policy=mesh.policy())


def port_of(target: str) -> int:
    return int(target.rpartition(":")[2])


@pytest.fixture(scope="module")
def doors(mesh: Mesh, ec_key: SigningKey) -> Iterator[dict[str, int]]:
    """Return the port of each door."""
    with contextlib.ExitStack() as running:
        yield {"envoy": port_of(mesh.target)} | {
            name: running.enter_context(build(judge(mesh, ec_key))) for name, build in IN_PROCESS.items()
        }


@pytest.fixture(scope="module")
def proxies(mesh: Mesh, ec_key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Return the port of each proxy that asks over HTTP."""
    with contextlib.ExitStack() as running:
        api, folder = running.enter_context(http_echo()), tmp_path_factory.mktemp("proxies")
        doors = running.enter_context(forward_doors(judge(mesh, ec_key), folder, api, *PROXIES))
        yield {name: port_of(address) for name, address in doors.items()}


HEADERS: dict[str, Headers] = {
    "plain": [("x-trace", "1")],
    "forged": [
        ("x-org-id", FORGED),
        ("X-ORG-ID", FORGED),
        ("x_org_id", FORGED),
        ("x-org-id-bin", FORGED),
        ("grpc-metadata-x-org-id", FORGED),
        ("x-scopes", "admin"),
        ("x-authz-principal-bin", FORGED),
        ("x-org-tenant", "tenant-1"),
    ],
}

REFUSED: dict[str, tuple[int, str]] = {
    "missing": (401, "TOKEN_MISSING"),
    "basic": (401, "TOKEN_MALFORMED"),
    "malformed": (401, "TOKEN_MALFORMED"),
    "two-tokens": (401, "TOKEN_MALFORMED"),
    "expired": (401, "TOKEN_EXPIRED"),
    "forged-signature": (401, "SIGNATURE_INVALID"),
    "unknown-key": (401, "KEY_NOT_FOUND"),
    "algorithm-none": (401, "ALGORITHM_NOT_ALLOWED"),
    "other-audience": (401, "CLAIM_INVALID"),
    "other-issuer": (401, "CLAIM_INVALID"),
    "user-token": (401, "CLAIM_INVALID"),
    "no-organization": (401, "CLAIM_MISSING"),
    "bound": (401, "CLAIM_INVALID"),
    "suspended": (403, "ORGANIZATION_SUSPENDED"),
}
ADMITTED = {"acme": ORG, "globex": GLOBEX, "without-scopes": ORG, "with-tenant": TENANT}


def tokens(key: SigningKey, other: SigningKey) -> dict[str, Headers]:
    def sign(**changes: Any) -> str:
        return key.sign(m2m_claims(time.time(), **changes))

    good, now = sign(), int(time.time())
    return {
        "acme": bearer(good),
        "globex": bearer(sign(org_id=GLOBEX)),
        "with-tenant": bearer(sign(org_id=TENANT)),
        "without-scopes": bearer(sign(scope="")),
        "suspended": bearer(sign(org_id=SUSPENDED)),
        "missing": [],
        "basic": [("authorization", "Basic YWNtZTpzZWNyZXQ=")],
        "malformed": bearer("opaque-token"),
        "two-tokens": bearer(good) * 2,
        "expired": bearer(sign(iat=now - 900, exp=now - 600)),
        "forged-signature": bearer(other.sign(m2m_claims(time.time()), {"kid": key.kid})),
        "unknown-key": bearer(other.sign(m2m_claims(time.time()))),
        "algorithm-none": bearer(key.sign(m2m_claims(time.time()), {"alg": "none"})),
        "other-audience": bearer(sign(aud="client_01JYOTHER")),
        "other-issuer": bearer(sign(iss="https://evil.authkit.app")),
        "user-token": bearer(sign(sub="user_01JYPERSON", sid="session_01JY")),
        "no-organization": bearer(sign(org_id=ABSENT)),
        "bound": bearer(sign(cnf={"x5t#S256": "A" * 43})),
    }


def expected(case: str, path: str) -> tuple[int, str]:
    if path == PUBLIC_CALL:
        return 200, ""
    if case in REFUSED:
        return REFUSED[case]
    return (403, "POLICY_DENIED") if path == DENIED else (200, "")


def told(reply: Reply) -> dict[str, list[str]]:
    """Return everything that the backend saw under a name that only a door may use."""
    seen = Seen.of(reply.body)
    # Caddy sends a name that has no value with an empty one.
    told = {name: seen.values(name) for name in seen.names if name in TRUSTED.reserved}
    return {name: values for name, values in told.items() if values != [""]}


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("path", [GUARDED, DENIED, PUBLIC_CALL])
@pytest.mark.parametrize("case", [*ADMITTED, *REFUSED])
def test_every_door_has_the_same_verdict(
    doors: dict[str, int],
    proxies: dict[str, int],
    ec_key: SigningKey,
    other_key: SigningKey,
    *,
    case: str,
    path: str,
    headers: str,
) -> None:
    extra = HEADERS[headers]
    sent = [*extra, *tokens(ec_key, other_key)[case], *extra]
    # Where proxies ask over HTTP, a request with a name of ours is refused, whoever makes it; and nginx itself answers
    # 400 to two tokens.
    asked = doors | proxies if headers == "plain" and case != "two-tokens" else doors

    replies = {name: ask(port, path, sent) for name, port in asked.items()}

    assert {name: (reply.status, reply.reason) for name, reply in replies.items()} == dict.fromkeys(
        asked, expected(case, path)
    )
    first, *others = (told(each) if each.status == 200 else each.ours for each in replies.values())
    assert others == [first] * len(others)
    if path != PUBLIC_CALL and case in ADMITTED and path != DENIED:
        assert told(replies["envoy"])["x-org-id"] == [ADMITTED[case]]
    assert not any(FORGED.encode() in reply.body for reply in replies.values())


def test_every_door_counts_alike(doors: dict[str, int], ec_key: SigningKey) -> None:
    sent = bearer(ec_key.sign(m2m_claims(time.time(), org_id=METERED[3])))

    replies = {name: [ask(port, GUARDED, sent) for _ in range(4)] for name, port in doors.items()}

    assert {name: [each.status for each in some] for name, some in replies.items()} == {
        name: [200, 200, 200, 429] for name in doors
    }
    first, *others = (some[-1].ours for some in replies.values())
    assert others == [first] * len(others)


@pytest.fixture(scope="module")
def told_doors(mesh: Mesh) -> Iterator[dict[str, int]]:
    """Return the doors in front of one judge, which says what a test wants."""
    with contextlib.ExitStack() as running:
        yield {"envoy": port_of(mesh.told), "envoy-lenient": port_of(mesh.told_lenient)} | {
            name: running.enter_context(build(mesh.judge)) for name, build in IN_PROCESS.items()
        }


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (TokenInactiveError(), 401, "TOKEN_INACTIVE"),
        (PermissionDeniedError(), 403, "PERMISSION_DENIED"),
        (ResourceExhaustedError(retry_after=0.25), 429, "QUOTA_EXCEEDED"),
        (KeySetUnavailableError(retry_after=7), 503, "KEY_SET_UNAVAILABLE"),
        (IntrospectionUnavailableError(), 503, "INTROSPECTION_UNAVAILABLE"),
        (RuntimeError("a secret detail"), 500, "INTERNAL"),
    ],
    ids=["unauthenticated", "forbidden", "quota", "no-keys", "no-introspection", "fault"],
)
def test_every_door_refuses_alike_whatever_the_reason(
    mesh: Mesh, told_doors: dict[str, int], error: BaseException, status: int, reason: str
) -> None:
    mesh.judge.error = error

    replies = {name: ask(port, GUARDED) for name, port in told_doors.items()}

    assert {name: (reply.status, reply.reason) for name, reply in replies.items()} == dict.fromkeys(
        told_doors, (status, reason)
    )
    first, *others = (reply.ours for reply in replies.values())
    assert others == [first] * len(others)
    assert not any(b"secret" in reply.body for reply in replies.values())


FORMS = {
    "gRPC-Web": "application/grpc-web+proto",
    "gRPC-Web text": "application/grpc-web-text",
    "Connect stream": "application/connect+json",
    "Connect": "application/proto",
}


@pytest.mark.parametrize("kind", FORMS.values(), ids=FORMS)
def test_every_door_writes_a_refusal_for_the_protocol_of_its_caller(doors: dict[str, int], kind: str) -> None:
    replies = {
        name: ask(port, GUARDED, [("content-type", kind)], verb="GET")
        for name, port in doors.items()
        if name != "fastapi"
    }

    # Envoy leaves the type of an empty body out.
    first, *others = (
        (reply.status, [entry for entry in reply.ours[1] if reply.body or entry[0] != "content-type"], reply.body)
        for reply in replies.values()
    )
    assert others == [first] * len(others)
