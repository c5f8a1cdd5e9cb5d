"""What is asked of a call besides a good token: by the configuration of its route, and of the issuer about the token.

Only an operator configures a route. What is written wrongly there refuses every call, for it was meant to close
something.
"""

import functools
import re
from collections.abc import Collection, Iterable, Mapping

from authz.call.call import check_methods
from authz.call.principal import Principal
from authz.call.requirements import Assurance, Requirements
from authz.call.words import is_scope
from authz.errors import ClaimError, ConfigError, InsufficientScopeError, InternalError
from authz.issuer.introspection import Introspector
from authz.policy import Policy
from authz.runtime import telemetry

_NAMES = frozenset({"audience", "scopes", "policy"})
# Other names are left to others; but one that only looks like ours was meant to close something.
_LIKE_OURS = re.compile(r"\W*(audiences?|scopes?|polic(y|ies)|authz[\W_].*)\W*", re.IGNORECASE | re.DOTALL)

# As for the scopes of a token; all of them become one header.
_MAX_SCOPES = 2048


def requirements_from(extensions: Mapping[str, str]) -> Requirements | None:
    """Return what ``extensions`` ask, or ``None`` if they ask nothing of callers.

    Args:
        extensions: ``audience``, one value of ``aud``; ``scopes``, with blanks between them; ``policy``, a name.
            Other names are ignored, unless they are misspellings of these, or begin with ``authz`` and a dot.

    """
    return _requirements(frozenset(extensions.items()))


def check_requirements(requirements: Requirements, principal: Principal, policy: str = "") -> None:
    """Check that ``principal`` meets ``requirements``.

    Args:
        requirements: what is asked.
        principal: who calls.
        policy: the name of the policy in force; empty where there is none.

    Raises:
        ClaimError: the token is for another audience.
        InsufficientScopeError: it does not grant every scope.
        InternalError: the operator has made a mistake; an event of the log names it.

    """
    # Only now that the caller is verified: strangers must not learn how a route is configured.
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


class Assurances:
    """Say for which methods the issuer is asked whether a token has been withdrawn, and by which introspector.

    Args:
        introspector: asks the issuer; for several issuers one for each, by issuer.
        assurance: that of every method; or by full method name, where ``*`` names all others.
        issuers: those whose tokens are good here.
        policies: those that may name methods to ask about.

    Attributes:
        introspectors: by issuer.

    Raises:
        ConfigError: an issuer would never be asked, or there is no introspector to ask it.

    """

    def __init__(
        self,
        introspector: Introspector | Mapping[str, Introspector] | None,
        assurance: Assurance | Mapping[str, Assurance] | None,
        issuers: Collection[str],
        policies: Collection[Policy | None],
    ) -> None:
        is_asked = assurance is not None or any(policy is not None and policy.has_assurances for policy in policies)
        if (introspector is None and assurance is not None) or (introspector is not None and not is_asked):
            raise ConfigError("introspector and assurance: give both or neither, or nothing would ever be asked")
        self.introspectors = _by_issuer(introspector, issuers) if introspector is not None else {}
        self._by_method = {"*": assurance} if isinstance(assurance, Assurance) else dict(assurance or {})
        self._default = self._by_method.pop("*", None)
        check_methods(self._by_method, "assurance")

    def check(self, policy: Policy) -> None:
        """Check that there is an introspector, where ``policy`` wants the issuer to be asked.

        Raises:
            ConfigError: there is none.

        """
        if policy.has_assurances and not self.introspectors:
            raise ConfigError(
                f"policy {policy.name!a}: introspect needs an introspector (introspection_client_id and its secret)"
            )

    def of(self, method: str, policy: Policy | None) -> Assurance | None:
        """Return how sure ``method`` must be; ``None`` where the signature is believed until the token expires."""
        assurance = policy.assurance(method) if policy is not None else None
        return assurance or self._by_method.get(method, self._default)


def _by_issuer(
    introspector: Introspector | Mapping[str, Introspector], issuers: Collection[str]
) -> dict[str, Introspector]:
    if not issuers:
        raise ConfigError("introspector: without a verifier there is no token to ask an issuer about")
    if isinstance(introspector, Mapping):
        introspectors = dict(introspector)
    else:
        introspectors = dict.fromkeys(list(issuers)[:1], introspector)
    if introspectors.keys() != set(issuers):
        raise ConfigError("introspector: with several issuers give one for each, as a mapping by issuer")
    return introspectors
