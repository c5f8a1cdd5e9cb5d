"""The steps to a verdict: each a plain function, taken one after the other by two ways through them.

:meth:`authz.Authorizer.authorize` is the rule book: a flow, which waits where a step must. :meth:`Steps.at_once` takes
the same steps where nothing has to be waited for, as for most calls, and leaves all others to the flow.
"""

from collections.abc import Mapping
from typing import ClassVar

from authz.call.call import MAX_METHOD, Call, check_size
from authz.call.metadata import TrustedMetadata
from authz.call.principal import ANONYMOUS, Principal
from authz.decisions.decision import Evidence, Source
from authz.errors import PermissionDeniedError, TokenExpiredError
from authz.issuer.introspection import Introspector
from authz.issuer.token_verifier import TokenVerifier, check_certificate
from authz.judge.in_force import InForce, Rules
from authz.judge.mesh import MeshPeers
from authz.judge.orders.standing import Standing
from authz.judge.organizations import Organizations
from authz.judge.verdict.requirements import Assurances, check_requirements
from authz.organizations.directory import Directory
from authz.organizations.organization import Organization
from authz.organizations.quota import Awaited, Counting
from authz.policy import Policy
from authz.token.bearer import bearer_token, credentials_of, digest_at_hand
from authz.token.jws import digest_of


class Steps:
    """Take the steps to a verdict; a base of :class:`authz.Authorizer`, which says what its attributes are."""

    verifier: TokenVerifier
    trusted: TrustedMetadata
    standing: Standing
    quotas: Counting
    assurances: Assurances
    introspectors: Mapping[str, Introspector]
    organizations: Organizations
    directories: tuple[Directory, ...]
    in_force: InForce
    _trust: MeshPeers | None
    _may_wait: bool
    """Whether any call may have to wait for more than its key and its quota."""
    _has_own_flow: ClassVar[bool] = False
    """Whether a subclass replaces the flow, which the quick way must not pass by then."""

    def at_once(self, call: Call, evidence: Evidence) -> Principal | None:
        """Return what the flow would for ``call``, if that takes no waiting; ``None`` means: ask the flow.

        Args:
            call: the call.
            evidence: is told what the verdict rests on; the flow, if it is asked, goes on with the same.

        Raises:
            PeerUnknownError: the verdict depends on ``call.peer``, see :meth:`authz.Authorizer.authorize`.
            AuthzError: it may not be made, for the reason that the flow would give.

        """
        rules = self.in_force.now
        if self._may_wait and self._waits(call, rules):
            return None
        check_size(call)
        if self._is_public(call, rules, evidence):
            return ANONYMOUS
        principal = None
        if self._trust is not None or call.verified_claims is not None:
            principal = self._vouched(call, rules, evidence)
        if principal is None:
            principal = self._verified(call, evidence)
            if principal is None:
                return None
        self._check_caller(call, rules, principal)
        organization = self.organizations.recall(principal.org_id, rules.policy)
        principal = self._check_policy(call, rules, principal, organization, evidence)
        return principal if self._count(rules, principal, evidence) is None else None

    def _waits(self, call: Call, rules: Rules) -> bool:
        """Say whether a directory or the issuer may have to be asked about ``call``, or there is another flow."""
        if self._has_own_flow or self.directories:
            return True
        return len(call.method) <= MAX_METHOD and self.assurances.of(call.method, rules.policy) is not None

    def _is_public(self, call: Call, rules: Rules, evidence: Evidence) -> bool:
        """Note what is in force, and say whether it lets everybody make ``call``."""
        _, evidence.isolation, public = evidence.in_force = rules
        if call.requirements is None and call.method in public:
            evidence.source = "public"
            return True
        return False

    def _vouched(self, call: Call, rules: Rules, evidence: Evidence) -> Principal | None:
        """Return the caller that a believed proxy names, if one does."""
        principal = self._proxied(call, rules.policy)
        if principal is not None:
            evidence.principal, evidence.source = principal, "proxy"
            self._check_time(principal)
        return principal

    def _verified(self, call: Call, evidence: Evidence) -> Principal | None:
        """Return the caller that the token names, unless its key must be waited for."""
        token, digest = "", digest_at_hand(call)
        if digest is None:
            token = bearer_token(call)
            digest = digest_of(token)
        principal = self._known(call, digest, evidence)
        if principal is None:
            principal = self.verifier.verify_at_once(token or bearer_token(call), digest)
            if principal is not None:
                self._recognize(call, principal, "signature", evidence)
        return principal

    def _known(self, call: Call, digest: bytes, evidence: Evidence) -> Principal | None:
        """Return the caller that the token of ``digest`` names, if it was verified before."""
        principal = self.verifier.remembered(digest)
        if principal is not None:
            # A door that asks again, with the peer, had the token verified the first time.
            self._recognize(call, principal, "signature" if evidence.source == "signature" else "cache", evidence)
        return principal

    def _recognize(self, call: Call, principal: Principal, source: Source, evidence: Evidence) -> None:
        """Note who calls, and check that the token is the caller's own."""
        evidence.principal, evidence.source = principal, source
        if principal.certificate:
            check_certificate(principal, call.peer)

    def _check_caller(self, call: Call, rules: Rules, principal: Principal) -> None:
        """Check the orders of the operator, and what the route asks for."""
        self.standing.check(principal)
        if call.requirements is not None:
            check_requirements(call.requirements, principal, "" if rules.policy is None else rules.policy.name)

    def _check_policy(
        self, call: Call, rules: Rules, principal: Principal, organization: Organization, evidence: Evidence
    ) -> Principal:
        """Return the caller with its tenant, if the policy admits it."""
        evidence.organization = organization
        if organization.tenant:
            evidence.principal = principal = self.organizations.identify(principal, organization)
        policy = rules.policy
        if policy is not None:
            evidence.policy = policy.name
            try:
                evidence.rule = policy.admit(call, principal, organization)
            except PermissionDeniedError as error:
                evidence.rule = error.rule
                raise
        return principal

    def _count(
        self, rules: Rules, principal: Principal, evidence: Evidence, waited: Awaited | None = None
    ) -> Awaited | None:
        """Count the call, which nothing else refuses; return what it must wait for, if it cannot be counted yet."""
        if rules.policy is None or not rules.policy.has_quotas:
            return None
        evidence.quota = quota = rules.quota_of(principal)
        return None if quota is None else self.quotas.take(principal.org_id, quota, waited)

    def _proxied(self, call: Call, policy: Policy | None) -> Principal | None:
        """Return the caller that a believed proxy names, if one does."""
        principal = None if self._trust is None else self._trust.principal_of(call, self.trusted)
        if principal is not None:
            if self.verifier.ownership is not None:
                self.verifier.ownership.check(principal)
            return principal
        # Where the issuer is to be asked, a payload is not enough: there is no token to ask it about.
        if call.verified_claims is None or credentials_of(call) or self.assurances.of(call.method, policy) is not None:
            return None
        principal = self.verifier.principal_of(call.verified_claims)
        if principal.certificate:
            check_certificate(principal, call.peer)
        return principal

    def _check_time(self, principal: Principal) -> None:
        if self.verifier.clock.time() >= self.verifier.ends_at(principal):
            raise TokenExpiredError
