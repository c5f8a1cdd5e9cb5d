"""The verdict on a call that nobody makes, step by step as the judge takes them, and why."""

import asyncio
from typing import Any, Literal

from authz.call.call import Call
from authz.call.principal import Principal
from authz.call.reasons import meaning
from authz.errors import AuthzError, ClaimError, Code, PeerUnknownError
from authz.issuer.explanation import explain as explain_token
from authz.judge.authorizer import Authorizer
from authz.organizations.quota import Quota
from authz.policy import Organization, Policy
from authz.policy.explain.explanation import as_data
from authz.policy.explain.explanation import explain as explain_policy
from authz.runtime.background import background
from authz.runtime.flow import arun
from authz.server.admin.backend import Json, Question

Outcome = Literal["passed", "failed", "unknown"]

_MAX_RULES = 200
_MAX_GROUPS = 8


async def explain(authorizer: Authorizer, question: Question) -> Json:
    """Return the verdict on the call that ``question`` describes, and each step on the way to it.

    A token is verified as for a call, keys fetched if need be. The issuer is not asked whether it was withdrawn.
    """
    return await _Hearing(authorizer, question).report()


class _Hearing:
    """One question, and the steps so far."""

    def __init__(self, authorizer: Authorizer, question: Question) -> None:
        self._authorizer, self._question = authorizer, question
        self._policy = authorizer.policy
        self._name = ""
        self._steps: list[dict[str, str]] = []
        self._more: Json = {"caller": None}

    async def report(self) -> Json:
        if self._authorizer.is_public(self._question.method):
            self._name = "Public method"
            self._took("passed", "Anybody may call it, and no token is looked at.")
            return self._verdict("allowed")
        try:
            return await self._heard()
        except AuthzError as error:
            return self._refused(error)

    async def _heard(self) -> Json:
        principal = await self._caller()
        self._more["caller"] = _identity(principal)
        self._check_standing(principal)
        organization = await self._organization(principal.org_id)
        if organization is None:
            return self._verdict("undecided")
        if not await self._passes(principal, organization):
            return self._verdict(self._more["policy"]["verdict"], self._more["policy"]["reason"])
        self._check_quota(principal)
        if self._authorizer.asks_issuer(self._question.method):
            self._name = "Issuer"
            self._took("unknown", "A call would ask whether the token was withdrawn. It was not asked now.")
        return self._verdict("allowed")

    async def _caller(self) -> Principal:
        self._name, asked = "Token", self._question
        if asked.token:
            principal = await arun(self._authorizer.verifier.verify_flow(asked.token))
            self._took("passed", "Signature, issuer, audience and times are good.")
            return principal
        self._took("unknown", "None was given: this is what a good token of this caller would get.")
        return Principal(
            org_id=asked.organization,
            client_id=asked.client,
            subject=asked.client,
            scopes=frozenset(asked.scopes),
            issuer=self._issuer_of(asked.organization),
        )

    def _issuer_of(self, org_id: str) -> str:
        """Return whose token names an organization; empty where several issuers may."""
        verifier = self._authorizer.verifier
        if verifier.ownership is None:
            issuers = list(verifier.health())
            return issuers[0] if len(issuers) == 1 else ""
        owner = verifier.ownership.owner_of(org_id)
        if owner is None:
            raise ClaimError("org_id", "the organization belongs to no issuer, so no token may name it")
        return owner

    def _check_standing(self, principal: Principal) -> None:
        self._name = "Standing"
        self._authorizer.check_standing(principal)
        self._took("passed", "The operator has revoked or suspended nothing of the caller's.")

    async def _organization(self, org_id: str) -> Organization | None:
        """Return what is known of the caller's organization; ``None`` if a stranger would have to be asked about."""
        self._name, directory = "Organization", self._authorizer.directory_of(org_id)
        # Any number of them can be made up, and each would make the directory forget a real one.
        if not self._question.token and directory is not None and not directory.remembers(org_id):
            self._took("unknown", "The directory remembers nothing of it, and is asked only if a token is given.")
            return None
        organization = await arun(self._authorizer.organization(org_id, self._policy))
        if self._authorizer.checks_organizations:
            known = ", ".join(f"{what} {text}" for what, text in known_of(organization).items())
            self._took("passed", f"Known: {known}." if known else "It passes, and nothing more is known of it.")
        return organization

    async def _passes(self, principal: Principal, organization: Organization) -> bool:
        self._name, policy = "Policy", self._policy
        if policy is None:
            self._took("passed", "There is none: whoever has a good token may call everything.")
            return True
        # A rule may ask for this header too.
        metadata = (("authorization", f"Bearer {self._question.token}"),) if self._question.token else ()
        call = Call(method=self._question.method, metadata=metadata)
        # Ten thousand rules take half a second, in which no call would be decided.
        told = await asyncio.to_thread(_explained, policy, call, principal, organization)
        verdict, words = told["verdict"], told["decisive"]
        self._more["policy"] = {
            **told,
            "name": policy.name,
            "verdict": "denied" if verdict == "suspended" else verdict,
            "rules": told["rules"][:_MAX_RULES],
        }
        outcomes: dict[str, Outcome] = {"allowed": "passed", "undecided": "unknown"}
        self._took(outcomes.get(verdict, "failed"), f"{words[:1].upper()}{words[1:]}.")
        is_allowed: bool = verdict == "allowed"
        return is_allowed

    def _check_quota(self, principal: Principal) -> None:
        self._name = "Quota"
        quota = None if self._policy is None else self._policy.organization(principal.org_id).quota
        if quota is not None:
            self._authorizer.check_quota(principal, self._policy)
            self._took("passed", f"The plan is {_plan(quota)}. There is room for this call now.")

    def _refused(self, error: AuthzError) -> Json:
        if self._name == "Token" and self._question.token:
            why = explain_token(error, self._question.token, self._authorizer.verifier)
            self._more["explanation"] = None if why is None else why.as_data()
        if isinstance(error, PeerUnknownError):
            self._took("unknown", "The token is bound to a client certificate, which nobody can show here.")
            return self._verdict("undecided")
        # Its name only: the explanation has the value.
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
        "name": organization.name,
        "tenant": organization.tenant,
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
    """Return who calls: names and times, no other claim."""
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
