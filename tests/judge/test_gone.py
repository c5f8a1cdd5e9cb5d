"""How much memory callers take, the memory of tokens decides alone: what it has forgotten, nothing else keeps."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest

from authz import Authorizer, Policy, Principal, Verifier
from authz.call.call import Call
from authz.call.metadata import TrustedMetadata
from authz.decisions.decision import Evidence
from authz.demo.issuer.signing import SigningKey
from authz.envoy.check.answer import allowed
from authz.envoy.memo.mark import Memo
from authz.http.headers import Telling, as_bytes
from authz.server.forward_auth.check import ForwardAuth
from tests.doubles import AUDIENCE, ISSUER, ORG, ManualClock, jwks, m2m_claims

TENANTS: dict[str, Any] = {
    "name": "p",
    "allow_rules": [{"name": "all"}],
    "organizations": {ORG: {"tenant": "t-1"}},
}
ROOM = 20 * 1700
METHOD = "/a.B/C"


def nothing(_judge: Authorizer) -> Callable[[Call, Principal, Evidence], object]:
    return lambda *_: None


def metadata(_judge: Authorizer) -> Callable[[Call, Principal, Evidence], object]:
    trusted = TrustedMetadata()
    return lambda _call, principal, _evidence: trusted.entries(principal)


def envoy(judge: Authorizer) -> Callable[[Call, Principal, Evidence], object]:
    return lambda _call, principal, _evidence: allowed(principal, judge.trusted)


def memo(judge: Authorizer) -> Callable[[Call, Principal, Evidence], object]:
    memo = Memo(judge, 30)
    memo.begin("1")
    return lambda call, _principal, evidence: memo.mark(call, evidence, "1")


def headers(judge: Authorizer) -> Callable[[Call, Principal, Evidence], object]:
    telling = Telling(judge.trusted, as_bytes)
    return lambda _call, principal, _evidence: telling.headers(principal)


def forward_auth(judge: Authorizer) -> Callable[[Call, Principal, Evidence], object]:
    check = ForwardAuth(judge, "none")
    return lambda call, _principal, _evidence: check.begin("GET", call.method, [(b"authorization", said(call))])


def said(call: Call) -> bytes:
    [(_, value)] = call.metadata
    return str(value).encode()


@pytest.mark.parametrize("tell", [nothing, metadata, envoy, memo, headers, forward_auth])
def test_a_caller_that_is_forgotten_is_gone(
    ec_key: SigningKey, tell: Callable[[Authorizer], Callable[[Call, Principal, Evidence], object]]
) -> None:
    clock = ManualClock()
    verifier = Verifier(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=["ES256"],
        jwks=jwks(ec_key),
        token_memory=ROOM,
        clock=clock.clock,
    )
    judge = Authorizer(verifier, policy=Policy.from_document(TENANTS))
    telling, callers = tell(judge), list[weakref.ref[Principal]]()
    for number in range(200):
        token = ec_key.sign(m2m_claims(clock.now, jti=str(number)))
        call = Call(METHOD, (("authorization", f"Bearer {token}"),))
        for _ in range(2):
            evidence = Evidence()
            principal = judge.at_once(call, evidence)
            assert principal is not None
            telling(call, principal, evidence)
        callers.append(weakref.ref(principal))
        del principal, evidence

    assert 0 < sum(caller() is not None for caller in callers) <= verifier.memories[ISSUER].figures().tokens < 40
