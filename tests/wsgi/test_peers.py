"""The other end of a connection: what a server says of its certificate, and nothing that a caller says."""

from typing import Any

import pytest

from authz import Policy
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import NewJudge, Token
from tests.certificates import Authority, Certificate, uris
from tests.wsgi.conftest import echo
from tests.wsgi.test_middleware import environ_of

CLIENT = "spiffe://cluster.local/ns/partners/sa/acme"
POLICY = {
    "name": "peers",
    "allow_rules": [
        {"name": "known", "source": {"principals": [CLIENT]}, "request": {"paths": ["/known"]}},
        {"name": "all", "request": {"paths": ["/orders"]}},
    ],
}


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return Authority().issue(*uris(CLIENT))


@pytest.fixture
def middleware(new_judge: NewJudge) -> AuthzMiddleware:
    return AuthzMiddleware(echo, new_judge(policy=Policy.from_document(POLICY)))


def status(middleware: AuthzMiddleware, path: str, token: str, **variables: Any) -> int:
    seen: list[str] = []
    b"".join(middleware(environ_of(path, token, SCRIPT_NAME="", **variables), lambda status, _: seen.append(status)))  # type: ignore[arg-type,return-value]
    return int(seen[0].split()[0])


def test_certificate_that_the_server_has_verified_counts(
    middleware: AuthzMiddleware, token: Token, certificate: Certificate
) -> None:
    tls = {"wsgi.url_scheme": "https", "SSL_CLIENT_CERT": certificate.chain.decode()}
    bound = token(cnf={"x5t#S256": certificate.thumbprint})

    assert status(middleware, "/known", token(), **tls, SSL_CLIENT_VERIFY="SUCCESS") == 200
    assert status(middleware, "/orders", bound, **tls, SSL_CLIENT_VERIFY="SUCCESS") == 200


@pytest.mark.parametrize(
    ("said", "denied"),
    [
        # No certificate: the rule does not match. Not known: it has no verdict.
        ({"wsgi.url_scheme": "http", "SSL_CLIENT_VERIFY": "SUCCESS"}, 403),
        ({"wsgi.url_scheme": "https", "SSL_CLIENT_VERIFY": "NONE"}, 403),
        ({"wsgi.url_scheme": "https"}, 401),
        ({"wsgi.url_scheme": "https", "SSL_CLIENT_VERIFY": "GENEROUS"}, 401),
        ({"wsgi.url_scheme": "https", "SSL_CLIENT_VERIFY": "FAILED:expired"}, 401),
        ({"wsgi.url_scheme": "https", "SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": ""}, 401),
        ({"wsgi.url_scheme": "https", "SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": "-----BEGIN%20CERT"}, 401),
        ({"wsgi.url_scheme": "https", "HTTP_SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": ""}, 401),
    ],
    ids=str,
)
def test_certificate_that_it_has_not_verified_counts_for_nothing(
    middleware: AuthzMiddleware, token: Token, certificate: Certificate, said: dict[str, str], denied: int
) -> None:
    pem = certificate.chain.decode()
    tls = {"SSL_CLIENT_CERT": pem, "HTTP_SSL_CLIENT_CERT": pem, **said}
    bound = token(cnf={"x5t#S256": certificate.thumbprint})

    assert status(middleware, "/known", token(), **tls) == denied
    assert status(middleware, "/orders", bound, **tls) == 401
    assert status(middleware, "/orders", token(), **tls) == 200
