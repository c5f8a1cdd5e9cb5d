"""An issuer's metadata (RFC 8414): what of it is believed, and where it may send us. Rows G1 to G6."""

import contextlib
import json
import threading

import pytest

from authz.call.call import Call
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from authz.errors import AlgorithmNotAllowedError, ConfigError, KeySetUnavailableError, TokenMissingError
from authz.issuer.discovery import IssuerMetadata, discover
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.runtime.flow import run
from authz.runtime.network.transport import Transport, TransportError
from tests.doubles import AUDIENCE, ISSUER, JWKS_URL, FakeTransport, json_response, jwks, m2m_claims
from tests.loopback import Connection, Loopback

OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


class Site:
    """Documents in memory, by address; everything else is not found."""

    def __init__(self, **pages):
        self.pages = pages
        self.transport = FakeTransport(self._answer)

    def _answer(self):
        page = self.pages.get(self.transport.requests[-1].url, b"")
        return page if not isinstance(page, bytes | dict) else json_response(page, 200 if page else 404)

    @property
    def asked(self):
        return [request.url for request in self.transport.requests]


def metadata(issuer=ISSUER, **changes):
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/oauth2/jwks",
        "introspection_endpoint": f"{issuer}/oauth2/introspection",
        "token_endpoint": f"{issuer}/oauth2/token",
        **changes,
    }


def find(document, issuer=ISSUER, **options):
    site = Site(**{issuer + OAUTH: document})
    return run(discover(issuer, site.transport, **options))


# ---- G1: where it is ----


def test_the_endpoints_of_the_issuer_are_found():
    assert find(metadata()) == IssuerMetadata(
        issuer=ISSUER,
        jwks_uri=JWKS_URL,
        introspection_endpoint=f"{ISSUER}/oauth2/introspection",
        token_endpoint=f"{ISSUER}/oauth2/token",
    )


def test_what_is_not_published_is_none():
    document = {"issuer": ISSUER, "jwks_uri": JWKS_URL, "token_endpoint": None}

    assert find(document) == IssuerMetadata(issuer=ISSUER, jwks_uri=JWKS_URL)


@pytest.mark.parametrize(
    ("issuer", "first", "second"),
    [
        pytest.param(ISSUER, ISSUER + OAUTH, ISSUER + OPENID, id="G1-no-path"),
        pytest.param(ISSUER + "/", ISSUER + OAUTH, ISSUER + OPENID, id="G1-slash"),
        pytest.param(ISSUER + "/t/a", ISSUER + OAUTH + "/t/a", ISSUER + "/t/a" + OPENID, id="G1-path"),
        pytest.param(ISSUER + "/t/a/", ISSUER + OAUTH + "/t/a", ISSUER + "/t/a" + OPENID, id="G1-path-and-slash"),
        pytest.param(ISSUER + ":8443", ISSUER + ":8443" + OAUTH, ISSUER + ":8443" + OPENID, id="G1-port"),
    ],
)
def test_the_name_is_inserted_between_host_and_path_or_appended(issuer, first, second):
    """RFC 8414 section 3.1 inserts it, OpenID Connect Discovery section 4 appends its own."""
    site = Site(**{second: metadata(issuer, jwks_uri=JWKS_URL)})
    found = run(discover(issuer, site.transport))

    assert (found.jwks_uri, site.asked) == (JWKS_URL, [first, second])


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(json_response(b"", 404), id="404"),
        pytest.param(json_response(metadata(), 500), id="500"),
        pytest.param(json_response(b"", 301), id="301"),
        pytest.param(b"<html>Welcome</html>", id="a-page"),
        pytest.param(b"[]", id="a-list"),
        pytest.param({}, id="empty"),
        pytest.param(metadata("https://other.authkit.app"), id="another-tenant"),
        pytest.param(metadata(ISSUER + "/"), id="another-spelling"),
        pytest.param({"issuer": ISSUER}, id="without-keys"),
    ],
)
def test_openid_is_asked_where_the_first_has_nothing(answer):
    site = Site(**{ISSUER + OAUTH: answer, ISSUER + OPENID: metadata()})

    assert run(discover(ISSUER, site.transport)).jwks_uri == JWKS_URL


@pytest.mark.parametrize(
    "failure",
    [
        TransportError("timeout"),
        TransportError("redirect"),
        TransportError("too_large"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_an_issuer_that_is_down_is_unavailable(failure):
    site = Site()
    site.transport.down(failure)

    with pytest.raises(KeySetUnavailableError, match=f"^no metadata of {ISSUER}: "):
        run(discover(ISSUER, site.transport))
    assert site.asked == [ISSUER + OAUTH, ISSUER + OPENID]


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"\xff", b'{"issuer":"a","issuer":"b"}', b'{"a":' + b"[" * 5000], ids=ascii
)
def test_what_is_no_json_object_is_unavailable(body):
    with pytest.raises(KeySetUnavailableError, match=": not JSON"):
        find(body)


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param("http://acme.authkit.app", id="G1-http"),
        pytest.param("http://169.254.169.254", id="G1-metadata-service"),
        pytest.param("acme.authkit.app", id="G1-no-scheme"),
        pytest.param("https://user@acme.authkit.app", id="G1-user"),
        pytest.param(ISSUER + "?a=b", id="G1-query"),
        pytest.param(ISSUER + "#f", id="G1-fragment"),
        pytest.param("", id="G1-empty"),
    ],
)
def test_what_cannot_be_an_issuer_is_asked_nothing(issuer):
    site = Site()

    with pytest.raises(ConfigError, match=r"^issuer: "):
        run(discover(issuer, site.transport))
    assert site.asked == []


# ---- G2: whose it is ----


@pytest.mark.parametrize(
    "named",
    [
        pytest.param("https://evil.example", id="G2-mix-up"),
        pytest.param(ISSUER + "/", id="G2-trailing-slash"),
        pytest.param(ISSUER.upper(), id="G2-upper-case"),
        pytest.param(ISSUER + ":443", id="G2-default-port"),
        pytest.param("", id="G2-empty"),
        pytest.param([ISSUER], id="G2-list"),
        pytest.param(None, id="G2-null"),
    ],
)
def test_metadata_of_another_issuer_is_discarded(named):
    with pytest.raises(ConfigError, match=r"^issuer: the metadata found at .* is another issuer's"):
        find(metadata() | {"issuer": named})


def test_the_issuer_that_was_found_is_named():
    with pytest.raises(ConfigError, match=rf"at {ISSUER}{OAUTH} is another issuer's, 'https://auth\.globex\.example';"):
        find(metadata("https://auth.globex.example"))


def test_what_was_found_is_shown_in_bounds_and_on_one_line():
    with pytest.raises(ConfigError) as caught:
        find(metadata("https://evil.example/\x1b[2J\n" + "x" * 100_000))

    assert "\\x1b[2J\\n" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_why_neither_place_has_it_is_said():
    site = Site(**{ISSUER + OAUTH: b"<html>", ISSUER + OPENID: json_response(b"", 503)})

    with pytest.raises(KeySetUnavailableError, match=r": not JSON, status 503$"):
        run(discover(ISSUER, site.transport))


def test_metadata_without_issuer_is_discarded():
    with pytest.raises(ConfigError, match=r"^issuer: "):
        find({"jwks_uri": JWKS_URL})


# ---- G3: where it sends us ----

ENDPOINTS = ("jwks_uri", "introspection_endpoint", "token_endpoint")


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://acme.authkit.app/keys", id="G3-http"),
        pytest.param("http://169.254.169.254/latest/meta-data", id="G3-http-metadata-service"),
        pytest.param("https://169.254.169.254/keys", id="G3-metadata-service"),
        pytest.param("https://evil.example/keys", id="G3-other-host"),
        pytest.param("https://acme.authkit.app.evil.example/keys", id="G3-longer-host"),
        pytest.param("https://evil-acme.authkit.app/keys", id="G3-other-subdomain"),
        pytest.param("https://authkit.app/keys", id="G3-parent-domain"),
        pytest.param("https://acme.authkit.app./keys", id="G3-root-dot"),
        pytest.param("https://acme.authkit.app@evil.example/keys", id="G3-user"),
        pytest.param("https://acme.authkit.app\\@evil.example/keys", id="G3-backslash"),
        pytest.param("http://127.0.0.1/keys", id="G3-loopback"),
        pytest.param("file:///etc/passwd", id="G3-file"),
        pytest.param("data:application/json,{}", id="G3-data"),
        pytest.param("//evil.example/keys", id="G3-no-scheme"),
        pytest.param("/oauth2/jwks", id="G3-relative"),
        pytest.param("https://acme.authkit.app/keys\r\nx: y", id="G3-crlf"),
        pytest.param("", id="G3-empty"),
        pytest.param(5, id="G3-number"),
        pytest.param([JWKS_URL], id="G3-list"),
        pytest.param({}, id="G3-object"),
        pytest.param(False, id="G3-false"),
    ],
)
def test_an_endpoint_elsewhere_is_refused(name, url):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        find(metadata() | {name: url})


def test_the_host_is_compared_in_any_case():
    """RFC 3986 section 6.2.2.1."""
    url = "https://ACME.authkit.app/keys"

    assert find(metadata(jwks_uri=url)).jwks_uri == url


def test_another_host_can_be_allowed():
    url = "https://keys.example/acme"

    assert find(metadata(jwks_uri=url), allowed_hosts=["keys.example"]).jwks_uri == url


def test_an_allowed_host_allows_no_other():
    with pytest.raises(ConfigError, match=r"^jwks_uri: .* names the host 'evil.example'"):
        find(metadata(jwks_uri="https://evil.example/"), allowed_hosts=["keys.example"])


def test_an_allowed_host_still_needs_https():
    with pytest.raises(ConfigError, match=r"^jwks_uri: .* must use https"):
        find(metadata(jwks_uri="http://keys.example/"), allowed_hosts=["keys.example"])


def test_keys_are_needed():
    with pytest.raises(ConfigError, match=r"^issuer: .* names no jwks_uri; give jwks_url"):
        find({"issuer": ISSUER})


# ---- G4: what it may cost ----


@pytest.fixture
def reason():
    return ""


@pytest.fixture
def network(reason):
    # Only what is a timeout is to run into it: on a busy machine anything else may take its time.
    transport = Transport(timeout=0.3 if reason == "timeout" else 120.0)
    yield transport
    transport.close()


@pytest.fixture
def serve():
    """Return a function that starts a server for the rest of the test, and returns it and its issuer."""
    with contextlib.ExitStack() as servers:

        def begin(function):
            server = servers.enter_context(Loopback(function))
            return server, server.url.removesuffix("/oauth2/jwks")

        yield begin


def test_real_metadata_is_read(network, serve):
    server, issuer = serve(lambda connection: connection.answer(document.encode()))
    document = json.dumps(metadata(issuer))

    assert run(discover(issuer, network)).jwks_uri == server.url


REDIRECT = "location: http://127.0.0.1:9/elsewhere"

MISBEHAVIOUR = [
    pytest.param(lambda it: it.answer(b"", REDIRECT, status="302 Found"), "redirect", id="G4-302"),
    pytest.param(lambda it: it.answer(b" " * 10_000_000), "too_large", id="G4-10-mb"),
    pytest.param(Connection.say_nothing, "timeout", id="G4-silent"),
    pytest.param(lambda it: it.drip(b"HTTP/1.1 200 OK\r\n" + b"x" * 1000), "timeout", id="G4-drips"),
    pytest.param(Connection.reset, "protocol", id="G4-reset"),
    pytest.param(lambda it: it.send(b"nonsense\r\n\r\n"), "protocol", id="G4-no-http"),
]


@pytest.mark.parametrize(("misbehave", "reason"), MISBEHAVIOUR)
def test_an_issuer_that_misbehaves_is_unavailable(network, serve, misbehave, reason):
    server, issuer = serve(misbehave)

    with pytest.raises(KeySetUnavailableError, match=f": {reason}$"):
        run(discover(issuer, network))
    assert len(server.requests) == 2


def test_truncated_json_is_unavailable(network, serve):
    _, issuer = serve(lambda connection: connection.answer(b'{"issuer": "htt'))

    with pytest.raises(KeySetUnavailableError, match=": not JSON"):
        run(discover(issuer, network))


# ---- G5, and a verifier that begins with it ----


@pytest.fixture
def site(ec_key):
    return Site(**{ISSUER + OAUTH: metadata(jwks_uri=f"{ISSUER}/keys"), f"{ISSUER}/keys": jwks(ec_key)})


@pytest.fixture
def discovered(site, clock):
    """Return a function that discovers a verifier."""
    return lambda **options: Verifier.discover(
        ISSUER, **{"audience": AUDIENCE, "transport": site.transport, "clock": clock.clock, **options}
    )


def test_a_verifier_fetches_its_keys_where_the_issuer_says(discovered, site, ec_key):
    verifier = discovered(algorithms=["ES256"])

    assert verifier.verify(ec_key.sign(m2m_claims())).issuer == ISSUER
    assert site.asked == [ISSUER + OAUTH, f"{ISSUER}/keys"]


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256"])
def test_metadata_never_widens_the_algorithms(discovered, site, ec_key, algorithm):
    """G5: whatever its lists say, RS256 alone is allowed by default."""
    names = ("id_token_signing_alg_values_supported", "token_endpoint_auth_signing_alg_values_supported", "alg")
    site.pages[ISSUER + OAUTH] |= {name: [algorithm, "none"] for name in names}
    token = ec_key.sign(m2m_claims(), {"alg": algorithm})

    with pytest.raises(AlgorithmNotAllowedError):
        discovered().verify(token)


def test_a_verifier_may_allow_other_hosts(discovered, site, ec_key):
    site.pages[ISSUER + OAUTH]["jwks_uri"] = "https://keys.example/"
    site.pages["https://keys.example/"] = jwks(ec_key)
    verifier = discovered(allowed_hosts=["keys.example"], algorithms=["ES256"])

    assert verifier.verify(ec_key.sign(m2m_claims())).issuer == ISSUER


def test_a_verifier_of_a_mix_up_is_not_built(discovered, site):
    site.pages[ISSUER + OAUTH]["issuer"] = "https://evil.example"

    with pytest.raises(ConfigError, match=r"^issuer: "):
        discovered()


@pytest.mark.parametrize("option", [{"jwks": {}}, {"audience": ""}, {"algorithms": ["HS256"]}])
def test_the_other_options_are_checked_as_ever(discovered, option):
    with pytest.raises(ConfigError, match=f"^{next(iter(option))}: "):
        discovered(**option)


def test_discovery_works_end_to_end(rsa_key: SigningKey):
    with IssuerServer(Issuer(keys=[rsa_key])) as server:
        directory = server.issuer.directory
        application = directory.organizations[0].applications[0]
        verifier = Verifier.discover(server.url, audience=directory.audience)
        try:
            caller = verifier.verify(server.issuer.mint(application.client_id))
        finally:
            verifier.close()

    assert caller.org_id == application.org_id
    assert server.requests == {OAUTH: 1, "/oauth2/jwks": 1}


def test_discovery_leaves_no_thread_behind_when_it_fails():
    before = set(threading.enumerate())
    with pytest.raises(KeySetUnavailableError):
        Verifier.discover("http://127.0.0.1:9", audience=AUDIENCE)

    assert [thread for thread in threading.enumerate() if thread not in before] == []


def test_resource_metadata_is_pointed_to_by_choice_only(verifier):
    """G6."""
    pointer = "https://api.acme.example/.well-known/oauth-protected-resource"
    challenges = [
        authorizer.telling.refusal(Call(method="/a.B/C", metadata=()), TokenMissingError()).headers[0].value
        for authorizer in (Authorizer(verifier), Authorizer(verifier, resource_metadata=pointer))
    ]

    assert challenges == ['Bearer realm="api"', f'Bearer realm="api", resource_metadata="{pointer}"']
