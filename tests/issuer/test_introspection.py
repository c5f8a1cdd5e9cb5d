"""Asking the issuer whether a token is still active (RFC 7662): rows F1 to F8."""

import asyncio
import contextlib
import random
import threading
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from authz.call.requirements import Assurance
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.errors import AuthzError, ConfigError, IntrospectionUnavailableError, OverloadedError, TokenInactiveError
from authz.issuer.introspection import MAX_WAITING, Introspector
from authz.issuer.token_status import read_status
from authz.issuer.verifier import Verifier
from authz.runtime.flow import Wait, arun, run
from authz.runtime.network.transport import Transport, TransportError
from authz.token.claims import ClaimRules, principal_from
from authz.token.profiles import profile_of
from tests.doubles import (
    ABSENT,
    AUDIENCE,
    CLIENT,
    ISSUER,
    NOW,
    ORG,
    FakeTransport,
    json_response,
    m2m_claims,
    start_afresh,
)

URL = f"{ISSUER}/oauth2/introspection"
SECRET = "a secret: 100% & more"

ALWAYS, LATELY = Assurance(), Assurance(max_age=30)
LOCAL = Assurance(if_unavailable="local")


def workos_answer(**changes):
    """Return what WorkOS answers about the good token; a member that is ABSENT is left out."""
    good = {
        "active": True,
        "token_type": "access_token",
        "client_id": CLIENT,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": CLIENT,
        "org_id": ORG,
        "jti": m2m_claims()["jti"],
        "iat": int(NOW),
        "exp": int(NOW) + 300,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ABSENT}


class Endpoint:
    """An introspection endpoint in memory."""

    def __init__(self):
        self.body, self.status, self.headers = workos_answer(), 200, {}
        self.transport = FakeTransport(lambda: json_response(self.body, self.status, self.headers))

    def says(self, body, status=200, **headers):
        self.body, self.status = body, status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def transport(endpoint):
    return endpoint.transport


@pytest.fixture
def new_introspector(transport, clock):
    def build(**options):
        defaults = {"client_id": "client_api", "client_secret": SECRET, "transport": transport, "clock": clock.clock}
        if "endpoint" not in options:
            defaults["issuer"] = ISSUER
        return Introspector(**{**defaults, **options})

    return build


@pytest.fixture
def introspector(new_introspector):
    return new_introspector()


@pytest.fixture
def token(ec_key):
    return ec_key.sign(m2m_claims())


@pytest.fixture
def principal(standing, token):
    return standing.verify(token)


@pytest.fixture
def standing(new_verifier, ec_key):
    return new_verifier(jwks={"keys": [ec_key.public_jwk()]})


@pytest.fixture
def ask(introspector, token, principal):
    """Return a function that asks about the token, or about another text of the same claims."""

    def ask(assurance=ALWAYS, text=token, by=introspector):
        try:
            run(by.introspect(text, principal, assurance))
        except AuthzError as error:
            return error.reason
        return "active"

    return ask


@pytest.fixture
def begin(introspector, token, principal):
    """Return a function that takes a flow to its first wait."""

    def begin(assurance=ALWAYS, text=token):
        flow = introspector.introspect(text, principal, assurance)
        return flow, next(flow)

    return begin


def finish(flow, wait):
    """Send a flow what it waited for, as often as that is there; return what became of it."""
    try:
        while wait.future.done():
            wait = flow.send(wait.future.result())
    except StopIteration:
        return "active"
    except AuthzError as error:
        return error.reason
    return "waits"


def events(caplog, name="introspection_failed"):
    return [(record.levelname, record.fields["error"]) for record in caplog.records if record.event == name]


# ---- F1: the question ----


def test_the_question_is_a_form_with_our_own_credentials(ask, token, transport):
    """F1."""
    ask()
    form = {
        "token": token,
        "token_type_hint": "access_token",
        "client_id": "client_api",
        "client_secret": SECRET,
    }

    assert [(it.method, it.url, it.form) for it in transport.requests] == [("POST", URL, form)]


def test_the_endpoint_can_be_chosen(new_introspector, ask, transport):
    ask(by=new_introspector(endpoint="https://id.example/introspect"))

    assert [request.url for request in transport.requests] == ["https://id.example/introspect"]


def test_a_slash_at_the_end_of_the_issuer_is_none_in_the_path(new_introspector, ask, transport):
    ask(by=new_introspector(issuer=ISSUER + "/"))

    assert transport.requests[0].url == URL


# ---- F2, F4, F7: the answer ----

ANSWERS = [
    pytest.param(workos_answer(), "active", id="F2-true"),
    pytest.param({"active": True}, "active", id="F7-nothing-but-active"),
    pytest.param(workos_answer(jti=ABSENT), "active", id="F7-no-jti"),
    pytest.param(workos_answer(sid="app_consent_1", scope="a b", username="x"), "active", id="F7-more-than-needed"),
    pytest.param(workos_answer(aud=[AUDIENCE, "another"]), "active", id="F4-aud-list"),
    pytest.param(workos_answer(exp=NOW + 300.0), "active", id="F4-exp-as-fraction"),
    pytest.param(workos_answer(token_type="Bearer"), "active", id="F4-token-type-bearer"),
    pytest.param({"active": False}, "token_inactive", id="F2-false"),
    pytest.param(workos_answer(active=False), "token_inactive", id="F2-false-with-claims"),
    pytest.param(workos_answer(active="true"), "token_inactive", id="F2-string"),
    pytest.param(workos_answer(active=1), "token_inactive", id="F2-number"),
    pytest.param(workos_answer(active=[True]), "token_inactive", id="F2-list"),
    pytest.param(workos_answer(active=None), "token_inactive", id="F2-null"),
    pytest.param(workos_answer(active=ABSENT), "token_inactive", id="F2-missing"),
    pytest.param({}, "token_inactive", id="F2-empty"),
    pytest.param(workos_answer(iss="https://globex.authkit.app"), "token_inactive", id="F4-iss"),
    pytest.param(workos_answer(sub="client_other"), "token_inactive", id="F4-sub"),
    pytest.param(workos_answer(org_id="org_01JYGLOBEX0000000000000000"), "token_inactive", id="F4-org-id"),
    pytest.param(workos_answer(org_id=[ORG]), "token_inactive", id="F4-org-id-list"),
    pytest.param(workos_answer(org_id=None), "token_inactive", id="F4-org-id-null"),
    pytest.param(workos_answer(client_id="client_other"), "token_inactive", id="F4-client-id"),
    pytest.param(workos_answer(exp=int(NOW) + 301), "token_inactive", id="F4-exp"),
    pytest.param(workos_answer(exp=str(int(NOW) + 300)), "token_inactive", id="F4-exp-string"),
    pytest.param(workos_answer(jti="another"), "token_inactive", id="F4-jti"),
    pytest.param(workos_answer(aud="other"), "token_inactive", id="F4-aud"),
    pytest.param(workos_answer(aud=[]), "token_inactive", id="F4-aud-empty"),
    pytest.param(workos_answer(aud=AUDIENCE[:-1]), "token_inactive", id="F4-aud-substring"),
    pytest.param(workos_answer(aud={AUDIENCE: 1}), "token_inactive", id="F4-aud-unhashable"),
    pytest.param(workos_answer(aud=[[AUDIENCE], {}]), "token_inactive", id="F4-aud-nested"),
    pytest.param(workos_answer(aud=None), "token_inactive", id="F4-aud-null"),
    pytest.param(workos_answer(token_type="refresh_token"), "token_inactive", id="F4-refresh-token"),
]


@pytest.mark.parametrize(("body", "verdict"), ANSWERS)
def test_only_a_plain_and_fitting_yes_is_active(ask, endpoint, body, verdict):
    endpoint.says(body)

    assert ask() == verdict


OKTA_ORG = "https://acme.example/org"
FOREIGN_TOKEN = m2m_claims(org_id=ABSENT, client_id=ABSENT, cid=CLIENT, **{OKTA_ORG: ORG})


@pytest.mark.parametrize(
    ("said", "contradiction"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"cid": CLIENT, OKTA_ORG: ORG, "client_id": CLIENT}, "", id="the-same"),
        pytest.param({OKTA_ORG: "org_01JYGLOBEX0000000000000000"}, OKTA_ORG, id="another-organization"),
        pytest.param({OKTA_ORG: [ORG]}, OKTA_ORG, id="a-list"),
        pytest.param({OKTA_ORG: None}, OKTA_ORG, id="null"),
        pytest.param({"cid": "another"}, "cid", id="another-application"),
        pytest.param({"client_id": "another"}, "client_id", id="another-application-by-the-standard-name"),
        pytest.param({"client_id": None}, "client_id", id="no-application"),
    ],
)
def test_claims_under_other_names_are_compared_too(endpoint, said, contradiction):
    """Whatever the claim is called that names the organization or the application."""
    rules = ClaimRules(issuer=ISSUER, audiences=frozenset({AUDIENCE}), profile=profile_of("okta", org_id=OKTA_ORG))
    endpoint.says({"active": True, **said})
    status = read_status(run(answered(endpoint)), principal_from(FOREIGN_TOKEN, rules, NOW))

    assert status.is_active is (not contradiction)
    assert status.error == (f"mismatch (the issuer speaks of another token: {contradiction})" if contradiction else "")


def answered(endpoint):
    return (yield Wait(endpoint.transport.fetch("POST", URL), 1.0))


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "sub", "org_id", "client_id", "jti"])
def test_a_claim_of_another_token_is_logged_by_name_only(ask, endpoint, caplog, name):
    """F4."""
    endpoint.says(workos_answer(**{name: "secret"}))
    ask()

    assert events(caplog) == [("WARNING", f"mismatch (the issuer speaks of another token: {name})")]
    assert "'secret'" not in caplog.text


# ---- F3: no answer ----

UNAVAILABLE = [
    pytest.param({"error": "oops"}, 500, id="F3-500"),
    pytest.param({"active": False}, 503, id="F3-503-although-it-says-inactive"),
    pytest.param(workos_answer(), 201, id="F3-201-although-it-says-active"),
    pytest.param({"error": "invalid_client"}, 401, id="F3-401"),
    pytest.param({}, 403, id="F3-403"),
    pytest.param({}, 404, id="F3-404"),
    pytest.param({}, 429, id="F3-429"),
    pytest.param(b"<html>502 Bad Gateway</html>", 200, id="F3-html"),
    pytest.param(b"", 200, id="F3-empty"),
    pytest.param(b"", 204, id="F3-204"),
    pytest.param(b'{"active": tr', 200, id="F3-truncated"),
    pytest.param([{"active": True}], 200, id="F3-array"),
    pytest.param(b'{"active": false, "active": true}', 200, id="F3-name-twice"),
    pytest.param(b'{"a":' + b"[" * 100_000, 200, id="F3-deep"),
]


@pytest.mark.parametrize(("body", "status"), UNAVAILABLE)
def test_no_answer_is_unavailable_and_not_inactive(ask, endpoint, body, status):
    endpoint.says(body, status)

    assert ask() == "introspection_unavailable"


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        pytest.param(TransportError("timeout"), "timeout", id="F3-timeout"),
        pytest.param(TransportError("redirect"), "redirect", id="F3-redirect"),
        pytest.param(TransportError("too_large"), "too_large", id="F3-too-large"),
        pytest.param(CancelledError(), "closed", id="F3-transport-closed"),
        pytest.param(ZeroDivisionError("secret"), "unforeseen", id="F3-unforeseen"),
    ],
)
def test_a_failed_request_is_unavailable_and_logged(ask, transport, caplog, failure, error):
    transport.down(failure)

    assert (ask(), events(caplog)) == ("introspection_unavailable", [("WARNING", error)])
    assert "secret" not in caplog.text


def test_patience_ends_after_five_seconds(begin, transport):
    transport.hang()
    flow, wait = begin()

    assert wait.seconds == 5.0
    with pytest.raises(IntrospectionUnavailableError):
        flow.throw(TimeoutError())


# ---- F8: what to do then ----


@pytest.mark.parametrize(("body", "status"), UNAVAILABLE)
def test_the_local_verdict_stands_only_where_the_issuer_itself_says_that_it_fails(ask, endpoint, body, status):
    """F8, R1. What it answers otherwise may be for a wrong URL or secret of ours, or for what a caller does."""
    endpoint.says(body, status)

    assert ask(LOCAL) == ("active" if status >= 500 else "introspection_unavailable")


@pytest.mark.parametrize(
    ("failure", "verdict"),
    [
        pytest.param(TransportError("timeout"), "active", id="timeout"),
        pytest.param(TransportError("connect"), "active", id="connect"),
        pytest.param(TransportError("protocol"), "active", id="protocol"),
        pytest.param(TransportError("redirect"), "introspection_unavailable", id="redirect"),
        pytest.param(TransportError("too_large"), "introspection_unavailable", id="too-large"),
        pytest.param(TransportError("exhausted"), "introspection_unavailable", id="no-descriptor-of-ours-left"),
        pytest.param(CancelledError(), "introspection_unavailable", id="we-are-closing"),
        pytest.param(ZeroDivisionError(), "introspection_unavailable", id="unforeseen"),
    ],
)
def test_the_local_verdict_stands_only_where_the_issuer_gives_no_answer(ask, transport, failure, verdict):
    """R1."""
    transport.down(failure)

    assert (ask(LOCAL), ask(LOCAL, "another")) == (verdict, verdict)


def test_the_local_verdict_does_not_outweigh_the_issuers_word(ask, endpoint):
    """F8: not even where the word is remembered and the issuer has gone since."""
    endpoint.says({"active": False})
    first = ask(LOCAL)
    endpoint.transport.down()

    assert (first, ask(LOCAL)) == ("token_inactive", "token_inactive")


# ---- F6: what is remembered ----


@pytest.mark.parametrize(("age", "requests"), [(0, 1), (29.5, 1), (30, 2), (31, 2)])
def test_an_active_answer_is_remembered_for_30_seconds(ask, transport, clock, age, requests):
    ask(LATELY)
    clock.advance(age)
    ask(LATELY)

    assert transport.fetches == requests


@pytest.mark.parametrize(("max_age", "requests"), [(0, 2), (5, 2), (9.9, 2), (10.1, 1), (30, 1)])
def test_a_method_says_how_old_the_answer_may_be(ask, transport, clock, max_age, requests):
    ask(LATELY)
    clock.advance(10)
    ask(Assurance(max_age=max_age))

    assert transport.fetches == requests


def test_always_means_always(ask, transport):
    """Also within one tick of the clock."""
    assert [ask(ALWAYS) for _ in range(5)] == ["active"] * 5
    assert transport.fetches == 5


def test_an_answer_to_always_serves_those_who_are_content_with_less(ask, transport, clock):
    ask(ALWAYS)
    clock.advance(1)
    ask(LATELY)

    assert transport.fetches == 1


@pytest.mark.parametrize("assurance", [ALWAYS, LATELY])
def test_an_inactive_answer_is_remembered_for_10_seconds(ask, endpoint, clock, assurance):
    endpoint.says({"active": False})
    requests = []
    for seconds in (0, 9.5, 0.5):
        clock.advance(seconds)
        assert ask(assurance) == "token_inactive"
        requests.append(endpoint.transport.fetches)

    assert requests == [1, 1, 2]


def test_an_active_answer_does_not_outlive_the_token(ask, transport, clock):
    """The verifier accepts it for the leeway longer; what the issuer said before counts no more."""
    clock.advance(290)
    ask(LATELY)
    clock.advance(9)
    ask(LATELY)
    assert transport.fetches == 1

    clock.advance(1)
    ask(LATELY)
    assert transport.fetches == 2


def test_an_inactive_answer_outlives_the_token(ask, endpoint, clock):
    """Else whoever repeats an expired token would make a request with each call."""
    endpoint.says({"active": False})
    clock.advance(299)
    verdicts = {ask(LATELY)}
    for _ in range(5):
        clock.advance(1)
        verdicts.add(ask(LATELY))

    assert (verdicts, endpoint.transport.fetches) == ({"token_inactive"}, 1)


def test_an_answer_counts_from_when_it_was_asked_for(begin, ask, transport, clock):
    """A slow issuer's word is as old as the question."""
    transport.hang()
    flow, wait = begin(LATELY)
    clock.advance(4)
    transport.release()
    finish(flow, wait)
    clock.advance(26)
    ask(LATELY)

    assert transport.fetches == 2


def test_a_failure_is_not_remembered(ask, transport, clock):
    transport.down()
    assert ask() == "introspection_unavailable"
    transport.up()
    clock.advance(2)

    assert ask() == "active"


def test_another_text_of_the_token_is_asked_about_by_itself(ask, transport):
    ask(LATELY)
    ask(LATELY, "another.text.entirely")

    assert transport.fetches == 2


def test_the_oldest_answers_are_forgotten_first(new_introspector, ask, transport):
    small = new_introspector(cache_size=2)
    for text in ("a", "b", "c", "c", "b", "a"):
        ask(LATELY, text, small)

    assert [request.form["token"] for request in transport.requests] == ["a", "b", "c", "a"]


# ---- F6: one at a time ----


def test_a_hundred_threads_make_one_request(new_introspector, token, principal, transport):
    """F6. Each of them may wait here; by default eight of one organization may."""
    introspector = new_introspector(max_in_flight=200)
    transport.hang()
    outcomes = []
    all_wait = threading.Barrier(101, timeout=120)

    def ask():
        flow = introspector.introspect(token, principal, LATELY)
        wait = next(flow)
        all_wait.wait()
        outcomes.append(run(flow, waiting=wait))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    all_wait.wait()
    transport.release()
    for thread in threads:
        thread.join()

    assert (outcomes, transport.fetches) == ([None] * 100, 1)


def test_a_hundred_tasks_make_one_request_which_none_of_them_can_cancel(introspector, token, principal, transport):
    transport.hang()

    async def scenario():
        tasks = [asyncio.create_task(arun(introspector.introspect(token, principal, LATELY))) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[:50]:
            task.cancel()
        await asyncio.sleep(0)
        transport.release()
        return await asyncio.gather(*tasks[50:])

    assert (asyncio.run(scenario()), transport.fetches) == ([None] * 50, 1)


def test_a_question_from_before_is_no_answer_to_always(begin, transport, endpoint):
    """The token may have been withdrawn after it was asked. Nobody waits for a third one, however many there are."""
    transport.hang()
    first, *late = [begin(ALWAYS) for _ in range(10)]
    early = transport.take_over()
    endpoint.says({"active": False})
    early[0].set_result(json_response(workos_answer()))
    outcomes = [finish(*first)]
    again = [(flow, flow.send(wait.future.result())) for flow, wait in late]
    transport.release()

    assert outcomes + [finish(*one) for one in again] == ["active"] + ["token_inactive"] * 9
    assert transport.fetches == 2


def test_a_question_from_before_may_serve_those_who_are_content_with_less(begin, transport, clock):
    transport.hang()
    flows = [begin(LATELY)]
    clock.advance(3)
    flows += [begin(Assurance(max_age=4)) for _ in range(5)]
    transport.release()

    assert ([finish(*one) for one in flows], transport.fetches) == (["active"] * 6, 1)


def test_a_question_that_is_too_old_is_asked_again(begin, transport, clock):
    transport.hang()
    first = begin(LATELY)
    clock.advance(3)
    late, wait = begin(Assurance(max_age=2))
    transport.release()

    assert (finish(*first), finish(late, wait), transport.fetches) == ("active", "active", 2)


def test_a_no_from_before_is_a_no(begin, transport, endpoint):
    endpoint.says({"active": False})
    transport.hang()
    first, late = begin(ALWAYS), begin(ALWAYS)
    transport.release()

    assert (finish(*first), finish(*late), transport.fetches) == ("token_inactive", "token_inactive", 1)


def test_the_seventeenth_question_waits_for_its_turn(begin, transport, introspector):
    """F6: tokens can be cycled, so no memory of them protects the issuer."""
    transport.hang()
    flows = [begin(text=f"token-{number}") for number in range(40)]
    asked = transport.fetches
    transport.release()

    assert [finish(*one) for one in flows] == ["active"] * 40
    assert (asked, transport.fetches, introspector.counters.overloaded) == (16, 40, 0)


@pytest.mark.parametrize("assurance", [ALWAYS, LOCAL])
def test_questions_beyond_those_that_may_wait_are_refused_at_once(begin, ask, transport, introspector, assurance):
    """R1: whatever an outage means for the method, for this is none."""
    transport.hang()
    flows = [begin(text=f"token-{number}") for number in range(16 + MAX_WAITING)]

    assert [ask(assurance, f"more-{number}") for number in range(100)] == ["overloaded"] * 100
    assert (transport.fetches, introspector.counters.overloaded, introspector.counters.refused) == (16, 100, 0)
    transport.release()
    assert [finish(*one) for one in flows] == ["active"] * len(flows)
    assert ask(text="later") == "active"


def test_who_loses_patience_before_its_turn_is_refused_even_where_an_outage_is_not(begin, transport, clock):
    """R1: the time in which it waited for its turn says nothing about the issuer."""
    transport.hang()
    flows = [begin(LOCAL, f"token-{number}") for number in range(17)]
    clock.advance(4.9)
    for future in transport.take_over():
        future.set_result(json_response(workos_answer()))
    clock.advance(0.1)

    with pytest.raises(IntrospectionUnavailableError):
        flows[16][0].throw(TimeoutError())
    late, _ = begin(LOCAL, "late")
    for number in range(16):
        begin(LOCAL, f"more-{number}")
    waiting, _ = begin(LOCAL, "waiting")
    with pytest.raises(OverloadedError):
        waiting.throw(TimeoutError())
    clock.advance(5)
    with pytest.raises(StopIteration):
        late.throw(TimeoutError())


def test_a_callers_deadline_is_no_outage(introspector, token, principal, transport):
    """R1: a withdrawn token got in with a deadline of a tenth of what the issuer takes."""
    transport.hang()

    with pytest.raises(IntrospectionUnavailableError):
        run(introspector.introspect(token, principal, LOCAL), timeout=0.0)


def test_a_question_that_its_callers_have_given_up_is_not_asked(begin, transport, clock, introspector):
    transport.hang()
    for number in range(16):
        begin(text=f"token-{number}")
    flow, wait = begin(text="too late")
    clock.advance(5)
    transport.release()

    assert (finish(flow, wait), transport.fetches, introspector.counters.overloaded) == ("overloaded", 16, 1)


def test_what_waits_for_its_turn_is_told_of_an_outage_at_once(begin, transport):
    transport.hang()
    flows = [begin(text=f"token-{number}") for number in range(20)] + [begin(LOCAL, "believed")]
    transport.down()
    transport.release()

    assert [finish(*one) for one in flows] == ["introspection_unavailable"] * 20 + ["active"]
    assert transport.fetches == 16


def test_a_flood_of_one_organization_leaves_the_others_their_turns(introspector, transport, principal):
    """R2: 29 of 43 good calls of others were refused beside it."""
    transport.hang()
    one, others = replace(principal, org_id="org_flood"), [replace(principal, org_id=f"org_{n}") for n in range(43)]
    flood = [introspector.introspect(f"flood-{number}", one, ALWAYS) for number in range(2 * MAX_WAITING)]
    waits = [next(flow) for flow in flood[: MAX_WAITING + 16]]
    for flow in flood[MAX_WAITING + 16 :]:
        with pytest.raises(OverloadedError):
            next(flow)
    good = [introspector.introspect(f"good-{caller.org_id}", caller, ALWAYS) for caller in others]
    good_waits = [next(flow) for flow in good]
    transport.release()

    assert [finish(*pair) for pair in zip(good, good_waits, strict=True)] == ["active"] * 43
    verdicts = [finish(*pair) for pair in zip(flood, waits, strict=False)]
    assert (verdicts.count("active"), verdicts.count("overloaded")) == (MAX_WAITING + 16 - 43, 43)


def test_organizations_take_turns(introspector, transport, principal):
    """R2: who has one question does not wait for all of those who have many."""
    transport.hang()
    many, few = replace(principal, org_id="org_many"), replace(principal, org_id="org_few")
    for number in range(30):
        next(introspector.introspect(f"many-{number}", many, ALWAYS))
    next(introspector.introspect("few", few, ALWAYS))
    waiting = transport.take_over()
    for future in waiting[:2]:
        future.set_result(json_response(workos_answer()))

    assert [request.form["token"] for request in transport.requests[16:]] == ["many-16", "few"]


def test_a_full_house_does_not_count_as_an_outage(begin, ask, transport):
    transport.hang()
    for number in range(17 + MAX_WAITING):
        with contextlib.suppress(OverloadedError):
            begin(text=f"token-{number}")
    transport.release()

    assert ask() == "active"


def test_few_threads_may_wait_and_each_organization_has_its_share_of_them(introspector, token, principal, transport):
    """So that a hanging issuer does not pin a larger pool."""
    transport.hang()
    place = next(introspector.introspect(token, principal, LATELY)).threads
    taken = 0
    while place.acquire(blocking=False):
        taken += 1

    with pytest.raises(OverloadedError):
        run(introspector.introspect(token, principal, LOCAL))
    other = replace(principal, org_id="org_other")
    assert next(introspector.introspect("another", other, LATELY)).threads.acquire(blocking=False)
    assert (taken, transport.fetches) == (8, 2)


# ---- F3, F6: when the issuer is in trouble ----


def test_an_issuer_that_is_down_is_not_asked_per_call(ask, transport, clock):
    """100 calls a second, each of another token: after 0, 1, 3, 7, 15 and 31 s, and not before 56.7 s."""
    transport.down()
    verdicts = set()
    for number in range(5000):
        verdicts.add(ask(text=f"token-{number}"))
        clock.advance(0.01)

    assert (verdicts, transport.fetches) == ({"introspection_unavailable"}, 6)


def test_requests_that_fail_together_are_one_failure(begin, ask, transport, clock):
    """Sixteen of them once paused introspection for a minute after a single hiccup."""
    transport.hang()
    flows = [begin(text=f"token-{number}") for number in range(16)]
    transport.down()
    transport.release()
    assert {finish(*one) for one in flows} == {"introspection_unavailable"}
    transport.up()
    clock.advance(1.2)

    assert ask() == "active"


def test_one_question_at_a_time_finds_out_whether_the_outage_is_over(begin, ask, transport, clock):
    transport.down()
    ask()
    transport.up()
    transport.hang()
    clock.advance(2)
    probe = begin()

    # Neither another token nor the same one: a pool must not wait for what may hang.
    assert [ask(text="another"), ask()] == ["introspection_unavailable"] * 2
    assert transport.fetches == 2
    transport.release()
    assert (finish(*probe), ask(text="another")) == ("active", "active")


def test_a_good_answer_ends_the_pause(ask, transport, clock):
    for _ in range(4):
        transport.down()
        ask()
        clock.advance(66)
    transport.up()
    ask()
    transport.down()
    ask()
    transport.up()
    clock.advance(1.2)

    assert ask() == "active"


def test_unavailable_says_when_to_try_again(introspector, token, principal, transport, clock):
    transport.down()
    for _ in range(3):
        with pytest.raises(IntrospectionUnavailableError) as caught:
            run(introspector.introspect(token, principal, ALWAYS))
        clock.advance(caught.value.retry_after + 0.01)

    assert caught.value.retry_after == pytest.approx(4, rel=0.11)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        pytest.param("20", 20, id="as-asked"),
        pytest.param("60", 60, id="a-minute"),
        pytest.param("86400", 60, id="a-minute-at-the-most"),
        pytest.param("9" * 400, 60, id="beyond-floats"),
        pytest.param("0", 1.1, id="zero"),
        pytest.param("-5", 1.1, id="negative"),
        pytest.param("soon", 1.1, id="word"),
        pytest.param("\u0662\u0660", 1.1, id="other-digits"),
        pytest.param("Wed, 21 Oct 2099 07:28:00 GMT", 60, id="date"),
    ],
)
def test_429_pauses_as_the_issuer_asks(ask, endpoint, clock, retry_after, seconds):
    """F3, RFC 6585 section 4."""
    endpoint.says({}, 429, retry_after=retry_after)
    ask()
    endpoint.says(workos_answer())
    clock.advance(min(seconds, 60) * 0.8 - 0.01)
    before = ask()
    clock.advance(seconds * 0.2 + 0.02)

    assert (before, ask()) == ("introspection_unavailable", "active")


def test_a_pause_that_the_issuer_asks_for_opens_nothing(ask, endpoint, clock):
    """R1: callers can make so many calls that it asks for one."""
    endpoint.says({}, 429, retry_after=20)
    during = [ask(LOCAL), ask(LOCAL), ask(LOCAL, "another")]
    clock.advance(25)
    endpoint.transport.down()

    assert (during, ask(LOCAL)) == (["introspection_unavailable"] * 3, "active")


@pytest.mark.parametrize("first", [0, 1])
def test_one_who_is_asked_for_patience_keeps_a_shared_failure_from_being_an_outage(begin, ask, transport, first):
    """R1: an issuer under load answers some with 429, and others not at all."""
    transport.hang()
    flows = [begin(LOCAL, "a"), begin(LOCAL, "b")]
    limited, broken = transport.take_over() if first else reversed(transport.take_over())
    limited.set_result(json_response({}, 429))
    broken.set_exception(TransportError("protocol"))

    assert "introspection_unavailable" in [finish(*one) for one in flows]
    assert ask(LOCAL, "c") == "introspection_unavailable"


def test_refused_credentials_pause_for_30_seconds_and_alert(ask, endpoint, clock, caplog):
    """F3: asking again does not mend them."""
    endpoint.says({"error": "invalid_client"}, 401)
    ask()
    clock.advance(29)
    ask()

    assert events(caplog) == [("ERROR", "status 401 (our own client credentials were refused)")]
    endpoint.says(workos_answer())
    clock.advance(1)
    assert ask() == "active"


def test_questions_and_outages_at_random_never_exceed_the_bounds(begin, introspector, transport, clock):
    """A seeded walk: never more than 16 questions at once, and nobody is left waiting for good."""
    chance = random.Random(7)  # noqa: S311 - the same walk on every run
    waiting = []
    for _ in range(3000):
        clock.advance(chance.random())
        transport.hang()
        with contextlib.suppress(StopIteration, IntrospectionUnavailableError):
            waiting.append(begin(Assurance(max_age=chance.choice([0, 5])), f"token-{chance.randrange(40)}"))
        assert transport.pending <= 16
        if chance.random() < 0.05:
            transport.down() if chance.random() < 0.3 else transport.up()
            transport.release()
            assert {finish(*one) for one in waiting} <= {"active", "introspection_unavailable", "overloaded"}
            waiting.clear()
    counters = introspector.counters

    assert counters.requests == transport.fetches
    assert min(counters.requests, counters.remembered, counters.refused, counters.failures) > 0


# ---- Threads ----


def test_threads_never_accept_a_token_after_it_was_withdrawn(introspector, ec_key, standing, endpoint):
    """Real threads, answers in the middle of each other's questions: "always" is never older than the call."""
    texts = [ec_key.sign(m2m_claims()) for _ in range(4)]
    principal = standing.verify(texts[0])
    withdrawn = threading.Event()
    late = []
    together = threading.Barrier(9, timeout=120)

    def work():
        together.wait()
        for _ in range(60):
            for text in texts:
                was_withdrawn = withdrawn.is_set()
                try:
                    run(introspector.introspect(text, principal, ALWAYS))
                except TokenInactiveError:
                    continue
                except IntrospectionUnavailableError:
                    continue
                late.append(was_withdrawn)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    together.wait()
    endpoint.says({"active": False})
    withdrawn.set()
    for thread in threads:
        thread.join()

    assert not any(late)


# ---- Its own counters, and what it never tells ----


def test_counters_say_what_was_done(ask, endpoint, introspector):
    ask(LATELY)
    ask(LATELY)
    endpoint.says({"active": False})
    ask(ALWAYS, "withdrawn")
    endpoint.says({}, 500)
    ask(ALWAYS, "another")
    ask(ALWAYS, "another")
    counters = introspector.counters

    assert (counters.requests, counters.failures, counters.inactive) == (3, 1, 1)
    assert (counters.remembered, counters.refused) == (1, 1)


@pytest.mark.parametrize("answer", [pytest.param(it.values, id=it.id) for it in UNAVAILABLE])
def test_neither_logs_nor_reprs_tell_a_secret(ask, introspector, endpoint, caplog, answer):
    caplog.set_level("DEBUG")
    endpoint.says(*answer)
    ask()
    told = caplog.text + repr(introspector) + str(introspector)

    assert URL in repr(introspector)
    assert not any(text in told for text in (SECRET, "oops", endpoint.transport.requests[0].form["token"]))


def test_an_error_tells_neither_token_nor_secret(introspector, token, principal, transport):
    transport.down()
    with pytest.raises(IntrospectionUnavailableError) as caught:
        run(introspector.introspect(token, principal, ALWAYS))

    message = f"no answer from {ISSUER}/oauth2/introspection: connect"
    assert (str(caught.value), caught.value.cause, caught.value.__cause__) == (message, "connect", None)


def test_closing_closes_the_transport(introspector, transport):
    introspector.close()

    assert transport.closed


def test_a_forked_child_asks_for_itself(introspector, begin, ask, transport):
    ask(LATELY)
    transport.hang()
    begin(text="another")
    start_afresh(introspector)
    begin(LATELY)
    begin(text="another")

    assert transport.fetches == 4


def test_an_answer_to_the_parent_does_not_end_the_childs_question(introspector, begin, transport):
    transport.hang()
    begin()
    (parents,) = transport.take_over()
    start_afresh(introspector)
    flow, wait = begin()
    parents.set_exception(TransportError("connect"))

    assert not wait.future.done()
    transport.release()
    assert finish(flow, wait) == "active"


# ---- Configuration ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"issuer": None}, "^issuer and endpoint: give one", id="neither"),
        pytest.param({"issuer": ISSUER, "endpoint": URL}, "^issuer and endpoint: give one", id="both"),
        pytest.param({"issuer": "http://acme.authkit.app"}, "^issuer: .* must use https", id="F1-http-issuer"),
        pytest.param({"issuer": ISSUER + "?a"}, "^issuer: .* no query", id="issuer-query"),
        pytest.param({"endpoint": "http://acme.authkit.app"}, "^endpoint: .* must use https", id="F1-http-endpoint"),
        pytest.param({"endpoint": "https://u:p@acme.authkit.app"}, "^endpoint: .* no user", id="endpoint-user"),
        pytest.param({"client_id": ""}, "^client_id: must not be empty", id="client-id"),
        pytest.param({"client_secret": ""}, "^client_secret: must not be empty", id="client-secret"),
        pytest.param({"client_secret": None}, "^client_secret: must not be empty", id="client-secret-none"),
        pytest.param({"auth_method": "none"}, "^auth_method: 'none' must be client_secret_post or", id="method"),
        pytest.param({"max_in_flight": 0}, "^max_in_flight: 0 must be", id="in-flight"),
        pytest.param({"cache_size": 0}, "^cache_size: 0 must be", id="cache-size"),
    ],
)
def test_wrong_configuration_is_named_at_once(new_introspector, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        new_introspector(**options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("max_age", [-1, 30.1, float("nan"), float("inf")])
def test_no_answer_may_be_older_than_30_seconds(max_age):
    with pytest.raises(ConfigError, match=r"^max_age: .* is not a number of seconds from 0 to 30"):
        Assurance(max_age=max_age)


@pytest.mark.parametrize("mode", ["", "allow", "Local", None])
def test_what_to_do_in_an_outage_is_one_of_two(mode):
    with pytest.raises(ConfigError, match=r"^if_unavailable: .* must be deny or local"):
        Assurance(if_unavailable=mode)


def test_by_default_every_call_asks_and_an_outage_denies():
    """F8."""
    assert (Assurance().max_age, Assurance().if_unavailable) == (0.0, "deny")


# ---- The development issuer, over HTTP ----


@pytest.fixture(scope="module")
def server(rsa_key):
    with IssuerServer(Issuer(keys=[rsa_key])) as server:
        yield server


@pytest.fixture
def application(server):
    return server.issuer.directory.organizations[0].applications[0]


@pytest.fixture
def live(server, application):
    """Return a function that asks the server."""
    transport = Transport()
    verifier = Verifier(issuer=server.url, audience=server.issuer.directory.audience, transport=transport)
    credentials = {"client_id": application.client_id, "client_secret": application.client_secret}
    introspector = Introspector(server.url, **credentials, transport=transport)

    def ask(token, assurance=ALWAYS, by=introspector):
        try:
            run(by.introspect(token, verifier.verify(token), assurance))
        except AuthzError as error:
            return error.reason
        return "active"

    yield ask
    transport.close()


def test_a_live_token_is_active_until_it_is_revoked(live, server, application):
    """Documented claims agree: F4 and F7 hold for what the issuer really says."""
    token = server.issuer.mint(application.client_id)
    assert live(token) == "active"

    server.issuer.revoke(token=token)
    assert live(token) == "token_inactive"


def test_a_revoked_token_is_inactive_within_max_age(live, server, application):
    token = server.issuer.mint(application.client_id)
    live(token)
    server.issuer.revoke(token=token)

    # The answer of a moment ago is believed for as long as the method says, and by nobody else.
    assert (live(token, LATELY), live(token, ALWAYS), live(token, LATELY)) == (
        "active",
        "token_inactive",
        "token_inactive",
    )


@pytest.mark.parametrize(("secret", "verdict"), [(None, "active"), ("wrong", "introspection_unavailable")])
def test_the_secret_can_be_in_a_header(live, server, application, secret, verdict):
    """F1: RFC 6749 section 2.3.1: what servers must support."""
    introspector = Introspector(
        server.url,
        client_id=application.client_id,
        client_secret=secret or application.client_secret,
        auth_method="client_secret_basic",
    )

    assert live(server.issuer.mint(application.client_id), by=introspector) == verdict
    introspector.close()


def test_wrong_credentials_are_unavailable(live, server, application):
    introspector = Introspector(server.url, client_id=application.client_id, client_secret="wrong")

    assert live(server.issuer.mint(application.client_id), by=introspector) == "introspection_unavailable"
    introspector.close()


def test_tasks_ask_too(server, application):
    verifier = Verifier(issuer=server.url, audience=server.issuer.directory.audience)
    introspector = Introspector(server.url, client_id=application.client_id, client_secret=application.client_secret)
    token = server.issuer.mint(application.client_id)

    async def scenario():
        principal = await verifier.averify(token)
        before = server.requests["/oauth2/introspection"]
        await asyncio.gather(*(arun(introspector.introspect(token, principal, LATELY)) for _ in range(100)))
        return server.requests["/oauth2/introspection"] - before

    requests = asyncio.run(scenario())
    verifier.close()
    introspector.close()

    assert requests == 1
