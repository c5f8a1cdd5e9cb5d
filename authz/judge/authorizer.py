"""The judge behind every door: says whether a call may be made, and who makes it."""

import collections
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

from authz.call.call import Call, check_size
from authz.call.metadata import TrustedMetadata
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Challenge
from authz.call.requirements import Assurance
from authz.decisions.decision import Evidence, Observer
from authz.errors import ConfigError, KeyNotFoundError
from authz.issuer.introspection import Introspector
from authz.issuer.token_verifier import TokenVerifier, check_certificate
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import NoTokens, Verifiers
from authz.judge.endings import Endings
from authz.judge.in_force import InForce, Isolation, Rules
from authz.judge.lasting import Changes, Lasting
from authz.judge.mesh import MeshPeers
from authz.judge.orders.giving import Giving
from authz.judge.orders.operator import Operator
from authz.judge.orders.standing import Standing
from authz.judge.organizations import Organizations, Unknown
from authz.judge.shadow import Shadow
from authz.judge.streams import OpenStreams
from authz.judge.telling import Telling
from authz.judge.verdict.requirements import Assurances
from authz.judge.verdict.steps import Steps
from authz.organizations.directory import Directory
from authz.organizations.quota import Counting, Quotas
from authz.policy import Policy
from authz.runtime import telemetry
from authz.runtime.flow import Flow, resumed
from authz.token.bearer import bearer_token
from authz.token.jws import digest_of

Step = Literal["public", "caller", "standing", "route", "organization", "policy", "quota", "issuer"]
STEPS: tuple[Step, ...] = get_args(Step)
"""The steps to a verdict, in order: the first that refuses a call decides, and after the last one the call is counted.

An explanation walks this tuple. :meth:`Authorizer.authorize` has the steps one below the other, which is quicker.
"""


class Authorizer(Steps, Giving):
    """Decide calls: may each be made, and who makes it.

    Args:
        verifier: says which tokens are good; :class:`authz.Verifiers` for several issuers; ``None`` where only
            the peers of ``trust`` are believed.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, of methods that need no token.
            They match exactly; every other method needs one.
        introspector: asks the issuer whether tokens have been withdrawn; for several issuers one for each,
            by issuer, so that a token is shown to no other issuer than its own.
        assurance: how sure every method must be of that; or by full method name, where ``*`` names all others;
            for a method without one the signature counts until the token expires.
        trust: the proxies whose word is taken for who calls; by default none.
        policy: what each organization may do; by default every caller with a good token may call everything. Its
            ``public`` methods are added to ``public_methods``; where its ``introspect`` names a method it goes before
            ``assurance``.
        shadow: a policy on trial: it is asked as well, and where it would decide otherwise that is counted and logged.
            It has no say, and its ``introspect`` is ignored.
        directory: is asked about the organizations that call; by default only ``policy`` knows them.
            Where organizations belong to issuers (:class:`authz.Verifiers`), the directory of each issuer that has one,
            by issuer.
        unknown_organizations: ``deny`` refuses organizations that the directory does not know; without one, that
            ``policy`` does not list.
        realm: what ``www-authenticate`` calls this API (RFC 9110 section 11.5).
        resource_metadata: where this API says which issuer its tokens come from (RFC 9728): an https URL that
            ``www-authenticate`` points to.
        trusted: under which names backends find the caller.
        observers: are told of every decision at every door.

    Attributes:
        verifier: that of the argument, or one to which no token is good.
        trusted: that of the argument.
        standing: what the operator has revoked and suspended.
        operator: takes the operator's orders.
        in_force: the policy, and what checks which organization requests are about.
        organizations: know the tenants and groups of organizations.
        assurances: say about which methods the issuer is asked.
        quotas: counts the calls of organizations; those of this process, unless others share their counts with it.
        shadow: compares decisions with the policy on trial.
        streams: those that are open.
        endings: what ends them.
        telling: makes refusals, and tells the observers.
        changes: tell when a yes may have become a no.
        lasting: says how long a yes holds.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        verifier: TokenVerifier | None,
        *,
        public_methods: Collection[str] = (),
        introspector: Introspector | Mapping[str, Introspector] | None = None,
        assurance: Assurance | Mapping[str, Assurance] | None = None,
        trust: MeshPeers | None = None,
        policy: Policy | None = None,
        shadow: Policy | None = None,
        directory: Directory | Mapping[str, Directory] | None = None,
        unknown_organizations: Unknown = "allow",
        realm: str = "api",
        resource_metadata: str = "",
        trusted: TrustedMetadata | None = None,
        observers: Collection[Observer] = (),
    ) -> None:
        if verifier is None and trust is None:
            raise ConfigError("verifier: missing; only where the peers of trust are believed can there be none")
        self.verifier: TokenVerifier = verifier or NoTokens()
        self.trusted = trusted or TrustedMetadata()
        self._trust = trust
        clock, issuers = self.verifier.clock, self.verifier.health().keys()
        # A proxy may speak for any issuer, unless organizations belong to some.
        is_any = trust is not None and self.verifier.ownership is None
        self.changes = Changes()
        self.standing = Standing(clock=clock, doubted=self.changes.note)
        self.quotas: Counting = Quotas(clock=clock)
        self.assurances = Assurances(introspector, assurance, issuers, (policy, shadow))
        self.introspectors = self.assurances.introspectors
        self.organizations = Organizations(directory, unknown_organizations, self.verifier.ownership)
        self.directories = self.organizations.directories
        self._may_wait = self._has_own_flow or bool(self.directories or self.introspectors)
        self.in_force = InForce(policy, public_methods, self._check, self.changes.note)
        self.lasting = Lasting(self.verifier, self.organizations, is_proxied=trust is not None)
        self.shadow = Shadow(self.organizations, self.in_force.public_methods)
        self.replace_shadow(shadow)
        challenge = Challenge(realm=realm, resource_metadata=resource_metadata)
        self.telling = Telling(self.verifier, self.shadow, challenge, observers)
        self.streams = OpenStreams(clock=clock)
        self.operator = Operator(self.standing, self.streams, clock=clock, issuers=None if is_any else issuers)
        self.endings = Endings(self.streams, self.verifier, self.standing, self.organizations, self.in_force)
        # Before Envoy is told to ask again.
        self.operator.watch(self.organizations.renew)
        self.operator.watch(self.changes.note)
        self.verifier.watch_keys(self.changes.note)

    def __init_subclass__(cls, **options: Any) -> None:
        """Leave every call to the flow of a class that has its own, so that nothing is decided past it."""
        super().__init_subclass__(**options)
        cls._has_own_flow = cls.authorize is not Authorizer.authorize

    @property
    def policy(self) -> Policy | None:
        """The policy in force."""
        return self.in_force.now.policy

    def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
        """Return who makes ``call`` if it may be made; ``ANONYMOUS`` on a public method.

        Args:
            call: the call.
            evidence: is told what the verdict rests on, whatever it is.

        Raises:
            PeerUnknownError: the verdict depends on ``call.peer``, which is ``None``: a door that can find it out
                asks again with it, and every other refuses.
            AuthzError: it may not be made, or there can be no verdict now.

        """
        evidence = evidence or Evidence()
        check_size(call)
        rules = self.in_force.now
        flow = self._admit(call, rules, evidence)
        try:
            wait = next(flow)
        except StopIteration as done:
            principal: Principal = done.value
        else:
            principal = yield from resumed(flow, wait)
            if not (yield from self._is_confirmed(call, rules, principal)):
                return (yield from self.authorize(call, evidence))
        # Last: a call that is refused anyway uses up nothing.
        awaited = self._count(rules, principal, evidence)
        while awaited is not None:
            yield from awaited.wait()
            if not (yield from self._is_confirmed(call, rules, principal)):
                return (yield from self.authorize(call, evidence))
            awaited = self._count(rules, principal, evidence, awaited)
        return principal

    def _admit(self, call: Call, rules: Rules, evidence: Evidence) -> Flow[Principal]:
        """Return who makes ``call`` if ``rules``, and all else that is in force now, admit it: see ``STEPS``."""
        if self._is_public(call, rules, evidence):
            return ANONYMOUS
        token, principal = "", self._vouched(call, rules, evidence)
        if principal is None:
            token = bearer_token(call)
            principal = self._known(call, digest_of(token), evidence)
            if principal is None:
                principal = yield from self.verifier.verify_flow(token)
                self._recognize(call, principal, "signature", evidence)
        self._check_caller(call, rules, principal)
        organizations, org_id = self.organizations, principal.org_id
        # Where there is no directory to ask, that takes no flow.
        organization = (
            (yield from organizations.find(org_id, rules.policy))
            if self.directories
            else organizations.recall(org_id, rules.policy)
        )
        principal = self._check_policy(call, rules, principal, organization, evidence)
        if token and self.introspectors:
            yield from self._introspect(call, token, principal, rules, evidence)
        return principal

    def _introspect(self, call: Call, token: str, principal: Principal, rules: Rules, evidence: Evidence) -> Flow[None]:
        assurance = self.assurances.of(call.method, rules.policy)
        if assurance is None:
            return
        # Before the issuer is asked, so that it is not asked about calls that are refused anyway.
        quota = rules.quota_of(principal)
        if quota is not None:
            self.quotas.check(principal.org_id, quota)
        evidence.source = "introspection"
        yield from self.introspectors[principal.issuer].introspect(token, principal, assurance)

    def _is_confirmed(self, call: Call, rules: Rules, principal: Principal) -> Flow[bool]:
        """Check what may have changed while a call waited; say whether ``rules``, which admitted it, are in force."""
        # The token may have expired, its key may be withdrawn, and the operator may have given orders.
        caller = self._proxied(call, rules.policy)
        if caller is not None:
            self._check_time(caller)
        else:
            # Mostly from memory.
            caller = yield from self.verifier.verify_flow(bearer_token(call))
            if caller.certificate:
                check_certificate(caller, call.peer)
        if self.in_force.now is not rules:
            return False
        self.standing.check(principal)
        return True

    def confirm(self, call: Call, principal: Principal, evidence: Evidence) -> None:
        """Check what may have changed since the verdict on a call whose request came later, before its handler runs.

        Raises:
            AuthzError: it may not be made any more.

        """
        self._check_time(principal)
        if evidence.source != "proxy" and not self.verifier.knows_key(principal):
            raise KeyNotFoundError
        self.standing.check(principal)
        error = None if evidence.in_force is self.in_force.now else self.endings.refusal(call, principal)
        if error is not None:
            raise error

    def replace_policy(self, policy: Policy | None, *, isolation: Isolation | None = None) -> None:
        """Decide by another policy from the next call on, and end the open streams that it would not admit.

        Args:
            policy: the policy; ``None`` for none.
            isolation: for ``authz serve``: what checks which organization requests are about, to be replaced in the
                same step; ``None`` leaves it as it is.

        Raises:
            ConfigError: it cannot work here; the one before stays in force.

        """
        before = self.in_force.now.policy
        # What the policy in force ends stays ended, whatever the next one allows.
        self.streams.settle()
        self.in_force.replace(policy, isolation)
        telemetry.event(telemetry.INFO, "policy_replaced", policy="" if policy is None else policy.name)
        self.streams.judge(self.endings.refusal)
        if before is not None and before is not policy:
            going = before.let_go()
            # Without this reference: the last one frees what is left.
            del before
            collections.deque(going, maxlen=0)

    def replace_shadow(self, shadow: Policy | None) -> None:
        """Put another policy on trial, or none.

        Raises:
            ConfigError: it could not go in force here; the one before stays on trial.

        """
        if shadow is not None:
            self._check(shadow)
        self.shadow.policy = shadow

    def close(self) -> None:
        """Stop every request to an issuer, and to the directory."""
        self.verifier.close()
        for directory in self.directories:
            directory.close()
        for introspector in self.introspectors.values():
            introspector.close()

    def _check(self, policy: Policy | None) -> None:
        """Check that ``policy`` can work here.

        Raises:
            ConfigError: it cannot.

        """
        self.organizations.check(policy)
        if policy is not None:
            policy.check_headers(self.trusted.reserved)
            if self.verifier.ownership is not None:
                policy.check_clients()
            self.assurances.check(policy)


def as_authorizer(
    judge: Authorizer | Verifier | Verifiers | None,
    public_methods: Collection[str] = (),
    trust: MeshPeers | None = None,
) -> Authorizer:
    """Return ``judge`` as an authorizer; a verifier alone becomes one that admits every good token.

    Raises:
        ConfigError: ``judge`` is neither, or an option is given beside an authorizer, which has its own.

    """
    if isinstance(judge, Verifier | Verifiers) or (judge is None and trust is not None):
        return Authorizer(judge, public_methods=public_methods, trust=trust)
    if not isinstance(judge, Authorizer):
        raise ConfigError(f"a Verifier or an Authorizer is needed, not {type(judge).__name__}")
    if public_methods or trust is not None:
        raise ConfigError("public_methods and trust: give them to the Authorizer")
    return judge
