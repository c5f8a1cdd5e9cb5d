"""How long a yes holds for every call like it, and when what it rests on has changed."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.call.requirements import Assurance, Requirements
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.issuer.introspection import Introspector
from authz.issuer.remote_keys import STALE
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.judge.orders.standing import Doubt
from authz.organizations.directory import Directory
from authz.policy import Organization, Policy
from authz.runtime.flow import run
from tests.certificates import Authority
from tests.doubles import ISSUER, NOW, ORG, FakeIssuer, FakeTransport, ManualClock, json_response, m2m_claims

READ, WRITE, PUBLIC, ASKED = "/a.S/Read", "/a.S/Write", "/a.S/Public", "/a.S/Asked"
DOCUMENT: Mapping[str, Any] = {
    "name": "p",
    "deny_rules": [{"name": "slow", "request": {"paths": [WRITE], "headers": [{"key": "x-mode", "values": ["slow"]}]}}],
    "allow_rules": [{"name": "all"}],
    "public": [PUBLIC],
    "organizations": {"org_metered": {"quota": "metered"}},
    "quotas": {"metered": {"requests_per_second": 9, "burst": 9}},
}
POLICY = Policy.from_document(DOCUMENT)

Seconds = Callable[..., float]


@pytest.fixture
def verifier(new_verifier: Callable[..., Verifier]) -> Verifier:
    return new_verifier()


@pytest.fixture
def seconds(verifier: Verifier, ec_key: SigningKey, clock: ManualClock) -> Seconds:
    """Return a function that says how long the yes to a call holds, for a judge with these options."""

    def seconds(
        method: str = READ,
        *,
        claims: Mapping[str, Any] | None = None,
        call: Mapping[str, Any] | None = None,
        **judge: Any,
    ) -> float:
        authorizer = Authorizer(verifier, **{"policy": POLICY, **judge})
        token = ec_key.sign(m2m_claims(clock.now, **(claims or {})))
        made = Call(method=method, metadata=[("authorization", f"Bearer {token}")])._replace(**(call or {}))
        evidence = Evidence()
        run(authorizer.authorize(made, evidence))
        return authorizer.lasting.seconds(made, evidence)

    return seconds


def test_a_yes_holds_until_the_token_ends(seconds: Seconds, verifier: Verifier) -> None:
    assert seconds() == verifier.ends_at(Principal(org_id=ORG, client_id="c", subject="c", expires_at=NOW + 300)) - NOW
    assert seconds(policy=None) == seconds()


def test_a_yes_holds_no_longer_than_the_keys(seconds: Seconds) -> None:
    assert seconds(claims={"exp": int(NOW) + 100_000}) == STALE


def test_a_public_method_holds_for_ever(seconds: Seconds) -> None:
    assert seconds(PUBLIC) == math.inf


def test_a_method_whose_rules_look_at_headers_does_not(seconds: Seconds) -> None:
    assert seconds(WRITE) == 0


def test_a_yes_to_one_http_method_says_nothing_of_another(verifier: Verifier, ec_key: SigningKey) -> None:
    rules = [{"name": "reads", "request": {"methods": ["GET"]}}, {"name": "puts", "request": {"methods": ["PUT"]}}]
    judge = Authorizer(verifier, policy=Policy.from_document({**DOCUMENT, "allow_rules": rules}))
    call, evidence = Call(READ, [("authorization", f"Bearer {ec_key.sign(m2m_claims())}")], verb="GET"), Evidence()
    run(judge.authorize(call, evidence))
    found = {verb: judge.lasting.seconds(call._replace(verb=verb), evidence) for verb in ("GET", "PUT", "DELETE", "")}

    assert found.pop("GET") > 0
    assert found == {"PUT": 0, "DELETE": 0, "": 0}


@pytest.mark.parametrize("requirements", [Requirements(), Requirements(scopes=frozenset({"ledger:read"}))])
def test_a_route_may_ask_for_more_than_another_one(seconds: Seconds, requirements: Requirements) -> None:
    assert seconds(call={"requirements": requirements}) == 0


def test_calls_that_are_counted_are_asked_about(seconds: Seconds) -> None:
    assert seconds(claims={"org_id": "org_metered"}) == 0


def test_a_token_of_one_certificate_is_no_other_connections(seconds: Seconds) -> None:
    certificate = Authority().issue()
    peer = Peer(certificate=certificate.thumbprint)

    assert seconds(claims={"cnf": {"x5t#S256": certificate.thumbprint}}, call={"peer": peer}) == 0


def test_what_a_directory_says_may_change(seconds: Seconds, verifier: Verifier) -> None:
    directory = Directory(lambda _org_id: Organization(), clock=verifier.clock)

    assert seconds(directory=directory) == 0
    directory.close()


def test_the_issuer_is_asked_about_every_call(seconds: Seconds, clock: ManualClock) -> None:
    told = {"active": True, "client_id": m2m_claims()["client_id"], "sub": m2m_claims()["sub"]}
    transport = FakeTransport(lambda: json_response(told))
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=transport, clock=clock.clock)

    assert seconds(introspector=introspector, assurance={ASKED: Assurance(max_age=30)}) > 0
    assert seconds(ASKED, introspector=introspector, assurance={ASKED: Assurance(max_age=30)}) == 0


def test_headers_of_a_proxy_may_name_another_caller(seconds: Seconds) -> None:
    assert seconds(call={"peer": Peer()}, trust=MeshPeers(unix_socket=True)) == 0


def test_claims_that_a_proxy_has_verified_are_in_no_header(seconds: Seconds) -> None:
    assert seconds(call={"verified_claims": m2m_claims(), "metadata": []}) == 0


class Marked:
    """An isolation that looks at one method."""

    is_idle = False

    def looks_at(self, method: str) -> bool:
        return method == WRITE

    def check_request(self, _path: str, _verb: str, _principal: Principal, _body: Any) -> None:
        """Find nothing wrong."""


def test_a_request_that_may_name_an_organization_is_looked_at(
    verifier: Verifier, ec_key: SigningKey, clock: ManualClock
) -> None:
    authorizer = Authorizer(verifier)
    authorizer.replace_policy(None, isolation=Marked())
    token = ec_key.sign(m2m_claims(clock.now))
    found = {}
    for method in (READ, WRITE):
        call, evidence = Call(method=method, metadata=[("authorization", f"Bearer {token}")]), Evidence()
        run(authorizer.authorize(call, evidence))
        found[method] = authorizer.lasting.seconds(call, evidence)

    assert found[READ] > 0
    assert found[WRITE] == 0


# ---- What may turn a yes into a no ----


def watched(authorizer: Authorizer) -> list[bool]:
    """Return a list that gets, at each change, whether the judge refuses by then."""
    noted: list[bool] = []
    call = Call(method=READ, metadata=[])

    def note() -> None:
        try:
            authorizer.standing.check(Principal(org_id=ORG, client_id="c", subject="c", token_id="t", key_id="k"))
        except Exception:  # noqa: BLE001 - any refusal
            noted.append(True)
        else:
            noted.append(call.method not in authorizer.in_force.now.public)

    authorizer.changes.watch(note)
    return noted


@pytest.mark.parametrize(
    "change",
    [
        lambda judge: judge.suspend(org_id=ORG),
        lambda judge: judge.revoke(client_id="c"),
        lambda judge: judge.revoke(token_id="t"),
        lambda judge: judge.revoke(key_id="k"),
        lambda judge: judge.operator.list_tokens([(" t", NOW + 60)]),
        lambda judge: judge.standing.be_in_doubt(Doubt("store", refuses=True)),
        lambda judge: judge.replace_policy(POLICY),
    ],
    ids=["suspend", "client", "token", "key", "listed", "doubt", "policy"],
)
def test_a_change_is_noted_once_it_is_in_force(verifier: Verifier, change: Callable[[Authorizer], object]) -> None:
    authorizer = Authorizer(verifier, public_methods=[])
    noted = watched(authorizer)
    before = authorizer.changes.count
    change(authorizer)

    assert noted == [True]
    assert authorizer.changes.count == before + 1


def test_a_key_that_is_withdrawn_is_noted(
    verifier: Verifier, issuer: FakeIssuer, other_key: SigningKey, clock: ManualClock
) -> None:
    verifier.warm_up()
    authorizer = Authorizer(verifier)
    noted = watched(authorizer)
    issuer.keys = [other_key]
    clock.advance(300)
    verifier.warm_up()

    assert len(noted) == 1


def test_a_watcher_that_fails_stops_no_order(verifier: Verifier) -> None:
    authorizer = Authorizer(verifier)
    told: list[int] = []
    authorizer.changes.watch(lambda: 1 / 0)
    authorizer.changes.watch(lambda: told.append(1))
    authorizer.suspend(org_id=ORG)

    assert told == [1]
    assert authorizer.standing.suspended_organizations == {ORG}
