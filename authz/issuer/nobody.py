"""The verifier of a server that takes no tokens."""

from collections.abc import Mapping
from typing import Any

from authz.call.peer import Peer
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.errors import UnauthenticatedError
from authz.issuer.keys import KeySetHealth
from authz.issuer.verifier import DEFAULT_LEEWAY
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.flow import Flow


class _Nobody:
    """Stands in for a verifier where only proxies are believed: no token is good."""

    clock: Clock = SYSTEM_CLOCK
    ownership = None

    def verify_flow(self, _token: str, _peer: Peer | None = None, _evidence: Evidence | None = None) -> Flow[Principal]:
        raise UnauthenticatedError("only the peers of trust are believed here, and no tokens")
        yield  # a flow that never waits

    def principal_of(self, _claims: Mapping[str, Any], _peer: Peer | None = None) -> Principal:
        raise UnauthenticatedError("only the peers of trust are believed here, and no payloads")

    def ends_at(self, principal: Principal) -> float:
        return principal.expires_at + DEFAULT_LEEWAY

    def watch_keys(self, _withdrawn: object) -> None:
        pass

    def knows_key(self, _principal: Principal) -> bool:
        return True

    def key_age(self, _principal: Principal) -> None:
        return None

    def health(self) -> Mapping[str, KeySetHealth]:
        return {}

    def warm_up_flow(self, timeout: float = 0.0) -> Flow[None]:  # noqa: ARG002 - the name of its twins
        yield from ()

    def expectations(self, _issuer: object = None) -> None:
        return None

    def close(self) -> None:
        pass


NOBODY = _Nobody()
"""A verifier to which no token is good."""
