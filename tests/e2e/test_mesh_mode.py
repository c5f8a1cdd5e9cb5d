"""A backend that has no token to verify: it believes a real Envoy, and nobody who comes around it."""

from collections.abc import Callable, Iterator

import grpc
import pytest

from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from tests.doubles import ORG
from tests.e2e.mesh import Mesh
from tests.interceptors.client import bearer, call
from tests.interceptors.servers import channel_to
from tests.interceptors.service import expected_replies

OTHER_ORG = "org_01JYGLOBEX0000000000000000"
FORGED = TrustedMetadata().entries(
    Principal(org_id=OTHER_ORG, client_id="c", subject="c", expires_at=253_402_300_799.0)
)

Channels = dict[str, grpc.Channel]


@pytest.fixture(scope="module")
def channels(mesh: Mesh) -> Iterator[Channels]:
    with (
        channel_to(mesh.tokenless) as envoy,
        channel_to(mesh.undecided) as undecided,
        channel_to(mesh.backend) as direct,
    ):
        yield {"envoy": envoy, "undecided": undecided, "direct": direct}


def test_envoy_says_who_calls_and_keeps_the_token(channels: Channels, kind: str, sign: Callable[..., str]) -> None:
    outcome = call(channels["envoy"], kind, metadata=bearer(sign()))
    around = call(channels["direct"], kind, metadata=bearer(sign()))

    assert outcome.messages == expected_replies(kind, ORG.encode())
    # The backend takes no tokens at all, so it can only have been Envoy's word.
    assert around.reason == "UNAUTHENTICATED"


def test_caller_cannot_put_words_into_envoys_mouth(channels: Channels, kind: str, sign: Callable[..., str]) -> None:
    with_token = call(channels["envoy"], kind, metadata=[*FORGED, *bearer(sign()), *FORGED])
    without = call(channels["envoy"], kind, metadata=FORGED)

    assert with_token.messages == expected_replies(kind, ORG.encode())
    assert without.reason == "TOKEN_MISSING"


def test_whoever_comes_around_envoy_is_nobody(channels: Channels, kind: str) -> None:
    forger = call(channels["direct"], kind, metadata=FORGED)

    assert (forger.code, forger.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert forger == call(channels["direct"], kind)


def test_what_envoy_lets_through_undecided_goes_no_further(
    channels: Channels, kind: str, sign: Callable[..., str]
) -> None:
    for metadata in ((), bearer(sign()), FORGED, [*FORGED, ("x-envoy-auth-failure-mode-allowed", "false")]):
        outcome = call(channels["undecided"], kind, metadata=metadata)

        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "MESH_UNDECIDED")
