"""A few decisions are kept for those who look, and nothing while none does."""

import json

from authz.decisions.sample import ON_SECONDS, SAMPLED, Sample, Sampled
from authz.errors import PermissionDeniedError
from tests.decisions.samples import decision
from tests.doubles import NOW

NOTHING = Sampled([], 0)


def looked_at() -> Sample:
    sample = Sample()
    assert sample.look(NOW) == NOTHING
    return sample


def test_nothing_is_kept_until_someone_looks() -> None:
    sample = Sample()
    sample(decision())
    assert sample.look(NOW) == NOTHING
    sample(decision())
    assert len(sample.look(NOW + 1).decisions) == 1


def test_nothing_is_kept_once_no_one_looks_any_more() -> None:
    sample = looked_at()
    sample(decision()._replace(time=NOW + ON_SECONDS))
    assert sample.look(NOW + 1) == NOTHING


def test_what_was_decided_before_a_pause_is_not_news() -> None:
    sample = looked_at()
    sample(decision())
    assert sample.look(NOW + ON_SECONDS) == NOTHING


def test_a_flood_of_one_kind_hides_no_other_and_is_counted() -> None:
    sample = looked_at()
    for _ in range(1000):
        sample(decision())
    for _ in range(3):
        sample(decision(PermissionDeniedError()))
    kept = sample.look(NOW + 1)

    verdicts = [each["verdict"] for each in kept.decisions]
    assert (verdicts.count("allowed"), verdicts.count("denied"), kept.left_out) == (SAMPLED, 3, 1000 - SAMPLED)
    assert sample.look(NOW + 2) == NOTHING


def test_decisions_are_told_in_order_without_token_claims_or_headers() -> None:
    sample = looked_at()
    sample(decision(credentials="Bearer secret.of.caller")._replace(time=NOW + 2))
    sample(decision(PermissionDeniedError(rule="no-import"))._replace(time=NOW + 1))
    told = sample.look(NOW + 3).decisions

    assert [each["time"] for each in told] == [NOW + 1, NOW + 2]
    assert told[1] == {
        "time": NOW + 2,
        "event": "decision",
        "method": "/a.B/C",
        "verb": "POST",
        "verdict": "allowed",
        "reason": "",
        "organization": "org_01JYACME",
        "client": "client_01JYPARTNER",
        "client_name": "",
        "policy": "ledger",
        "rule": "readers",
        "source": "cache",
        "order_source": "",
        "milliseconds": 1.234,
    }
    assert not any(word in json.dumps(told) for word in ("secret", "01JYTOKEN", "key-1", "ledger:write"))
