"""Names of applications: told beside the client ids of decisions, within bounds, and only of their own issuer."""

from typing import Any

import pytest

from authz.call.call import Call
from authz.decisions import client_names
from authz.decisions.client_names import ClientNames
from authz.decisions.decision import Decision, Evidence
from authz.decisions.message import decision_message
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from tests.decisions.samples import ACME, decision

ISSUER = "https://issuer.example"


def test_decision_tells_what_the_application_is_called(verifier: Verifier) -> None:
    told: list[Decision] = []
    authorizer = Authorizer(verifier, observers=[told.append])
    evidence = Evidence()
    evidence.principal = ACME
    for name in ("Tills", ""):
        authorizer.telling.client_names.learn({ACME.client_id: name})
        authorizer.telling.decided(Call(method="/a.B/C", metadata=()), evidence, None, 0.1, door="grpc")
        authorizer.telling.repeated(decision())

    assert [each.fields()["client_name"] for each in told] == ["Tills", "Tills", "", ""]
    assert decision_message(told[0].record()).client_name == "Tills"
    assert told[0].record().size > told[2].record().size


def test_name_is_told_only_of_the_applications_of_its_issuer() -> None:
    names = ClientNames(ISSUER)
    names.learn({"c": "Tills"})
    issuers = ("", ISSUER, "https://other.example")

    assert [names.of(_caller(issuer)) for issuer in issuers] == ["", "Tills", ""]


def test_names_are_bounded_and_those_that_are_known_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_names, "MAX_NAMES", 2)
    names = ClientNames()
    names.learn({"a": "A", "b": "B", "c": "C"})
    names.learn({"a": "new"})

    assert (len(names), names.of(_caller(client_id="a")), names.of(_caller(client_id="c"))) == (2, "new", "")
    names.learn({"b": "", "c": "C"})
    assert (len(names), names.of(_caller(client_id="c"))) == (2, "C")


def _caller(issuer: str = "", client_id: str = "c") -> Any:
    return type(ACME)(org_id="o", client_id=client_id, subject="s", issuer=issuer)
