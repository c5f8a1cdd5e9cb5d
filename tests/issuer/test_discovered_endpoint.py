"""An endpoint that is looked up in the issuer's metadata when it is needed, and again when it fails. Rows G7 to G9."""

import logging
from concurrent.futures import CancelledError

import pytest
from pydantic import SecretStr

from authz.call.call import Call
from authz.call.requirements import Assurance
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.errors import ConfigError, IntrospectionUnavailableError, KeySetUnavailableError, TokenEndpointError
from authz.issuer.discovery import KEPT, DiscoveredEndpoint
from authz.issuer.endpoint import Endpoint
from authz.issuer.introspection import Introspector
from authz.issuer.token_source import ClientCredentials
from authz.issuer.verifier import Verifier
from authz.judge.configured import authorizer_of
from authz.runtime.flow import run
from authz.runtime.network.transport import Transport, TransportError
from authz.settings.settings import Settings
from tests.doubles import AUDIENCE, CLIENT, ISSUER, FakeTransport, json_response, jwks, m2m_claims

OAUTH = f"{ISSUER}/.well-known/oauth-authorization-server"
OPENID = f"{ISSUER}/.well-known/openid-configuration"
KEYS, MOVED, ASKED, TOKENS = (f"{ISSUER}/{name}" for name in ("keys", "moved", "asked", "tokens"))


class Site:
    """An issuer in memory: pages by address; what is none is not found."""

    def __init__(self, **pages):
        self.pages = {OAUTH: metadata(), KEYS: {"keys": []}, **pages}
        self.transport = FakeTransport(self._answer)

    def _answer(self):
        page = self.pages.get(self.transport.requests[-1].url, b"")
        return page if not isinstance(page, bytes | dict) else json_response(page, 200 if page else 404)

    @property
    def asked(self):
        """What has been asked since this was looked at last."""
        urls = [request.url for request in self.transport.requests]
        self.transport.requests.clear()
        return urls


def metadata(**changes):
    return {
        "issuer": ISSUER,
        "jwks_uri": KEYS,
        "introspection_endpoint": ASKED,
        "token_endpoint": TOKENS,
        **changes,
    }


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def endpoint(site, clock):
    return DiscoveredEndpoint(ISSUER, "jwks_uri", site.transport, clock=clock.clock)


def body(endpoint):
    return endpoint.fetch("GET").result(0).body


# ---- G7: when it is looked up ----


def test_nothing_is_asked_before_it_is_needed(endpoint, site):
    assert (site.asked, endpoint.url) == ([], ISSUER)


def test_it_is_looked_up_once(endpoint, site):
    body(endpoint), body(endpoint)

    assert (site.asked, endpoint.url) == ([OAUTH, KEYS, KEYS], KEYS)


def test_all_who_wait_share_one_look(endpoint, site):
    site.transport.hang()
    answers = [endpoint.fetch("GET") for _ in range(16)]
    waiting = site.asked
    site.transport.up()
    for look in site.transport.take_over():
        look.set_result(json_response(metadata()))

    assert waiting == [OAUTH]
    assert [answer.result(0).status for answer in answers] == [200] * 16
    assert site.asked == [KEYS] * 16


def test_what_is_sent_goes_to_where_it_was_found(site, clock):
    endpoint = DiscoveredEndpoint(ISSUER, "introspection_endpoint", site.transport, clock=clock.clock)
    endpoint.fetch("POST", form={"token": "t"}, headers={"authorization": "Basic eA=="})
    look, question = site.transport.requests

    assert look == ("GET", OAUTH, None, None)
    assert question == ("POST", ASKED, {"token": "t"}, {"authorization": "Basic eA=="})


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(json_response(b"", 404), id="404"),
        pytest.param(json_response(b"", 410), id="410"),
        pytest.param(json_response(b"", 500), id="500"),
        pytest.param(TransportError("redirect"), id="redirect"),
        pytest.param(TransportError("refused"), id="refused"),
        pytest.param(TimeoutError(), id="timeout"),
    ],
)
def test_it_is_looked_up_again_after_a_request_that_failed(endpoint, site, failure):
    body(endpoint)
    if isinstance(failure, Exception):
        site.transport.down(failure)
        with pytest.raises(TransportError):
            body(endpoint)
        site.transport.up()
    else:
        site.pages[KEYS] = failure
        body(endpoint)
    site.pages |= {OAUTH: metadata(jwks_uri=MOVED), MOVED: b"new"}
    before = site.asked

    assert (body(endpoint), before, site.asked) == (b"new", [OAUTH, KEYS, KEYS], [OAUTH, MOVED])


@pytest.mark.parametrize("status", [400, 401, 429])
def test_what_an_endpoint_says_of_a_request_is_no_reason_to_look_again(endpoint, site, status):
    site.pages[KEYS] = json_response(b"{}", status)
    body(endpoint), body(endpoint)

    assert site.asked == [OAUTH, KEYS, KEYS]


def test_it_is_looked_up_again_in_time_beside_a_request(endpoint, site, clock):
    body(endpoint)
    site.pages |= {OAUTH: metadata(jwks_uri=MOVED), MOVED: b"new"}
    clock.advance(KEPT - 1)
    body(endpoint)
    before = site.asked
    clock.advance(1)
    site.transport.hang()
    old = endpoint.fetch("GET")
    look, request = site.transport.take_over()
    site.transport.up()
    request.set_result(json_response(b"old"))

    assert before == [OAUTH, KEYS, KEYS]
    assert (old.result(0).body, site.asked) == (b"old", [OAUTH, KEYS])
    look.set_result(json_response(site.pages[OAUTH]))
    assert (body(endpoint), site.asked) == (b"new", [MOVED])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({OAUTH: b""}, id="gone"),
        pytest.param({OAUTH: b"<html>"}, id="a-page"),
        pytest.param({OAUTH: metadata(issuer="https://evil.example")}, id="a-mix-up"),
        pytest.param({OAUTH: metadata(jwks_uri="https://evil.example/")}, id="another-host"),
    ],
)
def test_what_was_found_stays_until_something_else_is_found(endpoint, site, change):
    body(endpoint)
    good = site.pages[KEYS]
    site.pages |= {KEYS: b"", **change}
    body(endpoint)
    site.pages[KEYS] = good

    assert body(endpoint) == b'{"keys": []}'
    assert site.asked[-1] == KEYS


def test_a_late_failure_of_an_address_casts_no_doubt_on_the_one_found_since(endpoint, site):
    body(endpoint)
    site.transport.hang()
    late = endpoint.fetch("GET")
    [pending] = site.transport.take_over()
    site.transport.up()
    site.pages |= {KEYS: b"", OAUTH: metadata(jwks_uri=MOVED), MOVED: b"new"}
    body(endpoint), body(endpoint)
    pending.set_exception(TransportError("timeout"))
    with pytest.raises(TransportError):
        late.result(0)
    assert site.asked[-2:] == [OAUTH, MOVED]

    assert (body(endpoint), site.asked) == (b"new", [MOVED])


def test_where_it_was_found_is_logged_once_and_why_not_each_time(endpoint, site, caplog):
    with caplog.at_level(logging.INFO, "authz"):
        site.pages[OAUTH] = b""
        with pytest.raises(TransportError):
            body(endpoint)
        site.pages[OAUTH] = metadata()
        body(endpoint), body(endpoint)

    messages = [record.getMessage() for record in caplog.records]
    assert [message.split()[0] for message in messages] == ["discovery_failed", "endpoint_discovered"]
    assert "status 404" in messages[0]
    assert KEYS in messages[1]


# ---- G8: what it may not open ----


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        pytest.param({OAUTH: b""}, "no metadata of .*: status 404", id="none"),
        pytest.param({OAUTH: metadata(issuer="https://evil.example")}, "another issuer's", id="a-mix-up"),
        pytest.param({OAUTH: metadata(jwks_uri="https://evil.example/")}, "names the host 'evil.example'", id="host"),
        pytest.param({OAUTH: metadata(jwks_uri="http://acme.authkit.app/")}, "must use https", id="http"),
        pytest.param({OAUTH: metadata(jwks_uri=None)}, "names no jwks_uri; give jwks_url", id="nothing"),
    ],
)
def test_what_must_not_be_believed_is_no_outage(endpoint, site, pages, reason):
    site.pages |= pages
    with pytest.raises(TransportError, match=reason) as caught:
        body(endpoint)

    assert not caught.value.is_outage
    assert {OAUTH, OPENID}.issuperset(site.asked)


@pytest.mark.parametrize(
    ("failure", "is_outage"),
    [
        (TransportError("refused"), True),
        (TransportError("timeout"), True),
        (TimeoutError(), True),
        (TransportError("redirect"), False),
        (TransportError("exhausted"), False),
        (CancelledError(), False),
    ],
    ids=repr,
)
def test_an_issuer_that_does_not_answer_is_an_outage(endpoint, site, failure, is_outage):
    site.transport.down(failure)
    with pytest.raises(TransportError) as caught:
        body(endpoint)

    assert caught.value.is_outage is is_outage


def test_one_place_that_answers_is_no_outage(endpoint, site):
    site.pages |= {OAUTH: json_response(b"", 503), OPENID: b"<html>"}
    with pytest.raises(TransportError) as caught:
        body(endpoint)

    assert not caught.value.is_outage


def test_other_hosts_are_good_where_they_are_allowed(site, clock):
    site.pages |= {OAUTH: metadata(jwks_uri="https://keys.example/"), "https://keys.example/": b"keys"}
    endpoint = DiscoveredEndpoint(ISSUER, "jwks_uri", site.transport, allowed_hosts=["Keys.Example"], clock=clock.clock)

    assert body(endpoint) == b"keys"


def test_an_endpoint_that_nothing_needs_may_be_anywhere(endpoint, site):
    site.pages[OAUTH] = metadata(token_endpoint="https://tokens.example/")

    assert body(endpoint) == b'{"keys": []}'


@pytest.mark.parametrize("host", ["https://keys.example", "keys.example/", "", "*.example", "a b"])
def test_what_is_no_host_is_not_allowed(host):
    with pytest.raises(ConfigError, match=r"^discover_hosts: "):
        Verifier(issuer=ISSUER, audience=AUDIENCE, discover=True, discover_hosts=[host])


# ---- G9: who uses it ----


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: verifier(jwks_url=KEYS), "^discover: jwks_url says already"),
        (lambda: verifier(jwks={"keys": []}), "^jwks: .* nor discover"),
        (lambda: verifier(discover=False, discover_hosts=["a.example"]), "^discover_hosts: needs discover"),
        (lambda: introspector(issuer=None, endpoint=ASKED), "^discover: endpoint says already"),
        (lambda: introspector(issuer=None), "^issuer and endpoint: "),
        (lambda: source(issuer=None, token_url=TOKENS), "^discover: token_url says already"),
    ],
)
def test_an_address_is_given_or_looked_up(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def verifier(**options):
    return Verifier(**{"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "discover": True, **options})


def introspector(**options):
    return Introspector(**{"issuer": ISSUER, "client_id": "api", "client_secret": "s", "discover": True, **options})


def source(**options):
    return ClientCredentials(**{"issuer": ISSUER, "client_id": "a", "client_secret": "s", "discover": True, **options})


def test_a_verifier_recovers_by_itself_when_the_issuer_can_be_asked_again(site, clock, ec_key):
    found = verifier(transport=site.transport, clock=clock.clock)
    site.pages[KEYS] = jwks(ec_key)
    site.transport.down()
    with pytest.raises(KeySetUnavailableError):
        found.verify(ec_key.sign(m2m_claims()))
    health = found.health()[ISSUER]
    site.transport.up()
    clock.advance(2)

    assert (health.is_ready, health.error) == (False, f"connect (no metadata of {ISSUER}: connect)")
    assert found.verify(ec_key.sign(m2m_claims())).client_id == CLIENT


@pytest.mark.usefixtures("no_settings")
def test_a_source_reads_it_from_variables(site, monkeypatch):
    for name, value in {"ISSUER": ISSUER, "CLIENT_ID": "a", "CLIENT_SECRET": "s", "DISCOVER": "true"}.items():
        monkeypatch.setenv(f"AUTHZ_{name}", value)
    site.pages |= {
        OAUTH: metadata(token_endpoint="https://tokens.example/"),
        "https://tokens.example/": {"access_token": "t", "token_type": "Bearer", "expires_in": 300},
    }
    with pytest.raises(TokenEndpointError):
        ClientCredentials.from_env(transport=site.transport).token()
    monkeypatch.setenv("AUTHZ_DISCOVER_HOSTS", "other.example, tokens.example")

    assert ClientCredentials.from_env(transport=site.transport).token() == "t"


@pytest.mark.usefixtures("no_settings")
def test_a_variable_that_says_neither_yes_nor_no_is_an_error(monkeypatch):
    for name, value in {"ISSUER": ISSUER, "CLIENT_ID": "a", "CLIENT_SECRET": "s", "DISCOVER": "maybe"}.items():
        monkeypatch.setenv(f"AUTHZ_{name}", value)

    with pytest.raises(ConfigError, match=r"^discover: must be true or false; set AUTHZ_DISCOVER"):
        ClientCredentials.from_env()


def test_a_verifier_that_was_led_elsewhere_believes_no_key(site, clock, ec_key):
    site.pages |= {OAUTH: metadata(jwks_uri="https://evil.example/"), "https://evil.example/": jwks(ec_key)}

    with pytest.raises(KeySetUnavailableError):
        verifier(transport=site.transport, clock=clock.clock).verify(ec_key.sign(m2m_claims()))
    assert "https://evil.example/" not in site.asked


def test_a_secret_is_shown_to_nobody_but_the_endpoint_that_was_found(site, clock):
    site.pages[OAUTH] = metadata(token_endpoint="https://evil.example/")
    with pytest.raises(TokenEndpointError, match=r"names the host 'evil\.example'"):
        source(transport=site.transport, clock=clock.clock).token()

    assert [request.form for request in site.transport.requests] == [None]


def test_an_endpoint_that_the_issuer_does_not_publish_has_no_signature_believed(site, clock, ec_key):
    """A mistake is no outage, in which ``local`` believes the signature."""
    site.pages |= {OAUTH: metadata(introspection_endpoint=None), KEYS: jwks(ec_key)}
    token = ec_key.sign(m2m_claims())
    principal = verifier(transport=site.transport, clock=clock.clock).verify(token)
    asking = introspector(transport=site.transport, clock=clock.clock)

    with pytest.raises(IntrospectionUnavailableError):
        run(asking.introspect(token, principal, Assurance(if_unavailable="local")))
    site.transport.down(TransportError("refused"))
    clock.advance(60)
    run(asking.introspect(token, principal, Assurance(if_unavailable="local")))


def test_it_works_end_to_end_and_begins_while_the_issuer_is_down(rsa_key):
    with IssuerServer(Issuer(keys=[rsa_key])) as server:
        issuer, listen = server.url, server.url.removeprefix("http://")
        directory = server.issuer.directory
    application = directory.organizations[0].applications[0]
    checks = Verifier(issuer=issuer, audience=directory.audience, discover=True)
    asks = Introspector(issuer, client_id=application.client_id, client_secret=application.client_secret, discover=True)
    gives = ClientCredentials(
        issuer, client_id=application.client_id, client_secret=application.client_secret, discover=True
    )
    try:
        with pytest.raises(KeySetUnavailableError):
            checks.warm_up(timeout=0)
        with IssuerServer(Issuer(issuer, keys=[rsa_key], directory=directory), listen=listen) as server:
            token = gives.token()
            checks.warm_up(timeout=60)
            principal = checks.verify(token)
            run(asks.introspect(token, principal, Assurance()))
            requests = dict(server.requests)
    finally:
        for each in (checks, asks, gives):
            each.close()

    assert principal.client_id == application.client_id
    assert requests == {
        "/.well-known/oauth-authorization-server": 3,
        "/oauth2/token": 1,
        "/oauth2/jwks": 1,
        "/oauth2/introspection": 1,
    }


def test_what_is_under_way_ends_when_it_is_closed(endpoint, site):
    endpoint.close()

    assert site.transport.closed
    assert isinstance(endpoint, Endpoint)


def test_a_real_transport_that_is_closed_lets_nobody_wait():
    endpoint = DiscoveredEndpoint("http://127.0.0.1:9", "jwks_uri", Transport())
    answer = endpoint.fetch("GET")
    endpoint.close()

    with pytest.raises((TransportError, CancelledError)):
        answer.result(60)


@pytest.mark.usefixtures("no_settings")
def test_the_setting_is_for_keys_and_questions(rsa_key):
    with IssuerServer(Issuer(keys=[rsa_key])) as server:
        application = server.issuer.directory.organizations[0].applications[0]
        settings = Settings.load(
            issuer=server.url,
            audience=[server.issuer.directory.audience],
            discover=True,
            introspect_max_age=0,
            introspection_client_id=application.client_id,
            introspection_client_secret=SecretStr(application.client_secret),
        )
        authorizer = authorizer_of(settings)
        try:
            token = server.issuer.mint(application.client_id)
            call = Call(method="/a.B/C", metadata=(("authorization", f"Bearer {token}"),))
            assert run(authorizer.authorize(call)).client_id == application.client_id
            requests = dict(server.requests)
        finally:
            authorizer.close()

    assert requests == {
        "/.well-known/oauth-authorization-server": 2,
        "/oauth2/jwks": 1,
        "/oauth2/introspection": 1,
    }


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"discover": True, "jwks_url": KEYS}, "^discover: jwks_url says already"),
        ({"discover_hosts": ["a.example"]}, "^discover_hosts: needs discover"),
        ({"discover": True, "discover_hosts": ["https://a.example"]}, "^discover_hosts: 'https://a.example' is no"),
    ],
)
def test_a_setting_that_does_not_go_with_another_is_an_error(values, message):
    with pytest.raises(ConfigError, match=message):
        authorizer_of(Settings.load(issuer=ISSUER, audience=[AUDIENCE], **values))
