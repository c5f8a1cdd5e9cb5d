"""How large a question may be, and how much of it is read to find that out."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import MAX_ENTRIES, MAX_METADATA_BYTES, check_size
from authz.envoy.check.outline import MAX_FIELDS, MAX_QUESTION_BYTES, size_without_body
from authz.envoy.check.question import MAX_CERTIFICATE, MAX_CLAIMS_BYTES, read
from authz.envoy.v3.external_auth_pb2 import AttributeContext, CheckRequest, HeaderMap, HeaderValue
from authz.errors import PermissionDeniedError
from authz.http.forms import Form as Protocol
from tests.envoy.check.messages import FORMS, GRPC, GRPC_PATH, Form, bearer, in_header_map, in_headers

each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)

MEGABYTE = 1_000_000


def with_body(question: CheckRequest, body: bytes) -> bytes:
    question.attributes.request.http.raw_body = body
    return question.SerializeToString()


def refusal_of(question: bytes) -> str:
    """Return why a question is refused before it is parsed, or before anything else of it is read."""
    with pytest.raises(PermissionDeniedError) as caught:
        check_size(read(question)[0])
    return caught.value.reason


class Counted(bytes):
    """Bytes that count the slices taken of them; Protobuf does not see this class."""

    taken = 0

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]
        self.taken += 1
        return super().__getitem__(key)  # type: ignore[index, return-value]


# ---- What is taken ----


@each_form
def test_as_many_headers_as_may_be_are_read(form: Form) -> None:
    headers = [(f"x-{number}", "v" * 490) for number in range(MAX_ENTRIES - 1)]

    call, protocol, _ = read(form(GRPC, *headers).SerializeToString())

    assert (len(call.metadata), len(list(call.metadata)), protocol) == (MAX_ENTRIES, MAX_ENTRIES, Protocol.GRPC)


@each_form
@pytest.mark.parametrize("size", [0, 60_000, 4_000_000])
def test_body_does_not_count(form: Form, size: int) -> None:
    call, *_ = read(with_body(form(GRPC, bearer("a.b.c"), ("x", "v" * 60_000)), b"b" * size))

    assert call.credentials == ["Bearer a.b.c"]
    assert call.size is not None
    assert 60_000 < call.size < 130_000


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=20), st.integers(65_536, 200_000))
def test_size_without_the_body_is_that_of_the_rest(headers: list[tuple[str, str]], size: int) -> None:
    question = in_headers(*headers)
    rest = question.ByteSize()

    found = size_without_body(with_body(question, b"b" * size))

    # And the lengths in front of the body and of what it is in.
    assert rest <= found <= rest + 16


def test_text_of_a_body_does_not_count_either() -> None:
    question = in_headers(GRPC)
    question.attributes.request.http.body = "é" * MEGABYTE

    assert size_without_body(question.SerializeToString()) < 200


def test_fields_of_every_kind_are_passed_over() -> None:
    # Fields 1000 to 1003: a number, eight bytes, four bytes, and a text.
    unknown = b"\xc0\x3e\x96\x01" + b"\xc9\x3e" + b"f" * 8 + b"\xd5\x3e" + b"f" * 4 + b"\xda\x3e\x03new"

    question = unknown + with_body(in_headers(GRPC), b"b" * MEGABYTE)

    assert len(unknown) < size_without_body(question) < len(unknown) + 200


# ---- What is not ----


@each_form
def test_too_many_headers_are_refused(form: Form) -> None:
    headers = [(f"x-{number}", "") for number in range(MAX_ENTRIES)]

    with pytest.raises(PermissionDeniedError) as caught:
        read(form(GRPC, *headers).SerializeToString())

    assert caught.value.reason == "request_malformed"


@each_form
def test_too_many_bytes_of_headers_are_refused(form: Form) -> None:
    headers = [("x", "v" * MAX_METADATA_BYTES)]

    assert refusal_of(form(GRPC, *headers).SerializeToString()) == "request_malformed"


@each_form
def test_long_path_is_refused_and_a_long_query_is_not_looked_at(form: Form) -> None:
    assert refusal_of(form(GRPC, path=GRPC_PATH + "e" * 8192).SerializeToString()) == "request_malformed"
    assert read(form(GRPC, path=f"{GRPC_PATH}?{'q' * 100_000}").SerializeToString())[0].method == GRPC_PATH


@each_form
def test_question_of_more_than_4_mib_is_refused(form: Form) -> None:
    assert refusal_of(with_body(form(GRPC), b"b" * MAX_QUESTION_BYTES)) == "request_malformed"


def test_long_certificate_is_neither_read_nor_remembered() -> None:
    peer = AttributeContext.Peer(certificate="c" * MAX_CERTIFICATE, principal="p")
    question = CheckRequest(attributes=AttributeContext(source=peer))

    assert refusal_of(question.SerializeToString()) == "request_malformed"


def test_long_claims_are_none_that_can_be_read() -> None:
    question = in_headers(GRPC)
    claims = question.attributes.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
    claims.update({"few": {"iss": "i"}, "many": {"x": [None] * (MAX_CLAIMS_BYTES // 4)}})
    body = question.SerializeToString()

    assert read(body, jwt_authn_payload="few")[0].verified_claims == {"iss": "i"}
    assert read(body, jwt_authn_payload="many")[0].verified_claims == {}


# ---- How much is looked at ----

MANY = 80_000


def of_many_parts() -> dict[str, CheckRequest]:
    header_map = HeaderMap(headers=[HeaderValue(key="x", value="v")] * MANY)
    many = [(f"x-{number}", "") for number in range(MANY)]
    extensions = CheckRequest()
    extensions.attributes.context_extensions.update(many)
    return {
        "headers": in_headers(*many),
        "header_map": CheckRequest(
            attributes=AttributeContext(
                request=AttributeContext.Request(http=AttributeContext.HttpRequest(header_map=header_map))
            )
        ),
        "extensions": extensions,
    }


@pytest.mark.parametrize("name", ["headers", "header_map", "extensions"])
def test_question_of_many_parts_is_refused_before_they_are_parsed(name: str) -> None:
    question = Counted(of_many_parts()[name].SerializeToString())

    with pytest.raises(PermissionDeniedError) as caught:
        size_without_body(question)

    assert caught.value.reason == "request_malformed"
    # A tag and a length of each.
    assert question.taken <= 2 * (MAX_FIELDS + 1)


def test_small_question_is_not_looked_at() -> None:
    question = Counted(in_header_map(GRPC, bearer("a.b.c"), ("x", "v" * 60_000)).SerializeToString())

    assert size_without_body(question) == len(question)
    assert question.taken == 0


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"\xff" * 11, id="endless-tag"),
        pytest.param(b"\x0a" + b"\xff" * 11, id="endless-length"),
        pytest.param(b"\x0a\xff\xff\xff\x7f", id="length-beyond-the-end"),
        pytest.param(b"\x0b", id="group"),
        pytest.param(b"\x0f", id="no-kind"),
    ],
)
def test_large_bytes_that_are_no_question_are_refused(beginning: bytes) -> None:
    assert refusal_of(beginning + b"\xff" * 100_000) == "request_malformed"


@given(st.binary(max_size=40))
def test_whatever_bytes_come_are_measured_or_refused(beginning: bytes) -> None:
    for rest in (b"\x00", b"\x0a", b"\xff"):
        question = beginning + rest * 66_000
        with contextlib.suppress(PermissionDeniedError):
            assert size_without_body(question) <= len(question)
