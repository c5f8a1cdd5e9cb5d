"""Made-up decisions."""

from authz.call.call import Call
from authz.call.principal import Principal
from authz.call.refusal import Challenge, refusal_of
from authz.decisions.decision import Decision, Evidence
from authz.errors import AuthzError
from tests.doubles import NOW

ACME = Principal(
    org_id="org_01JYACME",
    client_id="client_01JYPARTNER",
    subject="client_01JYPARTNER",
    scopes=frozenset(["ledger:write", "ledger:read"]),
    token_id="01JYTOKEN",
    key_id="key-1",
    claims={"secret": "claim"},
)


def decision(
    error: AuthzError | None = None,
    principal: Principal = ACME,
    method: str = "/a.B/C",
    credentials: str = "Bearer a",
    verb: str = "POST",
) -> Decision:
    evidence = Evidence()
    evidence.principal, evidence.source, evidence.policy, evidence.rule = principal, "cache", "ledger", "readers"
    evidence.shadow_verdict, evidence.shadow_rule = "denied", "next"
    call = Call(method=method, metadata=[("authorization", credentials)], credentials=[credentials], verb=verb)
    refusal = None if error is None else refusal_of(error, Challenge())
    return Decision(call, evidence, refusal, 0.0012345, time=NOW + 0.25, key_age=12.5)


class Metadata(list[tuple[str, str | bytes]]):
    """What a caller sent; unlike a plain list it can be watched, so that tests see when it is forgotten."""
