"""The verdict on a call that is only described, step by step as the judge takes them, and why."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from authz.call.call import Call
from authz.call.principal import Principal
from authz.call.reasons import meaning
from authz.errors import AuthzError, ClaimError, Code, PeerUnknownError
from authz.issuer.explanation import explain as explain_token
from authz.issuer.token_verifier import check_certificate
from authz.judge.authorizer import STEPS, Authorizer, Step
from authz.organizations.quota import Quota
from authz.policy import Organization, Policy
from authz.policy.explain.explanation import as_data
from authz.policy.explain.explanation import explain as explain_policy
from authz.runtime.background import background
from authz.runtime.flow import arun
from authz.server.admin.backend import Json, Question
from authz.server.admin.naming import names_of, organization_of

Outcome = Literal["passed", "failed", "unknown"]

# What the page calls a step whose own name would not do.
_NAMES: Mapping[Step, str] = {"public": "Public method", "caller": "Token", "standing": "Orders"}

_MAX_RULES = 200
_MAX_GROUPS = 8


async def explain(authorizer: Authorizer, question: Question) -> Json:
    """Return the verdict on the call that ``question`` describes, and each step on the way to it.

    A token is verified as for a call, keys fetched if need be. The issuer is not asked whether it was withdrawn.
    """
    return await _Explaining(authorizer, question).report()


class _Explaining:
    """One question, and the steps so far: each returns a verdict, or ``None`` to go on to the next one."""

    def __init__(self, authorizer: Authorizer, question: Question) -> None:
        self._authorizer, self._question = authorizer, question
        # All steps go by what is in force at one moment.
        self._rules = authorizer.in_force.now
        self._name = ""
        self._steps: list[dict[str, str]] = []
        self._more: Json = {"caller": None}

    async def report(self) -> Json:
        explained: Mapping[Step, Callable[[], Awaitable[Json | None]]] = {
            "public": self._public,
            "caller": self._caller,
            "standing": self._standing,
            "route": self._route,
            "organization": self._organization,
            "policy": self._policy,
            "quota": self._quota,
            "issuer": self._issuer,
        }
        try:
            for step in STEPS:
                self._name = _NAMES.get(step, step.capitalize())
                verdict = await explained[step]()
                if verdict is not None:
                    return verdict
        except AuthzError as error:
            return self._refused(error)
        return self._verdict("allowed")

    async def _public(self) -> Json | None:
        if self._question.method not in self._rules.public:
            return None
        self._took("passed", "It needs no token, and none is looked at.")
        return self._verdict("allowed")

    async def _caller(self) -> None:
        asked = self._question
        if asked.token:
            principal = await arun(self._authorizer.verifier.verify_flow(asked.token))
            if principal.certificate:
                check_certificate(principal, None)
            self._took("passed", "Signature, issuer, audience and times are good.")
        else:
            self._took("unknown", "None was given: this is the verdict on a good token of this caller.")
            principal = Principal(
                org_id=asked.organization,
                client_id=asked.client,
                subject=asked.client,
                scopes=frozenset(asked.scopes),
                issuer=self._issuer_of(asked.organization),
            )
        self._principal = principal
        self._more["caller"] = {
            **_identity(principal),
            "called": names_of(organization_of(self._authorizer, principal.org_id)),
            "client_name": self._authorizer.telling.client_names.of(principal),
        }

    def _issuer_of(self, org_id: str) -> str:
        """Return the issuer whose tokens name an organization; empty where several may."""
        verifier = self._authorizer.verifier
        if verifier.ownership is None:
            issuers = list(verifier.health())
            return issuers[0] if len(issuers) == 1 else ""
        owner = verifier.ownership.owner_of(org_id)
        if owner is None:
            raise ClaimError("org_id", "the organization belongs to no issuer, so no token may name it")
        return owner

    async def _standing(self) -> None:
        self._authorizer.standing.check(self._principal)
        self._took("passed", "No order of an operator keeps this caller out.")

    async def _route(self) -> None:
        """Pass: only Envoy knows the route of a call, and what that asks for."""

    async def _organization(self) -> Json | None:
        org_id, organizations = self._principal.org_id, self._authorizer.organizations
        directory = organizations.directory_of(org_id)
        # A caller of the page can make up any number of ids, and each would push a real one out of the memory.
        if not self._question.token and directory is not None and not directory.remembers(org_id):
            self._took("unknown", "The directory remembers nothing of it, and is asked only if a token is given.")
            return self._verdict("undecided")
        self._known = await arun(organizations.find(org_id, self._rules.policy))
        if organizations.are_checked:
            known = ", ".join(f"{what} {text}" for what, text in known_of(self._known).items())
            self._took("passed", f"Known: {known}." if known else "It passes, and nothing more is known of it.")
        return None

    async def _policy(self) -> Json | None:
        policy = self._rules.policy
        if policy is None:
            self._took("passed", "There is none: every caller with a good token may call everything.")
            return None
        # A rule may ask for this header too.
        metadata = (("authorization", f"Bearer {self._question.token}"),) if self._question.token else ()
        call = Call(method=self._question.method, metadata=metadata, verb=self._question.verb)
        # Ten thousand rules take half a second, in which no call would be decided.
        told = await asyncio.to_thread(_explained, policy, call, self._principal, self._known)
        verdict, words = told["verdict"], told["decisive"]
        self._more["policy"] = {
            **told,
            "name": policy.name,
            "verdict": "denied" if verdict == "suspended" else verdict,
            "rules": told["rules"][:_MAX_RULES],
        }
        outcomes: dict[str, Outcome] = {"allowed": "passed", "undecided": "unknown"}
        self._took(outcomes.get(verdict, "failed"), f"{words[:1].upper()}{words[1:]}.")
        return None if verdict == "allowed" else self._verdict(self._more["policy"]["verdict"], told["reason"])

    async def _quota(self) -> None:
        quota = self._rules.quota_of(self._principal)
        if quota is not None:
            self._authorizer.quotas.check(self._principal.org_id, quota)
            self._took("passed", f"The plan is {_plan(quota)}. There is room for this call now.")

    async def _issuer(self) -> None:
        authorizer = self._authorizer
        if authorizer.introspectors and authorizer.assurances.of(self._question.method, self._rules.policy) is not None:
            self._took("unknown", "A call would ask whether the token was withdrawn. It was not asked now.")

    def _refused(self, error: AuthzError) -> Json:
        if self._name == "Token" and self._question.token:
            why = explain_token(error, self._question.token, self._authorizer.verifier)
            self._more["explanation"] = None if why is None else why.as_data()
        if isinstance(error, PeerUnknownError):
            self._took("unknown", "The token is bound to a client certificate, which cannot be shown here.")
            return self._verdict("undecided")
        # Only the name of the claim: the explanation has its value.
        claim = f" The claim is {error.claim!a}." if isinstance(error, ClaimError) else ""
        is_open = error.code is Code.UNAVAILABLE
        self._took("unknown" if is_open else "failed", meaning(error.reason) + claim)
        return self._verdict("undecided" if is_open else "denied", error.reason)

    def _took(self, outcome: Outcome, words: str) -> None:
        self._steps.append({"name": self._name, "outcome": outcome, "words": words})

    def _verdict(self, verdict: str, reason: str = "") -> Json:
        return {"verdict": verdict, "reason": reason, "steps": self._steps, **self._more}


def _explained(policy: Policy, call: Call, principal: Principal, organization: Organization) -> Json:
    with background():
        return as_data(explain_policy(policy, call, principal, organization))


def known_of(organization: Organization, quota: Quota | None = None) -> dict[str, str]:
    """Return what is known of an organization, in words: name, tenant, groups and plan, as far as it has them."""
    groups = sorted(organization.groups)
    more = f" and {len(groups) - _MAX_GROUPS} more" if len(groups) > _MAX_GROUPS else ""
    told = {
        **names_of(organization),
        "groups": ", ".join(groups[:_MAX_GROUPS]) + more,
        "plan": "" if quota is None else _plan(quota),
    }
    return {what: text for what, text in told.items() if text}


def _plan(quota: Quota) -> str:
    limits = []
    if quota.requests_per_second is not None:
        limits.append(f"{quota.requests_per_second:g} a second, {quota.burst} at once")
    if quota.concurrent_streams is not None:
        limits.append(f"streams: {quota.concurrent_streams}")
    return f"{quota.name} ({'; '.join(limits)})"


def _identity(principal: Principal) -> dict[str, Any]:
    """Return the names and times of the caller, and no other claim."""
    return {
        "organization": principal.org_id,
        "client": principal.client_id,
        "scopes": sorted(principal.scopes),
        "issuer": principal.issuer,
        "token_id": principal.token_id,
        "key_id": principal.key_id,
        "issued_at": principal.issued_at,
        "expires_at": principal.expires_at or None,
    }
