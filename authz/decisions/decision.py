"""What was decided about a call and on what grounds, for observers that count or record decisions."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Refusal
from authz.call.verb import MAX_VERB
from authz.errors import Code
from authz.organizations.organization import Organization
from authz.organizations.quota import Quota
from authz.runtime.text.printable import bounded

Source = Literal["none", "public", "proxy", "cache", "signature", "introspection", "envoy"]
"""What a verdict rests on: no valid credentials, a public method, the word of a trusted proxy, a remembered token, a
signature checked just now, or in addition to these the issuer's answer about the token; or an answer of the server that
Envoy has repeated."""

Verdict = Literal["allowed", "denied", "undecided", "failed"]

Event = Literal["decision", "stream_ended", "route_refused"]
"""What was decided: whether a call may begin; that a stream that was allowed must end; or that a call that was allowed
is refused by its route, which asks for more."""

Door = Literal["grpc", "grpc_aio", "envoy", "asgi", "wsgi", "fastapi", "connect", "forward_auth", "other"]
"""Where the call came in: ``interceptors``, ``interceptors.aio``, ``authz serve`` as Envoy asks it, ``authz.asgi``,
``authz.wsgi``, ``authz.fastapi``, ``authz.connect``, ``authz serve`` as other proxies ask it; or a door that is not of
this package."""

_VERDICTS: dict[Code, Verdict] = {
    Code.UNAUTHENTICATED: "denied",
    Code.PERMISSION_DENIED: "denied",
    Code.RESOURCE_EXHAUSTED: "denied",
    Code.UNAVAILABLE: "undecided",
    Code.INTERNAL: "failed",
}

# From a remembered token (50 µs) to one that waits for keys for the longest time allowed (5 s).
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The upper bounds, in seconds, by which observers count how long decisions took."""

# The caller chooses it, and may make it as long as headers may be.
MAX_METHOD = 512
"""How many characters of a method name are recorded."""

RECORDED_VERB = MAX_VERB + 1
"""How many characters of an HTTP method: one more than a rule may name, so that a replay refuses it as well."""

# A record without its texts, each scope, and each character, which takes up to four bytes.
_OWN_BYTES, _SCOPE_BYTES, _CHARACTER_BYTES = 1000, 200, 4


class Evidence:
    """What the judge finds out about one call; it fills this in on its way to a verdict.

    Attributes:
        principal: the caller, once known, even if the call is refused in the end; else ``ANONYMOUS``.
        source: what that rests on.
        policy: the name of the policy that decided; empty if none did.
        rule: its rule that decided; empty if none did.
        shadow_verdict: what a policy on trial says; empty if none was asked.
        shadow_rule: its rule that says so, if one does.
        isolation: how the door checks whose data the request is about, as in force together with the policy.
        quota: the plan by which the call was counted; ``None`` if it was not.
        organization: what is known about the caller's organization; ``None`` until that has been asked.
        in_force: what was in force when the call was judged; another object once that has been replaced.
        order_source: where the order came from that the call was refused for; empty if none was the reason.

    """

    # Set on the class, so that noting nothing costs nothing: most calls need few of them.
    principal: Principal = ANONYMOUS
    source: Source = "none"
    policy: str = ""
    rule: str = ""
    shadow_verdict: Verdict | Literal[""] = ""
    shadow_rule: str = ""
    isolation: Any = None
    quota: Quota | None = None
    organization: Organization | None = None
    in_force: Any = None
    order_source: str = ""


class Decision(NamedTuple):
    """One decision.

    Args:
        call: the call.
        evidence: what the judge found out about it.
        refusal: the caller's answer, or ``None`` if the call was allowed.
        seconds: how long the decision took, waiting included; 0 for a stream that ends.
        door: where the call came in.
        event: what was decided.
        time: when, in POSIX seconds.
        key_age: seconds since the issuer's keys were fetched, or ``None`` if they were not, or it is not known.
        client_name: what the caller's application is called; empty where that is not known.

    """

    call: Call
    evidence: Evidence
    refusal: Refusal | None
    seconds: float
    door: Door = "envoy"
    event: Event = "decision"
    time: float = 0.0
    key_age: float | None = None
    client_name: str = ""

    @property
    def verdict(self) -> Verdict:
        """The outcome, in a word."""
        return "allowed" if self.refusal is None else _VERDICTS[self.refusal.code]

    def record(self) -> "Record":
        """Return all that may be recorded of it, without the call itself; cheap enough for any thread."""
        call, evidence, refusal, seconds, door, event, time, key_age, name = self
        principal, method, verb = evidence.principal, call.method[:MAX_METHOD], call.verb[:RECORDED_VERB]
        scopes = principal.scopes
        organization, client, subject = principal.org_id, principal.client_id, principal.subject
        token_id, key_id = principal.token_id, principal.key_id
        texts = len(method) + len(verb) + len(organization) + len(client) + len(subject) + len(token_id) + len(key_id)
        texts += len(name)
        return Record(
            time,
            event,
            door,
            method,
            verb,
            "allowed" if refusal is None else _VERDICTS[refusal.code],
            None if refusal is None else refusal.code,
            "" if refusal is None else refusal.reason,
            organization,
            client,
            name,
            subject,
            scopes,
            token_id,
            key_id,
            key_age,
            evidence.policy,
            evidence.rule,
            evidence.shadow_verdict,
            evidence.shadow_rule,
            evidence.source,
            evidence.order_source,
            seconds,
            _OWN_BYTES + _SCOPE_BYTES * len(scopes) + _CHARACTER_BYTES * (texts + len("".join(scopes))),
        )

    def fields(self) -> dict[str, Any]:
        """Return what :meth:`Record.fields` does."""
        return self.record().fields()


class Record(NamedTuple):
    """What may be recorded of a decision, to be kept until it is read.

    It holds no token, and no claims but the caller, the scopes, and the ids of token and key.
    Its values are those of :meth:`fields`, before they are made ready for JSON.
    """

    time: float
    event: Event
    door: Door
    method: str
    verb: str
    verdict: Verdict
    code: Code | None
    reason: str
    organization: str
    client: str
    client_name: str
    subject: str
    scopes: frozenset[str]
    token_id: str
    key_id: str
    key_age: float | None
    policy: str
    rule: str
    shadow_verdict: Verdict | Literal[""]
    shadow_rule: str
    source: Source
    order_source: str
    seconds: float
    size: int
    """At most how many bytes of memory it takes, with all that the caller chose."""

    def fields(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="microseconds"),
            "event": self.event,
            "door": self.door,
            "method": text(self.method),
            "verb": text(self.verb),
            "verdict": self.verdict,
            "code": "OK" if self.code is None else self.code.name,
            "reason": self.reason,
            "organization": text(self.organization),
            "client": text(self.client),
            "client_name": text(self.client_name),
            "subject": text(self.subject),
            "scopes": sorted(map(text, self.scopes)),
            "token_id": text(self.token_id),
            "key_id": text(self.key_id),
            "key_age": None if self.key_age is None else round(self.key_age, 3),
            "policy": self.policy,
            "rule": self.rule,
            "shadow_verdict": self.shadow_verdict,
            "shadow_rule": self.shadow_rule,
            "source": self.source,
            "order_source": self.order_source,
            "milliseconds": round(self.seconds * 1e3, 3),
        }


def text(value: str) -> str:
    """Return ``value`` as it may be recorded: without its end if it is long, and without what UTF-8 cannot express."""
    value = bounded(value)
    # A lone surrogate fits into JSON, but not into UTF-8 or a message.
    return value if value.isascii() else value.encode(errors="replace").decode()


Observer = Callable[[Decision], None]
"""Is called with every decision before the answer, on the thread that decides; so it must not wait for anything."""
