"""With ``end_streams`` a yes says when the call must end: with its token, or earlier if its caller says so."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.demo.issuer.signing import SigningKey
from authz.demo.v1 import ledger_pb2
from authz.envoy.check.deadline import COURTESY, DURATION, RETRIES
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.http.isolation import RequestIsolation
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy.protos.descriptors import Descriptors
from tests.doubles import AUDIENCE, ISSUER, NOW, ManualClock, jwks, m2m_claims
from tests.envoy.check.messages import FORMS, GRPC, GRPC_PATH, Form, bearer, in_header_map, is_sound

PUBLIC = "/tests.Open/Stream"
LEDGER = "/authz.demo.v1.LedgerService"
LIFETIME, LEEWAY = 300, 10
ENDS = LIFETIME + LEEWAY
"""Seconds for which a new token is good."""

GRPC_WEB, CONNECT = ("content-type", "application/grpc-web+proto"), ("content-type", "application/connect+proto")
JSON = ("content-type", "application/json")
UNITS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Server:
    """A servicer that knows one token; its clock stands where the token was signed, until a test moves it."""

    def __init__(self, key: SigningKey, exp: float = LIFETIME, **options: Any) -> None:
        self.clock = ManualClock()
        keys, clock = jwks(key), self.clock.clock
        verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=keys, algorithms=["ES256"], clock=clock)
        authorizer = Authorizer(verifier, public_methods=[PUBLIC])
        self._servicer = AuthorizationServicer(authorizer, **{"end_streams": True, **options})
        self.bearer = bearer(key.sign(m2m_claims(exp=NOW + exp)))

    def ask(self, *headers: tuple[str, str], form: Form = in_header_map, path: str = GRPC_PATH) -> CheckResponse:
        return self.answer(form(*headers, self.bearer, path=path))

    def answer(self, question: CheckRequest) -> CheckResponse:
        return CheckResponse.FromString(asyncio.run(self._servicer.check(question.SerializeToString(), None)))


@pytest.fixture(scope="module")
def server(ec_key: SigningKey) -> Server:
    return Server(ec_key)


def told(response: CheckResponse) -> dict[str, str]:
    """Return what an answer says of the end, by header."""
    assert is_sound(response)
    names = (DURATION, "grpc-timeout", "connect-timeout-ms")
    found = [(o.header.key, o.header.value) for o in response.ok_response.headers if o.header.key in names]
    assert len(dict(found)) == len(found)
    assert all(option.append_action == 2 for option in response.ok_response.headers)
    return dict(found)


def seconds(timeout: str) -> float:
    return int(timeout[:-1]) * UNITS[timeout[-1]]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_call_ends_with_its_token_and_the_upstream_is_told_so_before_envoy_resets_it(
    server: Server, form: Form
) -> None:
    assert told(server.ask(GRPC, form=form)) == {
        "grpc-timeout": f"{ENDS * 1000}m",
        DURATION: str(round((ENDS + COURTESY) * 1000)),
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (GRPC_WEB, {"grpc-timeout": f"{ENDS * 1000}m", DURATION: "310500"}),
        (CONNECT, {"connect-timeout-ms": f"{ENDS * 1000}", DURATION: "310500"}),
        (JSON, {DURATION: "310000"}),
    ],
    ids=["grpc-web", "connect", "http"],
)
def test_each_protocol_is_told_in_its_own_header(
    server: Server, kind: tuple[str, str], expected: dict[str, str]
) -> None:
    assert told(server.ask(kind)) == expected


def test_public_call_is_not_ended(server: Server) -> None:
    assert told(server.answer(in_header_map(GRPC, path=PUBLIC))) == {}


def test_nothing_is_told_unless_it_is_wanted(ec_key: SigningKey) -> None:
    response = Server(ec_key, end_streams=False).ask(GRPC, ("grpc-timeout", "99S"))

    assert told(response) == {}
    assert not set(RETRIES) & set(response.ok_response.headers_to_remove)


def test_refusal_has_no_end(server: Server) -> None:
    response = server.answer(in_header_map(GRPC, bearer("a.b.c")))

    assert response.status.code == 16
    assert DURATION not in {option.header.key for option in response.denied_response.headers}


def test_all_else_is_as_without_an_end(ec_key: SigningKey) -> None:
    ended, endless = Server(ec_key), Server(ec_key, end_streams=False)
    endless.bearer = ended.bearer
    answer = ended.ask(GRPC)
    kept = [o for o in answer.ok_response.headers if o.header.key not in (DURATION, "grpc-timeout")]
    del answer.ok_response.headers[:]
    answer.ok_response.headers.extend(kept)
    for name in RETRIES:
        answer.ok_response.headers_to_remove.remove(name)

    assert answer == endless.ask(GRPC)


@pytest.mark.parametrize("own", ["1S", "309999m", "0n", "5M"])
def test_shorter_deadline_of_the_caller_is_kept(server: Server, own: str) -> None:
    assert told(server.ask(GRPC, ("grpc-timeout", own))) == {DURATION: "310500"}


@pytest.mark.parametrize(
    "own",
    [
        *("311S", "310001m", "99999999H", "6M"),
        # Not as the protocol has it: servers read these in different ways.
        *("", "1", "S", "-1S", "+1S", "1.5S", "1s", "1 S", " 1S", "1S ", "000000001S", "1S,1S", "\u0661S", "1S\n"),
    ],
)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_longer_or_malformed_deadline_of_a_caller_is_replaced(server: Server, form: Form, own: str) -> None:
    header = ("grpc-timeout", own.encode().decode("latin-1"))

    assert told(server.ask(GRPC, header, form=form))["grpc-timeout"] == f"{ENDS * 1000}m"


def test_two_deadlines_of_a_caller_are_replaced_by_one(server: Server) -> None:
    copies = ("grpc-timeout", "1S"), ("grpc-timeout", "9S")

    assert told(server.ask(GRPC, *copies))["grpc-timeout"] == f"{ENDS * 1000}m"


@pytest.mark.parametrize(("own", "kept"), [("1", True), ("310000", True), ("310001", False), ("01234567890", False)])
def test_deadline_of_connect_is_kept_if_it_is_shorter(server: Server, own: str, kept: bool) -> None:  # noqa: FBT001
    assert ("connect-timeout-ms" not in told(server.ask(CONNECT, ("connect-timeout-ms", own)))) is kept


def test_caller_cannot_set_what_envoy_obeys(server: Server) -> None:
    forged = [(DURATION, "99999999"), (DURATION, "1"), *((name, "reset,5xx") for name in RETRIES)]
    response = server.ask(GRPC, *forged)

    assert told(response)[DURATION] == "310500"
    assert set(RETRIES) <= set(response.ok_response.headers_to_remove)


@given(left=st.floats(0.001, 5e9))
def test_no_call_ends_early_or_a_second_late(ec_key: SigningKey, left: float) -> None:
    server = Server(ec_key, exp=left)
    server.clock.advance(LEEWAY)
    most = 99_999_999.0
    answer = told(server.ask(GRPC))
    # At the magnitude of POSIX time a float cannot tell less than a microsecond.
    left = NOW + left - NOW

    deadline, reset = seconds(answer["grpc-timeout"]), int(answer[DURATION]) / 1000
    assert len(answer["grpc-timeout"]) <= 9
    assert min(left, most) - 1e-6 <= deadline < left + 1
    assert deadline <= reset + 1
    assert min(left, most) + COURTESY - 1e-6 <= reset < left + 1


@pytest.mark.parametrize(
    ("method", "is_ended"),
    [("PostEntry", False), ("ListEntries", True), ("ImportEntries", True), ("ReconcileEntries", True), ("Other", True)],
)
def test_unary_methods_that_are_known_may_outlive_their_token(
    ec_key: SigningKey, method: str, *, is_ended: bool
) -> None:
    services = list(ledger_pb2.DESCRIPTOR.services_by_name.values())
    server = Server(ec_key, isolation=RequestIsolation(Descriptors(services, "ledger")))
    path = f"{LEDGER}/{method}"

    assert bool(told(server.ask(GRPC, path=path))) is is_ended


def test_client_without_a_proxy_is_told_nothing(server: Server) -> None:
    question = in_header_map(GRPC, server.bearer)
    question.attributes.request.http.size = -1

    assert told(server.answer(question)) == {}
