"""What a real Envoy's access log tells of a verdict."""

import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from authz.demo.issuer.signing import SigningKey
from tests.doubles import ABSENT, CLIENT, ORG, m2m_claims
from tests.e2e import http1
from tests.e2e.mesh import METERED, PUBLIC, Mesh
from tests.interceptors.client import bearer, call

OTHER_ORG = "org_01JYGLOBEX0000000000000000"
JTI = "01JYNOTFORTHELOG"

Sign = Callable[..., str]


@pytest.fixture(scope="module")
def sign(ec_key: SigningKey) -> Sign:
    return lambda **changes: ec_key.sign(m2m_claims(time.time(), jti=JTI, **changes))


def told(line: dict[str, Any]) -> dict[str, Any]:
    """Return everything that the line has from us; Envoy adds how long the answer took."""
    return {name: value for name, value in (line["all"] or {}).items() if name != "ext_authz_duration"}


def test_access_log_names_the_organization_and_the_client(mesh: Mesh, mesh_channel: grpc.Channel, sign: Sign) -> None:
    for org_id in (ORG, OTHER_ORG):
        token = bearer(sign(org_id=org_id))
        # The second time it is remembered.
        for turn in ("first", "second"):
            path = f"/tests.Logged/{org_id}-{turn}"
            call(mesh_channel, "unary_unary", path, metadata=token)
            line = mesh.logged(path)

            assert (line["organization"], line["client"], line["reason"]) == (org_id, CLIENT, None)
            assert told(line) == {"organization": org_id, "client": CLIENT}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"exp": 1, "iat": 0}, "token_expired"), ({"org_id": ABSENT}, "claim_missing"), ({"aud": "x"}, "claim_invalid")],
    ids=["expired", "no-organization", "other-audience"],
)
def test_access_log_says_why_and_nothing_of_the_token(
    mesh: Mesh, mesh_channel: grpc.Channel, sign: Sign, changes: dict[str, object], reason: str
) -> None:
    token = bearer(sign(**changes))
    over_grpc, over_http = f"/tests.Refused/{reason}", f"/refused/{reason}"
    call(mesh_channel, "unary_unary", over_grpc, metadata=token)
    http1.get(mesh.target, over_http, headers=token)

    for line in (mesh.logged(over_grpc), mesh.logged(over_http)):
        assert (line["organization"], line["client"], line["reason"]) == (None, None, reason)
        assert told(line) == {"reason": reason}
        assert not any(secret in json.dumps(line) for secret in (JTI, ORG, CLIENT, token[0][1]))


def test_access_log_tells_the_quota(mesh: Mesh, mesh_channel: grpc.Channel, sign: Sign) -> None:
    path, org_id = "/tests.Logged/quota", METERED[0]
    call(mesh_channel, "unary_unary", path, metadata=bearer(sign(org_id=org_id)))

    assert told(mesh.logged(path)) == {
        "organization": org_id,
        "client": CLIENT,
        "quota": "metered",
        "requests_per_second": 0.001,
        "burst": 3,
        "concurrent_streams": 5,
        "limit": {"requests_per_unit": 86, "unit": "DAY"},
    }


def test_access_log_names_nobody_for_a_public_request(mesh: Mesh, sign: Sign) -> None:
    path = f"{PUBLIC}?logged"
    http1.get(mesh.target, path, headers=bearer(sign()))

    line = mesh.logged(path)

    assert (line["organization"], line["client"], line["reason"]) == (None, None, None)
    assert told(line) == {}
