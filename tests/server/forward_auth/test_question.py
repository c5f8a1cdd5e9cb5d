"""How a question of a proxy is read: what it is about, and what makes it none."""

from typing import get_args

import pytest

from authz.call.metadata import TrustedMetadata
from authz.errors import PermissionDeniedError
from authz.server.forward_auth.question import NAMES, Headers, Question, Reader
from tests.events import told

TRUSTED = TrustedMetadata()
SAID = {
    "original": [(b"x-original-method", b"PUT"), (b"x-original-uri", b"/v1/x?y=1")],
    "forwarded": [(b"x-forwarded-method", b"PUT"), (b"x-forwarded-uri", b"/v1/x?y=1")],
    "none": [],
}


def read(headers: Headers, *more: tuple[bytes, bytes], verb: str = "GET", target: str = "/authz") -> Question:
    return Reader(headers, TRUSTED).read(verb, target, [(b"host", b"authz"), *more])


def refused(headers: Headers, *more: tuple[bytes, bytes], target: str = "/authz") -> str:
    with pytest.raises(PermissionDeniedError) as caught:
        read(headers, *more, target=target)
    return caught.value.reason


@pytest.mark.parametrize("headers", get_args(Headers))
def test_a_question_is_about_what_the_proxy_says(headers: Headers) -> None:
    target = "/v1/x?y=1" if headers == "none" else "/authz"
    token = (b"authorization", b"Bearer a.b.c")

    call, about, fault = read(headers, *SAID[headers], token, verb="PUT" if headers == "none" else "GET", target=target)

    assert (call.verb, call.method, about, fault) == ("PUT", "/v1/x", "/v1/x?y=1", None)
    assert (call.credentials, call.peer) == (["Bearer a.b.c"], None)
    assert ("authorization", "Bearer a.b.c") in list(call.metadata)


@pytest.mark.parametrize("headers", ["original", "forwarded"])
@pytest.mark.parametrize("target", ["/", "/v1", "/authz/", "//authz", "/authz/x", "http://a/authz"])
def test_a_question_with_headers_is_asked_at_one_path(headers: Headers, target: str) -> None:
    assert refused(headers, *SAID[headers], target=target) == "request_malformed"


@pytest.mark.parametrize("headers", ["original", "forwarded"])
def test_a_query_at_that_path_means_nothing(headers: Headers) -> None:
    assert read(headers, *SAID[headers], target="/authz?y=1").call.method == "/v1/x"


@pytest.mark.parametrize("headers", ["original", "forwarded"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_question_says_all_of_it_once(headers: Headers, number: int) -> None:
    said = SAID[headers]

    assert refused(headers, said[number]) == "request_malformed"
    assert refused(headers, *said, said[number]) == "request_malformed"
    assert refused(headers, said[number], said[number]) == "request_malformed"
    assert refused(headers) == "request_malformed"


FOREIGN = {name for names in NAMES.values() for name in names} | {b"x-original-url", b"x-rewrite-url"}


@pytest.mark.parametrize("headers", get_args(Headers))
@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_a_question_says_nothing_in_the_words_of_another_proxy(headers: Headers, name: bytes) -> None:
    said = [*SAID[headers], (name, b"GET")]

    assert refused(headers, *said, target="/v1" if headers == "none" else "/authz") == "request_malformed"


@pytest.mark.parametrize(
    "name", sorted({*TRUSTED.forgeable, "x.org.id", "x-org.id", "x_org-id", "x~org~id", "x+org_id"})
)
def test_a_question_has_no_trusted_header(name: str) -> None:
    assert refused("original", *SAID["original"], (name.encode(), b"")) == "request_malformed"


@pytest.mark.parametrize("name", ["x-org-ids", "x.org.ids", "org-id", "x-org-id-x", "xorgid", "x--org-id"])
def test_other_names_may_be_like_a_trusted_one(name: str) -> None:
    assert read("original", *SAID["original"], (name.encode(), b"")).fault is None


@pytest.mark.parametrize("verb", ["get", "Get", "", "GET,POST", "GET POST", "CONNECT", "X" * 33, "G\xc9T"])
def test_a_method_that_servers_may_read_in_several_ways_is_a_fault(verb: str) -> None:
    said = [(b"x-original-method", verb.encode("latin-1")), SAID["original"][1]]

    question = read("original", *said)

    assert question.fault is not None
    assert question.fault.reason == "request_malformed"


@pytest.mark.parametrize("verb", ["GET", "PROPFIND", "M-SEARCH", "VERSION-CONTROL"])
def test_methods_may_be_unusual(verb: str) -> None:
    assert read("none", verb=verb, target="/v1").fault is None


def test_a_path_of_many_readings_is_a_fault_and_told_as_it_was_sent() -> None:
    call, _, fault = read("none", target="/public/../v1?x")

    assert (call.method, fault is None) == ("/public/../v1", False)


def test_too_many_headers_are_refused_before_they_are_looked_at() -> None:
    assert refused("original", *SAID["original"], *[(b"a", b"")] * 512) == "request_malformed"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "x-original-method and x-original-uri"),
        ([(b"x-forwarded-uri", b"/"), (b"x-forwarded-method", b"GET")], "x-forwarded-method, x-forwarded-uri"),
        ([*SAID["original"], (b"x-org-id", b"a")], "trusted headers"),
    ],
)
def test_the_log_names_the_remedy(
    caplog: pytest.LogCaptureFixture, more: list[tuple[bytes, bytes]], words: str
) -> None:
    caplog.set_level("INFO", "authz")
    with told("forward_auth_mistaken") as events:
        refused("original", *more)

    assert [words in event["why"] for event in events] == [True]
