"""The judge knows an organization by the policy's list over the word of a directory, and else does not decide."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.judge.orders.order import Order
from authz.organizations.directory import FRESH, STALE, Directory, LookUpError
from authz.policy import Organization, Policy
from authz.runtime.flow import run
from tests.doubles import ORG, ManualClock, eventually

READ, WRITE, HEALTH = "/ledger.Ledger/Read", "/ledger.Ledger/Write", "/health.Health/Check"
DOCUMENT: dict[str, Any] = {
    "name": "ledger",
    "deny_rules": [{"name": "no-trials", "source": {"groups": ["trial"]}, "request": {"paths": [WRITE]}}],
    "allow_rules": [
        {"name": "paying", "source": {"groups": ["paying"]}},
        {"name": "all-read", "request": {"paths": [READ]}},
    ],
    "groups": ["trial", "paying"],
    "public": [HEALTH],
}


def policy(**listed: Any) -> Policy:
    """Return the policy; it lists the organization of the token if anything is said of it."""
    return Policy.from_document({**DOCUMENT, **({"organizations": {ORG: listed}} if listed else {})})


def known(*groups: str, **fields: Any) -> Organization:
    return Organization(groups=frozenset(groups), **fields)


class Judge:
    """An authorizer, and the organization of the token as the directory has it."""

    def __init__(self, verifier: Verifier, token: str) -> None:
        self._verifier, self._token = verifier, token
        self.organization: Organization | None = Organization()
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.directory = Directory(self._look_up, clock=verifier.clock, jitter=lambda: 0.0)
        self.authorizer = Authorizer(verifier)

    def judges_by(self, policy: Policy | None, **options: Any) -> None:
        self.authorizer = Authorizer(self._verifier, policy=policy, **{"directory": self.directory, **options})

    def ask(self, method: str = READ, **more: Any) -> Principal:
        call = Call(method=method, metadata=[("authorization", f"Bearer {self._token}")], **more)
        return run(self.authorizer.authorize(call, Evidence()))

    def reason(self, method: str = READ) -> str:
        with pytest.raises(AuthzError) as caught:
            self.ask(method)
        return caught.value.reason

    def _look_up(self, org_id: str) -> Organization | None:
        self.asked.append(org_id)
        if self.error is not None:
            raise self.error
        return self.organization


@pytest.fixture
def judge(verifier: Verifier, ec_key: SigningKey, claims: Callable[..., Any], clock: ManualClock) -> Iterator[Judge]:
    # It outlives the window in which an outage is bridged.
    judge = Judge(verifier, ec_key.sign(claims(exp=int(clock.now) + 86_400)))
    judge.judges_by(None)
    yield judge
    judge.directory.close()


def test_a_directory_gives_the_tenant_without_any_policy(judge: Judge) -> None:
    judge.organization = known(tenant="tenant-7")

    assert judge.ask().tenant == "tenant-7"
    assert judge.ask() is judge.ask()
    assert judge.asked == [ORG]


@pytest.mark.parametrize(
    ("listed", "found", "tenant", "may_write"),
    [
        pytest.param({}, known("paying", tenant="theirs"), "theirs", True, id="directory"),
        pytest.param({"tenant": "ours", "groups": ["paying"]}, known(), "ours", True, id="list"),
        pytest.param({"tenant": "ours"}, known("paying", tenant="theirs"), "ours", True, id="list-wins"),
        pytest.param({"groups": ["paying"]}, known("trial", tenant="theirs"), "theirs", False, id="groups-add-up"),
        pytest.param({"groups": ["trial"]}, known("paying"), "", False, id="groups-add-up-the-other-way"),
    ],
)
def test_what_is_listed_lies_over_what_the_directory_says(
    judge: Judge, listed: Any, found: Organization, tenant: str, *, may_write: bool
) -> None:
    judge.organization = found
    judge.judges_by(policy(**listed))

    assert judge.ask().tenant == judge.ask().tenant == tenant
    assert (judge.ask(WRITE).tenant if may_write else judge.reason(WRITE)) == (tenant if may_write else "policy_denied")


def test_labels_and_names_lie_over_each_other_too() -> None:
    listed, found = known(labels={"a": "1", "b": "1"}), known(labels={"b": "2", "c": "2"}, name="Acme")

    assert listed.over(found) == known(labels={"a": "1", "b": "1", "c": "2"}, name="Acme")
    assert known(name="Our Acme").over(found).name == "Our Acme"


def test_who_is_suspended_in_the_list_is_refused_whatever_the_directory_says(judge: Judge) -> None:
    judge.organization = known("paying")
    judge.judges_by(policy(status="suspended"))

    assert judge.reason() == "organization_suspended"


def test_what_changes_in_the_directory_counts_for_tokens_seen_before(judge: Judge, clock: ManualClock) -> None:
    judge.organization = known("paying", tenant="tenant-7")
    judge.judges_by(policy(labels={"listed": "too"}))
    assert judge.ask(WRITE).tenant == "tenant-7"

    judge.organization = known("trial", tenant="tenant-8")
    clock.advance(FRESH)

    assert judge.ask().tenant == "tenant-8"
    assert judge.reason(WRITE) == "policy_denied"


def test_change_that_is_told_counts_at_the_next_call(judge: Judge, clock: ManualClock) -> None:
    judge.organization = known(tenant="tenant-7")
    judge.judges_by(None)
    judge.ask()
    judge.organization = known(tenant="tenant-8")
    told = Order("renew", "organization", ORG, until=clock.now + 3600, source="workos", at=1)

    before = judge.ask().tenant
    judge.authorizer.operator.carry_out([told, told._replace(id="org_2")])

    assert (before, judge.ask().tenant, judge.ask().tenant) == ("tenant-7", "tenant-8", "tenant-8")
    assert judge.asked == [ORG, ORG]


@pytest.mark.parametrize("unknown", ["allow", "deny"])
@pytest.mark.parametrize("judged_by", [None, policy(), policy(groups=["paying"])], ids=["none", "policy", "listed"])
def test_an_outage_admits_nobody_of_whom_nothing_is_remembered(
    judge: Judge, judged_by: Policy | None, unknown: str
) -> None:
    judge.error = LookUpError("timeout")
    judge.judges_by(judged_by, unknown_organizations=unknown)

    assert judge.reason() == "directory_unavailable"


def test_an_outage_changes_nothing_for_those_who_called_within_the_hour(judge: Judge, clock: ManualClock) -> None:
    judge.organization = known("paying", tenant="tenant-7")
    judge.judges_by(policy())
    judge.ask(WRITE)
    judge.error = LookUpError("timeout")
    clock.advance(STALE - 1)

    assert judge.ask(WRITE).tenant == "tenant-7"
    eventually(lambda: judge.directory.counters.failed)
    clock.advance(1)
    assert judge.reason(WRITE) == "directory_unavailable"


@pytest.mark.parametrize(
    ("unknown", "listed", "reason"),
    [
        pytest.param("allow", {}, "", id="allow"),
        pytest.param("deny", {}, "organization_unknown", id="deny"),
        pytest.param("deny", {"tenant": "ours"}, "organization_unknown", id="deny-although-listed"),
    ],
)
def test_whom_the_directory_does_not_know_is_a_stranger_or_refused(
    judge: Judge, unknown: str, listed: Any, reason: str
) -> None:
    judge.organization = None
    judge.judges_by(policy(**listed), unknown_organizations=unknown)

    assert (judge.reason() if reason else judge.ask().tenant) == reason


def test_without_a_directory_the_list_says_who_is_known(judge: Judge) -> None:
    others = Policy.from_document({**DOCUMENT, "organizations": {"org_2": {}}})
    judge.judges_by(others, directory=None, unknown_organizations="deny")
    assert judge.reason() == "organization_unknown"

    judge.authorizer.replace_policy(policy(tenant="ours"))
    assert judge.ask().tenant == "ours"
    with pytest.raises(ConfigError, match=r"^unknown_organizations: deny needs a directory"):
        judge.authorizer.replace_policy(policy())
    assert judge.ask().tenant == "ours"


@pytest.mark.parametrize("judged_by", [None, policy()], ids=["no-policy", "no-list"])
def test_nobody_would_be_known_is_a_mistake(judge: Judge, judged_by: Policy | None) -> None:
    with pytest.raises(ConfigError, match=r"^unknown_organizations: deny needs a directory"):
        judge.judges_by(judged_by, directory=None, unknown_organizations="deny")


def test_what_is_neither_is_a_mistake(judge: Judge) -> None:
    with pytest.raises(ConfigError, match=r"^unknown_organizations: 'denied' must be allow or deny$"):
        judge.judges_by(None, unknown_organizations="denied")


def test_nobody_is_asked_about_calls_that_are_decided_without(judge: Judge) -> None:
    judge.judges_by(policy())
    assert judge.ask(HEALTH) is ANONYMOUS
    judge.authorizer.revoke(org_id=ORG)

    assert judge.reason() == "token_inactive"
    assert judge.asked == []


def test_whom_a_proxy_names_is_looked_up_as_well(judge: Judge, clock: ManualClock) -> None:
    judge.organization = known(tenant="tenant-7")
    caller = Principal(org_id=ORG, client_id="c", subject="c", expires_at=clock.now + 60, tenant="theirs")
    judge.judges_by(None, trust=MeshPeers(unix_socket=True))
    call = Call(method=READ, metadata=TrustedMetadata().entries(caller), peer=Peer(is_unix_socket=True))

    assert run(judge.authorizer.authorize(call)).tenant == "tenant-7"


def test_a_group_that_only_the_directory_knows_is_declared_and_others_stay_errors() -> None:
    assert [rule.name for rule in policy().rules] == ["no-trials", "paying", "all-read"]
    with pytest.raises(ConfigError, match="unknown group 'paying'; no organization is in it, and groups does not list"):
        Policy.from_document({**DOCUMENT, "groups": ["trial"]})
    with pytest.raises(ConfigError, match="unknown group 'paying'; did you mean 'payings'"):
        Policy.from_document({**DOCUMENT, "groups": ["trial", "payings"]})
