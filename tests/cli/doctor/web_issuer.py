"""An issuer on loopback whose clock, certificate and answers are as a test wants them."""

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

from authz.demo.issuer.signing import SigningKey
from tests.certificates import Certificate
from tests.doubles import jwks
from tests.loopback import Connection, Loopback

METADATA = "/.well-known/oauth-authorization-server"
KEYS = "/oauth2/jwks"

Answer = Callable[[Connection], None]


@contextlib.contextmanager
def web_issuer(
    key: SigningKey,
    *,
    tls: ssl.SSLContext | None = None,
    ahead: float = 0.0,
    names: str | None = None,
    answers: Mapping[str, Answer] | None = None,
) -> Iterator[str]:
    """Serve an issuer, and yield its URL.

    Args:
        key: the one that it publishes.
        tls: its certificate; by default it has none.
        ahead: by how many seconds its clock is wrong.
        names: what its metadata calls it, if not by its URL.
        answers: what it answers at some paths, instead of what an issuer does.

    """

    def serve(connection: Connection) -> None:
        request = server.requests[-1]
        if not request:
            # A client that only wanted to see the certificate.
            return
        path = request.split(b" ")[1].decode()
        special = (answers or {}).get(path)
        if special is not None:
            special(connection)
            return
        documents: dict[str, Any] = {METADATA: {"issuer": names or url, "jwks_uri": url + KEYS}, KEYS: jwks(key)}
        date = f"date: {formatdate(time.time() + ahead, usegmt=True)}"
        status = "200 OK" if path in documents else "404 Not Found"
        connection.answer(json.dumps(documents.get(path, {})).encode(), date, status=status)

    with Loopback(serve, tls=tls) as server:
        url = server.url.removesuffix(KEYS)
        yield url


def context_of(certificate: Certificate, folder: Path) -> ssl.SSLContext:
    """Return the context of a server with that certificate."""
    chain, key = folder / "server.pem", folder / "server.key"
    chain.write_bytes(certificate.chain)
    key.write_bytes(certificate.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context
