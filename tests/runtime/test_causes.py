"""Why another server gives no answer: one word for each cause, wherever it is shown."""

import json
import logging
import re
from pathlib import Path

import pytest

from authz.call.refusal import Challenge, refusal_of
from authz.errors import AuthzError, KeySetUnavailableError, TokenEndpointError
from authz.issuer.discovery import discover
from authz.issuer.endpoint import Endpoint
from authz.issuer.remote_keys import RemoteKeySet
from authz.issuer.token_source import ClientCredentials
from authz.runtime.flow import run
from authz.runtime.network import causes
from authz.runtime.network.connecting import CAUSES, cause_of
from authz.runtime.network.transport import Transport, TransportError
from tests.doubles import FakeTransport, jwks
from tests.loopback import Connection, Loopback, certificate, unreachable

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


@pytest.fixture
def network():
    transport = Transport(timeout=PATIENCE)
    yield transport
    transport.close()


def told(url, network, caplog):
    """Return what the error, the health and the log of one failed fetch of keys say."""
    keys = RemoteKeySet(Endpoint(url, network))
    with caplog.at_level(logging.WARNING), pytest.raises(KeySetUnavailableError) as caught:
        run(keys.load())
    [logged] = [record.fields["error"] for record in caplog.records if record.event == "jwks_fetch_failed"]
    assert str(caught.value) == f"no keys from {url}: {caught.value.cause}"
    return {caught.value.cause, keys.health().error, logged}, dict(keys.health().causes)


def answering(body, *headers, status="200 OK"):
    return lambda connection: connection.answer(body, *headers, status=status)


ANSWERS = [
    pytest.param(answering(b"no", status="404 Not Found"), "status 404", "status 4xx", id="404"),
    pytest.param(answering(b"", status="407 Proxy"), "status 407", "status 4xx", id="407"),
    pytest.param(answering(b"", status="503 Down"), "status 503", "status 5xx", id="503"),
    pytest.param(answering(b"", status="999 Odd"), "status 999", "other", id="999"),
    pytest.param(answering(b"<html>"), "not JSON", "not JSON", id="login-page"),
    pytest.param(answering(b"[]"), "not JSON", "not JSON", id="array"),
    pytest.param(answering(b"{}"), "not a key set (a JWK Set needs an array 'keys')", "not a key set", id="object"),
    pytest.param(
        answering(b'{"keys": [' + b",".join([b"1"] * 65) + b"]}"),
        "not a key set (a JWK Set of more than 64 keys)",
        "not a key set",
        id="65-keys",
    ),
    pytest.param(answering(b'{"keys": []}'), "no usable key (it is empty)", "no usable key", id="empty"),
    pytest.param(answering(b"", "location: /", status="301 Moved"), "redirect", "redirect", id="redirect"),
    pytest.param(answering(b"x", "content-encoding: gzip"), "encoding", "encoding", id="no-gzip"),
    pytest.param(answering(b" " * 300_000), "too_large", "too_large", id="too-large"),
    pytest.param(Connection.reset, "protocol", "protocol", id="reset"),
]


@pytest.mark.parametrize(("serve", "cause", "label"), ANSWERS)
def test_a_cause_is_the_same_in_error_health_and_log(network, caplog, serve, cause, label):
    with Loopback(serve) as server:
        assert told(server.url, network, caplog) == ({cause}, {label: 1})


def test_what_keeps_a_connection_away_is_the_same_everywhere(network, caplog, tmp_path):
    with unreachable() as url:
        assert told(url, network, caplog) == ({"refused"}, {"refused": 1})
    caplog.clear()
    _, context = certificate(tmp_path)
    with Loopback(answering(b"{}"), tls=context) as server:
        assert told(server.url, network, caplog) == ({"certificate"}, {"certificate": 1})
    caplog.clear()
    with Loopback(answering(b"{}")) as server:
        assert told(server.url.replace("http:", "https:"), network, caplog)[1] == {"tls": 1}


def test_an_answer_that_has_not_come_yet_is_a_timeout(clock):
    transport = FakeTransport(lambda: None)
    transport.hang()
    keys = RemoteKeySet(Endpoint("https://acme.authkit.app/oauth2/jwks", transport), clock=clock.clock)
    flow = keys.load()
    next(flow)

    with pytest.raises(KeySetUnavailableError) as caught:
        flow.throw(TimeoutError())
    assert caught.value.cause == "timeout"


def test_a_set_without_a_usable_key_says_why_each_was_left_out(network, caplog, ec_key):
    members = [{**ec_key.public_jwk(), "kid": f"key-{number}", "use": "enc"} for number in range(5)]
    members += [{"kty": "oct", "k": "AA", "kid": "x" * 129}, {"kty": "odd", "kid": "last"}]
    body = json.dumps({"keys": members}).encode()
    with Loopback(answering(body)) as server:
        [[cause], counted] = told(server.url, network, caplog)

    shown = "; ".join(f"key 'key-{number}': use is not sig" for number in range(5))
    assert (cause, counted) == (f"no usable key ({shown}; and 2 more)", {"no usable key": 1})


def test_what_was_left_out_beside_good_keys_is_known(network, ec_key):
    body = json.dumps({"keys": [*jwks(ec_key)["keys"], {"kty": "odd", "kid": "odd-1"}]}).encode()
    with Loopback(answering(body)) as server:
        keys = RemoteKeySet(Endpoint(server.url, network))
        run(keys.load())

    assert keys.health().dropped == (("odd-1", "a key type or curve that is not supported"),)


@pytest.mark.parametrize(("serve", "cause", "label"), ANSWERS[:6])
def test_discovery_and_token_source_have_the_same_words(network, serve, cause, label):  # noqa: ARG001 - of keys
    with Loopback(serve) as server:
        issuer = server.url.removesuffix("/oauth2/jwks")
        with pytest.raises(KeySetUnavailableError) as metadata:
            run(discover(issuer, network))
        with pytest.raises(TokenEndpointError) as token:
            ClientCredentials(issuer, client_id="c", client_secret="s", transport=network).token()

    assert (metadata.value.cause, token.value.cause) == (cause, cause)


def test_no_cause_reaches_a_caller():
    error = KeySetUnavailableError("no keys from https://a.example: certificate", cause="certificate")
    refusal = refusal_of(error, Challenge())

    assert "certificate" not in repr(refusal)
    assert isinstance(error, AuthzError)


# ---- The words themselves ----


def test_every_cause_of_a_transport_has_a_meaning():
    words = set(re.findall(r"^    - ``(\w+)``:", TransportError.__doc__ + cause_of.__doc__, re.MULTILINE))

    assert words > {*CAUSES, "proxy", "timeout"}
    assert words <= set(causes.MEANINGS)


@pytest.mark.parametrize(
    ("cause", "label", "word"),
    [
        ("", "", ""),
        ("name", "name", "name"),
        ("status 404", "status 4xx", "status 404"),
        ("status 401 (invalid_client)", "status 4xx", "status 401"),
        ("status 777", "other", "other"),
        ("status 4040", "other", "other"),
        ("status", "status", "status"),
        ("no usable key (key 'status 404': use is not sig)", "no usable key", "no usable key"),
        ("words of a directory of one's own", "other", "other"),
    ],
)
def test_a_label_is_one_of_few(cause, label, word):
    assert (causes.label(cause), causes.word(cause)) == (label, word)


def test_every_word_says_what_it_means_and_what_to_do():
    assert causes.meaning("status 404").startswith("The server answered with another HTTP status than 200.")
    assert causes.meaning("certificate").startswith("No trusted authority")
    assert (causes.meaning(""), causes.meaning("something else")) == ("", "")
    assert all(len(re.findall(r"\.(?: |$)", text)) >= 2 for text in causes.MEANINGS.values())


def test_the_document_has_every_word():
    text = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", text.partition("gives no answer\n")[2], re.MULTILINE)

    assert dict(rows) == causes.MEANINGS
