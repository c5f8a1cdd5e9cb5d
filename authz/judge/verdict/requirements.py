"""Whether a caller meets what its route asks besides a good token, and when the issuer is asked about the token."""

from collections.abc import Collection, Mapping

from authz.call.call import check_methods
from authz.call.principal import Principal
from authz.call.requirements import Assurance, Requirements
from authz.errors import ClaimError, ConfigError, InsufficientScopeError, InternalError
from authz.issuer.introspection import Introspector
from authz.policy import Policy
from authz.runtime import telemetry


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
