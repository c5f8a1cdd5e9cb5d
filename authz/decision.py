"""What was decided about a call and on what grounds, for whoever counts or records decisions."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from authz.call import ANONYMOUS, Call, Principal
from authz.errors import Code
from authz.quota import Quota
from authz.refusal import Refusal

Source = Literal["none", "public", "proxy", "cache", "signature", "introspection"]
"""What a verdict rests on: nothing that could be believed, a public method, the word of a trusted proxy, a token
remembered, a signature just checked, or the issuer's word on top of either."""

Verdict = Literal["allowed", "denied", "undecided", "failed"]

Event = Literal["decision", "stream_ended"]
"""What was decided: whether a call may begin, or that a stream which had been allowed must end."""

Door = Literal["grpc", "grpc_aio", "envoy"]
"""Where the call came in: ``interceptors``, ``interceptors.aio`` or ``authz serve``."""

_VERDICTS: dict[Code, Verdict] = {
    Code.UNAUTHENTICATED: "denied",
    Code.PERMISSION_DENIED: "denied",
    Code.RESOURCE_EXHAUSTED: "denied",
    Code.UNAVAILABLE: "undecided",
    Code.INTERNAL: "failed",
}

# Chosen by the caller, and as long as headers may be.
MAX_METHOD = 512
"""How much of a method name is told."""


class Evidence:
    """What the judge finds out about one call on its way to a verdict; it fills this in as it goes.

    Attributes:
        principal: who calls, once that is known, also where the call is refused in the end; else ``ANONYMOUS``.
        source: what that rests on.
        policy: the name of the policy that decided; empty where none did.
        rule: its rule that decided; empty where none did.
        shadow_verdict: what a policy on trial says; empty where none was asked.
        shadow_rule: its rule that says so, if one does.
        isolation: what a door asks whose data the request is about, as it is in force together with the policy.
        quota: the plan by which the call was counted; ``None`` where it was not.
        in_force: what the judge held in force; another object once that has been replaced.

    """

    __slots__ = (
        "in_force",
        "isolation",
        "policy",
        "principal",
        "quota",
        "rule",
        "shadow_rule",
        "shadow_verdict",
        "source",
    )

    def __init__(self) -> None:
        self.principal: Principal = ANONYMOUS
        self.source: Source = "none"
        self.policy = ""
        self.rule = ""
        self.shadow_verdict: Verdict | Literal[""] = ""
        self.shadow_rule = ""
        self.isolation: Any = None
        self.in_force: Any = None
        self.quota: Quota | None = None


class Decision(NamedTuple):
    """One decision.

    Args:
        call: the call.
        evidence: what is known of it.
        refusal: what its caller got, or ``None`` if it was allowed.
        seconds: how long it took, waiting included; 0 for a stream that ends.
        door: where the call came in.
        event: what was decided.
        time: when, in POSIX seconds.
        key_age: seconds since the issuer's keys were fetched, or ``None`` where they were not, or are not known.

    """

    call: Call
    evidence: Evidence
    refusal: Refusal | None
    seconds: float
    door: Door = "envoy"
    event: Event = "decision"
    time: float = 0.0
    key_age: float | None = None

    @property
    def verdict(self) -> Verdict:
        """The outcome, in a word."""
        return "allowed" if self.refusal is None else _VERDICTS[self.refusal.code]

    def fields(self) -> dict[str, Any]:
        """Return all that may be told of it, ready for JSON.

        That holds no token, and no claim but who calls, the scopes, and the ids of token and key.
        """
        refusal, evidence = self.refusal, self.evidence
        principal = evidence.principal
        return {
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="microseconds"),
            "event": self.event,
            "door": self.door,
            "method": _text(self.call.method[:MAX_METHOD]),
            "verdict": self.verdict,
            "code": "OK" if refusal is None else refusal.code.name,
            "reason": "" if refusal is None else refusal.reason,
            "organization": _text(principal.org_id),
            "client": _text(principal.client_id),
            "subject": _text(principal.subject),
            "scopes": sorted(map(_text, principal.scopes)),
            "token_id": _text(principal.token_id),
            "key_id": _text(principal.key_id),
            "key_age": None if self.key_age is None else round(self.key_age, 3),
            "policy": evidence.policy,
            "rule": evidence.rule,
            "shadow_verdict": evidence.shadow_verdict,
            "shadow_rule": evidence.shadow_rule,
            "source": evidence.source,
            "milliseconds": round(self.seconds * 1e3, 3),
        }


def _text(value: str) -> str:
    # A lone surrogate fits into JSON, but neither into UTF-8 nor into a message.
    return value if value.isascii() else value.encode(errors="replace").decode()


Observer = Callable[[Decision], None]
"""Is told of every decision before it is answered, on the thread that decides, so it must not wait for anything."""
