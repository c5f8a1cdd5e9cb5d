"""A directory at the doors of gRPC: whoever cannot be known reaches no handler."""

from collections.abc import Callable

import grpc
import pytest

from authz import Authorizer, Directory, Verifier
from authz.organizations.directory import LookUpError
from authz.policy import Organization
from tests.interceptors.client import bearer
from tests.interceptors.conftest import ServeAll


async def look_up(_org_id: str) -> Organization:
    return Organization(tenant="tenant-7")


@pytest.mark.parametrize(
    "directory",
    [
        pytest.param(lambda: Directory(lambda _org_id: Organization(tenant="tenant-7")), id="function"),
        pytest.param(lambda: Directory(look_up), id="async-function"),
    ],
)
def test_the_handler_finds_the_tenant_that_the_directory_names(
    serve_all: ServeAll, verifier: Verifier, token: str, directory: Callable[[], Directory]
) -> None:
    asked = directory()
    served = serve_all(judge=Authorizer(verifier, directory=asked))

    served.call("unary_unary", metadata=[*bearer(token), ("x-org-tenant", "forged")])

    sight = served.witness.sight
    assert (sight.principal.tenant, sight.values("x-org-tenant")) == ("tenant-7", ["tenant-7"])
    asked.close()


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (None, grpc.StatusCode.PERMISSION_DENIED, "ORGANIZATION_UNKNOWN"),
        (LookUpError("timeout"), grpc.StatusCode.UNAVAILABLE, "DIRECTORY_UNAVAILABLE"),
    ],
    ids=["unknown", "outage"],
)
def test_who_cannot_be_known_reaches_nothing(
    serve_all: ServeAll,
    verifier: Verifier,
    token: str,
    *,
    error: Exception | None,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    def fail(_org_id: str) -> None:
        if error is not None:
            raise error

    directory = Directory(fail)
    served = serve_all(judge=Authorizer(verifier, directory=directory, unknown_organizations="deny"))

    outcome = served.call("unary_stream", metadata=bearer(token))

    assert (outcome.code, outcome.reason, served.witness.sights) == (code, reason, [])
    directory.close()
