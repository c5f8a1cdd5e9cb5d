"""gRPC's own retry policies: without a word of the server they make all their attempts in a tenth of a second."""

import json

import grpc
import pytest

from authz import Authorizer, AuthzError, Call, Principal, Verifier
from authz.decisions.decision import Evidence
from authz.errors import KeySetUnavailableError, ResourceExhaustedError, TokenExpiredError
from authz.runtime.flow import Flow
from tests.interceptors.client import call
from tests.interceptors.servers import Door, Loop
from tests.interceptors.service import Witness, handlers

ATTEMPTS = 4
POLICY = {
    "maxAttempts": ATTEMPTS,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"],
}
OPTIONS = (
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})),
    ("grpc.use_local_subchannel_pool", 1),
)


class Refusing(Authorizer):
    """Refuses every call for the same reason, and counts them."""

    def __init__(self, verifier: Verifier, error: AuthzError) -> None:
        super().__init__(verifier)
        self.error = error
        self.asked = 0

    def authorize(self, _call: Call, _evidence: Evidence | None = None) -> Flow[Principal]:
        self.asked += 1
        raise self.error
        yield  # a flow that never waits


@pytest.mark.parametrize(
    ("error", "code", "attempts"),
    [
        # What is waited for is longer than the call may last.
        pytest.param(KeySetUnavailableError(retry_after=60), "DEADLINE_EXCEEDED", 1, id="outage"),
        pytest.param(ResourceExhaustedError(retry_after=60), "DEADLINE_EXCEEDED", 1, id="quota"),
        pytest.param(ResourceExhaustedError(retry_after=600), "RESOURCE_EXHAUSTED", 1, id="quota-for-long"),
        pytest.param(ResourceExhaustedError(retry_after=0.05), "RESOURCE_EXHAUSTED", ATTEMPTS, id="quota-for-a-moment"),
        pytest.param(TokenExpiredError(), "UNAUTHENTICATED", ATTEMPTS, id="nothing-said"),
    ],
)
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_retry_policy_does_as_the_server_says(  # noqa: PLR0917 - two of them are fixtures
    door: Door, loop: Loop, verifier: Verifier, kind: str, error: AuthzError, code: str, attempts: int
) -> None:
    judge, witness = Refusing(verifier, error), Witness()
    served = handlers(door.behaviours(witness), witness)
    with (
        door.listen(loop, served, [door.interceptor(judge)]) as address,
        grpc.insecure_channel(address, OPTIONS) as channel,
    ):
        outcome = call(channel, kind, timeout=3.0 if code == "DEADLINE_EXCEEDED" else 60.0)

    assert (outcome.code, judge.asked) == (grpc.StatusCode[code], attempts)
