"""Several issuers: an organization belongs to one of them, and no other may name it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.metadata import principal_message
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.call.words import ORG_ID_PATTERN
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ClaimError, ConfigError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer
from authz.judge.mesh import MeshPeers
from authz.organizations.directory import Directory
from authz.organizations.ownership import Ownership
from authz.policy import Organization, Policy
from authz.runtime.flow import run
from authz.server.admin.backend import Question
from authz.server.admin.explain import explain
from tests.doubles import AUDIENCE, CLIENT, ISSUER, NOW, FakeIssuer, ManualClock, m2m_claims

METHOD = "/ledger.v1.Ledger/List"
OTHER = "https://globex.authkit.app"
ISSUERS = (ISSUER, OTHER)
OURS, THEIRS, NEITHERS = "org_OURS", "org_THEIRS", "other_ORG"
"""One that the first issuer names by its pattern, one that the second lists, and one that belongs to none."""

OWNED = {ISSUER: r"org_[A-Z]+", OTHER: {THEIRS}}
GATEWAY = Peer(is_unix_socket=True)


@pytest.fixture(scope="module")
def keys() -> dict[str, SigningKey]:
    """Return two issuers' keys, which have one kid."""
    return {url: SigningKey.generate("same", "ES256") for url in ISSUERS}


@pytest.fixture
def each(keys: dict[str, SigningKey], clock: ManualClock) -> list[Verifier]:
    """Return a verifier for each issuer, which takes any form of an id."""
    return [
        Verifier(
            issuer=url,
            audience=AUDIENCE,
            algorithms=["ES256"],
            org_id_pattern=r"[!-~]+",
            transport=FakeIssuer(key).transport,
            clock=clock.clock,
        )
        for url, key in keys.items()
    ]


@pytest.fixture
def verifiers(each: list[Verifier]) -> Verifiers:
    return Verifiers(*each, organizations=OWNED)


@pytest.fixture
def sign(keys: dict[str, SigningKey]) -> Callable[..., str]:
    """Return a function that makes a token of an issuer that is good, except perhaps for its organization."""
    return lambda issuer, org_id, **claims: keys[issuer].sign(m2m_claims(iss=issuer, org_id=org_id, **claims))


class Ways:
    """Every way to identify the caller: a token, a payload that Envoy has verified, the word of a proxy."""

    def __init__(self, sign: Callable[..., str]) -> None:
        self._sign = sign

    def token(self, issuer: str, org_id: str) -> Call:
        return call(self._sign(issuer, org_id))

    def payload(self, issuer: str, org_id: str) -> Call:
        claims = m2m_claims(iss=issuer, org_id=org_id)
        return Call(method=METHOD, metadata=[], verified_claims=claims, peer=GATEWAY)

    def proxy(self, issuer: str, org_id: str) -> Call:
        principal = Principal(
            org_id=org_id, client_id=CLIENT, subject=CLIENT, issuer=issuer, issued_at=NOW, expires_at=NOW + 300
        )
        said = principal_message(principal).SerializeToString()
        return Call(method=METHOD, metadata=[("x-org-id", org_id), ("x-authz-principal-bin", said)], peer=GATEWAY)


WAYS = pytest.mark.parametrize("way", ["token", "payload", "proxy"])


@pytest.fixture
def ways(sign: Callable[..., str]) -> Ways:
    return Ways(sign)


def call(token: str) -> Call:
    return Call(method=METHOD, metadata=[("authorization", f"Bearer {token}")], peer=GATEWAY)


def judge(verifiers: Verifiers, **options: Any) -> Authorizer:
    return Authorizer(verifiers, trust=MeshPeers(unix_socket=True), **options)


def verdict(authorizer: Authorizer, call: Call, evidence: Evidence | None = None) -> str:
    try:
        return run(authorizer.authorize(call, evidence)).org_id
    except AuthzError as error:
        return error.reason


# ---- Who may name what ----


@WAYS
@pytest.mark.parametrize(("issuer", "org_id"), [(ISSUER, OURS), (OTHER, THEIRS)])
def test_an_issuer_names_its_own_organizations(
    verifiers: Verifiers, ways: Ways, way: str, issuer: str, org_id: str
) -> None:
    authorizer, attempt = judge(verifiers), getattr(ways, way)(issuer, org_id)

    # Unknown and remembered.
    assert [verdict(authorizer, attempt) for _ in range(2)] == [org_id] * 2


@WAYS
@pytest.mark.parametrize(
    ("issuer", "org_id"),
    [
        (OTHER, OURS),
        (ISSUER, THEIRS),
        (ISSUER, NEITHERS),
        (OTHER, NEITHERS),
        (OTHER, THEIRS + "X"),
        (OTHER, THEIRS.lower()),
    ],
)
def test_no_issuer_names_an_organization_that_is_not_its_own(
    verifiers: Verifiers, ways: Ways, way: str, issuer: str, org_id: str
) -> None:
    authorizer, attempt = judge(verifiers), getattr(ways, way)(issuer, org_id)

    assert [verdict(authorizer, attempt) for _ in range(2)] == ["claim_invalid"] * 2


@pytest.mark.parametrize("issuer", ["https://third.example", ""])
def test_a_proxy_names_no_organization_of_an_issuer_that_owns_none(
    verifiers: Verifiers, ways: Ways, issuer: str
) -> None:
    assert verdict(judge(verifiers), ways.proxy(issuer, OURS)) == "claim_invalid"


def test_the_refusal_names_the_claim(verifiers: Verifiers, sign: Callable[..., str]) -> None:
    with pytest.raises(ClaimError, match="belongs to another issuer") as caught:
        verifiers.verify(sign(OTHER, OURS))

    assert caught.value.claim == "org_id"


@WAYS
def test_caller_that_names_anothers_organization_is_not_recorded_as_that(
    each: list[Verifier], ways: Ways, way: str
) -> None:
    """Else its refusals would count and be logged as the organization's."""
    told: list[Decision] = []
    policy = Policy.from_document({"name": "all", "allow_rules": [{"name": "all"}]})
    authorizer = judge(Verifiers(*each, organizations=OWNED), observers=[told.append], shadow=policy)
    attempt, evidence = getattr(ways, way)(OTHER, OURS), Evidence()
    with pytest.raises(ClaimError) as caught:
        run(authorizer.authorize(attempt, evidence))
    authorizer.telling.decided(attempt, evidence, authorizer.telling.refusal(attempt, caught.value), 0.0, door="grpc")

    assert (evidence.principal, evidence.source) == (ANONYMOUS, "none")
    assert told[0].fields()["organization"] == told[0].fields()["client"] == ""
    assert OURS not in str(told[0].fields())


_IDS = st.sampled_from(["org_A", "org_B", "kc_A", "kc_B", "org_AB"])
_PATTERNS = st.sampled_from([r"org_.*", r"kc_.*", r".*", r".*_A", r"org_[AB]", "org_A"])


@given(
    said=st.dictionaries(st.sampled_from(["one", "two", "three"]), _PATTERNS | st.sets(_IDS, min_size=1), min_size=1),
    org_id=_IDS,
)
def test_an_organization_has_one_owner_at_most(said: dict[str, Any], org_id: str) -> None:
    """So an id alone identifies the issuer, and code that uses only the id is safe."""
    try:
        ownership = Ownership(said)
    except ConfigError:
        return
    owners = []
    for issuer in [*said, "stranger", ""]:
        try:
            ownership.check(Principal(org_id=org_id, client_id="", subject="", issuer=issuer))
            owners.append(issuer)
        except ClaimError:
            pass

    owner = ownership.owner_of(org_id)
    assert owners == ([] if owner is None else [owner])


@pytest.mark.parametrize(
    ("said", "owner"),
    [
        pytest.param({ISSUER: r".*", OTHER: [OURS]}, OTHER, id="a list goes before a pattern"),
        pytest.param({ISSUER: [OURS], OTHER: r".*"}, ISSUER, id="whichever comes first"),
        pytest.param({ISSUER: r"org_.*", OTHER: r".*OURS"}, None, id="what two patterns match belongs to none"),
        pytest.param({ISSUER: r"org_.*", OTHER: r".*", "https://c.example": [OURS]}, "https://c.example", id="listed"),
        pytest.param({ISSUER: r"org_OUR", OTHER: r"rg_OURS"}, None, id="a pattern matches the whole"),
        pytest.param({ISSUER: r"org_ours", OTHER: [THEIRS]}, None, id="capitals count"),
        pytest.param({ISSUER: r"org_\w+", OTHER: [THEIRS]}, ISSUER, id="ascii"),
    ],
)
def test_the_owner_of_an_organization(said: Any, owner: str | None) -> None:
    assert Ownership(said).owner_of(OURS) == owner


def test_letters_of_other_scripts_are_no_letters() -> None:
    assert Ownership({ISSUER: r"org_\w+"}).owner_of("org_Ж") is None


# ---- What must be said ----


def test_a_second_issuer_needs_to_be_told_its_organizations(each: list[Verifier]) -> None:
    with pytest.raises(ConfigError, match=r"^verifiers: .* organizations=\{.*shared_organizations=True"):
        Verifiers(*each)


def test_one_issuer_may_name_any_organization(each: list[Verifier], sign: Callable[..., str]) -> None:
    assert Verifiers(each[0]).verify(sign(ISSUER, NEITHERS)).org_id == NEITHERS


def test_one_issuer_may_be_kept_to_its_own(each: list[Verifier], sign: Callable[..., str]) -> None:
    verifiers = Verifiers(each[0], organizations={ISSUER: [OURS]})

    assert verifiers.verify(sign(ISSUER, OURS)).org_id == OURS
    with pytest.raises(ClaimError):
        verifiers.verify(sign(ISSUER, THEIRS))


@WAYS
@pytest.mark.parametrize("issuer", ISSUERS)
def test_organizations_are_shared_where_that_is_said(each: list[Verifier], ways: Ways, way: str, issuer: str) -> None:
    authorizer = judge(Verifiers(*each, shared_organizations=True))

    assert verdict(authorizer, getattr(ways, way)(issuer, OURS)) == OURS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"organizations": OWNED, "shared_organizations": True}, "give one of"),
        ({"shared_organizations": "false"}, "True or False"),
        ({"shared_organizations": 1}, "True or False"),
        ({"organizations": {}}, "every issuer.*nothing is said of.*acme"),
        ({"organizations": {ISSUER: ORG_ID_PATTERN}}, "nothing is said of.*globex"),
        ({"organizations": {**OWNED, ISSUER + "/": "x"}}, "acme.authkit.app/.* is no issuer of these"),
        ({"organizations": {**OWNED, ISSUER: ""}}, "acme.*empty"),
        ({"organizations": {**OWNED, ISSUER: []}}, "acme.*empty"),
        ({"organizations": {**OWNED, ISSUER: [""]}}, "acme.*not the id of an organization"),
        ({"organizations": {**OWNED, ISSUER: ["a b"]}}, "acme.*not the id of an organization"),
        ({"organizations": {**OWNED, ISSUER: [5]}}, "acme.*not the id of an organization"),
        ({"organizations": {**OWNED, ISSUER: None}}, "acme.*pattern or a list"),
        ({"organizations": {**OWNED, ISSUER: b"org_.*"}}, "acme.*not the id of an organization"),
        ({"organizations": {**OWNED, ISSUER: "org_["}}, "acme.*regular expression"),
        ({"organizations": {ISSUER: [THEIRS, OURS], OTHER: [THEIRS]}}, f"{THEIRS}.*both"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_once(each: list[Verifier], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^(shared_)?organizations.*: .*{words}"):
        Verifiers(*each, **options)


def test_ownership_does_not_change_when_its_mapping_does(each: list[Verifier], sign: Callable[..., str]) -> None:
    listed = {THEIRS}
    said = {ISSUER: r"org_[A-Z]+", OTHER: listed}
    verifiers = Verifiers(*each, organizations=said)
    listed.add(OURS)
    said.clear()

    assert verifiers.verify(sign(ISSUER, OURS)).org_id == OURS


# ---- What goes by the id of an organization ----


def test_a_second_issuer_gets_neither_policy_nor_tenant_nor_quota_of_the_first(
    verifiers: Verifiers, ways: Ways
) -> None:
    policy = Policy.from_document(
        {
            "name": "ledger",
            "allow_rules": [{"name": "ours", "source": {"organizations": [OURS]}}],
            "quotas": {"one": {"requests_per_second": 0.001, "burst": 1}},
            "organizations": {OURS: {"tenant": "tenant-1", "quota": "one"}},
        }
    )
    authorizer = judge(verifiers, policy=policy)
    for _ in range(3):
        assert verdict(authorizer, ways.token(OTHER, OURS)) == "claim_invalid"

    assert run(authorizer.authorize(ways.token(ISSUER, OURS))).tenant == "tenant-1"
    assert verdict(authorizer, ways.token(ISSUER, OURS)) == "quota_exceeded"


# ---- What a directory is asked about ----


def directories(asked: list[tuple[str, str]], *issuers: str) -> dict[str, Directory]:
    def look_up(issuer: str) -> Callable[[str], Organization | None]:
        def organization(org_id: str) -> Organization | None:
            asked.append((issuer, org_id))
            return Organization(tenant=f"tenant-of-{issuer}")

        return organization

    return {issuer: Directory(look_up(issuer)) for issuer in issuers}


def test_an_organization_is_looked_up_in_the_directory_of_its_issuer(verifiers: Verifiers, ways: Ways) -> None:
    asked: list[tuple[str, str]] = []
    authorizer = judge(verifiers, directory=directories(asked, *ISSUERS))
    tenants = [
        run(authorizer.authorize(ways.token(*pair))).tenant
        for pair in [(ISSUER, OURS), (OTHER, THEIRS), (ISSUER, OURS)]
    ]
    authorizer.close()

    assert tenants == [f"tenant-of-{ISSUER}", f"tenant-of-{OTHER}", f"tenant-of-{ISSUER}"]
    assert asked == [(ISSUER, OURS), (OTHER, THEIRS)]


@pytest.mark.parametrize(
    ("unknown", "outcome"), [("allow", THEIRS), ("deny", "organization_unknown")], ids=["allow", "deny"]
)
def test_an_organization_whose_issuer_has_no_directory_is_known_by_the_policy_alone(
    verifiers: Verifiers, ways: Ways, unknown: Any, outcome: str
) -> None:
    asked: list[tuple[str, str]] = []
    authorizer = judge(verifiers, directory=directories(asked, ISSUER), unknown_organizations=unknown)

    assert verdict(authorizer, ways.token(OTHER, THEIRS)) == outcome
    document = {
        "name": "ledger",
        "allow_rules": [{"name": "all"}],
        "organizations": {THEIRS: {"tenant": "listed"}, OURS: {}},
    }
    authorizer.replace_policy(Policy.from_document(document))
    assert run(authorizer.authorize(ways.token(OTHER, THEIRS))).tenant == "listed"
    assert run(authorizer.authorize(ways.token(ISSUER, OURS))).tenant == f"tenant-of-{ISSUER}"
    authorizer.close()
    assert asked == [(ISSUER, OURS)]


@pytest.mark.parametrize("choose", [lambda _: Directory(lambda _: None), lambda _: {}, lambda one: {OTHER + "/": one}])
def test_with_several_issuers_a_directory_is_of_one_of_them(verifiers: Verifiers, choose: Callable[[Any], Any]) -> None:
    directory = choose(Directory(lambda _: None))
    with pytest.raises(ConfigError, match=r"^directory: .*by issuer"):
        judge(verifiers, directory=directory)


def test_issuers_that_share_organizations_share_a_directory(each: list[Verifier], ways: Ways) -> None:
    asked: list[tuple[str, str]] = []
    [directory] = directories(asked, "both").values()
    authorizer = judge(Verifiers(*each, shared_organizations=True), directory=directory)

    assert {run(authorizer.authorize(ways.token(url, OURS))).tenant for url in ISSUERS} == {"tenant-of-both"}
    authorizer.close()
    assert asked == [("both", OURS)]


# ---- What goes by other names ----


CLIENTS = {"name": "by-client", "source": {"clients": [CLIENT]}}


def policy_with(**source: Any) -> Policy:
    rule = {"name": "by-client", "source": {"clients": [CLIENT], **source}}
    return Policy.from_document({"name": "ledger", "allow_rules": [rule], "groups": ["paying"]})


def test_a_rule_that_allows_clients_of_whichever_issuer_is_refused(verifiers: Verifiers) -> None:
    """Each issuer may use any ``client_id``."""
    with pytest.raises(ConfigError, match=r"^policy 'ledger': rule 'by-client' allows clients .* organizations"):
        judge(verifiers, policy=policy_with())
    authorizer = judge(verifiers)
    with pytest.raises(ConfigError):
        authorizer.replace_policy(policy_with())
    with pytest.raises(ConfigError):
        authorizer.replace_shadow(policy_with())


@pytest.mark.parametrize("source", [{"organizations": [OURS]}, {"groups": ["paying"]}], ids=str)
def test_a_client_of_an_organization_is_of_its_issuer(verifiers: Verifiers, ways: Ways, source: Any) -> None:
    authorizer = judge(verifiers, policy=policy_with(**source))

    assert verdict(authorizer, ways.token(OTHER, THEIRS)) == "policy_denied"


def test_a_rule_that_denies_clients_denies_them_whichever_issuer_they_are_of(verifiers: Verifiers, ways: Ways) -> None:
    document = {"name": "ledger", "deny_rules": [CLIENTS], "allow_rules": [{"name": "all"}]}
    authorizer = judge(verifiers, policy=Policy.from_document(document))

    assert verdict(authorizer, ways.token(ISSUER, OURS)) == verdict(authorizer, ways.token(OTHER, THEIRS))
    assert verdict(authorizer, ways.token(OTHER, THEIRS)) == "policy_denied"


@pytest.mark.parametrize("number", [1, 2])
def test_clients_are_one_issuers_where_there_is_one_or_they_share_organizations(
    each: list[Verifier], ways: Ways, number: int
) -> None:
    authorizer = judge(Verifiers(*each[:number], shared_organizations=number > 1), policy=policy_with())

    assert verdict(authorizer, ways.token(ISSUER, OURS)) == OURS


JTI = m2m_claims()["jti"]


@pytest.mark.parametrize("what", [{"client_id": CLIENT}, {"token_id": JTI}, {"key_id": "same"}], ids=str)
@pytest.mark.parametrize(
    ("narrowed", "outcomes"),
    [
        ({}, ["token_inactive", "token_inactive"]),
        ({"issuer": ISSUER}, ["token_inactive", THEIRS]),
        ({"issuer": OTHER}, [OURS, "token_inactive"]),
    ],
    ids=["all", "first", "second"],
)
def test_an_order_is_about_every_issuer_unless_it_names_one(
    verifiers: Verifiers, ways: Ways, what: dict[str, str], narrowed: dict[str, str], outcomes: list[str]
) -> None:
    authorizer = judge(verifiers)
    attempts = [ways.token(ISSUER, OURS), ways.token(OTHER, THEIRS)]
    authorizer.revoke(**what, **narrowed)
    during = [verdict(authorizer, attempt) for attempt in attempts]
    authorizer.reinstate(**what, **narrowed)

    assert during == outcomes
    assert [verdict(authorizer, attempt) for attempt in attempts] == [OURS, THEIRS]


@pytest.mark.parametrize("change", ["revoke", "reinstate"])
@pytest.mark.parametrize("issuer", ["https://third.example", ISSUER + "/", ISSUER.upper()])
def test_an_order_about_an_issuer_that_is_not_there_is_refused(
    each: list[Verifier], verifiers: Verifiers, change: str, issuer: str
) -> None:
    """It would concern no caller, but the operator would believe that it keeps one out."""
    for authorizer in (Authorizer(verifiers), judge(verifiers), Authorizer(each[0])):
        with pytest.raises(ConfigError, match=r"^issuer: .* is none of those"):
            getattr(authorizer, change)(client_id=CLIENT, issuer=issuer)


# ---- What the admin page explains ----


def explained(authorizer: Authorizer, organization: str) -> str:
    question = Question(method=METHOD, token="", organization=organization, client=CLIENT, scopes=())
    told = asyncio.run(explain(authorizer, question))
    return told["reason"] or told["verdict"]


def test_a_caller_without_a_token_is_explained_as_one_of_the_issuer_of_its_organization(verifiers: Verifiers) -> None:
    authorizer = judge(verifiers)
    authorizer.revoke(client_id=CLIENT, issuer=OTHER)

    assert [explained(authorizer, org_id) for org_id in (OURS, THEIRS, NEITHERS)] == [
        "allowed",
        "token_inactive",
        "claim_invalid",
    ]


def test_a_caller_without_a_token_is_explained_as_one_of_the_only_issuer(each: list[Verifier]) -> None:
    authorizer = Authorizer(each[0])
    authorizer.revoke(client_id=CLIENT, issuer=ISSUER)

    assert explained(authorizer, OURS) == "token_inactive"
