"""What Envoy tells of a call that it decided is read as the judge would have told it, or not at all."""

from typing import Any

import pytest

from authz.call.principal import ANONYMOUS
from authz.envoy.access_log.entries import MAX_TOLD, UnreadableError, repeated_decision
from tests.doubles import CLIENT, NOW, ORG
from tests.envoy.access_log.entries import ABOUT, METHOD, entry, told


def test_repeated_answer_is_a_decision_about_its_caller() -> None:
    decision = repeated_decision(entry(began=NOW - 5.25), NOW)

    assert decision is not None
    fields = decision.fields()
    names = ("door", "event", "method", "verdict", "code", "source", "milliseconds")
    assert {name: fields[name] for name in names} == {
        "door": "envoy",
        "event": "decision",
        "method": METHOD,
        "verdict": "allowed",
        "code": "OK",
        "source": "envoy",
        "milliseconds": 0.0,
    }
    assert (fields["organization"], fields["client"], fields["subject"]) == (ORG, CLIENT, CLIENT)
    assert fields["scopes"] == ["ledger:read", "ledger:write"]
    assert (fields["token_id"], fields["key_id"], fields["policy"]) == ("01JYTOKEN", "ec-1", "ledger")
    assert (fields["rule"], fields["key_age"], fields["reason"]) == ("everyone", None, "")
    assert decision.time == NOW - 5.25
    assert decision.evidence.principal.issuer == ABOUT["issuer"]


@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
def test_http_method_is_that_of_the_call(verb: str) -> None:
    decision = repeated_decision(entry({"decided": True, "told": told("/a b", verb)}), NOW)

    assert decision is not None
    assert (decision.fields()["verb"], decision.fields()["method"]) == (verb, "/a b")


def test_public_method_has_no_caller() -> None:
    decision = repeated_decision(entry({"decided": True, "told": "{} GET /public"}), NOW)

    assert decision is not None
    assert decision.evidence.principal is ANONYMOUS


@pytest.mark.parametrize(
    "mark",
    [{}, {"decided": False, "told": told()}, {"told": told()}, {"decided": "true"}],
    ids=["empty", "false", "absent", "text"],
)
def test_call_that_the_judge_decided_is_not_told_again(mark: dict[str, Any]) -> None:
    assert repeated_decision(entry(mark), NOW) is None


def test_call_that_goes_on_is_told_at_its_end() -> None:
    unfinished = entry()
    unfinished.common_properties.intermediate_log_entry = True

    assert repeated_decision(unfinished, NOW) is None


@pytest.mark.parametrize("began", [0.0, NOW + 1, NOW + 1e9, NOW - 86_401], ids=["none", "soon", "future", "long-ago"])
def test_time_that_cannot_be_is_now(began: float) -> None:
    decision = repeated_decision(entry(began=began), NOW)

    assert decision is not None
    assert decision.time == NOW


@pytest.mark.parametrize(
    "said",
    [
        *(told(verb=verb) for verb in ("", "get", "GET,HEAD", "G\0", "G" * 33, "GET ", "/")),
        *(f"{{}}{rest}" for rest in (" /a", " GET", " GET ", "GET /a", "  GET /a", " GET/a")),
        *(told(path) for path in ("", "no-slash", "/" + "x" * 8192)),
        *(f"{about} /a" for about in ("", "x", "[]", "null", "7", '{"organization": 7}', "[" * 5000)),
        *(told(organization=name) for name in ("a b", "a\n", "a,b", "é", "x" * 500)),
        *("{}", "{}/a", "{}\n/a", '{} "/a"', " {} /a", 7, {}, {"a": "b"}, None),
        told(client="a\r\nb"),
        told(subject="a b"),
        told(scopes=["a"]),
        told(rule="x" * MAX_TOLD),
    ],
)
def test_mark_that_the_script_does_not_write_is_not_told(said: object) -> None:
    with pytest.raises(UnreadableError):
        repeated_decision(entry({"decided": True, "told": said}), NOW)


def test_long_texts_are_read_and_not_remembered() -> None:
    scopes = " ".join(f"scope:{number:05}" for number in range(1000))
    first, second = repeated_decision(entry(scopes=scopes), NOW), repeated_decision(entry(scopes=scopes), NOW)

    assert first is not None
    assert second is not None
    assert len(first.evidence.principal.scopes) == 1000
    assert first.evidence is not second.evidence
