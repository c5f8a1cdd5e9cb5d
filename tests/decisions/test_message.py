"""A decision says the same in every form, and no form holds a token or another claim."""

import json
import weakref
from dataclasses import replace
from sys import getsizeof
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import example, given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.principal import ANONYMOUS, Principal
from authz.call.refusal import Challenge, refusal_of
from authz.decisions.decision import Decision, Door, Event, Evidence, Observer, Source, Verdict
from authz.decisions.message import decision_message
from authz.errors import AuthzError, InternalError, KeySetUnavailableError, PermissionDeniedError, TokenExpiredError
from authz.server.admin.activity import Activity
from authz.server.operations.metrics import Metrics
from authz.v1 import decision_pb2
from tests.decisions.samples import ACME, Metadata, decision

# Where the message has the name that gRFC A59 gives it.
A59 = {"method": "rpc_method", "subject": "principal", "policy": "policy_name", "rule": "matched_rule"}
# What a message has a better type for.
TYPED = {"milliseconds": "latency"}
# What a message says in one word more.
MORE = {"authorized"}
DURATIONS = {"milliseconds", "key_age"}
WORDS = {"event": "EVENT", "door": "DOOR", "verdict": "VERDICT", "source": "SOURCE", "shadow_verdict": "VERDICT"}

ERRORS = (None, TokenExpiredError(), PermissionDeniedError(), KeySetUnavailableError(), InternalError())


def said(message: decision_pb2.Decision) -> dict[str, Any]:
    """Return what a message says, in the words of the JSON line."""
    shown = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    fields = {name: shown[A59.get(name, name)] for name in decision().fields() if name not in DURATIONS}
    for name, enum in WORDS.items():
        fields[name] = fields[name].removeprefix(f"{enum}_").lower()
    fields["time"] = message.time.ToDatetime().isoformat(timespec="microseconds") + "+00:00"
    return fields


def test_message_and_line_have_the_same_fields() -> None:
    of_line = {TYPED.get(name, A59.get(name, name)) for name in decision().fields()}

    assert of_line | MORE == set(decision_pb2.Decision.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("principal", [decision().evidence.principal, ANONYMOUS], ids=["known", "unknown"])
def test_message_says_what_the_line_says(error: AuthzError | None, principal: Principal) -> None:
    one = decision(error, principal)
    message, fields = decision_message(one.record()), one.fields()

    assert message.code == (0 if error is None else error.code.value)
    assert message.authorized is (error is None)
    assert (message.latency.ToTimedelta().total_seconds() * 1e3, message.key_age.ToTimedelta().total_seconds()) == (
        pytest.approx(fields["milliseconds"], abs=0.001),
        fields["key_age"],
    )
    assert said(message) | {"code": fields["code"]} == {
        name: value for name, value in fields.items() if name not in DURATIONS
    }


@pytest.mark.parametrize(
    ("words", "enum"),
    [
        (Verdict, decision_pb2.Decision.Verdict),
        (Event, decision_pb2.Decision.Event),
        (Door, decision_pb2.Decision.Door),
        (Source, decision_pb2.Decision.Source),
    ],
    ids=["verdict", "event", "door", "source"],
)
def test_every_word_has_its_number(words: Any, enum: Any) -> None:
    unspecified, *names = enum.keys()

    assert unspecified.endswith("_UNSPECIFIED")
    assert {name.partition("_")[2].lower() for name in names} == set(words.__args__)


def test_stream_that_ended_has_no_latency_and_keys_that_were_not_fetched_no_age() -> None:
    message = decision_message(decision()._replace(event="stream_ended", key_age=None, seconds=0.0).record())

    assert not message.HasField("latency")
    assert not message.HasField("key_age")


def test_decision_that_no_policy_on_trial_has_seen_says_nothing_of_one() -> None:
    one = decision()
    one.evidence.shadow_verdict = one.evidence.shadow_rule = ""
    message = decision_message(one.record())

    assert (message.shadow_verdict, message.shadow_rule) == (decision_pb2.Decision.VERDICT_UNSPECIFIED, "")


# ---- What no form holds ----

SECRET = "eyJhbGciOiJub25lIn0"
secrets = st.text(max_size=3).map(lambda text: text + SECRET)
# A token's JSON can hold halves of characters, which fit into no message.
texts = st.text(st.one_of(st.characters(), st.just("\ud800")), max_size=5)
principals = st.builds(
    Principal,
    org_id=texts,
    client_id=texts,
    subject=texts,
    scopes=st.frozensets(texts, max_size=3),
    token_id=texts,
    key_id=texts,
    issuer=secrets,
    audience=st.tuples(secrets),
    certificate=secrets,
    claims=st.dictionaries(secrets, secrets, min_size=1, max_size=2),
)


@pytest.mark.parametrize("observer", [Activity(), Metrics(engine="grpcio")], ids=["admin-page", "metrics"])
def test_observer_that_counts_keeps_nothing_of_the_question(observer: Observer) -> None:
    one = decision()
    metadata = Metadata([("authorization", "Bearer a")])
    question = weakref.ref(metadata)
    observer(one._replace(call=one.call._replace(metadata=metadata)))
    del one, metadata

    assert question() is None


@example(principal=ACME, method="/a.B/C", scopes=frozenset(["\U00010000" * 1000, "a" * 1000]))
@given(principal=principals, method=st.text(max_size=600), scopes=st.frozensets(st.text(max_size=9), max_size=40))
def test_record_takes_no_more_memory_than_it_says(principal: Principal, method: str, scopes: frozenset[str]) -> None:
    one = decision(principal=replace(principal, scopes=scopes), method=method).record()
    texts = [one.method, one.organization, one.client, one.subject, one.token_id, one.key_id, *one.scopes]
    numbers = [one.time, one.key_age, one.seconds, one.size]

    assert sum(map(getsizeof, [one, one.scopes, *texts, *numbers])) <= one.size


@given(principal=principals, method=texts, credentials=secrets, error=st.sampled_from(ERRORS))
def test_no_form_holds_a_token_or_another_claim(
    principal: Principal, method: str, credentials: str, error: AuthzError | None
) -> None:
    evidence = Evidence()
    evidence.principal = principal
    call = Call(method, [("authorization", credentials), ("x-custom", credentials)], credentials=[credentials])
    one = Decision(call, evidence, None if error is None else refusal_of(error, Challenge()), 0.0)

    assert SECRET not in json.dumps(one.fields())
    assert SECRET not in str(decision_message(one.record()))
    assert SECRET.encode() not in decision_message(one.record()).SerializeToString()
