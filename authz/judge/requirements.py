"""Whether a caller meets what the configuration of a route asks besides a good token."""

from authz.call.principal import Principal
from authz.call.requirements import Requirements
from authz.errors import ClaimError, InsufficientScopeError, InternalError
from authz.runtime import telemetry


def check_requirements(requirements: Requirements, principal: Principal, policy: str = "") -> None:
    """Check that ``principal`` meets ``requirements``.

    Args:
        requirements: what is asked.
        principal: who calls.
        policy: the name of the policy that decides besides, or an empty string where there is none.

    Raises:
        ClaimError: the token is for another audience.
        InsufficientScopeError: it does not grant every scope.
        InternalError: the operator has made a mistake; an event of the log names it.

    """
    # Not before the caller is known: how a route is configured is no stranger's business.
    if requirements.mistake:
        telemetry.event(telemetry.ERROR, "requirements_invalid", key=requirements.mistake)
        raise InternalError
    if requirements.policy not in ("", policy):
        telemetry.event(telemetry.ERROR, "policy_unknown", policy=requirements.policy)
        raise InternalError
    if requirements.audience and requirements.audience not in principal.audience:
        raise ClaimError("aud", "the token is for another audience than the route's")
    if not requirements.scopes <= principal.scopes:
        raise InsufficientScopeError(requirements.scopes)
