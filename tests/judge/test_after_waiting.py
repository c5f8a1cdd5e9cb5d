"""A yes holds when it is given: what has changed while a call waited is looked at again."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from authz import Assurance, Authorizer, Introspector, Policy, Principal, Verifier
from authz.call.call import Call
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.organizations.directory import Directory
from authz.organizations.quota import Awaited, Quota, Quotas
from authz.policy import Organization
from authz.runtime.flow import Flow, Wait, run
from tests.doubles import (
    CLIENT,
    ISSUER,
    ORG,
    PATIENCE,
    FakeIssuer,
    FakeTransport,
    ManualClock,
    json_response,
    m2m_claims,
)

METHOD = "/authz.demo.v1.Ledger/ListEntries"
OPEN = {"allow_rules": [{"name": "all"}], "name": "open"}
SHUT = {"allow_rules": [{"name": "none", "source": {"organizations": ["org_other"]}}], "name": "shut"}


PLAN = {"quotas": {"one": {"requests_per_second": 0.001, "burst": 1}}, "organizations": {ORG: {"quota": "one"}}}


class CountedElsewhere(Quotas):
    """Has each call wait once, until it is told that it may be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.future: Future[None] = Future()

    def take(self, org_id: str, quota: Quota, waited: Awaited | None = None) -> Any:
        if waited is None and not self.future.done():
            return Awaited(org_id, self.future, PATIENCE, PATIENCE)
        return super().take(org_id, quota)


class Scene:
    """A call that waits for one of four, and what happens meanwhile."""

    def __init__(self, waits_for: str, verifier: Verifier, issuer: FakeIssuer, clock: ManualClock) -> None:
        self.waits_for, self.issuer, self.clock = waits_for, issuer, clock
        self.questions = FakeTransport(lambda: json_response({"active": True}))
        self.directory = Directory(self._look_up, clock=clock.clock)
        introspector = Introspector(
            ISSUER, client_id="c", client_secret="s", transport=self.questions, clock=clock.clock
        )
        self.authorizer = Authorizer(
            verifier,
            directory=self.directory,
            introspector=introspector,
            assurance=Assurance(),
            policy=Policy.from_document(OPEN | PLAN if waits_for == "quota" else OPEN),
        )
        self.quotas = CountedElsewhere()
        if waits_for == "quota":
            self.authorizer.quotas = self.quotas
        self.evidence = Evidence()
        self.gate = threading.Event()
        if waits_for != "directory":
            self.gate.set()

    def _look_up(self, _org_id: str) -> Organization | None:
        assert self.gate.wait(PATIENCE)
        return Organization()

    def begin(self, token: str) -> tuple[Flow[Principal], Wait]:
        if self.waits_for != "keys":
            self.authorizer.verifier.warm_up()
        if self.waits_for == "keys":
            self.issuer.transport.hang()
        if self.waits_for == "issuer":
            self.questions.hang()
        call = Call(method=METHOD, metadata=(("authorization", f"Bearer {token}"),))
        flow = self.authorizer.authorize(call, self.evidence)
        wait = next(flow)
        while self.waits_for == "issuer" and not self.questions.pending:
            wait = flow.send(wait.future.result(PATIENCE))
        while self.waits_for == "quota" and wait.future is not self.quotas.future:
            wait = flow.send(wait.future.result(PATIENCE))
        return flow, wait

    def end(self, flow: Flow[Principal], wait: Wait) -> str:
        self.gate.set()
        self.issuer.transport.release()
        self.questions.release()
        if not self.quotas.future.done():
            self.quotas.future.set_result(None)
        try:
            while True:
                wait = flow.send(wait.future.result(PATIENCE))
        except StopIteration:
            return "allowed"
        except AuthzError as error:
            return error.reason

    def again(self, token: str) -> str:
        """Return the verdict on another call, for which the issuer and the directory answer at once."""
        call = Call(method=METHOD, metadata=(("authorization", f"Bearer {token}"),))
        try:
            run(self.authorizer.authorize(call))
        except AuthzError as error:
            return error.reason
        return "allowed"


@pytest.fixture(params=["keys", "directory", "issuer", "quota"])
def scene(request: pytest.FixtureRequest, verifier: Verifier, issuer: FakeIssuer, clock: ManualClock) -> Any:
    scene = Scene(request.param, verifier, issuer, clock)
    yield scene
    scene.gate.set()
    scene.authorizer.close()


def replaced(policy: dict[str, Any]) -> Callable[[Scene], None]:
    return lambda scene: scene.authorizer.replace_policy(Policy.from_document(policy))


ORDERS = [
    pytest.param(lambda _scene: None, "allowed", id="nothing"),
    pytest.param(lambda scene: scene.authorizer.suspend(org_id=ORG), "organization_suspended", id="suspended"),
    pytest.param(lambda scene: scene.authorizer.revoke(org_id=ORG), "token_inactive", id="organization-revoked"),
    pytest.param(lambda scene: scene.authorizer.revoke(client_id=CLIENT), "token_inactive", id="client-revoked"),
    pytest.param(lambda scene: scene.authorizer.revoke(key_id="ec-1"), "token_inactive", id="key-revoked"),
    pytest.param(
        lambda scene: scene.authorizer.revoke(token_id=m2m_claims()["jti"]), "token_inactive", id="token-revoked"
    ),
    pytest.param(replaced(SHUT), "policy_denied", id="policy"),
    pytest.param(
        replaced(OPEN | {"organizations": {ORG: {"status": "suspended"}}}), "organization_suspended", id="listed"
    ),
    pytest.param(lambda scene: scene.clock.advance(311), "token_expired", id="expired"),
]


@pytest.mark.parametrize(("happens", "verdict"), ORDERS)
def test_what_happens_while_a_call_waits_is_in_force_for_it(
    scene: Scene, ec_key: SigningKey, happens: Callable[[Scene], None], verdict: str
) -> None:
    flow, wait = scene.begin(ec_key.sign(m2m_claims()))
    happens(scene)

    assert scene.end(flow, wait) == verdict


@pytest.mark.parametrize("scene", ["directory", "issuer", "quota"], indirect=True)
def test_a_key_that_is_taken_back_while_a_call_waits_is_none(
    scene: Scene, ec_key: SigningKey, other_key: SigningKey
) -> None:
    flow, wait = scene.begin(ec_key.sign(m2m_claims()))
    scene.issuer.keys = [other_key]
    scene.clock.advance(299)
    scene.authorizer.verifier.verify(other_key.sign(m2m_claims(scene.clock.now)))

    assert scene.end(flow, wait) == "key_not_found"


@pytest.mark.parametrize("scene", ["directory", "issuer", "quota"], indirect=True)
def test_a_key_that_changes_under_its_name_while_a_call_waits_is_another(
    scene: Scene, ec_key: SigningKey, other_key: SigningKey
) -> None:
    flow, wait = scene.begin(ec_key.sign(m2m_claims()))
    scene.issuer.publishes({"keys": [{**other_key.public_jwk(), "kid": ec_key.kid}]})
    with pytest.raises(AuthzError):
        scene.authorizer.verifier.verify(other_key.sign(m2m_claims()))

    assert scene.end(flow, wait) == "signature_invalid"


def test_a_call_that_is_refused_after_it_has_waited_uses_up_nothing(scene: Scene, ec_key: SigningKey) -> None:
    if scene.waits_for != "quota":
        scene.authorizer.replace_policy(Policy.from_document(OPEN | PLAN))
    flow, wait = scene.begin(ec_key.sign(m2m_claims()))
    scene.authorizer.suspend(org_id=ORG)
    refused = scene.end(flow, wait)
    scene.authorizer.resume(org_id=ORG)

    assert refused == "organization_suspended"
    assert scene.again(ec_key.sign(m2m_claims())) == "allowed"
    assert scene.again(ec_key.sign(m2m_claims())) == "quota_exceeded"


def test_a_policy_that_comes_while_a_call_waits_is_what_the_verdict_rests_on(scene: Scene, ec_key: SigningKey) -> None:
    flow, wait = scene.begin(ec_key.sign(m2m_claims()))
    tenant = {"organizations": {ORG: {"tenant": "tenant-8"}}}
    scene.authorizer.replace_policy(Policy.from_document({**OPEN, "name": "new", **tenant}), isolation="new")

    assert scene.end(flow, wait) == "allowed"
    evidence = scene.evidence
    assert (evidence.policy, evidence.rule, evidence.isolation) == ("new", "all", "new")
    assert evidence.principal.tenant == "tenant-8"
    assert evidence.source == "introspection"


def test_a_call_that_waits_for_nothing_is_judged_once(
    verifier: Verifier, ec_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier.warm_up()
    authorizer = Authorizer(verifier, policy=Policy.from_document(OPEN))
    call = Call(method=METHOD, metadata=(("authorization", f"Bearer {ec_key.sign(m2m_claims())}"),))
    run(authorizer.authorize(call))
    checks = []
    standing = authorizer.standing.check
    monkeypatch.setattr(authorizer.standing, "check", lambda principal: checks.append(standing(principal)))
    run(authorizer.authorize(call))

    assert checks == [None]
