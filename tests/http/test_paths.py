"""The one spelling of a path that rules compare."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import PermissionDeniedError
from authz.http.paths import path_of


@pytest.mark.parametrize(
    ("decoded", "spelled"),
    [
        ("/", "/"),
        ("/orders", "/orders"),
        ("/orders/", "/orders/"),
        ("/a.b/..c/.d/e..", "/a.b/..c/.d/e.."),
        ("/pkg.v1.Service/Method", "/pkg.v1.Service/Method"),
        ("/orders;v=1,2/@me:search", "/orders;v=1,2/@me:search"),
        ("/my file", "/my%20file"),
        ("/café", "/caf%C3%A9"),
        ("/100%", "/100%25"),
        ("/a?b#c", "/a%3Fb%23c"),
        ("/[x]|{y}", "/%5Bx%5D%7C%7By%7D"),
        ("/\ufffd", "/%EF%BF%BD"),
    ],
)
def test_path_is_spelled_in_one_way(decoded: str, spelled: str) -> None:
    assert path_of(decoded) == spelled


@pytest.mark.parametrize(
    "decoded",
    [
        *("", "*", "orders", "http://localhost/orders", "//", "//orders", "/orders//", "/a//b", "/.", "/..", "/./a"),
        *("/a/.", "/a/..", "/a/../b", "/../a", "\\orders", "/a\\b", "/a\0", "/a\nb", "/a\x7f", "/a\udc80", "/a/\t"),
        "/" + "a" * 8192,
        "/é" + "a" * 8192,
    ],
)
def test_path_that_may_be_read_in_several_ways_is_refused(decoded: str) -> None:
    with pytest.raises(PermissionDeniedError) as refused:
        path_of(decoded)

    assert refused.value.reason == "request_malformed"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_spelling_is_that_of_the_same_path_and_stays_so(text: str) -> None:
    try:
        spelled = path_of(f"/{text}")
    except PermissionDeniedError:
        return

    assert unquote(spelled) == f"/{text}"
    assert path_of(unquote(spelled)) == spelled
    assert spelled == quote(f"/{text}", safe="/!$&'()*+,;=:@-._~")
