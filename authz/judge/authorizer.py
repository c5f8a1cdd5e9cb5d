"""The judge behind every door: says whether a call may be made, and who makes it."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from authz.call.call import Call, check_methods, check_size
from authz.call.metadata import TrustedMetadata
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Challenge, Refusal, refusal_of
from authz.call.requirements import Assurance
from authz.decisions.decision import Decision, Door, Event, Evidence, Observer
from authz.errors import (
    AuthzError,
    ConfigError,
    InternalError,
    KeyNotFoundError,
    PeerUnknownError,
    PermissionDeniedError,
    TokenExpiredError,
    TokenInactiveError,
    UnavailableError,
    suspended,
)
from authz.issuer.introspection import Introspector
from authz.issuer.nobody import NOBODY
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.assurances import Assurances
from authz.judge.mesh import MeshPeers
from authz.judge.organizations import Organizations, Unknown
from authz.judge.requirements import check_requirements
from authz.judge.revocation import Revocations
from authz.judge.shadow import Shadow
from authz.judge.streams import OpenStreams, Stream
from authz.judge.suspension import Suspensions
from authz.organizations.directory import Directory
from authz.organizations.quota import Quota, Quotas
from authz.policy import Organization, Policy
from authz.runtime import telemetry
from authz.runtime.flow import Flow, resumed
from authz.token.bearer import bearer_token, credentials_of
from authz.token.claims import is_expired

_UNCHANGED = object()


class Authorizer:
    """Decide calls.

    Args:
        verifier: says which tokens are good; :class:`authz.Verifiers` for several issuers; ``None`` where only
            the peers of ``trust`` are believed.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that anybody may call.
            They match exactly; everything else needs a token.
        introspector: asks the issuer whether tokens have been withdrawn; for several issuers one for each,
            by issuer, so that a token is shown to nobody but the issuer that it is from.
        assurance: how sure every method must be of that; or by full method name, where ``*`` names all others;
            a method without one believes the signature until the token expires.
        trust: the proxies whose word is taken for who calls; by default nobody's.
        policy: what each organization may do; by default whoever has a good token may call everything. Its ``public``
            methods are added to ``public_methods``; where its ``introspect`` names a method it goes before
            ``assurance``.
        shadow: a policy on trial: it is asked as well, and where it would decide otherwise that is counted and logged.
            It has no say, and its ``introspect`` is not asked for.
        directory: who is asked about the organizations that call; by default nobody, and only ``policy`` knows them.
            Where organizations belong to issuers (:class:`authz.Verifiers`), the directory of each issuer that has one,
            by issuer.
        unknown_organizations: ``deny`` refuses organizations that the directory does not know; without one, that
            ``policy`` does not list.
        realm: what ``www-authenticate`` calls this API (RFC 9110 section 11.5).
        resource_metadata: where this API says which issuer its tokens come from (RFC 9728): an https URL that
            ``www-authenticate`` points to.
        trusted: under which names backends find the caller.
        observers: who is told of every decision at every door.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        verifier: Verifier | Verifiers | None,
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
        self.verifier = verifier or NOBODY
        self.trusted = trusted or TrustedMetadata()
        self.streams = OpenStreams(clock=self.verifier.clock)
        # The keys that an issuer took back last, by issuer.
        self._withdrawn: dict[str, frozenset[str]] = {}
        self.verifier.watch_keys(self._end_streams_of_keys)
        self._revocations = Revocations(clock=self.verifier.clock)
        self._quotas = Quotas(clock=self.verifier.clock)
        self._suspensions = Suspensions()
        self._trust = trust
        self._public = check_methods(public_methods, "public_methods")
        self._assurances = Assurances(introspector, assurance, self.verifier.health(), (policy, shadow))
        self.introspectors = self._assurances.introspectors
        self._challenge = Challenge(realm=realm, resource_metadata=resource_metadata)
        self._observers = tuple(observers)
        self._organizations = Organizations(directory, unknown_organizations, self.verifier.ownership)
        self.directories = self._organizations.directories
        self._in_force = _InForce(self._checked(policy))
        self.shadow = Shadow(self._organizations)
        self.replace_shadow(shadow)

    @property
    def policy(self) -> Policy | None:
        """The policy in force."""
        return self._in_force.policy

    @property
    def isolation(self) -> Any:
        """What a door asks whose data a request is about; :meth:`replace_policy` replaces it."""
        return self._in_force.isolation

    @isolation.setter
    def isolation(self, isolation: Any) -> None:
        self._in_force = self._in_force._replace(isolation=isolation)

    def authorize(self, call: Call, evidence: Evidence | None = None) -> Flow[Principal]:
        """Return who makes ``call`` if it may be made; ``ANONYMOUS`` on a public method.

        Args:
            call: the call.
            evidence: is told what the verdict rests on, whatever it is.

        Raises:
            PeerUnknownError: the verdict depends on ``call.peer``, which is ``None``: a door that can find it out
                asks again with it, and every other refuses.
            AuthzError: it may not, or nobody can say.

        """
        evidence = evidence or Evidence()
        check_size(call)
        in_force = self._in_force
        policy = in_force.policy
        flow = self._admit(call, in_force, evidence)
        try:
            wait = next(flow)
        except StopIteration as done:
            principal: Principal = done.value
        else:
            principal = yield from resumed(flow, wait)
            # Meanwhile the token may have expired, its key been taken back, and an operator have given orders.
            yield from self._check_caller(call, policy)
            if self._in_force is not in_force:
                return (yield from self.authorize(call, evidence))
            self.check_standing(principal)
        if policy is not None and policy.has_quotas and principal is not ANONYMOUS:
            # Last: a call that is refused anyway uses up nothing.
            self._take_quota(principal, policy, evidence)
        return principal

    def _admit(self, call: Call, in_force: "_InForce", evidence: Evidence) -> Flow[Principal]:
        """Return who makes ``call`` if it may be made by all that is in force now."""
        # Both as they were at one moment: another thread may replace them at any time.
        policy, evidence.isolation = evidence.in_force = in_force
        if call.requirements is None and self._is_public(call.method, policy):
            evidence.source = "public"
            return ANONYMOUS
        token, principal = "", self._principal_of_proxy(call, policy, evidence)
        if principal is None:
            token = bearer_token(call)
            principal = yield from self.verifier.verify_flow(token, call.peer, evidence)
        self.check_standing(principal)
        if call.requirements is not None:
            check_requirements(call.requirements, principal, "" if policy is None else policy.name)
        if not self.directories:
            # There is nobody to ask, and that takes no flow.
            organization = self._organizations.recall(principal.org_id, policy)
        else:
            organization = yield from self.organization(principal.org_id, policy)
        if organization.tenant:
            evidence.principal = principal = self._organizations.identify(principal, organization)
        if policy is not None:
            policy.admit(call, principal, evidence, organization)
        if token and self.introspectors:
            yield from self._introspect(call, token, principal, policy, evidence)
        return principal

    def _check_caller(self, call: Call, policy: Policy | None) -> Flow[None]:
        """Check once more, mostly from memory, that it is still known who makes ``call``."""
        if self._principal_of_proxy(call, policy, Evidence()) is None:
            yield from self.verifier.verify_flow(bearer_token(call), call.peer)

    def confirm(self, call: Call, principal: Principal, evidence: Evidence) -> None:
        """Check, before an admitted call begins, what may have changed since the verdict: its request came later.

        Raises:
            AuthzError: it may not be made any more.

        """
        if is_expired(self.ends_at(principal), 0, self.verifier.clock.time()):
            raise TokenExpiredError
        if evidence.source != "proxy" and not self.verifier.knows_key(principal):
            raise KeyNotFoundError
        self.check_standing(principal)
        error = None if evidence.in_force is self._in_force else self._refusal_of_stream(call, principal)
        if error is not None:
            raise error

    def check_standing(self, principal: Principal) -> None:
        """Check that the operator has neither withdrawn nor suspended anything of ``principal``.

        Raises:
            TokenInactiveError: its token, application, organization or key is revoked.
            PermissionDeniedError: its organization is suspended.

        """
        self._revocations.check(principal)
        self._suspensions.check(principal)

    @property
    def checks_organizations(self) -> bool:
        """Whether a directory is asked about organizations, or those that are unknown are denied."""
        return self._organizations.are_checked

    def organization(self, org_id: str, policy: Policy | None) -> Flow[Organization]:
        """Return what is known of an organization, as a flow: what ``policy`` lists, over what the directory says.

        Raises:
            PermissionDeniedError: there is none of that id, and such are denied.
            DirectoryUnavailableError: the directory does not answer, and nothing is remembered of its word.

        """
        return self._organizations.find(org_id, policy)

    def directory_of(self, org_id: str) -> Directory | None:
        """Return the directory that is asked about an organization; ``None`` if none is."""
        return self._organizations.directory_of(org_id)

    def check_quota(self, principal: Principal, policy: Policy | None) -> None:
        """Check that the plan that ``policy`` gives the organization of ``principal`` has room; nothing is counted.

        Raises:
            ResourceExhaustedError: it has none now.

        """
        quota = _quota_of(principal, policy)
        if quota is not None:
            self._quotas.check(principal.org_id, quota)

    def is_public(self, method: str) -> bool:
        """Say whether anybody may call ``method``, unless a route asks for more."""
        return self._is_public(method, self.policy)

    def asks_issuer(self, method: str) -> bool:
        """Say whether the issuer is asked about the tokens of calls of ``method``."""
        return bool(self.introspectors) and self._assurances.of(method, self.policy) is not None

    def ends_at(self, principal: Principal) -> float:
        """Return the POSIX second from which calls of ``principal`` are refused, unless it shows a newer token."""
        return self.verifier.ends_at(principal)

    def open_stream(self, stream: Stream, principal: Principal, until: float, call: Call | None = None) -> None:
        """Take in a stream that has been authorized, and end it when it must end.

        Args:
            stream: the stream; whoever opens it gives it to ``streams.close`` when it is over.
            principal: who makes it.
            until: when it ends at the latest, in POSIX seconds, or infinite.
            call: the call that it is, about which every other policy is asked anew; without it only whether the
                organization is suspended.

        Raises:
            ResourceExhaustedError: its organization has as many streams open as it may; this one is not taken in.

        """
        self.streams.open(stream, principal, until, self._most_streams(principal), call=call)
        # What admitted it may have been withdrawn after the verdict and before the line above.
        if self._revocations.concerns(principal):
            self.streams.end(TokenInactiveError(), lambda other: other is principal)
        elif self._suspensions.concerns(principal):
            self.streams.end(suspended(), lambda other: other is principal)
        elif (error := self._refusal_of_stream(call, principal)) is not None:
            self.streams.end_one(stream, error)
        elif principal.key_id in self._withdrawn.get(principal.issuer, ()) and not self.verifier.knows_key(principal):
            self.streams.end(KeyNotFoundError(), lambda other: other is principal)

    def limits_streams(self, principal: Principal) -> bool:
        """Say whether the organization of ``principal`` may have only so many streams open.

        Raises:
            ResourceExhaustedError: it has as many open now, and another one need not be tried.

        """
        at_most = self._most_streams(principal)
        self.streams.check(principal.org_id, at_most)
        return at_most < math.inf

    def revoke(self, **what: str) -> None:
        """Refuse every call of a token, an application, an organization or a key, and end its open streams.

        Takes effect at once, in this process.

        Args:
            what: one of ``token_id`` (``jti``), ``client_id``, ``org_id`` and ``key_id`` (``kid``);
                and ``issuer``, if the order is not about what every issuer calls so.

        Raises:
            ConfigError: not exactly one of them, an empty one, or an issuer whose tokens are not taken here.

        """
        self._check_issuer(what.get("issuer"))
        self._revocations.revoke(**what)
        telemetry.event(telemetry.WARNING, "revoked", **what)
        self.streams.end(TokenInactiveError(), self._revocations.concerns)

    def reinstate(self, **what: str) -> None:
        """Take back what :meth:`revoke` did, for every issuer or for the one named; streams that it ended stay ended.

        Raises:
            ConfigError: not exactly one thing is named, an empty one, or an issuer whose tokens are not taken here.

        """
        self._check_issuer(what.get("issuer"))
        self._revocations.reinstate(**what)
        telemetry.event(telemetry.WARNING, "reinstated", **what)

    def suspend(self, org_id: str) -> None:
        """Refuse every call of an organization, as a policy that suspends it does, and end its open streams.

        Takes effect at once, in this process.

        Raises:
            ConfigError: ``org_id`` is empty.

        """
        self._suspensions.suspend(org_id)
        telemetry.event(telemetry.WARNING, "organization_suspended", org_id=org_id)
        self.streams.end(suspended(), self._suspensions.concerns)

    def resume(self, org_id: str) -> None:
        """Take back what :meth:`suspend` did; what the policy suspends stays suspended, and ended streams stay ended.

        Raises:
            ConfigError: ``org_id`` is empty.

        """
        self._suspensions.resume(org_id)
        telemetry.event(telemetry.WARNING, "organization_resumed", org_id=org_id)

    @property
    def suspended_organizations(self) -> frozenset[str]:
        """Whom :meth:`suspend` has suspended."""
        return self._suspensions.organizations

    @property
    def revoked_clients(self) -> frozenset[str]:
        """The applications that :meth:`revoke` has named."""
        return self._revocations.clients

    def replace_policy(self, policy: Policy | None, *, isolation: Any = _UNCHANGED) -> None:
        """Decide by another policy from the next call on, and end the open streams that it would not admit.

        Args:
            policy: the policy; ``None`` for none.
            isolation: for the doors: what checks whose data requests are about; goes in force in the same step.

        Raises:
            ConfigError: it cannot work here; the one before stays in force.

        """
        before = self._in_force
        self._in_force = _InForce(self._checked(policy), before.isolation if isolation is _UNCHANGED else isolation)
        telemetry.event(telemetry.INFO, "policy_replaced", policy="" if policy is None else policy.name)
        if policy is not None:
            self.streams.judge(self._refusal_of_stream)

    def replace_shadow(self, shadow: Policy | None) -> None:
        """Put another policy on trial, or none.

        Raises:
            ConfigError: it could not go in force here; the one before stays on trial.

        """
        self.shadow.policy = None if shadow is None else self._checked(shadow)

    def close(self) -> None:
        """Stop every request to an issuer, and to the directory."""
        self.verifier.close()
        for directory in self.directories:
            directory.close()
        for introspector in self.introspectors.values():
            introspector.close()

    def refusal(self, call: Call, error: BaseException, *, event: str = "call_refused") -> Refusal:
        """Log why ``call`` is refused and return what its caller sees; the unforeseen is an INTERNAL error."""
        if not isinstance(error, AuthzError):
            telemetry.unforeseen("authorize", error)
            error = InternalError()
        rule = error.rule if isinstance(error, PermissionDeniedError) else ""
        told = {"rule": rule} if rule else {}
        telemetry.event(telemetry.INFO, event, method=call.method, code=error.code.name, reason=error.reason, **told)
        return refusal_of(error, self._challenge)

    def decided(
        self,
        call: Call,
        evidence: Evidence,
        refusal: Refusal | None,
        seconds: float,
        *,
        door: Door,
        event: Event = "decision",
    ) -> None:
        """Tell the observers what was decided about ``call``; for the doors, once for every call.

        Args:
            call: the call.
            evidence: what :meth:`authorize` was given with it.
            refusal: what its caller gets, or ``None`` if it is allowed.
            seconds: how long that took.
            door: where it came in.
            event: what was decided.

        """
        if event == "decision":
            self.shadow.compare(call, evidence, refusal, self._public)
        if not self._observers:
            return
        time, key_age = self.verifier.clock.time(), self.verifier.key_age(evidence.principal)
        decision = Decision(call, evidence, refusal, seconds, door, event, time, key_age)
        for observe in self._observers:
            try:
                observe(decision)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - whoever looks on has no say
                telemetry.unforeseen("observer", error)

    def _principal_of_proxy(self, call: Call, policy: Policy | None, evidence: Evidence) -> Principal | None:
        """Return who calls if a proxy says so that is believed."""
        principal = None if self._trust is None else self._trust.principal_of(call, self.trusted)
        if principal is not None:
            if self.verifier.ownership is not None:
                self.verifier.ownership.check(principal)
            evidence.principal, evidence.source = principal, "proxy"
            if is_expired(self.ends_at(principal), 0, self.verifier.clock.time()):
                raise TokenExpiredError
            return principal
        # Where the issuer is to be asked, there is nothing to ask it about.
        if call.verified_claims is None or credentials_of(call) or self._assurances.of(call.method, policy) is not None:
            return None
        principal = self.verifier.principal_of(call.verified_claims, call.peer)
        evidence.principal, evidence.source = principal, "proxy"
        return principal

    def _introspect(
        self, call: Call, token: str, principal: Principal, policy: Policy | None, evidence: Evidence
    ) -> Flow[None]:
        # After the policy, so that nobody is asked about calls that may not be made.
        assurance = self._assurances.of(call.method, policy)
        if assurance is not None:
            self.check_quota(principal, policy)
            evidence.source = "introspection"
            yield from self.introspectors[principal.issuer].introspect(token, principal, assurance)

    def _take_quota(self, principal: Principal, policy: Policy, evidence: Evidence) -> None:
        evidence.quota = quota = policy.organization(principal.org_id).quota
        if quota is not None:
            self._quotas.take(principal.org_id, quota)

    def _most_streams(self, principal: Principal) -> float:
        quota = _quota_of(principal, self.policy)
        return math.inf if quota is None or quota.concurrent_streams is None else quota.concurrent_streams

    def _checked(self, policy: Policy | None) -> Policy | None:
        self._organizations.check(policy)
        if policy is not None:
            policy.check_headers(self.trusted.reserved)
            if self.verifier.ownership is not None:
                policy.check_clients()
            self._assurances.check(policy)
        return policy

    def _refusal_of_stream(self, call: Call | None, principal: Principal) -> AuthzError | None:
        """Return why the policy in force would not admit a stream that is open."""
        policy = self.policy
        if policy is None or principal is ANONYMOUS:
            return None
        if call is not None and self._is_public(call.method, policy):
            return None
        try:
            organization = self._organizations.recall(principal.org_id, policy)
            if call is None:
                return suspended() if organization.is_suspended else None
            policy.admit(call, principal, Evidence(), organization)
        except PeerUnknownError:
            # When it comes again, its door will find that out.
            return UnavailableError("the policy has changed, and now depends on the peer")
        except AuthzError as error:
            return error
        return None

    def _check_issuer(self, issuer: str | None) -> None:
        # A proxy may speak for any issuer, unless organizations belong to some.
        issuers = self.verifier.health()
        is_any = self._trust is not None and self.verifier.ownership is None
        if issuer is not None and issuer not in issuers and not is_any:
            raise ConfigError(f"issuer: {issuer!a} is none of those whose tokens are taken here")

    def _is_public(self, method: str, policy: Policy | None) -> bool:
        return method in self._public or (policy is not None and method in policy.public)

    def _end_streams_of_keys(self, issuer: str, kids: frozenset[str]) -> None:
        self._withdrawn[issuer] = kids
        self.streams.end(KeyNotFoundError(), lambda principal: principal.issuer == issuer and principal.key_id in kids)


class _InForce(NamedTuple):
    """What is replaced in one step, so that no call sees half of it."""

    policy: Policy | None
    isolation: Any = None


def as_authorizer(
    judge: Authorizer | Verifier | Verifiers | None,
    public_methods: Collection[str] = (),
    trust: MeshPeers | None = None,
) -> Authorizer:
    """Return ``judge`` as an authorizer; a verifier alone becomes one that admits every good token.

    Raises:
        ConfigError: neither of the two, or an option beside an authorizer, which has its own.

    """
    if isinstance(judge, Verifier | Verifiers) or (judge is None and trust is not None):
        return Authorizer(judge, public_methods=public_methods, trust=trust)
    if not isinstance(judge, Authorizer):
        raise ConfigError(f"a Verifier or an Authorizer is needed, not {type(judge).__name__}")
    if public_methods or trust is not None:
        raise ConfigError("public_methods and trust: give them to the Authorizer")
    return judge


def _quota_of(principal: Principal, policy: Policy | None) -> Quota | None:
    if policy is None or not policy.has_quotas or principal is ANONYMOUS:
        return None
    return policy.organization(principal.org_id).quota
