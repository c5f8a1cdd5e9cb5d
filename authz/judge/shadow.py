"""A policy on trial: asked about every decision after it has been made, so it has no say in any."""

from collections import Counter
from collections.abc import Collection
from typing import Literal, NamedTuple

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Refusal
from authz.decisions.decision import Evidence, Verdict
from authz.errors import Code, PeerUnknownError, PermissionDeniedError
from authz.judge.organizations import Organizations
from authz.policy import Policy
from authz.runtime import fork, telemetry

Change = Literal["allowed_to_denied", "denied_to_allowed", "undecided", "failed"]
"""What would change: the verdict; that it might, where the new one is unknown; or that the policy on trial failed."""

# Reasons for which a policy refuses a call; a call that is refused for another was none of the policy's.
_BY_POLICY = frozenset({"policy_denied", "organization_suspended", "insufficient_scope"})


class _Opinion(NamedTuple):
    verdict: Verdict
    rule: str = ""


class Shadow:
    """Compare decisions with what another policy would have made of them.

    Args:
        organizations: know the groups of organizations.
        public: methods that are public whatever a policy says.

    Attributes:
        policy: the one on trial; ``None`` while there is none, which costs nothing.
        differences: how many decisions would have been different, by what would have changed.

    """

    def __init__(self, organizations: Organizations, public: Collection[str]) -> None:
        self._organizations, self._public = organizations, public
        self.policy: Policy | None = None
        self.differences: Counter[Change] = Counter()
        self._lock = fork.Lock()

    def compare(self, call: Call, evidence: Evidence, refusal: Refusal | None) -> None:
        """Note in ``evidence`` what the policy on trial says of a call; count and log it if that differs.

        Args:
            call: the call.
            evidence: what was known of it.
            refusal: what its caller gets, or ``None`` if it is allowed.

        """
        policy = self.policy
        if policy is None:
            return
        try:
            opinion = self._opinion(policy, call, evidence, refusal)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a policy on trial has no say
            telemetry.unforeseen("shadow", error)
            opinion = _Opinion("failed")
        if opinion is None:
            return
        evidence.shadow_verdict, evidence.shadow_rule = opinion
        change = _change(refusal, opinion.verdict)
        if change is not None:
            self._note(change, call, evidence)

    def _opinion(self, policy: Policy, call: Call, evidence: Evidence, refusal: Refusal | None) -> _Opinion | None:
        """Return what ``policy`` says; ``None`` where no policy would be asked."""
        is_public = call.method in policy.public and call.requirements is None
        if refusal is not None and refusal.code is Code.UNAUTHENTICATED and is_public:
            return _Opinion("allowed")
        if refusal is not None and not _is_by_policy(refusal, evidence):
            return None
        if is_public or (evidence.principal is ANONYMOUS and call.method in self._public):
            return _Opinion("allowed")
        if evidence.principal is ANONYMOUS:
            return _Opinion("undecided" if _has_credentials(call) else "denied")
        return self._asked(policy, call, evidence.principal)

    def _asked(self, policy: Policy, call: Call, principal: Principal) -> _Opinion:
        try:
            rule = policy.admit(call, principal, self._organizations.recall(principal.org_id, policy))
        except PermissionDeniedError as error:
            return _Opinion("denied", error.rule)
        except PeerUnknownError:
            # Only a door can find out the peer, and it does so only where its own verdict depends on it.
            return _Opinion("undecided")
        return _Opinion("allowed", rule)

    def _note(self, change: Change, call: Call, evidence: Evidence) -> None:
        with self._lock:
            self.differences[change] += 1
        fields = {"rule": evidence.rule, "shadow_rule": evidence.shadow_rule}
        telemetry.event(telemetry.INFO, "shadow_differs", method=call.method, change=change, **fields)


def _change(refusal: Refusal | None, verdict: Verdict) -> Change | None:
    if verdict in ("undecided", "failed"):
        return verdict
    if refusal is None:
        return "allowed_to_denied" if verdict == "denied" else None
    return "denied_to_allowed" if verdict == "allowed" else None


def _is_by_policy(refusal: Refusal, evidence: Evidence) -> bool:
    # The organizations that the policy lists may refuse a call before its rules are asked.
    return refusal.reason == "organization_unknown" or (bool(evidence.policy) and refusal.reason in _BY_POLICY)


def _has_credentials(call: Call) -> bool:
    """Say whether the caller of a public method has a token, which is not verified there."""
    return call.verified_claims is not None or any(name.lower() == "authorization" for name, _ in call.metadata)
