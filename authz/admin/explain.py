"""The verdict on a call that nobody makes, step by step as the judge takes them, and why."""

from typing import Any, Literal

from authz.admin.source import Json, Question
from authz.authorizer import Authorizer
from authz.call import Call, Principal
from authz.errors import AuthzError, ClaimError, Code, PeerUnknownError
from authz.flow import arun
from authz.policy import Policy
from authz.policy.explain import as_data
from authz.policy.explain import explain as explain_policy
from authz.reasons import meaning

Outcome = Literal["passed", "failed", "unknown"]

_MAX_RULES = 200


async def explain(authorizer: Authorizer, question: Question) -> Json:
    """Return the verdict on the call that ``question`` describes, and each step on the way to it.

    A token is verified as for a call, keys fetched if need be. The issuer is not asked whether it was withdrawn.
    """
    return await _Hearing(authorizer, question).report()


class _Hearing:
    """One question, and the steps so far."""

    def __init__(self, authorizer: Authorizer, question: Question) -> None:
        self._authorizer, self._question = authorizer, question
        self._steps: list[dict[str, str]] = []
        self._more: Json = {"caller": None}

    async def report(self) -> Json:
        method = self._question.method
        if self._authorizer.is_public(method):
            self._step("Public method", "passed", "Anybody may call it, and no token is looked at.")
            return self._verdict("allowed")
        name = "Token"
        try:
            principal = await self._caller()
            self._more["caller"] = _identity(principal)
            name = "Standing"
            self._authorizer.check_standing(principal)
        except AuthzError as error:
            return self._refused(name, error)
        self._step(name, "passed", "The operator has revoked or suspended nothing of the caller's.")
        policy = self._authorizer.policy
        if policy is not None and not self._passes(policy, principal):
            return self._verdict(self._more["policy"]["verdict"], self._more["policy"]["reason"])
        if policy is None:
            self._step("Policy", "passed", "There is none: whoever has a good token may call everything.")
        if self._authorizer.asks_issuer(method):
            self._step("Issuer", "unknown", "A call would ask whether the token was withdrawn. It was not asked now.")
        return self._verdict("allowed")

    async def _caller(self) -> Principal:
        asked = self._question
        if asked.token:
            principal = await arun(self._authorizer.verifier.verify_flow(asked.token))
            self._step("Token", "passed", "Signature, issuer, audience and times are good.")
            return principal
        self._step("Token", "unknown", "None was given: this is what a good token of this caller would get.")
        scopes = frozenset(asked.scopes)
        return Principal(org_id=asked.organization, client_id=asked.client, subject=asked.client, scopes=scopes)

    def _passes(self, policy: Policy, principal: Principal) -> bool:
        # A rule may ask for this header too.
        metadata = (("authorization", f"Bearer {self._question.token}"),) if self._question.token else ()
        explained = explain_policy(policy, Call(method=self._question.method, metadata=metadata), principal)
        verdict = explained.ruling.verdict
        told = {**as_data(explained), "name": policy.name}
        self._more["policy"] = {
            **told,
            "verdict": "denied" if verdict == "suspended" else verdict,
            "rules": told["rules"][:_MAX_RULES],
        }
        outcomes: dict[str, Outcome] = {"allowed": "passed", "undecided": "unknown"}
        words = explained.decisive
        self._step("Policy", outcomes.get(verdict, "failed"), f"{words[:1].upper()}{words[1:]}.")
        return verdict == "allowed"

    def _refused(self, name: str, error: AuthzError) -> Json:
        if isinstance(error, PeerUnknownError):
            self._step(name, "unknown", "The token is bound to a client certificate, which nobody can show here.")
            return self._verdict("undecided")
        # Its name only: the value may be anything, and the text of the error is for nobody.
        claim = f" The claim is {error.claim!a}." if isinstance(error, ClaimError) else ""
        is_open = error.code is Code.UNAVAILABLE
        self._step(name, "unknown" if is_open else "failed", meaning(error.reason) + claim)
        return self._verdict("undecided" if is_open else "denied", error.reason)

    def _step(self, name: str, outcome: Outcome, words: str) -> None:
        self._steps.append({"name": name, "outcome": outcome, "words": words})

    def _verdict(self, verdict: str, reason: str = "") -> Json:
        return {"verdict": verdict, "reason": reason, "steps": self._steps, **self._more}


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
