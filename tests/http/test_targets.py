"""Targets as clients send them: each has one path that rules compare, or is refused."""

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.errors import PermissionDeniedError
from authz.http.paths import path_of
from authz.http.targets import path_in


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/v1/entries", "/v1/entries"),
        ("/v1/entries/", "/v1/entries/"),
        ("/v1/entries?limit=5&u=http://a//b/../c%2f", "/v1/entries"),
        ("/v1?", "/v1"),
        ("/%76%31", "/v1"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a;v=1/b", "/a;v=1/b"),
        ('/a"b|c', "/a%22b%7Cc"),
        ("/100%25", "/100%25"),
        ("/...", "/..."),
        ("/a%3Fb%23c", "/a%3Fb%23c"),
        ("/authz.demo.v1.LedgerService/PostEntry", "/authz.demo.v1.LedgerService/PostEntry"),
    ],
)
def test_a_target_has_one_path(target: str, path: str) -> None:
    assert path_in(target) == path


@pytest.mark.parametrize(
    "target",
    [
        *("", "*", "v1", "?x", "http://api.test/v1", "//api.test/v1", "api.test:80", " /v1"),
        *("/v1//x", "/./v1", "/../v1", "/v1/..", "/v1/.", "/v1/../x", "/v1/%2e%2E/x", "/v1/%2e/x", "/v1/.%2e"),
        *("/v1/..;/x", "/v1/.;x/y", "/v1/..%3b/x", "/v1/%2e%2e;/x", "/v1/%2e%2e%3Ba"),
        *("/v1%2fx", "/v1%2Fx", "/v1%5cx", "/v1\\x", "/v1%00", "/v1%0a", "/v1%7f", "/v1\n", "/v1\x7f", "/v 1"),
        *(
            "/%252e%252e/x",
            "/%2576",
            "/v1%",
            "/v1%2",
            "/v1%zz",
            "/caf\xe9",
            "/%ff",
            "/%c3",
            "/v1#x",
            "/v1?x#y",
            "/v1?\t",
        ),
        "/" + "x" * 8192,
    ],
)
def test_a_target_that_servers_may_read_in_several_ways_is_refused(target: str) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        path_in(target)

    assert caught.value.reason == "request_malformed"


@example("/%2e%2e")
@example("/a/%2E.%2f")
@given(
    st.lists(st.sampled_from(["/", ".", "%2e", "%2F", "%25", "%", "a", ";", "%3b", "\\", "%5c", "2e", "?", "#", "é"]))
)
def test_a_path_is_read_alike_however_often_it_is_decoded(parts: list[str]) -> None:
    try:
        path = path_in("".join(parts))
    except PermissionDeniedError:
        return

    raw = "".join(parts).partition("?")[0]
    once = unquote(raw)
    assert path == path_of(once)
    assert unquote(once).split("/") == once.split("/") == [unquote(segment) for segment in raw.split("/")]
    assert not {"", ".", ".."} & {segment.partition(";")[0] for segment in once.split("/")[1:-1]}
