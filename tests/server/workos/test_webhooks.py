"""Only what WorkOS has signed counts as a webhook, and it counts for no more than a reason to ask WorkOS."""

import json
import logging
import time
from collections.abc import Iterator

import pytest
from workos.webhooks._verification import verify_header

from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.server.workos.webhooks import MAX_BODY
from tests.doubles import NOW, ManualClock
from tests.server.workos.posts import SECRET, Port, signature

BODY = json.dumps({"id": "event_1", "event": "organization.deleted", "data": {"id": "org_1", "name": "Äcme"}}).encode()
GOOD = signature(BODY, NOW)
AT, _, DIGEST = GOOD.removeprefix("t=").partition(", v1=")
NEXT, OTHER = "whsec_the-next-secret", "whsec_that-of-another"


class Taken(Port):
    """A port that counts its nudges, and takes what is signed by either of two secrets."""

    nudges = 0

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(Clock(lambda: self.clock.now, lambda: self.clock.now), self._nudged, (SECRET, NEXT))

    def _nudged(self) -> None:
        self.nudges += 1


@pytest.fixture(scope="module")
def taken() -> Iterator[Taken]:
    with Taken() as port:
        yield port


@pytest.fixture
def port(taken: Taken, clock: ManualClock) -> Taken:
    """Return the port as it is at the beginning, at the time of the clock."""
    taken.clock, taken.nudges = clock, 0
    taken.webhooks.counts.update(signed=-taken.webhooks.counts["signed"], refused=-taken.webhooks.counts["refused"])
    return taken


def test_what_workos_has_signed_is_a_nudge_and_its_answer_is_empty(port: Taken) -> None:
    assert port.post(BODY, GOOD) == 204
    assert (port.nudges, port.webhooks.counts) == (1, {"signed": 1, "refused": 0})


def test_what_we_take_the_client_of_workos_takes_too() -> None:
    header = signature(BODY, time.time())
    with Port(SYSTEM_CLOCK) as port:
        status = port.post(BODY, header)
    verify_header(event_body=BODY, event_signature=header, secret=SECRET)
    with pytest.raises(ValueError, match="Signature hash"):
        verify_header(event_body=BODY + b" ", event_signature=header, secret=SECRET)

    assert status == 204


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([signature(BODY, NOW, OTHER)], id="another secret"),
        pytest.param([signature(BODY, NOW, "")], id="no secret"),
        pytest.param([signature(BODY + b" ", NOW)], id="another body"),
        pytest.param([f"t={int(AT) + 1}, v1={DIGEST}"], id="another time"),
        pytest.param([signature(BODY, NOW - 180.001)], id="old"),
        pytest.param([signature(BODY, NOW + 180.001)], id="future"),
        pytest.param([signature(BODY, 0)], id="1970"),
        pytest.param([], id="no header"),
        pytest.param([GOOD, GOOD], id="two headers"),
        pytest.param([GOOD, signature(BODY, NOW, OTHER)], id="a good header, and another"),
        pytest.param([signature(BODY, NOW, OTHER), GOOD], id="another header, and a good one"),
        pytest.param([f"{GOOD}, v1={DIGEST}"], id="two signatures"),
        pytest.param([f"t={AT}, v1={'0' * 64}, v1={DIGEST}"], id="a wrong signature, and a good one"),
        pytest.param([f"{GOOD}, {GOOD}"], id="two in one"),
        pytest.param([f"v1={DIGEST}, t={AT}"], id="the other order"),
        pytest.param([f"t={AT};v1={DIGEST}"], id="semicolon"),
        pytest.param([f"t={AT},  v1={DIGEST}"], id="two blanks"),
        pytest.param([f"t={AT} ,v1={DIGEST}"], id="blank before the comma"),
        pytest.param([f"t={AT}, v0={DIGEST}"], id="another scheme"),
        pytest.param([f"T={AT}, V1={DIGEST}"], id="capitals"),
        pytest.param([f"t={AT}, v1={DIGEST.upper()}"], id="capital digits"),
        pytest.param([f"t={AT}, v1={DIGEST}0"], id="long"),
        pytest.param([f"t={AT}, v1={DIGEST[:-1]}"], id="short"),
        pytest.param([f"t={AT}, v1="], id="empty signature"),
        pytest.param([f"t={round(NOW)}, v1={DIGEST}"], id="seconds"),
        pytest.param([f"t=+{AT[1:]}, v1={DIGEST}"], id="sign"),
        pytest.param([f"t={AT}.0, v1={DIGEST}"], id="fraction"),
        pytest.param([DIGEST], id="only the signature"),
        pytest.param([""], id="empty"),
        pytest.param([f"{GOOD},"], id="comma at the end"),
        pytest.param([f"{GOOD}{'x' * 4000}"], id="very long"),
    ],
)
def test_what_is_not_proven_is_refused_and_no_nudge(port: Taken, headers: list[str]) -> None:
    assert port.post(BODY, *headers) == 401
    assert (port.nudges, port.webhooks.counts) == (0, {"signed": 0, "refused": 1})


@pytest.mark.parametrize("header", [GOOD, GOOD.replace(" ", "")], ids=["blank", "no blank"])
@pytest.mark.parametrize("seconds", [-180.0, 0.0, 180.0])
def test_time_may_differ_by_three_minutes_in_either_direction(
    port: Taken, clock: ManualClock, header: str, seconds: float
) -> None:
    clock.advance(seconds)

    assert port.post(BODY, header) == 204


def test_changed_body_is_refused(port: Taken) -> None:
    for changed in (BODY[:-1], BODY + b"\n", BODY.replace(b"org_1", b"org_2"), b"", b"\xff" + BODY):
        assert port.post(changed, GOOD) == 401
    assert port.nudges == 0


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"{", BODY], ids=["empty", "no text", "no JSON", "an event"])
def test_body_is_never_read_only_its_signature_counts(port: Taken, body: bytes) -> None:
    assert port.post(body, signature(body, NOW)) == 204
    assert port.post(body + b" ", signature(body, NOW)) == 401


def test_body_in_pieces_is_the_same_body(port: Taken) -> None:
    assert port.post((BODY[at : at + 7] for at in range(0, len(BODY), 7)), GOOD) == 204


@pytest.mark.parametrize("length", [1_000_000, MAX_BODY + 1])
@pytest.mark.parametrize("is_chunked", [True, False])
def test_body_that_is_too_long_is_refused_though_it_is_signed(port: Taken, length: int, *, is_chunked: bool) -> None:
    body = b"x" * length
    sent = (body[at : at + 50_000] for at in range(0, length, 50_000)) if is_chunked else body

    assert port.post(sent, signature(body, NOW)) == 413
    assert (port.nudges, port.webhooks.counts) == (0, {"signed": 0, "refused": 1})


def test_longest_body_is_taken(port: Taken) -> None:
    body = b"x" * MAX_BODY

    assert port.post(body, signature(body, NOW)) == 204


def test_each_of_several_secrets_counts_and_no_other(port: Taken) -> None:
    found = [port.post(BODY, signature(BODY, NOW, secret)) for secret in (SECRET, NEXT, OTHER, SECRET + NEXT)]

    assert found == [204, 204, 401, 401]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "", 405), ("PUT", "", 405), ("POST", "/", 404)])
def test_there_is_one_path_and_one_method(port: Taken, method: str, path: str, status: int) -> None:
    assert port.post(BODY, GOOD, method=method, path=path) == status
    assert port.nudges == 0


def test_webhook_that_is_recorded_and_sent_again_is_a_nudge_until_it_is_old(port: Taken, clock: ManualClock) -> None:
    found = [port.post(BODY, GOOD) for _ in range(3)]
    clock.advance(181)

    assert [*found, port.post(BODY, GOOD)] == [204, 204, 204, 401]


def test_nothing_of_a_post_is_logged(port: Taken, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port.post(BODY, GOOD)
    port.post(BODY, f"t={AT}, v1={'0' * 64}")
    port.post(b"x" * (MAX_BODY + 1), GOOD)

    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [line for line in ours if "org_1" in line or DIGEST in line or SECRET in line or "webhooks/" in line]
