"""One table of calls at every door: interceptors of three servers, and a real Envoy that asks ``authz serve``."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import interceptors
import interceptors.aio
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.demo.issuer.signing import SigningKey
from authz.demo.v1.ledger_pb2 import EntryDraft, PostEntryRequest
from authz.errors import (
    IntrospectionUnavailableError,
    KeySetUnavailableError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenInactiveError,
)
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from tests.certificates import Certificate
from tests.doubles import ABSENT, AUDIENCE, ISSUER, ORG, jwks, m2m_claims
from tests.e2e.connected import connect_server
from tests.e2e.mesh import (
    DENIED,
    METERED,
    PUBLIC_CALL,
    SHOWN,
    SUSPENDED,
    TENANT,
    UNSERVED,
    Mesh,
    Seen,
    echo,
    tls_channel,
)
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.servers import Loop, aio_server, channel_to, sync_server
from tests.interceptors.ways import Client, Reachable, Way

GUARDED = "/tests.Guarded/Call"
HANDLERS = {name: echo(name) for name in (GUARDED, DENIED, PUBLIC_CALL)} | {
    SHOWN: echo(SHOWN, PostEntryRequest.FromString)
}
CONNECTED = dict.fromkeys((GUARDED, DENIED, PUBLIC_CALL), bytes) | {SHOWN: PostEntryRequest}

GLOBEX = "org_01JYGLOBEX0000000000000000"
FORGED = "org_01JYFORGED0000000000000000"
TRUSTED = TrustedMetadata()

METADATA: dict[str, list[tuple[str, str | bytes]]] = {
    "plain": [("x-trace", "1")],
    "forged": [
        *TRUSTED.entries(Principal(org_id=FORGED, client_id="c", subject="c", expires_at=253_402_300_799.0)),
        ("x-org-id", FORGED),
        ("x-scopes", "admin"),
        *[(name, FORGED.encode() if name.endswith("-bin") else FORGED) for name in sorted(TRUSTED.reserved)],
    ],
}
# Envoy takes a hundred headers, so not all of them can stand on both sides.
AFTERWARDS = 8

Verdict = tuple[str, str]
"""A status code and either the reason, or whose call the backend takes it for."""

REFUSED: dict[str, str] = {
    "missing": "TOKEN_MISSING",
    "malformed": "TOKEN_MALFORMED",
    "two-tokens": "TOKEN_MALFORMED",
    "expired": "TOKEN_EXPIRED",
    "forged-signature": "SIGNATURE_INVALID",
    "unknown-key": "KEY_NOT_FOUND",
    "algorithm-none": "ALGORITHM_NOT_ALLOWED",
    "other-audience": "CLAIM_INVALID",
    "other-issuer": "CLAIM_INVALID",
    "user-token": "CLAIM_INVALID",
    "no-organization": "CLAIM_MISSING",
    "bound-and-stolen": "CLAIM_INVALID",
    "bound-and-unproven": "CLAIM_INVALID",
}
ADMITTED: dict[str, str] = {
    "acme": ORG,
    "globex": GLOBEX,
    "without-scopes": ORG,
    "bound-and-proven": ORG,
    "with-tenant": TENANT,
}


def expected(case: str, method: str) -> Verdict:
    if method == PUBLIC_CALL:
        return "OK", "anonymous"
    if case in REFUSED:
        return "UNAUTHENTICATED", REFUSED[case]
    if case == "suspended":
        return "PERMISSION_DENIED", "ORGANIZATION_SUSPENDED"
    if method == DENIED:
        return "PERMISSION_DENIED", "POLICY_DENIED"
    return ("OK", ADMITTED[case]) if method == GUARDED else ("UNIMPLEMENTED", "")


# ---- Four doors; but for that of Connect a client reaches each by TLS, with or without its certificate ----


@pytest.fixture(scope="module")
def certificates(mesh: Mesh) -> dict[str, Certificate]:
    return {name: mesh.authority.issue(common_name=name) for name in ("owner", "other")}


Door = Callable[[str], grpc.Channel]
"""Returns the channel of a client, by the name of its certificate; the empty name has none."""


def judge(mesh: Mesh, key: SigningKey) -> Authorizer:
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
    return Authorizer(verifier, policy=mesh.policy())


@pytest.fixture(scope="module")
def doors(
    mesh: Mesh, certificates: dict[str, Certificate], ec_key: SigningKey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Door]]:
    def reachable(name: str) -> Reachable:
        folder: Path = tmp_path_factory.mktemp(name)
        return Reachable(mesh.authority, folder / "s")

    def reach(server: Reachable) -> Door:
        return lambda name: server.channel(
            Client(Way.MUTUAL_TLS, certificates[name]) if name else Client(Way.TLS),
        )

    with contextlib.ExitStack() as running:
        loop = Loop()
        running.callback(loop.close)
        sync, aio = reachable("sync"), reachable("aio")
        behind_sync, behind_aio = (
            [interceptors.AuthzInterceptor(judge(mesh, ec_key))],
            [interceptors.aio.AuthzInterceptor(judge(mesh, ec_key))],
        )
        running.enter_context(sync_server(HANDLERS, behind_sync, bind=sync.bind))
        running.enter_context(aio_server(loop, HANDLERS, behind_aio, bind=aio.bind))
        through_envoy = {
            name: running.enter_context(tls_channel(mesh, certificates.get(name))) for name in ("", *certificates)
        }
        connected = running.enter_context(connect_server(judge(mesh, ec_key), CONNECTED))
        connect = running.enter_context(channel_to(connected))
        in_process = {"grpc": reach(sync), "aio": reach(aio), "connect": lambda _name: connect}
        yield {**in_process, "envoy": through_envoy.__getitem__}
        for server in (sync, aio):
            server.close()


@pytest.fixture(scope="module")
def credentials(
    ec_key: SigningKey, other_key: SigningKey, certificates: dict[str, Certificate]
) -> dict[str, tuple[list[str], str]]:
    """Return by case what is sent as tokens, and with whose certificate; the same at every door."""

    def claims(**changes: Any) -> dict[str, Any]:
        return m2m_claims(time.time(), **changes)

    def sign(**changes: Any) -> str:
        return ec_key.sign(claims(**changes))

    good = sign()
    bound = sign(cnf={"x5t#S256": certificates["owner"].thumbprint})
    return {
        "acme": ([good], ""),
        "globex": ([sign(org_id=GLOBEX)], ""),
        "with-tenant": ([sign(org_id=TENANT)], ""),
        "suspended": ([sign(org_id=SUSPENDED)], ""),
        "without-scopes": ([sign(scope="")], ""),
        "missing": ([], ""),
        "malformed": (["opaque-token"], ""),
        "two-tokens": ([good, good], ""),
        "expired": ([sign(iat=int(time.time()) - 900, exp=int(time.time()) - 600)], ""),
        "forged-signature": ([other_key.sign(claims(), {"kid": ec_key.kid})], ""),
        "unknown-key": ([other_key.sign(claims())], ""),
        "algorithm-none": ([ec_key.sign(claims(), {"alg": "none"})], ""),
        "other-audience": ([sign(aud="client_01JYOTHER")], ""),
        "other-issuer": ([sign(iss="https://evil.authkit.app")], ""),
        "user-token": ([sign(sub="user_01JYPERSON", sid="session_01JY")], ""),
        "no-organization": ([sign(org_id=ABSENT)], ""),
        "bound-and-proven": ([bound], "owner"),
        "bound-and-stolen": ([bound], "other"),
        "bound-and-unproven": ([bound], ""),
    }


def told_to_backend(outcome: Outcome) -> dict[str, list[str]]:
    """Return everything that the backend saw under a name that only we may use."""
    seen = Seen.of(outcome.messages[0])
    return {name: seen.values(name) for name in seen.names if name in TRUSTED.reserved}


def verdict(outcome: Outcome) -> Verdict:
    if outcome.code is grpc.StatusCode.OK:
        return "OK", ",".join(told_to_backend(outcome).get("x-org-id", ["anonymous"]))
    return outcome.code.name, outcome.reason if "grpc-status-details-bin" in outcome.trailers else ""


def what_the_caller_gets(outcome: Outcome) -> Any:
    """Return all of it that is ours, byte for byte, and what the backend was told."""
    names = ("www-authenticate", "retry-after", "grpc-retry-pushback-ms", "grpc-status-details-bin")
    trailers = {name: outcome.trailers[name] for name in names if name in outcome.trailers}
    return outcome.details, trailers, [told_to_backend(outcome)] if outcome.messages else []


@pytest.mark.parametrize("metadata", METADATA)
@pytest.mark.parametrize("method", [GUARDED, DENIED, PUBLIC_CALL, UNSERVED])
@pytest.mark.parametrize("case", [*ADMITTED, *REFUSED, "suspended"])
def test_every_door_has_the_same_verdict(
    doors: dict[str, Door], credentials: dict[str, tuple[list[str], str]], *, case: str, method: str, metadata: str
) -> None:
    tokens, client = credentials[case]
    if client or method == UNSERVED:
        # connectrpc shows interceptors no certificate, and answers for unknown methods before it asks them.
        doors = {name: door for name, door in doors.items() if name != "connect"}
    extra = METADATA[metadata]
    entries = [*extra, *[entry for token in tokens for entry in bearer(token)], *extra[:AFTERWARDS]]

    outcomes = {name: call(door(client), "unary_unary", method, metadata=entries) for name, door in doors.items()}

    assert {name: verdict(outcome) for name, outcome in outcomes.items()} == dict.fromkeys(
        doors, expected(case, method)
    )
    first, *others = map(what_the_caller_gets, outcomes.values())
    assert others == [first] * len(others)
    assert not any(outcome.leaks(FORGED) for outcome in outcomes.values())


@pytest.mark.parametrize(
    ("values", "code"), [(["slow"], "PERMISSION_DENIED"), (["fast"], "OK"), (["slow", "fast"], "OK")], ids=str
)
def test_every_door_compares_the_same_headers(
    doors: dict[str, Door], credentials: dict[str, tuple[list[str], str]], values: list[str], code: str
) -> None:
    entries = [*bearer(credentials["acme"][0][0]), *[("x-mode", value) for value in values]]

    codes = {name: call(door(""), "unary_unary", GUARDED, metadata=entries).code for name, door in doors.items()}

    assert {name: found.name for name, found in codes.items()} == dict.fromkeys(doors, code)


@pytest.mark.parametrize("named", ["", ORG, TENANT, "tenant-7", "tenant-8", FORGED], ids=lambda name: name or "nobody")
@pytest.mark.parametrize("case", ["acme", "with-tenant"])
def test_every_door_lets_a_request_name_the_same_organizations(
    doors: dict[str, Door], credentials: dict[str, tuple[list[str], str]], case: str, named: str
) -> None:
    entries = bearer(credentials[case][0][0])
    requests = [PostEntryRequest(draft=EntryDraft(org_id=named)).SerializeToString()]

    outcomes = {
        name: call(door(""), "unary_unary", SHOWN, metadata=entries, requests=requests) for name, door in doors.items()
    }

    own = ["", ORG] if case == "acme" else ["", TENANT, "tenant-7"]
    wanted = ("OK", ADMITTED[case]) if named in own else ("PERMISSION_DENIED", "ORGANIZATION_MISMATCH")
    assert {name: verdict(outcome) for name, outcome in outcomes.items()} == dict.fromkeys(doors, wanted)
    first, *others = map(what_the_caller_gets, outcomes.values())
    assert others == [first] * len(others)


def test_every_door_wants_the_scopes_that_the_proto_asks_for(
    doors: dict[str, Door], credentials: dict[str, tuple[list[str], str]]
) -> None:
    entries = bearer(credentials["without-scopes"][0][0])

    outcomes = {name: call(door(""), "unary_unary", SHOWN, metadata=entries) for name, door in doors.items()}

    wanted = ("PERMISSION_DENIED", "INSUFFICIENT_SCOPE")
    assert {name: verdict(outcome) for name, outcome in outcomes.items()} == dict.fromkeys(doors, wanted)
    first, *others = map(what_the_caller_gets, outcomes.values())
    assert others == [first] * len(others)


def test_every_door_counts_alike(doors: dict[str, Door], ec_key: SigningKey) -> None:
    entries = bearer(ec_key.sign(m2m_claims(time.time(), org_id=METERED[-1])))
    outcomes = {
        name: [call(door(""), "unary_unary", GUARDED, metadata=entries) for _ in range(4)]
        for name, door in doors.items()
    }

    wanted = [*[("OK", METERED[-1])] * 3, ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")]
    assert {name: [*map(verdict, calls)] for name, calls in outcomes.items()} == dict.fromkeys(doors, wanted)
    first, *others = (what_the_caller_gets(calls[-1]) for calls in outcomes.values())
    assert others == [first] * len(others)


# ---- What no token brings about ----


@pytest.fixture(scope="module")
def told_doors(mesh: Mesh) -> Iterator[dict[str, grpc.Channel]]:
    """Return the doors in front of one judge, which says what a test wants."""
    with contextlib.ExitStack() as running:
        loop = Loop()
        running.callback(loop.close)
        sync = sync_server(HANDLERS, [interceptors.AuthzInterceptor(mesh.judge)])
        aio = aio_server(loop, HANDLERS, [interceptors.aio.AuthzInterceptor(mesh.judge)])
        addresses = {
            "grpc": running.enter_context(sync),
            "aio": running.enter_context(aio),
            "connect": running.enter_context(connect_server(mesh.judge, CONNECTED)),
            "envoy": mesh.told,
            "envoy-lenient": mesh.told_lenient,
        }
        yield {name: running.enter_context(channel_to(address)) for name, address in addresses.items()}


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TokenInactiveError(), "UNAUTHENTICATED", "TOKEN_INACTIVE"),
        (PermissionDeniedError(), "PERMISSION_DENIED", "PERMISSION_DENIED"),
        (ResourceExhaustedError(retry_after=0.25), "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        (KeySetUnavailableError(retry_after=7), "UNAVAILABLE", "KEY_SET_UNAVAILABLE"),
        (IntrospectionUnavailableError(), "UNAVAILABLE", "INTROSPECTION_UNAVAILABLE"),
    ],
    ids=["unauthenticated", "forbidden", "quota", "no-keys", "no-introspection"],
)
def test_every_door_refuses_alike_whatever_the_reason(
    mesh: Mesh, told_doors: dict[str, grpc.Channel], error: BaseException, code: str, reason: str
) -> None:
    mesh.judge.error = error
    outcomes = {name: call(channel, "unary_unary", GUARDED) for name, channel in told_doors.items()}

    assert {name: verdict(outcome) for name, outcome in outcomes.items()} == dict.fromkeys(told_doors, (code, reason))
    first, *others = map(what_the_caller_gets, outcomes.values())
    assert others == [first] * len(others)
    assert not any(outcome.leaks("a secret detail") for outcome in outcomes.values())
