"""A check that waits for nothing is answered at once, as the flow would answer it, and told exactly once."""

import pytest
from google.protobuf.json_format import MessageToDict

from authz.call.call import Call
from authz.call.peer import PLAIN
from authz.call.principal import Principal
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.question import Question, read
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.v3.external_auth_pb2 import CheckRequest, CheckResponse
from authz.http.forms import Form as Protocol
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.runtime.flow import Flow, run
from tests.doubles import ORG, FakeIssuer, m2m_claims
from tests.envoy.check.messages import GRPC, GRPC_PATH, Denial, Form, bearer, in_header_map, in_headers

PLANS = {"quotas": {"two": {"requests_per_second": 0.001, "burst": 2}}, "organizations": {ORG: {"quota": "two"}}}
POLICY = {"name": "p", "allow_rules": [{"name": "all"}], "public": ["/a.B/Public"], **PLANS}


class ByFlow(Authorizer):
    """A judge whose verdicts are all those of the flow."""

    def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
        return (yield from super().authorize(call, evidence))


class StrangeError(BaseException):
    """Nothing that ``except Exception`` would catch."""


class Faulty(Authorizer):
    """A judge whose quick way has a fault."""

    fault: BaseException

    def at_once(self, _call: Call, _evidence: Evidence) -> Principal | None:
        raise self.fault


def questions(key: SigningKey) -> list[CheckRequest]:
    good, other = key.sign(m2m_claims()), key.sign(m2m_claims(jti="other"))
    return [
        in_headers(GRPC, bearer(good)),
        in_headers(GRPC, bearer(good)),
        in_header_map(GRPC, bearer(other)),
        in_headers(GRPC, bearer(good)),
        in_headers(GRPC, bearer(good), path="/no/such/path"),
        in_headers(bearer(good), path="/v1/anything?of=it"),
        in_headers(GRPC, path="/a.B/Public"),
        in_headers(GRPC, path=GRPC_PATH),
        in_headers(GRPC, bearer("x.y.z")),
        in_headers(GRPC, bearer(key.sign(m2m_claims(exp=1)))),
    ]


def told(decisions: list[Decision]) -> list[dict[str, object]]:
    return [decision._replace(seconds=0.0).record()._asdict() for decision in decisions]


def test_answers_are_those_of_the_flow_and_each_is_told_once(new_verifier, ec_key) -> None:  # type: ignore[no-untyped-def]
    def ask(kind: type[Authorizer]) -> tuple[list[dict[str, object]], list[Decision]]:
        decisions: list[Decision] = []
        verifier = new_verifier(jwks={"keys": [ec_key.public_jwk()]})
        judge = kind(verifier, policy=Policy.from_document(POLICY), observers=[decisions.append])
        servicer = AuthorizationServicer(judge)
        answers = []
        for question in asked:
            answer = servicer.begin(question.SerializeToString())
            assert isinstance(answer, bytes)
            answers.append(MessageToDict(CheckResponse.FromString(answer)))
        return answers, decisions

    asked = questions(ec_key)
    (quick, quickly_told), (by_flow, told_by_flow) = ask(Authorizer), ask(ByFlow)

    assert quick == by_flow
    assert told(quickly_told) == told(told_by_flow)
    assert len(quickly_told) == len(asked)


def test_a_check_that_must_wait_is_told_once_and_at_its_end(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey
) -> None:
    decisions: list[Decision] = []
    servicer = AuthorizationServicer(Authorizer(verifier, observers=[decisions.append]))
    issuer.transport.hang()
    begun = servicer.begin(in_headers(GRPC, bearer(ec_key.sign(m2m_claims()))).SerializeToString())
    assert not isinstance(begun, bytes)
    flow, wait = begun
    assert decisions == []
    issuer.transport.release()
    answer = run(flow, waiting=wait)
    servicer.end(wait)

    assert CheckResponse.FromString(answer).status.code == 0
    assert [(each.refusal, each.evidence.source) for each in decisions] == [(None, "signature")]


@pytest.mark.parametrize(
    "fault", [RuntimeError("secret"), StopIteration("secret"), MemoryError(), StrangeError("secret")], ids=repr
)
def test_a_fault_of_the_quick_way_is_a_denial_that_is_told_once(
    verifier: Verifier, ec_key: SigningKey, fault: BaseException
) -> None:
    decisions: list[Decision] = []
    judge = Faulty(verifier, observers=[decisions.append])
    judge.fault = fault
    answer = AuthorizationServicer(judge).begin(questions(ec_key)[0].SerializeToString())
    assert isinstance(answer, bytes)
    denial = Denial(CheckResponse.FromString(answer))

    assert (denial.code, denial.http_status, denial.body) == (13, 500, "Internal error")
    assert b"secret" not in answer
    assert [each.verdict for each in decisions] == ["failed"]


def test_a_policy_on_trial_is_asked_though_nobody_observes(verifier: Verifier, ec_key: SigningKey) -> None:
    shut = Policy.from_document({"name": "shut", "allow_rules": [{"name": "none", "request": {"paths": ["/none"]}}]})
    judge = Authorizer(verifier, shadow=shut)
    verifier.warm_up()
    answer = AuthorizationServicer(judge).begin(questions(ec_key)[0].SerializeToString())

    assert isinstance(answer, bytes)
    assert judge.shadow.differences == {"allowed_to_denied": 1}


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_ends_the_process_is_no_verdict_of_the_quick_way(
    verifier: Verifier, ec_key: SigningKey, end: BaseException
) -> None:
    judge = Faulty(verifier)
    judge.fault = end

    with pytest.raises(type(end)):
        AuthorizationServicer(judge).begin(questions(ec_key)[0].SerializeToString())


@pytest.mark.parametrize("form", [in_headers, in_header_map])
def test_a_question_becomes_a_whole_call(form: Form) -> None:
    """It is built without the constructor, which would count its fields."""
    body = form(GRPC, bearer("x.y.z"), path="/a.B/C?d").SerializeToString()
    question = read(body)

    assert question.call == Call(
        method="/a.B/C",
        metadata=question.call.metadata,
        peer=PLAIN,
        credentials=["Bearer x.y.z"],
        requirements=None,
        verified_claims=None,
        size=len(body),
        verb="POST",
    )
    assert question == Question(question.call, Protocol.GRPC, question.http)
    assert ("authorization", "Bearer x.y.z") in question.call.metadata


def test_paths_are_checked_however_many_were_seen(verifier: Verifier, ec_key: SigningKey) -> None:
    """Good ones are remembered, and bad ones refused each time; what is good over HTTP may not be so over gRPC."""
    servicer = AuthorizationServicer(Authorizer(verifier))
    verifier.warm_up()
    token = bearer(ec_key.sign(m2m_claims()))

    def code(path: str, *headers: tuple[str, str]) -> int:
        answer = servicer.begin(in_headers(token, *headers, path=path).SerializeToString())
        assert isinstance(answer, bytes)
        return CheckResponse.FromString(answer).status.code

    assert {code(f"/a.B/{number}", GRPC) for number in range(2000)} == {0}
    assert [code(path) for path in ("/plain", "/plain")] == [0, 0]
    assert [code(path, GRPC) for path in ("/plain", "/plain", "/a.B/7", f"/a.B/{'x' * 4000}")] == [7, 7, 0, 0]
