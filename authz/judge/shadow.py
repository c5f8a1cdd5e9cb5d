"""A policy on trial: asked about every decision after it has been made, so it has no say in any."""

from collections import Counter
from collections.abc import Collection
from typing import Literal, NamedTuple

from authz.call.call import Call
from authz.call.principal import ANONYMOUS
from authz.call.refusal import Refusal
from authz.decisions.decision import Evidence, Verdict
from authz.errors import Code, PeerUnknownError, PermissionDeniedError
from authz.judge.organizations import Organizations
from authz.policy import Policy
from authz.runtime import fork, telemetry

Change = Literal["allowed_to_denied", "denied_to_allowed", "undecided", "failed"]
"""What would change: the verdict, or, where nobody can tell, that it might. ``failed``: the policy on trial failed."""

# What a policy that has been asked refuses calls for; whatever else does is not its matter.
_BY_POLICY = frozenset({"policy_denied", "organization_suspended", "insufficient_scope"})


class _Opinion(NamedTuple):
    verdict: Verdict
    rule: str = ""


class Shadow:
    """Compare decisions with what another policy would have made of them.

    Args:
        organizations: says who organizations are.

    Attributes:
        policy: the one on trial; ``None`` while there is none, which costs nothing.
        differences: how many decisions would have been others, by what would have changed.

    """

    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations
        self.policy: Policy | None = None
        self.differences: Counter[Change] = Counter()
        self._lock = fork.Lock()

    def compare(self, call: Call, evidence: Evidence, refusal: Refusal | None, public: Collection[str]) -> None:
        """Note in ``evidence`` what the policy on trial says of a call; count and log it if that differs.

        Args:
            call: the call.
            evidence: what was known of it.
            refusal: what its caller gets, or ``None`` if it is allowed.
            public: methods that are public whatever a policy says.

        """
        policy = self.policy
        if policy is None:
            return
        try:
            opinion = self._opinion(policy, call, evidence, refusal, public)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whoever is on trial has no say
            telemetry.unforeseen("shadow", error)
            opinion = _Opinion("failed")
        if opinion is None:
            return
        evidence.shadow_verdict, evidence.shadow_rule = opinion
        change = _change(refusal, opinion.verdict)
        if change is not None:
            self._note(change, call, evidence)

    def _opinion(
        self, policy: Policy, call: Call, evidence: Evidence, refusal: Refusal | None, public: Collection[str]
    ) -> _Opinion | None:
        """Return what ``policy`` says; ``None`` where no policy would be asked."""
        is_public = call.method in policy.public and call.requirements is None
        if refusal is not None and refusal.code is Code.UNAUTHENTICATED and is_public:
            return _Opinion("allowed")
        if refusal is not None and not _is_by_policy(refusal, evidence):
            return None
        if is_public or (evidence.principal is ANONYMOUS and call.method in public):
            return _Opinion("allowed")
        if evidence.principal is ANONYMOUS:
            return _Opinion("undecided" if _has_credentials(call) else "denied")
        return self._asked(policy, call, evidence)

    def _asked(self, policy: Policy, call: Call, evidence: Evidence) -> _Opinion:
        principal, heard = evidence.principal, Evidence()
        try:
            policy.admit(call, principal, heard, self._organizations.recall(principal.org_id, policy))
        except PermissionDeniedError:
            return _Opinion("denied", heard.rule)
        except PeerUnknownError:
            # To find out is for the doors, and they only do where the verdict depends on it.
            return _Opinion("undecided")
        return _Opinion("allowed", heard.rule)

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
    # Before a policy is asked its list may say already that there is no such organization.
    return refusal.reason == "organization_unknown" or (bool(evidence.policy) and refusal.reason in _BY_POLICY)


def _has_credentials(call: Call) -> bool:
    """Say whether the caller of a public method has a token that nobody has looked at."""
    return call.verified_claims is not None or any(name.lower() == "authorization" for name, _ in call.metadata)
