"""How long a yes holds, and when it may be over earlier, for a proxy that repeats it instead of asking again."""

import math
from collections.abc import Callable

from authz.call.call import Call
from authz.decisions.decision import Evidence
from authz.issuer.token_verifier import TokenVerifier
from authz.judge.in_force import Rules
from authz.judge.organizations import Organizations
from authz.runtime import telemetry


class Lasting:
    """Say how long a yes holds for every call like the one that it was said to.

    Like it is a call with the same bytes in ``authorization`` to the same method by the same HTTP method, whatever else
    it says, and from any sender; but if the policy names HTTP methods, without a header that may replace its own
    (:data:`authz.call.verb.OVERRIDES`). What the operator orders, another policy and the end of a key are no matter of
    time: a proxy that repeats a yes has to be told of them (:class:`Changes`).

    Args:
        verifier: knows when tokens end, and how long keys are believed.
        organizations: know the groups of organizations.
        is_proxied: whether proxies are believed when they say in headers who calls.

    """

    def __init__(self, verifier: TokenVerifier, organizations: Organizations, *, is_proxied: bool) -> None:
        self._verifier, self._organizations, self._is_proxied = verifier, organizations, is_proxied

    def seconds(self, call: Call, evidence: Evidence) -> float:
        """Return for how many seconds calls like ``call``, which was allowed, are allowed; 0 if they may differ.

        Args:
            call: the call.
            evidence: what :meth:`authz.Authorizer.authorize` was given with it.

        """
        if self._may_differ(call, evidence):
            return 0.0
        if evidence.source == "public":
            return math.inf
        principal = evidence.principal
        health = self._verifier.health().get(principal.issuer)
        keys_last = 0.0 if health is None else health.lasts
        return max(0.0, min(self._verifier.ends_at(principal) - self._verifier.clock.time(), keys_last))

    def _may_differ(self, call: Call, evidence: Evidence) -> bool:
        """Say whether another call with the same credentials to the same method may be refused, now or without notice.

        What is not known not to matter may matter.
        """
        rules: Rules = evidence.in_force
        isolation = rules.isolation
        if self._is_proxied or call.requirements is not None:
            # Headers decide who calls; or the route does, which another call may not take.
            return True
        if isolation is not None and isolation.looks_at(call.method):
            return True
        if evidence.source == "public":
            return False
        if evidence.source not in ("cache", "signature") or evidence.quota is not None:
            # The issuer is asked about every call, a proxy says who calls, or each call is counted.
            return True
        principal = evidence.principal
        if principal.certificate or self._organizations.directory_of(principal.org_id) is not None:
            # It depends on the connection, or on what a directory says by then.
            return True
        policy = rules.policy
        # Without a policy every good token may call everything.
        return policy is not None and not policy.decides_alike(
            call, principal, self._organizations.recall(principal.org_id, policy)
        )


class Changes:
    """Tell those who repeat what the judge has said.

    Noted are another policy, another isolation, orders of the operator, doubt about them, and keys that an issuer has
    withdrawn: all that a yes of :class:`Lasting` depends on, but for the time.

    Attributes:
        count: how many there were.

    """

    def __init__(self) -> None:
        self.count = 0
        self._watching: tuple[Callable[[], object], ...] = ()

    def watch(self, tell: Callable[[], object]) -> None:
        """Have ``tell`` called after each change, on the thread that made it; it must not wait."""
        self._watching = (*self._watching, tell)

    def note(self, *_: object) -> None:
        """Note a change; call this once it is in force for every call that begins from now on."""
        # Two threads may count one change between them: each tells that there was one.
        self.count += 1
        for tell in self._watching:
            try:
                tell()
            except Exception as error:  # noqa: BLE001 - what has changed is in force
                telemetry.unforeseen("changes", error)
