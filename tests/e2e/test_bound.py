"""Tokens that are bound to a certificate, through a real Envoy that has seen it in its handshake."""

import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import grpc
import pytest

from authz.demo.issuer.signing import SigningKey
from tests.certificates import Certificate
from tests.doubles import ORG, m2m_claims
from tests.e2e.mesh import Mesh, Seen, tls_channel
from tests.interceptors.client import Outcome, bearer, call
from tests.interceptors.servers import channel_to

CALL = "/tests.Guarded/Call"

Channels = dict[str, grpc.Channel]


@pytest.fixture(scope="module")
def certificates(mesh: Mesh) -> dict[str, Certificate]:
    """Return two that differ in nothing but their keys."""
    return {name: mesh.authority.issue(common_name="owner") for name in ("owner", "other")}


@pytest.fixture(scope="module")
def channels(mesh: Mesh, certificates: dict[str, Certificate]) -> Iterator[Channels]:
    with (
        tls_channel(mesh, certificates["owner"]) as owner,
        tls_channel(mesh, certificates["other"]) as other,
        tls_channel(mesh, None) as tls,
        channel_to(mesh.target) as plain,
    ):
        yield {"owner": owner, "other": other, "tls": tls, "plain": plain}


@pytest.fixture(scope="module")
def token(ec_key: SigningKey, certificates: dict[str, Certificate]) -> Callable[[str], str]:
    """Return a function that makes a token that is bound to a certificate."""
    return lambda owner: ec_key.sign(m2m_claims(time.time(), cnf={"x5t#S256": certificates[owner].thumbprint}))


def outcome(channel: grpc.Channel, *metadata: tuple[str, str | bytes]) -> Outcome:
    return call(channel, "unary_unary", CALL, metadata=metadata)


def test_bound_token_is_good_through_envoy_for_its_owner_only(channels: Channels, token: Callable[[str], str]) -> None:
    owned, stolen = bearer(token("owner")), bearer(token("other"))

    # In turns: a verdict that is remembered is good for its owner only.
    for _ in range(2):
        [message] = outcome(channels["owner"], *owned).messages
        assert Seen.of(message).values("x-org-id") == [ORG]
        assert [outcome(channels[name], *owned).reason for name in ("other", "tls", "plain")] == ["CLAIM_INVALID"] * 3
        assert outcome(channels["owner"], *stolen).reason == "CLAIM_INVALID"


@pytest.mark.parametrize("name", ["other", "tls", "plain"])
def test_no_header_about_a_certificate_gets_through_envoy(
    channels: Channels, certificates: dict[str, Certificate], token: Callable[[str], str], name: str
) -> None:
    owner = certificates["owner"]
    told = [
        ("x-forwarded-client-cert", f'Hash={owner.thumbprint};Cert="{quote(owner.chain)}"'),
        ("client-cert", f":{''.join(owner.chain.decode().split()[2:-2])}:"),
        ("x-client-cert", owner.thumbprint),
    ]

    assert outcome(channels[name], *told, *bearer(token("owner"))).reason == "CLAIM_INVALID"


def test_token_that_is_not_bound_needs_no_certificate(channels: Channels, ec_key: SigningKey) -> None:
    unbound = bearer(ec_key.sign(m2m_claims(time.time())))

    for channel in channels.values():
        [message] = outcome(channel, *unbound).messages
        assert Seen.of(message).values("x-org-id") == [ORG]
