import asyncio
import base64
import itertools
import json
import logging
import threading
from concurrent.futures import CancelledError
from email.utils import formatdate
from urllib.parse import parse_qsl

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, Code, ConfigError, TokenDeniedError, TokenEndpointError
from authz.issuer.token_source import ClientCredentials, replace_token
from authz.runtime.clock import Clock
from authz.runtime.flow import arun, run
from authz.runtime.network.transport import Transport, TransportError
from tests.doubles import ISSUER, NOW, FakeTokenEndpoint, start_afresh
from tests.loopback import Connection, Loopback

SECRET = "a secret: 100% & more"


@pytest.fixture
def endpoint():
    return FakeTokenEndpoint()


@pytest.fixture
def transport(endpoint):
    return endpoint.transport


@pytest.fixture
def new_source(transport, clock):
    """Return a function that builds a token source without a token."""

    def build(jitter=0.0, **options):
        return ClientCredentials(
            **{
                "issuer": None if "token_url" in options else ISSUER,
                "client_id": "client_a",
                "client_secret": SECRET,
                "transport": transport,
                "clock": clock.clock,
                "jitter": lambda: jitter,
                **options,
            }
        )

    return build


@pytest.fixture
def source(new_source):
    return new_source()


def refusal(source):
    with pytest.raises(AuthzError) as caught:
        source.token()
    return caught.value


# ---- The request ----


def test_the_secret_is_in_the_body(source, transport):
    """I1, I2: as WorkOS documents it."""
    source.token()

    assert transport.requests == [
        (
            "POST",
            f"{ISSUER}/oauth2/token",
            {"grant_type": "client_credentials", "client_id": "client_a", "client_secret": SECRET},
            {},
        )
    ]


def test_the_secret_can_be_in_a_header(new_source, transport):
    """RFC 6749 section 2.3.1: form-encoded, and then Basic."""
    new_source(auth_method="client_secret_basic").token()
    (request,) = transport.requests
    scheme, _, pair = request.headers["authorization"].partition(" ")

    assert (scheme, base64.b64decode(pair)) == ("Basic", b"client_a:a+secret%3A+100%25+%26+more")
    assert request.form == {"grant_type": "client_credentials"}


@pytest.mark.parametrize("scope", ["ledger:read ledger:write", ["ledger:read", "ledger:write"]])
def test_scopes_can_be_asked_for(new_source, transport, scope):
    new_source(scope=scope).token()

    assert transport.requests[0].form["scope"] == "ledger:read ledger:write"


RESOURCE = "https://ledger.example/v1?tenant=a"


@pytest.mark.parametrize("resource", [RESOURCE, [RESOURCE], (each for each in [RESOURCE])])
def test_a_resource_and_an_audience_can_be_asked_for(new_source, transport, resource):
    """RFC 8707 section 2; the audience is Auth0's."""
    new_source(resource=resource, audience="ledger").token()
    form = transport.requests[0].form

    assert (form["resource"], form["audience"]) == ([RESOURCE], "ledger")


def test_neither_is_sent_where_it_is_not_given(source, transport):
    source.token()

    assert not {"resource", "audience"} & transport.requests[0].form.keys()


def test_the_endpoint_can_be_chosen(new_source, transport):
    new_source(token_url="https://tokens.example/t").token()

    assert transport.requests[0].url == "https://tokens.example/t"


def test_a_slash_at_the_end_of_the_issuer_does_not_matter(new_source, transport):
    new_source(issuer=ISSUER + "/").token()

    assert transport.requests[0].url == f"{ISSUER}/oauth2/token"


# ---- Fresh, stale, gone ----


@pytest.mark.usefixtures("source")
def test_nothing_is_fetched_before_anybody_asks(transport):
    assert transport.fetches == 0


def test_one_token_serves_many_calls(source, transport):
    assert ([source.token() for _ in range(10)], transport.fetches) == (["token-1"] * 10, 1)


@pytest.mark.parametrize(
    ("lifetime", "jitter", "due"),
    [
        pytest.param(300, 0, 240, id="a-minute-before"),
        pytest.param(300, 1, 234, id="a-minute-and-a-tenth-before"),
        pytest.param(300, -1, 246, id="a-minute-less-a-tenth-before"),
        pytest.param(3600, 0, 3240, id="a-tenth-before"),
        pytest.param(30, 0, 15, id="half-of-a-short-life"),
    ],
)
def test_a_token_is_fetched_ahead_of_need(new_source, clock, lifetime, jitter, due):
    """I3: at the larger of 60 s and a tenth of its life before it expires."""
    endpoint = FakeTokenEndpoint()
    endpoint.changes = {"expires_in": lifetime}
    source = new_source(jitter, transport=endpoint.transport)
    source.token()
    clock.advance(due - 1)
    source.token()
    assert endpoint.transport.fetches == 1

    clock.advance(1)
    source.token()
    assert endpoint.transport.fetches == 2


def test_a_fetch_ahead_stands_in_nobodys_way(source, transport, clock):
    source.token()
    clock.advance(240)
    transport.hang()

    assert [source.token() for _ in range(10)] == ["token-1"] * 10
    assert transport.fetches == 2
    transport.release()
    assert source.token() == "token-2"


@pytest.mark.parametrize(("age", "token"), [(294, "token-1"), (295, "token-2")])
def test_a_token_is_not_used_up_to_its_last_second(source, transport, clock, age, token):
    """It has to travel; without the fetch ahead, which hangs here, the call would wait."""
    source.token()
    clock.advance(240)
    transport.hang()
    source.token()
    clock.advance(age - 240)
    begun = source.token_flow()
    waits = list(itertools.islice(begun, 1))
    transport.release()

    assert waits == [] if token == "token-1" else run(begun, waiting=waits[0]) == token


def test_while_the_endpoint_fails_the_old_token_serves(source, transport, clock):
    """One call a second: attempts after 240, 241, 243, 247, 255 and 271 s."""
    source.token()
    transport.down()
    tokens = set()
    for _ in range(294):
        clock.advance(1)
        tokens.add(source.token())

    assert (tokens, transport.fetches - 1) == ({"token-1"}, 6)


def test_an_expired_token_is_not_handed_out(source, transport, clock):
    source.token()
    transport.down()
    clock.advance(295)

    assert refusal(source).reason == "token_endpoint_unavailable"


def test_a_token_may_expire_while_it_is_fetched(source, transport, clock):
    transport.hang()
    flow = source.token_flow()
    wait = next(flow)
    clock.advance(400)
    transport.release()

    with pytest.raises(TokenEndpointError, match="has expired"):
        flow.send(wait.future.result(0))


# ---- One at a time ----


def test_a_hundred_callers_make_one_request(source, transport):
    transport.hang()
    flows = [source.token_flow() for _ in range(100)]
    waits = [next(flow) for flow in flows]
    transport.release()

    assert {run(flow, waiting=wait) for flow, wait in zip(flows, waits, strict=True)} == {"token-1"}
    assert transport.fetches == 1


def test_threads_share_one_request(source, transport):
    transport.hang()
    tokens = []
    all_wait = threading.Barrier(11, timeout=120)

    def ask():
        flow = source.token_flow()
        wait = next(flow)
        all_wait.wait()
        tokens.append(run(flow, waiting=wait))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    all_wait.wait()
    transport.release()
    for thread in threads:
        thread.join()

    assert (tokens, transport.fetches) == (["token-1"] * 10, 1)


def test_tasks_share_one_request_which_none_of_them_can_cancel(source, transport):
    transport.hang()

    async def scenario():
        tasks = [asyncio.create_task(source.atoken()) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        transport.release()
        return await asyncio.gather(*tasks[1:])

    assert (asyncio.run(scenario()), transport.fetches) == (["token-1"] * 9, 1)


def test_patience_ends_after_ten_seconds(source, transport):
    transport.hang()
    flow = source.token_flow()

    assert next(flow).seconds == 10.0
    with pytest.raises(TokenEndpointError, match="did not answer in time"):
        flow.throw(TimeoutError())


def test_who_lost_patience_leaves_the_request_to_the_next(source, transport):
    transport.hang()
    impatient = source.token_flow()
    next(impatient)
    with pytest.raises(TokenEndpointError):
        impatient.throw(TimeoutError())
    patient = source.token_flow()
    wait = next(patient)
    transport.release()

    assert (run(patient, waiting=wait), transport.fetches) == ("token-1", 1)


# ---- Failures ----


@pytest.mark.parametrize("status", [401, 400])
def test_a_refusal_is_permanent_for_half_a_minute(source, endpoint, transport, clock, status):
    """I5: the secret will not become right by asking again."""
    endpoint.refuses(status, {"error": "invalid_client"})
    refusal(source)
    clock.advance(29)
    assert (refusal(source).retry_after, transport.fetches) == (1.0, 1)

    clock.advance(1)
    refusal(source)
    assert transport.fetches == 2


def test_a_refusal_drops_the_token_that_was_good(source, endpoint, clock):
    """I5: the application may have been revoked."""
    source.token()
    endpoint.refuses(401, {"error": "invalid_client"})
    clock.advance(240)
    assert source.token() == "token-1"

    assert "invalid_client" in str(refusal(source))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 204, 201])
def test_other_failures_pass(source, endpoint, transport, clock, status):
    """I5: after 1 s, then 2 s, then 4 s, and so on."""
    endpoint.refuses(status)
    for pause in (1, 2, 4, 8):
        assert refusal(source).retry_after == pause
        clock.advance(pause)
    endpoint.works()

    assert (source.token(), transport.fetches) == ("token-1", 5)


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        pytest.param("17", 17.0, id="seconds"),
        pytest.param("0", 1.0, id="zero"),
        pytest.param("99999999", 3600.0, id="an-hour-at-the-most"),
        pytest.param("9" * 5000, 3600.0, id="many-digits"),
        pytest.param("-5", 1.0, id="negative"),
        pytest.param("1e9", 1.0, id="exponent"),
        pytest.param("٣", 1.0, id="other-digits"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", 1.0, id="date-that-is-over"),
        pytest.param("", 1.0, id="empty"),
    ],
)
def test_the_endpoint_may_ask_for_a_pause(source, endpoint, value, pause):
    endpoint.refuses(503, retry_after=value)

    assert refusal(source).retry_after == pause


def test_the_endpoint_may_ask_for_a_pause_until_a_date(source, endpoint):
    date, retry_after = "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:29:17 GMT"
    endpoint.refuses(503, date=date, retry_after=retry_after)

    assert refusal(source).retry_after == 77.0


PAGE = b"<html>Attention Required!</html>"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(401, {"error": "invalid_client"}, TokenDeniedError, id="client"),
        pytest.param(400, {"error": "invalid_scope"}, TokenDeniedError, id="scope"),
        pytest.param(401, b"", TokenEndpointError, id="nothing"),
        pytest.param(401, PAGE, TokenEndpointError, id="page"),
        pytest.param(400, {"message": "no"}, TokenEndpointError, id="no-oauth-error"),
        pytest.param(401, {"error": "Not Authorized"}, TokenEndpointError, id="sentence"),
        pytest.param(400, {"error": {"code": 1}}, TokenEndpointError, id="object"),
        pytest.param(400, {"error": "temporarily_unavailable"}, TokenEndpointError, id="passing"),
        pytest.param(403, {"error": "access_denied"}, TokenEndpointError, id="forbidden"),
        pytest.param(503, {"error": "invalid_client"}, TokenEndpointError, id="server"),
    ],
)
def test_only_an_oauth_error_is_the_issuers_word(source, endpoint, status, body, kind):
    """I5: RFC 6749 section 5.2; it ends calls as UNAUTHENTICATED, which no retry policy repeats."""
    endpoint.refuses(status, body)
    error = refusal(source)
    expected = (Code.UNAUTHENTICATED, 30.0) if kind is TokenDeniedError else (Code.UNAVAILABLE, 1.0)

    assert (type(error), error.code, error.retry_after) == (kind, *expected)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 421, 451, 500])
def test_what_stands_before_the_endpoint_takes_no_token_away(source, endpoint, clock, status):
    """I5: a proxy, a firewall or a page is not the issuer, and the token is good."""
    source.token()
    endpoint.refuses(status, PAGE)
    clock.advance(240)
    tokens = {source.token()}
    for _ in range(54):
        clock.advance(1)
        tokens.add(source.token())

    assert tokens == {"token-1"}
    endpoint.works()
    clock.advance(60)
    assert source.token() == "token-2"


FAILURES = [
    pytest.param(TransportError("timeout"), "timeout", id="timeout"),
    pytest.param(TransportError("redirect"), "redirect", id="I7-redirect"),
    pytest.param(CancelledError(), "closed", id="transport-closed"),
    pytest.param(ZeroDivisionError(SECRET), "unforeseen", id="unforeseen"),
]


@pytest.mark.parametrize(("failure", "words"), FAILURES)
def test_a_failed_request_can_be_followed_by_a_good_one(source, transport, clock, failure, words):
    transport.down(failure)
    assert str(refusal(source)).endswith(f": {words}")
    transport.up()
    clock.advance(1)

    assert source.token() == "token-1"


# ---- What counts as a token ----


def answer(**changes):
    good = {"access_token": "good", "expires_in": 300, "token_type": "Bearer"}
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"<html>", "not JSON", id="html"),
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param([], "not JSON", id="array"),
        pytest.param(b'{"access_token":"a","access_token":"b"}', "not JSON", id="token-twice"),
        pytest.param(answer(access_token=...), "no access token", id="no-token"),
        pytest.param(answer(access_token=""), "no access token", id="empty-token"),
        pytest.param(answer(access_token=None), "no access token", id="token-null"),
        pytest.param(answer(access_token=["x"]), "no access token", id="token-list"),
        pytest.param(answer(access_token="a\r\nx-org-id: b"), "no access token", id="token-with-newline"),
        pytest.param(answer(access_token="a b"), "no access token", id="token-with-blank"),
        pytest.param(answer(access_token="é"), "no access token", id="token-not-ascii"),
        pytest.param(answer(access_token="a" * 16385), "no access token", id="token-long"),
        pytest.param(answer(token_type=...), "not a bearer", id="I4-no-type"),
        pytest.param(answer(token_type="mac"), "not a bearer", id="I4-mac"),
        pytest.param(answer(token_type="DPoP"), "not a bearer", id="I4-dpop"),
        pytest.param(answer(token_type=None), "not a bearer", id="I4-null"),
        pytest.param(answer(expires_in=0), "number of seconds", id="I3-zero"),
        pytest.param(answer(expires_in=-1), "number of seconds", id="I3-negative"),
        *(
            pytest.param(answer(expires_in=value), "number of seconds", id=f"I3-string-{value!a}")
            for value in ("", "0", "-300", "3e2", "300.5", " 300", "three hundred", "٣٠٠", "9" * 11)
        ),
        pytest.param(answer(expires_in=True), "number of seconds", id="I3-bool"),
        pytest.param(answer(expires_in=[]), "number of seconds", id="I3-list"),
        pytest.param(b'{"access_token":"a","token_type":"bearer","expires_in":NaN}', "not JSON", id="I3-nan"),
        pytest.param(b'{"access_token":"a","token_type":"bearer","expires_in":1e999}', "not JSON", id="I3-infinite"),
    ],
)
def test_an_answer_without_a_usable_token_is_a_failure(source, endpoint, body, words):
    endpoint.refuses(200, body)

    assert words in str(refusal(source))


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER"])
def test_the_type_may_be_in_any_case(source, endpoint, kind):
    """I4."""
    endpoint.changes = {"token_type": kind}

    assert source.token() == "token-1"


def test_seconds_may_be_a_decimal_string(source, endpoint, transport, clock):
    """I3: several issuers write them so."""
    endpoint.changes = {"expires_in": "3599"}
    source.token()
    clock.advance(3238)
    source.token()
    assert transport.fetches == 1

    clock.advance(2)
    source.token()
    assert transport.fetches == 2


def jwt(**claims):
    return SigningKey.generate("k", "ES256").sign(claims)


@pytest.mark.parametrize(
    ("exp", "due"),
    [
        pytest.param(NOW + 120, 60, id="sooner"),
        pytest.param(NOW + 3000, 240, id="later"),
        pytest.param(str(NOW + 120), 240, id="no-number"),
        pytest.param(True, 240, id="bool"),
    ],
)
def test_a_token_may_only_shorten_its_own_life(source, endpoint, clock, exp, due):
    """I9: nothing has verified what it says of itself."""
    endpoint.refuses(200, answer(access_token=jwt(exp=exp)))
    source.token()
    clock.advance(due - 1)
    source.token()
    assert endpoint.transport.fetches == 1

    clock.advance(1)
    source.token()
    assert endpoint.transport.fetches == 2


def test_a_token_lives_by_the_issuers_clock_where_it_is_told(source, endpoint, transport, clock):
    """I9: ours is ten minutes fast."""
    endpoint.refuses(200, answer(access_token=jwt(exp=NOW + 300)), date=formatdate(NOW, usegmt=True))
    clock.advance(600)
    source.token()
    clock.advance(239)
    source.token()
    assert transport.fetches == 1

    clock.advance(1)
    source.token()
    assert transport.fetches == 2


def test_a_token_that_came_too_late_is_a_failure(source, endpoint):
    endpoint.refuses(200, answer(access_token=jwt(exp=NOW - 1)))

    assert "has expired already" in str(refusal(source))


@pytest.mark.parametrize(
    ("monotonic", "wall", "token"),
    [
        pytest.param(1, 400, "token-2", id="the-machine-slept"),
        pytest.param(400, 1, "token-2", id="the-time-of-day-was-set-back"),
        pytest.param(400, -1000, "token-2", id="far-back"),
        pytest.param(1, -1000, "token-1", id="set-back-while-it-is-good"),
        pytest.param(1, 1, "token-1", id="both-go-on"),
    ],
)
def test_a_token_is_as_old_as_the_clock_says_that_went_further(new_source, transport, monotonic, wall, token):
    """I9: one clock stands still while a machine sleeps, the other can be set."""
    elapsed = [0.0, 0.0]
    source = new_source(clock=Clock(lambda: NOW + elapsed[0], lambda: 1000.0 + elapsed[1]))
    source.token()
    elapsed[:] = wall, monotonic
    transport.hang()
    flow = source.token_flow()
    waits = list(itertools.islice(flow, 1))
    transport.release()

    assert (run(flow, waiting=waits[0]) if waits else source.token()) == token
    assert bool(waits) is (token == "token-2")


@pytest.mark.parametrize("absent", [True, False])
def test_without_expires_in_the_token_itself_says(source, endpoint, transport, clock, absent):
    """I3."""
    token = SigningKey.generate("k", "ES256").sign({"exp": NOW + 120})
    body = answer(access_token=token, expires_in=... if absent else None)
    endpoint.refuses(200, body)
    source.token()

    clock.advance(59)
    source.token()
    assert transport.fetches == 1
    clock.advance(1)
    source.token()
    assert transport.fetches == 2


@pytest.mark.parametrize(
    "token",
    [
        *(
            "opaque",
            "a.b",
            "a.!.c",
            "a.e30.c",
            "..",
            "a." + base64.urlsafe_b64encode(b'{"exp":"soon"}').decode() + ".c",
        ),
        "a." + base64.urlsafe_b64encode(b'{"exp": null }').decode().rstrip("=") + ".c",
    ],
)
def test_a_token_that_does_not_say_lives_a_minute(source, endpoint, transport, clock, token):
    """I3: fetched again after half of it."""
    endpoint.refuses(200, answer(access_token=token, expires_in=...))
    source.token()

    clock.advance(29)
    source.token()
    assert transport.fetches == 1
    clock.advance(1)
    source.token()
    assert transport.fetches == 2


def test_a_token_that_has_expired_already_is_a_failure(source, endpoint):
    token = SigningKey.generate("k", "ES256").sign({"exp": NOW - 1})
    endpoint.refuses(200, answer(access_token=token, expires_in=...))

    assert "number of seconds" in str(refusal(source))


# ---- Secrets ----


def test_the_secret_is_nowhere_to_be_read(new_source, endpoint, transport, clock, caplog):
    """I1: not in repr, errors or logs, whatever goes wrong, and neither is a token."""
    caplog.set_level(logging.DEBUG)
    seen = []
    for method in ("client_secret_post", "client_secret_basic"):
        source = new_source(auth_method=method)
        seen += [repr(source), str(source), source.token()]
        clock.advance(240)
        endpoint.refuses(400, {"error": SECRET, "error_description": SECRET})
        source.token()
        # What is no error code is not the issuer's word, so the token serves until it expires.
        clock.advance(60)
        seen.append(str(refusal(source)))
        transport.down(ValueError(SECRET))
        clock.advance(31)
        seen.append(str(refusal(source)))
        transport.up()
        endpoint.works()
    everything = caplog.text + "".join(text for text in seen if not text.startswith("token-"))

    assert caplog.text
    for secret in (SECRET, "100%", "token-1", "token-2", base64.b64encode(b"client_a:").decode()[:8]):
        assert secret not in everything


def test_the_repr_names_application_and_endpoint(source):
    assert repr(source) == f"ClientCredentials(token_url='{ISSUER}/oauth2/token', client_id='client_a')"


def test_a_failure_is_logged_with_its_reason(source, endpoint, caplog):
    endpoint.refuses(401, {"error": "invalid_client", "error_description": "words"})
    refusal(source)

    assert [record.fields for record in caplog.records] == [
        {"url": f"{ISSUER}/oauth2/token", "error": "status 401 (invalid_client)"}
    ]


@pytest.mark.parametrize("code", ["evil\nline", "x" * 65, "Invalid", 5, None, ["invalid_client"]])
def test_an_odd_error_code_is_not_repeated(source, endpoint, code):
    endpoint.refuses(401, {"error": code})

    assert str(refusal(source)).endswith(": status 401")


def test_the_unforeseen_is_logged_without_its_text(source, transport, caplog):
    transport.down(ZeroDivisionError(SECRET))
    refusal(source)

    assert [record.event for record in caplog.records] == ["unforeseen_error", "token_fetch_failed"]


# ---- A secret in a file ----


@pytest.fixture
def secret_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    return file


@pytest.fixture
def filed(new_source, secret_file):
    """Return a token source whose secret is in a file."""
    return new_source(client_secret=None, client_secret_file=secret_file)


def test_a_secret_may_be_in_a_file(filed, transport):
    filed.token()

    assert transport.requests[0].form["client_secret"] == SECRET


def test_a_byte_order_mark_is_no_part_of_a_secret(filed, transport, secret_file):
    secret_file.write_bytes(b"\xef\xbb\xbfanother\n")
    filed.token()

    assert transport.requests[0].form["client_secret"] == "another"


def test_a_new_secret_needs_no_restart(filed, transport, clock, secret_file):
    filed.token()
    secret_file.write_text("another")
    clock.advance(240)
    filed.token()

    assert [request.form["client_secret"] for request in transport.requests] == [SECRET, "another"]


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_text(" \n")])
def test_a_file_without_a_secret_is_named_at_once(new_source, secret_file, harm):
    harm(secret_file)

    with pytest.raises(ConfigError, match=r"^client_secret_file: '.*/secret' (cannot be read|is empty)$"):
        new_source(client_secret=None, client_secret_file=secret_file)


@pytest.mark.parametrize(
    "harm", [lambda file: file.unlink(), lambda file: file.write_text(""), lambda file: file.write_bytes(b"\xff\xfe")]
)
def test_while_the_file_cannot_be_read_the_old_token_serves(filed, transport, clock, secret_file, harm):
    filed.token()
    harm(secret_file)
    clock.advance(240)
    assert filed.token() == filed.token() == "token-1"
    clock.advance(55)
    failure = refusal(filed)
    assert f"{secret_file}" in str(failure)
    assert failure.code is Code.UNAVAILABLE

    secret_file.write_text("another")
    clock.advance(60)
    assert (filed.token(), transport.fetches) == ("token-2", 2)


def test_a_new_secret_is_tried_at_once_after_a_refusal(filed, endpoint, transport, secret_file):
    endpoint.refuses(401, {"error": "invalid_client"})
    refusal(filed)
    refusal(filed)
    assert transport.fetches == 1
    secret_file.write_text("another")
    endpoint.works()

    assert (filed.token(), transport.fetches) == ("token-1", 2)


def test_a_new_secret_that_is_refused_as_well_pauses_again(filed, endpoint, transport, secret_file):
    endpoint.refuses(401, {"error": "invalid_client"})
    refusal(filed)
    secret_file.write_text("another")
    refusal(filed)
    refusal(filed)

    assert transport.fetches == 2


def test_a_file_that_is_gone_is_no_new_secret(filed, endpoint, transport, secret_file):
    endpoint.refuses(401, {"error": "invalid_client"})
    refusal(filed)
    secret_file.unlink()
    refusal(filed)

    assert transport.fetches == 1


def test_an_outage_is_not_ended_by_a_new_secret(filed, endpoint, transport, secret_file):
    endpoint.refuses(503)
    refusal(filed)
    secret_file.write_text("another")
    refusal(filed)

    assert transport.fetches == 1


# ---- The environment ----


@pytest.fixture
def environment(monkeypatch, no_settings):  # noqa: ARG001 - it empties the environment first
    """Return a function that sets ``AUTHZ_`` variables."""
    return lambda **values: [monkeypatch.setenv(f"AUTHZ_{name.upper()}", value) for name, value in values.items()]


def test_the_environment_says_all_that_is_needed(environment, transport):
    environment(issuer=ISSUER, client_id="client_a", client_secret=SECRET, scope="ledger:read")
    ClientCredentials.from_env(transport=transport).token()

    assert transport.requests[0].url == f"{ISSUER}/oauth2/token"
    assert transport.requests[0].form == {
        "grant_type": "client_credentials",
        "client_id": "client_a",
        "client_secret": SECRET,
        "scope": "ledger:read",
    }


def test_what_the_token_is_for_can_be_in_the_environment(environment, transport):
    environment(issuer=ISSUER, client_id="client_a", client_secret=SECRET, audience="whom this very server is")
    environment(token_resource="https://a.example https://b.example", token_audience="ledger")
    ClientCredentials.from_env(transport=transport).token()
    form = transport.requests[0].form

    assert (form["resource"], form["audience"]) == (["https://a.example", "https://b.example"], "ledger")


def test_an_endpoint_and_a_file_in_the_environment_come_first(environment, transport, secret_file):
    environment(issuer=ISSUER, token_url="https://tokens.example/t", client_id="client_a")
    environment(client_secret="of another", client_secret_file=str(secret_file))
    ClientCredentials.from_env(transport=transport).token()

    assert transport.requests[0].url == "https://tokens.example/t"
    assert transport.requests[0].form["client_secret"] == SECRET
    assert "scope" not in transport.requests[0].form


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("issuer", "^issuer: missing; set AUTHZ_ISSUER or AUTHZ_TOKEN_URL$"),
        ("client_id", "^client_id: missing; set AUTHZ_CLIENT_ID$"),
        ("client_secret", "^client_secret: missing; set AUTHZ_CLIENT_SECRET or AUTHZ_CLIENT_SECRET_FILE$"),
    ],
)
def test_what_the_environment_lacks_is_named(environment, missing, message):
    needed = {"issuer": ISSUER, "client_id": "client_a", "client_secret": SECRET}
    environment(**{name: value for name, value in needed.items() if name != missing})

    with pytest.raises(ConfigError, match=message):
        ClientCredentials.from_env()


@pytest.mark.parametrize("name", ["issuer", "token_url", "client_id", "client_secret", "client_secret_file", "scope"])
def test_an_empty_variable_is_an_error(environment, name):
    environment(**{"issuer": ISSUER, "client_id": "client_a", "client_secret": SECRET, name: " "})

    with pytest.raises(ConfigError, match=f"^{name}: must not be empty.*AUTHZ_{name.upper()}$"):
        ClientCredentials.from_env()


@pytest.mark.parametrize("scope", ["", " ", [], [""]])
def test_a_scope_that_is_empty_is_an_error(scope):
    """An issuer takes none for all that the application may have."""
    with pytest.raises(ConfigError, match=r"^scope: must not be empty"):
        ClientCredentials(ISSUER, client_id="client_a", client_secret=SECRET, scope=scope)


def test_a_misspelt_variable_is_an_error(environment):
    environment(issuer=ISSUER, client_id="client_a", client_secret=SECRET, scopes="ledger:read")

    with pytest.raises(ConfigError, match=r"^AUTHZ_SCOPES: no such setting; the nearest is AUTHZ_SCOPE$"):
        ClientCredentials.from_env()


def test_variables_of_a_server_are_known(environment, transport):
    environment(issuer=ISSUER, client_id="client_a", client_secret=f"{SECRET}\n", policy="", listen="127.0.0.1:1")
    ClientCredentials.from_env(transport=transport).token()

    assert transport.requests[0].form["client_secret"] == SECRET


# ---- Tokens that a server refused ----


def test_a_refused_token_is_replaced(source, transport):
    """I6."""
    source.invalidate(source.token())

    assert (source.token(), transport.fetches) == ("token-2", 2)


@pytest.mark.parametrize("token", ["token-0", "", "TOKEN-1"])
def test_another_token_than_the_current_one_is_not_dropped(source, transport, token):
    """I6: by then it has been replaced."""
    source.token()
    source.invalidate(token)

    assert (source.token(), transport.fetches) == ("token-1", 1)


def test_a_token_may_be_refused_before_there_is_any(source):
    source.invalidate("token-1")

    assert source.token() == "token-1"


def test_twenty_calls_with_one_refused_token_make_one_request(source, transport):
    """I6."""
    refused = source.token()
    transport.hang()
    flows = [replace_token(source, refused) for _ in range(20)]
    waits = [next(flow) for flow in flows]
    transport.release()
    late = replace_token(source, refused)

    assert {run(flow, waiting=wait) for flow, wait in zip(flows, waits, strict=True)} == {run(late)} == {"token-2"}
    assert transport.fetches == 2


@pytest.mark.parametrize(("seconds", "fetches"), [(29, 3), (30, 4)])
def test_two_tokens_are_dropped_in_half_a_minute(source, transport, clock, seconds, fetches):
    """I6: a server that refuses every token does not have us ask for one per call."""
    for _ in range(10):
        source.invalidate(source.token())
    assert transport.fetches == 3
    clock.advance(seconds)
    source.invalidate(source.token())
    source.token()

    assert transport.fetches == fetches


def test_a_token_that_is_still_the_best_replaces_nothing(source):
    for _ in range(2):
        source.invalidate(source.token())

    assert run(replace_token(source, source.token())) is None


def test_an_endpoint_that_fails_replaces_nothing(source, transport):
    token = source.token()
    transport.down()

    assert run(replace_token(source, token)) is None


def test_a_source_that_fails_as_nobody_foresaw_replaces_nothing(caplog):
    class Broken:
        def token_flow(self):
            raise ZeroDivisionError(SECRET)
            yield

        def invalidate(self, token):
            """Do nothing."""

    assert run(replace_token(Broken(), "token-1")) is None
    assert [record.event for record in caplog.records] == ["unforeseen_error"]
    assert SECRET not in caplog.text


# ---- The rest ----


def test_a_forked_child_asks_for_itself(source, transport):
    transport.hang()
    next(source.token_flow())
    start_afresh(source)
    next(source.token_flow())

    assert transport.fetches == 2


def test_a_request_of_the_parent_does_not_end_the_childs(source, transport):
    transport.hang()
    next(source.token_flow())
    (parents,) = transport.take_over()
    start_afresh(source)
    next(source.token_flow())
    parents.set_exception(TransportError("connect"))

    next(source.token_flow())

    assert transport.fetches == 2


def test_closing_closes_the_transport(source, transport):
    source.close()

    assert transport.closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"issuer": None}, "^issuer and token_url: give one", id="neither"),
        pytest.param({"token_url": "https://a", "issuer": ISSUER}, "^issuer and token_url: give one", id="both"),
        pytest.param({"issuer": "http://acme.authkit.app"}, "^issuer: ", id="I1-http"),
        pytest.param({"token_url": "http://acme.authkit.app/t"}, "^token_url: ", id="I1-token-url-http"),
        pytest.param({"token_url": "https://user:pw@a/t"}, "^token_url: ", id="I1-password-in-url"),
        pytest.param({"client_id": ""}, "^client_id: must not be empty", id="no-client-id"),
        pytest.param({"client_secret": ""}, "^client_secret: must not be empty", id="no-secret"),
        pytest.param({"client_secret": None}, "^client_secret and client_secret_file: give one", id="neither-secret"),
        pytest.param({"client_secret_file": "x"}, "^client_secret and client_secret_file: give one", id="two-secrets"),
        pytest.param({"resource": "ledger"}, "^resource: 'ledger' must be an absolute URI", id="resource"),
        pytest.param({"resource": ["https://a.example", ""]}, "^resource: '' must be", id="empty-resource"),
        pytest.param({"resource": "https://a.example/#f"}, "^resource: .* without a fragment", id="fragment"),
        pytest.param({"resource": "https://[a"}, "^resource: ", id="no-uri"),
        pytest.param({"resource": "https://a.example b"}, "^resource: ", id="two-in-one"),
        pytest.param({"audience": ""}, "^audience: must not be empty$", id="empty-audience"),
        pytest.param({"auth_method": "private_key_jwt"}, "^auth_method: 'private_key_jwt' must be", id="method"),
    ],
)
def test_wrong_configuration_is_named_at_once(new_source, options, message):
    with pytest.raises(ConfigError, match=message):
        new_source(**options)


# ---- Over a real connection ----


def test_several_resources_come_over_http():
    """RFC 8707 section 2: one parameter for each."""
    body, resources = json.dumps(answer()).encode(), ["https://a.example/", "https://b.example/"]
    with Loopback(lambda connection: connection.answer(body)) as server:
        source = ClientCredentials(
            token_url=server.url, client_id="client_a", client_secret=SECRET, resource=resources, audience="ledger"
        )
        source.token()
    source.close()

    sent = parse_qsl(server.requests[0].rpartition(b"\r\n\r\n")[2].decode())
    assert [value for name, value in sent if name == "resource"] == resources
    assert dict(sent)["audience"] == "ledger"


def test_a_token_comes_over_http():
    body = json.dumps(answer()).encode()
    transport = Transport()
    with Loopback(lambda connection: connection.answer(body)) as server:
        source = ClientCredentials(
            token_url=server.url, client_id="client_a", client_secret=SECRET, transport=transport
        )

        assert asyncio.run(arun(source.token_flow())) == source.token() == "good"
    source.close()

    assert server.requests[0].endswith(
        b"\r\n\r\ngrant_type=client_credentials&client_id=client_a&client_secret=a+secret%3A+100%25+%26+more"
    )


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        pytest.param(lambda c: c.answer(b"", "location: /elsewhere", status="302 Found"), "redirect", id="I7-redirect"),
        pytest.param(Connection.say_nothing, "timeout", id="silence"),
        pytest.param(lambda c: c.answer(b"x" * 2000), "too_large", id="too-large"),
        pytest.param(Connection.reset, "protocol", id="reset"),
    ],
)
def test_an_endpoint_that_misbehaves_is_unavailable(misbehave, reason):
    # Only silence is to run into it: on a busy machine anything else may take its time.
    transport = Transport(timeout=0.3 if reason == "timeout" else 120.0, max_bytes=1000)
    with Loopback(misbehave) as server:
        source = ClientCredentials(
            token_url=server.url, client_id="client_a", client_secret=SECRET, transport=transport
        )

        assert str(refusal(source)).endswith(f": {reason}")
    source.close()

    assert len(server.requests) == 1
