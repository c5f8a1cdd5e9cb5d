"""The judge keeps to the policy: after the token, before the issuer is asked."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from authz.call.call import Call
from authz.call.memory import Memory
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.call.requirements import Assurance, Requirements
from authz.decisions.decision import Evidence
from authz.errors import AuthzError, ConfigError, PeerUnknownError, PermissionDeniedError, TokenMissingError
from authz.issuer.introspection import Introspector
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.judge.organizations import Organizations
from authz.policy import Organization, Policy
from authz.policy.protos.access import Access
from authz.policy.protos.declared import Protos
from authz.runtime.flow import run
from authz.runtime.text.document import Document
from tests.doubles import CLIENT, ISSUER, ORG, FakeTransport, json_response

READ, WRITE, OTHER, HEALTH = "/ledger.Ledger/Read", "/ledger.Ledger/Write", "/other.Other/Do", "/health.Health/Check"
STRANGER = "org_01JYSTRANGER00000000000000"

DOCUMENT: dict[str, Any] = {
    "name": "ledger",
    "deny_rules": [
        {"name": "no-writes-for-trials", "source": {"groups": ["trial"]}, "request": {"paths": ["*/Write"]}}
    ],
    "allow_rules": [
        {"name": "ledger", "source": {"groups": ["trial", "paying"]}, "request": {"paths": ["/ledger.Ledger/*"]}},
        {"name": "other", "source": {"scopes": ["admin other"]}, "request": {"paths": [OTHER]}},
    ],
    "public": [HEALTH],
    "organizations": {ORG: {"tenant": "tenant-7", "groups": ["trial"]}, "org_payer": {"groups": ["trial", "paying"]}},
}


def policy(**changes: Any) -> Policy:
    return Policy.from_document({**DOCUMENT, **changes})


def organization(**changes: Any) -> Any:
    """Return the organizations, with changes to that of the token."""
    organizations = DOCUMENT["organizations"]
    return {"organizations": {**organizations, ORG: {**organizations[ORG], **changes}}}


class Asked:
    """An authorizer, and what it found out about the last call."""

    def __init__(self, authorizer: Authorizer, token: str) -> None:
        self.authorizer, self._token, self.evidence = authorizer, token, Evidence()

    def ask(self, method: str, *metadata: Any, token: str | None = None, **more: Any) -> Principal:
        self.evidence = Evidence()
        entries = [("authorization", f"Bearer {token or self._token}"), *metadata]
        return run(self.authorizer.authorize(Call(method=method, metadata=entries, **more), self.evidence))

    def reason(self, method: str, *metadata: Any, **options: Any) -> str:
        with pytest.raises(AuthzError) as caught:
            self.ask(method, *metadata, **options)
        return caught.value.reason


@pytest.fixture
def new_asked(verifier: Verifier, sign: Callable[..., str]) -> Callable[..., Asked]:
    return lambda policy, **options: Asked(Authorizer(verifier, policy=policy, **options), sign())


@pytest.fixture
def asked(new_asked: Callable[..., Asked]) -> Asked:
    return new_asked(policy())


def test_an_allow_rule_admits_with_the_tenant(asked: Asked) -> None:
    principal = asked.ask(READ)

    assert (principal.org_id, principal.client_id, principal.tenant) == (ORG, CLIENT, "tenant-7")
    assert asked.evidence.principal is principal
    assert (asked.evidence.source, asked.evidence.policy, asked.evidence.rule) == ("signature", "ledger", "ledger")


def test_a_caller_without_a_tenant_has_none(asked: Asked, sign: Callable[..., str]) -> None:
    other = sign(org_id=STRANGER, scope="admin other")

    assert asked.ask(OTHER, token=other).tenant == ""
    assert asked.evidence.rule == "other"


def test_the_same_token_is_the_same_caller(asked: Asked) -> None:
    assert asked.ask(READ) is asked.ask(READ)


def test_no_caller_is_admitted_as_one_who_was_in_the_same_place() -> None:
    """In the place of an object that is gone there may be another, with the same id."""
    rules = Policy.from_document({"name": "p", "allow_rules": [{"name": "a", "source": {"clients": ["client_a"]}}]})
    places = set[int]()
    for _ in range(100):
        one = Principal(org_id=ORG, client_id="client_a", subject="client_a")
        places.add(id(one))
        rules.admit(Call("/a.B/C", ()), one)
        del one
        other = Principal(org_id=ORG, client_id="client_b", subject="client_b")
        places.add(id(other))
        with pytest.raises(PermissionDeniedError):
            rules.admit(Call("/a.B/C", ()), other)
        del other

    assert len(places) < 200


def test_a_deny_rule_refuses_and_is_named(asked: Asked) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        asked.ask(WRITE)

    assert (caught.value.reason, caught.value.rule) == ("policy_denied", "no-writes-for-trials")
    assert (asked.evidence.policy, asked.evidence.rule) == ("ledger", "no-writes-for-trials")
    assert (asked.evidence.principal.org_id, asked.evidence.principal.tenant) == (ORG, "tenant-7")


def test_what_no_rule_allows_is_refused(asked: Asked) -> None:
    assert asked.reason(OTHER) == "policy_denied"
    assert (asked.evidence.principal.org_id, asked.evidence.rule) == (ORG, "")


def test_scopes_are_held_wholly_or_not_at_all(asked: Asked, sign: Callable[..., str]) -> None:
    assert asked.reason(OTHER, token=sign(scope="admin")) == "policy_denied"
    assert asked.ask(OTHER, token=sign(scope="x other admin")).org_id == ORG


def test_public_methods_of_both_need_no_token_and_no_rule(new_asked: Callable[..., Asked]) -> None:
    asked = new_asked(policy(), public_methods=["/a.B/C"])

    assert [asked.ask(method, token="nonsense") for method in (HEALTH, "/a.B/C")] == [ANONYMOUS, ANONYMOUS]


def test_who_you_are_comes_before_what_you_may(asked: Asked) -> None:
    assert asked.reason(WRITE, token="nonsense") == "token_malformed"


def test_a_withdrawn_token_is_refused_as_such(asked: Asked) -> None:
    asked.authorizer.revoke(org_id=ORG)

    assert asked.reason(WRITE) == "token_inactive"


def test_a_suspended_organization_is_refused_everywhere_but_in_public(new_asked: Callable[..., Asked]) -> None:
    asked = new_asked(policy(**organization(status="suspended")))

    assert [asked.reason(method) for method in (READ, WRITE, OTHER)] == ["organization_suspended"] * 3
    assert (asked.evidence.principal.org_id, asked.evidence.rule) == (ORG, "")
    assert asked.ask(HEALTH) is ANONYMOUS


def test_without_a_policy_every_good_token_is_admitted(new_asked: Callable[..., Asked]) -> None:
    asked = new_asked(None)

    assert [asked.ask(method).tenant for method in (READ, WRITE, OTHER)] == ["", "", ""]
    assert asked.evidence.rule == ""


def test_headers_and_peers_are_asked_for_on_every_call(new_asked: Callable[..., Asked]) -> None:
    condition = {
        "source": {"principals": ["spiffe://a/b"]},
        "request": {"headers": [{"key": "x-mode", "values": ["fast"]}]},
    }
    asked = new_asked(policy(allow_rules=[{"name": "conditional", **condition}], deny_rules=[]))
    right, wrong = Peer(principals=("spiffe://a/b",)), Peer(principals=("spiffe://a/c",))

    for _ in range(2):
        assert asked.ask(READ, ("x-mode", "fast"), peer=right).org_id == ORG
        assert asked.reason(READ, ("x-mode", "fast"), peer=wrong) == "policy_denied"
        assert asked.reason(READ, ("x-mode", "slow"), peer=right) == "policy_denied"
        with pytest.raises(PeerUnknownError):
            asked.ask(READ, ("x-mode", "fast"))


def test_a_rule_may_not_ask_for_what_is_removed_from_every_call(verifier: Verifier) -> None:
    """A caller could send it."""
    rule = {"name": "forgeable", "request": {"headers": [{"key": "X-Org-Id", "values": [ORG]}]}}

    with pytest.raises(ConfigError, match=r"^policy 'ledger': rule 'forgeable' asks for the header 'x-org-id'"):
        Authorizer(verifier, policy=policy(allow_rules=[rule]))


# ---- Another policy ----


def test_another_policy_counts_from_the_next_call_on(asked: Asked) -> None:
    asked.ask(READ)
    asked.authorizer.replace_policy(policy(**organization(status="suspended")))
    suspended = asked.reason(READ)
    asked.authorizer.replace_policy(
        policy(**organization(tenant="tenant-8", groups=["paying"]), deny_rules=[], name="n")
    )
    written = asked.ask(WRITE)
    asked.authorizer.replace_policy(None)

    assert (suspended, written.tenant) == ("organization_suspended", "tenant-8")
    assert asked.ask(OTHER).tenant == ""


def test_a_policy_that_cannot_work_leaves_the_one_before(asked: Asked) -> None:
    before = asked.authorizer.policy

    with pytest.raises(ConfigError, match="introspect needs an introspector"):
        asked.authorizer.replace_policy(policy(introspect={"*": {}}))

    assert asked.authorizer.policy is before


class OpenStream:
    def __init__(self) -> None:
        self.error: AuthzError | None = None

    def end(self, error: AuthzError) -> None:
        self.error = error


def test_suspending_ends_the_streams_of_that_organization_only(asked: Asked, sign: Callable[..., str]) -> None:
    theirs, others = OpenStream(), OpenStream()
    asked.authorizer.endings.open(theirs, asked.ask(READ), float("inf"))
    other = asked.ask(OTHER, token=sign(org_id=STRANGER, scope="admin other"))
    asked.authorizer.endings.open(others, other, float("inf"))

    asked.authorizer.replace_policy(policy(**organization(status="suspended")))

    assert theirs.error is not None
    assert (theirs.error.code.name, theirs.error.reason) == ("PERMISSION_DENIED", "organization_suspended")
    assert others.error is None


def test_a_stream_that_opens_after_its_organization_was_suspended_ends(asked: Asked) -> None:
    """The stream is admitted before the order, and opened after it."""
    principal, stream = asked.ask(READ), OpenStream()
    asked.authorizer.replace_policy(policy(**organization(status="suspended")))

    asked.authorizer.endings.open(stream, principal, float("inf"))

    assert stream.error is not None
    assert stream.error.reason == "organization_suspended"


def opened(asked: Asked, method: str = READ, **more: Any) -> OpenStream:
    """Return a stream that a call has opened."""
    stream, call = OpenStream(), Call(method=method, metadata=[("x-mode", "fast")], **more)
    asked.authorizer.endings.open(stream, asked.ask(method, ("x-mode", "fast"), **more), float("inf"), call)
    return stream


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        pytest.param([{"name": "others", "request": {"paths": [OTHER]}}], "policy_denied", id="not-allowed"),
        pytest.param([{"name": "tls", "source": {"principals": ["*"]}}], "unavailable", id="nobody-can-tell"),
        pytest.param(
            [{"name": "slow", "request": {"headers": [{"key": "x-mode", "values": ["slow"]}]}}],
            "policy_denied",
            id="header",
        ),
    ],
)
def test_streams_that_another_policy_would_not_admit_end(asked: Asked, rules: Any, reason: str) -> None:
    stream = opened(asked)

    asked.authorizer.replace_policy(policy(allow_rules=rules))

    assert stream.error is not None
    assert stream.error.reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"allow_rules": [{"name": "another"}]}, id="allowed-by-another-rule"),
        pytest.param({"allow_rules": [{"name": "o", "request": {"paths": [OTHER]}}], "public": [READ]}, id="public"),
        pytest.param(
            {"allow_rules": [{"name": "f", "request": {"headers": [{"key": "x-mode", "values": ["fast"]}]}}]},
            id="header",
        ),
    ],
)
def test_streams_that_another_policy_would_admit_go_on(asked: Asked, changes: Any) -> None:
    stream = opened(asked)

    asked.authorizer.replace_policy(policy(**changes))

    assert stream.error is None


def test_streams_are_judged_anew_by_their_http_method(asked: Asked) -> None:
    """A handshake of a WebSocket is a GET."""
    handshake, posted = opened(asked, verb="GET"), opened(asked)

    asked.authorizer.replace_policy(policy(allow_rules=[{"name": "reads", "request": {"methods": ["GET"]}}]))

    assert handshake.error is None
    assert posted.error is not None
    assert posted.error.reason == "policy_denied"


def test_a_stream_that_opens_after_its_rule_was_removed_ends(asked: Asked) -> None:
    principal, stream = asked.ask(READ), OpenStream()
    asked.authorizer.replace_policy(policy(allow_rules=[{"name": "others", "request": {"paths": [OTHER]}}]))

    asked.authorizer.endings.open(stream, principal, float("inf"), Call(method=READ, metadata=[]))

    assert stream.error is not None
    assert stream.error.reason == "policy_denied"


@pytest.mark.parametrize(
    ("changes", "tenant"), [({}, "tenant-7"), ({"tenant": "tenant-8"}, "tenant-8"), ({"status": "suspended"}, None)]
)
def test_a_call_is_judged_by_policy_and_isolation_of_one_moment(
    new_verifier: Callable[..., Verifier], sign: Callable[..., str], changes: dict[str, Any], tenant: str | None
) -> None:
    """The call waited for keys while both were replaced: those in force at the verdict count."""
    authorizer = Authorizer(new_verifier(), policy=policy())
    authorizer.replace_policy(policy(), isolation="first")
    evidence = Evidence()
    flow = authorizer.authorize(Call(method=READ, metadata=[("authorization", f"Bearer {sign()}")]), evidence)
    wait = next(flow)

    authorizer.replace_policy(policy(**organization(**changes)), isolation="second")

    if tenant is None:
        with pytest.raises(PermissionDeniedError):
            run(flow, waiting=wait)
    else:
        assert run(flow, waiting=wait).tenant == tenant
    assert (evidence.isolation, authorizer.in_force.now.isolation) == ("second", "second")


# ---- Introspection ----


@pytest.fixture
def endpoint() -> FakeTransport:
    return FakeTransport(lambda: json_response({"active": True}))


@pytest.fixture
def introspector(endpoint: FakeTransport, verifier: Verifier) -> Introspector:
    return Introspector(
        ISSUER, client_id="client_api", client_secret="secret", transport=endpoint, clock=verifier.clock
    )


@pytest.mark.parametrize(
    ("introspect", "method", "asks"),
    [
        ({READ: {}}, READ, True),
        ({"/other*": {}}, READ, False),
        ({"/ledger.Ledger/*": {}}, READ, True),
        ({"*/Read": {}}, READ, True),
        ({"*": {}}, READ, True),
    ],
)
def test_the_issuer_is_asked_where_the_policy_says_so(
    new_asked: Callable[..., Asked],
    introspector: Introspector,
    endpoint: FakeTransport,
    introspect: Any,
    method: str,
    *,
    asks: bool,
) -> None:
    asked = new_asked(policy(introspect=introspect), introspector=introspector)

    asked.ask(method)

    assert (endpoint.fetches == 1) is asks
    assert (asked.evidence.source == "introspection") is asks


def test_the_closest_word_counts(new_asked: Callable[..., Asked], introspector: Introspector) -> None:
    introspect = {
        "*": {"max_age": 1},
        "/ledger*": {"max_age": 2},
        "/ledger.Ledger/*": {"max_age": 3, "if_unavailable": "local"},
        READ: {"max_age": 4},
    }
    found = policy(introspect=introspect)
    new_asked(found, introspector=introspector, assurance=Assurance(max_age=5))

    ages = [found.assurance(method) for method in (READ, WRITE, "/ledgers/x", OTHER)]

    assert [age.max_age for age in ages if age] == [4, 3, 2, 1]
    assert found.assurance(WRITE) == Assurance(max_age=3, if_unavailable="local")
    assert policy(introspect={READ: {}}).assurance(WRITE) is None


def test_methods_that_the_policy_does_not_name_keep_their_assurance(
    new_asked: Callable[..., Asked], introspector: Introspector, endpoint: FakeTransport
) -> None:
    asked = new_asked(policy(introspect={WRITE: {}}), introspector=introspector, assurance=Assurance())

    asked.ask(READ)

    assert endpoint.fetches == 1


def declared(**access: Any) -> Policy:
    """Return what a .proto asks of the callers of ``READ``."""
    return Policy(Document({"name": "p"}), Protos({READ: Access(**access)}, "api"))


def test_the_issuer_is_asked_where_the_proto_says_so(
    new_asked: Callable[..., Asked], verifier: Verifier, introspector: Introspector, endpoint: FakeTransport
) -> None:
    asked = new_asked(declared(max_age=5.0), introspector=introspector)

    asked.ask(READ)

    assert (asked.evidence.source, asked.evidence.rule, endpoint.fetches) == ("introspection", f"proto:{READ}", 1)
    with pytest.raises(ConfigError, match=r"^policy 'p': introspect needs an introspector"):
        Authorizer(verifier, policy=declared(max_age=5.0))


def test_a_method_that_its_proto_makes_public_needs_no_token(new_asked: Callable[..., Asked]) -> None:
    """If a route requires something, any good token is needed."""
    asked = new_asked(declared(public=True))

    assert asked.ask(READ, token="nonsense") is ANONYMOUS
    assert asked.reason(READ, token="nonsense", requirements=Requirements(policy="p")) == "token_malformed"
    assert asked.ask(READ, requirements=Requirements(policy="p")).org_id == ORG


def test_no_issuer_is_asked_about_calls_that_are_refused(
    new_asked: Callable[..., Asked], introspector: Introspector, endpoint: FakeTransport
) -> None:
    asked = new_asked(policy(introspect={"*": {}}), introspector=introspector)

    assert asked.reason(WRITE) == "policy_denied"
    assert endpoint.fetches == 0


def test_introspection_needs_somebody_to_ask(verifier: Verifier, introspector: Introspector) -> None:
    with pytest.raises(ConfigError, match=r"^policy 'ledger': introspect needs an introspector"):
        Authorizer(verifier, policy=policy(introspect={"*": {}}))
    with pytest.raises(ConfigError, match="give both or neither"):
        Authorizer(verifier, policy=policy(), introspector=introspector)


# ---- Behind a proxy ----


def test_callers_that_a_proxy_names_are_under_the_policy_too(verifier: Verifier) -> None:
    authorizer = Authorizer(verifier, policy=policy(), trust=MeshPeers(unix_socket=True))
    caller = Principal(org_id=ORG, client_id="c", subject="c", expires_at=253_402_300_799.0, tenant="theirs")
    peer = Peer(is_unix_socket=True)

    def ask(method: str, who: Principal = caller) -> Principal:
        return run(authorizer.authorize(Call(method=method, metadata=TrustedMetadata().entries(who), peer=peer)))

    assert ask(READ).tenant == "tenant-7"
    with pytest.raises(PermissionDeniedError):
        ask(WRITE)
    stranger = Principal(
        org_id=STRANGER,
        client_id="c",
        subject="c",
        expires_at=253_402_300_799.0,
        tenant="theirs",
        scopes=frozenset({"admin", "other"}),
    )
    assert ask(OTHER, stranger).tenant == "theirs"


def test_callers_whose_payload_a_proxy_has_verified_are_under_the_policy_too(
    verifier: Verifier, claims: Callable[..., Any]
) -> None:
    authorizer, evidence = Authorizer(verifier, policy=policy()), Evidence()

    def ask(method: str) -> Principal:
        return run(authorizer.authorize(Call(method=method, metadata=(), verified_claims=claims()), evidence))

    assert ask(READ).tenant == "tenant-7"
    with pytest.raises(PermissionDeniedError):
        ask(WRITE)
    assert (evidence.principal.tenant, evidence.rule) == ("tenant-7", "no-writes-for-trials")


def test_a_payload_is_refused_where_the_policy_has_the_issuer_asked(
    verifier: Verifier, introspector: Introspector, claims: Callable[..., Any]
) -> None:
    authorizer = Authorizer(verifier, policy=policy(introspect={READ: {}}), introspector=introspector)

    with pytest.raises(TokenMissingError):
        run(authorizer.authorize(Call(method=READ, metadata=(), verified_claims=claims())))


# ---- What a route asks ----


def test_a_route_may_name_the_policy_in_force_and_no_other(asked: Asked) -> None:
    assert asked.ask(READ, requirements=Requirements(policy="ledger")).tenant == "tenant-7"
    assert asked.reason(READ, requirements=Requirements(policy="partners")) == "internal"
    assert asked.reason(WRITE, requirements=Requirements(policy="ledger")) == "policy_denied"


def test_a_method_that_the_policy_opens_is_shut_where_a_route_asks_something(asked: Asked) -> None:
    assert asked.ask(HEALTH) is ANONYMOUS
    assert asked.reason(HEALTH, requirements=Requirements(policy="ledger")) == "policy_denied"


# ---- What is remembered ----


def test_callers_are_not_mixed_up() -> None:
    """They are remembered by their addresses in memory, which other objects may have later."""
    known, organizations = Organization(tenant="tenant-7"), Organizations(None, "allow")

    for number in range(10_500):
        caller = Principal(org_id=ORG, client_id="c", subject="c", token_id=str(number))
        identified = organizations.identify(caller, known)
        assert (identified.token_id, identified.tenant) == (str(number), "tenant-7")


def test_long_methods_are_not_remembered(asked: Asked) -> None:
    """A caller chooses them freely."""
    found, caller = policy(), asked.ask(READ)
    tracemalloc.start()
    try:
        for number in range(2_000):
            with pytest.raises(PermissionDeniedError):
                found.admit(Call(method=f"/{number:08192d}/m", metadata=()), caller)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 2 * 2**20


def test_memory_forgets_when_it_is_full() -> None:
    memory = Memory[int, str](3)

    for number in range(10):
        memory.remember(number, "x")
        assert len(memory) <= 3

    assert memory == {9: "x"}
