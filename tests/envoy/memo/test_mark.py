"""The mark in an answer: what it says, and when there is none."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from authz.call.call import Call
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.memo.mark import Memo
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.runtime.flow import Flow
from tests.doubles import CLIENT, ISSUER, NOW, ORG, m2m_claims
from tests.envoy.check.messages import GRPC, bearer, in_header_map

POLICY = Policy.from_document({"name": "p", "allow_rules": [{"name": "all"}], "public": ["/a.S/Public"]})


@pytest.fixture
def memo(verifier: Verifier) -> Memo:
    memo = Memo(Authorizer(verifier, policy=POLICY), 30)
    memo.begin("g-1")
    return memo


@pytest.fixture
def servicer(memo: Memo, verifier: Verifier) -> AuthorizationServicer:
    # The same judge: Memo keeps no other part of it.
    authorizer = Authorizer(verifier, policy=POLICY)
    memo._lasting = authorizer.lasting  # noqa: SLF001 - as above
    return AuthorizationServicer(authorizer, memo=memo)


def said(answer: object) -> dict[str, Any]:
    assert isinstance(answer, bytes)
    found: dict[str, Any] = MessageToDict(CheckResponse.FromString(answer).dynamic_metadata)
    return found


def ask(servicer: AuthorizationServicer, token: str, path: str = "/a.S/Get") -> dict[str, Any]:
    """Ask about a call whose token has been seen before."""
    ask_once(servicer, token, path)
    return ask_once(servicer, token, path)


def ask_once(servicer: AuthorizationServicer, token: str, path: str = "/a.S/Get") -> dict[str, Any]:
    begun = servicer.begin(in_header_map(GRPC, bearer(token), path=path).SerializeToString())
    while not isinstance(begun, bytes):
        flow, wait = begun
        try:
            begun = flow, flow.send(wait.future.result(timeout=0))
        except StopIteration as done:
            begun = done.value
    return said(begun)


def test_no_caller_is_told_of_as_one_who_was_in_the_same_place(memo: Memo) -> None:
    """In the place of an object that is gone there may be another, with the same id."""
    told, places = [], set[int]()
    for number in range(100):
        one = Principal(org_id=f"org_{number}", client_id="c", subject="c")
        places.add(id(one))
        told.append(said(memo._caller(one, "p", "", "all"))["caller"]["about"]["organization"])  # noqa: SLF001 - a part
        del one

    assert len(places) < 100
    assert told == [f"org_{number}" for number in range(100)]


def test_a_yes_says_how_long_it_holds_and_all_that_is_to_be_repeated(
    servicer: AuthorizationServicer, ec_key: SigningKey, memo: Memo
) -> None:
    token = ec_key.sign(m2m_claims())
    found = ask(servicer, token)

    assert found["memo"] == {"seconds": 30, "generation": "g-1"}
    headers = found["caller"]["headers"]
    assert (
        dict(zip(headers[::2], headers[1::2], strict=True)).items() >= {"x-org-id": ORG, "x-client-id": CLIENT}.items()
    )
    assert found["caller"]["about"] == {
        "organization": ORG,
        "client": CLIENT,
        "subject": CLIENT,
        "scopes": "ledger:read ledger:write",
        "token_id": "01JYTOKEN00000000000000000",
        "key_id": ec_key.kid,
        "issuer": ISSUER,
        "policy": "p",
        "policy_digest": POLICY.digest,
        "rule": "all",
    }
    assert json.loads(found["caller"]["told"]) == found["caller"]["about"]
    assert (found["organization"], found["client"]) == (ORG, CLIENT)
    assert token not in str(found)
    assert memo.offered == 1


def test_a_token_that_ends_sooner_is_remembered_for_less(servicer: AuthorizationServicer, ec_key: SigningKey) -> None:
    # With the leeway of ten seconds.
    assert ask(servicer, ec_key.sign(m2m_claims(exp=int(NOW) + 5)))["memo"]["seconds"] == 15
    assert "memo" not in ask(servicer, ec_key.sign(m2m_claims(exp=int(NOW) - 9.5)))


def test_a_public_method_is_remembered_for_anybody(servicer: AuthorizationServicer) -> None:
    found = ask(servicer, "no-token", "/a.S/Public")

    assert found["memo"] == {"seconds": 30, "generation": "g-1", "public": True}
    assert found["caller"] == {"headers": [], "about": {}, "told": "{}"}


def test_it_says_whether_http_methods_matter(verifier: Verifier, ec_key: SigningKey) -> None:
    rules = [{"name": "reads", "request": {"methods": ["POST"]}}]
    policy = Policy.from_document({"name": "p", "allow_rules": rules, "public": ["/a.S/Public"]})
    authorizer, token = Authorizer(verifier, policy=policy), ec_key.sign(m2m_claims())
    memo = Memo(authorizer, 30)
    memo.begin("g-1")
    servicer = AuthorizationServicer(authorizer, memo=memo)

    assert ask(servicer, token)["memo"] == {"seconds": 30, "generation": "g-1", "verbs": True}
    # Of a public method they do not.
    assert ask(servicer, token, "/a.S/Public")["memo"] == {"seconds": 30, "generation": "g-1", "public": True}


def test_a_token_that_is_seen_for_the_first_time_is_not_remembered(
    servicer: AuthorizationServicer, ec_key: SigningKey, memo: Memo
) -> None:
    token = ec_key.sign(m2m_claims())

    assert "memo" not in ask_once(servicer, token)
    assert "memo" in ask_once(servicer, token)
    assert memo.offered == 1


def test_nothing_is_remembered_before_envoy_can_be_told_to_forget(
    servicer: AuthorizationServicer, ec_key: SigningKey, memo: Memo
) -> None:
    memo.begin("")

    assert "memo" not in ask(servicer, ec_key.sign(m2m_claims()))


def test_an_answer_belongs_to_the_generation_before_its_verdict(verifier: Verifier, ec_key: SigningKey) -> None:
    """What begins meanwhile stands for a change that the verdict may not know of."""

    class Slow(Authorizer):
        def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
            principal = yield from super().authorize(call, evidence)
            memo.begin("g-2")
            return principal

    slow = Slow(verifier, policy=POLICY)
    memo = Memo(slow, 30)
    servicer = AuthorizationServicer(slow, memo=memo)
    token = ec_key.sign(m2m_claims())
    ask_once(servicer, token)
    memo.begin("g-1")

    assert ask_once(servicer, token)["memo"]["generation"] == "g-1"
