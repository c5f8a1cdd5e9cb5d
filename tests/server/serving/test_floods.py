"""Floods, through real ext_authz servers: none lets anybody in, and none keeps others out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from authz import Assurance, Authorizer, Introspector, Verifier
from authz.demo.issuer.signing import SigningKey
from authz.issuer.introspection import MAX_WAITING
from authz.server.serving.server import EngineName
from tests.doubles import ISSUER, ORG, FakeIssuer, FakeTransport, json_response, m2m_claims
from tests.envoy.check.messages import GRPC, CheckRequest, CheckResponse, Denial, bearer, in_headers
from tests.server.serving.serving import Served, serving

pytestmark = pytest.mark.usefixtures("patience")

FLOOD = "org_01JYFLOOD0000000000000000"

ROOM = 16 + MAX_WAITING
"""How many questions may be under way or wait for their turn."""


@dataclass
class Flooded:
    """A server that asks the issuer about every token, and what it is asked."""

    served: Served
    introspector: Introspector
    questions: FakeTransport
    keys: FakeTransport
    key: SigningKey
    withdrawn: set[str]
    number: int = 0

    def question(self, org_id: str, *, kid: str = "", is_withdrawn: bool = False) -> CheckRequest:
        """Return the question about a call with a token of its own."""
        self.number += 1
        token = self.key.sign(m2m_claims(org_id=org_id, jti=f"token-{self.number}"), {"kid": kid} if kid else None)
        if is_withdrawn:
            self.withdrawn.add(token)
        return in_headers(GRPC, bearer(token))

    def begin(self, number: int, org_id: str, **how: Any) -> list[Any]:
        return [self.served.begin(self.question(org_id, **how)) for _ in range(number)]

    def until_refused(self, number: int) -> None:
        """Let everything run until so many questions have found no room."""
        self.served.until(lambda: self.introspector.counters.overloaded == number)

    def verdicts(self, calls: Iterable[Any]) -> Counter[str]:
        responses = [CheckResponse.FromString(self.served.run(call)) for call in calls]
        return Counter("allowed" if one.status.code == 0 else Denial(one).reason for one in responses)


@pytest.fixture
def if_unavailable() -> str:
    return "deny"


@pytest.fixture
def flooded(
    issuer: FakeIssuer, verifier: Verifier, ec_key: SigningKey, engine: EngineName, if_unavailable: Any
) -> Iterator[Flooded]:
    withdrawn: set[str] = set()
    questions = Questions(withdrawn)
    introspector = Introspector(ISSUER, client_id="c", client_secret="s", transport=questions, clock=verifier.clock)
    assurance = Assurance(if_unavailable=if_unavailable)
    authorizer = Authorizer(verifier, introspector=introspector, assurance=assurance)
    verifier.warm_up()
    with serving(authorizer, "127.0.0.1:0", engine=engine) as served:
        yield Flooded(served, introspector, questions, issuer.transport, ec_key, withdrawn)
        issuer.transport.release()
        questions.release()


class Questions(FakeTransport):
    """An introspection endpoint in memory, which knows what has been withdrawn."""

    def __init__(self, withdrawn: set[str]) -> None:
        super().__init__(lambda: json_response({"active": True}))
        self._withdrawn = withdrawn
        self._tokens: list[str] = []

    def fetch(self, method: str, url: str, *, form: Any = None, headers: Any = None) -> Any:
        assert form is not None
        is_active = form["token"] not in self._withdrawn
        self.answer = lambda: json_response({"active": is_active})
        return super().fetch(method, url, form=form, headers=headers)

    def release(self) -> None:
        """Answer those who wait, each about its own token."""
        asked = [request.form["token"] for request in self.requests[-self.pending :] if request.form is not None]
        self._hangs = False
        for token, future in zip(asked, self.take_over(), strict=False):
            future.set_result(json_response({"active": token not in self._withdrawn}))


@pytest.mark.parametrize("if_unavailable", ["local", "deny"])
def test_forty_withdrawn_tokens_at_once_get_in_nowhere(flooded: Flooded) -> None:
    """R1: 27 of 39 got in while a healthy issuer was being asked about the others."""
    flooded.questions.hang()
    calls = flooded.begin(40, ORG, is_withdrawn=True)
    flooded.served.until(lambda: flooded.questions.pending == 16)
    flooded.questions.release()

    assert flooded.verdicts(calls) == {"TOKEN_INACTIVE": 40}
    assert flooded.questions.fetches == 40


@pytest.mark.parametrize("if_unavailable", ["local"])
def test_a_withdrawn_token_does_not_get_in_beside_the_flood_of_another_organization(flooded: Flooded) -> None:
    """R1."""
    flooded.questions.hang()
    flood = flooded.begin(ROOM + 100, FLOOD)
    flooded.until_refused(100)
    withdrawn = flooded.begin(1, ORG, is_withdrawn=True)
    flooded.until_refused(101)
    flooded.questions.release()

    assert flooded.verdicts(withdrawn) == {"TOKEN_INACTIVE": 1}
    assert flooded.verdicts(flood) == {"allowed": ROOM - 1, "OVERLOADED": 101}


def test_the_flood_of_one_organization_leaves_the_good_tokens_of_others_allowed(flooded: Flooded) -> None:
    """R2: 29 of 43 were refused."""
    flooded.questions.hang()
    flood = flooded.begin(ROOM + 100, FLOOD)
    flooded.until_refused(100)
    good = [call for number in range(43) for call in flooded.begin(1, f"org_01JYGOOD{number:016}")]
    flooded.until_refused(143)
    flooded.questions.release()

    assert flooded.verdicts(good) == {"allowed": 43}
    assert flooded.verdicts(flood) == {"allowed": ROOM - 43, "OVERLOADED": 143}


def test_made_up_kids_leave_room_for_whoever_must_be_asked_about(flooded: Flooded) -> None:
    """R4: while a fetch of the keys hung, they took every place, and good tokens were refused."""
    flooded.keys.hang()
    made_up = [call for number in range(300) for call in flooded.begin(1, FLOOD, kid=f"nobody-{number}")]
    good = flooded.begin(20, ORG)

    assert flooded.verdicts(good) == {"allowed": 20}
    flooded.keys.release()
    assert set(flooded.verdicts(made_up)) <= {"KEY_NOT_FOUND", "KEY_UNDECIDED", "KEY_SET_UNAVAILABLE", "OVERLOADED"}
