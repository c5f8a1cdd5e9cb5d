"""The pure half of Envoy's door: how its question is read, and what our answers say."""

import base64
import json
import re
import string
from collections.abc import Iterator
from dataclasses import replace

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.envoy.check.answer import allow, allowed, denied, deny, facts_of, is_fit
from authz.envoy.check.question import check_path, read
from authz.envoy.v3.external_auth_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    HeaderValue,
    HeaderValueOption,
)
from authz.errors import (
    AlgorithmNotAllowedError,
    AuthzError,
    BadSignatureError,
    ClaimError,
    DirectoryUnavailableError,
    InsufficientScopeError,
    InternalError,
    IntrospectionUnavailableError,
    KeyNotFoundError,
    KeySetUnavailableError,
    KeyUndecidedError,
    MeshMetadataError,
    MeshUndecidedError,
    OrdersUnknownError,
    OverloadedError,
    PeerUnknownError,
    PermissionDeniedError,
    QuotaUnavailableError,
    ResourceExhaustedError,
    TokenDeniedError,
    TokenEndpointError,
    TokenExpiredError,
    TokenInactiveError,
    TokenMalformedError,
    TokenMissingError,
    UnauthenticatedError,
    UnavailableError,
)
from authz.http.forms import Form as Protocol
from authz.http.forms import form_of
from authz.organizations.quota import Quota
from authz.v1.principal_pb2 import Principal as PrincipalMessage
from tests.envoy.check.messages import (
    FORMS,
    GRPC,
    GRPC_PATH,
    STATUSES,
    Denial,
    Form,
    bearer,
    in_header_map,
    in_headers,
    is_sound,
    sentence,
)

PRINCIPAL = Principal(
    org_id="org_01JYACME",
    client_id="client_01JYPARTNER",
    subject="client_01JYPARTNER",
    scopes=frozenset(["ledger:write", "ledger:read"]),
    issuer="https://acme.authkit.app",
    audience=("client_01JYENV",),
    token_id="01JYTOKEN",
    issued_at=1_800_000_000.0,
    expires_at=1_800_000_300.0,
)
WITHOUT_SCOPES = Principal(org_id="org_01JYACME", client_id="client_01JYPARTNER", subject="client_01JYPARTNER")

TRUSTED = TrustedMetadata()
CHALLENGE = Challenge(realm="api")
RENAMED = TrustedMetadata(
    org_id="x-acme-org", client_id="x-acme-client", scopes="x-acme-scopes", principal="x-acme-principal-bin"
)

ERRORS = [
    AlgorithmNotAllowedError(),
    BadSignatureError(),
    ClaimError("aud"),
    ClaimError("aud", missing=True),
    DirectoryUnavailableError(retry_after=3),
    InternalError(),
    IntrospectionUnavailableError(),
    KeyNotFoundError(),
    KeySetUnavailableError(retry_after=2.5),
    KeyUndecidedError(retry_after=17),
    MeshMetadataError(),
    MeshUndecidedError(),
    OverloadedError(),
    InsufficientScopeError(frozenset({"ledger:read"})),
    PeerUnknownError("cnf"),
    PermissionDeniedError(),
    PermissionDeniedError(reason="request_malformed"),
    OrdersUnknownError(),
    QuotaUnavailableError(),
    ResourceExhaustedError(retry_after=0.25),
    TokenDeniedError(),
    TokenEndpointError(),
    TokenExpiredError(),
    TokenInactiveError(),
    TokenMalformedError("a secret detail"),
    TokenMissingError(),
    UnauthenticatedError(),
    UnavailableError(),
]

each_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{error.reason}")
each_client = pytest.mark.parametrize("protocol", Protocol)
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
each_principal = pytest.mark.parametrize(
    "principal", [PRINCIPAL, WITHOUT_SCOPES, ANONYMOUS], ids=["full", "without-scopes", "anonymous"]
)


def call_of(request: CheckRequest) -> Call:
    call, *_ = read(request.SerializeToString())
    return call


def metadata_of(request: CheckRequest) -> list[tuple[str, str | bytes]]:
    return [(str(key), value) for key, value in call_of(request).metadata]


# ---- The question ----


def test_both_forms_of_headers_make_the_same_call() -> None:
    headers = [(":method", "POST"), GRPC, ("authorization", "Bearer a.b.c"), ("x-trace", "caf\xe9")]
    one, other = call_of(in_headers(*headers)), call_of(in_header_map(*headers))

    assert (GRPC_PATH, sorted(headers)) == (one.method, sorted(one.metadata))
    assert (one.method, sorted(one.metadata)) == (other.method, sorted(other.metadata))
    assert one.credentials == other.credentials == ["Bearer a.b.c"]


def test_bytes_that_are_not_ascii_become_latin_1() -> None:
    request = in_header_map(("authorization", "Bearer \xff\x80"))

    assert metadata_of(request) == [("authorization", "Bearer \xff\x80")]


def test_value_is_read_where_there_is_no_raw_value() -> None:
    request = CheckRequest()
    request.attributes.request.http.header_map.headers.add(key="authorization", value="Bearer a.b.c")

    assert metadata_of(request) == [("authorization", "Bearer a.b.c")]


@each_form
def test_upper_case_keys_are_read_like_lower_case_ones(form: Form) -> None:
    assert metadata_of(form(("X-Trace", "1"))) == [("x-trace", "1")]


def test_token_under_a_name_with_capitals_is_none_or_counts() -> None:
    # Envoy writes none. A name that HTTP/2 does not allow is not a token, but must count beside another.
    assert call_of(in_headers(("Authorization", "Bearer a.b.c"))).credentials == []
    assert len(call_of(in_header_map(bearer("a.b.c"), ("Authorization", "Bearer d.e.f"))).credentials or ()) == 2


def test_copies_of_a_header_stay_apart_in_a_header_map() -> None:
    copies = [("authorization", "Bearer a.b.c"), ("authorization", "Bearer d.e.f")]

    assert metadata_of(in_header_map(*copies)) == copies
    assert call_of(in_header_map(*copies)).credentials == ["Bearer a.b.c", "Bearer d.e.f"]


@each_form
@pytest.mark.parametrize(
    ("path", "method"),
    [("/a.B/C?x=1", "/a.B/C"), ("/a.B/C?", "/a.B/C"), ("/a?b?c", "/a"), ("?x", ""), ("/a.B/C", "/a.B/C"), ("", "")],
)
def test_query_is_no_part_of_the_method(form: Form, path: str, method: str) -> None:
    assert call_of(form(path=path)).method == method


def test_question_without_content_is_a_call_of_nothing() -> None:
    call, protocol, _ = read(b"")

    assert (call.method, list(call.metadata), call.peer, call.credentials) == ("", [], Peer(), [])
    assert protocol is Protocol.HTTP


@pytest.mark.parametrize(
    ("attributes", "principals"),
    [
        pytest.param(AttributeContext(), (), id="no-tls"),
        pytest.param(AttributeContext(tls_session={}), ("",), id="tls"),
        pytest.param(
            AttributeContext(tls_session={}, source={"principal": "spiffe://a/b"}), ("spiffe://a/b",), id="mutual-tls"
        ),
        pytest.param(AttributeContext(source={"principal": "CN=a"}), ("CN=a",), id="without-include-tls-session"),
        pytest.param(AttributeContext(source={"certificate": "nonsense"}), (), id="unreadable-certificate"),
    ],
)
def test_peer_has_the_principal_that_envoy_names(attributes: AttributeContext, principals: tuple[str, ...]) -> None:
    call, *_ = read(CheckRequest(attributes=attributes).SerializeToString())

    assert call.peer == Peer(principals=principals)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\xff\xff", b"GET / HTTP/1.1", b"\x0a\x02\x22\xff"])
def test_bytes_that_are_no_question_are_refused(body: bytes) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        read(body)

    assert caught.value.reason == "request_malformed"


def test_fields_that_newer_envoys_add_are_no_error() -> None:
    # Field 1000, a string.
    newer = in_headers(bearer("a.b.c")).SerializeToString() + b"\xc2\x3e\x03new"

    assert read(newer)[0].credentials == ["Bearer a.b.c"]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["application/grpc"], True),
        (["application/grpc+proto"], True),
        (["application/grpc+json"], True),
        (["application/grpc+"], True),
        (["application/grpc;x=1"], False),
        (["Application/GRPC"], False),
        (["application/grpc-web"], False),
        (["application/grpc-web+proto"], False),
        (["application/grpcx"], False),
        (["application/grpc "], False),
        (["application/json"], False),
        (["application/grpc", "application/grpc"], False),
        (["application/grpc,application/grpc"], False),
        ([""], False),
        ([], False),
    ],
)
def test_client_is_a_grpc_one_exactly_where_envoy_says_so(kinds: list[str], *, expected: bool) -> None:
    assert (form_of(kinds) is Protocol.GRPC) is expected


@each_form
def test_client_is_known_by_its_content_type_alone(form: Form) -> None:
    assert read(form(("te", "trailers"), GRPC).SerializeToString())[1] is Protocol.GRPC
    assert read(form(("te", "application/grpc")).SerializeToString())[1] is Protocol.HTTP


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "/a.B",
        "/a.B/",
        "//C",
        "a.B/C",
        "/a.B/C/",
        "/a.B/C/D",
        "//a.B/C",
        "/a.B//C",
        "/a.B/C#d",
        "/a.B/C d",
        "/a.B/C\n",
        "/a.B/C?x",
        "*",
    ],
)
def test_odd_grpc_paths_are_refused(path: str) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        check_path(path, grpc=True)

    assert caught.value.reason == "request_malformed"


@pytest.mark.parametrize("path", ["", "*", "whoami", "/a b", "/a#b", "/a?b", "/a\r\n", "http://evil/", "/a\u2028"])
def test_odd_http_paths_are_refused(path: str) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        check_path(path, grpc=False)

    assert caught.value.reason == "request_malformed"


@pytest.mark.parametrize(
    ("path", "grpc"),
    [
        ("/a.B/C", True),
        ("/authz.demo.v1.LedgerService/PostEntry", True),
        ("/", False),
        ("/a/b/c", False),
        ("/a%20", False),
    ],
)
def test_ordinary_paths_pass(path: str, *, grpc: bool) -> None:
    check_path(path, grpc=grpc)


# ---- Allow ----


@each_principal
@pytest.mark.parametrize("trusted", [TRUSTED, RENAMED], ids=["usual-names", "other-names"])
def test_every_trusted_name_is_either_set_or_removed(principal: Principal, trusted: TrustedMetadata) -> None:
    response = allow(principal, trusted).ok_response
    given = [option.header.key for option in response.headers]

    assert sorted([*given, *response.headers_to_remove]) == sorted([*trusted.removed, *trusted.prefixed])


def test_twins_of_the_trusted_names_are_removed() -> None:
    removed = allow(PRINCIPAL, TRUSTED).ok_response.headers_to_remove

    assert [name for name in removed if not name.startswith("grpc")] == [
        "x-org-tenant",
        "x-org-id-bin",
        "x-client-id-bin",
        "x-scopes-bin",
        "x-org-tenant-bin",
    ]


def test_names_that_grpc_gateway_would_turn_into_trusted_ones_are_removed() -> None:
    removed = set(allow(PRINCIPAL, TRUSTED).ok_response.headers_to_remove)

    assert removed >= {f"{prefix}{name}" for prefix in ("grpc-metadata-", "grpcgateway-") for name in TRUSTED.removed}


def test_tenant_is_told_where_it_is_known() -> None:
    response = allow(replace(PRINCIPAL, tenant="tenant-7"), TRUSTED).ok_response

    assert {option.header.key: option.header.value for option in response.headers}["x-org-tenant"] == "tenant-7"
    assert "x-org-tenant" not in response.headers_to_remove


@each_principal
def test_token_is_kept_from_the_upstream_only_where_that_is_wanted(principal: Principal) -> None:
    kept, passed = (allow(principal, TRUSTED, remove_authorization=wanted) for wanted in (True, False))

    assert [*passed.ok_response.headers_to_remove, "authorization"] == list(kept.ok_response.headers_to_remove)
    assert "authorization" not in passed.ok_response.headers_to_remove
    assert kept.ok_response.headers == passed.ok_response.headers
    # Each is remembered for itself.
    assert allowed(principal, TRUSTED, remove_authorization=True) == kept.SerializeToString()
    assert allowed(principal, TRUSTED) == passed.SerializeToString()


def test_anonymous_callers_have_no_trusted_name() -> None:
    response = allow(ANONYMOUS, TRUSTED)

    assert is_sound(response)
    assert (list(response.ok_response.headers), len(response.ok_response.headers_to_remove)) == ([], 27)


def test_values_are_those_of_the_principal() -> None:
    headers = allow(PRINCIPAL, TRUSTED).ok_response.headers
    values = {option.header.key: option.header.value for option in headers}

    del values["x-authz-principal-bin"]
    assert values == {
        "x-org-id": "org_01JYACME",
        "x-client-id": "client_01JYPARTNER",
        "x-scopes": "ledger:read ledger:write",
    }


@each_principal
def test_old_and_new_proxies_are_told_to_overwrite(principal: Principal) -> None:
    for option in allow(principal, TRUSTED).ok_response.headers:
        assert option.append_action == HeaderValueOption.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD == 2
        assert not option.HasField("append")


@each_principal
def test_no_value_is_empty(principal: Principal) -> None:
    assert all(option.header.value for option in allow(principal, TRUSTED).ok_response.headers)


def test_principal_is_given_as_base64_and_as_bytes() -> None:
    [header] = [o.header for o in allow(PRINCIPAL, TRUSTED).ok_response.headers if o.header.key.endswith("-bin")]
    padded = header.value + "=" * (-len(header.value) % 4)

    assert "=" not in header.value
    assert base64.b64decode(padded, validate=True) == header.raw_value
    assert PrincipalMessage.FromString(header.raw_value).org_id == "org_01JYACME"


def test_text_has_no_raw_value() -> None:
    headers = allow(PRINCIPAL, TRUSTED).ok_response.headers

    assert not any(option.header.raw_value for option in headers if not option.header.key.endswith("-bin"))


@pytest.mark.parametrize(
    ("principal", "told"),
    [
        (PRINCIPAL, {"organization": "org_01JYACME", "client": "client_01JYPARTNER"}),
        (WITHOUT_SCOPES, {"organization": "org_01JYACME", "client": "client_01JYPARTNER"}),
        (ANONYMOUS, {}),
    ],
    ids=["full", "without-scopes", "anonymous"],
)
def test_envoy_is_told_whose_request_passes_and_nothing_else(principal: Principal, told: dict[str, str]) -> None:
    assert dict(allow(principal, TRUSTED).dynamic_metadata) == told


def test_envoy_is_told_the_quota_in_the_words_of_its_own_filter() -> None:
    quota = Quota("basic", 0.5, 3, 5)

    [told, as_json] = [
        CheckResponse.FromString(allowed(PRINCIPAL, TRUSTED, quota=each)).dynamic_metadata for each in (quota, None)
    ]

    assert MessageToDict(told) == {
        **MessageToDict(as_json),
        "quota": "basic",
        "requests_per_second": 0.5,
        "burst": 3.0,
        "concurrent_streams": 5.0,
        "limit": {"requests_per_unit": 30.0, "unit": "MINUTE"},
    }


@pytest.mark.parametrize(
    ("rate", "requests", "unit"),
    [
        (10.0, 10, "SECOND"),
        (2.7, 162, "MINUTE"),
        (0.1, 6, "MINUTE"),
        (0.005, 18, "HOUR"),
        (0.001, 86, "DAY"),
        (1e6, 1_000_000, "SECOND"),
    ],
)
def test_envoy_counts_whole_requests_and_never_more_than_the_rate(rate: float, requests: int, unit: str) -> None:
    assert facts_of(Quota("basic", rate, 1))["limit"] == {"requests_per_unit": requests, "unit": unit}


def test_envoy_is_told_only_what_a_plan_limits() -> None:
    assert facts_of(Quota("streams", concurrent_streams=5)) == {"quota": "streams", "concurrent_streams": 5}


@each_principal
def test_response_that_is_remembered_is_the_same(principal: Principal) -> None:
    first, second = (allowed(principal, TRUSTED) for _ in range(2))

    assert first is second
    assert CheckResponse.FromString(first) == allow(principal, TRUSTED)


# ---- Deny ----


def descendants(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_kind_of_error_is_among_those_tried() -> None:
    assert {type(error) for error in ERRORS} == {
        kind for kind in descendants(AuthzError) if kind.__module__ == "authz.errors"
    }


@each_error
@each_client
def test_denials_have_a_code_and_its_http_status(error: AuthzError, protocol: Protocol) -> None:
    response = deny(refusal_of(error, CHALLENGE), protocol)

    is_in_band = protocol not in (Protocol.GRPC, Protocol.HTTP)
    assert response.denied_response.status.code == (200 if is_in_band else dict(STATUSES)[response.status.code])
    assert response.status.code == error.code.value
    assert is_sound(response)


@each_error
def test_grpc_clients_get_a_sentence_and_the_details(error: AuthzError) -> None:
    refusal = refusal_of(error, CHALLENGE)
    denial = Denial(deny(refusal, Protocol.GRPC))

    assert denial.body == refusal.message
    assert denial.details == denial.raw["grpc-status-details-bin"] == refusal.details
    assert denial.reason == error.reason.upper()
    assert not denial.headers["grpc-status-details-bin"].endswith("=")


@each_error
def test_what_envoy_would_make_something_else_of_has_a_grpc_status(error: AuthzError) -> None:
    """Envoy makes the right gRPC status from every other HTTP status that a refusal may have."""
    headers = Denial(deny(refusal_of(error, CHALLENGE), Protocol.GRPC)).headers

    assert headers.get("grpc-status") == {429: "8", 500: "13"}.get(refusal_of(error, CHALLENGE).http_status)


@each_error
def test_http_clients_get_json_and_no_trailers(error: AuthzError) -> None:
    refusal = refusal_of(error, CHALLENGE)
    denial = Denial(deny(refusal, Protocol.HTTP))

    assert denial.json["error"] == refusal.message
    assert sentence(denial.json) == (error.code.name.lower(), refusal.message)
    assert denial.headers["content-type"] == "application/json"
    assert not [name for name in denial.headers if name.startswith("grpc-")]


@each_error
@each_client
def test_envoy_is_told_why_a_request_is_denied_and_nothing_else(error: AuthzError, protocol: Protocol) -> None:
    assert dict(deny(refusal_of(error, CHALLENGE), protocol).dynamic_metadata) == {"reason": error.reason}


@each_error
@each_client
def test_denial_that_is_remembered_is_the_same(error: AuthzError, protocol: Protocol) -> None:
    refusal = refusal_of(error, CHALLENGE)

    assert denied(refusal, protocol) is denied(refusal, protocol)
    assert CheckResponse.FromString(denied(refusal, protocol)) == deny(refusal, protocol)


@each_error
@each_client
def test_headers_of_denials_are_clean(error: AuthzError, protocol: Protocol) -> None:
    for option in deny(refusal_of(error, CHALLENGE), protocol).denied_response.headers:
        assert re.fullmatch(r"[a-z][a-z-]*", option.header.key)
        assert re.fullmatch(r"[ -~]{1,16384}", option.header.value)
        assert option.append_action == 2


@each_error
@each_client
def test_messages_of_errors_stay_inside(error: AuthzError, protocol: Protocol) -> None:
    assert b"a secret detail" not in deny(refusal_of(error, CHALLENGE), protocol).SerializeToString()


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (TokenMissingError(), '{"error": "No token provided", '),
        (TokenExpiredError(), '{"error": "Invalid token", '),
        (PermissionDeniedError(), '{"error": "Permission denied", '),
        (ResourceExhaustedError(), '{"error": "Quota exceeded", '),
        (KeySetUnavailableError(), '{"error": "Authorization is unavailable", '),
        (InternalError(), '{"error": "Internal error", '),
    ],
    ids=["missing", "expired", "forbidden", "quota", "unavailable", "internal"],
)
def test_bodies_are_worded_as_workos_does(error: AuthzError, body: bytes) -> None:
    assert Denial(deny(refusal_of(error, CHALLENGE), Protocol.HTTP)).body.startswith(body)


# ---- Whatever may come ----

identifiers = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
principals = st.builds(
    Principal,
    org_id=identifiers,
    client_id=identifiers,
    subject=identifiers,
    scopes=st.frozensets(identifiers, max_size=4),
    expires_at=st.floats(0, 1e10),
)
refusals = st.builds(
    refusal_of,
    st.one_of(
        st.sampled_from(ERRORS),
        st.builds(PermissionDeniedError, st.text(), reason=st.text(min_size=1)),
        st.builds(UnavailableError, st.text(), retry_after=st.floats(-1e9, 1e9)),
        st.builds(ClaimError, st.text(), st.text()),
    ),
    st.builds(Challenge, realm=st.text(st.sampled_from(" !#-[]~aZ"), min_size=1)),
)


@given(principals)
def test_nothing_we_allow_can_be_read_as_a_denial(principal: Principal) -> None:
    response = allow(principal, TRUSTED)

    assert is_sound(response)
    assert response.status.code == 0
    given = {option.header.key for option in response.ok_response.headers}
    assert given.isdisjoint(response.ok_response.headers_to_remove)


@given(refusal=refusals, protocol=st.sampled_from(Protocol))
def test_nothing_we_deny_can_be_read_as_allowed(refusal: Refusal, protocol: Protocol) -> None:
    response = CheckResponse.FromString(deny(refusal, protocol).SerializeToString())

    assert is_sound(response)
    assert response.status.code != 0
    if protocol is Protocol.HTTP:
        assert json.loads(response.denied_response.body)["error"] == refusal.message


# ---- What clients of ext_authz take (gRFC A92) ----

wild = st.one_of(
    st.text(max_size=30),
    identifiers,
    st.sampled_from(["", "a\r\nx-org-id: b", "\u00e9", "x" * 16384, "x" * 16385, "\x00", "a b"]),
)
wild_principals = st.builds(
    Principal,
    org_id=wild,
    client_id=wild,
    subject=wild,
    scopes=st.frozensets(wild, max_size=3),
    issuer=wild,
    audience=st.lists(wild, max_size=2).map(tuple),
    token_id=wild,
    expires_at=st.floats(0, 1e10),
)
wild_refusals = st.builds(
    refusal_of,
    st.sampled_from(ERRORS),
    st.builds(
        Challenge,
        realm=st.sampled_from(["api", "a" * 16384, "a" * 20_000]),
        resource_metadata=st.sampled_from(["", "https://api.example/m", f"https://api.example/{'m' * 16384}"]),
    ),
)


def complaints(response: CheckResponse) -> list[str]:
    """Return what a strict client finds wrong with the headers of ``response``, independently of our code."""
    found = []
    for option in (*response.ok_response.headers, *response.denied_response.headers):
        header = option.header
        name = header.key.encode()
        is_binary = name.endswith(b"-bin")
        rules = {
            "key is empty, too long, has capitals or is no name": name
            and len(name) <= 16384
            and not name.translate(None, string.ascii_lowercase.encode() + string.digits.encode() + b"_.-"),
            "key is not ours to set": name != b"host" and name[:1] != b":",
            "value is empty": header.value,
            "value is too long": len(header.value.encode()) <= 16384 and len(header.raw_value) <= 16384,
            "value is not printable": header.value.isascii() and header.value.isprintable(),
            "binary in one form only": bool(header.raw_value) is is_binary,
            "two forms that differ": not is_binary
            or base64.b64decode(header.value + "=" * (-len(header.value) % 4), validate=True) == header.raw_value,
            "append, or none of the two": option.append_action == 2 and not option.HasField("append"),
        }
        found += [f"{rule}: {header.key!a}" for rule, holds in rules.items() if not holds]
    found += [name for name in response.ok_response.headers_to_remove if not re.fullmatch(r"(?!host$)[a-z-]+", name)]
    return found


@given(principal=wild_principals, remove=st.booleans())
def test_headers_of_every_allow_are_taken_by_every_client(principal: Principal, *, remove: bool) -> None:
    try:
        response = allow(principal, TRUSTED, remove_authorization=remove)
    except InternalError:
        # The caller gets a denial: the upstream must learn all of it, or nothing happens.
        return
    assert complaints(response) == []
    assert len(response.ok_response.headers) == len(TRUSTED.entries(principal))


@given(principal=principals, remove=st.booleans())
def test_no_principal_that_a_token_gives_is_too_much_for_headers(principal: Principal, *, remove: bool) -> None:
    assert complaints(allow(principal, TRUSTED, remove_authorization=remove)) == []


plans = st.none() | st.builds(Quota, st.text(), st.none() | st.floats(0.001, 1e4), st.integers(1, 99))


@given(principal=wild_principals | principals, remove=st.booleans(), quota=plans)
def test_bytes_of_every_allow_are_those_of_its_message(
    principal: Principal, *, remove: bool, quota: Quota | None
) -> None:
    try:
        expected = allow(principal, TRUSTED, remove_authorization=remove, quota=quota)
    except InternalError:
        with pytest.raises(InternalError):
            allowed(principal, TRUSTED, remove_authorization=remove, quota=quota)
        return
    written = allowed(principal, TRUSTED, remove_authorization=remove, quota=quota)

    assert CheckResponse.FromString(written) == expected
    # Fields of a map stand in any order.
    assert len(written) == expected.ByteSize()


def test_applications_that_differ_in_one_thing_get_answers_of_their_own() -> None:
    others = [
        replace(PRINCIPAL, **{name: value})
        for name, value in (
            ("org_id", "org_other"),
            ("client_id", "client_other"),
            ("subject", "other"),
            ("scopes", frozenset({"other"})),
            ("issuer", "https://other.example"),
            ("audience", ("other",)),
            ("token_id", "other"),
            ("issued_at", 1.0),
            ("expires_at", 2.0),
            ("key_id", "other"),
            ("tenant", "other"),
        )
    ]
    answers = {allowed(each, TRUSTED) for each in (PRINCIPAL, *others)}

    assert len(answers) == 1 + len(others)


@given(refusal=wild_refusals, protocol=st.sampled_from(Protocol))
def test_headers_of_every_denial_are_taken_by_every_client(refusal: Refusal, protocol: Protocol) -> None:
    response = deny(refusal, protocol)

    assert is_sound(response)
    assert complaints(response) == []


@each_client
def test_challenge_that_is_too_long_is_left_out_and_the_denial_stands(protocol: Protocol) -> None:
    challenge = Challenge(realm="a" * 16384)
    denial = Denial(deny(refusal_of(TokenExpiredError(), challenge), protocol))

    assert denial.code == 16
    assert denial.http_status == (401 if protocol in (Protocol.GRPC, Protocol.HTTP) else 200)
    assert "www-authenticate" not in denial.headers


@pytest.mark.parametrize(
    ("key", "value", "raw"),
    [
        ("", "a", b""),
        ("X-Org-Id", "a", b""),
        (":path", "/", b""),
        ("host", "a", b""),
        ("x-org id", "a", b""),
        ("x-\u00e9", "a", b""),
        ("x-org-id", "", b""),
        ("x-org-id", "a\r\nb: c", b""),
        ("x-org-id", "a\n", b""),
        ("x-org-id", "\u00e9", b""),
        ("x-org-id", "a" * 16385, b""),
        ("x-org-id", "", b"a"),
        ("x-org-id", "YQ", b"a"),
        ("x-org-bin", "YQ", b""),
        ("x-org-bin", "", b"a"),
        ("x-org-bin", "YQ", b"a" * 16385),
        ("a" * 16385, "a", b""),
    ],
)
def test_header_that_some_client_would_not_take_is_unfit(key: str, value: str, raw: bytes) -> None:
    assert not is_fit(HeaderValue(key=key, value=value, raw_value=raw))


@pytest.mark.parametrize(
    ("key", "value", "raw"),
    [("x-org-id", "a" * 16384, b""), ("a" * 16384, "a", b""), ("x-org-bin", "YQ", b"a"), ("hostess", "a b", b"")],
)
def test_header_that_every_client_takes_is_fit(key: str, value: str, raw: bytes) -> None:
    assert is_fit(HeaderValue(key=key, value=value, raw_value=raw))
