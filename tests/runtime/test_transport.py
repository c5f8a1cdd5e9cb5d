import contextlib
import errno
import gc
import gzip
import json
import os
import ssl
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import ConfigError, KeySetUnavailableError
from authz.issuer.endpoint import Endpoint
from authz.issuer.remote_keys import RemoteKeySet
from authz.runtime.flow import run
from authz.runtime.network.connecting import cause_of
from authz.runtime.network.transport import HttpResponse, Transport, TransportError
from authz.runtime.network.urls import check_url, is_loopback
from tests.doubles import jwks
from tests.loopback import OK, Connection, Loopback, certificate, unreachable

PATIENCE = 120.0
"""Seconds until a test fails that should have ended long ago."""


@pytest.fixture
def transport():
    transport = Transport(timeout=PATIENCE)
    yield transport
    transport.close()


@pytest.fixture
def strict():
    transport = Transport(timeout=PATIENCE, max_bytes=1000)
    yield transport
    transport.close()


@pytest.fixture
def hasty():
    transport = Transport(timeout=0.3, max_bytes=1000)
    yield transport
    transport.close()


@pytest.fixture
def serve():
    """Return a function that starts a server for the rest of the test."""
    with contextlib.ExitStack() as servers:
        yield lambda function, **options: servers.enter_context(Loopback(function, **options))


def get(transport, url):
    return transport.fetch("GET", url).result(PATIENCE)


def failure(transport, url):
    with pytest.raises(TransportError) as caught:
        get(transport, url)
    return caught.value.reason


@contextlib.contextmanager
def new_threads():
    """Yield a list that holds, at the end, the transport's threads that have begun meanwhile."""
    before, begun = set(threading.enumerate()), []
    yield begun
    begun.extend(it for it in threading.enumerate() if it not in before and it.name == "authz-transport")


# ---- Honest answers ----


def test_a_response_is_brought_whole(transport, serve):
    server = serve(lambda connection: connection.answer(b"{}", "X-Upper: Case", "content-type: application/json"))
    response = get(transport, server.url)

    assert (response.status, response.body) == (200, b"{}")
    assert (response.headers["x-upper"], response.headers["content-type"]) == ("Case", "application/json")


@pytest.mark.parametrize("status", ["204 No Content", "404 Not Found", "429 Slow Down", "500 Oops", "503 Busy"])
def test_any_status_is_a_response(transport, serve, status):
    server = serve(lambda connection: connection.answer(b"", status=status))

    assert get(transport, server.url).status == int(status[:3])


def test_a_get_asks_for_plain_json(transport, serve):
    server = serve(lambda connection: connection.answer(b""))
    get(transport, server.url)
    lines = server.requests[0].decode().lower().split("\r\n")

    assert lines[0] == "get /oauth2/jwks http/1.1"
    assert {"accept: application/json", "accept-encoding: identity", "user-agent: grpc-org-authz"} <= set(lines)


def test_a_form_is_sent_encoded(transport, serve):
    server = serve(lambda connection: connection.answer(b""))
    transport.fetch("POST", server.url, form={"scope": "a b", "secret": "100% & =é"}, headers={"x-more": "1"}).result()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")

    assert head.startswith(b"POST ")
    assert b"\r\nx-more: 1\r\n" in head.lower()
    assert b"\r\ncontent-type: application/x-www-form-urlencoded" in head.lower()
    assert body == b"scope=a+b&secret=100%25+%26+%3D%C3%A9"


def test_an_answer_may_be_as_large_as_allowed(strict, serve):
    server = serve(lambda connection: connection.answer(b"x" * 1000))

    assert len(get(strict, server.url).body) == 1000


def test_an_answer_may_end_with_the_connection(transport, serve):
    server = serve(lambda connection: connection.send(OK, b"\r\n", b"{}"))

    assert get(transport, server.url).body == b"{}"


def test_requests_do_not_wait_for_each_other(transport, serve):
    silent, quick = serve(Connection.say_nothing), serve(lambda connection: connection.answer(b"quick"))
    pending = transport.fetch("GET", silent.url)

    assert get(transport, quick.url).body == b"quick"
    assert not pending.done()


# ---- Misbehaviour ----


def endless(connection):
    connection.send(OK, b"transfer-encoding: chunked\r\n\r\n")
    while True:
        connection.send(b"fff\r\n", b"x" * 0xFFF, b"\r\n")


def reset(connection):
    connection.send(OK, b"content-length: 100\r\n\r\n", b"x" * 50)
    connection.reset()


BOMB = gzip.compress(b"0" * 10_000_000)
ZIPPED = gzip.compress(b'{"keys": []}')


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        pytest.param(lambda connection: connection.answer(b"x" * 1001), "too_large", id="one-byte-too-many"),
        pytest.param(lambda connection: connection.answer(b"x" * 10_000_000), "too_large", id="10-mb"),
        pytest.param(endless, "too_large", id="without-end"),
        pytest.param(lambda c: c.answer(BOMB, "content-encoding: gzip"), "too_large", id="gzip-bomb"),
        pytest.param(lambda c: c.answer(BOMB[:900], "content-encoding: gzip"), "too_large", id="half-a-gzip-bomb"),
        pytest.param(lambda c: c.answer(ZIPPED[:-4], "content-encoding: gzip"), "encoding", id="truncated-gzip"),
        pytest.param(lambda c: c.answer(ZIPPED + b"x", "content-encoding: gzip"), "encoding", id="more-than-gzip"),
        pytest.param(lambda c: c.answer(b"{}", "content-encoding: gzip"), "encoding", id="no-gzip-at-all"),
        pytest.param(lambda c: c.answer(b"", "content-encoding: gzip"), "encoding", id="empty-gzip"),
        pytest.param(lambda c: c.answer(b"x", "content-encoding: br"), "encoding", id="brotli"),
        pytest.param(lambda c: c.answer(ZIPPED, "content-encoding: identity, gzip"), "encoding", id="a-list"),
        pytest.param(lambda c: c.answer(gzip.compress(ZIPPED), "content-encoding: gzip, gzip"), "encoding", id="twice"),
        pytest.param(lambda c: c.send(OK, b"content-length: 100\r\n\r\n{}"), "protocol", id="truncated"),
        pytest.param(lambda c: c.send(OK, b"transfer-encoding: chunked\r\n\r\n5\r\nab"), "protocol", id="half-a-chunk"),
        pytest.param(lambda c: c.send(OK, b"transfer-encoding: chunked\r\n\r\nzz\r\n"), "protocol", id="bad-chunk"),
        pytest.param(reset, "protocol", id="reset-in-the-body"),
        pytest.param(Connection.reset, "protocol", id="reset-before-the-head"),
        pytest.param(lambda _: None, "protocol", id="closed-without-a-word"),
        pytest.param(lambda c: c.send(b"SSH-2.0-OpenSSH_9.9\r\n"), "protocol", id="not-http"),
        pytest.param(lambda c: c.send(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 50_000), "protocol", id="endless-head"),
        pytest.param(lambda c: c.send(OK, b"content-length: -5\r\n\r\n"), "protocol", id="negative-length"),
        pytest.param(
            lambda c: c.send(OK, b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"), "protocol", id="two-lengths"
        ),
    ],
)
def test_misbehaviour_is_a_failure_before_the_deadline(strict, serve, misbehave, reason):
    assert failure(strict, serve(misbehave).url) == reason


@pytest.mark.parametrize(
    "misbehave",
    [
        pytest.param(Connection.say_nothing, id="silence"),
        pytest.param(lambda c: c.drip(OK + b"x" * 5000), id="head-drips"),
        pytest.param(lambda c: (c.send(OK, b"\r\n"), c.drip(b"x" * 900)), id="body-drips"),
        pytest.param(lambda c: c.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100), id="interim-answers-drip"),
    ],
)
def test_slowness_is_a_failure_at_the_deadline(hasty, serve, misbehave):
    """A client with a timeout for each byte would get all of them, and another end than this one."""
    assert failure(hasty, serve(misbehave).url) == "timeout"


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip", "gzip "])
def test_an_answer_that_comes_compressed_all_the_same_is_read(strict, serve, name):
    server = serve(lambda connection: connection.answer(ZIPPED, f"content-encoding: {name}"))

    assert get(strict, server.url).body == b'{"keys": []}'


@pytest.mark.parametrize("size", [999, 1000])
def test_the_size_of_an_answer_is_that_of_what_was_compressed(strict, serve, size):
    server = serve(lambda connection: connection.answer(gzip.compress(b"x" * size), "content-encoding: gzip"))

    assert get(strict, server.url).body == b"x" * size


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(transport, serve, status):
    target = serve(lambda connection: connection.answer(b"{}"))
    server = serve(lambda c: c.answer(b"", f"location: {target.url}", status=f"{status} Moved"))

    assert (failure(transport, server.url), target.requests) == ("redirect", [])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_port_that_refuses_is_named(transport, scheme):
    with unreachable() as url:
        assert failure(transport, url.replace("http:", f"{scheme}:")) == "refused"


def test_a_plain_server_behind_https_speaks_no_tls(transport, serve):
    server = serve(lambda connection: connection.answer(b"{}"))

    assert failure(transport, server.url.replace("http:", "https:")) == "tls"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_a_host_name_without_an_address_is_named(transport, host):
    assert failure(transport, f"https://{host}/oauth2/jwks") == "name"


@pytest.mark.parametrize(
    ("cause", "word"),
    [
        (OSError(errno.ENETUNREACH, "no route"), "unreachable"),
        (OSError(errno.EHOSTUNREACH, "no route"), "unreachable"),
        (OSError(errno.EMFILE, "too many open files"), "connect"),
        (ExceptionGroup("all addresses", [TimeoutError(), ConnectionRefusedError()]), "refused"),
        (ssl.SSLError("no shared cipher"), "tls"),
    ],
)
def test_what_led_to_an_error_says_why_there_is_no_connection(cause, word):
    error = OSError("All connection attempts failed")
    error.__cause__ = cause

    assert cause_of(error) == word


# The client library closes a socket whose handshake is cancelled only when it is collected.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_handshake_that_hangs_is_a_timeout(hasty, serve):
    server = serve(Connection.say_nothing)

    assert failure(hasty, server.url.replace("http:", "https:")) == "timeout"
    gc.collect()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/", "data:,x", "/etc/passwd", "http://"])
def test_nothing_but_http_is_spoken(transport, url):
    assert failure(transport, url) == "protocol"


def test_a_failure_tells_nothing_but_its_reason(transport):
    with unreachable() as url, pytest.raises(TransportError) as caught:
        get(transport, url)

    assert (str(caught.value), caught.value.__cause__, caught.value.__suppress_context__) == ("refused", None, True)


def test_a_server_that_misbehaved_is_asked_again(transport, serve):
    answers = iter([Connection.reset, lambda connection: connection.answer(b"better")])
    server = serve(lambda connection: next(answers)(connection))  # noqa: PLW0108 - another one each time

    assert failure(transport, server.url) == "protocol"
    assert get(transport, server.url).body == b"better"


# ---- TLS ----


def test_an_authority_of_ones_own_is_trusted(serve, tmp_path):
    file, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)
    transport = Transport(ca_file=str(file))

    assert get(transport, server.url).body == b"secret"
    transport.close()


def test_an_unknown_authority_is_not_trusted(transport, serve, tmp_path):
    _, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)

    assert (failure(transport, server.url), server.requests) == ("certificate", [])


def test_a_certificate_for_another_name_is_not_trusted(serve, tmp_path):
    file, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)
    transport = Transport(ca_file=str(file))

    assert failure(transport, server.url.replace("127.0.0.1", "localhost")) == "certificate"
    transport.close()


def test_an_empty_name_of_a_file_does_not_mean_all_authorities_of_the_system():
    with pytest.raises(ConfigError, match=r"^ca_file: empty"):
        Transport(ca_file="")


def test_the_authorities_of_the_environment_are_trusted(serve, tmp_path, monkeypatch):
    file, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    transport = Transport()

    assert get(transport, server.url).body == b"secret"
    transport.close()


def test_an_authority_that_is_given_goes_before_those_of_the_environment(serve, tmp_path, monkeypatch):
    file, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    transport = Transport(ca_file=str(file))

    assert get(transport, server.url).body == b"secret"
    transport.close()


def test_an_authority_of_the_environment_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))

    with pytest.raises(ConfigError, match=r"^SSL_CERT_FILE: '.*missing\.pem' cannot be read"):
        Transport()


def test_a_file_of_authorities_that_was_replaced_is_read_again(serve, tmp_path):
    (tmp_path / "old").mkdir()
    file, _ = certificate(tmp_path)
    of_another, context = certificate(tmp_path / "old")
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)
    before = Transport(ca_file=str(file))
    assert failure(before, server.url) == "certificate"

    file.write_bytes(of_another.read_bytes())
    after = Transport(ca_file=str(file))

    assert get(after, server.url).body == b"secret"
    before.close()
    after.close()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"^ca_file: '.*ca\.pem' cannot be read"):
        Transport(ca_file=str(file))


def test_an_impossible_name_of_a_file_of_authorities_is_named():
    with pytest.raises(ConfigError, match=r"^ca_file: 'a\\x00b' cannot be read"):
        Transport(ca_file="a\0b")


# ---- Proxies ----


@pytest.fixture
def proxy(serve, monkeypatch):
    proxy = serve(lambda connection: connection.answer(b"by proxy"))
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy.url)
    return proxy


def test_proxies_of_the_environment_are_not_used(proxy, transport, serve):
    server = serve(lambda connection: connection.answer(b"direct"))

    assert (get(transport, server.url).body, proxy.requests) == (b"direct", [])


@pytest.fixture
def by_proxy(monkeypatch):
    """Return a function that sets the proxies of the environment, and returns a transport that uses them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    made = []

    def begin(**proxies):
        for name, url in proxies.items():
            monkeypatch.setenv(name, url)
        made.append(Transport(timeout=PATIENCE, trust_env=True))
        return made[-1]

    yield begin
    for transport in made:
        transport.close()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_proxies_of_the_environment_can_be_used(by_proxy, serve, name):
    proxy = serve(lambda connection: connection.send(b"HTTP/1.1 403 Forbidden\r\n\r\n"))
    transport = by_proxy(**{name: proxy.url})

    assert failure(transport, "https://acme.authkit.example/jwks") == "proxy"
    assert proxy.requests[0].startswith(b"CONNECT acme.authkit.example:443 ")


def test_a_host_that_needs_no_proxy_is_asked_directly(by_proxy, serve, tmp_path):
    proxy = serve(lambda connection: connection.answer(b"by proxy"))
    _, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"direct"), tls=context)
    transport = by_proxy(HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1")

    assert (failure(transport, server.url), proxy.requests) == ("certificate", [])


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_http_goes_to_this_machine_only_whatever_the_proxy(by_proxy, serve, name):
    proxy = serve(lambda connection: connection.answer(b"by proxy"))
    server = serve(lambda connection: connection.answer(b"direct"))
    transport = by_proxy(**{name: proxy.url})

    assert (get(transport, server.url).body, proxy.requests) == (b"direct", [])


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9", "http://no-such-proxy.invalid", "socks9://a", "http://[", "::"]
)
def test_a_proxy_that_cannot_be_used_is_named_as_the_cause(by_proxy, proxy):
    assert failure(by_proxy(HTTPS_PROXY=proxy), "https://acme.authkit.example/jwks") == "proxy"


def test_what_is_wrong_with_the_server_behind_a_proxy_is_not_the_proxys(by_proxy, serve, tmp_path):
    _, context = certificate(tmp_path)
    server = serve(lambda connection: connection.answer(b"secret"), tls=context)
    port = int(server.url.split(":")[2].partition("/")[0])

    def tunnel(connection):
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.join("127.0.0.1", port)

    proxy = serve(tunnel)

    assert failure(by_proxy(HTTPS_PROXY=proxy.url), "https://acme.authkit.example/jwks") == "certificate"
    assert proxy.requests


# ---- Its thread ----


def test_the_first_request_starts_the_one_thread(transport, serve):
    server = serve(lambda connection: connection.answer(b""))
    with new_threads() as idle:
        Transport()
    with new_threads() as busy:
        for _ in range(3):
            get(transport, server.url)

    assert (len(idle), len(busy)) == (0, 1)


def test_closing_ends_the_thread_and_what_is_under_way(serve):
    server = serve(Connection.say_nothing)
    transport = Transport(timeout=PATIENCE)
    with new_threads() as begun:
        pending = transport.fetch("GET", server.url)
        assert server.asked.wait(PATIENCE)

    transport.close()

    assert [thread.is_alive() for thread in begun] == [False]
    with pytest.raises(CancelledError):
        pending.result(PATIENCE)


def test_closing_twice_is_closing_once(transport, serve):
    get(transport, serve(lambda connection: connection.answer(b"")).url)
    transport.close()
    transport.close()


def test_after_closing_a_request_starts_anew(transport, serve):
    server = serve(lambda connection: connection.answer(b"again"))
    get(transport, server.url)
    transport.close()

    assert get(transport, server.url).body == b"again"


def test_a_transport_may_be_closed_from_its_own_thread(transport, serve):
    """As a callback of one of its futures might do."""
    server = serve(lambda connection: connection.answer(b""))
    closed = threading.Event()
    future = transport.fetch("GET", server.url)

    def close(_):
        transport.close()
        closed.set()

    future.add_done_callback(close)

    assert closed.wait(PATIENCE)


def test_closing_while_a_connection_begins_leaves_nothing_behind(transport, serve):
    """What the request has begun by then must end with it, else Python warns on standard error."""
    server = serve(lambda connection: connection.answer(b""))
    pending = []

    def begin_and_close(_):
        pending.append(transport.fetch("GET", server.url))
        transport.close()

    with new_threads() as begun:
        future = transport.fetch("GET", server.url)
        future.add_done_callback(begin_and_close)
        future.result(PATIENCE)
        for thread in threading.enumerate():
            if thread.name == "authz-transport":
                thread.join(PATIENCE)
    gc.collect()

    assert begun == []
    assert pending[0].cancelled()


def test_a_forgotten_transport_ends_its_thread(serve):
    server = serve(lambda connection: connection.answer(b""))
    transport = Transport()
    with new_threads() as begun:
        get(transport, server.url)

    del transport
    gc.collect()

    assert [thread.is_alive() for thread in begun] == [False]


# ---- Behind a key set ----


@pytest.mark.parametrize(
    "misbehave",
    [
        pytest.param(lambda c: c.answer(b"<html>", "content-type: text/html"), id="html"),
        pytest.param(lambda c: c.answer(b"{}", status="500 Oops"), id="500"),
        pytest.param(lambda c: c.answer(b'{"keys":[]}'), id="no-keys"),
        pytest.param(lambda c: c.answer(b"x" * 10_000_000), id="10-mb"),
        pytest.param(lambda c: c.answer(b"", "location: http://127.0.0.1/", status="302 Found"), id="redirect"),
        pytest.param(lambda c: c.drip(OK), id="drip"),
        pytest.param(Connection.reset, id="reset"),
    ],
)
def test_an_issuer_that_misbehaves_is_unavailable(hasty, serve, misbehave):
    keys = RemoteKeySet(Endpoint(serve(misbehave).url, hasty))

    with pytest.raises(KeySetUnavailableError):
        run(keys.find("ec-1"))


def test_keys_come_over_http(transport, serve, ec_key):
    server = serve(lambda connection: connection.answer(json.dumps(jwks(ec_key)).encode()))

    assert run(RemoteKeySet(Endpoint(server.url, transport)).find("ec-1")).kid == "ec-1"


# ---- Addresses ----


@pytest.mark.parametrize(
    "url",
    [
        *("https://acme.authkit.app", "https://acme.authkit.app/", "https://acme.authkit.app:8443/a?b=c"),
        *("HTTPS://ACME.authkit.app", "https://10.0.0.1", "https://[2001:db8::1]/", "https://acme.authkit.app./x/y"),
        *(
            "https://issuer",
            "https://issuer_1.prod:8443",
            "https://xn--caf-dma.example",
            "https://" + "a" * 63 + ".app",
        ),
        *("http://localhost:8080", "http://127.0.0.1", "http://127.8.9.1:1", "http://[::1]:8080/"),
        *("https://acme.example/keys,2.json?for=https://b.example", "https://acme.example/a%7Bb%7D;c=d~e"),
    ],
)
def test_https_and_loopback_are_good_addresses(url):
    assert check_url(url, "issuer") == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "acme.authkit.app", "//acme.authkit.app", "https://", "https:///jwks", "https:acme", "://x"),
        *("http://acme.authkit.app", "http://10.0.0.1", "http://169.254.169.254/", "http://0.0.0.0", "http://[::]/"),
        *("http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://127.1", "http://2130706433"),
        *("http://[::ffff:10.0.0.1]/", "ftp://localhost/", "file:///etc/passwd", "data:,x", "ws://localhost"),
        *("https://user@acme.authkit.app", "https://user:secret@acme.authkit.app", "https://:@a", "https://@a"),
        *("http://localhost@evil.example/", "http://localhost\\@evil.example/", "https://acme\\.evil.example"),
        *(
            "https://acme.authkit.app/#x",
            "https://acme.authkit.app:port",
            "https://acme.authkit.app:99999",
            "https://[",
        ),
        *(
            "https://acme.authkit.app\n",
            " https://acme.authkit.app",
            "https://acme .app",
            "https://acmé.app",
            "https://a\x7f",
        ),
        *("https://a\0b", "https://\ud800"),
        # What is written by mistake where one address belongs.
        *("https://acme.authkit.app,https://globex.authkit.app", "https://acme.authkit.app,globex.authkit.app"),
        *("https://<subdomain>.authkit.app", "https://${SUBDOMAIN}.authkit.app", "https://{subdomain}.authkit.app"),
        *("https://https://acme.authkit.app", "https://https:acme.authkit.app", "https://acme.authkit.app:"),
        *(
            "https://a|b",
            "https://a;b",
            "https://*.authkit.app",
            "https://acme..app",
        ),
        *("https://-acme.app", "https://acme-.app", "https://.authkit.app", "https://'acme'", "https://" + "a" * 64),
        *("https://" + ".".join(["a" * 60] * 5), "https://[v1.x]", "https://[::1%25lo]", "https://acme%2eapp"),
        *("https://a.example/jwks,https://b.example/jwks", "https://a.example/jwks|https://b.example/jwks"),
        *("https://a.example/https://b.example/jwks"),
        *("https://acme.example/{tenantid}/v2.0", "https://acme.example/<realm>", "https://acme.example/${REALM}/jwks"),
        *('https://acme.example/"jwks"', "https://acme.example/^jwks", "https://acme.example/`jwks`"),
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ConfigError, match=r"^issuer: "):
        check_url(url, "issuer")


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@acme.authkit.app", "http://user:hunter2@acmé.app", "https://user:hunter2 @acme"]
)
def test_a_refused_address_does_not_show_its_password(url):
    with pytest.raises(ConfigError) as caught:
        check_url(url, "issuer")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("localhost", True), ("127.0.0.1", True), ("127.255.0.9", True), ("::1", True)),
        *(
            ("169.254.169.254", False),
            ("10.0.0.1", False),
            ("::", False),
            ("localhost.localdomain", False),
            ("", False),
        ),
    ],
)
def test_loopback_is_this_very_machine(host, loopback):
    assert is_loopback(host) is loopback


def test_a_thread_that_has_died_fails_its_requests_and_is_replaced(serve, caplog):
    silent, quick = serve(Connection.say_nothing), serve(lambda connection: connection.answer(b"again"))
    transport = Transport(timeout=PATIENCE)
    pending = transport.fetch("GET", silent.url)
    assert silent.asked.wait(PATIENCE)
    before = [thread for thread in threading.enumerate() if thread.name == "authz-transport"]
    # Ends the loop from within, as an exit that a callback asks for does.
    transport.fetch("GET", quick.url).add_done_callback(exit_thread)
    with pytest.raises(TransportError, match=r"^closed$"):
        pending.result(PATIENCE)
    for thread in before:
        thread.join(PATIENCE)

    assert get(transport, quick.url).body == b"again"
    transport.close()

    assert "transport_thread_died" in caplog.text


def exit_thread(_):
    raise SystemExit


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_a_process_without_real_threads_is_told_at_once(tmp_path, library):
    program = f"""
import sys, types

patcher = types.ModuleType("patcher")
patcher.is_module_patched = patcher.is_monkey_patched = lambda name: name == "threading"
sys.modules["gevent.monkey" if {library!r} == "gevent" else "eventlet.patcher"] = patcher
from authz import Verifier

Verifier(issuer="https://acme.authkit.app", audience="client_1")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )

    assert f"ConfigError: {library}: it has replaced threads" in done.stderr


def test_a_request_that_cannot_even_begin_is_a_failed_request(tmp_path):
    """A process without file descriptors can open no event loop; one that has them again goes on."""
    program = """
import os, resource
from authz.runtime.network.transport import Transport, TransportError

transport = Transport()
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), most))
print(repr(transport.fetch("GET", "http://127.0.0.1:9/").exception()))
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
print(repr(transport.fetch("GET", "http://127.0.0.1:9/").exception()))
transport.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout.splitlines() == ["TransportError('exhausted')", "TransportError('refused')"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "issuer.invalid"])
def test_a_process_without_descriptors_is_no_outage_of_the_server(tmp_path, host):
    """R1: a caller that opens connections until none are left must not make the issuer look as if it were down."""
    program = f"""
import os, resource
from authz.runtime.network.transport import Transport, TransportError

transport = Transport()
before = transport.fetch("GET", "http://{host}:9/").exception()
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, most))
during = transport.fetch("GET", "http://{host}:9/").exception()
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
for error in before, during:
    print(error.reason, error.is_outage)
transport.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        # What this process imports, and not what is installed.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    before, during = done.stdout.splitlines()
    assert (before, during) == ("name True" if host.endswith(".invalid") else "refused True", "exhausted False")


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        pytest.param("", 0.0, id="nothing"),
        pytest.param("17", 17.0, id="seconds"),
        pytest.param("Sun, 06 Nov 1994 08:50:37 GMT", 60.0, id="imf-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:50:37 GMT", 60.0, id="rfc-850"),
        pytest.param("Sun Nov  6 08:50:37 1994", 60.0, id="asctime"),
        pytest.param("Sun, 06 Nov 1994 08:48:37 GMT", 0.0, id="over"),
        pytest.param("Sun, 06 Nov 99999999 08:48:37 GMT", 0.0, id="no-year"),
        pytest.param("Sun, 06 Nov 1994 08:50:37 +9999", 0.0, id="no-zone"),
        pytest.param("Sun, 06", 0.0, id="cut"),
        pytest.param("," * 100_000, 0.0, id="long"),
    ],
)
def test_retry_after_may_be_a_date(retry_after, seconds):
    """RFC 9110 section 10.2.3: by the server's clock if it tells its date, else by ours."""
    headers = {"retry-after": retry_after}
    told = HttpResponse(status=503, headers={**headers, "date": DATE}, body=b"", received_at=0.0)
    untold = HttpResponse(status=503, headers=headers, body=b"", received_at=784111777.0)

    assert (told.retry_after, untold.retry_after) == (seconds, seconds)


@given(st.text(max_size=50))
def test_any_text_is_a_date_or_none(value):
    response = HttpResponse(status=503, headers={"date": value, "retry-after": value}, body=b"")

    assert response.date is None or isinstance(response.date, float)
    assert response.retry_after >= 0


def test_a_request_that_begins_another_when_it_ends_does_not_keep_it_from_being_closed(serve):
    """As a callback that asks the next endpoint does: on the thread that ``close`` waits for."""
    transport = Transport()
    began = threading.Event()

    def begin(_future):
        began.set()
        transport.fetch("GET", "http://127.0.0.1:9/")

    server = serve(Connection.say_nothing)
    transport.fetch("GET", server.url).add_done_callback(begin)
    transport.close()
    transport.close()

    assert began.is_set()
