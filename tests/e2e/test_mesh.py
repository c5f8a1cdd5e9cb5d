"""What a real Envoy lets through to an upstream that believes every header, and what it never does."""

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from authz.call.metadata import TrustedMetadata
from authz.v1.principal_pb2 import Principal as PrincipalMessage
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG
from tests.e2e import http1
from tests.e2e.mesh import OPEN, PUBLIC, PUBLIC_CALL, TENANT, Mesh, Seen, seen_by_upstream
from tests.interceptors.client import bearer
from tests.interceptors.servers import channel_to

CALL = "/tests.Guarded/Call"
FORGED = "org_01JYFORGED0000000000000000"
TRUSTED = TrustedMetadata()

Sign = Callable[..., str]


def refusal(channel: grpc.Channel, path: str, metadata: object, timeout: float = 20) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(b"", metadata=metadata, timeout=timeout)
    code: grpc.StatusCode = caught.value.code()
    return code


def reserved(seen: Seen) -> dict[str, list[str]]:
    """Return every header by a name that only we may use, in whatever spelling."""
    return {name: seen.values(name) for name in seen.names if name in TRUSTED.reserved}


def known_to_upstream(seen: Seen) -> PrincipalMessage:
    [text] = seen.values("x-authz-principal-bin")
    return PrincipalMessage.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))


# ---- What the upstream is told ----


def test_upstream_gets_every_trusted_name_once(mesh_channel: grpc.Channel, sign: Sign) -> None:
    seen = seen_by_upstream(mesh_channel, CALL, bearer(sign()))

    assert {name: values for name, values in reserved(seen).items() if not name.endswith("-bin")} == {
        "x-org-id": [ORG],
        "x-client-id": [CLIENT],
        "x-scopes": ["ledger:read ledger:write"],
    }


def test_upstream_gets_the_tenant_where_the_policy_knows_it(mesh_channel: grpc.Channel, sign: Sign) -> None:
    seen = seen_by_upstream(mesh_channel, CALL, bearer(sign(org_id=TENANT)))

    assert (seen.values("x-org-tenant"), known_to_upstream(seen).tenant) == (["tenant-7"], "tenant-7")


def test_principal_arrives_as_a_message(mesh_channel: grpc.Channel, sign: Sign) -> None:
    principal = known_to_upstream(seen_by_upstream(mesh_channel, CALL, bearer(sign(jti="01JYPRINCIPAL"))))

    assert (principal.org_id, principal.client_id, principal.subject) == (ORG, CLIENT, CLIENT)
    assert (principal.issuer, list(principal.audience), principal.token_id) == (ISSUER, [AUDIENCE], "01JYPRINCIPAL")
    assert list(principal.scopes) == ["ledger:read", "ledger:write"]
    assert principal.expires_at.seconds - principal.issued_at.seconds == 300


def test_principal_arrives_over_http_too(mesh: Mesh, sign: Sign) -> None:
    answer = http1.get(mesh.target, "/accounts", headers=bearer(sign(jti="01JYOVERHTTP")))

    assert known_to_upstream(Seen.of(answer.body)).token_id == "01JYOVERHTTP"


@pytest.mark.parametrize("binary", [True, False])
def test_upstream_never_sees_what_the_caller_forged(mesh_channel: grpc.Channel, sign: Sign, *, binary: bool) -> None:
    """In two goes, for Envoy takes a hundred headers."""
    names = [name for name in sorted(TRUSTED.reserved) if name.endswith("-bin") is binary]
    forged = [(name, FORGED.encode() if binary else FORGED) for name in names]
    seen = seen_by_upstream(mesh_channel, CALL, [*forged, *bearer(sign()), *forged])

    assert reserved(seen).keys() == {"x-org-id", "x-client-id", "x-scopes", "x-authz-principal-bin"}
    assert all(len(values) == 1 for values in reserved(seen).values())
    assert FORGED not in repr(seen.headers)
    assert known_to_upstream(seen).org_id == ORG


@pytest.mark.parametrize(
    "name",
    [
        *("x-org-id", "X-ORG-ID", "x-org-id-bin", "x_org_id", "X-Org_Id", "x-authz-principal-bin"),
        *("Grpc-Metadata-X-Org-Id", "grpcgateway-x-org-id", "grpc-metadata-x_org_id"),
    ],
)
@pytest.mark.parametrize("copies", [1, 2])
def test_http_upstream_never_sees_what_the_caller_forged(mesh: Mesh, sign: Sign, name: str, copies: int) -> None:
    forged = [(name, FORGED)] * copies
    answer = http1.get(mesh.target, "/accounts", headers=[*forged, *bearer(sign()), *forged])
    seen = Seen.of(answer.body)

    assert FORGED not in answer.body
    assert reserved(seen).keys() == {"x-org-id", "x-client-id", "x-scopes", "x-authz-principal-bin"}


@pytest.mark.parametrize(("characters", "omitted"), [(1000, ()), (1300, ("scopes",)), (2048, ("scopes",))])
def test_scopes_of_a_caller_never_make_its_call_too_large_for_a_grpc_backend(
    mesh_channel: grpc.Channel, sign: Sign, characters: int, omitted: tuple[str, ...]
) -> None:
    """A gRPC server refuses, at random, calls with more metadata than 8 KiB."""
    words = " ".join(f"resource{number:03}:read" for number in range(160))[:characters].rstrip().split(" ")
    token = bearer(sign(scope=" ".join(words)))
    seen = [seen_by_upstream(mesh_channel, CALL, token) for _ in range(60)]

    assert {tuple(each.values("x-scopes")) for each in seen} == {(" ".join(sorted(words)),)}
    assert {tuple(known_to_upstream(each).omitted) for each in seen} == {omitted}


def test_forged_scopes_do_not_stand_in_for_missing_ones(mesh_channel: grpc.Channel, sign: Sign) -> None:
    entries = [("x-scopes", "admin"), *bearer(sign(scope=""))]
    seen = seen_by_upstream(mesh_channel, CALL, entries)

    assert seen.values("x-scopes") == []


@pytest.mark.parametrize("path", [PUBLIC, f"{PUBLIC}?x=1"])
def test_forged_names_are_stripped_from_public_requests(mesh: Mesh, path: str) -> None:
    answer = http1.get(mesh.target, path, headers=[("x-org-id", FORGED), ("x-org-id-bin", FORGED)])

    assert answer.status == 200
    assert reserved(Seen.of(answer.body)) == {}


def test_forged_names_are_stripped_where_no_check_runs(mesh_channel: grpc.Channel) -> None:
    forged = [("x-org-id", FORGED), ("x-authz-principal-bin", b"forged"), ("x-envoy-auth-failure-mode-allowed", "true")]
    prefixed = [("grpc-metadata-x-org-id", FORGED), ("grpcgateway-x-authz-principal-bin", b"forged")]
    seen = seen_by_upstream(mesh_channel, OPEN, [*forged, *prefixed])

    assert reserved(seen) == {}
    assert seen.names.isdisjoint(key for key, _ in prefixed)
    assert "x-envoy-auth-failure-mode-allowed" not in seen.names


def test_upstream_does_without_the_token_where_that_is_wanted(mesh: Mesh, sign: Sign) -> None:
    token = bearer(sign())
    with channel_to(mesh.removing) as channel:
        over_grpc = seen_by_upstream(channel, CALL, token)
        unguarded = seen_by_upstream(channel, PUBLIC_CALL, token)
        assert refusal(channel, CALL, ()) is grpc.StatusCode.UNAUTHENTICATED
    over_http, public = (
        Seen.of(http1.get(mesh.removing, path, headers=[("Authorization", token[0][1])]).body)
        for path in ("/accounts", PUBLIC)
    )

    assert [seen.values("x-org-id") for seen in (over_grpc, over_http)] == [[ORG], [ORG]]
    assert [seen.values("authorization") for seen in (over_grpc, over_http, unguarded, public)] == [[], [], [], []]


def test_upstream_gets_the_token_by_default(mesh: Mesh, mesh_channel: grpc.Channel, sign: Sign) -> None:
    token = bearer(sign())

    assert seen_by_upstream(mesh_channel, CALL, token).values("authorization") == [token[0][1]]
    over_http = http1.get(mesh.target, "/accounts", headers=token)
    assert Seen.of(over_http.body).values("authorization") == [token[0][1]]


# ---- What gets in ----


def test_two_tokens_do_not_get_in(mesh_channel: grpc.Channel, mesh: Mesh, sign: Sign) -> None:
    twice = [*bearer(sign()), *bearer(sign())]

    assert refusal(mesh_channel, CALL, twice) is grpc.StatusCode.UNAUTHENTICATED
    assert http1.get(mesh.target, "/accounts", headers=twice).status == 401


def test_query_is_no_way_around_the_check(mesh_channel: grpc.Channel, sign: Sign) -> None:
    assert refusal(mesh_channel, f"{CALL}?{PUBLIC}", ()) is grpc.StatusCode.UNAUTHENTICATED
    assert seen_by_upstream(mesh_channel, f"{CALL}?x=1", bearer(sign())).values("x-org-id") == [ORG]


@pytest.mark.parametrize("path", ["/tests.Guarded", "/tests.Guarded/Call/More", "/tests.Guarded/", "/"])
def test_odd_grpc_paths_are_denied_even_with_a_token(mesh_channel: grpc.Channel, sign: Sign, path: str) -> None:
    assert refusal(mesh_channel, path, bearer(sign())) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("path", "served"), [("/public/../accounts", "/accounts"), ("//accounts", "/accounts"), ("/./a/b", "/a/b")]
)
def test_path_is_checked_as_it_is_served(mesh: Mesh, sign: Sign, path: str, served: str) -> None:
    assert Seen.of(http1.get(mesh.target, path, headers=bearer(sign())).body).path == served


@pytest.mark.parametrize("path", ["/accounts%2fmine", "/accounts%5Cmine"])
def test_escaped_slashes_are_redirected(mesh: Mesh, sign: Sign, path: str) -> None:
    assert http1.get(mesh.target, path, headers=bearer(sign())).status == 307


@pytest.mark.parametrize(
    "credentials", ["Bearer \xff\xfe", "Bearer caf\xe9", "Bearer a.b.c,", "bearer", "Basic YTpi", 'Bearer "a.b.c"']
)
def test_any_bytes_are_a_denial(mesh: Mesh, credentials: str) -> None:
    assert http1.get(mesh.target, "/accounts", headers=[("authorization", credentials)]).status == 401


def test_scheme_may_be_written_in_any_case(mesh: Mesh, sign: Sign) -> None:
    assert http1.get(mesh.target, "/accounts", headers=[("Authorization", f"bEARER {sign()}")]).status == 200


@pytest.mark.parametrize("length", [8193, 50_000])
def test_token_that_is_too_long_is_a_denial(mesh: Mesh, mesh_channel: grpc.Channel, length: int) -> None:
    token = bearer("a" * length)

    assert refusal(mesh_channel, CALL, token) is grpc.StatusCode.UNAUTHENTICATED
    assert http1.get(mesh.target, "/accounts", headers=token).status == 401


def test_longest_token_that_envoy_takes_is_a_denial_too(mesh: Mesh) -> None:
    assert http1.get(mesh.target, "/accounts", headers=bearer("a" * 61_000)).status == 401


# ---- failure_mode_allow, which lets through every request that nobody could decide ----


def test_outage_of_the_keys_stays_shut_where_failures_are_allowed(mesh: Mesh, sign: Sign) -> None:
    with channel_to(mesh.lenient) as channel:
        assert refusal(channel, CALL, bearer(sign())) is grpc.StatusCode.UNAVAILABLE
    assert http1.get(mesh.lenient, "/accounts", headers=bearer(sign())).status == 503


@pytest.mark.parametrize("path", ["/accounts", "/"])
def test_missing_token_stays_out_where_failures_are_allowed(mesh: Mesh, path: str) -> None:
    assert http1.get(mesh.lenient, path).status == 401


# ---- Load, and the end of the authorization server ----


def test_server_that_died_is_unavailable_until_it_is_back(mesh: Mesh, mesh_channel: grpc.Channel, sign: Sign) -> None:
    token = bearer(sign())
    assert seen_by_upstream(mesh_channel, CALL, token).values("x-org-id") == [ORG]
    mesh.kill_server()
    try:
        during = refusal(mesh_channel, CALL, token), refusal(mesh_channel, CALL, ())
        over_http = http1.get(mesh.target, "/accounts", headers=token).status
    finally:
        mesh.start_server()

    assert (during, over_http) == ((grpc.StatusCode.UNAVAILABLE,) * 2, 503)
    assert seen_by_upstream(mesh_channel, CALL, token).values("x-org-id") == [ORG]
    assert http1.get(mesh.target, "/accounts", headers=token).status == 200


def test_first_checks_in_parallel_are_all_decided(mesh: Mesh, sign: Sign) -> None:
    tokens = [sign(jti=f"token-{number}", org_id=f"org_{number}") for number in range(20)]
    mesh.kill_server()
    mesh.start_server()

    def call(token: str) -> list[str]:
        with channel_to(mesh.target) as channel:
            return seen_by_upstream(channel, CALL, bearer(token)).values("x-org-id")

    with ThreadPoolExecutor(20) as pool:
        seen = list(pool.map(call, tokens))

    assert seen == [[f"org_{number}"] for number in range(20)]
