import base64
from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call, Entry
from authz.call.metadata import KNOWN_NAMES, LONGEST_KNOWN_NAME, MAX_ADDED_BYTES, TrustedMetadata, principal_message
from authz.call.principal import ANONYMOUS, Principal
from authz.call.principal_bytes import principal_bytes
from authz.errors import ConfigError
from authz.token.bearer import credentials_of
from authz.v1.principal_pb2 import Principal as PrincipalMessage

TRUSTED = TrustedMetadata()
CALLER = Principal(
    org_id="org_a",
    client_id="client_a",
    subject="client_a",
    scopes=frozenset({"write", "read", "admin"}),
    issuer="https://acme.authkit.app",
    audience=("one", "two"),
    token_id="token",
    issued_at=1_800_000_000.0,
    expires_at=1_800_000_300.25,
    tenant="tenant-7",
)
OURS = {"x-org-id", "x-client-id", "x-scopes", "x-org-tenant", "x-authz-principal-bin"}


def believed(*metadata, principal=CALLER, trusted=TRUSTED):
    return trusted.believed(metadata, principal)


def test_the_caller_is_written_under_five_names():
    entries = dict(TRUSTED.entries(CALLER))

    assert set(entries) == OURS
    assert (entries["x-org-id"], entries["x-client-id"]) == ("org_a", "client_a")
    assert entries["x-org-tenant"] == "tenant-7"


def test_scopes_are_sorted_words():
    assert dict(TRUSTED.entries(CALLER))["x-scopes"] == "admin read write"


def test_the_principal_crosses_as_a_message():
    message = PrincipalMessage.FromString(dict(TRUSTED.entries(CALLER))["x-authz-principal-bin"])

    assert message == PrincipalMessage(
        org_id="org_a",
        client_id="client_a",
        subject="client_a",
        scopes=["admin", "read", "write"],
        issuer="https://acme.authkit.app",
        audience=["one", "two"],
        token_id="token",
        issued_at=Timestamp(seconds=1_800_000_000),
        expires_at=Timestamp(seconds=1_800_000_300, nanos=250_000_000),
        tenant="tenant-7",
    )


def test_a_token_without_iat_has_no_issued_at():
    message = principal_message(Principal(org_id="o", client_id="c", subject="c", expires_at=1.0))

    assert not message.HasField("issued_at")


@given(st.floats(0, 253_402_300_799))
def test_any_time_a_token_may_have_fits_a_timestamp(seconds):
    message = principal_message(Principal(org_id="o", client_id="c", subject="c", expires_at=seconds))

    assert 0 <= message.expires_at.nanos < 1_000_000_000
    assert message.expires_at.ToJsonString()


texts = st.text(max_size=300)
times = st.floats(0, 253_402_300_799) | st.integers(0, 253_402_300_799).map(float)


@given(
    st.builds(
        Principal,
        org_id=texts,
        client_id=texts,
        subject=texts,
        scopes=st.frozensets(texts, max_size=4),
        issuer=texts,
        audience=st.lists(texts, max_size=3).map(tuple),
        token_id=texts | st.just("t" * 20_000),
        issued_at=st.none() | times,
        expires_at=times,
        key_id=texts,
        tenant=texts,
    )
)
def test_the_bytes_of_a_principal_are_those_of_its_message(principal):
    assert principal_bytes(principal) == principal_message(principal).SerializeToString()


@pytest.mark.parametrize("name", ["org_id", "token_id", "key_id", "tenant"])
def test_text_that_no_message_can_hold_has_no_bytes(name):
    with pytest.raises(UnicodeEncodeError):
        principal_bytes(replace(CALLER, **{name: "\ud800"}))


def test_unknown_caller_has_no_trusted_metadata():
    assert TRUSTED.entries(ANONYMOUS) == ()


def test_empty_values_are_left_out():
    bare = Principal(org_id="org_a", client_id="", subject="user_a")

    assert [entry.key for entry in TRUSTED.entries(bare)] == ["x-org-id", "x-authz-principal-bin"]


def test_entries_have_key_and_value():
    assert {(entry.key, entry.value) for entry in TRUSTED.entries(CALLER)} == set(TRUSTED.entries(CALLER))


def test_what_a_caller_sends_stays_in_its_order():
    sent = (Entry("b", "1"), Entry("a", "2"), Entry("b", "1"), Entry("trace-bin", b"\xff"))

    assert believed(*sent) == (*sent, *TRUSTED.entries(CALLER))


FORGED = [
    *("x-org-id", "x-client-id", "x-scopes", "x-org-tenant", "x-authz-principal-bin"),
    *("x-org-id-bin", "x-client-id-bin", "x-scopes-bin", "x-org-tenant-bin", "x_org_tenant", "x_org-tenant"),
    *("x_org_id", "x-org_id", "x_org-id", "x_client_id", "x_scopes", "x_authz_principal_bin", "x-authz-principal_bin"),
    *("x_org_id_bin", "x_org_id-bin", "x-org-id_bin"),
    *("grpc-metadata-x-org-id", "grpcgateway-x-org-id", "grpc-metadata-x_scopes", "Grpc-Metadata-X-Org-Id"),
    *("grpc-metadata-grpc-metadata-x-org-id", "grpc-metadata-grpcgateway-x-authz-principal-bin"),
]


@pytest.mark.parametrize("principal", [pytest.param(CALLER, id="caller"), pytest.param(ANONYMOUS, id="anonymous")])
@pytest.mark.parametrize("key", FORGED)
def test_every_trusted_name_that_a_caller_sends_is_removed(key, principal):
    """A9: all duplicates, and on public methods too."""
    forged = b"forged" if key.endswith("-bin") else "forged"
    metadata = believed((key, forged), ("kept", "1"), (key, forged), (key, ""), principal=principal)

    assert not any(value in ("forged", b"forged", "") for _, value in metadata)
    assert ("kept", "1") in metadata


@pytest.mark.parametrize(
    "key",
    [
        *("x-org-idx", "xx-org-id", "org-id", "x-org", "x-authz-principal", "authorization"),
        *(
            "grpc-metadata-x-org",
            "grpcgateway-authorization",
            "grpc-metadata-",
            "grpc-metadata",
            "x-grpc-metadata-x-org-id",
        ),
    ],
)
def test_other_names_are_the_callers_own(key):
    assert (key, "1") in believed((key, "1"))


def test_a_proxy_removes_the_names_and_their_binary_twins():
    """A9: Envoy knows headers by exact name."""
    assert set(TRUSTED.removed) == OURS | {"x-org-id-bin", "x-client-id-bin", "x-scopes-bin", "x-org-tenant-bin"}


def test_whatever_is_written_is_reserved():
    assert TRUSTED.reserved >= OURS
    assert set(TRUSTED.removed) <= TRUSTED.reserved


def test_a_proxy_removes_what_grpc_gateway_would_turn_into_a_trusted_name():
    """A9: Envoy removes each name with the gateway's prefixes, too."""
    assert len(TRUSTED.prefixed) == 2 * len(TRUSTED.removed)
    assert {"grpc-metadata-x-org-id", "grpcgateway-x-authz-principal-bin"} <= set(TRUSTED.prefixed)
    assert set(TRUSTED.forgeable) == TRUSTED.reserved | {
        prefix + name for prefix in ("grpc-metadata-", "grpcgateway-") for name in TRUSTED.reserved
    }
    assert believed(*((name, "forged") for name in TRUSTED.forgeable)) == TRUSTED.entries(CALLER)


def test_a_chosen_name_may_begin_like_that_of_a_gateway():
    trusted = TrustedMetadata(org_id="grpcgateway-org")

    assert ("grpcgateway-org", "forged") not in believed(("grpcgateway-org", "forged"), trusted=trusted)


def test_other_names_can_be_chosen():
    trusted = TrustedMetadata(org_id="tenant", principal="who-bin")

    assert dict(trusted.entries(CALLER)).keys() == {"tenant", "x-client-id", "x-scopes", "x-org-tenant", "who-bin"}
    assert ("tenant", "forged") not in believed(("tenant", "forged"), trusted=trusted)
    assert ("x-org-id", "1") in believed(("x-org-id", "1"), trusted=trusted)


def test_any_number_of_callers_is_told_apart():
    """A thousand are remembered, and none of them is taken for one who comes when it is gone."""
    said = [message_of(TRUSTED.entries(replace(CALLER, token_id=str(number)))).token_id for number in range(3000)]

    assert said == [str(number) for number in range(3000)]


def test_callers_are_not_mixed_up():
    """Entries are remembered, by principal."""
    one, other = (Principal(org_id=org_id, client_id="c", subject="c") for org_id in ("org_a", "org_b"))

    assert [dict(TRUSTED.entries(caller))["x-org-id"] for caller in (one, other, one)] == ["org_a", "org_b", "org_a"]


@pytest.mark.parametrize(
    "name", ["", "X-Org-Id", "x org", "x_org_id", "-x", "x-", ":path", "x", "é", "x\n", "grpc-org"]
)
def test_a_name_must_be_one_that_grpc_carries(name):
    with pytest.raises(ConfigError, match=r"^trusted metadata: .* must be a lower-case header name"):
        TrustedMetadata(org_id=name)


@pytest.mark.parametrize("name", ["authorization", "host", "content-type", "te", "connection"])
def test_a_name_that_has_a_meaning_already_is_refused(name):
    with pytest.raises(ConfigError, match=rf"^trusted metadata: '{name}' has a meaning already"):
        TrustedMetadata(client_id=name)


def test_text_is_no_binary_entry():
    with pytest.raises(ConfigError, match="not end in -bin"):
        TrustedMetadata(client_id="x-client-bin")


def test_the_message_is_a_binary_entry():
    with pytest.raises(ConfigError, match="name and end in -bin"):
        TrustedMetadata(principal="x-principal")


@pytest.mark.parametrize(
    "names", [("org_id", "client_id"), ("org_id", "scopes"), ("client_id", "scopes")], ids="-".join
)
def test_two_entries_need_two_names(names):
    with pytest.raises(ConfigError, match="differ"):
        TrustedMetadata(**dict.fromkeys(names, "x-same"))


# ---- What is added is bounded ----


# ---- Metadata that is as usual ----

USUAL = (("user-agent", "grpc"), ("authorization", "Bearer t"), ("trace-bin", b"\xff\x00"))
NAMES = st.sampled_from(["user-agent", "authorization", "Authorization", "x-request-id", "trace-bin", *FORGED])
CALLS = st.lists(st.lists(st.tuples(NAMES, st.text("ab", max_size=3)), max_size=5), max_size=6)


@given(CALLS)
def test_a_glance_finds_what_a_closer_look_does(calls):
    """A9: whatever earlier calls have said, and in whichever order."""
    trusted = TrustedMetadata()
    for metadata in calls:
        glance = trusted.glance(metadata)
        kept = trusted.believed(metadata, ANONYMOUS)
        size = sum(len(key) + len(value) for key, value in metadata)

        assert kept == tuple(entry for entry in metadata if entry[0] not in FORGED)
        if glance is not None:
            assert (kept, glance) == (tuple(metadata), (credentials_of(Call("/s/m", metadata)), size))


def test_names_are_usual_once_a_caller_that_is_admitted_has_used_them():
    trusted = TrustedMetadata()
    before = trusted.glance(USUAL)
    trusted.believed(USUAL, CALLER)

    assert (before, trusted.glance(USUAL)) == (None, (["Bearer t"], 46))
    assert trusted.glance((*USUAL, ("x-new", "1"))) is None


@pytest.mark.parametrize("name", [*FORGED, "Authorization", "x" * (LONGEST_KNOWN_NAME + 1)])
def test_such_a_name_never_becomes_usual(name):
    trusted = TrustedMetadata()
    for _ in range(2):
        trusted.believed([(name, "1")], CALLER)

    assert trusted.glance([(name, "1")]) is None


def test_a_caller_that_invents_names_has_only_so_many_remembered():
    trusted = TrustedMetadata()
    trusted.believed([(f"x-{number}", "") for number in range(2 * KNOWN_NAMES)], CALLER)
    usual = [number for number in range(2 * KNOWN_NAMES) if trusted.glance([(f"x-{number}", "")]) is not None]

    assert usual == list(range(KNOWN_NAMES))


def with_scopes(characters, **changes):
    """Return a caller whose scopes have so many characters, blanks included."""
    words = [f"resource{number:03}:read" for number in range(1 + characters // 17)]
    return replace(CALLER, scopes=frozenset(" ".join(words)[:characters].split(" ")), **changes)


def size_of(entries):
    """Return the size of the entries by RFC 9113 section 6.5.2, with binary values in base64."""
    return sum(
        32 + len(key) + len(value if isinstance(value, str) else base64.b64encode(value)) for key, value in entries
    )


def message_of(entries):
    return PrincipalMessage.FromString(dict(entries)["x-authz-principal-bin"])


@pytest.mark.parametrize("characters", [0, 100, 800, 1000, 1200, 2048])
def test_what_is_added_to_a_call_is_bounded(characters):
    assert size_of(TRUSTED.entries(with_scopes(characters))) <= MAX_ADDED_BYTES == 3072


def test_scopes_stand_once_where_they_do_not_fit_twice():
    caller = with_scopes(2048)
    entries = TRUSTED.entries(caller)
    said = message_of(entries)

    assert frozenset(dict(entries)["x-scopes"].split(" ")) == caller.scopes
    assert (list(said.scopes), list(said.omitted)) == ([], ["scopes"])
    expected = principal_message(caller)
    expected.ClearField("scopes")
    expected.omitted.append("scopes")
    assert said == expected


def test_scopes_that_fit_twice_stand_twice():
    caller = with_scopes(800)
    said = message_of(TRUSTED.entries(caller))

    assert (set(said.scopes), list(said.omitted)) == (caller.scopes, [])


def test_shortest_scopes_that_do_not_fit_are_those_that_would_be_too_long():
    sizes = []
    for characters in range(600, 1600, 17):
        caller = with_scopes(characters)
        words = tuple(entry for entry in TRUSTED.entries(caller) if not entry.key.endswith("-bin"))
        whole = (*words, ("x-authz-principal-bin", principal_message(caller).SerializeToString()))
        is_short = "scopes" in message_of(TRUSTED.entries(caller)).omitted
        assert is_short is (size_of(whole) > MAX_ADDED_BYTES)
        sizes.append(is_short)

    assert sizes == sorted(sizes)
    assert {True, False} == set(sizes)


def test_a_caller_without_scopes_has_none_left_out():
    bare = replace(CALLER, scopes=frozenset(), audience=tuple(f"https://{number}.example" for number in range(300)))

    assert list(message_of(TRUSTED.entries(bare)).omitted) == []


def test_what_is_left_out_is_logged_once_for_each_client(caplog):
    with caplog.at_level("WARNING", "authz"):
        for client in ("client_one", "client_one", "client_two"):
            for token_id in ("first", "second"):
                TRUSTED.entries(with_scopes(2000, client_id=client, token_id=token_id))

    assert [record.getMessage() for record in caplog.records] == [
        f"principal_shortened org_id='org_a' client_id='{client}' omitted='scopes'"
        for client in ("client_one", "client_two")
    ]
