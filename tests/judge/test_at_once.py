"""The quick way decides as the flow does: the same verdict, evidence and errors, and observers are told the same."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz import Assurance, Authorizer, Introspector, MeshPeers, Policy, Principal, Verifier
from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import PLAIN, Peer
from authz.call.requirements import Requirements
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import ConfigError, TokenMalformedError
from authz.judge.hearing import Hearing
from authz.organizations.directory import Directory
from authz.organizations.quota import Awaited, Quota, Quotas
from authz.policy import Organization
from authz.runtime.flow import Flow
from tests.doubles import AUDIENCE, CLIENT, ISSUER, NOW, ORG, FakeIssuer, FakeTransport, ManualClock, json_response
from tests.doubles import m2m_claims as claims

KEYS = [SigningKey.generate(kid, "ES256") for kid in ("first", "second", "never_published")]
PUBLIC, READ, WRITE, ASKED = "/a.B/Public", "/a.B/Read", "/a.B/Write", "/a.B/Asked"
BOUND = "A" * 43
PEERS = [None, PLAIN, Peer(certificate=BOUND), Peer(certificate="B" * 43), Peer(is_unix_socket=True)]

RULES: dict[str, Any] = {
    "name": "rules",
    "public": [PUBLIC],
    "deny_rules": [{"name": "no-writes", "request": {"paths": [WRITE]}, "source": {"clients": ["client_reader"]}}],
    "allow_rules": [
        {"name": "all", "request": {"paths": [READ, ASKED, WRITE]}, "source": {"organizations": [ORG]}},
        {"name": "by-peer", "request": {"paths": [READ]}, "source": {"principals": [""]}},
    ],
    "organizations": {ORG: {"tenant": "tenant-7"}, "org_shut": {"status": "suspended"}},
}
PLAN = {"quotas": {"two": {"requests_per_second": 0.001, "burst": 2}}, "default_quota": "two"}
POLICIES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "rules": RULES,
    "quotas": RULES | {"name": "quotas"} | PLAN,
    "asking": RULES | {"name": "asking", "introspect": {ASKED: {"max_age": 30}}},
}


class ByFlow(Authorizer):
    """A judge whose verdicts are all those of the flow."""

    def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
        return (yield from super().authorize(call, evidence))


class StrangeError(BaseException):
    """Nothing that ``except Exception`` would catch."""


class World:
    """One judge, with everything that it asks; two worlds of one configuration differ only in its class."""

    def __init__(self, kind: type[Authorizer], config: Mapping[str, Any]) -> None:
        self.clock, self.told = ManualClock(), list[Decision]()
        self.issuer = FakeIssuer(KEYS[0])
        self.verifier = Verifier(
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=["ES256"],
            clock=self.clock.clock,
            transport=self.issuer.transport,  # type: ignore[arg-type]
        )
        self.answers = FakeTransport(lambda: json_response({"active": True}))
        network: Any = self.answers
        introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=network, clock=self.clock.clock)
        is_asked = config["is_asked"] or config["policy"] == "asking"
        self.authorizer = kind(
            self.verifier,
            public_methods=[PUBLIC],
            policy=self.policy(config["policy"]),
            introspector=introspector if is_asked else None,
            assurance={ASKED: Assurance()} if is_asked else None,
            directory=Directory(lambda _: Organization(), clock=self.clock.clock) if config["has_directory"] else None,
            unknown_organizations=config["unknown"] if config["policy"] != "none" else "allow",
            trust=MeshPeers(unix_socket=True) if config["trusts"] else None,
            observers=[self.told.append],
        )

    def policy(self, name: str) -> Policy | None:
        document = POLICIES[name]
        return None if document is None else Policy.from_document(document)

    def happens(self, event: tuple[Any, ...]) -> None:
        match event:
            case "seconds", seconds:
                self.clock.advance(seconds)
            case "clock set", seconds:
                self.clock.set_forward(seconds)
            case "keys", keys:
                self.issuer.keys = [KEYS[each] for each in keys]
            case "outage", is_down:
                (self.issuer.transport.down if is_down else self.issuer.transport.up)()
            case "policy", name:
                try:
                    self.authorizer.replace_policy(self.policy(name))
                except ConfigError:
                    return
            case "fault", (part, method):
                for name in ("verify_flow", "verify_at_once") if method == "verify" else (method,):
                    setattr(getattr(self.authorizer, part), name, _broken)
            case _, (verb, named):
                getattr(self.authorizer, verb)(**named)
            case _:
                raise ValueError(event)

    def verdict(self, call: Call) -> tuple[Any, ...]:
        """Return what a door makes of ``call``."""
        hearing = Hearing(self.authorizer, call, "other")
        try:
            principal = hearing.at_once() or hearing.decide()
        except BaseException as error:  # noqa: BLE001 - as doors do
            hearing.refused(error)
            return type(error).__name__, getattr(error, "reason", ""), str(error), noted(hearing.evidence)
        hearing.allowed(hearing.seconds)
        return principal, principal.key_thumbprint, noted(hearing.evidence)


def _broken(*_: object) -> None:
    raise StrangeError("secret")


def noted(evidence: Evidence) -> dict[str, Any]:
    said = {name: getattr(evidence, name) for name in Evidence.__annotations__}
    policy = None if said["in_force"] is None else said["in_force"].policy
    return {**said, "in_force": None if policy is None else policy.name}


def told(world: World) -> list[tuple[Any, ...]]:
    return [(each.call, noted(each.evidence), each.refusal, each.event, each.time) for each in world.told]


def header(*, key: int, changes: Mapping[str, Any], form: str) -> tuple[tuple[str, str], ...]:
    token = _signed(key, tuple(sorted(changes.items())))
    if form == "none":
        return ()
    if form == "twice":
        return (("authorization", f"Bearer {token}"),) * 2
    if form == "forged":
        return (("authorization", f"Bearer {token[:-8]}{'A' * 8}"),)
    return (("authorization", form.format(token)),)


_tokens: dict[tuple[Any, ...], str] = {}


def _signed(key: int, changes: tuple[tuple[str, Any], ...]) -> str:
    said = (key, repr(changes))
    if said not in _tokens:
        _tokens[said] = KEYS[key].sign(claims(**dict(changes)))
    return _tokens[said]


NAMED = Principal(org_id=ORG, client_id=CLIENT, subject=CLIENT, expires_at=NOW + 60)
changed = st.sampled_from(
    [
        {},
        {"jti": "other"},
        {"client_id": "client_reader", "sub": "client_reader"},
        {"org_id": "org_shut"},
        {"org_id": "org_stranger"},
        {"org_id": "org of two words"},
        {"iss": "https://other.example"},
        {"aud": "another"},
        {"exp": int(NOW) - 100, "iat": int(NOW) - 200},
        {"exp": int(NOW) + 20},
        {"cnf": {"x5t#S256": BOUND}},
        {"scope": "ledger:read"},
    ]
)
forms = st.sampled_from(
    [
        *("Bearer {}", "Bearer {}", "Bearer {}", "Bearer {}", "bearer {}", "Bearer  {}", "Basic {}", "Bearer {},"),
        *("Bearer x.y.z", "Bearer \xe9{}", "none", "twice", "forged"),
    ]
)
proxied = st.sampled_from([(), (), (), TrustedMetadata().entries(NAMED), (("x-org-id", ORG),)])
calls = st.builds(
    lambda method, header, proxied, looked_up, **rest: Call(
        method=method,
        metadata=(*header, *proxied),
        credentials=[value for _, value in header] if looked_up else None,
        **rest,
    ),
    method=st.sampled_from([READ, READ, WRITE, ASKED, PUBLIC, "/a.B/Unknown", f"/a.B/{'x' * 9000}"]),
    header=st.builds(header, key=st.sampled_from([0, 0, 0, 1, 2]), changes=changed, form=forms),
    proxied=proxied,
    looked_up=st.booleans(),
    peer=st.sampled_from(PEERS),
    requirements=st.sampled_from(
        [
            *(None, None, None, Requirements(scopes=frozenset({"ledger:write"})), Requirements(audience="x")),
            *(Requirements(policy="rules"), Requirements(mistake="scopes")),
        ]
    ),
    verified_claims=st.sampled_from([None, None, None, claims(), claims(exp=1), {}]),
)
orders = st.sampled_from(
    [
        ("suspend", {"org_id": ORG}),
        ("resume", {"org_id": ORG}),
        ("revoke", {"client_id": CLIENT}),
        ("revoke", {"token_id": "other"}),
        ("revoke", {"key_id": "second"}),
    ]
)
events = st.one_of(
    st.tuples(st.just("seconds"), st.sampled_from([1, 15, 40, 400])),
    st.tuples(st.just("clock set"), st.sampled_from([-100, 50])),
    st.tuples(st.just("keys"), st.sampled_from([(0,), (0, 1), (1,)])),
    st.tuples(st.just("outage"), st.booleans()),
    st.tuples(st.just("policy"), st.sampled_from(sorted(POLICIES))),
    st.tuples(st.just("order"), orders),
)
# Not at the question whether the issuer is asked: the quick way begins with it, where the flow ends. Nor at the look
# into the memory, which it takes before it knows that it was shown a token.
faults = st.sampled_from(
    [
        ("standing", "check"),
        ("organizations", "recall"),
        ("organizations", "identify"),
        ("quotas", "take"),
        ("verifier", "verify"),
        ("verifier", "ends_at"),
        ("verifier", "principal_of"),
    ]
)
configs = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(sorted(POLICIES)),
        "unknown": st.sampled_from(["allow", "deny"]),
        "is_asked": st.sampled_from([False, False, True]),
        "has_directory": st.sampled_from([False, False, False, False, True]),
        "trusts": st.booleans(),
    }
)


PLAIN_WORLD: dict[str, Any] = {
    "policy": "none",
    "unknown": "allow",
    "is_asked": False,
    "has_directory": False,
    "trusts": False,
}
GOOD = header(key=0, changes={}, form="Bearer {}")


@pytest.mark.parametrize(
    ("config", "call"),
    [
        pytest.param({}, Call(READ, GOOD), id="token"),
        pytest.param({}, Call(PUBLIC, ()), id="public"),
        pytest.param({"policy": "rules"}, Call(READ, GOOD, peer=PLAIN), id="policy"),
        pytest.param({"policy": "quotas"}, Call(READ, GOOD, peer=PLAIN), id="quota"),
        pytest.param({"is_asked": True}, Call(READ, GOOD), id="method about which the issuer is not asked"),
        pytest.param({"trusts": True}, Call(READ, TrustedMetadata().entries(NAMED), PEERS[-1]), id="proxy"),
        pytest.param({}, Call(READ, (), verified_claims=claims()), id="claims"),
    ],
)
def test_what_waits_for_nothing_is_decided_at_once(config: dict[str, Any], call: Call) -> None:
    world = World(Authorizer, PLAIN_WORLD | config)
    world.verifier.warm_up()

    assert [world.authorizer.at_once(call, Evidence()) is not None for _ in range(2)] == [True, True]


@pytest.mark.parametrize(
    ("config", "call"),
    [
        pytest.param({}, Call(READ, header(key=1, changes={}, form="Bearer {}")), id="key"),
        pytest.param({"has_directory": True}, Call(READ, GOOD), id="directory"),
        pytest.param({"is_asked": True}, Call(ASKED, GOOD), id="issuer"),
    ],
)
def test_what_may_wait_is_left_to_the_flow(config: dict[str, Any], call: Call) -> None:
    world = World(Authorizer, PLAIN_WORLD | config)
    world.verifier.warm_up()

    assert world.authorizer.at_once(call, Evidence()) is None


@pytest.mark.parametrize("scheme", ["Basic ", "Bearer,", "Secret ", "Bearer"])
def test_a_known_token_is_good_with_no_other_scheme(scheme: str) -> None:
    world = World(Authorizer, PLAIN_WORLD)
    world.verifier.warm_up()
    [(name, value)] = GOOD
    assert world.authorizer.at_once(Call(READ, GOOD), Evidence()) is not None

    with pytest.raises(TokenMalformedError):
        world.authorizer.at_once(Call(READ, ((name, value.replace("Bearer ", scheme)),)), Evidence())


@pytest.mark.parametrize("credentials", [None, [value for _, value in 2 * GOOD]])
def test_a_known_token_is_good_only_alone(credentials: list[str] | None) -> None:
    world = World(Authorizer, PLAIN_WORLD)
    world.verifier.warm_up()
    assert world.authorizer.at_once(Call(READ, GOOD), Evidence()) is not None

    with pytest.raises(TokenMalformedError):
        world.authorizer.at_once(Call(READ, 2 * GOOD, credentials=credentials), Evidence())


class CountedElsewhere(Quotas):
    """Has every call wait before it is counted."""

    def take(self, org_id: str, quota: Quota, waited: Awaited | None = None) -> Any:
        return Awaited(org_id, Future(), 1.0, 1.0) if waited is None else super().take(org_id, quota)


def test_a_call_that_is_counted_elsewhere_is_left_to_the_flow() -> None:
    world = World(Authorizer, PLAIN_WORLD | {"policy": "quotas"})
    world.verifier.warm_up()
    world.authorizer.quotas = CountedElsewhere()

    assert world.authorizer.at_once(Call(READ, GOOD, peer=PLAIN), Evidence()) is None


def test_no_call_is_decided_past_the_flow_of_a_subclass() -> None:
    world = World(ByFlow, PLAIN_WORLD)
    world.verifier.warm_up()

    assert world.authorizer.at_once(Call(PUBLIC, ()), Evidence()) is None


@given(
    config=configs,
    happenings=st.lists(st.one_of(calls, calls, calls, events), max_size=12),
    fault=st.none() | faults,
    last=st.lists(calls, min_size=1, max_size=3),
)
def test_the_quick_way_decides_as_the_flow_does(
    config: Mapping[str, Any], happenings: list[Any], fault: tuple[str, str] | None, last: list[Call]
) -> None:
    quick, by_flow = World(Authorizer, config), World(ByFlow, config)
    broken = [] if fault is None else [("fault", fault)]
    for each in (*happenings, *broken, *last):
        if isinstance(each, Call):
            assert quick.verdict(each) == by_flow.verdict(each)
        else:
            quick.happens(each)
            by_flow.happens(each)

    assert told(quick) == told(by_flow)
    quick.authorizer.close()
    by_flow.authorizer.close()
