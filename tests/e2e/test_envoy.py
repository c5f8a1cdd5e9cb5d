"""The same verdict at both doors: through a real Envoy, and straight to a backend with our interceptor."""

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from authz.demo.issuer.directory import Application
from authz.demo.issuer.signing import SigningKey
from authz.demo.stack import Stack
from tests.e2e import http1
from tests.e2e.conftest import Doors
from tests.e2e.ledger import call_ledger, organizations
from tests.envoy.check.messages import sentence
from tests.interceptors.client import Outcome, Silence, bearer
from tests.interceptors.servers import channel_to

Mint = Callable[..., str]
Bad = dict[str, list[str]]


def tokens(mint: Mint, acme: Application) -> Bad:
    """Return what is sent as bearer tokens, by case; each case is named after its reason."""
    good = mint(acme)
    header, payload, signature = good.split(".")
    stranger = SigningKey.generate("stranger")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    return {
        "token_missing": [],
        "token_malformed": ["opaque-token"],
        "token_malformed-two-tokens": [good, good],
        "algorithm_not_allowed": [mint(acme, header={"alg": "none"})],
        "algorithm_not_allowed-hmac": [mint(acme, header={"alg": "HS256"})],
        "signature_invalid": [f"{header}.{payload}.{signature[:-4]}AAAA"],
        "signature_invalid-stranger": [stranger.sign(claims, {"kid": kid})],
        "key_not_found": [stranger.sign(claims)],
        "claim_missing": [mint(acme, claims={"org_id": None})],
        "claim_invalid": [mint(acme, claims={"aud": "client_01JOTHER"})],
        "claim_invalid-issuer": [mint(acme, claims={"iss": "https://evil.authkit.app"})],
        "claim_invalid-header-injection": [mint(acme, claims={"org_id": "org_1\r\nx-org-id: org_2"})],
        "claim_invalid-list": [mint(acme, claims={"org_id": ["org_1"]})],
        "token_expired": [mint(acme, expires_in=-3600)],
    }


CASES = [
    "token_missing",
    "token_malformed",
    "token_malformed-two-tokens",
    "algorithm_not_allowed",
    "algorithm_not_allowed-hmac",
    "signature_invalid",
    "signature_invalid-stranger",
    "key_not_found",
    "claim_missing",
    "claim_invalid",
    "claim_invalid-issuer",
    "claim_invalid-header-injection",
    "claim_invalid-list",
    "token_expired",
]
# The issuer is asked about unknown keys twice in 30 s, and refusals differ then.
ALWAYS_ALIKE = [case for case in CASES if case != "key_not_found"]


@pytest.fixture(scope="module")
def bad(mint: Mint, acme: Application) -> Bad:
    return tokens(mint, acme)


def metadata(values: list[str]) -> list[tuple[str, str]]:
    return [entry for value in values for entry in bearer(value)]


def trailers(outcome: Outcome) -> dict[str, Any]:
    """Return the trailers that are ours."""
    ours = ("www-authenticate", "retry-after", "grpc-retry-pushback-ms", "grpc-status-details-bin")
    return {name: value for name, value in outcome.trailers.items() if name in ours}


# ---- Both doors ----


@pytest.mark.parametrize("name", ["acme", "globex"])
def test_both_doors_show_the_organization_of_the_token(
    request: pytest.FixtureRequest, mint: Mint, doors: Doors, kind: str, name: str
) -> None:
    application: Application = request.getfixturevalue(name)
    # One entry that can be listed.
    call_ledger(doors.direct, "unary_unary", metadata=bearer(mint(application)))
    outcomes = [call_ledger(door, kind, metadata=bearer(mint(application))) for door in doors]

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.OK] * 2
    assert [organizations(kind, outcome.messages) for outcome in outcomes] == [{application.org_id}] * 2


@pytest.mark.parametrize("case", ALWAYS_ALIKE)
def test_both_doors_refuse_alike(bad: Bad, doors: Doors, kind: str, case: str, silence: Silence) -> None:
    # A client that streams sends nothing: whoever waits for it hangs.
    options: dict[str, Any] = {"metadata": metadata(bad[case])}
    if kind.startswith("stream"):
        options["requests"] = silence
    envoy, interceptor = (call_ledger(door, kind, **options) for door in doors)

    assert (envoy.code, envoy.reason) == (grpc.StatusCode.UNAUTHENTICATED, case.partition("-")[0].upper())
    assert (envoy.code, envoy.details, envoy.messages) == (interceptor.code, interceptor.details, interceptor.messages)
    assert trailers(envoy) == trailers(interceptor)
    assert trailers(envoy).keys() == {"www-authenticate", "grpc-status-details-bin"}


def test_both_doors_refuse_unknown_keys_alike_as_often_as_they_ask(bad: Bad, doors: Doors) -> None:
    last = []
    for door in doors:
        outcomes = [call_ledger(door, "unary_unary", metadata=metadata(bad["key_not_found"])) for _ in range(4)]
        reasons = [outcome.reason for outcome in outcomes]
        last.append(outcomes[-1])
        # As often as the budget still has room, and not again.
        assert reasons == sorted(reasons)
        assert set(reasons) <= {"KEY_NOT_FOUND", "KEY_UNDECIDED"}
    envoy, interceptor = last

    assert (envoy.code, envoy.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_UNDECIDED")
    assert (envoy.code, envoy.details, envoy.reason) == (interceptor.code, interceptor.details, interceptor.reason)
    assert trailers(envoy).keys() == trailers(interceptor).keys()
    assert trailers(envoy).keys() == {"retry-after", "grpc-retry-pushback-ms", "grpc-status-details-bin"}


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_a_token_comes_back(stack: Stack, bad: Bad, doors: Doors, case: str) -> None:
    outcome = call_ledger(doors.envoy, "unary_unary", metadata=metadata(bad[case]))
    answer = http1.get(stack.target, headers=metadata(bad[case]))
    parts = [part for value in bad[case] for part in value.split(".") if len(part) > 3]

    assert not any(outcome.leaks(part) for part in [*parts, "org_2", "evil"])
    assert not any(part in repr(answer) for part in [*parts, "org_2", "evil"])


@pytest.mark.parametrize(
    ("case", "message", "challenge"),
    [
        ("token_missing", "No token provided", 'Bearer realm="api"'),
        ("token_malformed", "Invalid token", 'Bearer realm="api", error="invalid_request"'),
        ("token_expired", "Invalid token", 'Bearer realm="api", error="invalid_token"'),
        ("signature_invalid", "Invalid token", 'Bearer realm="api", error="invalid_token"'),
    ],
)
def test_refusal_is_worded_for_its_client(
    stack: Stack, bad: Bad, doors: Doors, kind: str, *, case: str, message: str, challenge: str
) -> None:
    outcome = call_ledger(doors.envoy, kind, metadata=metadata(bad[case]))
    answer = http1.get(stack.target, headers=metadata(bad[case]))

    assert (outcome.details, outcome.trailers["www-authenticate"]) == (message, challenge)
    assert (answer.status, sentence(answer.json)) == (401, ("unauthenticated", message))
    assert answer.headers["www-authenticate"] == challenge
    assert answer.headers["content-type"] == "application/json"
    assert "grpc-status-details-bin" not in answer.headers


@pytest.mark.parametrize("case", ALWAYS_ALIKE)
def test_plain_http_is_refused_like_grpc(stack: Stack, bad: Bad, case: str) -> None:
    assert http1.get(stack.target, headers=metadata(bad[case])).status == 401


def test_unknown_methods_are_unimplemented_only_for_those_with_a_token(
    mint: Mint, acme: Application, doors: Doors
) -> None:
    def code(door: grpc.Channel, entries: Any) -> grpc.StatusCode:
        try:
            door.unary_unary("/authz.demo.v1.LedgerService/DropTables")(b"", metadata=entries, timeout=120)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    known, unknown = bearer(mint(acme)), ()

    assert [code(door, unknown) for door in doors] == [grpc.StatusCode.UNAUTHENTICATED] * 2
    assert [code(door, known) for door in doors] == [grpc.StatusCode.UNIMPLEMENTED] * 2


# ---- Trusted names over plain HTTP ----


def test_http_upstream_learns_the_organization(stack: Stack, mint: Mint, acme: Application) -> None:
    answer = http1.get(stack.target, headers=bearer(mint(acme)))

    assert (answer.status, answer.json["x-org-id"]) == (200, acme.org_id)
    assert answer.json["x-client-id"] == acme.client_id
    assert answer.json["x-scopes"] == "ledger:read ledger:write"


FORGERIES = {
    "once": [("x-org-id", "{}")],
    "twice": [("x-org-id", "{}"), ("x-org-id", "{}")],
    "upper-case": [("X-ORG-ID", "{}"), ("X-Org-Id", "{}")],
    "binary": [("x-org-id-bin", "{}")],
    "underscores": [("x_org_id", "{}"), ("x-org_id", "{}"), ("X_ORG_ID", "{}")],
    "with-spaces": [("x-org-id", "  {}  ")],
    "others": [("x-client-id", "{}"), ("x-scopes", "{}"), ("x-authz-principal-bin", "{}")],
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_headers_never_reach_the_upstream(
    stack: Stack, mint: Mint, acme: Application, globex: Application, forgery: str
) -> None:
    forged = [(key, value.format(globex.org_id)) for key, value in FORGERIES[forgery]]
    answer = http1.get(stack.target, headers=[*forged, *bearer(mint(acme)), *forged])

    assert answer.status == 200
    assert globex.org_id not in answer.body
    assert answer.json["x-org-id"] == acme.org_id
    assert {name for name in answer.json if "org" in name or "_" in name} == {"x-org-id"}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_metadata_changes_nothing_at_either_door(
    mint: Mint, acme: Application, globex: Application, doors: Doors, kind: str, *, forgery: str
) -> None:
    forged: list[tuple[str, str | bytes]] = [
        (key.lower(), globex.org_id.encode() if key.endswith("-bin") else value.strip().format(globex.org_id))
        for key, value in FORGERIES[forgery]
    ]
    call_ledger(doors.direct, "unary_unary", metadata=bearer(mint(acme)))
    for door in doors:
        outcome = call_ledger(door, kind, metadata=[*forged, *bearer(mint(acme)), *forged])

        assert organizations(kind, outcome.messages) == {acme.org_id}


def test_header_that_a_connection_hides_is_no_token(stack: Stack, mint: Mint, acme: Application) -> None:
    headers = [*bearer(mint(acme)), ("connection", "authorization")]

    assert http1.get(stack.target, headers=headers).status == 401


# ---- An authorization server that is cold, or not there ----


def test_server_that_is_not_there_is_unavailable_and_never_a_denial(
    stack: Stack, mint: Mint, acme: Application, kind: str, silence: Silence
) -> None:
    token = bearer(mint(acme))
    streams = {"requests": silence} if kind.startswith("stream") else {}
    with channel_to(stack.cold_target) as channel:
        outcomes = [call_ledger(channel, kind, metadata=entries, **streams) for entries in (token, ())]

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert [http1.get(stack.cold_target, headers=entries).status for entries in (token, ())] == [503] * 2


def test_server_without_keys_is_undecided_until_it_has_them(
    stack: Stack, mint: Mint, acme: Application, bad: Bad
) -> None:
    token = bearer(mint(acme))
    stack.stop_issuer()
    cold = stack.start_cold()
    with channel_to(stack.cold_target) as channel:
        without = call_ledger(channel, "unary_unary", metadata=token)
        malformed = call_ledger(channel, "unary_unary", metadata=metadata(bad["token_malformed"]))
        answer = http1.get(stack.cold_target, headers=token)
        stack.restart_issuer()
        stack.wait_for_cold()
        found = call_ledger(channel, "unary_unary", metadata=token)
    cold.stop()

    assert (without.code, without.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_SET_UNAVAILABLE")
    assert without.trailers["retry-after"] == str(without.retry_delay)
    assert (answer.status, sentence(answer.json)) == (503, ("unavailable", "Authorization is unavailable"))
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert malformed.code is grpc.StatusCode.UNAUTHENTICATED
    assert found.code is grpc.StatusCode.OK
