"""What the configuration of a route asks of callers besides a good token: how it is written, and whether it is met.

Only an operator writes it. What cannot be understood lets nobody in, for it was meant to close something.
"""

import functools
import re
from collections.abc import Iterable, Mapping

from authz.call.principal import Principal
from authz.call.requirements import Requirements
from authz.call.words import is_scope
from authz.errors import ClaimError, InsufficientScopeError, InternalError
from authz.runtime import telemetry

_NAMES = frozenset({"audience", "scopes", "policy"})
# Other names are somebody else's; but one that only looks like ours was meant to close something.
_LIKE_OURS = re.compile(r"\W*(audiences?|scopes?|polic(y|ies)|authz[\W_].*)\W*", re.IGNORECASE | re.DOTALL)

# As for the scopes of a token; all of them become one header.
_MAX_SCOPES = 2048


def requirements_from(extensions: Mapping[str, str]) -> Requirements | None:
    """Return what ``extensions`` ask, or ``None`` if nothing in them is for us.

    Args:
        extensions: ``audience``, one value of ``aud``; ``scopes``, with blanks between them; ``policy``, a name.
            Other names are left to others, unless they are misspelt ones of these, or begin with ``authz`` and a dot.

    """
    return _requirements(frozenset(extensions.items()))


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


# Few routes, many calls.
@functools.lru_cache(1024)
def _requirements(extensions: Iterable[tuple[str, str]]) -> Requirements | None:
    ours = {name: value for name, value in extensions if _LIKE_OURS.fullmatch(name)}
    if not ours:
        return None
    scopes = ours.get("scopes", "").split()
    mistakes = [name for name, value in ours.items() if name not in _NAMES or not value.strip()]
    if len(ours.get("scopes", "")) > _MAX_SCOPES or not all(map(is_scope, scopes)):
        mistakes.append("scopes")
    if mistakes:
        return Requirements(mistake=min(mistakes))
    return Requirements(audience=ours.get("audience", ""), scopes=frozenset(scopes), policy=ours.get("policy", ""))
