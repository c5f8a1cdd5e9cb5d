"""A question in, an answer out, without a server: whatever is asked, only a good token lets a request pass."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.call.refusal import Challenge, refusal_of
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.demo.policy import ledger_descriptors
from authz.errors import Code, UnavailableError
from authz.http.isolation import RequestIsolation, Strictness
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.runtime.flow import Flow, run
from authz.server.forward_auth.check import REFUSAL, Answer, ForwardAuth, refused
from tests.certificates import Authority
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, FakeIssuer, ManualClock, jwks, m2m_claims

Header = tuple[bytes, bytes]

NAMES = [name.encode() for name in TrustedMetadata().names]
PUBLIC = "/public"
SHOWN = "/authz.demo.v1.LedgerService/PostEntry"


@pytest.fixture(scope="module")
def known_keys(ec_key: SigningKey) -> Verifier:
    return Verifier(
        issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=ManualClock().clock
    )


@pytest.fixture(scope="module")
def token(ec_key: SigningKey) -> str:
    return ec_key.sign(m2m_claims())


def bearer(token: str) -> Header:
    return b"authorization", b"Bearer " + token.encode()


def ask(judge: Authorizer, *headers: Header, target: str = "/v1", verb: str = "GET") -> Answer:
    begun = ForwardAuth(judge, "none").begin(verb, target, headers)
    return begun if isinstance(begun, Answer) else run(begun[0], waiting=begun[1])


def reason_of(answer: Answer) -> str:
    [detail] = json.loads(answer.body)["details"]
    return str(detail["value"])


def test_a_good_token_is_answered_with_every_trusted_header(known_keys: Verifier, token: str) -> None:
    status, headers, body = ask(Authorizer(known_keys), bearer(token))

    assert (status, body, [name for name, _ in headers]) == (200, b"", NAMES)
    told = dict(headers)
    assert (told[b"x-org-id"], told[b"x-client-id"], told[b"x-org-tenant"]) == (ORG.encode(), CLIENT.encode(), b"")


def test_a_public_path_is_answered_with_every_trusted_header_empty(known_keys: Verifier) -> None:
    judge = Authorizer(known_keys, public_methods=[PUBLIC])

    assert ask(judge, target=PUBLIC) == Answer(200, tuple((name, b"") for name in NAMES), b"")
    assert ask(judge, target=f"{PUBLIC}?x=1").status == 200
    assert {ask(judge, target=target).status for target in (f"{PUBLIC}/", "/PUBLIC", f"/x/..{PUBLIC}")} == {401}


@pytest.mark.parametrize("target", ["/v1/../v1", "//", "*", "http://api.test/", "/v1%2fx"])
def test_a_good_token_does_not_excuse_an_odd_path(known_keys: Verifier, token: str, target: str) -> None:
    judge = Authorizer(known_keys)

    assert ask(judge, bearer(token), target=target).status == 403
    # Without one nothing more is told than that it is missing.
    assert ask(judge, target=target).status == 401


@pytest.mark.parametrize("verb", ["get", "CONNECT"])
def test_a_good_token_does_not_excuse_an_odd_method(known_keys: Verifier, token: str, verb: str) -> None:
    assert ask(Authorizer(known_keys), bearer(token), verb=verb).status == 403


def test_two_tokens_are_none(known_keys: Verifier, token: str) -> None:
    assert ask(Authorizer(known_keys), bearer(token), bearer(token)).status == 401


@pytest.mark.parametrize("header", ["x-forwarded-client-cert", "x-ssl-client-cert", "client-cert"])
def test_no_header_proves_a_certificate(known_keys: Verifier, ec_key: SigningKey, header: str) -> None:
    owner = Authority().issue()
    bound = ec_key.sign(m2m_claims(cnf={"x5t#S256": owner.thumbprint}))

    assert ask(Authorizer(known_keys), bearer(bound), (header.encode(), owner.chain)).status == 401


def test_a_rule_about_certificates_refuses_whoever_may_have_one(known_keys: Verifier, token: str) -> None:
    deny = {"name": "stolen", "source": {"principals": ["spiffe://cluster.local/ns/a/sa/stolen"]}}
    policy = {"name": "p", "deny_rules": [deny], "allow_rules": [{"name": "all"}]}

    assert ask(Authorizer(known_keys, policy=Policy.from_document(policy)), bearer(token)).status == 401


@pytest.mark.parametrize(("strictness", "status"), [("when_body", 200), ("enforce", 403)])
def test_a_request_whose_message_is_not_shown_is_as_behind_an_envoy_that_shows_none(
    known_keys: Verifier, token: str, tmp_path: Path, strictness: Strictness, status: int
) -> None:
    file = tmp_path / "api.binpb"
    file.write_bytes(ledger_descriptors())
    judge = Authorizer(known_keys)
    judge.in_force.replace(None, RequestIsolation(file, strictness))

    assert ask(judge, bearer(token), target=SHOWN, verb="POST").status == status
    # The message could be in the query, or in another spelling of the method.
    assert ask(judge, bearer(token), target=SHOWN, verb="GET").status == 403
    assert ask(judge, bearer(token), target=f"{SHOWN}?message=x", verb="POST").status == 403
    assert ask(judge, bearer(token), target=SHOWN.lower(), verb="POST").status == 403


# ---- Refusals ----


@pytest.mark.parametrize("headers", ["original", "forwarded", "none"])
def test_nginx_gets_the_body_of_a_refusal_in_a_header(known_keys: Verifier, headers: Any) -> None:
    said = {
        "original": [(b"x-original-method", b"GET"), (b"x-original-uri", b"/v1")],
        "forwarded": [(b"x-forwarded-method", b"GET"), (b"x-forwarded-uri", b"/v1")],
        "none": [],
    }[headers]

    answer = ForwardAuth(Authorizer(known_keys), headers).begin("GET", "/authz" if said else "/v1", said)

    assert isinstance(answer, Answer)
    assert json.loads(answer.body)["error"] == "No token provided"
    repeated = [value for name, value in answer.headers if name == REFUSAL]
    assert repeated == ([answer.body] if headers == "original" else [])


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc-web", "application/connect+json"])
def test_no_refusal_has_a_status_that_lets_a_request_pass(known_keys: Verifier, kind: str) -> None:
    """In these protocols a refusal has the status 200 where no proxy asks."""
    answer = ask(Authorizer(known_keys), (b"content-type", kind.encode()))

    assert (answer.status, dict(answer.headers)[b"content-type"]) == (401, b"application/json")


class Hostile(Authorizer):
    """A judge with a fault."""

    def __init__(self, verifier: Verifier, error: BaseException) -> None:
        super().__init__(verifier)
        self._error = error

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise self._error
        yield


class StrangeError(BaseException):
    """Nothing that ``except Exception`` would catch."""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("secret"), MemoryError(), StopIteration("secret"), asyncio.CancelledError(), StrangeError("secret")],
    ids=lambda error: type(error).__name__,
)
def test_the_unforeseen_is_an_internal_error_without_its_text(known_keys: Verifier, error: BaseException) -> None:
    answer = ask(Hostile(known_keys, error))

    assert (answer.status, json.loads(answer.body)["error"]) == (500, "Internal error")
    assert b"secret" not in repr(answer).encode()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
def test_the_end_of_the_process_is_no_verdict(known_keys: Verifier, error: BaseException) -> None:
    with pytest.raises(type(error)):
        ask(Hostile(known_keys, error))


@pytest.mark.parametrize("name", ["org_1\r\nx-org-id: org_2", "org_\xe9", "org_1\0"])
def test_a_caller_that_no_header_can_name_is_refused(known_keys: Verifier, name: str) -> None:
    class Generous(Authorizer):
        def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
            yield from ()
            return Principal(org_id=name, client_id="c", subject="c")

    assert ask(Generous(known_keys)).status == 500


def test_what_fails_outside_of_a_check_is_closed_even_if_logging_fails(
    known_keys: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Authorizer(known_keys)
    check = ForwardAuth(judge, "none")
    assert check.unforeseen(RuntimeError("secret")).status == 500

    monkeypatch.setattr(judge.telling, "refusal", None)

    answer = check.unforeseen(RuntimeError("secret"))
    assert (answer.status, json.loads(answer.body)["error"]) == (500, "Internal error")


@pytest.mark.parametrize("code", list(Code))
def test_every_kind_of_refusal_is_one_to_a_proxy(code: Code) -> None:
    error = UnavailableError()
    error.code = code  # type: ignore[misc]  # as a subclass has another

    assert refused(refusal_of(error, Challenge()), repeats_body=True).status >= 400


@given(st.text(max_size=9), st.text(max_size=9), st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9))))
def test_whatever_is_asked_without_a_token_is_refused(
    known_keys: Verifier, verb: str, target: str, headers: list[Header]
) -> None:
    assert ask(Authorizer(known_keys), *headers, verb=verb, target=target).status in (401, 403)


# ---- What observers learn ----


def test_every_question_is_told_once(known_keys: Verifier, token: str) -> None:
    decisions: list[Decision] = []
    judge = Authorizer(known_keys, observers=[decisions.append])

    ask(judge, bearer(token), verb="PUT")
    ask(judge)
    ask(judge, (b"x-original-uri", b"/v1"))
    ForwardAuth(judge, "none").unreadable()

    assert [(one.door, one.verdict, one.call.verb, one.call.method) for one in decisions] == [
        ("forward_auth", "allowed", "PUT", "/v1"),
        ("forward_auth", "denied", "GET", "/v1"),
        ("forward_auth", "denied", "", ""),
        ("forward_auth", "denied", "", ""),
    ]


# ---- Too much to do ----


@pytest.fixture
def waiting(issuer: FakeIssuer, new_verifier: Callable[..., Verifier], other_key: SigningKey) -> Iterator[Any]:
    """Return a check and what begins a question that waits for a key."""
    verifier = new_verifier()
    run(verifier.warm_up_flow(0))
    check = ForwardAuth(Authorizer(verifier), "none", max_pending=2)
    issuer.transport.hang()
    unknown = bearer(other_key.sign(m2m_claims()))
    yield check, lambda: check.begin("GET", "/v1", [unknown])
    issuer.transport.release()


def test_a_check_beyond_what_may_wait_is_undecided_at_once(waiting: Any) -> None:
    check, begin = waiting
    flow, wait = begin()
    assert check.waiting.count == 1

    refused_now = begin()

    assert refused_now.status == 503
    assert dict(refused_now.headers)[b"retry-after"] == b"1"
    flow.close()
    check.waiting.end(wait)
    assert check.waiting.count == 0
    assert isinstance(begin(), tuple)
