"""Who is believed when it says who calls: proxies that have proven who they are, and nobody else."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from cryptography import x509

from authz import ANONYMOUS, Authorizer, MeshPeers, Principal, TrustedMetadata, Verifier, current_principal
from authz.demo.issuer.signing import SigningKey
from authz.judge.mesh import UNDECIDED
from authz.v1.principal_pb2 import Principal as PrincipalMessage
from tests.certificates import Authority, Certificate, dns, uris
from tests.doubles import AUDIENCE, CLIENT, ISSUER, NOW, ORG, ManualClock, jwks
from tests.interceptors.client import Metadata, Outcome, Silence, bearer, finish, start
from tests.interceptors.conftest import Reach, WatchedTransport
from tests.interceptors.servers import DOORS
from tests.interceptors.service import PUBLIC_METHODS, expected_replies, method, public_method
from tests.interceptors.ways import PLAIN, TLS, UNIX, Client, Reachable, Way

GATEWAY = "spiffe://cluster.local/ns/edge/sa/gateway"
HOST = "gateway.edge.svc"
OTHER_ORG = "org_01JYGLOBEX0000000000000000"
PEERS = MeshPeers(spiffe_ids=[GATEWAY], dns_names=[HOST], unix_socket=True)
FOREVER = 253_402_300_799.0
SECRET = "a-value-that-nobody-may-see-again"

CERTIFICATES: dict[str, Sequence[x509.GeneralName]] = {
    "spiffe-id": uris(GATEWAY),
    "dns-name": dns("other.edge.svc", HOST.upper()),
    "another-spiffe-id": uris(f"{GATEWAY}-2"),
    "spiffe-id-in-upper-case": uris(GATEWAY.upper()),
    "two-spiffe-ids": uris(GATEWAY, f"{GATEWAY}-2"),
    "spiffe-id-as-dns-name": dns(GATEWAY),
    "dns-name-as-uri": uris(HOST),
    "dns-name-as-email": [x509.RFC822Name(HOST)],
    "longer-dns-name": dns(f"{HOST}.evil.example", f"x{HOST}", f"{HOST}."),
    "wildcard": dns("*.edge.svc", "*"),
    "common-name": [],
}
BELIEVED = ("spiffe-id", "dns-name", "unix")
NOBODIES = tuple(name for name in (*CERTIFICATES, "tls", "plain") if name not in BELIEVED)

believed = pytest.mark.parametrize("name", BELIEVED)
nobody = pytest.mark.parametrize("name", NOBODIES)


@pytest.fixture(scope="session")
def certificates(authority: Authority) -> dict[str, Certificate]:
    return {name: authority.issue(*names, common_name=HOST) for name, names in CERTIFICATES.items()}


@dataclass(frozen=True)
class Mesh:
    """A server that believes proxies, and everybody who comes."""

    server: Reachable
    certificates: dict[str, Certificate]
    authorizer: Authorizer
    clock: ManualClock

    def client(self, name: str) -> Client:
        known = {"unix": UNIX, "plain": PLAIN, "tls": TLS}
        return known.get(name) or Client(Way.MUTUAL_TLS, self.certificates[name])

    def call(self, name: str, kind: str, method: str | None = None, **options: Any) -> Outcome:
        return self.server.call(self.client(name), kind, method, **options)

    def is_untouched(self) -> bool:
        """Say whether neither a handler nor its parser has seen anything."""
        return (self.server.witness.sights, self.server.witness.parsed) == ([], [])


@pytest.fixture(scope="session")
def shared_mesh(reach_for_long: Reach, certificates: dict[str, Certificate], ec_key: SigningKey) -> Mesh:
    clock = ManualClock()
    verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(ec_key), algorithms=["ES256"], clock=clock.clock)
    authorizer = Authorizer(verifier, public_methods=PUBLIC_METHODS, trust=PEERS)
    return Mesh(reach_for_long(authorizer), certificates, authorizer, clock)


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Mesh:
    shared_mesh.server.witness.forget()
    shared_mesh.clock.now = NOW
    return shared_mesh


def caller(org_id: str = ORG, **changes: Any) -> Principal:
    defaults = {"client_id": CLIENT, "subject": CLIENT, "issuer": ISSUER, "expires_at": NOW + 300}
    return Principal(org_id=org_id, **{**defaults, **changes})


def word(org_id: str = ORG, **changes: Any) -> list[tuple[str, str | bytes]]:
    """Return what a proxy says of a caller."""
    return [*TrustedMetadata().entries(caller(org_id, **changes))]


# ---- Who is believed ----


@believed
def test_believed_peer_says_who_calls(mesh: Mesh, kind: str, name: str) -> None:
    said = word(scopes=frozenset({"ledger:read"}), token_id="01JYTOKEN", key_id="ec-1")

    outcome = mesh.call(name, kind, metadata=said, requests=[b"1", b"2"])

    assert outcome.messages == expected_replies(kind, ORG.encode(), [b"1", b"2"])
    sight = mesh.server.witness.sight
    assert sight.principal == caller(scopes=frozenset({"ledger:read"}), token_id="01JYTOKEN", key_id="ec-1")
    assert sight.values("x-org-id") == [ORG]
    assert (sight.values("x-client-id"), sight.values("x-scopes")) == ([CLIENT], ["ledger:read"])
    [message] = sight.values("x-authz-principal-bin")
    assert PrincipalMessage.FromString(message).org_id == ORG


@nobody
def test_forger_learns_as_much_as_whoever_sends_nothing(
    mesh: Mesh, kind: str, name: str, least: Iterable[bytes]
) -> None:
    forger = mesh.call(name, kind, metadata=word(OTHER_ORG), requests=least)
    nobody = mesh.call(name, kind, requests=least)

    assert forger == nobody
    assert (forger.code, forger.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert mesh.is_untouched()


@nobody
def test_token_decides_where_the_peer_is_not_believed(mesh: Mesh, kind: str, name: str, token: str) -> None:
    forged = [*word(OTHER_ORG), *bearer(token), *word(OTHER_ORG), ("x_org_id", OTHER_ORG)]

    outcome = mesh.call(name, kind, metadata=forged)

    assert outcome.messages == expected_replies(kind, ORG.encode())
    assert mesh.server.witness.sight.principal.org_id == ORG
    assert OTHER_ORG not in repr(mesh.server.witness.sight.metadata)


@nobody
def test_bad_token_stays_bad_beside_forged_metadata(mesh: Mesh, kind: str, name: str, token: str) -> None:
    outcome = mesh.call(name, kind, metadata=[*word(), *bearer(token[:-8] + "AAAAAAAA")])

    assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
    assert mesh.is_untouched()


@believed
def test_word_goes_before_a_token_that_travels_along(mesh: Mesh, kind: str, name: str, token: str) -> None:
    outcome = mesh.call(name, kind, metadata=[*bearer(token), *word(OTHER_ORG)])

    assert outcome.messages == expected_replies(kind, OTHER_ORG.encode())


@believed
def test_token_decides_where_a_believed_peer_says_nothing(mesh: Mesh, kind: str, name: str, token: str) -> None:
    silent = mesh.call(name, kind)
    outcome = mesh.call(name, kind, metadata=[*bearer(token), ("x-scopes", "admin"), ("x-client-id", "client_evil")])

    assert silent.reason == "TOKEN_MISSING"
    assert outcome.messages == expected_replies(kind, ORG.encode())
    assert mesh.server.witness.sight.values("x-scopes") == ["ledger:read ledger:write"]


def test_scopes_and_client_are_those_of_the_principal_only(mesh: Mesh, kind: str) -> None:
    more = [("x-scopes", "admin"), ("x-client-id", "client_evil"), ("x-org-id-bin", b"org_evil"), ("x_org_id", "evil")]

    mesh.call("unix", kind, metadata=[*more, *word(), *more])

    sight = mesh.server.witness.sight
    assert (sight.values("x-client-id"), sight.values("x-scopes")) == ([CLIENT], [])
    assert "evil" not in repr(sight.metadata)
    assert "admin" not in repr(sight.metadata)


# ---- What is refused of those who are believed ----

ORG_ENTRY, CLIENT_ENTRY, PRINCIPAL_ENTRY = word()
OTHER_ENTRY, _, OTHER_PRINCIPAL_ENTRY = word(OTHER_ORG)


def odd(**fields: Any) -> list[tuple[str, str | bytes]]:
    """Return a word that no door of ours would say."""
    message = PrincipalMessage.FromString(bytes(PRINCIPAL_ENTRY[1]))
    message.MergeFrom(PrincipalMessage(**fields))
    return [ORG_ENTRY, (PRINCIPAL_ENTRY[0], message.SerializeToString())]


CONTRADICTIONS = [
    pytest.param([ORG_ENTRY], id="organization alone"),
    pytest.param([PRINCIPAL_ENTRY], id="principal alone"),
    pytest.param([OTHER_ENTRY, PRINCIPAL_ENTRY], id="another organization"),
    pytest.param([ORG_ENTRY, OTHER_ENTRY, PRINCIPAL_ENTRY], id="two organizations"),
    pytest.param([ORG_ENTRY, PRINCIPAL_ENTRY, OTHER_PRINCIPAL_ENTRY], id="two principals"),
    pytest.param([*word(), *word()], id="everything twice"),
    pytest.param([("x-org-id", f"{ORG},{OTHER_ORG}"), PRINCIPAL_ENTRY], id="joined organizations"),
    pytest.param([ORG_ENTRY, (PRINCIPAL_ENTRY[0], b"")], id="empty principal"),
    pytest.param([ORG_ENTRY, (PRINCIPAL_ENTRY[0], SECRET.encode())], id="no message"),
    pytest.param(odd(client_id=f"{SECRET}\n"), id="line break"),
    pytest.param(odd(scopes=[f"a {SECRET}"]), id="two scopes in one"),
    pytest.param(odd(token_id="x" * 8192), id="too long"),
    pytest.param(odd(expires_at={"seconds": 2**62}), id="beyond the end of time"),
]


@pytest.mark.parametrize("metadata", CONTRADICTIONS)
def test_silent_client_is_told_at_once_that_its_proxy_makes_no_sense(
    mesh: Mesh, kind: str, least: Iterable[bytes], metadata: Metadata
) -> None:
    outcome = mesh.call("spiffe-id", kind, metadata=metadata, requests=least)

    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAUTHENTICATED, "MESH_METADATA_INVALID")
    assert outcome.details == "Invalid token"
    assert not outcome.leaks(SECRET)
    assert mesh.is_untouched()


@pytest.mark.parametrize("name", ["spiffe-id", "unix", "plain", "another-spiffe-id"])
def test_what_nobody_has_decided_is_unavailable_whoever_brings_it(
    mesh: Mesh, kind: str, name: str, least: Iterable[bytes], token: str
) -> None:
    for metadata in ([], word(), bearer(token)):
        outcome = mesh.call(name, kind, metadata=[*metadata, (UNDECIDED, "true")], requests=least)

        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "MESH_UNDECIDED")
        assert "retry-after" in outcome.trailers
    assert mesh.is_untouched()


def test_caller_expires_as_its_token_does(mesh: Mesh, kind: str, least: Iterable[bytes]) -> None:
    mesh.clock.advance(309.9)
    before = mesh.call("unix", kind, metadata=word())
    mesh.server.witness.forget()
    mesh.clock.advance(0.1)
    after = mesh.call("unix", kind, metadata=word(), requests=least)

    assert (before.code, after.reason) == (grpc.StatusCode.OK, "TOKEN_EXPIRED")
    assert mesh.is_untouched()


def test_revoked_organization_is_refused(mesh: Mesh, kind: str, least: Iterable[bytes]) -> None:
    mesh.authorizer.revoke(org_id=OTHER_ORG)
    try:
        refused = mesh.call("unix", kind, metadata=word(OTHER_ORG), requests=least)
        other = mesh.call("unix", kind, metadata=word())
    finally:
        mesh.authorizer.reinstate(org_id=OTHER_ORG)

    assert (refused.reason, other.code) == ("TOKEN_INACTIVE", grpc.StatusCode.OK)
    assert mesh.call("unix", kind, metadata=word(OTHER_ORG)).code is grpc.StatusCode.OK


class Paced:
    """A request stream that brings one message, another when it is told to, and then nothing."""

    def __init__(self, silence: Silence) -> None:
        self._go, self._silence = Silence(), silence

    def __iter__(self) -> Iterator[bytes]:
        yield b"1"
        yield from self._go
        yield b"2"
        yield from self._silence

    def go_on(self) -> None:
        self._go.end()


@pytest.mark.parametrize("end", ["expiry", "revocation"])
def test_stream_ends_with_the_caller_that_the_proxy_named(mesh: Mesh, silence: Silence, end: str) -> None:
    paced = Paced(silence)
    call = start(mesh.server.channel(UNIX), "stream_stream", metadata=word(OTHER_ORG), requests=paced)
    first = next(call)
    if end == "expiry":
        mesh.clock.advance(310)
        mesh.authorizer.streams.expire()
    else:
        mesh.authorizer.revoke(org_id=OTHER_ORG)
        mesh.authorizer.reinstate(org_id=OTHER_ORG)
    paced.go_on()

    outcome = finish("stream_stream", call)

    assert first == OTHER_ORG.encode()
    assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
    assert outcome.reason == ("TOKEN_EXPIRED" if end == "expiry" else "TOKEN_INACTIVE")


# ---- Methods ----


@nobody
def test_unknown_methods_cannot_be_told_from_known_ones(
    mesh: Mesh, kind: str, name: str, least: Iterable[bytes]
) -> None:
    unknown = mesh.call(name, kind, "/tests.Guarded/unknown", metadata=word(), requests=least)
    known = mesh.call(name, kind, metadata=word(), requests=least)

    assert unknown == known


@pytest.mark.parametrize("metadata", CONTRADICTIONS[:2])
def test_unknown_methods_stay_hidden_where_the_proxy_makes_no_sense(
    mesh: Mesh, kind: str, metadata: Metadata, least: Iterable[bytes]
) -> None:
    unknown = mesh.call("unix", kind, "/tests.Guarded/unknown", metadata=metadata, requests=least)
    known = mesh.call("unix", kind, metadata=metadata, requests=least)

    assert unknown == known


@believed
def test_unknown_method_is_unimplemented_to_a_known_caller(
    mesh: Mesh, kind: str, name: str, least: Iterable[bytes]
) -> None:
    outcome = mesh.call(name, kind, "/tests.Guarded/unknown", metadata=word(), requests=least)

    assert (outcome.code, outcome.details) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@pytest.mark.parametrize("name", ["unix", "plain"])
def test_public_method_has_no_caller_whoever_names_one(mesh: Mesh, kind: str, name: str) -> None:
    outcome = mesh.call(name, kind, public_method(kind), metadata=word())

    assert outcome.messages == expected_replies(kind, b"anonymous")
    sight = mesh.server.witness.sight
    assert sight.principal is ANONYMOUS
    assert [entry for entry in sight.metadata if entry.key.startswith("x-")] == []


# ---- Callers side by side ----


def test_callers_of_one_connection_are_not_mistaken_for_each_other(mesh: Mesh, kind: str) -> None:
    organizations = [f"org_{number % 5}" for number in range(40)]
    requests = [b"1", b"2", b"3"]

    def call(org_id: str) -> list[bytes]:
        return mesh.call("unix", kind, metadata=word(org_id), requests=requests).messages

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(call, organizations))

    assert replies == [expected_replies(kind, org_id.encode(), requests) for org_id in organizations]


def test_good_and_bad_callers_by_turns_are_told_apart(mesh: Mesh, kind: str, token: str) -> None:
    outcomes = [
        mesh.call(name, kind, metadata=metadata)
        for name, metadata in (
            ("unix", word(OTHER_ORG)),
            ("plain", word(OTHER_ORG)),
            ("plain", [*word(OTHER_ORG), *bearer(token)]),
            ("spiffe-id", word(OTHER_ORG)),
            ("another-spiffe-id", word(OTHER_ORG)),
        )
    ]

    refused: list[bytes] = []
    other, own = expected_replies(kind, OTHER_ORG.encode()), expected_replies(kind, ORG.encode())
    assert [outcome.messages for outcome in outcomes] == [other, refused, own, other, refused]


def who() -> str:
    try:
        return current_principal().org_id
    except LookupError:
        return "nobody"


@pytest.mark.parametrize("door", [DOORS[0], DOORS[3]], indirect=True, ids=lambda door: door.name)
def test_threads_of_the_pool_remember_no_caller(reach: Reach, kind: str, verifier: Verifier) -> None:
    pool = ThreadPoolExecutor(1)
    server = reach(verifier, trust=PEERS, pool=pool)

    outcome = server.call(UNIX, kind, metadata=word())

    assert outcome.messages == expected_replies(kind, ORG.encode())
    assert pool.submit(who).result() == "nobody"


# ---- Without keys, and without any verifier ----


def test_neither_callers_of_the_mesh_nor_forgers_wait_for_keys(
    reach: Reach, kind: str, cold_verifier: Verifier, transport: WatchedTransport, least: Iterable[bytes]
) -> None:
    server = reach(cold_verifier, trust=PEERS)

    believed = server.call(UNIX, kind, metadata=word())
    forger = server.call(PLAIN, kind, metadata=word(), requests=least)

    assert (believed.messages, forger.reason) == (expected_replies(kind, ORG.encode()), "TOKEN_MISSING")
    assert transport.fetches == 0


def test_without_a_judge_only_believed_peers_get_in(
    reach: Reach, kind: str, token: str, least: Iterable[bytes]
) -> None:
    tokenless = reach(trust=PEERS, public_methods=PUBLIC_METHODS)

    believed = tokenless.call(UNIX, kind, metadata=word(expires_at=FOREVER))
    public = tokenless.call(PLAIN, kind, public_method(kind))
    tokenless.witness.forget()
    refused = [
        tokenless.call(client, kind, metadata=metadata, requests=least).reason
        for client, metadata in (
            (PLAIN, word(expires_at=FOREVER)),
            (PLAIN, bearer(token)),
            (PLAIN, [*word(expires_at=FOREVER), *bearer(token)]),
            (UNIX, bearer(token)),
            (UNIX, word(expires_at=1.0)),
            (UNIX, ()),
        )
    ]

    assert believed.messages == expected_replies(kind, ORG.encode())
    assert public.messages == expected_replies(kind, b"anonymous")
    assert refused == [
        "TOKEN_MISSING",
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        "TOKEN_EXPIRED",
        "TOKEN_MISSING",
    ]
    assert (tokenless.witness.sights, tokenless.witness.parsed) == ([], [])


def test_names_of_the_method_are_no_way_around(mesh: Mesh, kind: str) -> None:
    for spelling in ("{}/", "/{}", "{}?", "{}%20"):
        assert mesh.call("plain", kind, spelling.format(method(kind)), metadata=word()).reason == "TOKEN_MISSING"
