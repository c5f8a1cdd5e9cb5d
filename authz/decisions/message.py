"""A decision as a message: ``authz.v1.Decision``."""

from google.protobuf.duration_pb2 import Duration

from authz.decisions.decision import Record
from authz.v1.decision_pb2 import Decision

_OK = 0


def decision_message(record: Record) -> Decision:
    """Return ``record`` as a message that says the same as its ``fields()``."""
    fields = record.fields()
    message = Decision(
        event=Decision.Event.Value(_name("EVENT", fields["event"])),
        door=Decision.Door.Value(_name("DOOR", fields["door"])),
        rpc_method=fields["method"],
        verb=fields["verb"],
        principal=fields["subject"],
        policy_name=fields["policy"],
        matched_rule=fields["rule"],
        shadow_verdict=_verdict(fields["shadow_verdict"] or "unspecified"),
        shadow_rule=fields["shadow_rule"],
        authorized=record.code is None,
        verdict=_verdict(fields["verdict"]),
        code=_OK if record.code is None else record.code.value,
        reason=fields["reason"],
        organization=fields["organization"],
        client=fields["client"],
        client_name=fields["client_name"],
        scopes=fields["scopes"],
        token_id=fields["token_id"],
        key_id=fields["key_id"],
        key_age=None if record.key_age is None else _duration(record.key_age),
        source=Decision.Source.Value(_name("SOURCE", fields["source"])),
        order_source=fields["order_source"],
        latency=_duration(record.seconds) if record.event == "decision" else None,
    )
    # A float of today's time is too coarse for nanoseconds.
    message.time.FromMicroseconds(round(record.time * 1e6))
    return message


def _verdict(word: str) -> Decision.Verdict.ValueType:
    return Decision.Verdict.Value(_name("VERDICT", word))


def _name(enum: str, word: str) -> str:
    return f"{enum}_{word.upper()}"


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
