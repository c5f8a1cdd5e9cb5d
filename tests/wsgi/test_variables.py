"""What the variables of a request say of its headers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.metadata import TrustedMetadata
from authz.wsgi.variables import Sorting, as_variable

SERVER = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "X_ORG_ID": "of the server", "wsgi.version": (1, 0)}


def test_headers_have_the_names_that_rules_know() -> None:
    environ = {
        **SERVER,
        "HTTP_X_TRACE_ID": "1",
        "HTTP_AUTHORIZATION": "Bearer a",
        "CONTENT_TYPE": "application/grpc",
        "CONTENT_LENGTH": "5",
    }

    headers = Sorting(TrustedMetadata()).sort(environ)

    assert dict(headers.headers) == {
        "x-trace-id": "1",
        "authorization": "Bearer a",
        "content-type": "application/grpc",
        "content-length": "5",
    }
    assert (len(headers.headers), headers.forged) == (4, [])
    assert set(headers.headers.names()) == dict(headers.headers).keys()
    assert (headers.credentials, headers.kinds) == (["Bearer a"], ["application/grpc"])


def test_variable_that_servers_have_in_any_case_is_no_header_without_a_value() -> None:
    headers = Sorting(TrustedMetadata()).sort(
        {**SERVER, "CONTENT_TYPE": "", "CONTENT_LENGTH": "", "HTTP_ACCEPT": "", "HTTP_AUTHORIZATION": ""}
    )

    assert dict(headers.headers) == {"accept": "", "authorization": ""}
    assert (headers.credentials, headers.kinds) == ([""], [])


def test_two_types_of_content_are_two() -> None:
    """Where a server lets underscores pass in names of headers."""
    headers = Sorting(TrustedMetadata()).sort({"CONTENT_TYPE": "application/grpc", "HTTP_CONTENT_TYPE": "text/plain"})

    assert headers.kinds == ["application/grpc", "text/plain"]


def test_names_that_callers_make_up_take_bounded_memory() -> None:
    sorting = Sorting(TrustedMetadata())
    for number in range(3000):
        sorting.sort({f"HTTP_X_{number}": "", f"HTTP_X_{number * 100}": ""} | {f"HTTP_{number}_" + "X" * 100: ""})

    known = sorting._known  # noqa: SLF001 - the memory itself
    assert (len(known), max(map(len, known)) <= 64, known == sorting._headers) == (1024, True, True)  # noqa: SLF001
    headers = sorting.sort({"HTTP_X_ORG_ID": "a", "HTTP_X_2999": "b", "HTTP_X_1": "c", "HTTP_X_NEW": "d"})
    assert headers.forged == ["HTTP_X_ORG_ID"]
    assert dict(headers.headers) == {"x-org-id": "a", "x-2999": "b", "x-1": "c", "x-new": "d"}


@pytest.mark.parametrize(
    "name", ["HTTP_X_ORG_ID", "HTTP_X_ORG_ID_BIN", "HTTP_GRPC_METADATA_X_ORG_ID", "HTTP_GRPCGATEWAY_X_ORG_ID"]
)
def test_forged_name_is_found_every_time(name: str) -> None:
    sorting = Sorting(TrustedMetadata())

    assert [sorting.sort({name: "a"}).forged for _ in range(3)] == [[name]] * 3


@given(st.dictionaries(st.sampled_from(["HTTP_A", "HTTP_B_C", "HTTP_X_ORG_ID", "CONTENT_TYPE", "A"]), st.text()))
def test_size_is_not_understated(environ: dict[str, Any]) -> None:
    headers = Sorting(TrustedMetadata()).sort(environ)

    assert headers.size >= sum(len(name) + len(value) for name, value in headers.headers)
    assert len(headers.headers) == len(list(headers.headers))


def test_trusted_name_is_written_as_servers_write_it() -> None:
    assert as_variable("x-org-id", "org_1") == ("HTTP_X_ORG_ID", "org_1")
