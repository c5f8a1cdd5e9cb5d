import base64
import contextlib
import dataclasses
from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata, principal_message
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.call.requirements import Assurance
from authz.errors import (
    AuthzError,
    ConfigError,
    MeshMetadataError,
    MeshUndecidedError,
    PeerUnknownError,
    TokenExpiredError,
    TokenInactiveError,
    TokenMissingError,
    UnauthenticatedError,
)
from authz.issuer.introspection import Introspector
from authz.issuer.verifiers import Verifiers
from authz.judge.authorizer import Authorizer, as_authorizer
from authz.judge.mesh import UNDECIDED, MeshPeers
from authz.runtime.flow import run
from authz.v1.principal_pb2 import Principal as PrincipalMessage
from tests.certificates import Authority, dns, uris
from tests.doubles import CLIENT, ISSUER, NOW, ORG, FakeTransport, json_response, m2m_claims

METHOD = "/authz.demo.v1.Ledger/GetBalance"
HEALTH = "/grpc.health.v1.Health/Check"
GATEWAY = "spiffe://cluster.local/ns/edge/sa/gateway"
HOST = "gateway.edge.svc"
OTHER_ORG = "org_01JYGLOBEX0000000000000000"

UNIX = Peer(is_unix_socket=True)
NOBODY = Peer()
PEERS = MeshPeers(spiffe_ids=[GATEWAY], dns_names=[HOST], unix_socket=True)
TRUSTED = TrustedMetadata()
CALLER = Principal(
    org_id=ORG,
    client_id=CLIENT,
    subject=CLIENT,
    scopes=frozenset({"ledger:read", "ledger:write"}),
    issuer=ISSUER,
    audience=("one", "two"),
    token_id="01JYTOKEN",
    issued_at=NOW,
    expires_at=NOW + 300,
    key_id="ec-1",
)


def message(**changes):
    """Return the serialized message of the caller, with fields changed; ``None`` clears one."""
    good = principal_message(CALLER)
    for name, value in changes.items():
        good.ClearField(name)
        if isinstance(value, Timestamp):
            getattr(good, name).CopyFrom(value)
        elif isinstance(value, list):
            getattr(good, name).extend(value)
        elif value is not None:
            setattr(good, name, value)
    return good.SerializeToString()


def word(org_id=ORG, **changes):
    return [("x-org-id", org_id), ("x-authz-principal-bin", message(org_id=org_id, **changes))]


def call(*metadata, peer=UNIX, method=METHOD):
    return Call(method=method, metadata=metadata, peer=peer)


def said(*metadata, peer=UNIX, peers=PEERS):
    return peers.principal_of(call(*metadata, peer=peer), TRUSTED)


def reason_of(*metadata, peer=UNIX):
    with pytest.raises(AuthzError) as caught:
        said(*metadata, peer=peer)
    return caught.value.reason


# ---- Who is believed ----


@pytest.fixture(scope="module")
def authority():
    return Authority()


def peer_with(certificate):
    return Peer.of("ipv4:10.0.0.1:1", {"x509_pem_cert": [certificate.chain]})


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(Peer(spiffe_id=GATEWAY), id="spiffe-id"),
        pytest.param(Peer(dns_names=frozenset({"other", HOST})), id="dns-name"),
        pytest.param(UNIX, id="unix-socket"),
    ],
)
def test_one_name_is_enough(peer):
    assert peer in PEERS


@pytest.mark.parametrize(
    "peers",
    [
        pytest.param(MeshPeers(spiffe_ids=[GATEWAY]), id="spiffe-id"),
        pytest.param(MeshPeers(dns_names=[HOST]), id="dns-name"),
        pytest.param(MeshPeers(unix_socket=True), id="unix-socket"),
    ],
)
def test_a_peer_without_any_name_is_never_believed(peers):
    assert NOBODY not in peers
    assert Peer(certificate="A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0") not in peers


def test_unix_sockets_are_believed_by_choice_only():
    assert UNIX not in MeshPeers(spiffe_ids=[GATEWAY], dns_names=[HOST])


@pytest.mark.parametrize(
    "names",
    [
        *([f"{GATEWAY}/"], [f"{GATEWAY}-2"], [GATEWAY[:-1]], [f"{GATEWAY}/../gateway"], [f"{GATEWAY}?x"]),
        *([f"{GATEWAY}#x"], [GATEWAY.replace("gateway", "Gateway")], [GATEWAY.replace("//", "///")]),
        *([GATEWAY.replace("spiffe", "SPIFFE")], [GATEWAY.replace("cluster.local", "cluster.local.")]),
        *([GATEWAY.replace("cluster.local", "CLUSTER.LOCAL")], [GATEWAY.replace("cluster", "user@cluster")]),
        *([GATEWAY.replace("cluster.local", "cluster.local:443")], ["spiffe://cluster.local/ns/edge/sa/*"]),
        *([GATEWAY.replace("/ns", "%2Fns")], ["spiffe://cluster.local"], [f"x{GATEWAY}"], [GATEWAY, GATEWAY]),
        [GATEWAY, "spiffe://cluster.local/ns/edge/sa/other"],
    ],
    ids=str,
)
def test_a_spiffe_id_that_only_resembles_the_right_one_is_another(authority, names):
    assert peer_with(authority.issue(*uris(*names))) not in PEERS


@pytest.mark.parametrize(
    "name",
    [
        *(f"{HOST}.", f"x{HOST}", f"x.{HOST}", f"{HOST}.evil.example", HOST[:-1], "*.edge.svc", "*", "edge.svc"),
        *(f"{HOST}\0.evil.example", f" {HOST}", f"{HOST}:443", f"https://{HOST}", "gateway-edge.svc", f"{HOST}\n"),
    ],
    ids=ascii,
)
def test_a_dns_name_that_only_resembles_the_right_one_is_another(authority, name):
    assert peer_with(authority.issue(*dns(name))) not in PEERS


@pytest.mark.parametrize("name", [HOST, HOST.upper(), "Gateway.Edge.svc"])
def test_dns_names_of_certificates_have_no_case(authority, name):
    assert peer_with(authority.issue(*dns("other"), *dns(name))) in PEERS


def test_a_common_name_never_counts(authority):
    assert peer_with(authority.issue(common_name=HOST)) not in PEERS
    assert peer_with(authority.issue(common_name=GATEWAY)) not in PEERS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *(({"spiffe_ids": [name]}, "is not a SPIFFE ID") for name in ("", "spiffe://", "spiffe:///a", "spiffe://a")),
        *(({"spiffe_ids": [name]}, "is not a SPIFFE ID") for name in ("spiffe://a/", "spiffe://a/*", "spiffe://*/b")),
        *(({"spiffe_ids": [name]}, "is not a SPIFFE ID") for name in ("https://a/b", "SPIFFE://a/b", "spiffe://A/b")),
        *(({"spiffe_ids": [name]}, "is not a SPIFFE ID") for name in ("spiffe://a/b/", "spiffe://a//b", "a/b", None)),
        *(
            ({"spiffe_ids": [name]}, "is not a SPIFFE ID")
            for name in ("spiffe://a/b\n", "spiffe://a/.", " spiffe://a/b")
        ),
        *(
            ({"spiffe_ids": [name]}, "is not a SPIFFE ID")
            for name in ("spiffe://a/../b", "spiffe://a/b?c", b"spiffe://a/b")
        ),
        *(({"dns_names": [name]}, "is not a DNS name") for name in ("", "*", "*.edge.svc", "Gateway", "a:443", "a.")),
        *(({"dns_names": [name]}, "is not a DNS name") for name in (".a", "a..b", "a b", "a\n", "a/b", "\u212a", None)),
        *(({"dns_names": [name]}, "is not a DNS name") for name in (b"gateway", GATEWAY)),
        ({"spiffe_ids": GATEWAY}, "spiffe_ids needs a list"),
        ({"dns_names": HOST}, "dns_names needs a list"),
        ({"unix_socket": "false"}, "unix_socket must be True or False"),
        ({"unix_socket": "/run/authz.sock"}, "unix_socket must be True or False"),
        ({}, "name at least one"),
        ({"spiffe_ids": [], "dns_names": []}, "name at least one"),
    ],
    ids=str,
)
def test_names_that_no_certificate_can_hold_are_refused_at_once(wrong, words):
    with pytest.raises(ConfigError, match=rf"^mesh peers: .*{words}"):
        MeshPeers(**wrong)


@pytest.mark.parametrize(
    "name",
    [
        *("spiffe://cluster.local/ns/edge/sa/gateway-istio", "spiffe://acme.example/billing/Payments_v1.2"),
        *("spiffe://td/.hidden", "spiffe://td/..."),
    ],
)
def test_spiffe_ids_may_be_anything_that_the_standard_allows(name):
    assert Peer(spiffe_id=name) in MeshPeers(spiffe_ids=[name])


def test_what_is_believed_cannot_be_changed_later():
    names = [GATEWAY]
    peers = MeshPeers(spiffe_ids=names)
    names.append("spiffe://cluster.local/ns/evil/sa/evil")

    assert peers.spiffe_ids == {GATEWAY}
    with pytest.raises(dataclasses.FrozenInstanceError):
        peers.unix_socket = True


# ---- What they say ----


def test_the_word_of_a_believed_peer_names_the_caller():
    assert said(*word()) == CALLER


@pytest.mark.parametrize("peer", [NOBODY, Peer(spiffe_id=GATEWAY + "x"), Peer(dns_names=frozenset({"other"}))])
def test_the_word_of_anybody_else_is_no_word(peer):
    assert said(*word(), peer=peer) is None


def test_without_a_word_nobody_is_named():
    assert said(("authorization", "Bearer a.b.c"), ("x-client-id", CLIENT), ("x-scopes", "admin")) is None


def test_without_a_word_the_peer_need_not_be_known():
    assert said(("authorization", "Bearer a.b.c"), peer=None) is None


@pytest.mark.parametrize("entry", [("x-org-id", ""), ("x-authz-principal-bin", b""), ("x-org-id", ORG)])
def test_for_any_word_the_peer_must_be_known(entry):
    with pytest.raises(PeerUnknownError):
        said(entry, peer=None)


@pytest.mark.parametrize(
    "name", ["x-org-id-bin", "x_org_id", "x-org_id", "x-authz-principal", "x_authz_principal_bin", "tenant"]
)
def test_names_that_resemble_the_trusted_ones_are_no_word(name):
    assert said((name, OTHER_ORG)) is None
    assert said(*word(), (name, OTHER_ORG)) == CALLER


def test_other_names_can_be_chosen():
    trusted = TrustedMetadata(org_id="tenant", principal="who-bin")
    renamed = [("tenant", ORG), ("who-bin", message()), ("x-org-id", OTHER_ORG)]

    assert PEERS.principal_of(call(*renamed), trusted) == CALLER


ORG_ENTRY, PRINCIPAL_ENTRY = word()
OTHER_ENTRY, OTHER_PRINCIPAL_ENTRY = word(OTHER_ORG)
SEVERAL = {
    "org-alone": [ORG_ENTRY],
    "principal-alone": [PRINCIPAL_ENTRY],
    "org-twice": [ORG_ENTRY, ORG_ENTRY, PRINCIPAL_ENTRY],
    "principal-twice": [ORG_ENTRY, PRINCIPAL_ENTRY, PRINCIPAL_ENTRY],
    "two-orgs": [ORG_ENTRY, OTHER_ENTRY, PRINCIPAL_ENTRY],
    "two-orgs-the-other-way": [OTHER_ENTRY, ORG_ENTRY, PRINCIPAL_ENTRY],
    "another-org-in-capitals": [*word(), ("X-Org-Id", OTHER_ORG)],
    "another-principal-in-capitals": [*word(), ("X-Authz-Principal-Bin", OTHER_PRINCIPAL_ENTRY[1])],
    "two-principals": [ORG_ENTRY, PRINCIPAL_ENTRY, OTHER_PRINCIPAL_ENTRY],
    "two-of-each": [ORG_ENTRY, PRINCIPAL_ENTRY, OTHER_ENTRY, OTHER_PRINCIPAL_ENTRY],
    "an-empty-principal-too": [ORG_ENTRY, PRINCIPAL_ENTRY, ("x-authz-principal-bin", b"")],
    "an-empty-org-too": [ORG_ENTRY, ("x-org-id", ""), PRINCIPAL_ENTRY],
    "another-org": [OTHER_ENTRY, PRINCIPAL_ENTRY],
    "joined-orgs": [("x-org-id", f"{ORG},{OTHER_ORG}"), PRINCIPAL_ENTRY],
    "org-in-lower-case": [("x-org-id", ORG.lower()), PRINCIPAL_ENTRY],
    "org-with-blank": [("x-org-id", f"{ORG} "), PRINCIPAL_ENTRY],
    "org-as-bytes": [("x-org-id", ORG.encode()), PRINCIPAL_ENTRY],
    "empty-org": [("x-org-id", ""), PRINCIPAL_ENTRY],
    "both-empty": [("x-org-id", ""), ("x-authz-principal-bin", b"")],
}


@pytest.mark.parametrize("metadata", SEVERAL.values(), ids=SEVERAL)
def test_entries_that_contradict_each_other_are_refused(metadata):
    assert reason_of(*metadata) == "mesh_metadata_invalid"


def principal(data):
    return [("x-org-id", ORG), ("x-authz-principal-bin", data)]


def as_text(data):
    return base64.b64encode(data)


NO_MESSAGES = {
    "empty": b"",
    "garbage": b"\xff" * 8,
    "truncated": message()[:-3],
    "zeros": bytes(64),
    "base64-twice": as_text(message()),
    "base64-thrice": as_text(as_text(message())),
    "text": message().decode("latin-1"),
    "json": b'{"orgId": "org_01JYACME000000000000000000"}',
    "something-after-it": message() + b"\xff",
    "not-utf-8": b"\x0a\x02\xff\xfe" + message(org_id=None),
    "too-long": message(token_id="x" * 9000),
    "too-long-by-unknown-fields": message() + b"\x9a\x06\xff\x3f" + b"x" * 8191,
    "endless-scopes": message(scopes=["x"] * 5000),
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_refused(data):
    assert reason_of(*principal(data)) == "mesh_metadata_invalid"


NO_IDENTIFIERS = [
    "a b",
    "a,b",
    "a\nb",
    "a\r\nx-org-id: b",
    "a\0",
    "é",
    'a"b',
    "a\\b",
    "\u202eb",
    "x" * 257,
    " ",
    "a\x7f",
]
LATEST = 253_402_300_799


@pytest.mark.parametrize(
    "changes",
    [
        {"org_id": None},
        *({"org_id": value} for value in NO_IDENTIFIERS),
        *({"client_id": value} for value in NO_IDENTIFIERS),
        *({"subject": value} for value in NO_IDENTIFIERS),
        *({"tenant": value} for value in NO_IDENTIFIERS),
        *({"scopes": ["a", value]} for value in ("", " ", "b admin", "b\tc", "b\n", "é", 'b"', "b\\", "x" * 2049)),
        {"expires_at": None},
        *({"expires_at": Timestamp(seconds=value)} for value in (-1, LATEST + 1, 2**62, -(2**63))),
        *({"expires_at": Timestamp(seconds=5, nanos=value)} for value in (-1, 1_000_000_000, 2**31 - 1, -(2**31))),
        *({"issued_at": Timestamp(seconds=value)} for value in (-1, LATEST + 1, 2**62)),
        {"issued_at": Timestamp(seconds=5, nanos=-1)},
    ],
    ids=str,
)
def test_fields_that_no_token_can_give_are_refused(changes):
    org_id = changes.get("org_id", ORG)

    assert (
        reason_of(("x-org-id", org_id or ""), ("x-authz-principal-bin", message(**changes))) == "mesh_metadata_invalid"
    )


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"client_id": None}, "client_id", ""),
        ({"subject": "user_01JY"}, "subject", "user_01JY"),
        ({"scopes": None}, "scopes", frozenset()),
        ({"scopes": ["a", "a"]}, "scopes", frozenset({"a"})),
        ({"issued_at": None}, "issued_at", None),
        ({"issued_at": Timestamp()}, "issued_at", 0.0),
        ({"expires_at": Timestamp(seconds=LATEST)}, "expires_at", float(LATEST)),
        ({"expires_at": Timestamp(seconds=5, nanos=250_000_000)}, "expires_at", 5.25),
        ({"token_id": "\r\n"}, "token_id", "\r\n"),
        ({"key_id": None}, "key_id", ""),
        ({"tenant": "tenant-7"}, "tenant", "tenant-7"),
        ({"tenant": None}, "tenant", ""),
    ],
)
def test_fields_are_read(changes, field, value):
    assert getattr(said(*word(**changes)), field) == value


def test_fields_of_a_later_version_are_not_handed_on():
    data = message() + b"\x9a\x06\x05admin"
    entries = dict(TRUSTED.entries(said(*principal(data))))
    handed_on = PrincipalMessage.FromString(entries["x-authz-principal-bin"])

    assert handed_on == principal_message(CALLER)
    assert len(UnknownFieldSet(handed_on)) == 0


def test_of_a_field_that_stands_twice_the_trusted_entry_must_agree_with_what_is_read():
    """In protobuf the last one wins."""
    twice = message() + PrincipalMessage(org_id=OTHER_ORG).SerializeToString()

    assert reason_of(*principal(twice)) == "mesh_metadata_invalid"
    assert said(("x-org-id", OTHER_ORG), ("x-authz-principal-bin", twice)).org_id == OTHER_ORG


def test_no_refusal_quotes_what_was_said():
    with pytest.raises(MeshMetadataError) as caught:
        said(*principal(message(client_id="evil\nvalue")))

    assert "evil" not in str(caught.value)


@given(st.binary(max_size=200) | st.builds(lambda tail: message() + tail, st.binary(max_size=20)))
def test_any_bytes_are_a_caller_or_a_refusal(data):
    with contextlib.suppress(MeshMetadataError):
        caller = said(("x-org-id", ORG), ("x-authz-principal-bin", data))
        assert caller.org_id == ORG
        assert all(str(entry.value).isprintable() for entry in TRUSTED.entries(caller))


WORDS = st.text("abc:/.-", min_size=1, max_size=20)


@given(
    st.builds(
        Principal,
        org_id=WORDS,
        client_id=WORDS | st.just(""),
        subject=WORDS,
        scopes=st.frozensets(WORDS, max_size=5),
        issuer=st.text(st.characters(codec="utf-8"), max_size=20),
        audience=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=3).map(tuple),
        token_id=st.text(st.characters(codec="utf-8"), max_size=20),
        issued_at=st.none() | st.integers(0, LATEST).map(float),
        expires_at=st.integers(0, LATEST).map(float),
        key_id=WORDS | st.just(""),
        tenant=WORDS | st.just(""),
    )
)
def test_what_one_door_says_another_reads(caller):
    assert said(*TRUSTED.entries(caller)) == caller


# ---- A proxy that decided nothing ----


@pytest.mark.parametrize("value", ["true", "false", "", "1"])
@pytest.mark.parametrize("peer", [UNIX, NOBODY, None], ids=["believed", "nobody", "unknown"])
def test_what_nobody_has_decided_is_undecided_whoever_brings_it(value, peer):
    assert reason_of(*word(), (UNDECIDED, value), peer=peer) == "mesh_undecided"
    assert reason_of((UNDECIDED, value), *word(), peer=peer) == "mesh_undecided"
    assert reason_of((UNDECIDED, value), peer=peer) == "mesh_undecided"
    assert reason_of((UNDECIDED.title(), value), peer=peer) == "mesh_undecided"


# ---- The judge ----


@pytest.fixture
def authorizer(verifier):
    return Authorizer(verifier, public_methods=[HEALTH], trust=PEERS)


@pytest.fixture
def token(ec_key):
    return ("authorization", f"Bearer {ec_key.sign(m2m_claims())}")


def test_the_word_goes_before_the_token(authorizer, token):
    assert run(authorizer.authorize(call(*word(OTHER_ORG), token))).org_id == OTHER_ORG


def test_the_token_decides_where_the_word_is_not_believed(authorizer, token):
    assert run(authorizer.authorize(call(*word(OTHER_ORG), token, peer=NOBODY))).org_id == ORG


def test_where_nothing_is_believed_there_must_be_a_token(authorizer):
    with pytest.raises(TokenMissingError):
        run(authorizer.authorize(call(*word(), peer=NOBODY)))


def test_nobody_is_believed_by_default(verifier, token):
    authorizer = Authorizer(verifier)

    assert run(authorizer.authorize(call(*word(OTHER_ORG), token))).org_id == ORG
    with pytest.raises(TokenMissingError):
        run(authorizer.authorize(call(*word(OTHER_ORG))))


def test_a_door_that_cannot_tell_the_peer_believes_no_word(authorizer, token):
    with pytest.raises(PeerUnknownError):
        run(authorizer.authorize(call(*word(), token, peer=None)))


@pytest.mark.parametrize("metadata", [word(), [(UNDECIDED, "true")], principal(b"")])
def test_a_public_method_asks_nobody_who_calls(authorizer, metadata):
    assert run(authorizer.authorize(call(*metadata, method=HEALTH))) is ANONYMOUS


@pytest.mark.parametrize(("seconds", "good"), [(309.9, True), (310.0, False), (1e6, False)])
def test_a_caller_expires_as_its_token_does(authorizer, clock, seconds, good):
    clock.advance(seconds)
    if good:
        assert run(authorizer.authorize(call(*word()))) == CALLER
    else:
        with pytest.raises(TokenExpiredError):
            run(authorizer.authorize(call(*word())))


@pytest.mark.parametrize("name", [ISSUER, "https://another.example", ""])
def test_a_caller_of_any_issuer_expires(verifier, clock, name):
    """Also of one that no verifier here knows."""
    authorizer = Authorizer(Verifiers(verifier), trust=PEERS)
    before = run(authorizer.authorize(call(*word(issuer=name)))).issuer
    clock.advance(310)

    assert before == name
    with pytest.raises(TokenExpiredError):
        run(authorizer.authorize(call(*word(issuer=name))))


@pytest.mark.parametrize(
    "what", [{"org_id": ORG}, {"client_id": CLIENT}, {"token_id": "01JYTOKEN"}, {"key_id": "ec-1"}], ids=str
)
def test_what_is_revoked_is_refused_whoever_vouches_for_it(authorizer, what):
    before = run(authorizer.authorize(call(*word())))
    authorizer.revoke(**what)

    assert before == CALLER
    with pytest.raises(TokenInactiveError):
        run(authorizer.authorize(call(*word())))


def test_a_caller_of_the_mesh_is_not_asked_about(verifier):
    """There is no token to ask about; the authorization server has asked."""
    transport = FakeTransport(lambda: json_response({"active": False}))
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=transport)
    authorizer = Authorizer(verifier, introspector=introspector, assurance=Assurance(), trust=PEERS)

    assert run(authorizer.authorize(call(*word()))) == CALLER
    assert transport.fetches == 0


def test_mesh_calls_need_no_keys(authorizer, transport):
    transport.down()

    assert run(authorizer.authorize(call(*word()))) == CALLER
    assert transport.fetches == 0


# ---- Without any verifier ----


@pytest.fixture
def tokenless():
    return Authorizer(None, public_methods=[HEALTH], trust=PEERS)


FOREVER = {"expires_at": Timestamp(seconds=LATEST)}


def test_without_a_verifier_believed_peers_are_believed(tokenless):
    assert run(tokenless.authorize(call(*word(**FOREVER)))).org_id == ORG
    assert run(tokenless.authorize(call(method=HEALTH, peer=None))) is ANONYMOUS


@pytest.mark.parametrize("peer", [UNIX, NOBODY, None], ids=["believed", "nobody", "unknown"])
def test_without_a_verifier_no_token_is_good(tokenless, token, peer):
    with pytest.raises(UnauthenticatedError) as caught:
        run(tokenless.authorize(call(token, peer=peer)))

    assert caught.value.reason == "unauthenticated"


def test_without_a_verifier_callers_expire_too(tokenless):
    with pytest.raises(TokenExpiredError):
        run(tokenless.authorize(call(*word(expires_at=Timestamp(seconds=1)))))


def test_without_a_verifier_there_must_be_peers_to_believe():
    with pytest.raises(ConfigError, match="verifier: missing"):
        Authorizer(None)


def test_without_a_verifier_there_is_no_token_to_ask_about():
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=FakeTransport(dict))
    with pytest.raises(ConfigError, match=r"^introspector: "):
        Authorizer(None, introspector=introspector, assurance=Assurance(), trust=PEERS)


def test_peers_make_an_authorizer_of_nothing():
    assert run(as_authorizer(None, trust=PEERS).authorize(call(*word(**FOREVER)))).org_id == ORG


def test_an_authorizer_has_its_own_peers(authorizer):
    with pytest.raises(ConfigError, match="public_methods and trust: give them to the Authorizer"):
        as_authorizer(authorizer, trust=PEERS)


def test_an_authorizer_without_a_verifier_can_be_closed_and_asked_how_it_does(tokenless):
    run(tokenless.verifier.warm_up_flow())
    tokenless.close()

    assert tokenless.verifier.health() == {}


def test_errors_of_the_mesh_are_what_their_code_says():
    assert issubclass(MeshMetadataError, UnauthenticatedError)
    assert not issubclass(MeshUndecidedError, UnauthenticatedError)


# ---- Scopes that a proxy has left out of the principal ----

MANY = " ".join(f"resource{number:03}:read" for number in range(120))


def shortened(*scopes):
    """Return what a proxy says whose principal is without scopes, and these."""
    return [*word(scopes=None, omitted=["scopes"]), *(("x-scopes", value) for value in scopes)]


def test_scopes_that_are_left_out_stand_in_their_own_metadata():
    caller = replace(CALLER, scopes=frozenset(MANY.split(" ")))

    assert said(*TRUSTED.entries(caller)) == caller
    assert said(*shortened("a b")).scopes == {"a", "b"}


@pytest.mark.parametrize(
    "scopes",
    [
        pytest.param((), id="none"),
        pytest.param(("a", "b"), id="two"),
        pytest.param(("",), id="empty"),
        pytest.param(("a  b",), id="two-blanks"),
        pytest.param((" a",), id="blank"),
        pytest.param((b"a",), id="bytes"),
        pytest.param(("a\nb",), id="line"),
    ],
)
def test_scopes_that_are_left_out_and_cannot_be_read_are_an_error(scopes):
    assert reason_of(*shortened(*scopes)) == "mesh_metadata_invalid"


def test_scopes_that_are_not_left_out_are_the_principals():
    assert said(*word(), ("x-scopes", "admin")).scopes == CALLER.scopes


def test_scopes_are_believed_of_known_peers_only():
    assert said(*shortened("admin"), peer=NOBODY) is None
